-- windows: missing
-- Without a span: the last day. A source is asked about from its first window on, whatever the span.
with span as (
  select
    coalesce($2::timestamptz, least(coalesce($3, now()), now()) - interval '1 day') as since,
    -- a quarter-hour that is not over may still bring something
    least(coalesce($3::timestamptz, now()), date_bin('15 minutes', now(), 'epoch'::timestamptz)) as until
),
known as (
  select source, min(window_start_utc) as first
  from fleet.windows
  where $1::text is null or source = $1
  group by source
),
quarter_hours as (
  select known.source, at
  from known
  cross join span
  cross join generate_series(
    date_bin('15 minutes', greatest(span.since, known.first) + interval '15 minutes' - interval '1 microsecond', 'epoch'::timestamptz),
    span.until - interval '1 microsecond',
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
  -- what repeats a file that was set aside brought nothing either
  or w.state = 'unchanged' and f.state = 'quarantined'
order by q.at desc, q.source
limit $4
