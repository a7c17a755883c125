-- queue: pause
-- Answers with the kinds that were not paused before.
with paused as (
  insert into fleet.kinds (kind, paused_at, paused_by, paused_because)
  select kind, now(), $2, $3
  from unnest($1::text[]) as asked (kind)
  order by kind
  on conflict (kind) do update
  set paused_at = excluded.paused_at,
    paused_by = excluded.paused_by,
    paused_because = excluded.paused_because
  where kinds.paused_at is null
  returning kind
),
logged as (
  insert into audit.operator_actions (who, action, subject, reason)
  select $2, 'pause', kind, $3
  from paused
)
select kind as "kind!"
from paused
order by kind
