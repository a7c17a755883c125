-- 0012_rollback: deletes the feed's vehicle columns and the log of their changes. The vehicles stay.

drop function if exists public.upsert_vehicles_batch;
drop function if exists public.trim_blanks;
drop function if exists raw.seen;

drop table if exists audit.vehicle_conflicts;

alter table public.vehicles
  drop constraint if exists vehicles_vin_format_ck,
  add constraint vehicles_vin_format_ck check (vin ~ '^[A-HJ-NPR-Z0-9]{11,17}$'),
  drop constraint if exists vehicles_vin_normalized_format_ck,
  add constraint vehicles_vin_normalized_format_ck check (vin_normalized ~ '^[A-HJ-NPR-Z0-9]{11,17}$'),
  reset (fillfactor),
  drop column if exists carried_columns,
  drop column if exists needs_fold,
  drop column if exists seen_window,
  drop column if exists row_hash,
  drop column if exists source_lot,
  drop column if exists source,
  drop column if exists version_at,
  drop column if exists source_updated_at,
  drop column if exists color_code,
  drop column if exists drive_code,
  drop column if exists transmission_code,
  drop column if exists fuel_code,
  drop column if exists body_style_code,
  drop column if exists odometer_brand,
  drop column if exists odometer_unit,
  drop column if exists odometer_value,
  drop column if exists color,
  drop column if exists cylinders,
  drop column if exists trim,
  drop column if exists model_detail;
