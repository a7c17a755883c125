-- queue: complete done runs
-- Records the ends of many completed runs without a note, which is nearly all ends. Does the same as completer.sql,
-- without the cases that cannot occur here. $5 are the kinds of the jobs. Like a claim, the result need not survive a
-- crash of the server, so the commit does not wait for the disk (see the head of completer.rs).
update fleet.jobs as job
set state = 'completed',
  result = run_result.result,
  error = null,
  finished_at = now(),
  completed_by = $1,
  lease_until = null,
  locked_by = null,
  cancelling = null
from unnest($2::bigint[], $3::bigint[], $4::jsonb[]) as run_result (id, run, result)
where job.id = run_result.id
  and job.run = run_result.run
  and job.state = 'running'
  and job.locked_by = $1
  -- evaluated once, before the first row
  and (
    select set_config('synchronous_commit', 'off', true) || count(pg_notify('fleet', kind))
    from fleet.job_kind_settings as settings
    where kind = any($5::text[])
      and max_running <= 2 * (select count(*) from fleet.jobs where state = 'running' and kind = settings.kind)
  ) <> ''
