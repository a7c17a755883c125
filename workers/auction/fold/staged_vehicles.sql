-- fold: the vehicles of staged rows
-- $1 file, $2 window, $3 staged rows. Returns each lot of the file that has the VIN of one of these rows.
select distinct s.vin as "vin!", s.lot_external_id::bigint as lot
from staging.copart_raw s
where s.file_id = $1
  and s.window_start_utc = $2
  and s.vin in (
    select vin
    from staging.copart_raw
    where id = any ($3)
      and window_start_utc = $2
  )
