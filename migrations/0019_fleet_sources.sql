-- 0019_fleet_sources
-- purpose: what the whole fleet knows of a source: its switch, its breaker, its quarter-hour slots, its session
-- depends: 0018
-- rollback: destructive
-- creates: fleet.sources, fleet.source_transitions, fleet.fetch_slots, fleet.source_sessions, fleet.sources_view, fleet.begin_fetch, fleet.end_fetch, fleet.note_fetch_end, fleet.move_breaker, fleet.reset_breaker, fleet.switch_source, fleet.accept_size, fleet.add_source, fleet.remove_source, fleet.accept_window, fleet.note_action

-- The rules of fetching, held for all workers at once whoever they are:
--   a slot (source and quarter-hour) has one attempt, which belongs to one job: the primary key of fetch_slots;
--   five failed slots in a row open the breaker; while it is open nothing is fetched but one probe, whose job is named
--   here, so that the job's lease is the probe's; a slot whose fetch never began says nothing of the source.
-- Whoever writes takes the locks in this order: the job, the source, the slot, the window.

-- A source is known by its row here, which an operator adds; nothing else does, so a misspelt name makes none.
create table if not exists fleet.sources (
  source text not null,
  enabled boolean not null default true,               -- off: nothing is scheduled and nothing fetched, by hand neither
  breaker text not null default 'closed',
  consecutive_failures integer not null default 0,     -- slots in a row
  opened_at timestamptz,                               -- since when it has not been closed
  probe_at timestamptz,                                -- no probe before this slot: an hour after the one that opened it
  probe_job bigint,                                    -- the fetch that decides, while half open
  last_success_at timestamptz,
  last_failure_at timestamptz,
  last_error text,                                     -- of the latest failed slot
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
  who text not null,                                   -- an operator, or the job that brought it about
  why text not null,
  db_user text not null default session_user,          -- the login, whatever `who` says
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
  job_id bigint not null,                              -- whose attempt it is; a rescued job goes on with it
  run bigint not null,                                 -- the run that holds it, never an earlier one
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  outcome text,                                        -- null while under way
  unkept_by bigint,                                    -- the run whose file came and could not be kept
  constraint fetch_slots_pkey primary key (source, slot),
  constraint fetch_slots_quarter_hour_ck check (extract(epoch from slot)::bigint % 900 = 0),
  constraint fetch_slots_slot_is_an_instant check (slot >= '0001-01-01T00:00Z' and slot < '10000-01-01T00:00Z'),
  -- failed counts for the breaker; what is our own fault (unkept), nobody's (lost) or an operator's (cancelled) does not
  constraint fetch_slots_outcome_is_known check (outcome in ('fetched', 'unchanged', 'failed', 'unkept', 'lost', 'cancelled')),
  constraint fetch_slots_outcome_means_over check ((outcome is null) = (finished_at is null))
);
create unique index if not exists fetch_slots_one_attempt_of_a_job on fleet.fetch_slots (job_id) where outcome is null;

create table if not exists fleet.source_sessions (
  source text not null,
  sealed bytea,                                        -- the cookies, encrypted; nonce first
  obtained_at timestamptz,
  expires_at timestamptz,
  refreshing_by text,                                  -- the one who is logging in, until then
  refreshing_until timestamptz,
  retry_at timestamptz,                                -- after a refused login, not before
  last_error text,
  updated_at timestamptz not null default now(),
  constraint source_sessions_pkey primary key (source),
  constraint source_sessions_are_whole check (
    (sealed is null) = (obtained_at is null) and (sealed is null) = (expires_at is null)),
  constraint source_sessions_refresh_has_an_end check ((refreshing_by is null) = (refreshing_until is null))
);

create index if not exists idx_windows_applied on fleet.windows (source, window_start_utc) where state = 'applied';

-- The public picture of a source, for dashboards and metrics. Enabled: its own switch and that of config.
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

