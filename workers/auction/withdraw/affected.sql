-- withdraw: lots and vehicles to fold again
-- $1 source, $2 withdrawn windows, $3 lots of the file, $4 lots that the file staged, $5 the file's window, $6 arrival
-- of the file
with
-- the fold sets seen_window again, from the remaining windows
lots as (
  update public.lots l
  set seen_window = null
  where l.source = $1
    and l.seen_window = any ($2)
  returning l.lot_external_id
),
vehicles as (
  update public.vehicles v
  set seen_window = null
  where v.source = $1
    and v.seen_window = any ($2)
  returning v.vin
),
file_lots as (
  select u.lot
  from unnest($3::bigint[]) as u (lot)
),
later_files as (
  select g.file_id, g.window_start_utc
  from raw.sightings g
  where g.source = $1
    and g.ingested_at > $6
    and g.window_start_utc < $5
    and g.state <> 'withdrawn'
)
select u.lot, null::text as vin
from unnest($4::bigint[]) as u (lot)
union
select l.lot_external_id::bigint, null
from lots l
where l.lot_external_id ~ '^[0-9]{1,18}$'
union
select null, v.vin
from vehicles v
union
-- the window may have been the first with a version that lacks a usable update time
select u.lot, null
from file_lots u
join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
where l.needs_fold
union
select null, v.vin
from file_lots u
join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
join public.vehicles v on v.vin = l.vin
where v.needs_fold
union
-- an older file that arrived later may contain a version that lost because the file was newer
select u.lot, null
from later_files g
join staging.copart_raw s on s.file_id = g.file_id and s.window_start_utc = g.window_start_utc
join file_lots u on u.lot::text = s.lot_external_id
union
-- without staged rows, a month's copy of a version looks like a new version
select u.lot, null
from later_files g
join raw.rows r on r.file_id = g.file_id and r.window_start_utc = g.window_start_utc
join file_lots u on u.lot = r.lot
where not exists (
  select
  from staging.copart_raw s
  where s.file_id = g.file_id
    and s.window_start_utc = g.window_start_utc
)
