-- 0001_rollback: the core tables go, with every row. The extensions stay: others may use them, or have brought them.

drop table if exists public.images;
drop table if exists public.sale_events;
drop table if exists public.lots;
drop table if exists public.vehicles;
