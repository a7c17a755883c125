-- queue: run now
-- What waits for its time, or for its next attempt, is due at once; its attempts stay spent.
with asked as (
  select id
  from fleet.jobs
  where id = any($1)
    and state in ('scheduled', 'retryable')
  order by id
  for update
),
hastened as (
  update fleet.jobs
  set state = 'available',
    run_at = now()
  where id = any(array(select id from asked))
  returning id, kind
),
logged as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'run-now', case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end, $3,
    jsonb_build_object('jobs', jsonb_agg(id order by id), 'kinds', jsonb_agg(distinct kind))
  from hastened
  having count(*) > 0
),
told as (
  select pg_notify('fleet', kind)
  from hastened
  group by kind
)
select id as "id!"
from hastened
cross join (select count(*) from told) as told
order by id
