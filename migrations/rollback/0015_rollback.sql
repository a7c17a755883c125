-- 0015_rollback: deletes the queue, with every job and its history. Waiting jobs are never run.

drop function if exists fleet.prune_jobs(bigint, integer, interval, interval);
drop function if exists fleet.ready_depth(text[]);
drop function if exists fleet.enqueue(text, jsonb, text, timestamptz, integer, integer);
drop view if exists fleet.job_attempts;
drop table if exists fleet.job_runs;
drop table if exists fleet.jobs;
drop function if exists fleet.stamp_db_user;
drop domain if exists fleet.job_kind, fleet.job_key, fleet.job_payload, fleet.job_state;
drop schema if exists fleet;
