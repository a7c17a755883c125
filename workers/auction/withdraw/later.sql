-- withdraw: windows that were ingested after the file and are in order without it
-- $1 source, $2 arrival of the file
select
  g.file_id,
  g.window_start_utc as window,
  g.state,
  g.complete,
  f.complete as file_complete,
  g.window_start_utc = f.window_start_utc as "is_first!",
  coalesce(f.row_count, 0) as "rows!",
  coalesce(f.record_count, 0) as "records!",
  coalesce(f.recognised_lots, 0) as "recognised!"
from raw.sightings g
join raw.csv_files f on f.file_id = g.file_id
where g.source = $1
  and g.ingested_at > $2
  and g.state in ('applied', 'incomplete', 'late')
  and (
    g.state <> 'late'
    or not exists (
      select
      from raw.sightings o
      where o.source = g.source
        and o.window_start_utc > g.window_start_utc
        and o.state in ('ingested', 'applied', 'late', 'incomplete', 'unchanged')
        and coalesce(o.ingested_at, o.seen_at) < g.ingested_at
    )
  )
order by g.window_start_utc, g.ingested_at
