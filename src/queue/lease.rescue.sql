-- queue: rescue
-- Rescues jobs whose lease expired. A rescue is not counted as an attempt, since the job may not have caused the death
-- of its worker. A job that outlives more than $1 workers is assumed to kill them and is discarded. A job with a
-- cancellation request is cancelled.
with lost_jobs as (
  select id, locked_by, cancelling
  from fleet.jobs
  where state = 'running'
    and lease_until < now()
  order by id
  limit 500
  for update skip locked
),
rescued_jobs as (
  update fleet.jobs as job
  set state = case
      when job.cancelling is not null then 'cancelled'
      when job.rescues >= $1 then 'discarded'
      else 'available'
    end,
    rescues = job.rescues + 1,
    attempt = job.attempt - 1,
    run_at = now(),
    error = coalesce(job.cancelling || '; ', '') || 'the lease of ' || lost_jobs.locked_by || ' ran out'
      || case
        when job.cancelling is null and job.rescues >= $1
          then format(': rescued %s times, given up as a job that kills its workers', $1)
        else ''
      end,
    finished_at = case when job.cancelling is not null or job.rescues >= $1 then now() end,
    lease_until = null,
    locked_by = null,
    cancelling = null
  from lost_jobs
  where job.id = lost_jobs.id
  returning
    job.id, job.kind, job.run, job.attempt + 1 as attempt, job.state, job.error, job.started_at, lost_jobs.locked_by
),
closed_runs as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, locked_by, started_at, now(), 'lost', error
  from rescued_jobs
),
-- Notifies also if the job is finished, since it may have used the last slot of a limited kind.
notifications as (
  select pg_notify('fleet', kind)
  from rescued_jobs
  group by kind
)
select id as "id!", kind as "kind!", state as "state!", (select count(*) from notifications) as "notified!"
from rescued_jobs
order by id
