-- queue: requeue
-- Requeues jobs that are not running and whose key is free. The history records the operator and the reason under a
-- fence token of its own, so that no earlier run can still end the job.
with selected_jobs as (
  select id, kind, run, attempt, started_at, finished_at, completed_by, key, unique_over is null as has_default_states,
    key is not null and (unique_over is null or 'available' = any(unique_over)) as is_unique
  from fleet.jobs
  where id = any($1)
    and state <> 'running'
  order by id
  for update
),
-- Of jobs with the same key only the newest, and none if another job uses the key.
free_jobs as (
  select id
  from selected_jobs
  where not is_unique
    or not exists (
      select
      from fleet.jobs as other_job
      where other_job.kind = selected_jobs.kind
        and other_job.key = selected_jobs.key
        and other_job.id <> selected_jobs.id
        and (other_job.unique_over is null) = selected_jobs.has_default_states
        and case
          when selected_jobs.has_default_states then other_job.state not in ('cancelled', 'discarded')
          else other_job.state = any(other_job.unique_over)
        end
    )
    and not exists (
      select
      from selected_jobs as newer_job
      where newer_job.is_unique
        and newer_job.kind = selected_jobs.kind
        and newer_job.key = selected_jobs.key
        and newer_job.has_default_states = selected_jobs.has_default_states
        and newer_job.id > selected_jobs.id
    )
),
-- The completing run was recorded only in the job's row, which is reset.
completion_runs as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome)
  select id, run, attempt, kind, completed_by, started_at, finished_at, 'done'
  from selected_jobs
  where id in (select id from free_jobs)
    and completed_by is not null
),
requeued_jobs as (
  update fleet.jobs
  set state = 'available',
    attempt = 0,
    rescues = 0,
    run = run + 1,
    run_at = now(),
    result = null,
    finished_at = null,
    completed_by = null
  where id = any(array(select id from free_jobs))
  returning id, kind, run
),
requeue_runs as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome, error)
  select id, run, 0, kind, $2, now(), 'requeued', $3
  from requeued_jobs
),
operator_action as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'requeue', case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end, $3,
    jsonb_build_object('jobs', jsonb_agg(id order by id), 'kinds', jsonb_agg(distinct kind))
  from requeued_jobs
  having count(*) > 0
),
notifications as (
  select pg_notify('fleet', kind)
  from requeued_jobs
  group by kind
)
select id as "id!"
from requeued_jobs
cross join (select count(*) from notifications) as notifications
order by id
