-- 0019_fleet_sources
-- purpose: state of each source, shared by the fleet: switch, circuit breaker, fetch slots, session
-- depends: 0018
-- rollback: destructive
-- creates: fleet.sources, fleet.source_transitions, fleet.fetch_slots, fleet.source_sessions, fleet.sources_view, fleet.begin_fetch, fleet.end_fetch, fleet.note_fetch_end, fleet.move_breaker, fleet.reset_breaker, fleet.switch_source, fleet.accept_size, fleet.add_source, fleet.remove_source, fleet.accept_window, fleet.note_action

-- The rules of fetching, enforced for all workers together:
--   a slot (source and quarter-hour) has one attempt, which belongs to one job: the primary key of fetch_slots;
--   five failed slots in a row open the breaker; while it is open nothing is fetched except one probe;
--   the probe's job is recorded in the source's row, so the lease of that job is the lease of the probe;
--   a slot whose fetch never began does not count for the source.
-- Locks are taken in this order: the job, the source, the slot, the window.

-- A source exists if it has a row here, which only an operator adds. A misspelt name therefore creates no source.
create table if not exists fleet.sources (
  source text not null,
  enabled boolean not null default true,               -- false: no fetch is scheduled or run, not even manually
  breaker text not null default 'closed',
  consecutive_failures integer not null default 0,     -- failed slots in a row
  opened_at timestamptz,                               -- time since which the breaker is not closed
  probe_at timestamptz,                                -- earliest slot of a probe: an hour after the opening slot
  probe_job bigint,                                    -- the probe's job while half open
  last_success_at timestamptz,
  last_failure_at timestamptz,
  last_error text,                                     -- error of the latest failed slot
  updated_at timestamptz not null default now(),
  constraint sources_pkey primary key (source),
  constraint sources_source_is_a_word check (source ~ '^[a-z][a-z0-9_-]{0,62}$'),
  constraint sources_breaker_is_known check (breaker in ('closed', 'open', 'half_open')),
  constraint sources_open_knows_since_when check ((breaker = 'closed') = (opened_at is null)),
  constraint sources_open_knows_its_probe check ((breaker = 'closed') = (probe_at is null)),
  constraint sources_half_open_has_one_probe check ((breaker = 'half_open') = (probe_job is not null)),
  constraint sources_failures_count_up check (consecutive_failures >= 0)
);

create table if not exists fleet.source_transitions (
  id bigint generated always as identity,
  source text not null,
  at timestamptz not null default clock_timestamp(),
  from_state text not null,
  to_state text not null,
  who text not null,                                   -- an operator, or the job that caused the transition
  why text not null,
  db_user text not null default session_user,          -- the login, whatever `who` contains
  constraint source_transitions_pkey primary key (id),
  constraint source_transitions_states_are_known check (
    from_state in ('closed', 'open', 'half_open') and to_state in ('closed', 'open', 'half_open')
    or from_state in ('enabled', 'disabled') and to_state in ('enabled', 'disabled')),
  constraint source_transitions_say_who_and_why check (who <> '' and why <> '')
);
create index if not exists idx_source_transitions_source on fleet.source_transitions (source, id desc);

create or replace trigger stamp_db_user
before insert on fleet.source_transitions
for each row
execute function fleet.stamp_db_user();

create table if not exists fleet.fetch_slots (
  source text not null,
  slot timestamptz not null,
  job_id bigint not null,                              -- job of the attempt; a rescued job continues it
  run bigint not null,                                 -- run of the attempt, never an earlier one
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  outcome text,                                        -- null while in progress
  unkept_by bigint,                                    -- run that downloaded a file and failed to store it
  constraint fetch_slots_pkey primary key (source, slot),
  constraint fetch_slots_quarter_hour_ck check (extract(epoch from slot)::bigint % 900 = 0),
  constraint fetch_slots_slot_is_an_instant check (slot >= '0001-01-01T00:00Z' and slot < '10000-01-01T00:00Z'),
  -- Only `failed` counts for the breaker. Not counted: a failure on our side (unkept), a lost run (lost), a
  -- cancellation (cancelled).
  constraint fetch_slots_outcome_is_known check (
    outcome in ('fetched', 'unchanged', 'failed', 'unkept', 'lost', 'cancelled')),
  constraint fetch_slots_outcome_means_over check ((outcome is null) = (finished_at is null))
);
create unique index if not exists fetch_slots_one_attempt_of_a_job
  on fleet.fetch_slots (job_id)
  where outcome is null;

