-- queue: begin step
-- Returns one row if the job still belongs to this run: the backend and the start time, which identify this transaction
-- to a process that has to terminate it from outside. The settings apply to this transaction only. Two are timeouts.
-- `jit` is off because a step's statements run once, on sizes that the planner can only guess, and compiling them has
-- cost more than three times their execution. `random_page_cost` is low because the pages looked up are nearly always
-- in memory. The server checks once a second that the worker is still connected. Otherwise a dead worker's statement
-- would continue and keep its locks from the successor.
select
  pg_backend_pid() as "backend!",
  now() as "began!",
  set_config('statement_timeout', $4, true)
    || set_config('idle_in_transaction_session_timeout', $4, true)
    || set_config('jit', 'off', true)
    || set_config('random_page_cost', '1.1', true)
    || set_config('client_connection_check_interval', '1s', true) as settings
from fleet.jobs
where id = $1
  and run = $2
  and locked_by = $3
  and state = 'running'
  and cancelling is null
