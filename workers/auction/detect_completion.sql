-- detect-completion: move
-- $1 file, $2 source, $3 the window by which lots are judged, $4 true to judge all absent lots, $5 true if absent lots
-- may be removed, $6 the file's window, $7 true if the file is late: then only its own open lots are judged
with
-- open lots that are absent: a complete file does not contain them
absent_lots as (
  select
    l.id,
    l.auction_datetime_utc,
    public.sale_day(l.sale_date_raw) as sale_day,
    h.absent_since,
    (
      select count(distinct f.window_start_utc)
      from raw.csv_files f
      where f.source = $2
        and f.complete
        and f.window_start_utc between h.absent_since and $3
    ) as complete_files_without
  from raw.heads h
  join public.lots l on l.source = h.source and l.lot_external_id = h.lot::text
  where h.source = $2
    and h.last_seen is not null
    and h.absent_since <= $3
    and l.status in ('active', 'scheduled')
    and $4::boolean
    and (
      not $7::boolean
      or exists (
        select
        from staging.copart_raw s
        where s.file_id = $1
          and s.window_start_utc = $6
          and s.lot_external_id = l.lot_external_id
      )
    )
  union all
  -- a lot without a head is not in the newest file either: it was reopened manually
  select l.id, l.auction_datetime_utc, null, $3, 1
  from public.lots l
  where l.source = $2
    and l.status in ('active', 'scheduled')
    and l.auction_datetime_utc <= $3 - interval '2 hours'
    and $4::boolean
    and $5::boolean
    and not exists (
      select
      from raw.heads h
      where h.source = $2
        and h.lot = case when l.lot_external_id ~ '^[0-9]{1,18}$' then l.lot_external_id::bigint end
    )
),
-- every rule that applies to a lot; of several, the one with the least number wins
candidates as (
  select id, 1 as rule, 'PENDING_RESULT' as new_status, 'absent_after_auction' as reason
  from absent_lots
  where auction_datetime_utc <= $3 - interval '2 hours'
  union all
  select id, 2, 'removed', 'absent_from_three_files'
  from absent_lots
  where $5::boolean
    and complete_files_without >= 3
    and (auction_datetime_utc is null or auction_datetime_utc > absent_since + interval '24 hours')
    -- a sale day without a time: the sale is over two days later in any time zone
    and (auction_datetime_utc is not null or sale_day is null or $3 at time zone 'UTC' >= sale_day + 2)
  union all
  select
    l.id, 3, public.feed_status(l.auction_datetime_utc, $3),
    case when l.status in ('active', 'scheduled') then 'sale_date_moved' else 'seen_again' end
  from staging.copart_raw s
  join public.lots l on l.source = $2 and l.lot_external_id = s.lot_external_id
  where s.file_id = $1
    and s.window_start_utc = $6
    and l.status is distinct from public.feed_status(l.auction_datetime_utc, $3)
    and (not $7::boolean or l.status in ('active', 'scheduled'))
  union all
  select id, 4, 'active', 'sale_time_come'
  from public.lots
  where source = $2
    and status = 'scheduled'
    and auction_datetime_utc <= $3
),
moves as materialized (
  select distinct on (l.id) l.id, l.vin, l.lot_external_id, l.status as old_status, c.new_status, c.reason
  from candidates c
  join public.lots l on l.id = c.id
  order by l.id, c.rule
),
updated_lots as (
  update public.lots l
  set
    status = m.new_status,
    updated_at = now()
  from moves m
  where l.id = m.id
    and l.status is distinct from m.new_status
  returning l.id
),
transitions as (
  insert into audit.status_transitions (
    window_start_utc, file_id, source, lot_external_id, vin, old_status, new_status, reason
  )
  select $3, $1, $2, m.lot_external_id, m.vin, m.old_status, m.new_status, m.reason
  from moves m
  join updated_lots on updated_lots.id = m.id
  returning old_status, new_status
)
select
  (
    select coalesce(jsonb_object_agg(kind, lots), '{}')
    from (
      select concat(old_status, ' > ', new_status) as kind, count(*) as lots
      from transitions
      group by old_status, new_status
    ) as transition_counts
  ) as "moves!",
  count(*) filter (where new_status = 'PENDING_RESULT') as "pending_result!",
  count(*) filter (where new_status = 'removed') as "removed!",
  count(*) filter (where old_status not in ('active', 'scheduled')) as "returned!",
  count(*) as "moved!"
from transitions
