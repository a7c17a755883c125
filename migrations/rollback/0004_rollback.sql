-- 0004_rollback: drops the indexes only. The flags stay, as the documentation requires: a hidden row must not become
-- visible because an index was dropped. Applying the migration again finds the columns and keeps them.

drop index if exists public.images_visible_idx;
drop index if exists public.lots_visible_idx;
drop index if exists public.vehicles_visible_idx;
