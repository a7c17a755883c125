-- 0010_audit_views
-- purpose: views per file: rows ingested, missing keys, parse errors
-- depends: 0009
-- rollback: yes
-- creates: audit.v_ingest_count, audit.v_unknown_rate, audit.v_parse_errors

-- Most rows of a file are versions stored by earlier files, so counting raw.rows by file_id would count only new
-- versions and read millions of rows. The manifest lists every row, and 0 marks a rejected record. `last_row_id` is the
-- last version stored by this file, null if it stored none.
create or replace view audit.v_ingest_count as
select
  f.file_id,
  f.path,
  f.row_count,
  f.row_count as declared_rows,
  coalesce(cardinality(m.row_ids) - cardinality(array_positions(m.row_ids, 0)), 0) as actual_rows,
  f.ingested_at as file_ingested_at,
  f.ingested_at,
  (
    select r.id
    from raw.rows as r
    where r.file_id = f.file_id
      and r.window_start_utc = f.window_start_utc
    order by r.row_no desc
    limit 1
  ) as last_row_id
from raw.csv_files as f
left join raw.manifests as m
  on m.file_id = f.file_id
  and m.window_start_utc = f.window_start_utc;

-- Ingest counts missing keys while reading, so that no alert has to scan payloads. The unknown rate of a file is the
-- greater rate of its two keys.
create or replace view audit.v_unknown_rate as
select
  e.file_id,
  f.path,
  e.rows_processed as total_rows,
  e.rows_missing_vin as vin_null_count,
  e.rows_missing_lot as lot_null_count,
  share.vin_null_pct,
  share.lot_null_pct,
  greatest(share.vin_null_pct, share.lot_null_pct) as unknown_rate,
  f.ingested_at
from audit.etl_runs as e
join raw.csv_files as f
  on f.file_id = e.file_id
  and f.window_start_utc = e.window_start_utc
cross join lateral (
  select
    coalesce(100.0 * e.rows_missing_vin / nullif(e.rows_processed, 0), 0) as vin_null_pct,
    coalesce(100.0 * e.rows_missing_lot / nullif(e.rows_processed, 0), 0) as lot_null_pct
) as share;

-- Files with parse errors. An error is a rejected record. A repaired record is stored and counted separately.
create or replace view audit.v_parse_errors as
select
  p.file_id,
  f.path,
  count(*) filter (where p.kind = 'rejected') as error_count,
  count(*) filter (where p.kind = 'repaired') as repaired_count,
  (
    array_agg(format('row %s at byte %s: %s', p.row_no, p.byte_offset, p.reason) order by p.row_no)
    filter (where p.kind = 'rejected')
  )[1:3] as examples,
  min(p.detected_at) as first_detected_at,
  max(p.detected_at) as last_detected_at
from audit.parse_errors as p
join raw.csv_files as f
  on f.file_id = p.file_id
group by
  p.file_id,
  f.path;
