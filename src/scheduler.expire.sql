-- scheduler: expire windows
-- Fetches that still wait although their window has passed. Locked first: one that a worker is claiming is skipped,
-- and none can be claimed before the caller has cancelled it. The window is named before its job is cancelled, so
-- that the trigger on jobs finds it ended and does not call it failed.
with waiting as (
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
named as (
  update fleet.windows as w
  set state = 'missed',
    note = 'no worker took its fetch in time',
    updated_at = now()
  from waiting
  where w.source = waiting.source
    and w.window_start_utc = waiting.window_start_utc
    and w.state = 'due'
)
select id as "id!"
from waiting
