-- 0023_lot_history, taken back
drop view if exists audit.vehicle_changes;
drop view if exists audit.lot_changes;
drop view if exists raw.lot_sightings;
drop view if exists raw.file_manifests;
drop view if exists raw.lot_versions;
drop index if exists raw.idx_csv_files_late;
