-- queue: next due
-- Seconds until the earliest waiting job of these kinds may run; zero or less if one is due but was locked just now.
-- What is paused, or at its limit in the whole fleet, waits for a notification, or for the poll.
select extract(epoch from min(job.run_at) - clock_timestamp())::float8
from unnest($1::text[]) as served (kind)
left join fleet.kinds as steer using (kind)
cross join lateral (
  select min(run_at) as run_at
  from fleet.jobs
  where kind = served.kind
    and state in ('available', 'scheduled', 'retryable')
) as job
where steer.paused_at is null
  and (
    steer.max_running is null
    or steer.max_running > (select count(*) from fleet.jobs where state = 'running' and kind = served.kind)
  )
