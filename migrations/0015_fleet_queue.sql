-- 0015_fleet_queue
-- purpose: the job queue: jobs, their runs and the outcomes of the runs
-- depends: none
-- rollback: destructive
-- creates: fleet.jobs, fleet.job_runs, fleet.job_attempts, fleet.enqueue, fleet.ready_depth, fleet.stamp_db_user, fleet.prune_jobs

-- fleet.jobs contains waiting, running and finished jobs. fleet.job_attempts has one row per ended run of a job. The
-- meaning of the columns, the state transitions and the possible races are described in the head of src/queue/mod.rs.
-- Every rule that must hold regardless of how a row was written is a named constraint here, not code.

create schema if not exists fleet;

-- Rules for a single column are constraints of its domain, which are checked when a value is assigned. A check
-- constraint of the table is read from the catalogue, planned and evaluated by every statement that updates a row,
-- whichever columns change. For a claim, or for the end of a few jobs, that would cost more than the rows.
do $$
begin
  create domain fleet.job_kind as text
    constraint jobs_kind_is_a_word check (value ~ '^[a-z][a-z0-9-]*$' and length(value) <= 63);
  create domain fleet.job_key as text
    constraint jobs_key_is_short check (value <> '' and length(value) <= 200);
  create domain fleet.job_payload as jsonb
    constraint jobs_payload_is_an_object check (jsonb_typeof(value) = 'object');
  create domain fleet.job_state as text
    constraint jobs_state_is_known check (
      value in ('available', 'scheduled', 'running', 'retryable', 'completed', 'cancelled', 'discarded'));
exception
  when duplicate_object then null;
end
$$;

create table if not exists fleet.jobs (
  id           bigint generated always as identity primary key,
  kind         fleet.job_kind not null,                   -- name of a job in the table of jobs (FLEET)
  key          fleet.job_key,                             -- subject; one unfinished or completed job per (kind, key)
  payload      fleet.job_payload not null default '{}',   -- identifiers, never rows and never secrets
  state        fleet.job_state not null default 'available',
  priority     smallint not null default 0,               -- the smaller number runs first
  run_at       timestamptz not null default now(),        -- earliest start, by the database's clock
  attempt      integer not null default 0,                -- spent attempts, the running one included
  max_attempts integer not null default 10,
  run          bigint not null default 0,                 -- fence token, incremented at each claim
  rescues      integer not null default 0,                -- lost leases, which are not attempts
  lease_until  timestamptz,                               -- after this instant another worker may rescue the job
  locked_by    text,                                      -- worker: host-pid-starttime(-n)
  result       jsonb,                                     -- the report of the run that completed the job
  error        text,                                      -- the latest error with its causes
  created_at   timestamptz not null default now(),
  started_at   timestamptz,                               -- the latest claim
  finished_at  timestamptz,
  completed_by text,                                      -- worker of the completing run, recorded only here

  constraint jobs_running_means_leased check ((state = 'running') = (lease_until is not null)),
  constraint jobs_lease_has_a_holder check ((lease_until is null) = (locked_by is null)),
  constraint jobs_finished_means_over check (
    (state in ('completed', 'cancelled', 'discarded')) = (finished_at is not null)),
  constraint jobs_discarded_says_why check (state <> 'discarded' or error is not null),
  constraint jobs_result_is_of_completion check (result is null and completed_by is null or state = 'completed'),
  constraint jobs_attempt_is_bounded check (attempt between 0 and max_attempts and max_attempts > 0),
  constraint jobs_waiting_has_an_attempt_left check (
    lease_until is not null or finished_at is not null or attempt < max_attempts),
  constraint jobs_each_attempt_was_a_run check (attempt <= run),
  constraint jobs_rescues_count_up check (rescues >= 0),
  -- years of four digits, as RFC 3339 writes them and every program reads them; infinity is excluded
  constraint jobs_run_at_is_an_instant check (run_at >= '0001-01-01T00:00Z' and run_at < '10000-01-01T00:00Z')
) with (
  -- A job's row is updated about three times: leave free space on the page, and vacuum before bloat.
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 500,
  autovacuum_analyze_scale_factor = 0.05
);

comment on table fleet.jobs is 'the queue: one row per job, kept after the job has finished';

-- Idempotency: enqueueing a key that is waiting, running or completed does nothing. A cancelled or discarded job does
-- not block its key, because its work was not done.
create unique index if not exists jobs_key_is_unique
  on fleet.jobs (key, kind)
  where state not in ('cancelled', 'discarded');

-- A claim reads the first waiting jobs of each kind. Finished jobs are not in this index, so a claim costs the same
-- beside a million of them.
create index if not exists jobs_waiting
  on fleet.jobs (kind, priority, run_at, id)
  where state in ('available', 'scheduled', 'retryable');

