-- 0018_fleet_steering
-- purpose: steering the fleet: kinds paused and limited, running jobs cancelled, keys unique over chosen states, workers known by name, every act of an operator noted
-- depends: 0017
-- rollback: destructive
-- creates: fleet.kinds, fleet.workers, fleet.jobs_view, fleet.free_slots, audit.operator_actions

-- What has been said about a kind; one that nobody spoke of has no row, and is neither paused nor limited. Every claim
-- reads this table, so it stays as small as the fleet has kinds.
create table if not exists fleet.kinds (
  kind           fleet.job_kind primary key,
  max_running    integer,                                 -- so many at once in the whole fleet; null: any number
  paused_at      timestamptz,                             -- null: it runs
  paused_by      text,
  paused_because text,

  constraint kinds_max_running_is_a_limit check (max_running > 0),
  constraint kinds_pause_says_who_and_why check (
    (paused_at is null) = (paused_by is null) and (paused_at is null) = (paused_because is null))
);

comment on table fleet.kinds is 'what operators said about kinds of jobs: paused, limited to so many at once';

-- Who works, or was thought to: a row is renewed three times per lease and goes when its worker leaves in order. One
-- that is older than its lease is of a worker that is lost.
create table if not exists fleet.workers (
  name        text primary key,                           -- what jobs.locked_by holds
  kinds       text[] not null,
  concurrency integer not null,
  running     integer not null default 0,                 -- jobs in its hands
  draining    boolean not null default false,
  lease       interval not null,
  started_at  timestamptz not null default now(),
  seen_at     timestamptz not null default now()
);

comment on table fleet.workers is 'the workers that are at work, and for a day those that were lost';

-- The four states of an unfinished job are always among those over which its key is unique, or a second job would come in
-- and be refused in mid-life.
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

-- A running job that is to be cancelled says so until its worker has let go of it, and its step can commit no more.
alter table fleet.jobs
  add column if not exists cancelling text,               -- who asked and why; null: nobody
  add column if not exists unique_over fleet.job_states,  -- states over which its key is unique; null: the usual five
  drop constraint if exists jobs_cancelling_is_of_a_running_job,
  drop constraint if exists jobs_unique_over_has_a_key,
  add constraint jobs_cancelling_is_of_a_running_job check (cancelling is null or lease_until is not null),
  add constraint jobs_unique_over_has_a_key check (unique_over is null or key is not null);

-- Two indexes, since a predicate that read both would cost every job what few need. A kind uses one way for all its
-- keys: the usual and the chosen do not see each other.
drop index if exists fleet.jobs_key_is_unique;
drop index if exists fleet.jobs_key_is_unique_over;
create unique index jobs_key_is_unique
  on fleet.jobs (key, kind)
  where state not in ('cancelled', 'discarded') and unique_over is null;
create unique index jobs_key_is_unique_over
  on fleet.jobs (key, kind)
  where unique_over is not null and state = any (unique_over);

drop function if exists fleet.enqueue(text, jsonb, text, timestamptz, integer, integer);

-- Puts a job into the queue inside the caller's transaction, from any language. Null: the key is taken, nothing was
-- done. `unique_over` chooses the states in which a job keeps its key from others: the four of an unfinished job,
-- '{available,scheduled,running,retryable}', for "one at a time", and any of the other three besides. Listeners of channel "fleet" get the kind when the caller commits.
-- Who enqueues many keys in one transaction sorts them: two transactions that take the same keys in different orders wait
-- for each other, and one of them ends as a deadlock. run_at is an instant of the years 1 to 9999.
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
  enqueued bigint;
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
  returning id into enqueued;

  if enqueued is not null then
    perform pg_notify('fleet', enqueue.kind);
  end if;
  return enqueued;
end
$$;

comment on function fleet.enqueue is
  'enqueues a job in the caller''s transaction; null when its key is taken; many keys in one transaction are to be sorted';

-- How many more jobs of a limited kind may run; null when it has no limit (any more). Holds the kind's row until the
-- caller's transaction ends, and counts only then: each statement of a volatile function sees what has been committed
-- before it began, so of two claims the second counts what the first took. Without a limit nobody calls it.
create or replace function fleet.free_slots(kind text) returns integer
  language plpgsql
  volatile
  -- to lock a kind's row takes the right to update it, which workers do not have
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  most integer;
begin
  select steer.max_running
  into most
  from fleet.kinds as steer
  where steer.kind = free_slots.kind
    and steer.paused_at is null
  for no key update;
  if not found then
    return 0;
  end if;
  return greatest(0, most - (
    select count(*)
    from fleet.jobs as job
    where job.state = 'running'
      and job.kind = free_slots.kind
  ));
