-- 0023_lot_history
-- purpose: a lot's past for those who may only read
-- depends: 0021
-- rollback: yes
-- creates: raw.lot_versions, raw.file_manifests, raw.lot_sightings, audit.lot_changes, audit.vehicle_changes, raw.idx_csv_files_late

-- The row versions of a lot. `complete` is null for a file that came late: only such a file's manifest may hold a
-- version that was stored in a newer window.
create or replace view raw.lot_versions as
select
  r.payload_jsonb ->> 'Lot number' as lot_number,
  f.source,
  r.id as row_id,
  r.window_start_utc,
  r.file_id,
  f.complete is null as late,
  f.headers_jsonb as header,
  r.payload_jsonb as payload
from raw.rows as r
join raw.csv_files as f
  on f.file_id = r.file_id;
comment on view raw.lot_versions is 'the row versions of each lot, with the header they were read by';

-- Which versions each file holds.
create or replace view raw.file_manifests as
select
  f.source,
  f.window_start_utc,
  f.file_id,
  f.complete,
  f.complete is null as late,
  m.row_ids
from raw.csv_files as f
join raw.manifests as m
  on m.file_id = f.file_id;
comment on view raw.file_manifests is 'the row versions that each file holds, in its order';

create index if not exists idx_csv_files_late
  on raw.csv_files (source, window_start_utc)
  where complete is null;

-- Until when each open lot was seen.
create or replace view raw.lot_sightings as
select
  h.source,
  h.lot,
  coalesce(h.last_seen, s.head_window) as last_seen,
  h.last_seen is null as in_feed
from raw.heads as h
join raw.sources as s
  on s.source = h.source;
comment on view raw.lot_sightings is 'until when each open lot was seen, and whether it stands in the newest file';

-- What has changed of a lot and of its status, {"column": [old, new]}. In the order of (applied_at, file_no, what, id)
-- each old value is the new one before it, also where windows came late; the order of windows does not promise that.
create or replace view audit.lot_changes as
select
  c.lot_external_id,
  c.what,
  c.window_start_utc,
  c.file_id,
  c.id,
  c.changes,
  c.reason,
  coalesce(f.ingested_at, c.at) as applied_at,
  f.file_no
from (
  select lot_external_id, 'lot' as what, window_start_utc, file_id, id, changes, null::text as reason, detected_at as at
  from audit.lot_conflicts
  union all
  select
    lot_external_id, 'status', window_start_utc, file_id, id,
    jsonb_build_object('status', jsonb_build_array(old_status, new_status)), reason, transitioned_at
  from audit.status_transitions
) as c
left join raw.csv_files as f
  on f.file_id = c.file_id;
comment on view audit.lot_changes is 'a lot''s history: its changes and its moves of status';

-- The same of a vehicle, whichever of its lots brought it.
create or replace view audit.vehicle_changes as
select
  c.vin,
  c.lot_external_id,
  c.window_start_utc,
  c.file_id,
  c.id,
  c.changes,
  coalesce(f.ingested_at, c.detected_at) as applied_at,
  f.file_no
from audit.vehicle_conflicts as c
left join raw.csv_files as f
  on f.file_id = c.file_id;
comment on view audit.vehicle_changes is 'a vehicle''s history, with the lot that brought each change';

alter view raw.lot_versions owner to vinops_admin;
alter view raw.file_manifests owner to vinops_admin;
alter view raw.lot_sightings owner to vinops_admin;
alter view audit.lot_changes owner to vinops_admin;
alter view audit.vehicle_changes owner to vinops_admin;
grant select on raw.lot_versions, raw.file_manifests, raw.lot_sightings to etl_rw, app_ro, vinops_ops;
grant select on audit.lot_changes, audit.vehicle_changes to etl_rw, app_ro, vinops_ops;

-- A mapped spelling of keys or conditions codes its rows too.
grant update (has_keys_code, lot_condition_code) on public.lots to vinops_ops;
grant update (has_keys_code, lot_condition_code) on staging.copart_raw to vinops_ops;
