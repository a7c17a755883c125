-- queue: next due
-- Seconds until the earliest waiting job of these kinds may run; zero if one is due but was locked just now. A due one is
-- looked for first: behind it may wait any number. What is paused, or at its limit in the whole fleet, waits for a
-- notification, or for the poll.
select min(coalesce(due.seconds, later.seconds))
from unnest($1::text[]) as served (kind)
left join fleet.kinds as steer using (kind)
left join lateral (
  select 0::float8 as seconds
  from fleet.jobs
  where kind = served.kind
    and state in ('available', 'scheduled', 'retryable')
    and run_at <= now()
  order by priority, run_at, id
  limit 1
) as due on true
left join lateral (
  select extract(epoch from min(run_at) - clock_timestamp())::float8 as seconds
  from fleet.jobs
  where kind = served.kind
    and state in ('available', 'scheduled', 'retryable')
    and due.seconds is null
) as later on true
where steer.paused_at is null
  and (
    steer.max_running is null
    or steer.max_running > (select count(*) from fleet.jobs where state = 'running' and kind = served.kind)
  )
