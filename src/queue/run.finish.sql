-- queue: finish step
-- Hits one row or the step is void. clock_timestamp(), since now() is when the step's transaction began.
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
  returning id, run
)
update fleet.job_attempts as attempt
set finished_at = clock_timestamp(),
  outcome = 'done'
from completed
where attempt.job_id = completed.id
  and attempt.run = completed.run
