-- withdraw: the newest file of the source
-- $1 source, $2 newest file, $3 the newest window in which it was seen
update raw.sources s
set
  head_file_id = $2,
  head_window = $3,
  completed_window = (
    select max(g.window_start_utc)
    from raw.sightings g
    where g.source = $1
      and g.state in ('applied', 'incomplete', 'unchanged')
  )
where s.source = $1
