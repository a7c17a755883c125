-- queue: renew leases
-- Returns the runs that still own their job, and true for a cancellation request. A run that is missing from the result
-- has lost its job.
with owned_jobs as (
  select job.id, job.cancelling is not null as cancelling
  from fleet.jobs as job
  join unnest($2::bigint[], $3::bigint[]) as held_runs (id, run) using (id, run)
  where job.state = 'running'
    and job.locked_by = $1
),
-- A locked row is being finished. Its lease no longer matters, and waiting for the lock could deadlock.
unlocked_jobs as (
  select id
  from fleet.jobs
  where id = any(array(select id from owned_jobs))
    and state = 'running'
    and locked_by = $1
  for update skip locked
),
renewals as (
  update fleet.jobs
  set lease_until = now() + make_interval(secs => $4)
  where id = any(array(select id from unlocked_jobs))
)
select id as "id!", cancelling as "cancelling!"
from owned_jobs
