-- 0006_rollback: drops the column, which is computed from `vin`, so no data is lost.

drop index if exists public.vehicles_vin_normalized_uidx;

alter table public.vehicles
  drop constraint if exists vehicles_vin_normalized_format_ck,
  drop column if exists vin_normalized;

drop function if exists public.normalize_vin(text);
