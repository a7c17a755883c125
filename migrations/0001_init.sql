-- 0001_init
-- purpose: the four core tables: vehicles, lots, sale events and images
-- depends: none
-- rollback: destructive
-- creates: public.vehicles, public.lots, public.sale_events, public.images

-- These extensions are trusted: the owner of the database may create them without being a superuser. All three are
-- created here, so that a server without one of them fails before the first table exists.
create extension if not exists pgcrypto;
create extension if not exists pg_trgm;
create extension if not exists citext;

-- One row per normalised VIN. `vin_raw` is the VIN as written in the row that owns the vehicle.
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

-- One row per lot number (the number is added by 0009). `tz` is the abbreviation that the feed writes (EST, MDT), as of
-- the last update of the row. The time zone of the sale is derived from the abbreviation and the yard
-- (src/auction/zone.rs), and the result is in `auction_datetime_utc`. `retail_value_usd` is in the lot's own currency,
-- despite its name. 0013 adds the currency.
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

-- One row per sale of a vehicle. A sale event is kept when its lot is deleted.
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

-- One row per image and variant. `storage_key` is null until the image at `source_url` has been copied.
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
