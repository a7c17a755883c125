-- queue: begin step
-- One row if the job is still ours; the two limits hold for this transaction only.
select
  set_config('statement_timeout', $4, true)
    || set_config('idle_in_transaction_session_timeout', $4, true)
from fleet.jobs
where id = $1
  and run = $2
  and locked_by = $3
  and state = 'running'
