-- 0020_rollback: two views, no row.

drop view if exists fleet.figures;
drop view if exists fleet.freshness;
