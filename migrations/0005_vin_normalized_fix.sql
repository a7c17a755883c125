-- 0005_vin_normalized_fix
-- purpose: VIN normalisation by a generated column, the first attempt
-- depends: 0004
-- rollback: yes
-- superseded: 0006
-- creates: public.vehicles.vin_normalized

-- Never applied: the number is kept so that the sequence has no hole nobody can explain. Adding the column next to
-- unguarded constraints conflicted with writers and with databases that had it already; 0006 does it guarded.
alter table public.vehicles
  add column vin_normalized text generated always as (upper(vin)) stored;
