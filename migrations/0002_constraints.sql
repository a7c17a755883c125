-- 0002_constraints
-- purpose: constraints: VIN format, references, status values, amounts of money, one row per image
-- depends: 0001
-- rollback: yes
-- creates: vehicles_vin_format_ck, vehicles_year_ck, lots_vin_fkey, lots_status_ck, lots_retail_value_usd_ck, sale_events_vin_fkey, sale_events_lot_id_fkey, sale_events_status_ck, sale_events_final_bid_usd_ck, sale_events_currency_ck, images_vin_fkey, images_lot_id_fkey, images_seq_ck, images_width_ck, images_height_ck, images_bytes_ck, public.images_vin_lot_seq_variant_uidx

-- PostgreSQL has no `add constraint if not exists`, so each constraint is first looked up by table and name. `on delete
-- restrict` keeps a vehicle while it has lots, and `on update cascade` applies a corrected VIN to the lots. A sale
-- event or an image may outlive its lot.
do $$
declare
  missing_constraint record;
begin
  for missing_constraint in
    select w.relation, w.name, w.definition
    from (values
      ('vehicles', 'vehicles_vin_format_ck',
        'check (vin ~ ''^[A-HJ-NPR-Z0-9]{11,17}$'')'),
      ('vehicles', 'vehicles_year_ck',
        'check (year between 1900 and 2100)'),
      ('lots', 'lots_vin_fkey',
        'foreign key (vin) references public.vehicles (vin) on update cascade on delete restrict'),
      ('lots', 'lots_status_ck',
        'check (status in (''active'', ''scheduled'', ''PENDING_RESULT'', ''sold'', ''no_sale'', ''removed''))'),
      ('lots', 'lots_retail_value_usd_ck',
        'check (retail_value_usd >= 0)'),
      ('sale_events', 'sale_events_vin_fkey',
        'foreign key (vin) references public.vehicles (vin) on update cascade on delete restrict'),
      ('sale_events', 'sale_events_lot_id_fkey',
        'foreign key (lot_id) references public.lots (id) on update cascade on delete set null'),
      ('sale_events', 'sale_events_status_ck',
        'check (status in (''upcoming'', ''active'', ''sold'', ''no_sale'', ''cancelled'', ''withdrawn''))'),
      ('sale_events', 'sale_events_final_bid_usd_ck',
        'check (final_bid_usd >= 0)'),
      ('sale_events', 'sale_events_currency_ck',
        'check (currency ~ ''^[A-Z]{3}$'')'),
      ('images', 'images_vin_fkey',
        'foreign key (vin) references public.vehicles (vin) on update cascade on delete restrict'),
      ('images', 'images_lot_id_fkey',
        'foreign key (lot_id) references public.lots (id) on update cascade on delete set null'),
      ('images', 'images_seq_ck',
        'check (seq >= 0)'),
      ('images', 'images_width_ck',
        'check (width >= 0)'),
      ('images', 'images_height_ck',
        'check (height >= 0)'),
      ('images', 'images_bytes_ck',
        'check (bytes >= 0)')
    ) as w (relation, name, definition)
    where not exists (
      select
      from pg_constraint as c
      where c.conrelid = ('public.' || w.relation)::regclass
        and c.conname = w.name
    )
  loop
    execute format(
      'alter table public.%I add constraint %I %s',
      missing_constraint.relation, missing_constraint.name, missing_constraint.definition
    );
  end loop;
end
$$;

-- This is an index, not a constraint, because a missing variant counts as a value. Nulls in `lot_id` stay distinct:
-- images of two deleted lots of one vehicle must not collide, or `on delete set null` would fail.
create unique index if not exists images_vin_lot_seq_variant_uidx
  on public.images (vin, lot_id, seq, coalesce(variant, ''));
