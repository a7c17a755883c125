-- detect-completion: close the run
with file as (
  update raw.csv_files
  set state = $4
  where file_id = $1
),
sighting as (
  update raw.sightings
  set state = $4
  where source = $3
    and window_start_utc = $2
    and file_id = $1
),
run as (
  update audit.etl_runs
  set
    status = 'completed',
    completed_at = clock_timestamp(),
    rows_inserted = coalesce((report #>> '{upsert_lots,inserted}')::int, 0),
    rows_updated = coalesce((report #>> '{upsert_lots,updated}')::int, 0)
  where file_id = $1
    and window_start_utc = $2
)
update fleet.windows
set
  state = $4,
  file_id = $1,
  note = $5,
  updated_at = now()
where source = $3
  and window_start_utc = $2
