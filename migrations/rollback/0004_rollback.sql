-- 0004_rollback: the indexes only. The flags stay, as the documents ask: who was taken out of sight must not
-- reappear because an index went; going up again finds the columns and keeps them.

drop index if exists public.images_visible_idx;
drop index if exists public.lots_visible_idx;
drop index if exists public.vehicles_visible_idx;
