-- queue: claim
-- The head of each kind, locked as it is read; what another worker is claiming this instant is skipped. $1 to $3 are the
-- kinds, how many more of each this worker may hold, and whether they are cheap; $4 slots are free, and of cheap kinds
-- $5 more are taken ahead. An array, not a join: the planner would take the limit for a tenth of the table and hash all
-- of it. Of places on disk, since what is locked does not move; a row that moved just before is locked and not found, and
-- left to the next claim.
update fleet.jobs
set state = 'running',
  attempt = attempt + 1,
  run = run + 1,
  locked_by = $6,
  lease_until = now() + make_interval(secs => $7),
  started_at = now()
where ctid = any(array(
  select spot
  from (
    select due.spot, served.cheap, row_number() over (order by due.priority, due.run_at, due.id) as place
    -- A claim need not outlive a crash of the server, so it does not wait for the disk: head of claim.rs.
    from (select set_config('synchronous_commit', 'off', true)) as unhurried
    cross join (
      select want.kind, want.cheap,
        case
          when steer.max_running is null then want.room
          -- Kind by kind in the order of their names, so that two claims never wait for each other in a ring.
          else least(want.room, fleet.free_slots(want.kind))
        end as room
      from unnest($1::text[], $2::bigint[], $3::boolean[]) as want (kind, room, cheap)
      left join fleet.kinds as steer using (kind)
      where want.room > 0
        and steer.paused_at is null
      order by want.kind
    ) as served
    cross join lateral (
      select ctid as spot, id, priority, run_at
      from fleet.jobs
      where kind = served.kind
        and state in ('available', 'scheduled', 'retryable')
        and run_at <= now()
      order by priority, run_at, id
      limit served.room
      for update skip locked
    ) as due
  ) as placed
  where place <= $4 or cheap and place <= $4 + $5
))
returning id, kind, key, run, attempt, max_attempts, priority, payload
