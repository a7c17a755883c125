-- The runbook's rollback of 002, verbatim: it also drops objects that existed before, with cascade.
drop table if exists fee_snapshots cascade;
drop table if exists listing_offer_current cascade;
drop table if exists listing_events cascade;
drop table if exists jobs cascade;
drop type if exists listing_event_type cascade;
drop type if exists buy_box_status_type cascade;
drop type if exists job_scope_type cascade;
drop type if exists job_status cascade;
drop type if exists job_type cascade;

alter table listings drop column if exists status;
alter table listings drop column if exists fulfillment_channel;
alter table listings drop column if exists category;

delete from settings where key like 'guardrails.%';
