-- 0009_rollback: lots lose their number and their clock; the next window would insert each of them again.

drop index if exists public.idx_lots_external_id;

alter table public.lots
  drop column if exists source_updated_at,
  drop column if exists lot_external_id;
