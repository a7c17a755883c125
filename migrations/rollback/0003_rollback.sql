-- 0003_rollback: drops the indexes. Reads become slow, no rows are deleted.

drop index if exists public.images_lot_id_idx;
drop index if exists public.images_vin_idx;
drop index if exists public.sale_events_vin_date_idx;
drop index if exists public.lots_vin_idx;
drop index if exists public.lots_status_auction_idx;
