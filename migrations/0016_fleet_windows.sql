-- 0016_fleet_windows
-- purpose: one row per source and quarter-hour: the guard against a second fetch, and the state of each window
-- depends: 0015
-- rollback: destructive
-- creates: fleet.windows, fleet.note_window_fate, fleet.note_window_end

create table if not exists fleet.windows (
  source text not null,
  window_start_utc timestamptz not null,
  state text not null default 'due',
  file_id uuid,
  note text,
  updated_at timestamptz not null default now(),
  ended_at timestamptz,                                -- first end of the present file; a rerun does not change it
  constraint windows_pkey primary key (source, window_start_utc),
  constraint windows_state_ck check (
    state in (
      'due', 'fetched', 'unchanged', 'ingested', 'applied', 'late', 'incomplete', 'quarantined', 'failed', 'missed',
      'withdrawn'
    )
  ),
  constraint windows_quarter_hour_ck check (extract(epoch from window_start_utc)::bigint % 900 = 0),
  constraint windows_start_is_an_instant check (
    window_start_utc >= '0001-01-01T00:00Z' and window_start_utc < '10000-01-01T00:00Z')
);
create index if not exists idx_windows_underway
  on fleet.windows (source, window_start_utc)
  where state in ('fetched', 'ingested');
create index if not exists idx_windows_file on fleet.windows (file_id);
create index if not exists idx_windows_ended on fleet.windows (source, window_start_utc) where ended_at is not null;

-- Sets the end of a window: the first time that its present file ends as applied, incomplete or unchanged. A repeated
-- step and a replay keep the time. Another file resets the time. The end is never later than the row's `updated_at`.
create or replace function fleet.note_window_end()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.state in ('applied', 'incomplete', 'unchanged') then
    new.ended_at := least(new.ended_at, new.updated_at);
  elsif tg_op = 'UPDATE' and new.file_id is distinct from old.file_id then
    new.ended_at := null;
  end if;
  return new;
end
$$;

create or replace trigger note_window_end
before insert or update on fleet.windows
for each row
execute function fleet.note_window_end();

-- Marks a window failed when its job is discarded or cancelled by any process or operator, and due, fetched or ingested
-- again when its job is requeued.
create or replace function fleet.note_window_fate()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  payload_window timestamptz;
begin
  if (new.state in ('discarded', 'cancelled')) = (old.state in ('discarded', 'cancelled'))
    or not new.payload ?| array['file_id', 'window_start_utc']
  then
    return null;
  end if;
  begin
    payload_window := (new.payload ->> 'window_start_utc')::timestamptz;
  exception when data_exception then
    -- the payload contains no valid window, so there is nothing to mark
    return null;
  end;
  update fleet.windows w
  set
    state = case
      when new.state in ('discarded', 'cancelled') then 'failed'
      when not new.payload ? 'file_id' then 'due'
      when g.state = 'received' then 'fetched'
      else 'ingested'
    end,
    note = case when new.state in ('discarded', 'cancelled') then left(new.error, 500) end,
    updated_at = now()
  from (select) as one
  left join raw.csv_files f on f.file_id::text = new.payload ->> 'file_id'
  -- a file that arrived again is processed for the window in the payload
  left join raw.sightings g
    on g.file_id = f.file_id
    and g.window_start_utc = coalesce(payload_window, f.window_start_utc)
  where case
      when new.payload ? 'file_id' then w.source = g.source and w.window_start_utc = g.window_start_utc
      else w.source = new.payload ->> 'source' and w.window_start_utc = payload_window
    end
    and case
      when new.state in ('discarded', 'cancelled') then w.state in ('due', 'fetched', 'ingested')
      else w.state = 'failed'
    end;
  return null;
end
$$;

-- Every end of every job evaluates this condition, so it is short, and the function checks the rest. A claim does not
-- evaluate it.
create or replace trigger note_window_fate
after update of finished_at on fleet.jobs
for each row
when ((old.finished_at is null) <> (new.finished_at is null) and new.completed_by is null)
execute function fleet.note_window_fate();
