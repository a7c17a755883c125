-- The runbook's rollback of 004, verbatim: it also drops objects that existed before, with cascade.
drop table if exists recommendation_events cascade;
drop table if exists recommendations cascade;
drop type if exists recommendation_event_type cascade;
drop type if exists recommendation_status cascade;
drop type if exists recommendation_type cascade;
drop type if exists confidence_band cascade;
