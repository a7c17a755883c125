-- source: status
select
  s.source,
  s.enabled,
  coalesce((select c.auto_fetch_enabled from public.config c), true) as "auto_fetch_enabled!",
  s.breaker,
  s.consecutive_failures,
  s.opened_at,
  s.probe_at,
  s.probe_job,
  s.last_success_at,
  s.last_failure_at,
  s.last_error,
  v.last_applied_window,
  x.expires_at as "session_expires_at?",
  x.last_error as "session_error?",
  t.moves as "transitions!: sqlx::types::Json<Vec<SourceTransition>>"
from fleet.sources s
join fleet.sources_view v on v.source = s.source
left join fleet.source_sessions x on x.source = s.source
cross join lateral (
  select coalesce(jsonb_agg(to_jsonb(latest_moves) order by latest_moves.id desc), '[]') as moves
  from (
    select m.id, m.at, m.from_state as "from", m.to_state as "to", m.who, m.why
    from fleet.source_transitions m
    where m.source = s.source
    order by m.id desc
    limit 10
  ) as latest_moves
) as t
where $1::text is null or s.source = $1
order by s.source
