-- queue: show runs
-- The ended ones, then the one that goes on: until its end the job's own row is all there is of it.
select run as "run!", attempt as "attempt!", worker as "worker!", started_at as "started_at!", finished_at, outcome, error
from (
  select run, attempt, worker, started_at, finished_at, outcome, error
  from fleet.job_attempts
  where job_id = $1
  union all
  select run, attempt, locked_by, started_at, null, null, null
  from fleet.jobs
  where id = $1
    and state = 'running'
) as ran
order by run
