-- 0018_fleet_operations
-- purpose: operation of the fleet: pauses and limits, cancellation, chosen unique states, workers, operator actions
-- depends: 0017
-- rollback: destructive
-- creates: fleet.job_kind_settings, fleet.workers, fleet.jobs_view, fleet.free_slots, audit.operator_actions

-- Settings of job kinds. A kind without a row is neither paused nor limited. Every claim reads this table, so it has at
-- most one row per kind.
create table if not exists fleet.job_kind_settings (
  kind           fleet.job_kind primary key,
  max_running    integer,                                 -- maximum of running jobs in the whole fleet; null: no limit
  paused_at      timestamptz,                             -- null: not paused
  paused_by      text,
  paused_because text,

  constraint job_kind_settings_max_running_ck check (max_running > 0),
  constraint job_kind_settings_pause_ck check (
    (paused_at is null) = (paused_by is null) and (paused_at is null) = (paused_because is null))
);

comment on table fleet.job_kind_settings is 'settings of job kinds: pauses and limits on running jobs';

-- The workers. A row is renewed three times per lease and deleted when its worker shuts down. A row that is older than
-- its lease belongs to a lost worker.
create table if not exists fleet.workers (
  name        text primary key,                           -- the value of jobs.locked_by
  kinds       text[] not null,
  concurrency integer not null,
  running     integer not null default 0,                 -- number of running jobs
  draining    boolean not null default false,
  lease       interval not null,
  started_at  timestamptz not null default now(),
  seen_at     timestamptz not null default now()
);

comment on table fleet.workers is 'active workers, and lost workers for a day';

-- The four states of an unfinished job are always among the states over which its key is unique. Otherwise a second job
-- could be enqueued and fail later.
do $$
begin
  create domain fleet.job_states as text[]
    constraint jobs_unique_over_states check (
      value @> array['available', 'scheduled', 'running', 'retryable']
      and value <@ array['available', 'scheduled', 'running', 'retryable', 'completed', 'cancelled', 'discarded']);
exception
  when duplicate_object then null;
end
$$;

-- A running job with a cancellation request keeps the request until its worker has released the job. Its step can no
-- longer commit.
alter table fleet.jobs
  add column if not exists cancelling text,               -- operator and reason; null: no request
  add column if not exists unique_over fleet.job_states,  -- states over which its key is unique; null: default
  drop constraint if exists jobs_cancelling_is_of_a_running_job,
  drop constraint if exists jobs_unique_over_has_a_key,
  add constraint jobs_cancelling_is_of_a_running_job check (cancelling is null or lease_until is not null),
  add constraint jobs_unique_over_has_a_key check (unique_over is null or key is not null);

-- Two indexes, because one predicate that reads both columns would cost every job what only few need. A kind must use
-- the same rule for all its keys: default and chosen states do not exclude each other.
drop index if exists fleet.jobs_key_is_unique;
drop index if exists fleet.jobs_key_is_unique_over;
create unique index jobs_key_is_unique
  on fleet.jobs (key, kind)
  where state not in ('cancelled', 'discarded') and unique_over is null;
create unique index jobs_key_is_unique_over
  on fleet.jobs (key, kind)
  where unique_over is not null and state = any (unique_over);

drop function if exists fleet.enqueue(text, jsonb, text, timestamptz, integer, integer);

