-- queue: look up stale ends
-- Returns those of the runs that could not be ended whose own transaction had already completed the job.
select job.id as "id!"
from fleet.jobs as job
join unnest($1::bigint[], $2::bigint[]) as stale_runs (id, run) using (id, run)
where job.state = 'completed'
