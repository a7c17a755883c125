-- queue: stats
with counted as (
  select kind, state, count(*) as jobs,
    count(*) filter (where state in ('available', 'scheduled', 'retryable') and run_at <= now()) as ready,
    min(run_at) filter (where state in ('available', 'scheduled', 'retryable') and run_at <= now()) as oldest
  from fleet.jobs
  where (cardinality($1::text[]) = 0 or kind = any($1))
    and (cardinality($2::text[]) = 0 or state = any($2))
    and ($3::text is null or starts_with(key, $3))
    and ($4::timestamptz is null or created_at >= $4)
    and ($5::text is null or position(lower($5) in lower(error)) > 0)
  group by kind, state
)
select kind as "kind!", state as "state!", jobs as "jobs!", ready as "ready!",
  extract(epoch from now() - oldest)::float8 as oldest_ready_seconds
from counted
order by kind, state
