-- queue: cancel
-- A waiting job is cancelled immediately. A running job is marked. Its worker receives a notification, or finds the
-- mark when it renews its leases, then aborts the run and records the end. If the worker is dead, the rescue does so.
with selected_jobs as (
  select id, state
  from fleet.jobs
  where id = any($1)
    and (state in ('available', 'scheduled', 'retryable') or state = 'running' and cancelling is null)
  order by id
  for update
),
waiting_jobs as (
  update fleet.jobs
  set state = 'cancelled',
    run = run + 1,
    error = format('cancelled by %s: %s', $2::text, $3::text),
    finished_at = now()
  where id = any(array(select id from selected_jobs where state <> 'running'))
  returning id, kind, run, attempt
),
running_jobs as (
  update fleet.jobs
  set cancelling = format('cancelled by %s: %s', $2::text, $3::text)
  where id = any(array(select id from selected_jobs where state = 'running'))
  returning id, kind
),
closed_runs as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome, error)
  select id, run, attempt, kind, $2, now(), 'cancelled', $3
  from waiting_jobs
),
cancelled_jobs as (
  select id, kind, false as running from waiting_jobs
  union all
  select id, kind, true from running_jobs
),
operator_action as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'cancel', case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end, $3,
    jsonb_build_object('jobs', jsonb_agg(id order by id), 'kinds', jsonb_agg(distinct kind))
  from cancelled_jobs
  having count(*) > 0
),
notifications as (
  select pg_notify('fleet_cancel', id::text)
  from running_jobs
)
select id as "id!", running as "running!"
from cancelled_jobs
cross join (select count(*) from notifications) as notifications
order by id
