-- withdraw: the manifests that are left, and until when each file was seen as the newest one
select
  m.file_id,
  m.window_start_utc as window,
  coalesce(
    (
      select max(r.window_start_utc)
      from raw.sightings r
      where r.source = $1
        and r.file_id = m.file_id
        and r.state = 'unchanged'
        and r.window_start_utc > m.window_start_utc
        and not exists (
          select
          from raw.sightings o
          where o.source = $1
            and o.state in ('ingested', 'applied', 'late', 'incomplete')
            and o.window_start_utc > m.window_start_utc
            and o.window_start_utc <= r.window_start_utc
        )
    ),
    m.window_start_utc
  ) as "seen_until!",
  coalesce(g.complete, false) as "complete!"
from raw.manifests m
join raw.sightings g on g.file_id = m.file_id and g.window_start_utc = m.window_start_utc
where g.source = $1
  and g.state in ('ingested', 'applied', 'late', 'incomplete')
order by m.window_start_utc desc, g.ingested_at desc