-- Notes what an operator did, in the transaction of the act.
create or replace function fleet.note_action(who text, action text, subject text, reason text, details jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into audit.operator_actions (who, action, subject, reason, details)
  values (who, action, subject, reason, details)
$$;

-- Moves the breaker and writes down who did it and why. The caller holds the source's row. The notice is the log line
-- of whoever caused it.
create or replace function fleet.move_breaker(
  of_source text, to_state text, who text, why text, next_probe timestamptz default null, probe bigint default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  was text;
begin
  select s.breaker into was from fleet.sources s where s.source = of_source;
  update fleet.sources s
  set breaker = to_state,
    opened_at = case when to_state <> 'closed' then coalesce(s.opened_at, clock_timestamp()) end,
    probe_at = case when to_state <> 'closed' then coalesce(next_probe, s.probe_at) end,
    probe_job = case when to_state = 'half_open' then probe end,
    consecutive_failures = case when to_state = 'closed' then 0 else s.consecutive_failures end,
    updated_at = clock_timestamp()
  where s.source = of_source;
  insert into fleet.source_transitions (source, from_state, to_state, who, why)
  values (of_source, was, to_state, who, why);
  if to_state = 'open' then
    raise warning 'source %: the breaker is open (was %): %; probe at %', of_source, was, why,
      to_char(coalesce(next_probe, now()) at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI"Z"');
  else
    raise warning 'source %: the breaker is % (was %): %', of_source, to_state, was, why;
  end if;
end
$$;

-- Asks for the slot's one attempt on behalf of a job's run. The answer is one word:
--   go               the attempt is this run's
--   already_fetched  the window has come to something
--   missed           its quarter-hour is over
--   disabled, open   the source is switched off, or its breaker lets only the probe through
--   under_way        another job's attempt is under way
--   unknown          there is no such source; nothing is written
--   spent            the slot's attempt has ended
-- A simulated source has a clock of its own: its slot is the window, and no window is over.
create or replace function fleet.begin_fetch(
  of_source text, of_window timestamptz, job bigint, its_run bigint, simulated boolean default false)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  its_slot constant timestamptz :=
    case when simulated then of_window else date_bin('15 minutes', clock_timestamp(), 'epoch'::timestamptz) end;
  known fleet.sources;
  window_state text;
begin
  select * into known from fleet.sources s where s.source = of_source for update;
  if not found then
    return 'unknown';
  end if;
  -- a job that nobody's schedule made: put in from psql
  insert into fleet.windows (source, window_start_utc) values (of_source, of_window) on conflict do nothing;
  select w.state into strict window_state
  from fleet.windows w
  where w.source = of_source and w.window_start_utc = of_window;

  if window_state not in ('due', 'failed', 'missed') then
    return 'already_fetched';
  elsif not simulated and of_window + interval '15 minutes' <= its_slot then
    return 'missed';
  elsif not known.enabled then
    return 'disabled';
  elsif known.breaker <> 'closed' and known.probe_job is distinct from job then
    return 'open';
  end if;

  insert into fleet.fetch_slots as s (source, slot, job_id, run)
  values (of_source, its_slot, job, its_run)
  on conflict (source, slot) do update
  set run = excluded.run
  where s.job_id = excluded.job_id and s.outcome is null and s.run <= excluded.run;
  if found then
    return 'go';
  end if;
  return (
    select case when s.outcome is null then 'under_way' else 'spent' end
    from fleet.fetch_slots s
    where s.source = of_source and s.slot = its_slot
  );
end
$$;

comment on function fleet.begin_fetch is 'asks for the one attempt of a source''s quarter-hour slot';

-- Ends a run's attempt, which closes the breaker. False: the attempt is not that run's any more.
create or replace function fleet.end_fetch(job bigint, its_run bigint, its_outcome text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  known fleet.sources;
begin
  perform from fleet.jobs j where j.id = job for update;
  select s.* into known
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
  where s.source = known.source;
  if known.breaker <> 'closed' then
    perform fleet.move_breaker(known.source, 'closed', 'job ' || job, 'the probe succeeded');
  end if;
  return true;
end
$$;

-- What the end of a fetch job says of its source, whoever ended it. The attempt of a job that was given up has failed,
-- unless its last run said that the fault is ours. A probe that ends without a word leaves the breaker open, and the next
-- slot is its probe.
create or replace function fleet.note_fetch_end()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  known fleet.sources;
  its_slot timestamptz;
  its_outcome text;
begin
  select * into known from fleet.sources s where s.source = new.payload ->> 'source' for update;
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
  returning f.slot, f.outcome into its_slot, its_outcome;

  if its_outcome = 'failed' then
    known.consecutive_failures := known.consecutive_failures + 1;
    update fleet.sources s
    set consecutive_failures = known.consecutive_failures,
      last_failure_at = clock_timestamp(),
      last_error = left(new.error, 500),
      updated_at = clock_timestamp()
    where s.source = known.source;
    if known.breaker = 'half_open' and known.probe_job = new.id then
      perform fleet.move_breaker(known.source, 'open', 'job ' || new.id, 'the probe failed', its_slot + interval '1 hour');
    elsif known.breaker = 'closed' and known.consecutive_failures >= 5 then
      perform fleet.move_breaker(
        known.source, 'open', 'job ' || new.id, known.consecutive_failures || ' slots failed in a row',
        its_slot + interval '1 hour');
    elsif known.consecutive_failures >= 3 then
      raise warning 'source %: % slots failed in a row; the breaker opens at 5', known.source, known.consecutive_failures;
    end if;
  elsif known.breaker = 'half_open' and known.probe_job = new.id then
    perform fleet.move_breaker(known.source, 'open', 'job ' || new.id, 'the probe ended without an answer');
  end if;
  return null;
end
$$;

-- Every end of every job reads this condition anew, so it is short. A claim does not.
create or replace trigger note_fetch_end
after update of finished_at on fleet.jobs
for each row
when (old.finished_at is null and new.finished_at is not null and new.kind = 'fetch')
execute function fleet.note_fetch_end();

-- Closes the breaker by hand and forgets the failures; false when there was nothing to reset.
create or replace function fleet.reset_breaker(of_source text, who text, why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  known fleet.sources;
begin
  select * into known from fleet.sources s where s.source = of_source for update;
  if not found or (known.breaker = 'closed' and known.consecutive_failures = 0) then
    return false;
  end if;
  perform fleet.move_breaker(of_source, 'closed', who, why);
  perform fleet.note_action(who, 'reset-breaker', of_source, why,
    jsonb_build_object('from', known.breaker, 'consecutive_failures', known.consecutive_failures));
  return true;
end
$$;

-- Switches a source on or off by hand; false when it was so already. An unknown source is an error: P0002.
create or replace function fleet.switch_source(of_source text, turn_on boolean, who text, why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  word constant text := case when turn_on then 'enabled' else 'disabled' end;
  other constant text := case when turn_on then 'disabled' else 'enabled' end;
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
  values (of_source, other, word, who, why);
  raise warning 'source % is %: %', of_source, word, why;
  perform fleet.note_action(who, case when turn_on then 'enable' else 'disable' end, of_source, why, '{}');
  return true;
end
$$;

-- Accepts the size of the newest judged file of a source as normal: files after its window are compared with this size and
-- with the complete files since. Waits for a step that holds the source. The outcome is one word:
--   accepted   the size of this file counts as normal
--   unknown    no file of the source has been judged
--   complete   the file is complete: there is nothing to accept
--   lots       the file is incomplete because of its lot numbers, whatever its size
create or replace function fleet.accept_size(
  of_source text, who text, why text, out outcome text, out window_start_utc timestamptz, out row_count int)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  newest raw.csv_files;
begin
  perform from raw.sources s where s.source = of_source for update;
  select f.* into newest
  from raw.csv_files f
  where f.source = of_source and f.complete is not null
  order by f.window_start_utc desc, f.file_no desc
  limit 1;
  window_start_utc := newest.window_start_utc;
  row_count := newest.row_count;
  outcome := case
    when newest.file_id is null then 'unknown'
    when newest.complete then 'complete'
    when newest.incomplete_reason = 'lots' then 'lots'
    else 'accepted'
  end;
  if outcome <> 'accepted' then
    return;
  end if;
  update raw.sources s
  set size_accepted_window = newest.window_start_utc,
    size_accepted_rows = newest.row_count
  where s.source = of_source;
  perform fleet.note_action(who, 'accept-size', of_source, why,
    jsonb_build_object('file_id', newest.file_id, 'window_start_utc', newest.window_start_utc, 'rows', newest.row_count));
end
$$;

comment on function fleet.accept_size is 'accepts the size of a source''s newest file as normal';

-- Makes a source known; false when it was known already.
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

-- Forgets a source that has no file and no work, with its windows, slots and session. Its transitions stay: they are
-- history. The answer is one word: removed, unknown, files or jobs. Runs as its owner, since operators may delete nothing.
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

-- Lets a quarantined file be applied: its window is as it was when the file had been received, and the ingest that follows does
-- not judge the file again. Of several quarantined files of a window one must be named. The records that could not be read are
-- listed anew by that ingest. Runs as its owner, since operators change no file. The outcome is one word:
--   accepted    the file may be ingested
--   unknown     the window has no quarantined file, or not this one
--   ambiguous   it has several
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

-- Owner and rights, as 0017 gives them to the rest.
do $$
declare
  change text;
begin
  for change in
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
    execute change;
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
-- operators make sources known, workers do not
grant update on fleet.sources to etl_rw;
grant insert, update on fleet.sources to vinops_ops;
-- insert-only: the history of a source is not rewritten
grant insert on fleet.source_transitions to etl_rw, vinops_ops;
grant select on fleet.sources_view, fleet.source_transitions to app_ro;
