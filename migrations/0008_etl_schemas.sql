-- 0008_etl_schemas
-- purpose: schemas raw, staging and audit: stored files and row versions, typed rows to apply, error logs
-- depends: 0007
-- rollback: destructive
-- creates: raw.headers, raw.header_changes, raw.csv_files, raw.sightings, raw.rows, raw.manifests, raw.sources, raw.heads, raw.lotless_rows, raw.file_rows, staging.copart_raw, audit.vin_conflicts, audit.etl_runs, audit.parse_errors, audit.skipped_lots

create schema if not exists raw;
create schema if not exists staging;
create schema if not exists audit;

-- One row per distinct header. `columns_jsonb` maps the canonical name of a column to its name in the file
-- ({"Wholesale": "Copart Select"}). The key of an unknown column is `?` and its folded name ({"?aura": "Aura"}).
create table if not exists raw.headers (
  header_no int generated always as identity,
  columns_jsonb jsonb not null,
  id_name text generated always as (columns_jsonb ->> 'Id') stored,
  clock_name text generated always as (columns_jsonb ->> 'Create Date/Time') stored,
  constraint headers_pkey primary key (header_no)
);
create unique index if not exists idx_headers_columns on raw.headers (md5(columns_jsonb::text));

-- The changes that convert a payload stored under one header into the columns of another header, computed once per
-- pair: columns to drop and columns to add empty, by name. If any remaining column has another name, `renamed` contains
-- the new names of all remaining columns, in the order in which JSONB stores the old ones (by length, then bytewise).
create table if not exists raw.header_changes (
  stored_no int not null,
  shown_no int not null,
  dropped text[] not null,
  added jsonb not null,
  renamed text[],
  constraint header_changes_pkey primary key (stored_no, shown_no),
  constraint header_changes_stored_no_fkey foreign key (stored_no) references raw.headers (header_no) on delete cascade,
  constraint header_changes_shown_no_fkey foreign key (shown_no) references raw.headers (header_no) on delete cascade
);

-- Returns the number of a header. A new header is inserted with its changes to and from every other header. The lock
-- makes sure that of two new headers the second transaction sees the first.
create or replace function raw.header_no(columns jsonb)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  number int;
begin
  select h.header_no into number from raw.headers h where md5(h.columns_jsonb::text) = md5(columns::text);
  if number is not null then
    return number;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('raw.headers', 0));
  select h.header_no into number from raw.headers h where md5(h.columns_jsonb::text) = md5(columns::text);
  if number is not null then
    return number;
  end if;
  insert into raw.headers (columns_jsonb) values (columns) returning header_no into number;
  insert into raw.header_changes (stored_no, shown_no, dropped, added, renamed)
  select
    stored_header.header_no,
    shown_header.header_no,
    array(
      select k.value
      from jsonb_each_text(stored_header.columns_jsonb) k
      where not shown_header.columns_jsonb ? k.key
    ),
    (
      select coalesce(jsonb_object_agg(k.value, ''), '{}')
      from jsonb_each_text(shown_header.columns_jsonb) k
      where not stored_header.columns_jsonb ? k.key
    ),
    (
      select
        case
          when bool_or(k.value <> shown_header.columns_jsonb ->> k.key)
            then array_agg(shown_header.columns_jsonb ->> k.key order by octet_length(k.value), k.value collate "C")
        end
      from jsonb_each_text(stored_header.columns_jsonb) k
      where shown_header.columns_jsonb ? k.key
    )
  from raw.headers stored_header
  join raw.headers shown_header on shown_header.header_no <> stored_header.header_no
  where number in (stored_header.header_no, shown_header.header_no);
  return number;
end
$$;

