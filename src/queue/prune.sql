-- queue: prune
-- One batch of a pass: of the $2 jobs after id $1, those that ended longer ago than their kind of end is kept. No row in
-- the answer's count if another worker is at it.
with turn as materialized (
  select pg_try_advisory_xact_lock(hashtextextended('fleet: prune', 0)) as mine
),
looked_at as materialized (
  select id, state, created_at, finished_at
  from fleet.jobs
  where id > $1
    and (select mine from turn)
  order by id
  limit $2
),
old as (
  select id
  from looked_at
  where state = 'completed' and finished_at < now() - make_interval(secs => $3)
    or state in ('cancelled', 'discarded') and finished_at < now() - make_interval(secs => $4)
),
-- Asked again of the row itself: somebody may have put it back just now.
pruned as (
  delete from fleet.jobs
  where id = any(array(select id from old))
    and finished_at < now() - make_interval(secs => least($3, $4))
  returning id
),
swept as (
  delete from fleet.workers
  where seen_at < now() - greatest(interval '1 day', 10 * lease)
    and (select mine from turn)
)
select
  (select max(id) from looked_at) as last,
  (select count(*) from pruned) as "pruned!",
  -- a job ends after it was put in, so beyond a young one there is nothing old
  (select count(*) = $2 and min(created_at) < now() - make_interval(secs => least($3, $4)) from looked_at) as "more!"
