-- 0009_lots_external_id
-- purpose: the key that lots are upserted by, and the clock that says which version of one is newer
-- depends: 0008
-- rollback: destructive
-- creates: public.lots.lot_external_id, public.lots.source_updated_at, public.idx_lots_external_id

-- Copart's "Lot number" and "Last Updated Time". The number may be null (lots from before this migration have none);
-- the one unique index below is the documents' `unique` and their index both.
alter table public.lots
  add column if not exists lot_external_id text,
  add column if not exists source_updated_at timestamptz;

create unique index if not exists idx_lots_external_id
  on public.lots (lot_external_id);
