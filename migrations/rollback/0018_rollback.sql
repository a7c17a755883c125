-- 0018_rollback: ends pauses and limits, drops cancellation requests, so that those jobs continue, and deletes the
-- operators' log. Jobs with chosen unique states keep their keys only where the default rule allows it.

drop view if exists fleet.jobs_view;
drop function if exists fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]);

create or replace function fleet.enqueue(
  kind         text,
  payload      jsonb default '{}',
  key          text default null,
  run_at       timestamptz default now(),
  priority     integer default 0,
  max_attempts integer default 10
) returns bigint
  language plpgsql
  volatile
  security invoker
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  new_id bigint;
begin
  insert into fleet.jobs (kind, payload, key, run_at, priority, max_attempts, state)
  values (
    enqueue.kind,
    coalesce(enqueue.payload, '{}'),
    enqueue.key,
    coalesce(enqueue.run_at, now()),
    coalesce(enqueue.priority, 0),
    coalesce(enqueue.max_attempts, 10),
    case when enqueue.run_at > now() then 'scheduled' else 'available' end)
  on conflict (kind, key) where state not in ('cancelled', 'discarded') do nothing
  returning id into new_id;

  if new_id is not null then
    perform pg_notify('fleet', enqueue.kind);
  end if;
  return new_id;
end
$$;

comment on function fleet.enqueue is 'enqueues a job in the caller''s transaction; returns null if the key is in use';
alter function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer) owner to vinops_admin;
revoke execute on function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer) from public;
grant execute on function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer) to etl_rw, vinops_ops;

create or replace function fleet.ready_depth(kinds text[] default null) returns bigint
  language sql
  stable
  security invoker
  set search_path = pg_catalog, pg_temp
as $$
  select count(*)
  from fleet.jobs as job
  where job.state in ('available', 'scheduled', 'retryable')
      and job.run_at <= now()
      and (ready_depth.kinds is null or job.kind = any(ready_depth.kinds))
$$;

drop function if exists fleet.free_slots(text);
drop table if exists fleet.job_kind_settings;
drop table if exists fleet.workers;
drop table if exists audit.operator_actions;

-- Of the jobs with chosen unique states, the newest of a key keeps the key.
update fleet.jobs as job
set key = null, unique_over = null
where job.unique_over is not null
  and job.state not in ('cancelled', 'discarded')
  and exists (
    select
    from fleet.jobs as other_job
    where other_job.kind = job.kind
      and other_job.key = job.key
      and other_job.state not in ('cancelled', 'discarded')
      and (other_job.id > job.id or other_job.unique_over is null and other_job.id <> job.id)
  );
drop index if exists fleet.jobs_key_is_unique_over;
drop index if exists fleet.jobs_key_is_unique;
alter table fleet.jobs
  drop column if exists cancelling,
  drop column if exists unique_over;
drop domain if exists fleet.job_states;
create unique index jobs_key_is_unique
  on fleet.jobs (key, kind)
  where state not in ('cancelled', 'discarded');
