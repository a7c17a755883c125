-- queue: rescue
-- Takes back jobs whose lease ran out. Not an attempt, since the job may be innocent of its worker's death; but one
-- that outlives more than $1 workers is held to have killed them.
with lost as (
  select id, locked_by
  from fleet.jobs
  where state = 'running'
    and lease_until < now()
  order by id
  limit 500
  for update skip locked
),
rescued as (
  update fleet.jobs as job
  set state = case when job.rescues >= $1 then 'discarded' else 'available' end,
    rescues = job.rescues + 1,
    attempt = job.attempt - 1,
    run_at = now(),
    error = 'the lease of ' || lost.locked_by || ' ran out'
      || case
        when job.rescues >= $1 then format(': rescued %s times, given up as a job that kills its workers', $1)
        else ''
      end,
    finished_at = case when job.rescues >= $1 then now() end,
    lease_until = null,
    locked_by = null
  from lost
  where job.id = lost.id
  returning job.id, job.kind, job.run, job.state, job.error
),
closed as (
  update fleet.job_attempts as attempt
  set finished_at = now(),
    outcome = 'lost',
    error = rescued.error
  from rescued
  where attempt.job_id = rescued.id
    and attempt.run = rescued.run
),
told as (
  select pg_notify('fleet', kind)
  from rescued
  where state = 'available'
  group by kind
)
select id as "id!", kind as "kind!", state as "state!", (select count(*) from told) as "told!"
from rescued
order by id
