-- 0015_fleet_queue
-- purpose: the queue: what is to be done, is being done and was done, and how each run of it ended
-- depends: none
-- rollback: destructive
-- creates: fleet.jobs, fleet.job_attempts, fleet.enqueue, fleet.ready_depth

-- fleet.jobs holds what is to be done, is being done and was done; fleet.job_attempts one line per run of a job.
-- What the columns mean, which states lead to which, and which races exist: head of src/queue/mod.rs.
-- Every rule that must hold however a row came to be written is a named constraint here, not a line of code.

create schema if not exists fleet;

create table if not exists fleet.jobs (
  id           bigint generated always as identity primary key,
  kind         text not null,                             -- what to do: the literal of one row of FLEET
  key          text,                                      -- what it is about; one unfinished or completed job per (kind, key)
  payload      jsonb not null default '{}',               -- identifiers, never rows and never secrets
  state        text not null default 'available',
  priority     smallint not null default 0,               -- the smaller number runs first
  run_at       timestamptz not null default now(),        -- not before this instant of the database's clock
  attempt      integer not null default 0,                -- spent attempts, the running one included
  max_attempts integer not null default 10,
  run          bigint not null default 0,                 -- fence token: one up at each claim, never back
  rescues      integer not null default 0,                -- leases lost; not attempts
  lease_until  timestamptz,                               -- whoever reads a later clock may take the job back
  locked_by    text,                                      -- worker: host-pid-starttime(-n)
  result       jsonb,                                     -- the report of the run that completed it
  error        text,                                      -- the latest error, its whole chain
  created_at   timestamptz not null default now(),
  started_at   timestamptz,                               -- the latest claim
  finished_at  timestamptz,

  constraint jobs_state_is_known check (
    state in ('available', 'scheduled', 'running', 'retryable', 'completed', 'cancelled', 'discarded')),
  constraint jobs_kind_is_a_word check (kind ~ '^[a-z][a-z0-9-]{0,62}$'),
  constraint jobs_key_is_short check (key <> '' and length(key) <= 200),
  constraint jobs_payload_is_an_object check (jsonb_typeof(payload) = 'object'),
  constraint jobs_running_means_leased check ((state = 'running') = (lease_until is not null)),
  constraint jobs_lease_has_a_holder check ((lease_until is null) = (locked_by is null)),
  constraint jobs_finished_means_over check (
    (state in ('completed', 'cancelled', 'discarded')) = (finished_at is not null)),
  constraint jobs_discarded_says_why check (state <> 'discarded' or error is not null),
  constraint jobs_result_is_of_completion check (result is null or state = 'completed'),
  constraint jobs_attempt_is_bounded check (attempt between 0 and max_attempts and max_attempts > 0),
  constraint jobs_waiting_has_an_attempt_left check (
    state not in ('available', 'scheduled', 'retryable') or attempt < max_attempts),
  constraint jobs_each_attempt_was_a_run check (attempt <= run),
  constraint jobs_rescues_count_up check (rescues >= 0)
) with (
  -- A job's row is rewritten about three times in its life: room on the page, and vacuum before bloat.
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 500,
  autovacuum_analyze_scale_factor = 0.05
);

comment on table fleet.jobs is 'the queue: one row per job, kept after its end';

-- Idempotency: enqueueing what is waiting, running or completed does nothing. A cancelled or discarded job does not
-- block its key: its work was not done.
create unique index if not exists jobs_key_is_unique
  on fleet.jobs (kind, key)
  where state not in ('cancelled', 'discarded');

-- The claim reads the head of each of its kinds; finished jobs are not in here, so a claim costs the same beside a
-- million of them.
create index if not exists jobs_waiting
  on fleet.jobs (kind, priority, run_at, id)
  where state in ('available', 'scheduled', 'retryable');

-- The rescue looks through the running jobs, which are never more than the fleet has slots. lease_until itself is
-- not indexed on purpose: its renewals then stay on their page (HOT) and touch no index.
create index if not exists jobs_running
  on fleet.jobs (id)
  where state = 'running';

create table if not exists fleet.job_attempts (
  job_id      bigint not null references fleet.jobs (id) on delete cascade,
  run         bigint not null,                            -- the fence token of that run
  attempt     integer not null,                           -- what jobs.attempt was then
  kind        text not null,
  worker      text not null,                              -- for a requeue: who
  started_at  timestamptz not null default now(),
  finished_at timestamptz,
  outcome     text,                                       -- null while running
  error       text,                                       -- the whole chain; for a requeue: why

  primary key (job_id, run),
  constraint job_attempts_outcome_is_known check (
    outcome in ('done', 'retry', 'abort', 'snooze', 'panic', 'timeout', 'unreadable',
          'lost', 'interrupted', 'returned', 'cancelled', 'requeued')),
  constraint job_attempts_outcome_means_over check ((outcome is null) = (finished_at is null))
) with (
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0.05
);

comment on table fleet.job_attempts is 'one row per run of a job: who ran it, from when to when, and how it ended';

-- Puts a job into the queue inside the caller's transaction, from any language. Null: the key is taken, nothing was
-- done. Listeners of channel "fleet" get the kind when the caller commits.
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
  enqueued bigint;
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
  returning id into enqueued;

  if enqueued is not null then
    perform pg_notify('fleet', enqueue.kind);
  end if;
  return enqueued;
end
$$;

comment on function fleet.enqueue is 'enqueues a job in the caller''s transaction; null when its key is taken';

-- How many jobs could run this instant if somebody claimed them: what an autoscaler should look at.
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

comment on function fleet.ready_depth is 'jobs that are due and unclaimed, of these kinds or of all';
