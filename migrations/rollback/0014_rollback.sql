-- 0014_rollback: deletes the log of status changes and the switches. The lots keep their status.

drop trigger if exists restore_head on public.lots;
drop function if exists public.restore_head();

drop view if exists audit.v_pending_result;
drop view if exists audit.v_open_lots_absent;

drop table if exists public.config;
drop table if exists audit.status_transitions;
