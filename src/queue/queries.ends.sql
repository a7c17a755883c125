-- queue: ends
-- Uses the block range indexes of finished_at: rows are written roughly in that order.
select attempt.finished_at as "finished_at!", attempt.job_id as "job!", attempt.run as "run!",
  attempt.kind as "kind!", job.key,
  attempt.outcome as "outcome!", job.state, attempt.attempt as "attempt!", attempt.worker as "worker!",
  extract(epoch from attempt.finished_at - attempt.started_at)::float8 as "seconds!", attempt.error
from fleet.job_attempts as attempt
join fleet.jobs as job on job.id = attempt.job_id
where (cardinality($1::text[]) = 0 or attempt.kind = any($1))
  and (cardinality($2::text[]) = 0 or job.state = any($2))
  and ($3::text is null or starts_with(job.key, $3))
  and attempt.finished_at >= $4
  and ($5::text is null or position(lower($5) in lower(attempt.error)) > 0)
  and (
    $6::text is null
    or job.payload ->> 'source' = $6
    or starts_with(job.key, $6 || '/')
    or job.payload ->> 'file_id' in (select f.file_id::text from raw.csv_files as f where f.source = $6)
  )
  and (
    $7::timestamptz is null
    or case
      when job.payload ->> 'window_start_utc' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$'
        then (job.payload ->> 'window_start_utc')::timestamptz = $7
      else job.payload ->> 'file_id' in (select f.file_id::text from raw.csv_files as f where f.window_start_utc = $7)
    end
  )
order by attempt.finished_at, attempt.job_id, attempt.run