-- One row per source and distinct file. The same bytes are the same file of one source, and another file for another
-- source. After a withdrawal the same bytes may be stored again as a new file. `file_no` is short, so that the id of a
-- row is computed from `file_no` and the row's position without a query: file_no * 2^24 + row_no.
create table if not exists raw.csv_files (
  file_id uuid not null default gen_random_uuid(),
  file_no bigint generated always as identity,
  source text not null default 'copart',
  path text not null,
  sha256 text not null,
  -- hash of the stored (compressed) bytes; null for files registered by another program
  packed_sha256 text,
  bytes bigint not null,
  stored_bytes bigint,
  row_count int,
  headers_jsonb jsonb not null default '[]',
  -- null for files registered by another program
  header_no int,
  window_start_utc timestamptz not null,
  snapshot_clock text,
  etag text,
  last_modified timestamptz,
  state text not null default 'received',
  -- true if the file contains the whole feed; null before ingest, and for a late file, which is not judged
  complete boolean,
  -- reason for an incomplete file: too few rows only (size), or too few recognised lot numbers (lots)
  incomplete_reason text,
  -- number of records, unreadable ones included, and the number of records with a readable lot number
  record_count int,
  recognised_lots int,
  received_at timestamptz not null default now(),
  ingested_at timestamptz,
  constraint csv_files_pkey primary key (file_id),
  constraint csv_files_file_no_key unique (file_no),
  constraint csv_files_header_no_fkey foreign key (header_no) references raw.headers (header_no),
  constraint csv_files_path_format_ck check (
    path ~ '(^|/)[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{4}(-[0-9a-f]{8})?\.csv(\.zst)?$'
  ),
  constraint csv_files_sha256_format_ck check (sha256 ~ '^[0-9a-f]{64}$'),
  constraint csv_files_packed_sha256_format_ck check (packed_sha256 ~ '^[0-9a-f]{64}$'),
  constraint csv_files_bytes_ck check (bytes > 0),
  constraint csv_files_row_count_ck check (row_count >= 0),
  constraint csv_files_incomplete_reason_ck check (
    incomplete_reason is null or incomplete_reason in ('size', 'lots') and complete is false
  ),
  constraint csv_files_recognised_lots_ck check (recognised_lots between 0 and record_count),
  constraint csv_files_state_ck check (
    state in ('received', 'ingested', 'applied', 'late', 'incomplete', 'quarantined', 'withdrawn')
  )
);
create unique index if not exists csv_files_source_sha256_key
  on raw.csv_files (source, sha256)
  where state <> 'withdrawn';
create unique index if not exists csv_files_source_path_key
  on raw.csv_files (source, path)
  where state <> 'withdrawn';
create index if not exists idx_csv_files_window on raw.csv_files (source, window_start_utc);

-- The file of each window, one row per sighting: a file that arrives again for another window is sighted again. `state`
-- is the state of the sighting's step chain. `csv_files.state` is the state of the file's latest chain. `complete` is
-- null for a late sighting and before the ingest. `file_no` numbers the rows that this chain stores: the file's own
-- number for the first window, and a new number of the same sequence for each further window.
create table if not exists raw.sightings (
  source text not null,
  window_start_utc timestamptz not null,
  file_id uuid not null,
  file_no bigint not null,
  state text not null default 'received',
  -- set when an operator has accepted the quarantined file
  accepted boolean not null default false,
  complete boolean,
  seen_at timestamptz not null default now(),
  ingested_at timestamptz,
  constraint sightings_pkey primary key (source, window_start_utc, file_id),
  constraint sightings_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint sightings_state_ck check (
    state in ('received', 'ingested', 'applied', 'late', 'incomplete', 'quarantined', 'unchanged', 'withdrawn')
  )
);
create index if not exists idx_sightings_file on raw.sightings (file_id);
create unique index if not exists idx_sightings_file_no on raw.sightings (file_no);

-- Ids below 2^24 are reserved for rows inserted manually, since `file_no` starts at 1.
create sequence if not exists raw.rows_id_seq maxvalue 16777215;

-- Each distinct row version once per month, where it first appeared. Months are independent: the first window applied
-- in a month stores every row, so that a month can be archived and dropped. `lot` is the canonical lot number,
-- independent of how the file writes the number and names its column. `lot` is null if ingest recognised no number, and
-- in rows inserted manually. The indexes on values are hash indexes because a B-tree rejects a text of more than 2,704
-- bytes.
create table if not exists raw.rows (
  id bigint not null default nextval('raw.rows_id_seq'),
  file_id uuid not null,
  row_no int not null,
  window_start_utc timestamptz not null,
  lot bigint,
  payload_jsonb jsonb not null,
  constraint rows_pkey primary key (id, window_start_utc),
  constraint rows_file_row_key unique (file_id, row_no, window_start_utc),
  constraint rows_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint rows_row_no_ck check (row_no > 0)
) partition by range (window_start_utc);
create index if not exists idx_rows_lot on raw.rows (lot);
create index if not exists idx_rows_lot_number on raw.rows using hash ((payload_jsonb ->> 'Lot number'));
create index if not exists idx_rows_vin on raw.rows using hash ((payload_jsonb ->> 'VIN'));