create table if not exists fleet.source_sessions (
  source text not null,
  sealed bytea,                                        -- the encrypted cookies, nonce first
  obtained_at timestamptz,
  expires_at timestamptz,
  refreshing_by text,                                  -- the worker that is logging in
  refreshing_until timestamptz,
  retry_at timestamptz,                                -- earliest login after a rejected one
  last_error text,
  updated_at timestamptz not null default now(),
  constraint source_sessions_pkey primary key (source),
  constraint source_sessions_are_whole check (
    (sealed is null) = (obtained_at is null) and (sealed is null) = (expires_at is null)),
  constraint source_sessions_refresh_has_an_end check ((refreshing_by is null) = (refreshing_until is null))
);

create index if not exists idx_windows_applied on fleet.windows (source, window_start_utc) where state = 'applied';

-- The state of a source, for dashboards and metrics. `enabled` combines the switch of the source and that of
-- public.config.
create or replace view fleet.sources_view as
select
  s.source,
  s.enabled and coalesce((select c.auto_fetch_enabled from public.config c), true) as enabled,
  s.breaker as breaker_state,
  s.consecutive_failures,
  s.opened_at,
  s.probe_at,
  s.last_success_at,
  (
    select max(w.window_start_utc)
    from fleet.windows w
    where w.source = s.source
      and w.state = 'applied'
  ) as last_applied_window,
  x.expires_at as session_expires_at
from fleet.sources s
left join fleet.source_sessions x on x.source = s.source;

comment on view fleet.sources_view is 'one row per source: switch, breaker, last success, last applied window, session';

