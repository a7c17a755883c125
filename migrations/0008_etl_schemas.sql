-- 0008_etl_schemas
-- purpose: schemas raw, staging and audit: every file and row version kept, typed rows to apply, and what went wrong
-- depends: 0007
-- rollback: destructive
-- creates: raw.csv_files, raw.rows, raw.manifests, raw.sources, raw.heads, raw.file_rows, staging.copart_raw, audit.vin_conflicts, audit.etl_runs, audit.parse_errors, audit.skipped_lots

create schema if not exists raw;
create schema if not exists staging;
create schema if not exists audit;

-- One row per distinct file: the same bytes again are the same file. file_no is short, so that a row's id can be made
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
  window_start_utc timestamptz not null,
  snapshot_clock text,
  etag text,
  last_modified timestamptz,
  state text not null default 'received',
  complete boolean,
  received_at timestamptz not null default now(),
  ingested_at timestamptz,
  constraint csv_files_pkey primary key (file_id),
  constraint csv_files_file_no_key unique (file_no),
  constraint csv_files_sha256_key unique (sha256),
  constraint csv_files_path_key unique (path),
  constraint csv_files_path_format_ck check (
    path ~ '(^|/)[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{4}(-[0-9a-f]{8})?\.csv(\.zst)?$'
  ),
  constraint csv_files_sha256_format_ck check (sha256 ~ '^[0-9a-f]{64}$'),
  constraint csv_files_packed_sha256_format_ck check (packed_sha256 ~ '^[0-9a-f]{64}$'),
  constraint csv_files_bytes_ck check (bytes > 0),
  constraint csv_files_row_count_ck check (row_count >= 0),
  constraint csv_files_state_ck check (state in ('received', 'ingested', 'applied', 'late', 'incomplete', 'quarantined'))
);
create index if not exists idx_csv_files_window on raw.csv_files (source, window_start_utc);

-- Ids below 2^24 are left to rows inserted by hand; file_no starts at 1.
create sequence if not exists raw.rows_id_seq maxvalue 16777215;

-- Each distinct row version once, where it first appeared within its month. Months stand alone: the first window
-- applied in a month stores every row, so that a month can be archived and dropped.
create table if not exists raw.rows (
  id bigint not null default nextval('raw.rows_id_seq'),
  file_id uuid not null,
  row_no int not null,
  window_start_utc timestamptz not null,
  payload_jsonb jsonb not null,
  constraint rows_pkey primary key (id, window_start_utc),
  constraint rows_file_row_key unique (file_id, row_no, window_start_utc),
  constraint rows_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint rows_row_no_ck check (row_no > 0)
) partition by range (window_start_utc);
create index if not exists idx_rows_lot_number on raw.rows ((payload_jsonb ->> 'Lot number'));
create index if not exists idx_rows_vin on raw.rows ((payload_jsonb ->> 'VIN'));

-- The complete list of a file's row ids in file order; 0 stands for a record that could not be read.
create table if not exists raw.manifests (
  file_id uuid not null,
  window_start_utc timestamptz not null,
  row_ids bigint[] not null,
  constraint manifests_pkey primary key (file_id),
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
  constraint sources_pkey primary key (source)
);

-- Per lot, the newest version seen: what the next file is compared with. last_seen is null while the lot stands in the
-- newest file; absent_since is the first complete file without it. Lots that are closed leave this table.
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

-- Every row of any file: the version, with the export's row number and the snapshot's clock put back.
create or replace view raw.file_rows as
select
  m.file_id,
  u.row_no::int as row_no,
  r.payload_jsonb
    || case when r.payload_jsonb ? 'Id' then jsonb_build_object('Id', u.row_no::text) else '{}'::jsonb end
    || case
         when r.file_id = m.file_id or not r.payload_jsonb ? 'Create Date/Time' then '{}'::jsonb
         else jsonb_build_object('Create Date/Time', f.snapshot_clock)
       end as payload_jsonb
