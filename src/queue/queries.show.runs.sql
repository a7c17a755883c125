-- queue: show runs
-- The ended runs, then the running one, which is recorded only in the job's own row until it ends.
select
  run as "run!", attempt as "attempt!", worker as "worker!", started_at as "started_at!", finished_at, outcome, error
from (
  select run, attempt, worker, started_at, finished_at, outcome, error
  from fleet.job_attempts
  where job_id = $1
  union all
  select run, attempt, locked_by, started_at, null, null, null
  from fleet.jobs
  where id = $1
    and state = 'running'
) as runs
order by run
