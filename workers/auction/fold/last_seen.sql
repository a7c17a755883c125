-- fold: until when versions were seen
select source as "source!", lot as "lot!", hash as "hash!", max(seen) as "seen!"
from (
  select h.source, h.lot, h.row_hash as hash, coalesce(h.last_seen, s.head_window) as seen
  from unnest($1::text[], $2::bigint[]) as k (source, lot)
  join raw.heads h on h.source = k.source and h.lot = k.lot
  join raw.sources s on s.source = h.source
  union all
  select l.source, k.lot, l.row_hash, l.seen_window
  from unnest($1::text[], $2::bigint[]) as k (source, lot)
  join public.lots l on l.source = k.source and l.lot_external_id = k.lot::text
  union all
  select f.source, k.lot, s.prev_hash, s.prev_seen
  from unnest($1::text[], $2::bigint[]) as k (source, lot)
  join staging.copart_raw s on s.lot_external_id = k.lot::text
  join raw.csv_files f on f.file_id = s.file_id and f.source = k.source
) as sightings
where hash is not null
  and seen is not null
group by source, lot, hash
