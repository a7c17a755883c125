-- 0010_rollback: three views, no row.

drop view if exists audit.v_parse_errors;
drop view if exists audit.v_unknown_rate;
drop view if exists audit.v_ingest_count;
