-- source: can a fetch be repeated
with asked as (
  select
    payload ->> 'source' as source,
    (payload ->> 'window_start_utc')::timestamptz as start,
    coalesce((payload ->> 'late_ok')::boolean, false) as simulated
  from fleet.jobs
  where id = $1
)
select
  (asked.simulated or asked.start + interval '15 minutes' > clock_timestamp())
  and not exists (
    select
    from fleet.fetch_slots as slot
    where slot.source = asked.source
      and slot.slot = asked.start
  ) as "can!"
from asked
