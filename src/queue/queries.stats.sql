-- queue: stats
with job_counts as (
  select kind, state, count(*) as jobs,
    count(*) filter (where state in ('available', 'scheduled', 'retryable') and run_at <= now()) as ready,
    min(run_at) filter (where state in ('available', 'scheduled', 'retryable') and run_at <= now()) as oldest
  from fleet.jobs
  where (cardinality($1::text[]) = 0 or kind = any($1))
    and (cardinality($2::text[]) = 0 or state = any($2))
    and ($3::text is null or starts_with(key, $3))
    and ($4::timestamptz is null or created_at >= $4)
    and ($5::text is null or position(lower($5) in lower(error)) > 0)
    and (
      $6::text is null
      or payload ->> 'source' = $6
      or starts_with(key, $6 || '/')
      or payload ->> 'file_id' in (select f.file_id::text from raw.csv_files as f where f.source = $6)
    )
    and (
      $7::timestamptz is null
      or case
        when payload ->> 'window_start_utc' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$'
          then (payload ->> 'window_start_utc')::timestamptz = $7
        else payload ->> 'file_id' in (select f.file_id::text from raw.csv_files as f where f.window_start_utc = $7)
      end
    )
  group by kind, state
)
select kind as "kind!", state as "state!", jobs as "jobs!", ready as "ready!",
  extract(epoch from now() - oldest)::float8 as oldest_ready_seconds
from job_counts
order by kind, state
