-- queue: prune
-- One batch of a pass: of the $2 jobs after id $1, those go that ended longer ago than their kind of end is kept. No row in
-- the answer's count if another worker is at it.
with swept as (
  delete from fleet.workers
  where seen_at < now() - greatest(interval '1 day', 10 * lease)
)
select
  last,
  pruned as "pruned!",
  more as "more!"
from fleet.prune_jobs($1, $2, make_interval(secs => $3), make_interval(secs => $4))
