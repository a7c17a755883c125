-- ingest: open the run
insert into audit.etl_runs (
  file_id, window_start_utc, status, rows_processed, rows_skipped, rows_missing_vin, rows_missing_lot, errors,
  error_summary, report, started_at, completed_at
)
values (
  $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now(), case when $3 = 'failed' then clock_timestamp() end
)
on conflict (file_id, window_start_utc)
do update set
  status = excluded.status,
  rows_processed = excluded.rows_processed,
  rows_skipped = excluded.rows_skipped,
  rows_missing_vin = excluded.rows_missing_vin,
  rows_missing_lot = excluded.rows_missing_lot,
  errors = excluded.errors,
  error_summary = excluded.error_summary,
  report = excluded.report,
  started_at = excluded.started_at,
  completed_at = excluded.completed_at
