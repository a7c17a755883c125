-- The runbook's rollback of 003, verbatim: it also drops objects that existed before, with cascade.
-- Remove FK first
alter table boms drop constraint if exists boms_asin_entity_fk;
drop index if exists boms_asin_active_unique;

drop table if exists feature_store cascade;
drop table if exists listing_sales_daily cascade;
drop table if exists amazon_catalog_snapshots cascade;
drop table if exists keepa_snapshots cascade;
drop table if exists asin_entities cascade;
drop type if exists feature_entity_type cascade;

alter table listings drop column if exists asin;
