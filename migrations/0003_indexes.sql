-- 0003_indexes
-- purpose: indexes for the catalogue and for the page of one vehicle
-- depends: 0002
-- rollback: yes
-- creates: public.lots_status_auction_idx, public.lots_vin_idx, public.sale_events_vin_date_idx, public.images_vin_idx, public.images_lot_id_idx

create index if not exists lots_status_auction_idx
  on public.lots (status, auction_datetime_utc);

create index if not exists lots_vin_idx
  on public.lots (vin);

create index if not exists sale_events_vin_date_idx
  on public.sale_events (vin, sale_date);

create index if not exists images_vin_idx
  on public.images (vin);

create index if not exists images_lot_id_idx
  on public.images (lot_id);
