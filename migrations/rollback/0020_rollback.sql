-- 0020_rollback: one view, no row.

drop view if exists fleet.figures;
