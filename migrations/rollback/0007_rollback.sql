-- 0007_rollback: deletes title, damage, odometer and location of every lot.

alter table public.lots
  drop column if exists location_country,
  drop column if exists location_state,
  drop column if exists location_city,
  drop column if exists odometer_brand,
  drop column if exists odometer,
  drop column if exists secondary_damage,
  drop column if exists damage_description,
  drop column if exists title_type;
