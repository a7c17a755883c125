-- ingest: bring the heads up to the file
with staged_rows as (
  -- the greatest row of each lot, if the file contains a lot twice
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
updated_heads as (
  update raw.heads h
  set
    row_hash = s.row_hash,
    row_id = s.row_id,
    version_window = $3,
    last_seen = null,
    absent_since = null
  from staged_rows s
  where h.source = $2
    and h.lot = s.lot
    -- If the file also contains the head's version, for which nothing is staged, the greater version stays. With the
    -- lesser one as head, a file that contains only the lesser version would appear unchanged.
    and not (s.prev_hash = h.row_hash and s.prev_seen = $3 and s.row_hash < h.row_hash)
)
-- no other transaction changes this source's heads meanwhile, so a missing head is new (`on conflict` costs half as
-- much again)
insert into raw.heads (source, lot, row_hash, row_id, version_window)
select $2, s.lot, s.row_hash, s.row_id, $3
from staged_rows s
where s.prev_hash is null -- otherwise a head exists
  and not exists (
    select
    from raw.heads h
    where h.source = $2
      and h.lot = s.lot
  )