end
$$;

comment on function fleet.free_slots is 'how many more jobs of a limited kind may run, under a lock on that kind';

-- As before, without what is paused: an autoscaler must not start workers for it.
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
      select from fleet.kinds as steer where steer.kind = job.kind and steer.paused_at is not null
    )
$$;

comment on function fleet.ready_depth is 'jobs that are due, unclaimed and not paused, of these kinds or of all';

-- The public contract for dashboards: columns are added, never renamed or dropped. Payloads are not in it.
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
  steer.paused_at is not null as paused,
  job.state in ('available', 'scheduled', 'retryable') and job.run_at <= now() and steer.paused_at is null as ready,
  job.result,
  job.error,
  job.created_at,
  job.started_at,
  job.finished_at,
  extract(epoch from coalesce(job.finished_at, case when job.state = 'running' then now() end) - job.started_at)::float8
    as seconds
from fleet.jobs as job
left join fleet.kinds as steer using (kind);

comment on view fleet.jobs_view is 'one row per job, for dashboards; columns may be added, none is renamed or dropped';
comment on column fleet.jobs_view.key is 'what the job is about';
comment on column fleet.jobs_view.source is 'the part of the key before its first slash: copart';
comment on column fleet.jobs_view.state is 'available, scheduled, running, retryable, completed, cancelled or discarded';
comment on column fleet.jobs_view.priority is 'the smaller number runs first';
comment on column fleet.jobs_view.run_at is 'not before this instant';
comment on column fleet.jobs_view.attempt is 'spent attempts, the running one included';
comment on column fleet.jobs_view.run is 'how often it was claimed';
comment on column fleet.jobs_view.rescues is 'leases lost to dead workers';
comment on column fleet.jobs_view.worker is 'who runs it; a name of fleet.workers';
comment on column fleet.jobs_view.cancelling is 'it runs, and its worker has been asked to let go of it';
comment on column fleet.jobs_view.paused is 'its kind is paused';
comment on column fleet.jobs_view.ready is 'a free worker of its kind would start it now';
comment on column fleet.jobs_view.result is 'its report, once completed';
comment on column fleet.jobs_view.error is 'its latest error, the whole chain';
comment on column fleet.jobs_view.started_at is 'when it was last claimed';
comment on column fleet.jobs_view.seconds is 'how long its last run took, or has been running';

-- What people did to the machinery. Written in the transaction of the act itself.
create table if not exists audit.operator_actions (
  id      bigint generated always as identity primary key,
  at      timestamptz not null default now(),
  who     text not null,                                  -- as the operator says
  db_user text not null default session_user,             -- the login, whatever `who` says
  action  text not null,                                  -- requeue, cancel, run-now, pause, resume, …
  subject text not null,                                  -- what it was done to: a job, a kind, a source
  reason  text not null,
  details jsonb not null default '{}'
);

comment on table audit.operator_actions is 'what operators did: who, what, to what, and why';
create index if not exists idx_operator_actions_at on audit.operator_actions (at);

create or replace trigger stamp_db_user
before insert on audit.operator_actions
for each row
execute function fleet.stamp_db_user();

alter table fleet.kinds owner to vinops_admin;
alter table fleet.workers owner to vinops_admin;
alter table audit.operator_actions owner to vinops_admin;
alter view fleet.jobs_view owner to vinops_admin;
alter function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]) owner to vinops_admin;
alter function fleet.free_slots(text) owner to vinops_admin;

revoke execute on function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]), fleet.free_slots(text)
  from public;
grant execute on function fleet.enqueue(text, jsonb, text, timestamptz, integer, integer, text[]), fleet.free_slots(text)
  to etl_rw, vinops_ops;

grant select on fleet.kinds to etl_rw;
grant select, insert, update on fleet.kinds to vinops_ops;
grant select, insert, update, delete on fleet.workers to etl_rw;
grant select on fleet.workers to vinops_ops;
grant select on fleet.jobs_view, fleet.kinds, fleet.workers to app_ro;
grant select on fleet.jobs_view to etl_rw, vinops_ops;
-- insert-only: not even their author unsays them
grant select, insert on audit.operator_actions to etl_rw, vinops_ops;
