-- queue: next due
-- Returns the seconds until the earliest waiting job of these kinds may run, or zero if a due job exists but was locked
-- just now. Due jobs are looked for first, since any number of jobs may wait behind them. A kind that is paused, or at
-- its limit in the whole fleet, waits for a notification or for the next poll.
select min(coalesce(due_job.seconds, later_job.seconds))
from unnest($1::text[]) as served_kind (kind)
left join fleet.job_kind_settings as settings using (kind)
left join lateral (
  select 0::float8 as seconds
  from fleet.jobs
  where kind = served_kind.kind
    and state in ('available', 'scheduled', 'retryable')
    and run_at <= now()
  order by priority, run_at, id
  limit 1
) as due_job on true
left join lateral (
  select extract(epoch from min(run_at) - clock_timestamp())::float8 as seconds
  from fleet.jobs
  where kind = served_kind.kind
    and state in ('available', 'scheduled', 'retryable')
    and due_job.seconds is null
) as later_job on true
where settings.paused_at is null
  and (
    settings.max_running is null
    or settings.max_running > (select count(*) from fleet.jobs where state = 'running' and kind = served_kind.kind)
  )
