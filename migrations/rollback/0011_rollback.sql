-- 0011_rollback: deletes the labels, operators' edits included, and the list of unknown raw values.

drop table if exists audit.unknown_taxonomy_values;

drop schema if exists taxonomies cascade;
