-- 0015_fleet_queue
-- purpose: the queue: what is to be done, is being done and was done, and how each run of it ended
-- depends: none
-- rollback: destructive
-- creates: fleet.jobs, fleet.job_runs, fleet.job_attempts, fleet.enqueue, fleet.ready_depth, fleet.stamp_db_user, fleet.prune_jobs

-- fleet.jobs holds what is to be done, is being done and was done; fleet.job_attempts one line per ended run of a job.
-- What the columns mean, which states lead to which, and which races exist: head of src/queue/mod.rs.
-- Every rule that must hold however a row came to be written is a named constraint here, not a line of code.

create schema if not exists fleet;

-- Rules of a single column are its domain's, which looks at a value when it is assigned. A check of the table is read
-- from the catalogue, planned and asked anew by every statement that updates a row, whatever it sets; a claim or an end
-- of few jobs would pay more for that than for its rows.
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
  kind         fleet.job_kind not null,                   -- what to do: the literal of one row of FLEET
  key          fleet.job_key,                             -- what it is about; one unfinished or completed job per (kind, key)
  payload      fleet.job_payload not null default '{}',   -- identifiers, never rows and never secrets
  state        fleet.job_state not null default 'available',
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
  completed_by text,                                      -- worker of the run that completed it: that run is told here alone

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
  -- years of four digits: what RFC 3339 writes and every program reads; infinity is none
  constraint jobs_run_at_is_an_instant check (run_at >= '0001-01-01T00:00Z' and run_at < '10000-01-01T00:00Z')
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
  on fleet.jobs (key, kind)
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

-- To follow completions as they come (jobs tail): rows are rewritten in about the order of their ends.
create index if not exists jobs_by_completion
  on fleet.jobs using brin (finished_at)
  with (pages_per_range = 16)
  where completed_by is not null;

-- Runs that did not complete their job, or did and have something to tell of it, and what operators did to waiting and
-- finished ones. Written when the run ends: until then the job's own row says who runs it and since when. In the order
-- of their ends, which is what makes a block range index enough to follow them.
create table if not exists fleet.job_runs (
  job_id      bigint not null references fleet.jobs (id) on delete cascade,
  run         bigint not null,                            -- the fence token of that run
  attempt     integer not null,                           -- what jobs.attempt was then
  kind        fleet.job_kind not null,
  worker      text not null,                              -- for a requeue: who
  started_at  timestamptz not null default now(),
  finished_at timestamptz not null,
  outcome     text not null,
  error       text,                                       -- the whole chain; for a requeue: why
  db_user     text not null default session_user,         -- the login that wrote this row, whatever `worker` says

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

comment on table fleet.job_runs is 'ended runs that the row of their job does not tell: read fleet.job_attempts';

-- Writes the login beside the name that a caller gives. Of all tables with a column db_user.
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

-- The whole history. Nearly every job is completed by its first run, of which its own row knows everything: a second
-- row for it would be the dearest write of its life.
create or replace view fleet.job_attempts as
select job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error
from fleet.job_runs
union all
select id, run, attempt, kind, completed_by, started_at, finished_at, 'done', null
from fleet.jobs
where completed_by is not null;

comment on view fleet.job_attempts is 'one row per ended run of a job: who ran it, from when to when, and how it ended';

-- Puts a job into the queue inside the caller's transaction, from any language. Null: the key is taken, nothing was
-- done. Listeners of channel "fleet" get the kind when the caller commits. Who enqueues many keys in one transaction sorts
-- them: two transactions that take the same keys in different orders wait for each other, and one ends as a deadlock.
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

-- Deletes one batch of finished jobs with their history: of the jobs after `after_id`, as many as `batch` (at most 10,000)
-- are looked at, and those go that ended longer ago than jobs of their end are kept (at least a day). Returns the last id
-- looked at, how many went, and whether older ones may follow; nothing while another session prunes. Workers have no other
-- right to delete jobs.
create or replace function fleet.prune_jobs(
  after_id bigint, batch integer, keep_completed interval, keep_failed interval,
  out last bigint, out pruned bigint, out more boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  looked_at constant integer := greatest(1, least(coalesce(batch, 1), 10000));
  completed_before constant timestamptz := now() - greatest(keep_completed, interval '1 day');
  failed_before constant timestamptz := now() - greatest(keep_failed, interval '1 day');
  old bigint[];
begin
  if not pg_try_advisory_xact_lock(hashtextextended('fleet: prune', 0)) then
    pruned := 0;
    more := false;
    return;
  end if;
  select
    max(j.id),
    array_agg(j.id) filter (
      where j.state = 'completed' and j.finished_at < completed_before
        or j.state in ('cancelled', 'discarded') and j.finished_at < failed_before
    ),
    -- a job ends after it was put in, so beyond a young one there is nothing old
    count(*) = looked_at and min(j.created_at) < greatest(completed_before, failed_before)
  into last, old, more
  from (
    select id, state, created_at, finished_at
    from fleet.jobs
    where id > after_id
    order by id
    limit looked_at
  ) as j;
  -- asked again of the row itself: somebody may have put it back just now
  delete from fleet.jobs
  where id = any (old)
    and finished_at < greatest(completed_before, failed_before);
  get diagnostics pruned = row_count;
end
$$;

comment on function fleet.prune_jobs is 'deletes a batch of jobs that ended long ago, with their history';
