-- queue: stats
with counted as (
  select kind, state, count(*) as jobs,
    count(*) filter (where state in ('available', 'scheduled', 'retryable') and run_at <= now()) as ready,
    min(run_at) filter (where state in ('available', 'scheduled', 'retryable') and run_at <= now()) as oldest
  from fleet.jobs
  group by kind, state
)
select kind as "kind!", state as "state!", jobs as "jobs!", ready as "ready!",
  extract(epoch from now() - oldest)::float8 as oldest_ready_seconds
from counted
order by kind, state
