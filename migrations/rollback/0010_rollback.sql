-- 0010_rollback: drops three views. No rows are deleted.

drop view if exists audit.v_parse_errors;
drop view if exists audit.v_unknown_rate;
drop view if exists audit.v_ingest_count;
