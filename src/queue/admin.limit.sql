-- queue: limit
-- Running jobs above a lowered limit continue to their ends. No job is claimed until fewer are running.
with limited_kind as (
  insert into fleet.job_kind_settings (kind, max_running)
  values ($1, $4)
  on conflict (kind) do update
  set max_running = excluded.max_running
  returning kind
),
operator_action as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'limit', kind, $3, jsonb_build_object('max_running', $4::integer)
  from limited_kind
)
select count(pg_notify('fleet', kind)) as "notified!"
from limited_kind
