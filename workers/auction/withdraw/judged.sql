-- withdraw: the state of a window
-- $1 source, $2 window, $3 file, $4 state, $5 complete, $6 incomplete_reason, $7 the file's first window, $8 note
with sighting as (
  update raw.sightings
  set state = $4, complete = $5
  where source = $1
    and window_start_utc = $2
    and file_id = $3
),
file as (
  update raw.csv_files f
  set
    -- the state of the file's latest chain
    state = case
      when exists (
        select
        from raw.sightings o
        where o.file_id = $3
          and o.state not in ('unchanged', 'withdrawn')
          and o.window_start_utc <> $2
          and o.seen_at > (
            select g.seen_at
            from raw.sightings g
            where g.source = $1
              and g.window_start_utc = $2
              and g.file_id = $3
          )
      ) then f.state
      else $4
    end,
    complete = case when $7 then $5 else f.complete end,
    incomplete_reason = case when $7 then $6 else f.incomplete_reason end
  where f.file_id = $3
)
update fleet.windows
set state = $4, note = $8, updated_at = now()
where source = $1
  and window_start_utc = $2
  and file_id = $3
