-- queue: worker seen
-- The worker's own row: made at its start, renewed with its leases, made again if somebody swept it away.
insert into fleet.workers (name, kinds, concurrency, running, draining, lease)
values ($1, $2, $3, $4, $5, make_interval(secs => $6))
on conflict (name) do update
set running = excluded.running,
  draining = excluded.draining,
  seen_at = now()
