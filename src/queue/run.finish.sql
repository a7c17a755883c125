-- queue: finish step
-- Updates one row, or the step is void. clock_timestamp() is used because now() is the start of the step's transaction.
-- A job with a cancellation request can no longer be completed: the transaction that commits first wins.
with completed_job as (
  update fleet.jobs
  set state = 'completed',
    result = $4,
    error = null,
    finished_at = clock_timestamp(),
    completed_by = case when $5::text is null then $3 end,
    lease_until = null,
    locked_by = null
  where id = $1
    and run = $2
    and locked_by = $3
    and state = 'running'
    and cancelling is null
  returning id, run, attempt, kind, started_at, finished_at
),
-- The slot of a kind near its limit can be used by another worker.
notifications as (
  select pg_notify('fleet', kind)
  from completed_job
  join fleet.job_kind_settings as settings using (kind)
  where settings.max_running <= 2 * (
    select count(*)
    from fleet.jobs
    where state = 'running'
      and kind = completed_job.kind
  )
),
-- A completion without a note is recorded in the job's row only.
closed_runs as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, $3, started_at, finished_at, 'done', $5
  from completed_job
  where $5 is not null
)
-- A step with a following job does not wait for the disk. The commit of the following job flushes both, since the log
-- is written in order.
select
  id as "id!",
  (select count(*) from notifications) as "notified!",
  case when $6::boolean then set_config('synchronous_commit', 'off', true) end as commit_setting
from completed_job
