-- queue: run now
-- Makes scheduled and retryable jobs due at once. Spent attempts stay spent.
with selected_jobs as (
  select id
  from fleet.jobs
  where id = any($1)
    and state in ('scheduled', 'retryable')
  order by id
  for update
),
due_jobs as (
  update fleet.jobs
  set state = 'available',
    run_at = now()
  where id = any(array(select id from selected_jobs))
  returning id, kind
),
operator_action as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'run-now', case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end, $3,
    jsonb_build_object('jobs', jsonb_agg(id order by id), 'kinds', jsonb_agg(distinct kind))
  from due_jobs
  having count(*) > 0
),
notifications as (
  select pg_notify('fleet', kind)
  from due_jobs
  group by kind
)
select id as "id!"
from due_jobs
cross join (select count(*) from notifications) as notifications
order by id
