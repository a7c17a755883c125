-- 0008_etl_schemas
-- purpose: schemas raw, staging and audit: every file and row version kept, typed rows to apply, and what went wrong
-- depends: 0007
-- rollback: destructive
-- creates: raw.headers, raw.header_changes, raw.csv_files, raw.sightings, raw.rows, raw.manifests, raw.sources, raw.heads, raw.lotless_rows, raw.file_rows, staging.copart_raw, audit.vin_conflicts, audit.etl_runs, audit.parse_errors, audit.skipped_lots

create schema if not exists raw;
create schema if not exists staging;
create schema if not exists audit;

-- One row per distinct header. columns_jsonb maps what a column is to what the file calls it: a known column by its
-- canonical name ({"Wholesale": "Copart Select"}), an unknown one by `?` and its folded name ({"?aura": "Aura"}).
create table if not exists raw.headers (
  header_no int generated always as identity,
  columns_jsonb jsonb not null,
  id_name text generated always as (columns_jsonb ->> 'Id') stored,
  clock_name text generated always as (columns_jsonb ->> 'Create Date/Time') stored,
  constraint headers_pkey primary key (header_no)
);
create unique index if not exists idx_headers_columns on raw.headers (md5(columns_jsonb::text));

-- What has to change in a payload stored under one header to show it under another, worked out once per pair: columns that
-- are dropped and added empty, by their names, and, where a column has another name, the new names of all columns that stay,
-- in the order in which JSONB keeps the stored ones (by length, then bytewise).
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

-- Returns the number of a header. A new one is inserted with its changes to and from every other; the lock makes sure that
-- of two new ones the second sees the first.
create or replace function raw.header_no(columns jsonb)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  known int;
begin
  select h.header_no into known from raw.headers h where md5(h.columns_jsonb::text) = md5(columns::text);
  if known is not null then
    return known;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('raw.headers', 0));
  select h.header_no into known from raw.headers h where md5(h.columns_jsonb::text) = md5(columns::text);
  if known is not null then
    return known;
  end if;
  insert into raw.headers (columns_jsonb) values (columns) returning header_no into known;
  insert into raw.header_changes (stored_no, shown_no, dropped, added, renamed)
  select
    stored.header_no,
    shown.header_no,
    array(
      select k.value
      from jsonb_each_text(stored.columns_jsonb) k
      where not shown.columns_jsonb ? k.key
    ),
    (
      select coalesce(jsonb_object_agg(k.value, ''), '{}')
      from jsonb_each_text(shown.columns_jsonb) k
      where not stored.columns_jsonb ? k.key
    ),
    (
      select
        case
          when bool_or(k.value <> shown.columns_jsonb ->> k.key)
            then array_agg(shown.columns_jsonb ->> k.key order by octet_length(k.value), k.value collate "C")
        end
      from jsonb_each_text(stored.columns_jsonb) k
      where shown.columns_jsonb ? k.key
    )
  from raw.headers stored
  join raw.headers shown on shown.header_no <> stored.header_no
  where known in (stored.header_no, shown.header_no);
  return known;
end
$$;

