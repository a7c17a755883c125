-- scheduler: open window
-- Inserts the row of a source's due window if it does not exist: `due`, or `missed` with the note $4 if there is to be
-- no fetch. The windows since the last known one that were never opened are inserted as missed by the statement that
-- opens this window.
with slot as (
  select $3::timestamptz as start, make_interval(secs => $2) as length
),
-- Waits for another scheduler that is inserting the same window, then finds its row.
new_window as (
  insert into fleet.windows (source, window_start_utc, state, note)
  select $1, start, case when $4::text is null then 'due' else 'missed' end, $4
  from slot
  on conflict do nothing
  returning window_start_utc
),
last_window as (
  select max(w.window_start_utc) as start
  from fleet.windows as w
  cross join slot
  where w.source = $1
    and w.window_start_utc < slot.start
),
missed_windows as (
  insert into fleet.windows (source, window_start_utc, state, note)
  select $1, missed_start, 'missed', 'no scheduler ran'
  from new_window
  cross join slot
  cross join last_window
  cross join generate_series(last_window.start + slot.length, slot.start - slot.length, slot.length) as missed_start
  on conflict do nothing
  returning window_start_utc
)
select
  exists (select from new_window) as "opened!",
  (select count(*) from missed_windows) as "missed!"
