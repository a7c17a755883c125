-- queue: settle done
-- The ends of many runs that are done and have nothing else to tell, which is nearly all ends: what settle.sql does with
-- them, without all that can only happen to the others. $5 are their kinds. Like a claim it need not outlive a crash of
-- the server, and does not wait for the disk: head of settle.rs.
update fleet.jobs as job
set state = 'completed',
  result = ending.result,
  error = null,
  finished_at = now(),
  completed_by = $1,
  lease_until = null,
  locked_by = null,
  cancelling = null
from unnest($2::bigint[], $3::bigint[], $4::jsonb[]) as ending (id, run, result)
where job.id = ending.id
  and job.run = ending.run
  and job.state = 'running'
  and job.locked_by = $1
  -- asked once, before the first row
  and (
    select set_config('synchronous_commit', 'off', true) || count(pg_notify('fleet', kind))
    from fleet.kinds as steer
    where kind = any($5::text[])
      and max_running <= 2 * (select count(*) from fleet.jobs where state = 'running' and kind = steer.kind)
  ) <> ''
