-- 0014_rollback: the log of status moves and the switches go; the lots keep the status they have.

drop trigger if exists restore_head on public.lots;
drop function if exists public.restore_head();

drop view if exists audit.v_pending_result;
drop view if exists audit.v_open_lots_absent;

drop table if exists public.config;
drop table if exists audit.status_transitions;
