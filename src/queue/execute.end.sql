-- queue: end a step's backend
-- A backend and the beginning of its transaction name that transaction and no later one. Ended rather than cancelled, as
-- it may also be idle in a transaction that a blocked thread holds; waited for, but not for ever.
select pg_terminate_backend(activity.pid, 2000)
from unnest($1::integer[], $2::timestamptz[]) as step (pid, began)
join pg_stat_activity as activity on activity.pid = step.pid and activity.xact_start = step.began
where activity.datname = current_database()
