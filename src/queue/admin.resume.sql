-- queue: resume
-- Returns the kinds that were paused before, and notifies their workers.
with resumed_kinds as (
  update fleet.job_kind_settings
  set paused_at = null,
    paused_by = null,
    paused_because = null
  where kind = any($1)
    and paused_at is not null
  returning kind
),
operator_action as (
  insert into audit.operator_actions (who, action, subject, reason)
  select $2, 'resume', kind, $3
  from resumed_kinds
),
notifications as (
  select pg_notify('fleet', kind)
  from resumed_kinds
)
select kind as "kind!"
from resumed_kinds
cross join (select count(*) from notifications) as notifications
order by kind