-- The complete list of a file's row ids in file order, per window for which the file was processed. 0 marks a record
-- that could not be read.
create table if not exists raw.manifests (
  file_id uuid not null,
  window_start_utc timestamptz not null,
  row_ids bigint[] not null,
  constraint manifests_pkey primary key (file_id, window_start_utc),
  constraint manifests_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade
);

-- Compression with pglz takes as long as the upsert of the window's vehicles. lz4 costs almost nothing, if the server
-- has it.
do $$
begin
  alter table raw.manifests alter column row_ids set compression lz4;
exception
  when feature_not_supported then
    alter table raw.manifests alter column row_ids set storage external;
end
$$;

-- The window and file that the lot heads of a source correspond to. Locking this row serialises the windows of one
-- source.
create table if not exists raw.sources (
  source text not null,
  head_window timestamptz,
  head_file_id uuid,
  completed_window timestamptz,
  -- a smaller size accepted as normal: the window since which it applies, and its number of rows. Files after that
  -- window are compared with this size and with the complete files since, and no longer with the larger files before.
  size_accepted_window timestamptz,
  size_accepted_rows int,
  -- a file contains changes only, so a lot that is not in the file is not absent; set from the mapping of the newest
  -- file
  sends_changes boolean not null default false,
  constraint sources_pkey primary key (source),
  constraint sources_size_accepted_ck check ((size_accepted_window is null) = (size_accepted_rows is null))
);

-- The newest version seen of each lot, which the next file is compared with. `last_seen` is null while the lot is in
-- the newest file. `absent_since` is the window of the first complete file without the lot, and null if the source
-- sends changes only. Closed lots are deleted from this table.
create table if not exists raw.heads (
  source text not null,
  lot bigint not null,
  row_hash uuid not null,
  row_id bigint not null,
  version_window timestamptz not null,
  last_seen timestamptz,
  absent_since timestamptz,
  constraint heads_pkey primary key (source, lot),
  constraint heads_absent_ck check (absent_since is null or last_seen is not null)
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05);
create index if not exists idx_heads_absent on raw.heads (source, absent_since) where last_seen is not null;

-- Rows without a lot number, by hash: the stored version, so that a row that appears again is not stored again.
-- `version_window` is the window that stored the row, at least once a month since months are independent. Rows that
-- have not been seen for a month are deleted, and so are the oldest rows of a source that has very many.
create table if not exists raw.lotless_rows (
  source text not null,
  row_hash uuid not null,
  row_id bigint not null,
  version_window timestamptz not null,
  constraint lotless_rows_pkey primary key (source, row_hash)
);
create index if not exists idx_lotless_rows_window on raw.lotless_rows (source, version_window);

-- Every row of any file: the version, with the export's row number and the snapshot's clock restored, under the column
-- names of that file. The version may have been stored by a file with another header. Columns are then renamed, a
-- column that only this file has is empty (a value would have made another version), and a column that this file lacks
-- is omitted.
create or replace view raw.file_rows as
select
  m.file_id,
  u.row_no::int as row_no,
  case
    when c.shown_no is null then r.payload_jsonb
    when c.renamed is null then (r.payload_jsonb - c.dropped) || c.added
    -- assigns the new names to the values by position: a join of old and new names costs three times as much
    else
      jsonb_object(c.renamed, array(select e.value from jsonb_each_text(r.payload_jsonb - c.dropped) as e))
      || c.added
  end
    || case
      when f.header_no is null and r.payload_jsonb ? 'Id' then jsonb_build_object('Id', u.row_no::text)
      when h.id_name is null then '{}'::jsonb
      else jsonb_build_object(h.id_name, u.row_no::text)
    end
    || case
      when r.file_id = m.file_id then '{}'::jsonb
      when f.header_no is null and r.payload_jsonb ? 'Create Date/Time'
        then jsonb_build_object('Create Date/Time', f.snapshot_clock)
      when h.clock_name is null then '{}'::jsonb
      else jsonb_build_object(h.clock_name, f.snapshot_clock)
    end as payload_jsonb