from raw.manifests m
join raw.csv_files f on f.file_id = m.file_id
cross join unnest(m.row_ids) with ordinality as u (row_id, row_no)
join raw.rows r
  on r.id = u.row_id
  -- a manifest refers to versions of its own month only
  and r.window_start_utc >= date_trunc('month', m.window_start_utc, 'UTC')
  and r.window_start_utc < date_trunc('month', m.window_start_utc, 'UTC') + interval '1 month';

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
  ingested_at timestamptz not null default now(),
  processed_at timestamptz,
  processing_error text,
  constraint copart_raw_pkey primary key (id, window_start_utc),
  constraint copart_raw_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint copart_raw_key_or_error_ck check (lot_external_id is not null or processing_error is not null)
) partition by range (window_start_utc);
create index if not exists idx_staging_lot on staging.copart_raw (lot_external_id);
create index if not exists idx_staging_vin on staging.copart_raw (vin_raw);
-- Every step of a file begins with its rows. One key has thousands of them, which deduplication makes six bytes each.
create index if not exists idx_staging_file on staging.copart_raw (file_id);

create table if not exists audit.vin_conflicts (
  id bigint generated by default as identity,
  window_start_utc timestamptz not null,
  file_id uuid,
  vin_raw text,
  vin_normalized text,
  lot_external_id text,
  conflict_reason text not null,
  detected_at timestamptz not null default now(),
  constraint vin_conflicts_pkey primary key (id, window_start_utc)
) partition by range (window_start_utc);

-- One row per file and step chain: ingest writes it, detect-completion closes it.
create table if not exists audit.etl_runs (
  run_id uuid not null default gen_random_uuid(),
  file_id uuid not null,
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
  constraint etl_runs_file_key unique (file_id),
  constraint etl_runs_file_id_fkey foreign key (file_id) references raw.csv_files (file_id) on delete cascade,
  constraint etl_runs_status_ck check (status in ('running', 'completed', 'failed', 'partial'))
);

-- Records that could not be read, and those that could only after a repair worth naming, with their bytes.
create table if not exists audit.parse_errors (
  id bigint generated by default as identity,
  window_start_utc timestamptz not null,
  file_id uuid not null,
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
  row_no int not null,
  lot_external_id text,
  vin_raw text,
  reason text not null,
  detected_at timestamptz not null default now(),
  constraint skipped_lots_pkey primary key (id, window_start_utc),
  constraint skipped_lots_reason_ck check (reason in ('vin_empty', 'vin_format', 'lot_missing'))
) partition by range (window_start_utc);

-- Whether a parent has a partition of this name. Asked of the catalogue's rows: to_regclass may answer from a cache which
-- does not know yet what another session has just committed.
create or replace function raw.is_partition(parent regclass, name text)
returns boolean
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = parent and c.relname = name
  )
$$;

-- Partitions are made by these functions only; workers may call them and need no other right to make tables.
create or replace function raw.ensure_partition(parent regclass, lower_bound timestamptz, upper_bound timestamptz, suffix text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  schema_name text;
  table_name text;
  child text;
begin
  select n.nspname, c.relname into schema_name, table_name
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.oid = parent and c.relkind = 'p';
  if schema_name is null or schema_name not in ('raw', 'staging', 'audit') then
    raise exception '% is no partitioned table of raw, staging or audit', parent;
  end if;
  child := format('%I.%I', schema_name, table_name || '_' || suffix);
  if raw.is_partition(parent, table_name || '_' || suffix) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended(child, 0));
  if raw.is_partition(parent, table_name || '_' || suffix) then
    return;
  end if;
  -- made apart and attached: attaching does not shut readers out, `partition of` does
  execute format('create table if not exists %s (like %s including all)', child, parent);
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, child, lower_bound, upper_bound);
end
$$;

