-- 0019_rollback: deletes breaker states, slots and sessions. Without them nothing limits how often a source is
-- requested, so stop the fleet first.

do $$
begin
  -- `drop trigger if exists` requires the table
  if to_regclass('fleet.jobs') is not null then
    drop trigger if exists note_fetch_end on fleet.jobs;
  end if;
  if to_regclass('raw.sources') is not null then
    revoke update (size_accepted_window, size_accepted_rows) on raw.sources from vinops_ops;
  end if;
  if to_regnamespace('fleet') is not null then
    drop function if exists fleet.accept_size;
    drop function if exists fleet.accept_window;
    drop function if exists fleet.remove_source;
    drop function if exists fleet.add_source;
    drop function if exists fleet.switch_source;
    drop function if exists fleet.reset_breaker;
    drop function if exists fleet.note_fetch_end;
    drop function if exists fleet.end_fetch;
    drop function if exists fleet.begin_fetch;
    drop function if exists fleet.move_breaker;
    drop function if exists fleet.note_action;
    drop view if exists fleet.sources_view;
    drop index if exists fleet.idx_windows_applied;
    drop table if exists fleet.source_sessions;
    drop table if exists fleet.fetch_slots;
    drop table if exists fleet.source_transitions;
    drop table if exists fleet.sources;
  end if;
end
$$;
