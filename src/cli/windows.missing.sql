-- windows: missing
-- Without a range, the last day. A source is included from its first window on, whatever the range.
with time_range as (
  select
    coalesce($2::timestamptz, least(coalesce($3, now()), now()) - interval '1 day') as since,
    -- a quarter-hour in progress may still be fetched
    least(coalesce($3::timestamptz, now()), date_bin('15 minutes', now(), 'epoch'::timestamptz)) as until
),
known_sources as (
  select source, min(window_start_utc) as first
  from fleet.windows
  where $1::text is null or source = $1
  group by source
),
quarter_hours as (
  select known_sources.source, at
  from known_sources
  cross join time_range
  cross join generate_series(
    date_bin(
      '15 minutes',
      greatest(time_range.since, known_sources.first) + interval '15 minutes' - interval '1 microsecond',
      'epoch'::timestamptz
    ),
    time_range.until - interval '1 microsecond',
    interval '15 minutes'
  ) as at
)
select q.source as "source!", q.at as "window_start_utc!", w.state as "state?", w.note as "note?"
from quarter_hours as q
left join fleet.windows as w
  on w.source = q.source
  and w.window_start_utc = q.at
left join raw.csv_files as f
  on f.file_id = w.file_id
where w.state is null
  or w.state not in ('applied', 'unchanged')
  -- a window that repeats a quarantined file is missing as well
  or w.state = 'unchanged' and f.state = 'quarantined'
order by q.at desc, q.source
limit $4
