-- source: can a fetch be repeated
with fetch_job as (
  select
    payload ->> 'source' as source,
    (payload ->> 'window_start_utc')::timestamptz as start,
    coalesce((payload ->> 'late_ok')::boolean, false) as simulated
  from fleet.jobs
  where id = $1
)
select
  (fetch_job.simulated or fetch_job.start + interval '15 minutes' > clock_timestamp())
  and not exists (
    select
    from fleet.fetch_slots as slot
    where slot.source = fetch_job.source
      and slot.slot = fetch_job.start
  ) as "can!"
from fetch_job