-- The rescue scans the running jobs, of which there are never more than the fleet has slots. `lease_until` is
-- deliberately not indexed: renewals stay on their page (HOT) and update no index.
create index if not exists jobs_running
  on fleet.jobs (id)
  where state = 'running';

-- For following completions (jobs tail): rows are updated roughly in the order in which jobs complete.
create index if not exists jobs_by_completion
  on fleet.jobs using brin (finished_at)
  with (pages_per_range = 16)
  where completed_by is not null;

-- Runs that did not complete their job, completing runs with a note, and actions of operators on waiting and finished
-- jobs. A row is inserted when the run ends. Until then the job's own row contains the worker and the start. Rows are
-- in the order of their ends, so a block range index is enough to follow them.
create table if not exists fleet.job_runs (
  job_id      bigint not null references fleet.jobs (id) on delete cascade,
  run         bigint not null,                            -- the fence token of that run
  attempt     integer not null,                           -- jobs.attempt at that time
  kind        fleet.job_kind not null,
  worker      text not null,                              -- for a requeue: the operator
  started_at  timestamptz not null default now(),
  finished_at timestamptz not null,
  outcome     text not null,
  error       text,                                       -- the error with its causes; for a requeue: the reason
  db_user     text not null default session_user,         -- the login that wrote this row, whatever `worker` contains

  primary key (job_id, run),
  constraint job_runs_outcome_is_known check (
    outcome in ('done', 'retry', 'abort', 'snooze', 'panic', 'timeout', 'unreadable',
          'lost', 'interrupted', 'returned', 'cancelled', 'requeued'))
) with (
  autovacuum_vacuum_scale_factor = 0.05
);

create index if not exists job_runs_by_end
  on fleet.job_runs using brin (finished_at)
  with (pages_per_range = 16);

comment on table fleet.job_runs is
  'ended runs that are not recorded in the row of their job; query fleet.job_attempts for all runs';

-- Records the login beside the name that the caller gives, for all tables with a column `db_user`.
create or replace function fleet.stamp_db_user()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.db_user := session_user;
  return new;
end
$$;

create or replace trigger stamp_db_user
before insert on fleet.job_runs
for each row
execute function fleet.stamp_db_user();

-- All ended runs. Nearly every job is completed by its first run, which the job's row records completely. A second row
-- would be the most expensive write of the job.
create or replace view fleet.job_attempts as
select job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error
from fleet.job_runs
union all
select id, run, attempt, kind, completed_by, started_at, finished_at, 'done', null
from fleet.jobs
where completed_by is not null;

comment on view fleet.job_attempts is 'one row per ended run of a job: worker, start, end and outcome';

-- Enqueues a job in the caller's transaction, from any language. Returns null if the key is in use, and then does
-- nothing. Listeners of channel "fleet" receive the kind when the caller commits. A caller that enqueues many keys in
-- one transaction must sort them: two transactions that lock the same keys in different orders wait for each other, and
-- one fails with a deadlock.
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

-- Returns the number of jobs that could run now if workers claimed them. An autoscaler should use this value.
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

comment on function fleet.ready_depth is 'number of due, unclaimed jobs of these kinds, or of all kinds';

-- Deletes one batch of finished jobs with their history: of the first `batch` jobs (at most 10,000) after `after_id`,
-- those that finished longer ago than the retention for their final state (at least a day). Returns the last id
-- inspected, the number of deleted jobs, and whether older jobs may follow. Does nothing while another session prunes.
-- Workers have no other right to delete jobs.
create or replace function fleet.prune_jobs(
  after_id bigint, batch integer, keep_completed interval, keep_failed interval,
  out last bigint, out pruned bigint, out more boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  batch_size constant integer := greatest(1, least(coalesce(batch, 1), 10000));
  completed_cutoff constant timestamptz := now() - greatest(keep_completed, interval '1 day');
  failed_cutoff constant timestamptz := now() - greatest(keep_failed, interval '1 day');
  old_ids bigint[];
begin
  if not pg_try_advisory_xact_lock(hashtextextended('fleet: prune', 0)) then
    pruned := 0;
    more := false;
    return;
  end if;
  select
    max(j.id),
    array_agg(j.id) filter (
      where j.state = 'completed' and j.finished_at < completed_cutoff
        or j.state in ('cancelled', 'discarded') and j.finished_at < failed_cutoff
    ),
    -- a job finishes after it was created, so no old job follows a young one
    count(*) = batch_size and min(j.created_at) < greatest(completed_cutoff, failed_cutoff)
  into last, old_ids, more
  from (
    select id, state, created_at, finished_at
    from fleet.jobs
    where id > after_id
    order by id
    limit batch_size
  ) as j;
  -- checked again on the row, which may have been requeued meanwhile
  delete from fleet.jobs
  where id = any (old_ids)
    and finished_at < greatest(completed_cutoff, failed_cutoff);
  get diagnostics pruned = row_count;
end
$$;

comment on function fleet.prune_jobs is 'deletes a batch of jobs that finished long ago, with their history';
