-- The runbook's rollback of 001, verbatim: it also drops objects that existed before, with cascade.
drop table if exists listing_cost_overrides cascade;
drop table if exists bom_lines cascade;
drop table if exists boms cascade;
drop table if exists components cascade;
drop table if exists suppliers cascade;
drop table if exists marketplaces cascade;
drop type if exists bom_scope_type cascade;

-- Restore column names (careful!)
-- alter table listings rename column seller_sku to sku;
-- alter table listings rename column price_inc_vat to price;
-- alter table listings rename column available_quantity to quantity;
alter table listings drop column if exists marketplace_id;

delete from settings where key like 'guardrails.%' or key = 'default_vat_rate';
