-- queue: finish step
-- Hits one row or the step is void. clock_timestamp(), since now() is when the step's transaction began. A job that is
-- to be cancelled is not completed any more: whoever committed first decides.
with completed as (
  update fleet.jobs
  set state = 'completed',
    result = $4,
    error = null,
    finished_at = clock_timestamp(),
    lease_until = null,
    locked_by = null
  where id = $1
    and run = $2
    and locked_by = $3
    and state = 'running'
    and cancelling is null
  returning id, run, attempt, kind, started_at, finished_at
),
-- The slot of a limited kind can be taken by another worker.
told as (
  select pg_notify('fleet', kind)
  from completed
  join fleet.kinds as steer using (kind)
  where steer.max_running is not null
)
insert into fleet.job_attempts (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
select id, run, attempt, kind, $3, started_at, finished_at, 'done', left($5, 8000)
from completed
left join (select count(*) from told) as told on true
