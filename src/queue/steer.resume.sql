-- queue: resume
-- Answers with the kinds that were paused before, and wakes their workers.
with resumed as (
  update fleet.kinds
  set paused_at = null,
    paused_by = null,
    paused_because = null
  where kind = any($1)
    and paused_at is not null
  returning kind
),
logged as (
  insert into audit.operator_actions (who, action, subject, reason)
  select $2, 'resume', kind, $3
  from resumed
),
told as (
  select pg_notify('fleet', kind)
  from resumed
)
select kind as "kind!"
from resumed
cross join (select count(*) from told) as told
order by kind
