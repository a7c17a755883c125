-- 0008_rollback: deletes the records of all files, row versions, conflicts and runs. The files in the store stay.

drop schema if exists audit cascade;
drop schema if exists staging cascade;
drop schema if exists raw cascade;
