-- ingest: bring the heads up to the file
with staged as (
  -- the greatest row of each lot, should a file hold a lot twice
  select distinct on (s.lot_external_id::bigint)
    s.lot_external_id::bigint as lot,
    s.row_hash,
    s.row_id
  from staging.copart_raw s
  where s.file_id = $1
    and s.window_start_utc = $3
    and s.lot_external_id is not null
  order by s.lot_external_id::bigint, s.source_updated_at desc nulls last, s.row_hash desc
)
insert into raw.heads as h (source, lot, row_hash, row_id, version_window)
select $2, lot, row_hash, row_id, $3
from staged
on conflict (source, lot)
do update set
  row_hash = excluded.row_hash,
  row_id = excluded.row_id,
  version_window = excluded.version_window,
  last_seen = null,
  absent_since = null
