-- queue: show
select id, kind, key, state, priority, run_at, attempt, max_attempts, rescues, locked_by, lease_until,
  cancelling, payload, result, error, created_at, started_at, finished_at
from fleet.jobs
where id = $1
