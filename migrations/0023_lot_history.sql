-- 0023_lot_history
-- purpose: views of the history of lots and vehicles for read-only roles
-- depends: 0021
-- rollback: yes
-- creates: raw.lot_versions, raw.file_manifests, raw.file_sightings, raw.lot_sightings, audit.lot_changes, audit.vehicle_changes, raw.idx_csv_files_late

-- The row versions of a lot by its canonical number. `late` is true for a file that arrived late. Only the manifest of
-- such a file may contain a version that was stored in a newer window. Rows inserted manually have no lot number in the
-- key column, so the number is read from the payload.
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
  case when w.number_text ~ '^0*[1-9][0-9]{0,17}$' then w.number_text::bigint end as lot,
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
  select regexp_replace(r.payload_jsonb ->> 'Lot number', '[,\s\u00a0\u200b\ufeff]|\.0*\s*$', '', 'g') as number_text
) as w
where r.lot is null;
comment on view raw.lot_versions is 'the row versions of each lot, with the header that they were read with';

-- The row versions of each file.
create or replace view raw.file_manifests as
select
  g.source,
  g.window_start_utc,
  g.file_id,
  g.complete,
  -- a file that arrived again refers to versions of its first window
  g.complete is null or g.window_start_utc <> f.window_start_utc as late,
  m.row_ids
from raw.sightings as g
join raw.csv_files as f
  on f.file_id = g.file_id
join raw.manifests as m
  on m.file_id = g.file_id
  and m.window_start_utc = g.window_start_utc;
comment on view raw.file_manifests is 'the row versions of each file, in file order';

create index if not exists idx_csv_files_late
  on raw.csv_files (source, window_start_utc)
  where complete is null;

-- The further windows in which a file was seen: the same bytes again, or a response of the source that nothing had
-- changed.
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
comment on view raw.file_sightings is 'the further windows in which each file was seen';

-- The newest window in which each open lot was seen. A window that repeats a file is a sighting of all lots of that
-- file. A lot stays in the feed if its source sends changes only.
create or replace view raw.lot_sightings as
select
  h.source,
  h.lot,
  case
    when h.last_seen is null then greatest(s.head_window, head_sighting.at)
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
) as head_sighting
  on true
join raw.heads as h
  on h.source = s.source;
comment on view raw.lot_sightings is
  'the newest window in which each open lot was seen, and whether the lot is in the newest file';

-- Changes of a lot and of its status, {"column": [old, new]}. Ordered by (applied_at, file_no, what, id), each old
-- value equals the preceding new value, even if windows arrived late. Ordered by window, that is not guaranteed.
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
  select
    source, lot_external_id, 'lot' as what, window_start_utc, file_id, id, changes, null::text as reason,
    detected_at as at
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
comment on view audit.lot_changes is 'history of a lot: changes of columns and of the status';

-- Changes of a vehicle, from any of its lots.
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
comment on view audit.vehicle_changes is 'history of a vehicle, with the lot that caused each change';

alter view raw.lot_versions owner to vinops_admin;
alter view raw.file_manifests owner to vinops_admin;
alter view raw.file_sightings owner to vinops_admin;
alter view raw.lot_sightings owner to vinops_admin;
alter view audit.lot_changes owner to vinops_admin;
alter view audit.vehicle_changes owner to vinops_admin;
grant select on raw.lot_versions, raw.file_manifests, raw.file_sightings, raw.lot_sightings
to etl_rw, app_ro, vinops_ops;
grant select on audit.lot_changes, audit.vehicle_changes to etl_rw, app_ro, vinops_ops;

-- A mapped raw value of keys or conditions also assigns the code to its rows. The boolean `has_keys` follows its code.
grant update (has_keys, has_keys_code, lot_condition_code) on public.lots to vinops_ops;
grant update (has_keys, has_keys_code, lot_condition_code) on staging.copart_raw to vinops_ops;
