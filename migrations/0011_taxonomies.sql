-- 0011_taxonomies
-- purpose: taxonomy of the feed: one code per meaning, labels in two languages, and unknown raw values
-- depends: 0010
-- rollback: destructive
-- creates: taxonomies.damage_types, taxonomies.title_types, taxonomies.statuses, taxonomies.sale_types, taxonomies.odometer_brands, taxonomies.colors, taxonomies.body_styles, taxonomies.fuel_types, taxonomies.drive_types, taxonomies.transmission_types, taxonomies.vehicle_types, taxonomies.runs_drives, taxonomies.has_keys, taxonomies.lot_conditions, taxonomies.sale_lights, taxonomies.title_labels, taxonomies.aliases, taxonomies.labels, taxonomies.label, audit.unknown_taxonomy_values

create schema if not exists taxonomies;

-- The structure of every domain. The rows are data, not DDL: the program upserts them from its own files.
create table if not exists taxonomies.damage_types (
  code text primary key,
  en text not null,
  ru text,
  category text,
  sort_order integer not null default 999,
  needs_review boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint code_format_ck check (code ~ '^[a-z0-9_]+$')
);

create table if not exists taxonomies.title_types (like taxonomies.damage_types including all);
create table if not exists taxonomies.statuses (like taxonomies.damage_types including all);
create table if not exists taxonomies.sale_types (like taxonomies.damage_types including all);
create table if not exists taxonomies.odometer_brands (like taxonomies.damage_types including all);
create table if not exists taxonomies.colors (like taxonomies.damage_types including all);
create table if not exists taxonomies.body_styles (like taxonomies.damage_types including all);
create table if not exists taxonomies.fuel_types (like taxonomies.damage_types including all);
create table if not exists taxonomies.drive_types (like taxonomies.damage_types including all);
create table if not exists taxonomies.transmission_types (like taxonomies.damage_types including all);
create table if not exists taxonomies.vehicle_types (like taxonomies.damage_types including all);
create table if not exists taxonomies.runs_drives (like taxonomies.damage_types including all);
create table if not exists taxonomies.has_keys (like taxonomies.damage_types including all);
create table if not exists taxonomies.lot_conditions (like taxonomies.damage_types including all);
create table if not exists taxonomies.sale_lights (like taxonomies.damage_types including all);

-- The same title code means different documents in different states. `title_types` has the general label.
create table if not exists taxonomies.title_labels (
  code text not null references taxonomies.title_types (code) on update cascade on delete cascade,
  state text not null,
  en text not null,
  ru text,
  needs_review boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (code, state)
);

-- Aliases: many raw values map to one code. The program folds `raw` (case, blanks, punctuation) before it stores or
-- looks up a value.
create table if not exists taxonomies.aliases (
  domain text not null,
  raw text not null,
  code text not null,
  primary key (domain, raw)
);

-- Raw values without a code, as received. A raw value counts once per file, however many rows contain it.
create table if not exists audit.unknown_taxonomy_values (
  domain text not null,
  raw_value text not null,
  occurrences bigint not null default 1,
  first_seen_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),
  first_file_id uuid,
  primary key (domain, raw_value),
  constraint unknown_taxonomy_values_occurrences_ck check (occurrences > 0)
);

-- All domains in one view. A query with a constant domain reads only that domain's table.
create or replace view taxonomies.labels as
select 'damage_types'::text as domain, code, en, ru, category, sort_order, needs_review from taxonomies.damage_types
union all
select 'title_types', code, en, ru, category, sort_order, needs_review from taxonomies.title_types
union all
select 'statuses', code, en, ru, category, sort_order, needs_review from taxonomies.statuses
union all
select 'sale_types', code, en, ru, category, sort_order, needs_review from taxonomies.sale_types
union all
select 'odometer_brands', code, en, ru, category, sort_order, needs_review from taxonomies.odometer_brands
union all
select 'colors', code, en, ru, category, sort_order, needs_review from taxonomies.colors
union all
select 'body_styles', code, en, ru, category, sort_order, needs_review from taxonomies.body_styles
union all
select 'fuel_types', code, en, ru, category, sort_order, needs_review from taxonomies.fuel_types
union all
select 'drive_types', code, en, ru, category, sort_order, needs_review from taxonomies.drive_types
union all
select 'transmission_types', code, en, ru, category, sort_order, needs_review from taxonomies.transmission_types
union all
select 'vehicle_types', code, en, ru, category, sort_order, needs_review from taxonomies.vehicle_types
union all
select 'runs_drives', code, en, ru, category, sort_order, needs_review from taxonomies.runs_drives
union all
select 'has_keys', code, en, ru, category, sort_order, needs_review from taxonomies.has_keys
union all
select 'lot_conditions', code, en, ru, category, sort_order, needs_review from taxonomies.lot_conditions
union all
select 'sale_lights', code, en, ru, category, sort_order, needs_review from taxonomies.sale_lights;

-- Returns the label of a code in language 'en' or 'ru'. Falls back to English if there is no Russian label, and to the
-- code if there is no label.
create or replace function taxonomies.label(domain text, code text, lang text default 'en')
returns text
language sql
stable
parallel safe
as $$
  select coalesce(
    (
      select case when lang = 'ru' then coalesce(l.ru, l.en) else l.en end
      from taxonomies.labels as l
      where l.domain = label.domain
        and l.code = label.code
    ),
    label.code
  )
$$;
