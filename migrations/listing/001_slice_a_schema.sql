-- 001_slice_a_schema
-- purpose: slice A: marketplaces, suppliers, components, bills of materials and further costs of a listing
-- depends: 000
-- needs: table listings, table settings, column settings.key, column settings.value
-- rollback: destructive
-- creates: marketplaces, suppliers, components, boms, bom_lines, listing_cost_overrides, bom_scope_type

-- Renames three columns to the names used by the rest of the system. A column that already has its new name is left
-- unchanged. A table with neither name is not the expected listings table.
do $$
declare
  old_name text;
  new_name text;
begin
  foreach old_name in array array['sku', 'price', 'quantity'] loop
    new_name :=
      case old_name when 'sku' then 'seller_sku' when 'price' then 'price_inc_vat' else 'available_quantity' end;
    if exists (
      select
      from pg_attribute
      where attrelid = to_regclass('listings')
        and attname = new_name
        and not attisdropped
    ) then
      continue;
    end if;
    if not exists (
      select
      from pg_attribute
      where attrelid = to_regclass('listings')
        and attname = old_name
        and not attisdropped
    ) then
      raise exception 'table listings has neither column % nor column %', old_name, new_name
        using hint = 'Check that this schema contains the listings table that slice A extends.';
    end if;
    execute format('alter table listings rename column %I to %I', old_name, new_name);
  end loop;
  if to_regtype('bom_scope_type') is null then
    create type bom_scope_type as enum ('LISTING', 'ASIN_SCENARIO');
  end if;
end
$$;

create table if not exists marketplaces (
  id serial primary key,
  amazon_marketplace_id varchar(20) not null unique,
  name varchar(100) not null,
  country_code varchar(2) not null,
  currency_code varchar(3) not null default 'GBP',
  vat_rate numeric(5,4) not null default 0.20,
  is_active boolean default true,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);

insert into marketplaces (amazon_marketplace_id, name, country_code, currency_code, vat_rate)
values ('A1F83G8C2ARO7P', 'Amazon UK', 'GB', 'GBP', 0.20)
on conflict (amazon_marketplace_id) do nothing;

-- Every existing listing belongs to this marketplace. The value is the default of the new column, which rewrites no
-- row. A column that existed before is filled where it is null.
do $$
declare
  gb integer := (select id from marketplaces where amazon_marketplace_id = 'A1F83G8C2ARO7P');
begin
  if not exists (
    select
    from pg_attribute
    where attrelid = to_regclass('listings')
      and attname = 'marketplace_id'
      and not attisdropped
  ) then
    execute format('alter table listings add column marketplace_id integer default %s', gb);
    alter table listings alter column marketplace_id drop default;
  end if;
  update listings
  set marketplace_id = gb
  where marketplace_id is null;
  if not exists (
    select from pg_constraint where conrelid = to_regclass('listings') and conname = 'listings_marketplace_id_fkey'
  ) then
    alter table listings add constraint listings_marketplace_id_fkey
      foreign key (marketplace_id) references marketplaces (id);
  end if;
end
$$;
create index if not exists idx_listings_marketplace on listings (marketplace_id);
create index if not exists idx_listings_seller_sku on listings (seller_sku);

create table if not exists suppliers (
  id serial primary key,
  name varchar(255) not null,
  contact_name varchar(255),
  email varchar(255),
  phone varchar(50),
  website varchar(500),
  address text,
  currency_code varchar(3) default 'GBP',
  lead_time_days integer default 7,
  minimum_order_value numeric(12,2) default 0,
  payment_terms varchar(100),
  notes text,
  rating integer check (rating between 1 and 5),
  is_active boolean default true,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);
create index if not exists idx_suppliers_name on suppliers (name);
create index if not exists idx_suppliers_is_active on suppliers (is_active);

create table if not exists components (
  id serial primary key,
  component_sku varchar(100) not null unique,
  name varchar(255) not null,
  description text,
  category varchar(100) default 'General',
  supplier_id integer references suppliers (id) on delete set null,
  supplier_sku varchar(100),
  unit_cost_ex_vat numeric(12,2) not null default 0,
  unit_of_measure varchar(50) default 'each',
  pack_size integer default 1,
  weight_grams numeric(10,2),
  dimensions_cm jsonb,
  min_stock_level integer default 0,
  current_stock integer default 0,
  reorder_point integer default 0,
  price_history jsonb default '[]',
  is_active boolean default true,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);
create index if not exists idx_components_sku on components (component_sku);
create index if not exists idx_components_supplier on components (supplier_id);
create index if not exists idx_components_category on components (category);
create index if not exists idx_components_is_active on components (is_active);

-- 003 adds the foreign key of asin_entity_id with its table.
create table if not exists boms (
  id serial primary key,
  listing_id integer references listings (id) on delete cascade,
  asin_entity_id integer,
  scope_type bom_scope_type not null default 'LISTING',
  version integer not null default 1,
  is_active boolean not null default false,
  effective_from timestamp default current_timestamp,
  effective_to timestamp,
  notes text,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp,
  constraint boms_version_unique unique (listing_id, version)
);
create unique index if not exists boms_listing_active_unique on boms (listing_id)
  where is_active = true and scope_type = 'LISTING';
create index if not exists idx_boms_listing on boms (listing_id);
create index if not exists idx_boms_is_active on boms (is_active);
create index if not exists idx_boms_scope on boms (scope_type);

create table if not exists bom_lines (
  id serial primary key,
  bom_id integer not null references boms (id) on delete cascade,
  component_id integer not null references components (id) on delete restrict,
  quantity numeric(10,4) not null check (quantity > 0),
  wastage_rate numeric(5,4) default 0 check (wastage_rate >= 0 and wastage_rate < 1),
  notes text,
  created_at timestamp default current_timestamp,
  constraint bom_lines_unique unique (bom_id, component_id)
);
create index if not exists idx_bom_lines_bom on bom_lines (bom_id);
create index if not exists idx_bom_lines_component on bom_lines (component_id);

create table if not exists listing_cost_overrides (
  id serial primary key,
  listing_id integer not null unique references listings (id) on delete cascade,
  shipping_cost_ex_vat numeric(12,2) default 0,
  packaging_cost_ex_vat numeric(12,2) default 0,
  handling_cost_ex_vat numeric(12,2) default 0,
  other_cost_ex_vat numeric(12,2) default 0,
  notes text,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);
create index if not exists idx_listing_cost_overrides_listing on listing_cost_overrides (listing_id);

insert into settings (key, value, description)
values
  ('guardrails.min_margin', '0.15', 'minimum margin after a price change'),
  ('guardrails.max_price_change_pct_per_day', '0.05', 'maximum price change per day, as a fraction of the price'),
  ('guardrails.min_days_of_cover_before_price_change', '7', 'minimum days of cover before a price is reduced'),
  ('guardrails.min_stock_threshold', '5', 'stock level below which a warning is raised'),
  ('default_vat_rate', '0.20', 'VAT rate of a marketplace without a rate of its own')
on conflict (key) do nothing;
