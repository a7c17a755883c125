-- 0018_rollback: pauses and limits end, jobs whose cancellation was asked for run on, the operators' log is lost. Jobs
-- whose keys were unique over chosen states keep theirs only where the usual rule allows it.

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
drop table if exists fleet.kinds;
drop table if exists fleet.workers;
drop table if exists audit.operator_actions;

alter table fleet.jobs
  drop constraint if exists jobs_kind_is_a_word,
  add constraint jobs_kind_is_a_word check (kind ~ '^[a-z][a-z0-9-]{0,62}$');
create or replace trigger note_window_fate
after update of state on fleet.jobs
for each row
when (
  (new.payload ? 'file_id' or new.payload ?& array['source', 'window_start_utc'])
  and ((new.state in ('discarded', 'cancelled')) <> (old.state in ('discarded', 'cancelled')))
)
execute function fleet.note_window_fate();

drop index if exists fleet.job_attempts_by_end;
comment on table fleet.job_attempts is 'one row per run of a job: who ran it, from when to when, and how it ended';
-- The run that goes on has its row from the beginning in that schema.
insert into fleet.job_attempts (job_id, run, attempt, kind, worker, started_at)
select id, run, attempt, kind, locked_by, started_at
from fleet.jobs
where state = 'running'
on conflict do nothing;

-- Of the jobs that chose their states, the newest of a key keeps it.
update fleet.jobs as job
set key = null, unique_over = null
where job.unique_over is not null
  and job.state not in ('cancelled', 'discarded')
  and exists (
    select
    from fleet.jobs as other
    where other.kind = job.kind
      and other.key = job.key
      and other.state not in ('cancelled', 'discarded')
      and (other.id > job.id or other.unique_over is null and other.id <> job.id)
  );
drop index if exists fleet.jobs_key_is_unique_over;
drop index if exists fleet.jobs_key_is_unique;
alter table fleet.jobs
  drop column if exists cancelling,
  drop column if exists unique_over;
create unique index jobs_key_is_unique
  on fleet.jobs (kind, key)
  where state not in ('cancelled', 'discarded');
