-- fold: the stored versions of lots
select
  f.source,
  r.lot as "lot!",
  r.id as row_id,
  r.file_id,
  r.window_start_utc as window,
  f.headers_jsonb as header,
  r.payload_jsonb as payload
from unnest($1::text[], $2::bigint[]) as k (source, lot)
join raw.rows r on r.lot = k.lot
join raw.csv_files f on f.file_id = r.file_id and f.source = k.source
