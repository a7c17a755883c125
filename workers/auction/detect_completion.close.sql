-- detect-completion: let go of the heads of lots that are no longer open
with closed as (
  delete from raw.heads h
  where h.source = $1
    -- implied by the other, and what the index is of
    and h.last_seen is not null
    and h.absent_since is not null
    and not exists (
      select
      from public.lots l
      where l.source = h.source
        and l.lot_external_id = h.lot::text
        and l.status in ('active', 'scheduled')
    )
  returning h.lot, h.row_hash, h.last_seen
),
-- what only the head knew: until when the stored version was seen
lots_told as (
  update public.lots l
  set seen_window = c.last_seen
  from closed c
  where l.source = $1
    and l.lot_external_id = c.lot::text
    and l.row_hash = c.row_hash
    and l.seen_window < c.last_seen
  returning 1
),
vehicles_told as (
  update public.vehicles v
  set seen_window = c.last_seen
  from closed c
  join public.lots l on l.source = $1 and l.lot_external_id = c.lot::text
  where v.vin = l.vin
    and v.source = $1
    and v.source_lot = c.lot
    and v.row_hash = c.row_hash
    and v.seen_window < c.last_seen
  returning 1
)
select count(*) as "closed!"
from closed
