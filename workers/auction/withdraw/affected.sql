-- withdraw: lots and vehicles to fold again
-- $1 source, $2 withdrawn windows, $3 lots of the file, $4 lots that it staged, $5 its window, $6 its arrival
with
-- the fold sets seen_window again, from the windows that are left
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
of_file as (
  select u.lot
  from unnest($3::bigint[]) as u (lot)
),
later as (
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
-- the window may have been the first one that held a version without a usable update time
select u.lot, null
from of_file u
join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
where l.needs_fold
union
select null, v.vin
from of_file u
join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
join public.vehicles v on v.vin = l.vin
where v.needs_fold
union
-- an older file that came later may hold a version that the file outlived
select u.lot, null
from later g
join staging.copart_raw s on s.file_id = g.file_id and s.window_start_utc = g.window_start_utc
join of_file u on u.lot::text = s.lot_external_id
union
-- without staged rows a month's copy of a version looks like a new version
select u.lot, null
from later g
join raw.rows r on r.file_id = g.file_id and r.window_start_utc = g.window_start_utc
join of_file u on u.lot = r.lot
where not exists (
  select
  from staging.copart_raw s
  where s.file_id = g.file_id
    and s.window_start_utc = g.window_start_utc
)
