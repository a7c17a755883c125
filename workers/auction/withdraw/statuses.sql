-- withdraw: statuses by the windows that are left
-- $1 source, $2 lots, $3 the withdrawn window, under which the transitions are logged, $4 true if absence is judged
with judging_windows as (
  -- the windows that judged absent lots, with true for those that may have removed lots; a late window is not included
  select
    g.window_start_utc as at,
    g.state = 'applied' as removal
  from raw.sightings g
  left join audit.etl_runs r on r.file_id = g.file_id and r.window_start_utc = g.window_start_utc
  cross join public.config c
  where g.source = $1
    and $4::boolean
    and g.state in ('applied', 'unchanged')
    and case
      when g.state = 'unchanged' then c.completion_detector_enabled
      when r.report #>> '{detect_completion,skipped}' like 'switched off%' then false
      when r.report #>> '{detect_completion,skipped}' is not null then c.completion_detector_enabled
      else true
    end
),
lot_states as (
  select
    l.id,
    l.vin,
    l.lot_external_id,
    l.status,
    l.auction_datetime_utc,
    public.sale_day(l.sale_date_raw) as sale_day,
    h.absent_since,
    s.completed_window
  from (
    select t.lot
    from unnest($2::text[]) as t (lot)
    union
    -- a window that is judged differently may close any absent lot
    select a.lot::text
    from raw.heads a
    where a.source = $1
      and a.last_seen is not null
  ) as u
  join public.lots l on l.source = $1 and l.lot_external_id = u.lot
  join raw.heads h on h.source = $1 and h.lot = u.lot::bigint
  join raw.sources s on s.source = $1
  -- detect-completion sets no other status
  where l.status in ('active', 'scheduled', 'PENDING_RESULT', 'removed')
),
moves as materialized (
  select
    t.id,
    t.vin,
    t.lot_external_id,
    t.status as old_status,
    coalesce(c.status, public.feed_status(t.auction_datetime_utc, t.completed_window)) as new_status
  from lot_states t
  -- the first window that closes the lot
  left join lateral (
    select
      case when t.auction_datetime_utc <= j.at - interval '2 hours' then 'PENDING_RESULT' else 'removed' end as status
    from judging_windows j
    where j.at >= t.absent_since
      and (
        t.auction_datetime_utc <= j.at - interval '2 hours'
        or j.removal
        and (t.auction_datetime_utc is null or t.auction_datetime_utc > t.absent_since + interval '24 hours')
        and (t.auction_datetime_utc is not null or t.sale_day is null or j.at at time zone 'UTC' >= t.sale_day + 2)
        and (
          select count(distinct f.window_start_utc)
          from raw.csv_files f
          where f.source = $1
            and f.complete
            and f.window_start_utc between t.absent_since and j.at
        ) >= 3
      )
    order by j.at
    limit 1
  ) c on true
),
updated_lots as (
  update public.lots l
  set
    status = m.new_status,
    updated_at = now()
  from moves m
  where l.id = m.id
    and m.new_status <> m.old_status
  returning l.id
),
transitions as (
  insert into audit.status_transitions (window_start_utc, source, lot_external_id, vin, old_status, new_status, reason)
  select $3, $1, m.lot_external_id, m.vin, m.old_status, m.new_status, 'file_withdrawn'
  from moves m
  join updated_lots on updated_lots.id = m.id
  returning 1
)
select count(*) as "moved!"
from transitions