-- Enqueues a job in the caller's transaction, from any language. Returns null if the key is in use, and then does
-- nothing. `unique_over` lists the states in which a job reserves its key: the four states of an unfinished job,
-- '{available,scheduled,running,retryable}', for "one at a time", and any of the other three in addition. Listeners of
-- channel "fleet" receive the kind when the caller commits. A caller that enqueues many keys in one transaction must
-- sort them: two transactions that lock the same keys in different orders wait for each other, and one fails with a
-- deadlock. `run_at` is an instant of the years 1 to 9999.
create or replace function fleet.enqueue(
  kind         text,
  payload      jsonb default '{}',
  key          text default null,
  run_at       timestamptz default now(),
  priority     integer default 0,
  max_attempts integer default 10,
  unique_over  text[] default null
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
  insert into fleet.jobs (kind, payload, key, run_at, priority, max_attempts, unique_over, state)
  values (
    enqueue.kind,
    coalesce(enqueue.payload, '{}'),
    enqueue.key,
    coalesce(enqueue.run_at, now()),
    coalesce(enqueue.priority, 0),
    coalesce(enqueue.max_attempts, 10),
    enqueue.unique_over,
    case when enqueue.run_at > now() then 'scheduled' else 'available' end)
  on conflict do nothing
  returning id into new_id;

  if new_id is not null then
    perform pg_notify('fleet', enqueue.kind);
  end if;
  return new_id;
end
$$;

comment on function fleet.enqueue is
  'enqueues a job in the caller''s transaction; returns null if the key is in use; sort many keys in one transaction';

-- Returns the number of further jobs of a limited kind that may run, or null if the kind has no limit (any more). Locks
-- the kind's row until the caller's transaction ends, and counts after locking. Each statement of a volatile function
-- sees what was committed before the statement began, so of two claims the second counts the jobs of the first. A claim
-- does not call the function for a kind without a limit.
create or replace function fleet.free_slots(kind text) returns integer
  language plpgsql
  volatile
  -- locking a kind's row requires the right to update it, which workers do not have
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  job_limit integer;
begin
  select settings.max_running
  into job_limit
  from fleet.job_kind_settings as settings
  where settings.kind = free_slots.kind
    and settings.paused_at is null
  for no key update;
  if not found then
    return 0;
  end if;
  return greatest(0, job_limit - (
    select count(*)
    from fleet.jobs as job
    where job.state = 'running'
      and job.kind = free_slots.kind
  ));
end
$$;

comment on function fleet.free_slots is
  'number of further jobs of a limited kind that may run; locks the row of the kind';

-- As in 0015, without paused kinds: an autoscaler must not start workers for them.
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
    and not exists (
      select from fleet.job_kind_settings as settings where settings.kind = job.kind and settings.paused_at is not null
    )
$$;

comment on function fleet.ready_depth is
  'number of due, unclaimed jobs of these kinds, or of all kinds, without paused kinds';

-- The public contract for dashboards: columns are added, never renamed or dropped. Payloads are excluded.
create or replace view fleet.jobs_view as
select
  job.id,
  job.kind,
  job.key,
  case when job.key like '%/%' then split_part(job.key, '/', 1) end as source,
  job.state,
  job.priority,
  job.run_at,
  job.attempt,
  job.max_attempts,
  job.run,
  job.rescues,
  job.locked_by as worker,
  job.lease_until,
  job.cancelling is not null as cancelling,
  settings.paused_at is not null as paused,
  job.state in ('available', 'scheduled', 'retryable') and job.run_at <= now() and settings.paused_at is null as ready,
  job.result,
  job.error,
  job.created_at,
  job.started_at,
  job.finished_at,
  extract(
    epoch from coalesce(job.finished_at, case when job.state = 'running' then now() end) - job.started_at
  )::float8 as seconds
from fleet.jobs as job
left join fleet.job_kind_settings as settings using (kind);

comment on view fleet.jobs_view is
  'one row per job, for dashboards; columns may be added and are never renamed or dropped';
comment on column fleet.jobs_view.key is 'subject of the job';
comment on column fleet.jobs_view.source is 'the part of the key before its first slash: copart';
comment on column fleet.jobs_view.state is
  'available, scheduled, running, retryable, completed, cancelled or discarded';
comment on column fleet.jobs_view.priority is 'the smaller number runs first';
comment on column fleet.jobs_view.run_at is 'earliest start';
comment on column fleet.jobs_view.attempt is 'spent attempts, the running one included';
comment on column fleet.jobs_view.run is 'number of claims';
comment on column fleet.jobs_view.rescues is 'leases lost to dead workers';
comment on column fleet.jobs_view.worker is 'worker of the running job: a name in fleet.workers';
comment on column fleet.jobs_view.cancelling is 'true if the running job has a cancellation request';
comment on column fleet.jobs_view.paused is 'true if the kind of the job is paused';
comment on column fleet.jobs_view.ready is 'true if a free worker of the kind would start the job now';
comment on column fleet.jobs_view.result is 'report of the completed job';
comment on column fleet.jobs_view.error is 'latest error with its causes';
comment on column fleet.jobs_view.started_at is 'time of the latest claim';
comment on column fleet.jobs_view.seconds is 'duration of the latest run, finished or running, in seconds';

-- Actions of operators, inserted in the transaction of the action.
create table if not exists audit.operator_actions (
  id      bigint generated always as identity primary key,
  at      timestamptz not null default now(),
  who     text not null,                                  -- name given by the operator
  db_user text not null default session_user,             -- the login, whatever `who` contains
  action  text not null,                                  -- requeue, cancel, run-now, pause, resume, …
  subject text not null,                                  -- object of the action: a job, a kind, a source
  reason  text not null,
  details jsonb not null default '{}'
);

comment on table audit.operator_actions is 'actions of operators: name, action, object and reason';
create index if not exists idx_operator_actions_at on audit.operator_actions (at);

create or replace trigger stamp_db_user
before insert on audit.operator_actions
for each row
execute function fleet.stamp_db_user();

alter table fleet.job_kind_settings owner to vinops_admin;
alter table fleet.workers owner to vinops_admin;
alter table audit.operator_actions owner to vinops_admin;
alter view fleet.jobs_view owner to vinops_admin;
alter function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]) owner to vinops_admin;
alter function fleet.free_slots(text) owner to vinops_admin;

revoke execute on function
  fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]), fleet.free_slots(text)
from public;
grant execute on function
  fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]), fleet.free_slots(text)
to etl_rw, vinops_ops;

grant select on fleet.job_kind_settings to etl_rw;
grant select, insert, update on fleet.job_kind_settings to vinops_ops;
grant select, insert, update, delete on fleet.workers to etl_rw;
grant select on fleet.workers to vinops_ops;
grant select on fleet.jobs_view, fleet.job_kind_settings, fleet.workers to app_ro;
grant select on fleet.jobs_view to etl_rw, vinops_ops;
-- insert-only: not even the author of a row may change it
grant select, insert on audit.operator_actions to etl_rw, vinops_ops;
