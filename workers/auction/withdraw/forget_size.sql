-- withdraw: forget a size that the file, or a later one beside it, has made the measure
-- $1 source, $2 withdrawn windows, $3 arrival of the file. A size that an operator accepted is kept.
update raw.sources s
set size_accepted_window = null, size_accepted_rows = null
where s.source = $1
  and (
    s.size_accepted_window = any ($2)
    or exists (
      select
      from raw.sightings g
      where g.source = $1
        and g.window_start_utc = s.size_accepted_window
        and g.ingested_at > $3
    )
    and not exists (
      select
      from audit.operator_actions o
      where o.action = 'accept-size'
        and o.subject = $1
        and (o.details ->> 'window_start_utc')::timestamptz = s.size_accepted_window
    )
  )
