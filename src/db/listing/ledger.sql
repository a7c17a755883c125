-- listing: create ledger
-- The data that a rollback needs and the registry of migrations lacks: the schema of the set's tables, the objects that
-- each slice added, and the backups. The tables are in the registry's schema, so that no rollback drops them.
create table if not exists vinops.places (
  set_name text not null,
  schema_name text not null,
  -- base tables of the schema after 000, from which later counts start
  base_tables integer not null,
  constraint places_pkey primary key (set_name)
);

create table if not exists vinops.added (
  set_name text not null,
  id text not null,
  -- `table boms`, `column listings.asin`, `setting default_vat_rate`
  thing text not null,
  -- seeded value of a setting, or new name of a renamed column
  detail jsonb,
  constraint added_pkey primary key (set_name, id, thing)
);

create table if not exists vinops.backups (
  set_name text not null,
  taken_at timestamptz not null default clock_timestamp(),
  before text not null,
  row_count bigint not null,
  path text,
  sha256 text,
  bytes bigint,
  -- login that continued without a backup
  waived_by text,
  constraint backups_pkey primary key (set_name, taken_at)
);

grant select on vinops.places, vinops.added, vinops.backups to public;

-- Removes the objects that a slice added, in the order of the list. An object that is on the list and not in the ledger
-- existed before, or belongs to the operator, and is kept. Nothing cascades. Names are resolved by the caller's
-- search_path.
create or replace function vinops.take_back(slice text, things text[]) returns void
language plpgsql
as $$
declare
  item text;
  kind text;
  name text;
  sub_name text;
  seeded_value jsonb;
begin
  foreach item in array things loop
    delete from vinops.added as a
    where a.set_name = 'listing'
      and a.id = slice
      and a.thing = item
    returning a.detail
    into seeded_value;
    continue when not found;
    kind := split_part(item, ' ', 1);
    name := split_part(item, ' ', 2);
    sub_name := substr(name, strpos(name, '.') + 1);
    case kind
      when 'table' then execute format('drop table if exists %I', name);
      when 'view' then execute format('drop view if exists %I', name);
      when 'type' then execute format('drop type if exists %I', name);
      when 'index' then execute format('drop index if exists %I', name);
      when 'column' then execute format('alter table %I drop column if exists %I', split_part(name, '.', 1), sub_name);
      when 'constraint' then
        execute format('alter table if exists %I drop constraint if exists %I', split_part(name, '.', 1), sub_name);
      when 'setting' then
        -- an edited setting belongs to the operator
        execute 'delete from settings where key = $1 and value = $2' using name, seeded_value;
    end case;
  end loop;
end
$$;
