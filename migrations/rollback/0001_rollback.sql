-- 0001_rollback: deletes the core tables with every row. The extensions stay, since other objects may use or have
-- created them.

drop table if exists public.images;
drop table if exists public.sale_events;
drop table if exists public.lots;
drop table if exists public.vehicles;
