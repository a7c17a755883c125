-- 0002_rollback: drops the constraints. No rows are deleted.

drop index if exists public.images_vin_lot_seq_variant_uidx;

alter table public.images
  drop constraint if exists images_bytes_ck,
  drop constraint if exists images_height_ck,
  drop constraint if exists images_width_ck,
  drop constraint if exists images_seq_ck,
  drop constraint if exists images_lot_id_fkey,
  drop constraint if exists images_vin_fkey;

alter table public.sale_events
  drop constraint if exists sale_events_currency_ck,
  drop constraint if exists sale_events_final_bid_usd_ck,
  drop constraint if exists sale_events_status_ck,
  drop constraint if exists sale_events_lot_id_fkey,
  drop constraint if exists sale_events_vin_fkey;

alter table public.lots
  drop constraint if exists lots_retail_value_usd_ck,
  drop constraint if exists lots_status_ck,
  drop constraint if exists lots_vin_fkey;

alter table public.vehicles
  drop constraint if exists vehicles_year_ck,
  drop constraint if exists vehicles_vin_format_ck;
