-- queue: claim
-- The head of each kind, locked as it is read; what another worker is claiming this instant is skipped.
with due as (
  select job.id
  from unnest($1::text[]) as served (kind)
  cross join lateral (
    select id, priority, run_at
    from fleet.jobs
    where kind = served.kind
      and state in ('available', 'scheduled', 'retryable')
      and run_at <= now()
    order by priority, run_at, id
    limit $2
    for update skip locked
  ) as job
  order by job.priority, job.run_at, job.id
  limit $2
),
-- An array, not a join: the planner would take the limit for a tenth of the table and hash all of it.
claimed as (
  update fleet.jobs
  set state = 'running',
    attempt = attempt + 1,
    run = run + 1,
    locked_by = $3,
    lease_until = now() + make_interval(secs => $4),
    started_at = now()
  where id = any(array(select id from due))
  returning id, kind, key, run, attempt, max_attempts, priority, payload
),
opened as (
  insert into fleet.job_attempts (job_id, run, attempt, kind, worker, started_at)
  select id, run, attempt, kind, $3, now()
  from claimed
)
select id as "id!", kind as "kind!", key, run as "run!", attempt as "attempt!", max_attempts as "max_attempts!",
  payload as "payload!"
from claimed
order by priority, id
