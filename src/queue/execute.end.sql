-- queue: end a step's backend
-- The backend and the start of its transaction identify that transaction and no later one. The backend is terminated,
-- not cancelled, because it may also be idle in a transaction that a blocked thread keeps open. The statement waits for
-- the end of the backend, with a timeout.
select pg_terminate_backend(activity.pid, 2000)
from unnest($1::integer[], $2::timestamptz[]) as step (pid, started_at)
join pg_stat_activity as activity on activity.pid = step.pid and activity.xact_start = step.started_at
where activity.datname = current_database()
