-- scheduler: open window
-- The due window of a source gets its row if nobody gave it one: missed, where $4 says why it gets no fetch. Windows
-- nobody opened since the last known one are named as missed by whoever opens this one.
with slot as (
  select $3::timestamptz as start, make_interval(secs => $2) as length
),
-- Waits for a scheduler that is inserting the same window, then finds it there.
opened as (
  insert into fleet.windows (source, window_start_utc, state, note)
  select $1, start, case when $4::text is null then 'due' else 'missed' end, $4
  from slot
  on conflict do nothing
  returning window_start_utc
),
known as (
  select max(w.window_start_utc) as start
  from fleet.windows as w
  cross join slot
  where w.source = $1
    and w.window_start_utc < slot.start
),
missed as (
  insert into fleet.windows (source, window_start_utc, state, note)
  select $1, gap, 'missed', 'no scheduler ran'
  from opened
  cross join slot
  cross join known
  cross join generate_series(known.start + slot.length, slot.start - slot.length, slot.length) as gap
  on conflict do nothing
  returning window_start_utc
)
select
  exists (select from opened) as "opened!",
  (select count(*) from missed) as "missed!"
