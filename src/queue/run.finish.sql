-- queue: finish step
-- Hits one row or the step is void. clock_timestamp(), since now() is when the step's transaction began. A job that is
-- to be cancelled is not completed any more: whoever committed first decides.
with completed as (
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
-- The slot of a kind that is near its limit can be taken by another worker.
told as (
  select pg_notify('fleet', kind)
  from completed
  join fleet.kinds as steer using (kind)
  where steer.max_running <= 2 * (select count(*) from fleet.jobs where state = 'running' and kind = completed.kind)
),
-- A completion that has nothing to tell is told by the job's row.
closed as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, $3, started_at, finished_at, 'done', $5
  from completed
  where $5 is not null
)
-- A step with a follower leaves the disk to the follower's end, which takes both there: the log is written in order.
select
  id as "id!",
  (select count(*) from told) as "told!",
  case when $6::boolean then set_config('synchronous_commit', 'off', true) end as unhurried
from completed
