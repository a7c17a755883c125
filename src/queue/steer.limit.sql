-- queue: limit
-- Jobs above a lowered limit run to their ends; none is claimed until their number is below it.
with limited as (
  insert into fleet.kinds (kind, max_running)
  values ($1, $4)
  on conflict (kind) do update
  set max_running = excluded.max_running
  returning kind
),
logged as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'limit', kind, $3, jsonb_build_object('max_running', $4::integer)
  from limited
)
select count(pg_notify('fleet', kind)) as "told!"
from limited
