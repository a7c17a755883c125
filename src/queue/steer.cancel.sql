-- queue: cancel
-- A waiting job is cancelled here and now. A running one is marked: its worker hears of it by notification, or finds it
-- when it renews its leases, cuts the run off and writes the end; if the worker is dead, the rescue does.
with asked as (
  select id, state
  from fleet.jobs
  where id = any($1)
    and (state in ('available', 'scheduled', 'retryable') or state = 'running' and cancelling is null)
  order by id
  for update
),
waiting as (
  update fleet.jobs
  set state = 'cancelled',
    run = run + 1,
    error = format('cancelled by %s: %s', $2::text, $3::text),
    finished_at = now()
  where id = any(array(select id from asked where state <> 'running'))
  returning id, kind, run, attempt
),
running as (
  update fleet.jobs
  set cancelling = format('cancelled by %s: %s', $2::text, $3::text)
  where id = any(array(select id from asked where state = 'running'))
  returning id, kind
),
noted as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome, error)
  select id, run, attempt, kind, $2, now(), 'cancelled', $3
  from waiting
),
cancelled as (
  select id, kind, false as running from waiting
  union all
  select id, kind, true from running
),
logged as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'cancel', case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end, $3,
    jsonb_build_object('jobs', jsonb_agg(id order by id), 'kinds', jsonb_agg(distinct kind))
  from cancelled
  having count(*) > 0
),
told as (
  select pg_notify('fleet_cancel', id::text)
  from running
)
select id as "id!", running as "running!"
from cancelled
cross join (select count(*) from told) as told
order by id
