-- ingest: closed lots that the file holds in records that cannot be read
-- Such lots are present in an unknown version. Their heads have no version, and their staged rows contain only the lot
-- number.
with returned_lots as (
  select distinct l.lot_external_id
  from unnest($4::bigint[]) as u (lot)
  join public.lots l on l.source = $2 and l.lot_external_id = u.lot::text
  where l.status not in ('active', 'scheduled')
    and not exists (
      select
      from raw.heads h
      where h.source = $2
        and h.lot = u.lot
    )
),
new_heads as (
  insert into raw.heads (source, lot, row_hash, row_id, version_window)
  select $2, lot_external_id::bigint, '00000000-0000-0000-0000-000000000000', -1, $3
  from returned_lots
)
insert into staging.copart_raw (file_id, window_start_utc, lot_external_id)
select $1, $3, lot_external_id
from returned_lots
