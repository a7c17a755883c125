-- 003_slice_c_schema
-- purpose: slice C: ASINs, snapshots of Keepa and the catalogue, daily sales and computed features
-- depends: 002
-- needs: table listings, table marketplaces, table boms, table jobs
-- rollback: destructive
-- creates: asin_entities, keepa_snapshots, amazon_catalog_snapshots, listing_sales_daily, feature_store, feature_entity_type, boms_asin_entity_fk, jobs_asin_entity_fk, boms_asin_active_unique

do $$
begin
  if to_regtype('feature_entity_type') is null then
    create type feature_entity_type as enum ('LISTING', 'ASIN');
  end if;
end
$$;

alter table listings add column if not exists asin varchar(20);

create table if not exists asin_entities (
  id serial primary key,
  asin varchar(20) not null,
  marketplace_id integer not null references marketplaces (id),
  title text,
  brand varchar(255),
  category varchar(255),
  subcategory varchar(255),
  main_image_url text,
  listing_id integer references listings (id) on delete set null,
  is_tracked boolean default false,
  tracked_at timestamp,
  notes text,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp,
  constraint asin_entities_unique unique (asin, marketplace_id)
);
create index if not exists idx_asin_entities_asin on asin_entities (asin);
create index if not exists idx_asin_entities_marketplace on asin_entities (marketplace_id);
create index if not exists idx_asin_entities_listing on asin_entities (listing_id);
create index if not exists idx_asin_entities_tracked on asin_entities (is_tracked) where is_tracked = true;

-- The runbook promises the second foreign key, but the listing helper's own slice did not create it. An id without its
-- ASIN, which nothing has prevented until now, would violate the foreign keys, so such rows are listed in the error.
do $$
declare
  orphans text;
begin
  select string_agg(orphan_group, '; ')
  into orphans
  from (
    select 'boms ' || string_agg(b.id::text, ', ' order by b.id) as orphan_group
    from boms as b
    where b.asin_entity_id is not null
      and not exists (select from asin_entities as a where a.id = b.asin_entity_id)
    union all
    select 'jobs ' || string_agg(j.id::text, ', ' order by j.id)
    from jobs as j
    where j.asin_entity_id is not null
      and not exists (select from asin_entities as a where a.id = j.asin_entity_id)
  ) as orphan_groups;
  if orphans is not null then
    raise exception 'rows refer to ASINs that do not exist: %', orphans
      using hint = 'Set their asin_entity_id to null or delete the rows, then run this again.';
  end if;
  if not exists (
    select
    from pg_constraint
    where conrelid = to_regclass('boms')
      and conname = 'boms_asin_entity_fk'
  ) then
    alter table boms add constraint boms_asin_entity_fk
      foreign key (asin_entity_id) references asin_entities (id) on delete cascade;
  end if;
  if not exists (
    select
    from pg_constraint
    where conrelid = to_regclass('jobs')
      and conname = 'jobs_asin_entity_fk'
  ) then
    alter table jobs add constraint jobs_asin_entity_fk
      foreign key (asin_entity_id) references asin_entities (id) on delete set null;
  end if;
end
$$;
create unique index if not exists boms_asin_active_unique on boms (asin_entity_id)
  where is_active = true and scope_type = 'ASIN_SCENARIO' and asin_entity_id is not null;

create table if not exists keepa_snapshots (
  id serial primary key,
  asin varchar(20) not null,
  marketplace_id integer not null references marketplaces (id),
  asin_entity_id integer references asin_entities (id) on delete set null,
  raw_json jsonb,
  parsed_json jsonb,
  captured_at timestamp not null default current_timestamp,
  created_at timestamp default current_timestamp
);
create index if not exists idx_keepa_snapshots_asin on keepa_snapshots (asin);
create index if not exists idx_keepa_snapshots_marketplace on keepa_snapshots (marketplace_id);
create index if not exists idx_keepa_snapshots_asin_entity on keepa_snapshots (asin_entity_id);
create index if not exists idx_keepa_snapshots_captured on keepa_snapshots (asin, marketplace_id, captured_at desc);

create table if not exists amazon_catalog_snapshots (
  id serial primary key,
  asin varchar(20) not null,
  marketplace_id integer not null references marketplaces (id),
  asin_entity_id integer references asin_entities (id) on delete set null,
  raw_json jsonb,
  parsed_json jsonb,
  captured_at timestamp not null default current_timestamp,
  created_at timestamp default current_timestamp
);
create index if not exists idx_amazon_catalog_asin on amazon_catalog_snapshots (asin);
create index if not exists idx_amazon_catalog_marketplace on amazon_catalog_snapshots (marketplace_id);
create index if not exists idx_amazon_catalog_asin_entity on amazon_catalog_snapshots (asin_entity_id);
create index if not exists idx_amazon_catalog_captured
  on amazon_catalog_snapshots (asin, marketplace_id, captured_at desc);

create table if not exists listing_sales_daily (
  id serial primary key,
  listing_id integer not null references listings (id) on delete cascade,
  date date not null,
  units integer default 0,
  revenue_inc_vat numeric(12,2) default 0,
  sessions integer,
  page_views integer,
  conversion_rate numeric(5,4),
  created_at timestamp default current_timestamp,
  constraint listing_sales_daily_unique unique (listing_id, date)
);
create index if not exists idx_listing_sales_daily_listing on listing_sales_daily (listing_id);
create index if not exists idx_listing_sales_daily_date on listing_sales_daily (listing_id, date desc);

-- An entity is a listing or an ASIN, so entity_id cannot have a foreign key.
create table if not exists feature_store (
  id serial primary key,
  entity_type feature_entity_type not null,
  entity_id integer not null,
  feature_version integer not null default 1,
  features_json jsonb not null,
  computed_at timestamp not null default current_timestamp,
  created_at timestamp default current_timestamp
);
create index if not exists idx_feature_store_entity on feature_store (entity_type, entity_id);
create index if not exists idx_feature_store_computed on feature_store (entity_type, entity_id, computed_at desc);
create index if not exists idx_feature_store_version on feature_store (feature_version);
