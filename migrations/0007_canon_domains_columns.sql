-- 0007_canon_domains_columns
-- purpose: title, damage, odometer and location of a lot
-- depends: 0006
-- rollback: destructive
-- creates: public.lots.title_type, public.lots.damage_description, public.lots.secondary_damage, public.lots.odometer, public.lots.odometer_brand, public.lots.location_city, public.lots.location_state, public.lots.location_country

-- The three location columns repeat city, region and country of 0001. The documentation requires both, and both are
-- filled.
alter table public.lots
  add column if not exists title_type text,
  add column if not exists damage_description text,
  add column if not exists secondary_damage text,
  add column if not exists odometer numeric(10,1),
  add column if not exists odometer_brand text,
  add column if not exists location_city text,
  add column if not exists location_state text,
  add column if not exists location_country text;
