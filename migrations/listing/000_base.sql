-- 000_base
-- purpose: the seven tables that the listing helper requires, each created only if absent
-- depends: none
-- rollback: destructive
-- creates: listings, settings, listing_images, scores, alerts, keepa_data, tasks

-- Names are resolved by the search_path, since the operator chooses the schema (default: `listing`). Tables that exist
-- are left unchanged. The five tables after settings are legacy: only their existence and their reference to a listing
-- are known.
create table if not exists listings (
  id serial primary key,
  sku varchar(100) not null constraint listings_sku_key unique,
  asin varchar(20),
  title text,
  description text,
  "bulletPoints" jsonb default '[]',
  price numeric(10,2) default 0,
  quantity integer default 0,
  category varchar(255),
  status varchar(50) default 'active',
  "currentScore" integer,
  "fulfillmentChannel" varchar(20) default 'FBM',
  "createdAt" timestamp default current_timestamp,
  "updatedAt" timestamp default current_timestamp
);

do $$
declare
  column_name text;
begin
  -- an adopted table may lack one of these columns, or name it differently
  foreach column_name in array array['sku', 'asin', 'status'] loop
    if exists (
      select
      from pg_attribute
      where attrelid = to_regclass('listings')
        and attname = column_name
        and not attisdropped
    ) then
      execute format('create index if not exists %I on listings (%I)', 'idx_listings_' || column_name, column_name);
    end if;
  end loop;
end
$$;

create table if not exists settings (
  id serial primary key,
  key varchar(100) not null constraint settings_key_key unique,
  value jsonb,
  description text,
  "updatedAt" timestamp default current_timestamp
);
create index if not exists idx_settings_key on settings (key);

create table if not exists listing_images (
  id serial primary key,
  "listingId" integer references listings (id) on delete cascade,
  url text,
  position integer default 0,
  "createdAt" timestamp default current_timestamp
);

create table if not exists scores (
  id serial primary key,
  "listingId" integer references listings (id) on delete cascade,
  score integer,
  details jsonb,
  "createdAt" timestamp default current_timestamp
);

create table if not exists alerts (
  id serial primary key,
  "listingId" integer references listings (id) on delete cascade,
  severity varchar(20),
  message text,
  "createdAt" timestamp default current_timestamp
);

create table if not exists keepa_data (
  id serial primary key,
  "listingId" integer references listings (id) on delete cascade,
  data jsonb,
  "createdAt" timestamp default current_timestamp
);

create table if not exists tasks (
  id serial primary key,
  "listingId" integer references listings (id) on delete set null,
  title text,
  status varchar(50),
  "createdAt" timestamp default current_timestamp
);
