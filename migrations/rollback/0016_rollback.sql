-- 0016_rollback: deletes the states of all windows. Without them nothing prevents a second fetch of a window, so stop
-- the fleet first.

do $$
begin
  -- `drop trigger if exists` requires the table
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
