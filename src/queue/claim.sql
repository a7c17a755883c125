-- queue: claim
-- Claims the first jobs of each kind and locks them as they are read. Jobs that another worker is claiming are skipped.
-- $1 to $3 are the kinds, the further jobs of each kind that this worker may run, and true for cheap kinds. $4 slots
-- are free, and $5 further jobs of cheap kinds are claimed ahead. An array instead of a join: the planner would
-- estimate the limit as a tenth of the table and hash the whole table. The array contains ctids, since a locked row
-- does not move. A row that moved just before is locked but not found, and left to the next claim.
update fleet.jobs
set state = 'running',
  attempt = attempt + 1,
  run = run + 1,
  locked_by = $6,
  lease_until = now() + make_interval(secs => $7),
  started_at = now()
where ctid = any(array(
  select job_ctid
  from (
    select
      due_job.job_ctid,
      served_kind.cheap,
      row_number() over (order by due_job.priority, due_job.run_at, due_job.id) as claim_rank
    -- A claim need not survive a crash of the server, so it does not wait for the disk (see the head of claim.rs).
    from (select set_config('synchronous_commit', 'off', true)) as session_setting
    cross join (
      select request.kind, request.cheap,
        case
          when settings.max_running is null then request.capacity
          -- Kinds are locked in the order of their names, so that two claims cannot deadlock.
          else least(request.capacity, fleet.free_slots(request.kind))
        end as capacity
      from unnest($1::text[], $2::bigint[], $3::boolean[]) as request (kind, capacity, cheap)
      left join fleet.job_kind_settings as settings using (kind)
      where request.capacity > 0
        and settings.paused_at is null
      order by request.kind
    ) as served_kind
    cross join lateral (
      select ctid as job_ctid, id, priority, run_at
      from fleet.jobs
      where kind = served_kind.kind
        and state in ('available', 'scheduled', 'retryable')
        and run_at <= now()
      order by priority, run_at, id
      limit served_kind.capacity
      for update skip locked
    ) as due_job
  ) as ranked_jobs
  where claim_rank <= $4 or cheap and claim_rank <= $4 + $5
))
returning id, kind, key, run, attempt, max_attempts, priority, payload
