-- follow: unfinished job
-- Returns the unfinished job of a file ($1) or of a key of a kind ($2, $3), the running one first.
select
  j.id,
  j.kind,
  j.state,
  j.locked_by as worker,
  coalesce(j.run_at > now() + interval '2 seconds', false) as "waits!",
  j.lease_until,
  exists (
    select
    from fleet.workers as w
    where w.name = j.locked_by
      and w.seen_at >= now() - w.lease
  ) as "alive!",
  k.paused_at,
  k.paused_by,
  k.paused_because,
  k.max_running
from fleet.jobs as j
left join fleet.job_kind_settings as k
  on k.kind = j.kind
where j.state in ('available', 'scheduled', 'retryable', 'running')
  and (j.payload ->> 'file_id' = $1 or j.kind = $2 and j.key = $3)
order by j.state = 'running' desc, j.run_at, j.id
limit 1
