-- listing: things
-- The objects that a slice can add, one row per object, named as in the ledger: tables, views and enum types of the
-- schema, and the columns, constraints and indexes of its tables. `owner` is the table of a column, constraint or
-- index. `place` is a column's number, which stays the same when the column is renamed.
with tables as (
  select c.oid, c.relname::text as name
  from pg_class as c
  where c.relnamespace = to_regnamespace($1)
    and c.relkind in ('r', 'p')
)
select
  'table ' || t.name as "thing!",
  null::text as owner,
  null::int2 as place
from tables as t
union all
select 'view ' || c.relname, null, null
from pg_class as c
where c.relnamespace = to_regnamespace($1)
  and c.relkind = 'v'
union all
select 'type ' || t.typname, null, null
from pg_type as t
where t.typnamespace = to_regnamespace($1)
  and t.typtype = 'e'
union all
select 'column ' || t.name || '.' || a.attname, t.name, a.attnum
from tables as t
join pg_attribute as a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
union all
select 'constraint ' || t.name || '.' || k.conname, t.name, null
from tables as t
join pg_constraint as k on k.conrelid = t.oid and k.contype <> 'n'
union all
-- the index of a constraint is dropped with its constraint
select 'index ' || c.relname, t.name, null
from tables as t
join pg_index as i on i.indrelid = t.oid
join pg_class as c on c.oid = i.indexrelid
where not exists (select from pg_constraint as k where k.conindid = i.indexrelid and k.conrelid = t.oid)
