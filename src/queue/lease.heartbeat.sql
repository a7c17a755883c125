-- queue: worker seen
-- The heartbeat of the worker: inserts its row at the start, updates it with its leases, and inserts it again if it was
-- deleted.
insert into fleet.workers (name, kinds, concurrency, running, draining, lease)
values ($1, $2, $3, $4, $5, make_interval(secs => $6))
on conflict (name) do update
set running = excluded.running,
  draining = excluded.draining,
  seen_at = now()
