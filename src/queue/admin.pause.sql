-- queue: pause
-- Returns the kinds that were not paused before.
with paused_kinds as (
  insert into fleet.job_kind_settings (kind, paused_at, paused_by, paused_because)
  select kind, now(), $2, $3
  from unnest($1::text[]) as selected_kinds (kind)
  order by kind
  on conflict (kind) do update
  set paused_at = excluded.paused_at,
    paused_by = excluded.paused_by,
    paused_because = excluded.paused_because
  where job_kind_settings.paused_at is null
  returning kind
),
operator_action as (
  insert into audit.operator_actions (who, action, subject, reason)
  select $2, 'pause', kind, $3
  from paused_kinds
)
select kind as "kind!"
from paused_kinds
order by kind
