-- withdraw: the file of a window
-- $1 source, $2 window, $3 file, or null for the only one
select
  g.file_id,
  f.sha256,
  coalesce(g.ingested_at, g.seen_at) as "arrived_at!",
  m.file_id is not null as "ingested!",
  -- the windows that repeated the file as the newest one, until another file arrived
  case
    when m.file_id is not null then array(
      select r.window_start_utc
      from raw.sightings r
      where r.source = g.source
        and r.file_id = g.file_id
        and r.state = 'unchanged'
        and r.window_start_utc > g.window_start_utc
        and not exists (
          select
          from raw.sightings o
          where o.source = g.source
            and o.state in ('ingested', 'applied', 'late', 'incomplete')
            and o.window_start_utc > g.window_start_utc
            and o.window_start_utc <= r.window_start_utc
        )
      order by r.window_start_utc
    )
  end as repeats
from raw.sightings g
join raw.csv_files f on f.file_id = g.file_id
left join raw.manifests m on m.file_id = g.file_id and m.window_start_utc = g.window_start_utc
where g.source = $1
  and g.window_start_utc = $2
  and g.state <> 'withdrawn'
  and g.file_id = coalesce($3, g.file_id)
order by g.seen_at