from raw.csv_files as f
-- a file that arrived again has one manifest per window
join raw.manifests as m on m.file_id = f.file_id and m.window_start_utc = f.window_start_utc
left join raw.headers as h on h.header_no = f.header_no
cross join unnest(m.row_ids) with ordinality as u (row_id, row_no)
join raw.rows as r
  on r.id = u.row_id
  -- a manifest refers only to versions of its own month
  and r.window_start_utc >= date_trunc('month', m.window_start_utc, 'UTC')
  and r.window_start_utc < date_trunc('month', m.window_start_utc, 'UTC') + interval '1 month'
join raw.csv_files as s on s.file_id = r.file_id
left join raw.header_changes as c
  on c.stored_no = s.header_no
  and c.shown_no = f.header_no;

-- New, changed and returned rows of a file, typed by the program. The payload is in raw.rows.
create table if not exists staging.copart_raw (
  id bigserial,
  file_id uuid not null,
  window_start_utc timestamptz not null,
  row_no int,
  row_id bigint,
  row_hash uuid,
  prev_hash uuid,
  prev_seen timestamptz,
  lot_external_id text,
  vin_raw text,
  vin text,
  payload_jsonb jsonb,
  year int,
  make text,
  model text,
  model_detail text,
  trim text,
  body text,
  fuel text,
  transmission text,
  drive text,
  engine text,
  cylinders int,
  color text,
  site_code text,
  yard_name text,
  city text,
  region text,
  country text,
  location_zip text,
  tz text,
  sale_date_raw int,
  sale_day_of_week text,
  sale_time_hhmm int,
  auction_datetime_utc timestamptz,
  item_number int,
  vehicle_type text,
  damage_description text,
  damage_code text,
  secondary_damage text,
  secondary_damage_code text,
  title_state text,
  title_type text,
  has_keys boolean,
  has_keys_code text,
  lot_condition_code text,
  odometer numeric(10, 1),
  odometer_unit text,
  odometer_brand text,
  retail_value_usd numeric(12, 2),
  repair_cost_usd numeric(12, 2),
  runs_drives text,
  sale_type text,
  sale_type_code text,
  current_bid_usd numeric(12, 2),
  special_note text,
  currency_code char(3),
  thumbnail_url text,
  image_url text,
  grid_row text,
  make_offer_eligible boolean,
  buy_it_now_usd numeric(12, 2),
  source_updated_at timestamptz,
  -- order key of the version, see upsert_lots_batch
  version_at timestamptz,
  -- the row has an unreadable value or an implausible update time; its version is folded with the others of the lot
  irregular boolean not null default false,
  ingested_at timestamptz not null default now(),
  processed_at timestamptz,
  processing_error text,
  constraint copart_raw_pkey primary key (id, window_start_utc),
  constraint copart_raw_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint copart_raw_key_or_error_ck check (lot_external_id is not null or processing_error is not null)
) partition by range (window_start_utc);
create index if not exists idx_staging_lot on staging.copart_raw using hash (lot_external_id);
create index if not exists idx_staging_vin on staging.copart_raw using hash (vin_raw);
-- Every step of a file starts by reading the file's rows. One key has thousands of rows, and deduplication reduces each
-- entry to six bytes.
create index if not exists idx_staging_file on staging.copart_raw (file_id);

create table if not exists audit.vin_conflicts (
  id bigint generated by default as identity,
  window_start_utc timestamptz not null,
  file_id uuid,
  vin_raw text,
  vin_normalized text,
  source text not null default 'copart',
  lot_external_id text,
  conflict_reason text not null,
  detected_at timestamptz not null default now(),
  constraint vin_conflicts_pkey primary key (id, window_start_utc)
) partition by range (window_start_utc);