-- Records an operator's action, in the transaction of the action.
create or replace function fleet.note_action(who text, action text, subject text, reason text, details jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into audit.operator_actions (who, action, subject, reason, details)
  values (who, action, subject, reason, details)
$$;

-- Changes the state of the breaker and records who did so and why. The caller has locked the source's row. The notice
-- becomes a log line of the calling process.
create or replace function fleet.move_breaker(
  of_source text, to_state text, who text, why text, next_probe timestamptz default null, probe bigint default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  old_state text;
begin
  select s.breaker into old_state from fleet.sources s where s.source = of_source;
  update fleet.sources s
  set breaker = to_state,
    opened_at = case when to_state <> 'closed' then coalesce(s.opened_at, clock_timestamp()) end,
    probe_at = case when to_state <> 'closed' then coalesce(next_probe, s.probe_at) end,
    probe_job = case when to_state = 'half_open' then probe end,
    consecutive_failures = case when to_state = 'closed' then 0 else s.consecutive_failures end,
    updated_at = clock_timestamp()
  where s.source = of_source;
  insert into fleet.source_transitions (source, from_state, to_state, who, why)
  values (of_source, old_state, to_state, who, why);
  if to_state = 'open' then
    raise warning 'source %: the breaker is open (was %): %; probe at %', of_source, old_state, why,
      to_char(coalesce(next_probe, now()) at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI"Z"');
  else
    raise warning 'source %: the breaker is % (was %): %', of_source, to_state, old_state, why;
  end if;
end
$$;

-- Requests the slot's only attempt for a run of a job. Returns one word:
--   go               the attempt belongs to this run
--   already_fetched  the window already has a result
--   missed           the quarter-hour of the window has passed
--   disabled, open   the source is disabled, or its breaker admits only the probe
--   under_way        the attempt of another job is in progress
--   unknown          the source does not exist, and nothing is written
--   spent            the slot's attempt has ended
-- A simulated source has its own clock: its slot is the window, and no window has passed.
create or replace function fleet.begin_fetch(
  of_source text, of_window timestamptz, job bigint, its_run bigint, simulated boolean default false)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  slot_start constant timestamptz :=
    case when simulated then of_window else date_bin('15 minutes', clock_timestamp(), 'epoch'::timestamptz) end;
  source_row fleet.sources;
  window_state text;
begin
  select * into source_row from fleet.sources s where s.source = of_source for update;
  if not found then
    return 'unknown';
  end if;
  -- a job that the scheduler did not enqueue, for example from psql
  insert into fleet.windows (source, window_start_utc) values (of_source, of_window) on conflict do nothing;
  select w.state into strict window_state
  from fleet.windows w
  where w.source = of_source and w.window_start_utc = of_window;

  if window_state not in ('due', 'failed', 'missed') then
    return 'already_fetched';
  elsif not simulated and of_window + interval '15 minutes' <= slot_start then
    return 'missed';
  elsif not source_row.enabled then
    return 'disabled';
  elsif source_row.breaker <> 'closed' and source_row.probe_job is distinct from job then
    return 'open';
  end if;

  insert into fleet.fetch_slots as s (source, slot, job_id, run)
  values (of_source, slot_start, job, its_run)
  on conflict (source, slot) do update
  set run = excluded.run
  where s.job_id = excluded.job_id and s.outcome is null and s.run <= excluded.run;
  if found then
    return 'go';
  end if;
  return (
    select case when s.outcome is null then 'under_way' else 'spent' end
    from fleet.fetch_slots s
    where s.source = of_source and s.slot = slot_start
  );
end
$$;

comment on function fleet.begin_fetch is 'requests the only attempt of a source''s quarter-hour slot';

-- Ends a run's attempt with success, which closes the breaker. Returns false if the attempt no longer belongs to that
-- run.
create or replace function fleet.end_fetch(job bigint, its_run bigint, its_outcome text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  source_row fleet.sources;
begin
  perform from fleet.jobs j where j.id = job for update;
  select s.* into source_row
  from fleet.sources s
  join fleet.fetch_slots f on f.source = s.source
  where f.job_id = job and f.run = its_run and f.outcome is null
  for update of s;
  update fleet.fetch_slots f
  set outcome = its_outcome,
    finished_at = clock_timestamp()
  where f.job_id = job and f.run = its_run and f.outcome is null;
  if not found then
    return false;
  end if;
  update fleet.sources s
  set consecutive_failures = 0,
    last_success_at = clock_timestamp(),
    updated_at = clock_timestamp()
  where s.source = source_row.source;
  if source_row.breaker <> 'closed' then
    perform fleet.move_breaker(source_row.source, 'closed', 'job ' || job, 'the probe succeeded');
  end if;
  return true;
end
$$;

-- Applies the end of a fetch job to its source, for any cause of the end. The attempt of a discarded job has failed,
-- unless its last run recorded a failure on our side. If the probe's job ends without an outcome, the breaker stays
-- open, and the next slot is the probe.
create or replace function fleet.note_fetch_end()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  source_row fleet.sources;
  slot_start timestamptz;
  slot_outcome text;
begin
  select * into source_row from fleet.sources s where s.source = new.payload ->> 'source' for update;
  if not found then
    return null;
  end if;
  update fleet.fetch_slots f
  set outcome = case
      when new.state = 'cancelled' then 'cancelled'
      when new.state <> 'discarded' then 'lost'
      when f.unkept_by = f.run then 'unkept'
      else 'failed'
    end,
    finished_at = clock_timestamp()
  where f.job_id = new.id and f.outcome is null
  returning f.slot, f.outcome into slot_start, slot_outcome;

  if slot_outcome = 'failed' then
    source_row.consecutive_failures := source_row.consecutive_failures + 1;
    update fleet.sources s
    set consecutive_failures = source_row.consecutive_failures,
      last_failure_at = clock_timestamp(),
      last_error = left(new.error, 500),
      updated_at = clock_timestamp()
    where s.source = source_row.source;
    if source_row.breaker = 'half_open' and source_row.probe_job = new.id then
      perform fleet.move_breaker(
        source_row.source, 'open', 'job ' || new.id, 'the probe failed', slot_start + interval '1 hour');
    elsif source_row.breaker = 'closed' and source_row.consecutive_failures >= 5 then
      perform fleet.move_breaker(
        source_row.source, 'open', 'job ' || new.id, source_row.consecutive_failures || ' slots failed in a row',
        slot_start + interval '1 hour');
    elsif source_row.consecutive_failures >= 3 then
      raise warning 'source %: % slots failed in a row; the breaker opens at 5',
        source_row.source, source_row.consecutive_failures;
    end if;
  elsif source_row.breaker = 'half_open' and source_row.probe_job = new.id then
    perform fleet.move_breaker(source_row.source, 'open', 'job ' || new.id, 'the probe ended without an answer');
  end if;
  return null;
end
$$;

-- Every end of every job evaluates this condition, so it is short. A claim does not evaluate it.
create or replace trigger note_fetch_end
after update of finished_at on fleet.jobs
for each row
when (old.finished_at is null and new.finished_at is not null and new.kind = 'fetch')
execute function fleet.note_fetch_end();

-- Closes the breaker manually and resets the failure count. Returns false if there was nothing to reset.
create or replace function fleet.reset_breaker(of_source text, who text, why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  source_row fleet.sources;
begin
  select * into source_row from fleet.sources s where s.source = of_source for update;
  if not found or (source_row.breaker = 'closed' and source_row.consecutive_failures = 0) then
    return false;
  end if;
  perform fleet.move_breaker(of_source, 'closed', who, why);
  perform fleet.note_action(who, 'reset-breaker', of_source, why,
    jsonb_build_object('from', source_row.breaker, 'consecutive_failures', source_row.consecutive_failures));
  return true;
end
$$;

-- Enables or disables a source manually. Returns false if the source was in that state already. An unknown source is an
-- error (P0002).
create or replace function fleet.switch_source(of_source text, turn_on boolean, who text, why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  new_state constant text := case when turn_on then 'enabled' else 'disabled' end;
  old_state constant text := case when turn_on then 'disabled' else 'enabled' end;
begin
  perform from fleet.sources s where s.source = of_source for update;
  if not found then
    raise no_data_found using message = format('unknown source "%s"', of_source);
  end if;
  update fleet.sources s
  set enabled = turn_on,
    updated_at = clock_timestamp()
  where s.source = of_source and s.enabled <> turn_on;
  if not found then
    return false;
  end if;
  insert into fleet.source_transitions (source, from_state, to_state, who, why)
  values (of_source, old_state, new_state, who, why);
  raise warning 'source % is %: %', of_source, new_state, why;
  perform fleet.note_action(who, case when turn_on then 'enable' else 'disable' end, of_source, why, '{}');
  return true;
end
$$;

-- Accepts the size of the newest judged file of a source as normal. Files after its window are compared with this size
-- and with the complete files since. Waits for a step that has locked the source. The outcome is one word:
--   accepted   the size of this file counts as normal
--   unknown    no file of the source has been judged
--   complete   the file is complete, so there is nothing to accept
--   lots       the file is incomplete because of its lot numbers, whatever its size
create or replace function fleet.accept_size(
  of_source text, who text, why text, out outcome text, out window_start_utc timestamptz, out row_count int)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  newest_file raw.csv_files;
begin
  perform from raw.sources s where s.source = of_source for update;
  select f.* into newest_file
  from raw.csv_files f
  where f.source = of_source and f.complete is not null
  order by f.window_start_utc desc, f.file_no desc
  limit 1;
  window_start_utc := newest_file.window_start_utc;
  row_count := newest_file.row_count;
  outcome := case
    when newest_file.file_id is null then 'unknown'
    when newest_file.complete then 'complete'
    when newest_file.incomplete_reason = 'lots' then 'lots'
    else 'accepted'
  end;
  if outcome <> 'accepted' then
    return;
  end if;
  update raw.sources s
  set size_accepted_window = newest_file.window_start_utc,
    size_accepted_rows = newest_file.row_count
  where s.source = of_source;
  perform fleet.note_action(who, 'accept-size', of_source, why,
    jsonb_build_object(
      'file_id', newest_file.file_id, 'window_start_utc', newest_file.window_start_utc, 'rows', newest_file.row_count));
end
$$;

comment on function fleet.accept_size is 'accepts the size of a source''s newest file as normal';

-- Adds a source. Returns false if it exists already.
create or replace function fleet.add_source(of_source text, who text, why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.sources (source) values (of_source) on conflict do nothing;
  if not found then
    return false;
  end if;
  perform fleet.note_action(who, 'add-source', of_source, why, '{}');
  return true;
end
$$;

-- Removes a source without a file and without an unfinished job, with its windows, slots and session. The transitions
-- are kept as history. Returns one word: removed, unknown, files or jobs. Runs with its owner's rights, since operators
-- have no right to delete.
create or replace function fleet.remove_source(of_source text, who text, why text)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from fleet.sources s where s.source = of_source for update;
  if not found then
    return 'unknown';
  elsif exists (select from raw.csv_files f where f.source = of_source) then
    return 'files';
  elsif exists (
    select
    from fleet.jobs j
    where j.payload ->> 'source' = of_source
      and j.state in ('available', 'scheduled', 'retryable', 'running')
  ) then
    return 'jobs';
  end if;
  delete from fleet.source_sessions x where x.source = of_source;
  delete from fleet.fetch_slots f where f.source = of_source;
  delete from fleet.windows w where w.source = of_source;
  delete from fleet.sources s where s.source = of_source;
  perform fleet.note_action(who, 'remove-source', of_source, why, '{}');
  return 'removed';
end
$$;

-- Accepts a quarantined file: its window returns to the state of a received file, and the following ingest does not
-- judge the file again. If a window has several quarantined files, the caller must name one. The listed unreadable
-- records are deleted, since that ingest lists them again. Runs with its owner's rights, since operators have no right
-- to change files. The outcome is one word:
--   accepted    the file may be ingested
--   unknown     the window has no quarantined file, or not this one
--   ambiguous   the window has several
create or replace function fleet.accept_window(
  of_source text, of_window timestamptz, of_file uuid, who text, why text, out outcome text, out file_id uuid)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  files uuid[];
begin
  perform from raw.sources s where s.source = of_source for update;
  select array_agg(g.file_id) into files
  from raw.sightings g
  where g.source = of_source
    and g.window_start_utc = of_window
    and g.state = 'quarantined'
    and (of_file is null or g.file_id = of_file);
  outcome := case coalesce(cardinality(files), 0) when 0 then 'unknown' when 1 then 'accepted' else 'ambiguous' end;
  if outcome <> 'accepted' then
    return;
  end if;
  accept_window.file_id := files[1];
  update raw.sightings g
  set state = 'received',
    accepted = true
  where g.source = of_source
    and g.window_start_utc = of_window
    and g.file_id = files[1];
  update raw.csv_files f set state = 'received' where f.file_id = files[1];
  delete from audit.parse_errors e where e.file_id = files[1] and e.window_start_utc = of_window;
  update fleet.windows w
  set state = 'fetched',
    file_id = files[1],
    note = null,
    updated_at = clock_timestamp()
  where w.source = of_source and w.window_start_utc = of_window;
  perform fleet.note_action(who, 'accept-window', of_source, why,
    jsonb_build_object('file_id', files[1], 'window_start_utc', of_window));
end
$$;

comment on function fleet.accept_window is 'lets a quarantined file of a window be applied';

-- Owner and grants, in the same form as 0017.
do $$
declare
  statement text;
begin
  for statement in
    select format('alter table fleet.%I owner to vinops_admin', name)
    from unnest(array['sources', 'source_transitions', 'fetch_slots', 'source_sessions', 'sources_view']) as name
    union all
    select format('alter routine %s owner to vinops_admin', p.oid::regprocedure)
    from pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace
      and p.proname in (
        'begin_fetch', 'end_fetch', 'note_fetch_end', 'move_breaker', 'reset_breaker', 'switch_source', 'accept_size',
        'add_source', 'remove_source', 'accept_window', 'note_action')
  loop
    execute statement;
  end loop;
end
$$;

revoke execute on function
  fleet.begin_fetch(text, timestamptz, bigint, bigint, boolean), fleet.end_fetch(bigint, bigint, text),
  fleet.note_fetch_end(), fleet.move_breaker(text, text, text, text, timestamptz, bigint),
  fleet.reset_breaker(text, text, text), fleet.switch_source(text, boolean, text, text),
  fleet.accept_size(text, text, text), fleet.add_source(text, text, text), fleet.remove_source(text, text, text),
  fleet.accept_window(text, timestamptz, uuid, text, text), fleet.note_action(text, text, text, text, jsonb)
from public;
grant execute on function
  fleet.begin_fetch(text, timestamptz, bigint, bigint, boolean), fleet.end_fetch(bigint, bigint, text),
  fleet.note_fetch_end(), fleet.move_breaker(text, text, text, text, timestamptz, bigint)
to etl_rw, vinops_ops;
grant execute on function
  fleet.reset_breaker(text, text, text), fleet.switch_source(text, boolean, text, text),
  fleet.accept_size(text, text, text), fleet.add_source(text, text, text), fleet.remove_source(text, text, text),
  fleet.accept_window(text, timestamptz, uuid, text, text), fleet.note_action(text, text, text, text, jsonb)
to vinops_ops;
grant update (size_accepted_window, size_accepted_rows) on raw.sources to vinops_ops;
grant select on fleet.sources, fleet.source_transitions, fleet.fetch_slots, fleet.source_sessions, fleet.sources_view
to etl_rw, vinops_ops;
grant insert, update on fleet.fetch_slots, fleet.source_sessions to etl_rw, vinops_ops;
-- operators add sources, workers do not
grant update on fleet.sources to etl_rw;
grant insert, update on fleet.sources to vinops_ops;
-- insert-only: the history of a source is never changed
grant insert on fleet.source_transitions to etl_rw, vinops_ops;
grant select on fleet.sources_view, fleet.source_transitions to app_ro;
