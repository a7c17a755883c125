-- 0009_rollback: deletes lot numbers and update times. The next window would insert every lot again.

drop index if exists public.idx_lots_external_id;

alter table public.lots
  drop column if exists source_updated_at,
  drop column if exists lot_external_id;
