-- 0024_store_catalogue
-- purpose: what a database is rebuilt from besides the files: the acts that the store keeps under catalogue/
-- depends: 0023
-- rollback: yes
-- creates: raw.catalogue, raw.add_to_catalogue, raw.note_in_catalogue, raw.note_removal

-- One row per object of the store's folder catalogue/. A row is added in the transaction of its act. The object is put
-- afterwards, by the next step of a chain, which notes the time in `written_at`. `body` is the object, byte for byte.
create table if not exists raw.catalogue (
  -- in the order of the acts
  key text collate "C" not null,
  at timestamptz not null,
  kind text not null,
  body text not null,
  written_at timestamptz,
  constraint catalogue_pkey primary key (key),
  constraint catalogue_key_format_ck check (
    key ~ '^catalogue/[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{6}\.[0-9]{6}-[a-z_]+-[0-9a-f]{8}\.json$'
  )
);
comment on table raw.catalogue is 'receipts, repeats and operators'' acts, as the store''s catalogue keeps them';
create index if not exists idx_catalogue_at on raw.catalogue (at);
create index if not exists idx_catalogue_unwritten on raw.catalogue (key) where written_at is null;

-- Adds the act of a moment. The same act of the same moment is added once.
create or replace function raw.add_to_catalogue(moment timestamptz, act jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into raw.catalogue (key, at, kind, body)
  select
    format(
      'catalogue/%s-%s-%s.json',
      to_char(moment at time zone 'UTC', 'YYYY/MM/DD/HH24MISS.US'),
      act ->> 'kind',
      left(encode(sha256(convert_to(made.body, 'UTF8')), 'hex'), 8)
    ),
    moment, act ->> 'kind', made.body
  from (
    select (
      act || jsonb_build_object(
        'version', 1,
        'at', to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
      )
    )::text as body
  ) as made
  on conflict do nothing
$$;

-- Notes an act in its own transaction. Its moment is later than those of all acts that are committed, even where the clock has
-- been set back. A rebuild repeats acts that are in the catalogue already, and switches this off for its transaction.
create or replace function raw.note_in_catalogue(act jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(current_setting('vinops.rebuild', true), '') <> 'on' then
    perform raw.add_to_catalogue(
      greatest(clock_timestamp(), (select max(c.at) from raw.catalogue c) + interval '1 microsecond'),
      act
    );
  end if;
end
$$;

-- Notes that a vehicle, a lot or a picture was hidden or shown again. Only SQL statements of operators do that.
create or replace function raw.note_removal()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  act jsonb := jsonb_build_object('kind', 'removal', 'removed', new.is_removed, 'login', session_user);
begin
  if tg_table_name = 'vehicles' then
    act := act || jsonb_build_object('vin', new.vin);
  elsif tg_table_name = 'lots' then
    act := act || jsonb_build_object('source', new.source, 'lot', new.lot_external_id);
  else
    act := act || jsonb_strip_nulls(jsonb_build_object('image', new.source_url, 'variant', new.variant, 'vin', new.vin))
      || coalesce(
        (select jsonb_build_object('source', l.source, 'lot', l.lot_external_id) from public.lots l where l.id = new.lot_id),
        '{}'
      );
  end if;
  perform raw.note_in_catalogue(act);
  return null;
end
$$;

create or replace trigger note_removal
after update of is_removed on public.vehicles
for each row
when (old.is_removed is distinct from new.is_removed)
execute function raw.note_removal();

create or replace trigger note_removal
after update of is_removed on public.lots
for each row
when (old.is_removed is distinct from new.is_removed)
execute function raw.note_removal();

create or replace trigger note_removal
after update of is_removed on public.images
for each row
when (old.is_removed is distinct from new.is_removed)
execute function raw.note_removal();

alter table raw.catalogue owner to vinops_admin;
alter function raw.add_to_catalogue(timestamptz, jsonb) owner to vinops_admin;
alter function raw.note_in_catalogue(jsonb) owner to vinops_admin;
alter function raw.note_removal() owner to vinops_admin;
revoke execute on function raw.add_to_catalogue(timestamptz, jsonb), raw.note_in_catalogue(jsonb), raw.note_removal()
from public;
grant execute on function raw.add_to_catalogue(timestamptz, jsonb), raw.note_in_catalogue(jsonb)
to etl_rw, vinops_ops;
-- what was written down stays as it was; only when its object was put is noted later
grant select, insert on raw.catalogue to etl_rw, vinops_ops;
grant update (written_at) on raw.catalogue to etl_rw, vinops_ops;
