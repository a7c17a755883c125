-- 0023_rollback: drops views and an index. No rows are deleted.

drop view if exists audit.vehicle_changes;
drop view if exists audit.lot_changes;
drop view if exists raw.lot_sightings;
drop view if exists raw.file_sightings;
drop view if exists raw.file_manifests;
drop view if exists raw.lot_versions;
drop index if exists raw.idx_csv_files_late;

revoke update (has_keys_code, lot_condition_code) on staging.copart_raw from vinops_ops;
revoke update (has_keys_code, lot_condition_code) on public.lots from vinops_ops;
