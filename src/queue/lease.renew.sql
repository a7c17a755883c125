-- queue: renew leases
-- Answers with the runs that still hold their job, and whether they are to be cancelled; one that is missing has lost
-- its job.
with ours as (
  select job.id, job.cancelling is not null as cancelling
  from fleet.jobs as job
  join unnest($2::bigint[], $3::bigint[]) as held (id, run) using (id, run)
  where job.state = 'running'
    and job.locked_by = $1
),
-- A row that is locked is being finished: its lease no longer matters, and waiting for it could form a ring.
free as (
  select id
  from fleet.jobs
  where id = any(array(select id from ours))
    and state = 'running'
    and locked_by = $1
  for update skip locked
),
renewed as (
  update fleet.jobs
  set lease_until = now() + make_interval(secs => $4)
  where id = any(array(select id from free))
)
select id as "id!", cancelling as "cancelling!"
from ours
