-- 0023_lot_history
-- purpose: a lot's past for those who may only read
-- depends: 0021
-- rollback: yes
-- creates: raw.lot_versions, raw.file_manifests, raw.file_sightings, raw.lot_sightings, audit.lot_changes, audit.vehicle_changes, raw.idx_csv_files_late

-- The row versions of a lot by its canonical number. `late` is true for a file that came late: only such a file's manifest
-- may hold a version that was stored in a newer window. Rows inserted by hand have no key; theirs is read from the payload.
create or replace view raw.lot_versions as
select
  f.source,
  r.lot,
  r.id as row_id,
  r.window_start_utc,
  r.file_id,
  f.complete is null as late,
  f.headers_jsonb as header,
  r.payload_jsonb as payload
from raw.rows as r
join raw.csv_files as f
  on f.file_id = r.file_id
where r.lot is not null
union all
select
  f.source,
  case when w.written ~ '^0*[1-9][0-9]{0,17}$' then w.written::bigint end as lot,
  r.id,
  r.window_start_utc,
  r.file_id,
  f.complete is null,
  f.headers_jsonb,
  r.payload_jsonb
from raw.rows as r
join raw.csv_files as f
  on f.file_id = r.file_id
cross join lateral (
  select regexp_replace(r.payload_jsonb ->> 'Lot number', '[,\s\u00a0\u200b\ufeff]|\.0*\s*$', '', 'g') as written
) as w
where r.lot is null;
comment on view raw.lot_versions is 'the row versions of each lot, with the header they were read by';

-- Which versions each file holds.
create or replace view raw.file_manifests as
select
  g.source,
  g.window_start_utc,
  g.file_id,
  g.complete,
  -- a file that came again refers to versions of its first window
  g.complete is null or g.window_start_utc <> f.window_start_utc as late,
  m.row_ids
from raw.sightings as g
join raw.csv_files as f
  on f.file_id = g.file_id
join raw.manifests as m
  on m.file_id = g.file_id
  and m.window_start_utc = g.window_start_utc;
comment on view raw.file_manifests is 'the row versions that each file holds, in its order';

create index if not exists idx_csv_files_late
  on raw.csv_files (source, window_start_utc)
  where complete is null;

-- The further windows in which a file was seen: the same bytes again, or the source's answer that nothing had changed.
create or replace view raw.file_sightings as
select
  f.source,
  x.window_start_utc,
  f.file_id,
  f.window_start_utc as file_window_utc
from (
  select window_start_utc, file_id
  from raw.sightings
  where state <> 'withdrawn'
  union
  select window_start_utc, file_id
  from fleet.windows
  where state = 'unchanged'
) as x
join raw.csv_files as f
  on f.file_id = x.file_id
where x.window_start_utc <> f.window_start_utc
  and f.state in ('ingested', 'applied', 'late', 'incomplete');
comment on view raw.file_sightings is 'the windows besides its own in which each file was seen';

-- The newest window in which each open lot was seen. A window that repeats a file is a sighting of all lots of that file.
-- A lot of a source that sends changes only stays in the feed.
create or replace view raw.lot_sightings as
select
  h.source,
  h.lot,
  case
    when h.last_seen is null then greatest(s.head_window, newest.at)
    else greatest(
      h.last_seen,
      (
        select max(x.window_start_utc)
        from raw.file_sightings as x
        join raw.manifests as m
          on m.file_id = x.file_id
        where x.source = h.source
          and x.window_start_utc > h.last_seen
          and x.file_window_utc <= h.last_seen
          and h.row_id = any (m.row_ids)
      )
    )
  end as last_seen,
  h.last_seen is null or s.sends_changes as in_feed
from raw.sources as s
left join lateral (
  select max(x.window_start_utc) as at
  from raw.file_sightings as x
  where x.file_id = s.head_file_id
) as newest
  on true
join raw.heads as h
  on h.source = s.source;
comment on view raw.lot_sightings is 'the newest window that saw each open lot, and whether it stands in the newest file';

-- What has changed of a lot and of its status, {"column": [old, new]}. In the order of (applied_at, file_no, what, id)
-- each old value is the new one before it, also where windows came late; the order of windows does not promise that.
create or replace view audit.lot_changes as
select
  c.source,
  c.lot_external_id,
  c.what,
  c.window_start_utc,
  c.file_id,
  c.id,
  c.changes,
  c.reason,
  coalesce(g.ingested_at, c.at) as applied_at,
  g.file_no
from (
  select source, lot_external_id, 'lot' as what, window_start_utc, file_id, id, changes, null::text as reason, detected_at as at
  from audit.lot_conflicts
  union all
  select
    source, lot_external_id, 'status', window_start_utc, file_id, id,
    jsonb_build_object('status', jsonb_build_array(old_status, new_status)), reason, transitioned_at
  from audit.status_transitions
) as c
left join raw.sightings as g
  on g.source = c.source
  and g.window_start_utc = c.window_start_utc
  and g.file_id = c.file_id;
comment on view audit.lot_changes is 'a lot''s history: its changes and its moves of status';

-- The same of a vehicle, whichever of its lots brought it.
create or replace view audit.vehicle_changes as
select
  c.source,
  c.vin,
  c.lot_external_id,
  c.window_start_utc,
  c.file_id,
  c.id,
  c.changes,
  coalesce(g.ingested_at, c.detected_at) as applied_at,
  g.file_no
from audit.vehicle_conflicts as c
left join raw.sightings as g
  on g.source = c.source
  and g.window_start_utc = c.window_start_utc
  and g.file_id = c.file_id;
comment on view audit.vehicle_changes is 'a vehicle''s history, with the lot that brought each change';

alter view raw.lot_versions owner to vinops_admin;
alter view raw.file_manifests owner to vinops_admin;
alter view raw.file_sightings owner to vinops_admin;
alter view raw.lot_sightings owner to vinops_admin;
alter view audit.lot_changes owner to vinops_admin;
alter view audit.vehicle_changes owner to vinops_admin;
grant select on raw.lot_versions, raw.file_manifests, raw.file_sightings, raw.lot_sightings to etl_rw, app_ro, vinops_ops;
grant select on audit.lot_changes, audit.vehicle_changes to etl_rw, app_ro, vinops_ops;

-- A mapped spelling of keys or conditions codes its rows too; the boolean of the keys follows their code.
grant update (has_keys, has_keys_code, lot_condition_code) on public.lots to vinops_ops;
grant update (has_keys, has_keys_code, lot_condition_code) on staging.copart_raw to vinops_ops;
