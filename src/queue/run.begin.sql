-- queue: begin step
-- One row if the job is still ours: the backend and the beginning that name this transaction to whoever has to end it
-- from outside. The settings hold for this transaction only. Two are limits. A step's statements run
-- once, on sizes the planner can only guess: compiling them for its guess has cost more than three times what running
-- them does; and what they look up is nearly always in memory. And the server looks once a second whether the worker is still there, or a dead one's statement would run
-- on and keep the successor from its locks.
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
