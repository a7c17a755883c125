-- queue: rescue
-- Takes back jobs whose lease ran out. Not an attempt, since the job may be innocent of its worker's death; but one
-- that outlives more than $1 workers is held to have killed them, and one that was to be cancelled is.
with lost as (
  select id, locked_by, cancelling
  from fleet.jobs
  where state = 'running'
    and lease_until < now()
  order by id
  limit 500
  for update skip locked
),
rescued as (
  update fleet.jobs as job
  set state = case
      when job.cancelling is not null then 'cancelled'
      when job.rescues >= $1 then 'discarded'
      else 'available'
    end,
    rescues = job.rescues + 1,
    attempt = job.attempt - 1,
    run_at = now(),
    error = coalesce(job.cancelling || '; ', '') || 'the lease of ' || lost.locked_by || ' ran out'
      || case
        when job.cancelling is null and job.rescues >= $1
          then format(': rescued %s times, given up as a job that kills its workers', $1)
        else ''
      end,
    finished_at = case when job.cancelling is not null or job.rescues >= $1 then now() end,
    lease_until = null,
    locked_by = null,
    cancelling = null
  from lost
  where job.id = lost.id
  returning job.id, job.kind, job.run, job.attempt + 1 as attempt, job.state, job.error, job.started_at, lost.locked_by
),
closed as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, locked_by, started_at, now(), 'lost', error
  from rescued
),
-- Also when the job is over: it may have held the last slot of a limited kind.
told as (
  select pg_notify('fleet', kind)
  from rescued
  group by kind
)
select id as "id!", kind as "kind!", state as "state!", (select count(*) from told) as "told!"
from rescued
order by id