-- The audit partitions a window needs.
create or replace function audit.ensure_partitions(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month timestamptz := date_trunc('month', at, 'UTC');
  parent regclass;
begin
  for parent in
    select c.oid
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'p' and n.nspname = 'audit'
    order by c.relname
  loop
    perform raw.ensure_partition(parent, month, month + interval '1 month', to_char(month at time zone 'UTC', 'YYYY_MM'));
  end loop;
end
$$;

-- A month's first rows are loaded into a table apart, indexed, and then attached. This gives the name of that table, or
-- null when the month is attached already. What an unfinished load left is thrown away.
create or replace function raw.open_month(at timestamptz)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  month timestamptz := date_trunc('month', at, 'UTC');
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
  day timestamptz := date_trunc('day', at, 'UTC');
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
  child text := parent::text || '_' || suffix;
begin
  if raw.is_partition(parent, split_part(child, '.', 2)) then
    return null;
  end if;
  execute format('drop table if exists %s', child);
  execute format('create table %s (like %s including defaults including constraints)', child, parent);
  -- spares the attachment its scan
  execute format(
    'alter table %s add constraint range_ck check (window_start_utc >= %L and window_start_utc < %L)',
    child, lower_bound, upper_bound
  );
  execute format('grant select, insert, update on %s to etl_rw', child);
  -- what is loaded goes to the disk as it comes, each 128 pages where the system can: with wal_level=minimal the commit
  -- waits for all of it
  perform set_config(s.name, least(128, s.max_val::int)::text, true)
  from pg_settings s
  where s.name = 'backend_flush_after';
  return child;
end
$$;

-- Builds a loaded month's indexes, before it is attached: sorting once is several times cheaper than inserting row by row,
-- and attaching builds whatever is missing while it holds its locks. The foreign key is left to the attaching: were it here,
-- attaching, or dropping what a killed load left, would shut everybody out of raw.csv_files.
create or replace function raw.index_month(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  child text := 'rows_' || to_char(date_trunc('month', at, 'UTC') at time zone 'UTC', 'YYYY_MM');
begin
  execute format('alter table raw.%I add constraint %I primary key (id, window_start_utc)', child, child || '_pkey');
  execute format(
    'alter table raw.%I add constraint %I unique (file_id, row_no, window_start_utc)', child, child || '_file_row_key'
  );
  execute format('create index on raw.%I ((payload_jsonb ->> ''Lot number''))', child);
  execute format('create index on raw.%I ((payload_jsonb ->> ''VIN''))', child);
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
      order by s.lot_external_id::bigint, s.source_updated_at desc nulls last, s.row_hash desc
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
  month timestamptz := date_trunc('month', at, 'UTC');
begin
  perform raw.attach_partition('raw.rows', month, month + interval '1 month', to_char(month at time zone 'UTC', 'YYYY_MM'));
end
$$;

-- Builds a loaded day's indexes, before it is attached.
create or replace function staging.index_day(at timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  child text := 'copart_raw_' || to_char(date_trunc('day', at, 'UTC') at time zone 'UTC', 'YYYY_MM_DD');
begin
  execute format('alter table staging.%I add constraint %I primary key (id, window_start_utc)', child, child || '_pkey');
  execute format('create index on staging.%I (lot_external_id)', child);
  execute format('create index on staging.%I (vin_raw)', child);
  execute format('create index on staging.%I (file_id)', child);
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
  day timestamptz := date_trunc('day', at, 'UTC');
begin
  perform raw.attach_partition('staging.copart_raw', day, day + interval '1 day', to_char(day at time zone 'UTC', 'YYYY_MM_DD'));
end
$$;

create or replace function raw.attach_partition(parent regclass, lower_bound timestamptz, upper_bound timestamptz, suffix text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  child text := parent::text || '_' || suffix;
begin
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, child, lower_bound, upper_bound);
  execute format('alter table %s drop constraint range_ck', child);
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
  day constant text := 'copart_raw_' || to_char(date_trunc('day', at, 'UTC') at time zone 'UTC', 'YYYY_MM_DD');
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

-- What raw.suspend took off a table, for raw.resume to put back in the same transaction.
create table if not exists raw.suspended (
  relation regclass not null,
  place int not null,
  ddl text not null,
  constraint suspended_pkey primary key (relation, place)
);

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
  if target not in ('public.vehicles'::regclass, 'public.lots'::regclass, 'public.images'::regclass) then
    raise exception '% is not filled in bulk', target;
  end if;
  execute format('lock table %s in access exclusive mode', target);
  execute format('select exists (select from %s)', target) into filled;
  if filled then
    raise exception '% is not empty', target;
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

-- Puts back what raw.suspend took off.
create or replace function raw.resume(target regclass)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set maintenance_work_mem = '128MB'
as $$
declare
  piece record;
begin
  for piece in
    delete from raw.suspended where relation = target returning place, ddl
  loop
    execute piece.ddl;
  end loop;
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
