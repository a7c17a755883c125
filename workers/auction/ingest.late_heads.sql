-- ingest: lots of a late file that no newer file holds
-- $1 file, $2 source, $3 window, $4 true if absence is judged for the source
with staged_rows as (
  select distinct on (s.lot_external_id::bigint)
    s.lot_external_id::bigint as lot,
    s.row_hash,
    s.row_id
  from staging.copart_raw s
  where s.file_id = $1
    and s.window_start_utc = $3
    and s.lot_external_id is not null
  order by s.lot_external_id::bigint, s.version_at desc, s.row_hash desc
),
-- the first complete file after this one: the lots are absent from that file, unless the source sends changes only
next_complete as (
  select min(f.window_start_utc) as at
  from raw.csv_files f
  where f.source = $2
    and f.complete
    and f.window_start_utc > $3
    and $4::boolean
)
insert into raw.heads as h (source, lot, row_hash, row_id, version_window, last_seen, absent_since)
select $2, s.lot, s.row_hash, s.row_id, $3, $3, n.at
from staged_rows s
cross join next_complete n
on conflict (source, lot)
do update set
  row_hash = excluded.row_hash,
  row_id = excluded.row_id,
  version_window = excluded.version_window,
  last_seen = excluded.last_seen,
  absent_since = excluded.absent_since
where h.last_seen < excluded.last_seen
