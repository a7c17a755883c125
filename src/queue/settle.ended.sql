-- queue: look up stale ends
-- Of the runs that could not be ended: those whose own transaction had completed the job already.
select job.id as "id!"
from fleet.jobs as job
join unnest($1::bigint[], $2::bigint[]) as stale (id, run) using (id, run)
where job.state = 'completed'
