-- 0021_taxonomy_seeds
-- purpose: seeds of the taxonomy, so that edits of operators are kept; labels of titles by state
-- depends: 0020
-- rollback: yes
-- creates: taxonomies.seeds, taxonomies.title_label

-- The values that the program last wrote. A label that differs from its seed was edited by an operator and is kept. A
-- label that equals its seed follows the program's files. An edit by any means therefore needs no mark. `state` is
-- empty except for labels of titles by state, which have neither a category nor a sort order.
create table if not exists taxonomies.seeds (
  domain text not null,
  code text not null,
  state text not null default '',
  en text not null,
  ru text,
  category text,
  sort_order integer,
  needs_review boolean not null,
  constraint seeds_pkey primary key (domain, code, state)
);
comment on table taxonomies.seeds is 'values that the program last wrote into the other tables of this schema';

-- The seed of an alias. Null marks an alias that an operator added.
alter table taxonomies.aliases
  add column if not exists seeded_code text,
  drop constraint if exists aliases_code_format_ck,
  drop constraint if exists aliases_raw_is_folded,
  drop constraint if exists aliases_domain_is_known,
  add constraint aliases_code_format_ck check (code ~ '^[a-z0-9_]+$'),
  add constraint aliases_raw_is_folded check (raw !~ '[[:space:][:upper:]]' and octet_length(raw) between 1 and 128),
  add constraint aliases_domain_is_known check (
    domain in (
      'damage_types', 'title_types', 'statuses', 'sale_types', 'odometer_brands', 'colors', 'body_styles', 'fuel_types',
      'drive_types', 'transmission_types', 'vehicle_types', 'runs_drives', 'has_keys', 'lot_conditions', 'sale_lights'
    )
  );
comment on column taxonomies.aliases.seeded_code is
  'code that the program last wrote; null for an alias that an operator added';

-- Returns the label of a title: the state's own label, otherwise the general one, otherwise the code.
create or replace function taxonomies.title_label(code text, state text, lang text default 'en')
returns text
language sql
stable
parallel safe
as $$
  select coalesce(
    (
      select case when lang = 'ru' then coalesce(l.ru, l.en) else l.en end
      from taxonomies.title_labels as l
      where l.code = title_label.code
        and l.state = upper(title_label.state)
    ),
    taxonomies.label('title_types', title_label.code, lang)
  )
$$;

-- These two columns contained the feed's letters until codes for them existed.
update public.lots
set has_keys_code = case has_keys_code
    when 'YES' then 'keys_yes'
    when 'NO' then 'keys_no'
    when 'EXM' then 'keys_exempt'
  end
where has_keys_code in ('YES', 'NO', 'EXM');
update public.lots
set lot_condition_code = 'cond_' || lower(lot_condition_code)
where lot_condition_code in ('D', 'S', 'E', 'N');
-- staged rows may not be applied yet
update staging.copart_raw
set has_keys_code = case has_keys_code
    when 'YES' then 'keys_yes'
    when 'NO' then 'keys_no'
    when 'EXM' then 'keys_exempt'
  end
where has_keys_code in ('YES', 'NO', 'EXM');
update staging.copart_raw
set lot_condition_code = 'cond_' || lower(lot_condition_code)
where lot_condition_code in ('D', 'S', 'E', 'N');

-- Mapping a raw value assigns the code to the rows that contain it, with the rows of the sources locked against a
-- concurrent ingest.
alter table taxonomies.seeds owner to vinops_admin;
grant select on taxonomies.seeds to etl_rw, app_ro, vinops_ops;
grant update (damage_code, secondary_damage_code, sale_type_code, updated_at) on public.lots to vinops_ops;
grant update (damage_code, secondary_damage_code, sale_type_code) on staging.copart_raw to vinops_ops;
grant update (source) on raw.sources to vinops_ops;
