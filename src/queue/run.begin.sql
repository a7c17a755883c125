-- queue: begin step
-- Returns one row if the job is still this run's: the backend and the start that identify this transaction to a process
-- that has to end it from outside. The settings hold for this transaction only. Two are limits of time. `jit` is off, since
-- a step's statements run once on sizes that the planner can only guess, and compiling them has cost more than three times
-- what running them does. `random_page_cost` is low, since what they look up is nearly always in memory. The server checks
-- once a second whether the worker is still connected, or a dead worker's statement would run on and keep the successor
-- from its locks.
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
