-- 0020_rollback: drops two views. No rows are deleted.

drop view if exists fleet.metrics;
drop view if exists fleet.freshness;
