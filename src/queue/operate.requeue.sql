-- queue: requeue
-- Hits one row, or none if the job is running or absent. The history keeps who and why, under a token of its own.
with requeued as (
  update fleet.jobs
  set state = 'available',
    attempt = 0,
    rescues = 0,
    run = run + 1,
    run_at = now(),
    result = null,
    finished_at = null
  where id = $1
    and state <> 'running'
  returning id, kind, run
),
noted as (
  insert into fleet.job_attempts (job_id, run, attempt, kind, worker, finished_at, outcome, error)
  select id, run, 0, kind, $2, now(), 'requeued', $3
  from requeued
),
told as (
  select pg_notify('fleet', kind)
  from requeued
)
select id as "id!"
from requeued
cross join (select count(*) from told) as told
