-- queue: prune
-- Deletes one batch of a pass: of the $2 jobs after id $1, those that finished longer ago than the retention for their
-- final state. Returns no last id and zero jobs if another worker is pruning.
with deleted_workers as (
  delete from fleet.workers
  where seen_at < now() - greatest(interval '1 day', 10 * lease)
)
select
  last,
  pruned as "pruned!",
  more as "more!"
from fleet.prune_jobs($1, $2, make_interval(secs => $3), make_interval(secs => $4))
