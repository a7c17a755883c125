-- withdraw: mark windows and file
-- $1 source, $2 file, $3 windows
with sightings as (
  update raw.sightings g
  set state = 'withdrawn', complete = null
  where g.source = $1
    and g.file_id = $2
    and g.window_start_utc = any ($3)
),
remaining_windows as (
  select
    min(g.window_start_utc) as first_window,
    -- the state of the file's latest chain
    (
      array_agg(g.state order by coalesce(g.ingested_at, g.seen_at) desc)
      filter (where g.state <> 'unchanged')
    )[1] as state
  from raw.sightings g
  where g.file_id = $2
    and g.state <> 'withdrawn'
    and not g.window_start_utc = any ($3)
),
file as (
  update raw.csv_files f
  set
    state = case when l.first_window is null then 'withdrawn' else coalesce(l.state, f.state) end,
    complete = case when f.window_start_utc = any ($3) then null else f.complete end,
    incomplete_reason = case when f.window_start_utc = any ($3) then null else f.incomplete_reason end,
    -- the file belongs to its oldest remaining window
    window_start_utc = case
      when f.window_start_utc = any ($3) then coalesce(l.first_window, f.window_start_utc)
      else f.window_start_utc
    end
  from remaining_windows l
  where f.file_id = $2
),
-- another file of the window, if one exists
other_files as (
  select distinct on (g.window_start_utc) g.window_start_utc, g.file_id, g.state
  from raw.sightings g
  where g.source = $1
    and g.window_start_utc = any ($3)
    and g.file_id <> $2
    and g.state <> 'withdrawn'
  order by g.window_start_utc, coalesce(g.ingested_at, g.seen_at) desc
),
windows as (
  update fleet.windows w
  set
    state = coalesce(case o.state when 'received' then 'fetched' else o.state end, 'withdrawn'),
    file_id = coalesce(o.file_id, w.file_id),
    note = null,
    updated_at = now()
  from (select) as one
  left join other_files o on true
  where w.source = $1
    and w.window_start_utc = any ($3)
    and (o.window_start_utc is null or o.window_start_utc = w.window_start_utc)
    and w.file_id = $2
)
select first_window is not null as "left!"
from remaining_windows
