-- 0016_rollback: the windows' fates go. Without them nothing stops a second fetch of a window: stop the fleet first.

do $$
begin
  -- `drop trigger if exists` still wants its table
  if to_regclass('fleet.jobs') is not null then
    drop trigger if exists note_window_fate on fleet.jobs;
  end if;
  if to_regnamespace('fleet') is not null then
    drop function if exists fleet.note_window_fate;
    drop table if exists fleet.windows;
    drop function if exists fleet.note_window_end;
  end if;
end
$$;