-- One row per source and distinct file: the same bytes again are the same file of that source, and another file of
-- another source. The bytes of a withdrawn file may come again: as a new file. file_no is short, so that a row's id can be made
-- of it and the row's position without asking the database: file_no * 2^24 + row_no.
create table if not exists raw.csv_files (
  file_id uuid not null default gen_random_uuid(),
  file_no bigint generated always as identity,
  source text not null default 'copart',
  path text not null,
  sha256 text not null,
  -- of the bytes as the store has them; null where another program wrote them down
  packed_sha256 text,
  bytes bigint not null,
  stored_bytes bigint,
  row_count int,
  headers_jsonb jsonb not null default '[]',
  -- null where another program wrote the file down
  header_no int,
  window_start_utc timestamptz not null,
  snapshot_clock text,
  etag text,
  last_modified timestamptz,
  state text not null default 'received',
  -- whether the file holds the whole feed; null before it is ingested, and for a late file, which is not judged
  complete boolean,
  -- why it is not complete: too few rows and nothing else (size), or too few recognised lot numbers (lots)
  incomplete_reason text,
  -- records with unreadable ones included, and how many of them have a lot number that can be read
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
create unique index if not exists csv_files_source_sha256_key on raw.csv_files (source, sha256) where state <> 'withdrawn';
create unique index if not exists csv_files_source_path_key on raw.csv_files (source, path) where state <> 'withdrawn';
create index if not exists idx_csv_files_window on raw.csv_files (source, window_start_utc);

-- Which file each window brought, one row per sighting: a file that comes again, for another window, is sighted again. The step
-- chain of a sighting has its state here; `csv_files.state` is that of the file's latest chain. `complete` is null for a late
-- sighting and before the ingest. `file_no` numbers the rows that this chain stores: the file's own number for its first window, a
-- new one of the same sequence for each further window.
create table if not exists raw.sightings (
  source text not null,
  window_start_utc timestamptz not null,
  file_id uuid not null,
  file_no bigint not null,
  state text not null default 'received',
  -- an operator accepts the file although it was quarantined
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

-- Ids below 2^24 are left to rows inserted by hand; file_no starts at 1.
create sequence if not exists raw.rows_id_seq maxvalue 16777215;

-- Each distinct row version once, where it first appeared within its month. Months stand alone: the first window
-- applied in a month stores every row, so that a month can be archived and dropped. `lot` is the canonical lot number,
-- however the file writes it and whatever the file calls its column; null where ingest recognised none, and in rows
-- inserted by hand. Look-ups by value are hash indexes: a B-tree refuses a text of more than 2,704 bytes.
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

-- The complete list of a file's row ids in file order, per window that the file was worked for; 0 stands for a record that could
-- not be read.
create table if not exists raw.manifests (
  file_id uuid not null,
  window_start_utc timestamptz not null,
  row_ids bigint[] not null,
  constraint manifests_pkey primary key (file_id, window_start_utc),
  constraint manifests_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade
);

-- Compressing it with pglz takes as long as upserting the window's vehicles; lz4 takes nearly nothing, where it is built in.
do $$
begin
  alter table raw.manifests alter column row_ids set compression lz4;
exception
  when feature_not_supported then
    alter table raw.manifests alter column row_ids set storage external;
end
$$;

-- Where the heads of a source stand. Its row lock is what puts the windows of one source in order.
create table if not exists raw.sources (
  source text not null,
  head_window timestamptz,
  head_file_id uuid,
  completed_window timestamptz,
  -- a smaller size that counts as normal: since which window, and how many rows. Files after that window are compared with
  -- this size and with the complete files since, and no longer with the larger files before.
  size_accepted_window timestamptz,
  size_accepted_rows int,
  -- a file has what changed, and a lot that is not in it is not absent; by the mapping of the newest file
  sends_changes boolean not null default false,
  constraint sources_pkey primary key (source),
  constraint sources_size_accepted_ck check ((size_accepted_window is null) = (size_accepted_rows is null))
);

-- Per lot, the newest version seen: what the next file is compared with. last_seen is null while the lot stands in the
-- newest file; absent_since is the first complete file without it, null where the source sends changes only. Lots that are
-- closed leave this table.
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

-- Rows without a lot number, by their hash: the version that is stored, so that a row which comes again is not stored
-- again. version_window is the window that stored it, at least once a month since months stand alone. Rows that have not
-- been seen for a month are deleted, and so are the oldest of a source that has very many.
create table if not exists raw.lotless_rows (
  source text not null,
  row_hash uuid not null,
  row_id bigint not null,
  version_window timestamptz not null,
  constraint lotless_rows_pkey primary key (source, row_hash)
);
create index if not exists idx_lotless_rows_window on raw.lotless_rows (source, version_window);

-- Every row of any file: the version, with the export's row number and the snapshot's clock put back, under the names of
-- that file. A version may have been stored by a file with another header: columns are renamed, a column that only the
-- file has is empty (a value would have made another version), and a column that the file lacks is left out.
create or replace view raw.file_rows as
select
  m.file_id,
  u.row_no::int as row_no,
  case
    when c.shown_no is null then r.payload_jsonb
    when c.renamed is null then (r.payload_jsonb - c.dropped) || c.added
    -- the values in their order under the new names: a join of old and new names costs three times as much
    else jsonb_object(c.renamed, array(select e.value from jsonb_each_text(r.payload_jsonb - c.dropped) as e)) || c.added
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
-- a file that came again has a manifest per window
join raw.manifests as m on m.file_id = f.file_id and m.window_start_utc = f.window_start_utc
left join raw.headers as h on h.header_no = f.header_no
cross join unnest(m.row_ids) with ordinality as u (row_id, row_no)
join raw.rows as r
  on r.id = u.row_id
  -- a manifest refers to versions of its own month only
  and r.window_start_utc >= date_trunc('month', m.window_start_utc, 'UTC')
  and r.window_start_utc < date_trunc('month', m.window_start_utc, 'UTC') + interval '1 month'
join raw.csv_files as s on s.file_id = r.file_id
left join raw.header_changes as c
  on c.stored_no = s.header_no
  and c.shown_no = f.header_no;

-- New, changed and returned rows of a file, typed by the program; the payload itself lives in raw.
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
  -- the order key of the version: see upsert_lots_batch
  version_at timestamptz,
  -- a value that could not be read, or an update time that cannot be right: such a version is folded with the others of its lot
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
-- Every step of a file begins with its rows. One key has thousands of them, which deduplication makes six bytes each.
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

-- One row per file and step chain: ingest writes it, detect-completion closes it. A file that came again has a chain per window.
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

-- Records that could not be read, and those that could only after a repair worth naming, with their bytes.
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

-- Rows that make no vehicle and no lot, and why.
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

-- Returns whether a parent has a partition of this name. Reads the catalogue's rows: to_regclass may answer from a cache
-- which does not know yet what another session has just committed.
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

-- Returns the first instant of the UTC month or day of a window. An instant that no feed's window can have is refused, so
-- that the number of partitions stays bounded whatever a caller asks for.
create or replace function raw.partition_start(unit text, at timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if at is null or at < '2010-01-01T00:00Z' or at >= '2100-01-01T00:00Z' then
    raise exception 'window % is out of range', coalesce(at::text, 'null')
      using errcode = 'datetime_field_overflow', hint = 'windows lie between 2010 and five years from now';
  end if;
  return date_trunc(unit, at, 'UTC');
end
$$;

-- Refuses the name of a partition that a table beside the parent has already. Such a table was detached, or made by hand;
-- its rows belong to whoever did that, and it is neither dropped nor attached.
create or replace function raw.expect_no_table(parent regclass, name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  stray regclass;
begin
  select c.oid into stray
  from pg_class c
  where c.relname = name
    and c.relnamespace = (select p.relnamespace from pg_class p where p.oid = parent);
  if stray is not null then
    raise exception 'table % exists and is not a partition of %', stray, parent
      using errcode = 'object_not_in_prerequisite_state',
        hint = format('look at its rows, then attach it to %s, rename it or drop it', parent);
  end if;
end
$$;

-- Makes the partition of a table for the UTC month of `at`. Workers may call it and need no other right to make tables: the
-- table must be one of ours that is partitioned by month, and name and bounds follow from the month.
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
      using errcode = 'wrong_object_type', hint = 'such tables are raw.rows and the partitioned tables of audit';
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
  -- made apart and attached: attaching does not shut readers out, `partition of` does
  execute format('create table %s (like %s including all)', child, parent);
  execute format(
    'alter table %s attach partition %s for values from (%L) to (%L)', parent, child, month, month + interval '1 month'
  );
end
$$;

-- Makes the audit partitions that a window needs.
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

-- Opens the load of a month's first rows: they go into a table apart, raw.rows_YYYY_MM_loading, which is indexed and then
-- attached as raw.rows_YYYY_MM. Returns the name of the table apart, or null when the month is attached already. What an
-- unfinished load left under that name is dropped; no other table ever is.
create or replace function raw.open_month(at timestamptz)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month constant timestamptz := raw.partition_start('month', at);
begin
  return raw.open_partition('raw.rows', month, month + interval '1 month', to_char(month at time zone 'UTC', 'YYYY_MM'));
end
$$;

-- The same for a day of staging.copart_raw.
create or replace function staging.open_day(at timestamptz)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  day constant timestamptz := raw.partition_start('day', at);
begin
  return raw.open_partition('staging.copart_raw', day, day + interval '1 day', to_char(day at time zone 'UTC', 'YYYY_MM_DD'));
end
$$;

create or replace function raw.open_partition(parent regclass, lower_bound timestamptz, upper_bound timestamptz, suffix text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := parent::text || '_' || suffix;
  loading constant text := child || '_loading';
begin
  if raw.is_partition(parent, split_part(child, '.', 2)) then
    return null;
  end if;
  perform raw.expect_no_table(parent, split_part(child, '.', 2));
  if raw.is_partition(parent, split_part(loading, '.', 2)) then
    raise exception 'table % is a partition of %, and its name is that of an unfinished load', loading, parent
      using errcode = 'object_not_in_prerequisite_state', hint = format('rename it to %s', child);
  end if;
  execute format('drop table if exists %s', loading);
  execute format('create table %s (like %s including defaults including constraints)', loading, parent);
  -- spares the attachment its scan
  execute format(
    'alter table %s add constraint range_ck check (window_start_utc >= %L and window_start_utc < %L)',
    loading, lower_bound, upper_bound
  );
  execute format('grant select, insert on %s to etl_rw', loading);
  -- what is loaded goes to the disk as it comes, each 128 pages where the system can: with wal_level=minimal the commit
  -- waits for all of it
  perform set_config(s.name, least(128, s.max_val::int)::text, true)
  from pg_settings s
  where s.name = 'backend_flush_after';
  return loading;
end
$$;

-- Builds a loaded month's indexes, before it is attached: sorting once is several times cheaper than inserting row by row,
-- and attaching builds whatever is missing while it holds its locks. Their names are those that the attached month keeps.
-- The foreign key is left to the attaching: were it here, attaching, or dropping what a killed load left, would shut
-- everybody out of raw.csv_files.
create or replace function raw.index_month(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := 'rows_' || to_char(raw.partition_start('month', at) at time zone 'UTC', 'YYYY_MM');
  loading constant text := child || '_loading';
begin
  execute format('alter table raw.%I add constraint %I primary key (id, window_start_utc)', loading, child || '_pkey');
  execute format(
    'alter table raw.%I add constraint %I unique (file_id, row_no, window_start_utc)', loading, child || '_file_row_key'
  );
  execute format('create index %I on raw.%I (lot)', child || '_lot_idx', loading);
  execute format('create index %I on raw.%I using hash ((payload_jsonb ->> ''Lot number''))', child || '_expr_idx', loading);
  execute format('create index %I on raw.%I using hash ((payload_jsonb ->> ''VIN''))', child || '_expr_idx1', loading);
end
$$;

-- The first heads of a source, from the rows of its first file, which may still lie in a table apart: what stands in the
-- newest file must be there before the next, and with nothing to compare with, one sorted insert is all.
create or replace function raw.first_heads(feed text, first_file uuid, at timestamptz, staged regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
      insert into raw.heads (source, lot, row_hash, row_id, version_window)
      -- the greatest row of each lot, should the file hold a lot twice
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

-- Makes a loaded month part of raw.rows.
create or replace function raw.attach_month(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month constant timestamptz := raw.partition_start('month', at);
begin
  perform raw.attach_partition('raw.rows', month, month + interval '1 month', to_char(month at time zone 'UTC', 'YYYY_MM'));
end
$$;

-- Builds a loaded day's indexes, before it is attached. Their names are those that the attached day keeps.
create or replace function staging.index_day(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := 'copart_raw_' || to_char(raw.partition_start('day', at) at time zone 'UTC', 'YYYY_MM_DD');
  loading constant text := child || '_loading';
begin
  execute format('alter table staging.%I add constraint %I primary key (id, window_start_utc)', loading, child || '_pkey');
  execute format('create index %I on staging.%I using hash (lot_external_id)', child || '_lot_external_id_idx', loading);
  execute format('create index %I on staging.%I using hash (vin_raw)', child || '_vin_raw_idx', loading);
  execute format('create index %I on staging.%I (file_id)', child || '_file_id_idx', loading);
end
$$;

-- Makes a loaded day part of staging.copart_raw.
create or replace function staging.attach_day(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  day constant timestamptz := raw.partition_start('day', at);
begin
  perform raw.attach_partition('staging.copart_raw', day, day + interval '1 day', to_char(day at time zone 'UTC', 'YYYY_MM_DD'));
end
$$;

-- Gives the table apart its final name and attaches it. From then on it is written through its parent only: the right to
-- load it ends.
create or replace function raw.attach_partition(parent regclass, lower_bound timestamptz, upper_bound timestamptz, suffix text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  child constant text := parent::text || '_' || suffix;
begin
  execute format('alter table %s_loading rename to %I', child, split_part(child, '.', 2));
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, child, lower_bound, upper_bound);
  execute format('alter table %s drop constraint range_ck', child);
  execute format('revoke insert on %s from etl_rw', child);
end
$$;

-- Tells the planner how many rows of a file were staged, from a small sample. Without it every file looks like a handful
-- of rows, and the joins of a first window are planned as nested loops. A file that adds less than a tenth to what the
-- planner knows of its day looks like the others, and the sample would be most of what its planning costs.
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

-- What raw.suspend took off a table, for raw.resume to put back in the same transaction. Only those two functions read and
-- write it: what stands in `ddl` is executed with the rights of its owner.
create table if not exists raw.suspended (
  relation regclass not null,
  place int not null,
  ddl text not null,
  constraint suspended_pkey primary key (relation, place)
);

-- Refuses to commit while something is off.
create or replace function raw.expect_resumed()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from raw.suspended s where s.relation = new.relation) then
    raise exception 'the indexes of % were taken off and not put back', new.relation
      using errcode = 'object_not_in_prerequisite_state', hint = 'call raw.resume in the transaction of raw.suspend';
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

-- Takes the foreign keys and indexes off an empty table that is about to be filled, but for a primary key that others refer
-- to. Checked and built once at the end they cost a fraction of what they cost row by row; and nobody reads meanwhile.
create or replace function raw.suspend(target regclass)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  filled boolean;
  piece record;
begin
  if target is null or target not in ('public.vehicles'::regclass, 'public.lots'::regclass, 'public.images'::regclass) then
    raise exception 'table % is not filled in bulk', coalesce(target::text, 'null')
      using errcode = 'wrong_object_type', hint = 'such tables are public.vehicles, public.lots and public.images';
  end if;
  execute format('lock table %s in access exclusive mode', target);
  execute format('select exists (select from %s)', target) into filled;
  if filled then
    raise exception 'table % is not empty', target using errcode = 'object_not_in_prerequisite_state';
  end if;
  for piece in
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
      -- a primary key nobody refers to; it comes back as a constraint, but before the foreign keys
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
    insert into raw.suspended values (target, piece.place, piece.ddl);
    if piece.ddl like 'alter table%' then
      execute format('alter table %s drop constraint %I', target, piece.name);
    else
      execute format('drop index public.%I', piece.name);
    end if;
  end loop;
end
$$;

-- Puts back what raw.suspend took off. It executes nothing but what raw.suspend read from the catalogue: nobody else can
-- write raw.suspended. A small sample gives the planner its statistics: until autovacuum comes by, the steps of the next
-- windows would be planned as if a full table had a handful of rows.
create or replace function raw.resume(target regclass)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set maintenance_work_mem = '128MB'
set default_statistics_target = 10
as $$
declare
  suspended boolean := false;
  piece record;
begin
  for piece in
    delete from raw.suspended where relation = target returning place, ddl
  loop
    execute piece.ddl;
    suspended := true;
  end loop;
  if suspended then
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
  -- another database of the cluster is being migrated at this moment
  when duplicate_object or unique_violation then null;
end
$$;
