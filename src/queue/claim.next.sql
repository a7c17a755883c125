-- queue: next due
-- Seconds until the earliest waiting job of these kinds may run; zero or less if one is due but was locked just now.
select extract(epoch from min(job.run_at) - clock_timestamp())::float8
from unnest($1::text[]) as served (kind)
cross join lateral (
  select min(run_at) as run_at
  from fleet.jobs
  where kind = served.kind
    and state in ('available', 'scheduled', 'retryable')
) as job
