-- listing: create ledger
-- What the registry of migrations does not know and a way back must: where the set's tables are, what each slice really
-- added, and whether rows were backed up before. In the registry's schema, so that no way back takes it along.
create table if not exists vinops.places (
  set_name text not null,
  schema_name text not null,
  -- base tables of the schema once 000 was in: what later counts are counted from
  base_tables integer not null,
  constraint places_pkey primary key (set_name)
);

create table if not exists vinops.added (
  set_name text not null,
  id text not null,
  -- `table boms`, `column listings.asin`, `setting default_vat_rate`
  thing text not null,
  -- of a setting its seeded value, of a renamed column its new name
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
  -- who went on without one
  waived_by text,
  constraint backups_pkey primary key (set_name, taken_at)
);

grant select on vinops.places, vinops.added, vinops.backups to public;

-- Takes back what a slice added, in the order of the list, and nothing else: what is on the list and not in the ledger was
-- there before, or is somebody's by now. Nothing cascades. Names are found by the caller's search_path.
create or replace function vinops.take_back(slice text, things text[]) returns void
language plpgsql
as $$
declare
  item text;
  kind text;
  name text;
  part text;
  was jsonb;
begin
  foreach item in array things loop
    delete from vinops.added as a
    where a.set_name = 'listing'
      and a.id = slice
      and a.thing = item
    returning a.detail
    into was;
    continue when not found;
    kind := split_part(item, ' ', 1);
    name := split_part(item, ' ', 2);
    part := substr(name, strpos(name, '.') + 1);
    case kind
      when 'table' then execute format('drop table if exists %I', name);
      when 'view' then execute format('drop view if exists %I', name);
      when 'type' then execute format('drop type if exists %I', name);
      when 'index' then execute format('drop index if exists %I', name);
      when 'column' then execute format('alter table %I drop column if exists %I', split_part(name, '.', 1), part);
      when 'constraint' then
        execute format('alter table if exists %I drop constraint if exists %I', split_part(name, '.', 1), part);
      when 'setting' then
        -- an edited one is the operator's
        execute 'delete from settings where key = $1 and value = $2' using name, was;
    end case;
  end loop;
end
$$;
