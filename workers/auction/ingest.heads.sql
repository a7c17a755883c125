-- ingest: bring the heads up to the file
with staged as (
  -- the greatest row of each lot, should a file hold a lot twice
  select distinct on (s.lot_external_id::bigint)
    s.lot_external_id::bigint as lot,
    s.row_hash,
    s.row_id,
    s.prev_hash,
    s.prev_seen
  from staging.copart_raw s
  where s.file_id = $1
    and s.window_start_utc = $3
    and s.lot_external_id is not null
  order by s.lot_external_id::bigint, s.version_at desc, s.row_hash desc
),
moved as (
  update raw.heads h
  set
    row_hash = s.row_hash,
    row_id = s.row_id,
    version_window = $3,
    last_seen = null,
    absent_since = null
  from staged s
  where h.source = $2
    and h.lot = s.lot
    -- where the file holds the head's version too, of which nothing is staged, the greater one stays: were it the lesser,
    -- a file that holds that alone would find nothing new in it
    and not (s.prev_hash = h.row_hash and s.prev_seen = $3 and s.row_hash < h.row_hash)
)
-- nobody else moves this source's heads meanwhile, so what was not there is new (`on conflict` costs half as much again)
insert into raw.heads (source, lot, row_hash, row_id, version_window)
select $2, s.lot, s.row_hash, s.row_id, $3
from staged s
where s.prev_hash is null -- else there is a head that held it
  and not exists (
    select
    from raw.heads h
    where h.source = $2
      and h.lot = s.lot
  )
