-- withdraw: until when replaced versions were seen
-- $1 source, $2 withdrawn windows, $3 arrival of the file, $4 lots that the file staged, $5 the hash of the version
-- that each of them replaced, $6 the window until which that version was seen
with file_lots as (
  select *
  from unnest($4::text[], $5::uuid[], $6::timestamptz[]) as t (lot, hash, seen)
),
previous_window as (
  -- a lot that the file did not stage was seen in the preceding window, in the same version
  select max(g.window_start_utc) as at
  from raw.sightings g
  where g.source = $1
    and g.state in ('ingested', 'applied', 'late', 'incomplete', 'unchanged')
    and g.window_start_utc < ($2::timestamptz[])[1]
    and coalesce(g.ingested_at, g.seen_at) < $3
)
update staging.copart_raw s
set prev_seen = case
  when t.lot is null then (select at from previous_window)
  when t.hash = s.prev_hash then t.seen
end
from raw.csv_files f, staging.copart_raw x
left join file_lots t on t.lot = x.lot_external_id
where f.source = $1
  and f.file_id = x.file_id
  and x.prev_seen = any ($2)
  and s.id = x.id
  and s.window_start_utc = x.window_start_utc
