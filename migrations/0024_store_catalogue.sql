-- 0024_store_catalogue
-- purpose: actions recorded for a rebuild, in addition to the files: the catalogue/ folder of the store
-- depends: 0023
-- rollback: yes
-- creates: raw.catalogue, raw.add_to_catalogue, raw.note_in_catalogue, raw.note_removal

-- One row per object in the store's folder catalogue/. A row is inserted in the transaction of the action. The next
-- step of a chain stores the object afterwards and sets `written_at`. `body` is the object, byte for byte.
create table if not exists raw.catalogue (
  -- sorts in the order of the actions
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
comment on table raw.catalogue is 'receipts, repeats and operator actions, as stored in the store''s catalogue';
create index if not exists idx_catalogue_at on raw.catalogue (at);
create index if not exists idx_catalogue_unwritten on raw.catalogue (key) where written_at is null;

-- Adds the action of a moment. The same action of the same moment is added once.
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
      left(encode(sha256(convert_to(entry.body, 'UTF8')), 'hex'), 8)
    ),
    moment, act ->> 'kind', entry.body
  from (
    select (
      act || jsonb_build_object(
        'version', 1,
        'at', to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
      )
    )::text as body
  ) as entry
  on conflict do nothing
$$;

-- Records an action in the transaction of the action. Its moment is later than that of every committed action, even if
-- the clock has been set back. A rebuild repeats actions that are in the catalogue already, and disables this for its
-- transaction.
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

-- Records that a vehicle, a lot or an image was hidden or shown again. Only SQL statements of operators do that.
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
    act := act
      || jsonb_strip_nulls(jsonb_build_object('image', new.source_url, 'variant', new.variant, 'vin', new.vin))
      || coalesce(
        (
          select jsonb_build_object('source', l.source, 'lot', l.lot_external_id)
          from public.lots l
          where l.id = new.lot_id
        ),
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
-- recorded actions never change; only the time when the object was stored is set later
grant select, insert on raw.catalogue to etl_rw, vinops_ops;
grant update (written_at) on raw.catalogue to etl_rw, vinops_ops;
