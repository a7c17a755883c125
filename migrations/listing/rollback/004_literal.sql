-- The runbook's rollback of 004 as it is written there: it drops what was there before, and cascades.
drop table if exists recommendation_events cascade;
drop table if exists recommendations cascade;
drop type if exists recommendation_event_type cascade;
drop type if exists recommendation_status cascade;
drop type if exists recommendation_type cascade;
drop type if exists confidence_band cascade;