-- One row per file and step chain, inserted by ingest and closed by detect-completion. A file that arrived again has
-- one chain per window.
create table if not exists audit.etl_runs (
  run_id uuid not null default gen_random_uuid(),
  file_id uuid not null,
  window_start_utc timestamptz not null,
  status text not null default 'running',
  rows_processed int not null default 0,
  rows_inserted int not null default 0,
  rows_updated int not null default 0,
  rows_skipped int not null default 0,
  rows_missing_vin int not null default 0,
  rows_missing_lot int not null default 0,
  errors int not null default 0,
  error_summary jsonb,
  report jsonb not null default '{}',
  started_at timestamptz not null default now(),
  completed_at timestamptz,
  duration_seconds double precision generated always as (extract(epoch from completed_at - started_at)) stored,
  constraint etl_runs_pkey primary key (run_id),
  constraint etl_runs_file_window_key unique (file_id, window_start_utc),
  constraint etl_runs_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint etl_runs_status_ck check (status in ('running', 'completed', 'failed', 'partial'))
);

-- Records that could not be read, and records that could be read only after a reportable repair, with their bytes.
create table if not exists audit.parse_errors (
  id bigint generated by default as identity,
  window_start_utc timestamptz not null,
  file_id uuid not null,
  source text not null default 'copart',
  row_no int not null,
  byte_offset bigint not null,
  kind text not null,
  reason text not null,
  raw bytea not null,
  detected_at timestamptz not null default now(),
  constraint parse_errors_pkey primary key (id, window_start_utc),
  constraint parse_errors_kind_ck check (kind in ('rejected', 'repaired'))
) partition by range (window_start_utc);
create index if not exists idx_parse_errors_file on audit.parse_errors (file_id);

-- Rows that produce neither a vehicle nor a lot, with the reason.
create table if not exists audit.skipped_lots (
  id bigint generated by default as identity,
  window_start_utc timestamptz not null,
  file_id uuid not null,
  source text not null default 'copart',
  row_no int not null,
  lot_external_id text,
  vin_raw text,
  reason text not null,
  detected_at timestamptz not null default now(),
  constraint skipped_lots_pkey primary key (id, window_start_utc),
  constraint skipped_lots_reason_ck check (reason in ('vin_empty', 'vin_format', 'lot_missing'))
) partition by range (window_start_utc);

-- Returns true if a parent has a partition of this name. The function reads the catalogue's rows because to_regclass
-- may use a cache that lacks what another session has just committed.
create or replace function raw.is_partition(parent regclass, name text)
returns boolean
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = parent and c.relname = name
  )
$$;

