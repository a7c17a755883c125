-- 0008_rollback: every file's record, row version, conflict and run goes; the files in the store stay.

drop schema if exists audit cascade;
drop schema if exists staging cascade;
drop schema if exists raw cascade;
