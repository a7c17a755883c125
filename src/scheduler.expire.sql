-- scheduler: expire windows
-- Returns fetch jobs that still wait although their window has passed. The jobs are locked first: a job that a worker
-- is claiming is skipped, and none can be claimed before the caller has cancelled it. The window is marked missed
-- before its job is cancelled, so that the trigger on jobs finds it finished and does not mark it failed.
with expired_jobs as (
  select job.id, w.source, w.window_start_utc
  from fleet.windows as w
  join fleet.jobs as job
    on job.kind = $1
    and job.key = w.source || '/' || to_char(w.window_start_utc at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI"Z"')
  where w.source = any($2::text[])
    and w.state = 'due'
    and w.window_start_utc < date_bin(make_interval(secs => $3), now(), 'epoch'::timestamptz)
    and job.state in ('available', 'scheduled', 'retryable')
  for update of job skip locked
),
missed_windows as (
  update fleet.windows as w
  set state = 'missed',
    note = 'no worker took its fetch in time',
    updated_at = now()
  from expired_jobs
  where w.source = expired_jobs.source
    and w.window_start_utc = expired_jobs.window_start_utc
    and w.state = 'due'
)
select id as "id!"
from expired_jobs