-- Returns the first instant of the UTC month or day of a window. An instant outside the range of a feed's windows is
-- rejected, so that the number of partitions is bounded for any caller.
create or replace function raw.partition_start(unit text, at timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if at is null or at < '2010-01-01T00:00Z' or at >= '2100-01-01T00:00Z' then
    raise exception 'window % is out of range', coalesce(at::text, 'null')
      using errcode = 'datetime_field_overflow', hint = 'Windows lie between 2010 and 2100.';
  end if;
  return date_trunc(unit, at, 'UTC');
end
$$;

-- Raises an error if a table other than a partition already has the partition's name. Such a table was detached, or
-- created manually. Its rows may still be needed, so it is neither dropped nor attached.
create or replace function raw.expect_no_table(parent regclass, name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  existing_table regclass;
begin
  select c.oid into existing_table
  from pg_class c
  where c.relname = name
    and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = parent);
  if existing_table is not null then
    raise exception 'table % exists and is not a partition of %', existing_table, parent
      using errcode = 'object_not_in_prerequisite_state',
        hint = format('Check its rows, then attach it to %s, rename it or drop it.', parent);
  end if;
end
$$;

-- Creates the partition of a table for the UTC month of `at`. Workers may call the function and need no other right to
-- create tables. The table must be one of this schema's tables partitioned by month, and name and bounds of the
-- partition are derived from the month.
create or replace function raw.ensure_partition(parent regclass, at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month constant timestamptz := raw.partition_start('month', at);
  schema_name text;
  child_name text;
  child text;
begin
  select n.nspname, c.relname || to_char(month at time zone 'UTC', '"_"YYYY_MM') into schema_name, child_name
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.oid = parent
    and c.relkind = 'p'
    and not c.relispartition
    and pg_get_userbyid(c.relowner) = current_user
    and (n.nspname = 'audit' or n.nspname = 'raw' and c.relname = 'rows')
    and pg_get_partkeydef(c.oid) = 'RANGE (window_start_utc)';
  if schema_name is null then
    raise exception 'table % is not partitioned by month', parent
      using errcode = 'wrong_object_type',
        hint = 'Tables partitioned by month are raw.rows and the partitioned tables of schema audit.';
  end if;
  child := format('%I.%I', schema_name, child_name);
  if raw.is_partition(parent, child_name) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended(child, 0));
  if raw.is_partition(parent, child_name) then
    return;
  end if;
  perform raw.expect_no_table(parent, child_name);
  -- created first, then attached: attaching does not lock out readers, while `partition of` does
  execute format('create table %s (like %s including all)', child, parent);
  execute format(
    'alter table %s attach partition %s for values from (%L) to (%L)', parent, child, month, month + interval '1 month'
  );
end
$$;

-- Creates the audit partitions that a window needs.
create or replace function audit.ensure_partitions(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  parent regclass;
begin
  for parent in
    select c.oid
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'p' and not c.relispartition and n.nspname = 'audit'
    order by c.relname
  loop
    perform raw.ensure_partition(parent, at);
  end loop;
end
$$;

-- Starts the load of a month's first rows. They are loaded into a separate table, raw.rows_YYYY_MM_loading, which is
-- indexed and then attached as raw.rows_YYYY_MM. Returns the name of the separate table, or null if the month is
-- already attached. A table of that name left by an unfinished load is dropped. No other table is dropped.
create or replace function raw.open_month(at timestamptz)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month constant timestamptz := raw.partition_start('month', at);
begin
  return raw.open_partition(
    'raw.rows', month, month + interval '1 month', to_char(month at time zone 'UTC', 'YYYY_MM')
  );
end
$$;

-- Starts the load of a day of staging.copart_raw, in the same way as raw.open_month.
create or replace function staging.open_day(at timestamptz)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  day constant timestamptz := raw.partition_start('day', at);
begin
  return raw.open_partition(
    'staging.copart_raw', day, day + interval '1 day', to_char(day at time zone 'UTC', 'YYYY_MM_DD')
  );
end
$$;

create or replace function raw.open_partition(
  parent regclass, lower_bound timestamptz, upper_bound timestamptz, suffix text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := parent::text || '_' || suffix;
  load_table constant text := child || '_loading';
begin
  if raw.is_partition(parent, split_part(child, '.', 2)) then
    return null;
  end if;
  perform raw.expect_no_table(parent, split_part(child, '.', 2));
  if raw.is_partition(parent, split_part(load_table, '.', 2)) then
    raise exception 'table % is a partition of %', load_table, parent
      using errcode = 'object_not_in_prerequisite_state',
        detail = 'A table of this name belongs to an unfinished load.',
        hint = format('Rename it to %s.', child);
  end if;
  execute format('drop table if exists %s', load_table);
  execute format('create table %s (like %s including defaults including constraints)', load_table, parent);
  -- lets `attach partition` skip its scan
  execute format(
    'alter table %s add constraint range_ck check (window_start_utc >= %L and window_start_utc < %L)',
    load_table, lower_bound, upper_bound
  );
  execute format('grant select, insert on %s to etl_rw', load_table);
  -- loaded pages are flushed in steps of 128 where the system supports it: with wal_level=minimal the commit would wait
  -- for all of them
  perform set_config(s.name, least(128, s.max_val::int)::text, true)
  from pg_settings s
  where s.name = 'backend_flush_after';
  return load_table;
end
$$;

-- Builds the indexes of a loaded month before it is attached. Sorting once is several times cheaper than inserting row
-- by row, and attaching would build missing indexes while holding its locks. The indexes keep their names after
-- attaching. The foreign key is left to attaching: if it existed before, attaching, or dropping the table of a killed
-- load, would lock everyone out of raw.csv_files.
create or replace function raw.index_month(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := 'rows_' || to_char(raw.partition_start('month', at) at time zone 'UTC', 'YYYY_MM');
  load_table constant text := child || '_loading';
begin
  execute format(
    'alter table raw.%I add constraint %I primary key (id, window_start_utc)', load_table, child || '_pkey'
  );
  execute format(
    'alter table raw.%I add constraint %I unique (file_id, row_no, window_start_utc)',
    load_table, child || '_file_row_key'
  );
  execute format('create index %I on raw.%I (lot)', child || '_lot_idx', load_table);
  execute format(
    'create index %I on raw.%I using hash ((payload_jsonb ->> ''Lot number''))', child || '_expr_idx', load_table
  );
  execute format(
    'create index %I on raw.%I using hash ((payload_jsonb ->> ''VIN''))', child || '_expr_idx1', load_table
  );
end
$$;

-- Inserts the first heads of a source from the rows of its first file, which may still be in a separate table. The
-- heads of the newest file must exist before the next file is ingested. With nothing to compare, one sorted insert is
-- enough.
create or replace function raw.first_heads(feed text, first_file uuid, at timestamptz, staged regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
      insert into raw.heads (source, lot, row_hash, row_id, version_window)
      -- the greatest row of each lot, if the file contains a lot twice
      select distinct on (s.lot_external_id::bigint) $1, s.lot_external_id::bigint, s.row_hash, s.row_id, $3
      from %s s
      where s.file_id = $2
        and s.window_start_utc = $3
        and s.lot_external_id is not null
      order by s.lot_external_id::bigint, s.version_at desc, s.row_hash desc
    $sql$,
    staged
  ) using feed, first_file, at;
end
$$;

-- Attaches a loaded month to raw.rows.
create or replace function raw.attach_month(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month constant timestamptz := raw.partition_start('month', at);
begin
  perform raw.attach_partition(
    'raw.rows', month, month + interval '1 month', to_char(month at time zone 'UTC', 'YYYY_MM')
  );
end
$$;

-- Builds the indexes of a loaded day before it is attached. The indexes keep their names after attaching.
create or replace function staging.index_day(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := 'copart_raw_' || to_char(raw.partition_start('day', at) at time zone 'UTC', 'YYYY_MM_DD');
  load_table constant text := child || '_loading';
begin
  execute format(
    'alter table staging.%I add constraint %I primary key (id, window_start_utc)', load_table, child || '_pkey'
  );
  execute format(
    'create index %I on staging.%I using hash (lot_external_id)', child || '_lot_external_id_idx', load_table
  );
  execute format('create index %I on staging.%I using hash (vin_raw)', child || '_vin_raw_idx', load_table);
  execute format('create index %I on staging.%I (file_id)', child || '_file_id_idx', load_table);
end
$$;

-- Attaches a loaded day to staging.copart_raw.
create or replace function staging.attach_day(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  day constant timestamptz := raw.partition_start('day', at);
begin
  perform raw.attach_partition(
    'staging.copart_raw', day, day + interval '1 day', to_char(day at time zone 'UTC', 'YYYY_MM_DD')
  );
end
$$;

-- Renames the separate table to its final name and attaches it. From then on the partition is written through its
-- parent only, so the right to load it is revoked.
create or replace function raw.attach_partition(
  parent regclass, lower_bound timestamptz, upper_bound timestamptz, suffix text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := parent::text || '_' || suffix;
begin
  execute format('alter table %s_loading rename to %I', child, split_part(child, '.', 2));
  execute format(
    'alter table %s attach partition %s for values from (%L) to (%L)', parent, child, lower_bound, upper_bound
  );
  execute format('alter table %s drop constraint range_ck', child);
  execute format('revoke insert on %s from etl_rw', child);
end
$$;

-- Updates the planner's statistics on the staged rows of a file, from a small sample. Without statistics every file
-- appears to have a handful of rows, and the joins of a first window are planned as nested loops. A file that adds less
-- than a tenth to the day's known rows is skipped, because its statistics would hardly change and the sample would be
-- most of its planning cost.
create or replace function staging.analyze(at timestamptz, staged bigint)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set default_statistics_target = 10
as $$
declare
  day constant text := 'copart_raw_' || to_char(raw.partition_start('day', at) at time zone 'UTC', 'YYYY_MM_DD');
begin
  if 10 * staged < (
    select c.reltuples
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'staging'
      and c.relname = day
  ) then
    return;
  end if;
  execute format('analyze staging.%I (file_id, window_start_utc, lot_external_id, vin)', day);
end
$$;

-- The definitions that raw.suspend dropped from a table and raw.resume restores in the same transaction. Only those two
-- functions read and write this table: `ddl` is executed with the rights of its owner.
create table if not exists raw.suspended (
  relation regclass not null,
  place int not null,
  ddl text not null,
  constraint suspended_pkey primary key (relation, place)
);

-- Rejects a commit while indexes are still dropped.
create or replace function raw.expect_resumed()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from raw.suspended s where s.relation = new.relation) then
    raise exception 'indexes of table % were dropped and not restored', new.relation
      using errcode = 'object_not_in_prerequisite_state', hint = 'Call raw.resume in the transaction of raw.suspend.';
  end if;
  return null;
end
$$;
drop trigger if exists expect_resumed on raw.suspended;
create constraint trigger expect_resumed
after insert on raw.suspended
deferrable initially deferred
for each row
execute function raw.expect_resumed();

-- Drops the foreign keys and indexes of an empty table that is about to be filled, except a primary key that other
-- tables refer to. Checking and building them once at the end costs a fraction of doing so row by row. The table is
-- locked meanwhile.
create or replace function raw.suspend(target regclass)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  has_rows boolean;
  item record;
begin
  if target is null
    or target not in ('public.vehicles'::regclass, 'public.lots'::regclass, 'public.images'::regclass)
  then
    raise exception 'table % cannot be filled in bulk', coalesce(target::text, 'null')
      using errcode = 'wrong_object_type',
        hint = 'Tables filled in bulk are public.vehicles, public.lots and public.images.';
  end if;
  execute format('lock table %s in access exclusive mode', target);
  execute format('select exists (select from %s)', target) into has_rows;
  if has_rows then
    raise exception 'table % is not empty', target using errcode = 'object_not_in_prerequisite_state';
  end if;
  for item in
    select
      row_number() over (order by p.foreign_key, p.name) as place,
      p.*
    from (
      select
        true as foreign_key,
        c.conname::text as name,
        format('alter table %s add constraint %I %s', target, c.conname, pg_get_constraintdef(c.oid)) as ddl
      from pg_constraint c
      where c.conrelid = target and c.contype = 'f'
      union all
      -- a primary key without references; it is restored as a constraint, before the foreign keys
      select
        false,
        c.conname::text,
        format('alter table %s add constraint %I %s', target, c.conname, pg_get_constraintdef(c.oid))
      from pg_constraint c
      where c.conrelid = target
        and c.contype = 'p'
        and not exists (select from pg_constraint r where r.confrelid = target)
      union all
      select false, i.relname::text, pg_get_indexdef(i.oid)
      from pg_index x
      join pg_class i on i.oid = x.indexrelid
      where x.indrelid = target
        and not exists (select from pg_constraint c where c.conindid = x.indexrelid)
    ) p
  loop
    insert into raw.suspended values (target, item.place, item.ddl);
    if item.ddl like 'alter table%' then
      execute format('alter table %s drop constraint %I', target, item.name);
    else
      execute format('drop index public.%I', item.name);
    end if;
  end loop;
end
$$;

-- Restores what raw.suspend dropped. Only statements that raw.suspend derived from the catalogue are executed, because
-- no other role can write raw.suspended. A small sample gives the planner its statistics. Otherwise, until autovacuum
-- runs, the steps of the next windows would be planned as if a full table had a handful of rows.
create or replace function raw.resume(target regclass)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set maintenance_work_mem = '128MB'
set default_statistics_target = 10
as $$
declare
  has_items boolean := false;
  item record;
begin
  for item in
    delete from raw.suspended where relation = target returning place, ddl
  loop
    execute item.ddl;
    has_items := true;
  end loop;
  if has_items then
    execute format('analyze %s', target);
  end if;
end
$$;

do $$
begin
  if not exists (select from pg_roles where rolname = 'etl_rw') then
    create role etl_rw nologin;
  end if;
exception
  -- another database of the cluster is being migrated at the same time
  when duplicate_object or unique_violation then null;
end
$$;
