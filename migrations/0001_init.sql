-- 0001_init
-- purpose: the four core tables: what a vehicle is, where it is offered, how it sold, how it looks
-- depends: none
-- rollback: destructive
-- creates: public.vehicles, public.lots, public.sale_events, public.images

-- Trusted extensions: the database's owner may create them without being superuser. Here rather than where each
-- is first used, so that a server that lacks one says so before the first table exists.
create extension if not exists pgcrypto;
create extension if not exists pg_trgm;
create extension if not exists citext;

-- One row per normalised VIN; `vin_raw` is the spelling of the row that owns it.
create table if not exists public.vehicles (
  vin text primary key,
  vin_raw text,
  year integer,
  make text,
  model text,
  body text,
  fuel text,
  transmission text,
  drive text,
  engine text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- One row per lot number (the number itself arrives with 0009). `tz` is the abbreviation that the feed writes (EST, MDT),
-- which is the one in force when the row was last updated; the zone of the sale follows from it and the yard
-- (src/auction/zone.rs) and is in `auction_datetime_utc`. `retail_value_usd` is in the lot's own currency whatever its
-- name says (0013 stores which).
create table if not exists public.lots (
  id bigserial primary key,
  vin text not null,
  source text,
  site_code text,
  city text,
  region text,
  country text,
  tz text,
  auction_datetime_utc timestamptz,
  retail_value_usd numeric(12,2),
  status text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- One row per time a vehicle crossed the block; it outlives its lot.
create table if not exists public.sale_events (
  id bigserial primary key,
  vin text not null,
  lot_id bigint,
  sale_date timestamptz,
  status text,
  final_bid_usd numeric(12,2),
  currency char(3),
  collected_via text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- One row per picture and variant of it; `storage_key` stays null until somebody copies what `source_url` names.
create table if not exists public.images (
  id bigserial primary key,
  vin text not null,
  lot_id bigint,
  seq integer not null,
  variant text,
  storage_key text,
  source_url text,
  width integer,
  height integer,
  bytes bigint,
  content_hash text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
