-- 0011_rollback: labels go, operators' own among them, and the list of unknown spellings.

drop table if exists audit.unknown_taxonomy_values;

drop schema if exists taxonomies cascade;
