-- 0005_vin_normalized_fix
-- purpose: VIN normalisation by a generated column, first version
-- depends: 0004
-- rollback: yes
-- superseded: 0006
-- creates: public.vehicles.vin_normalized

-- Never applied. The number stays taken so that the sequence has no unexplained gap. Adding the column next to
-- unguarded constraints conflicted with writers and with databases that already had the column. 0006 adds the column
-- with guards.
alter table public.vehicles
  add column vin_normalized text generated always as (upper(vin)) stored;
