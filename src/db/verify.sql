-- db: catalogue
-- The objects of a database, one row per object: kind, name, and definition as PostgreSQL prints it. Run with an empty
-- search_path, so that definitions contain every schema name, whatever the session's settings.
with own_schemas as (
  select n.oid, n.nspname as name
  from pg_namespace as n
  where n.nspname in ('public', 'raw', 'staging', 'audit', 'taxonomies', 'fleet')
),
-- partitions are created during operation and belong to their parent
relations as (
  select c.oid, c.relkind, o.name || '.' || c.relname as name, c.relname
  from pg_class as c
  join own_schemas as o on o.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v')
    and not c.relispartition
),
objects as (
  select 'extension' as kind, extname::text as name, 'installed' as words
  from pg_extension
  union all
  select 'role', rolname::text, case when rolcanlogin then 'login' else 'nologin' end
  from pg_roles
  union all
  select 'schema', name::text, 'present'
  from own_schemas
  union all
  select
    'table',
    r.name,
    case r.relkind when 'p' then 'partition by ' || pg_get_partkeydef(r.oid) else 'plain' end
  from relations as r
  where r.relkind in ('r', 'p')
  union all
  select 'view', r.name, string_agg(a.attname, ', ' order by a.attnum)
  from relations as r
  join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0
  where r.relkind = 'v'
  group by r.name
  union all
  select
    'column',
    r.name || '.' || a.attname,
    format_type(a.atttypid, a.atttypmod)
      || case when a.attnotnull then ' not null' else '' end
      || case when a.attgenerated = 's' then ' generated' else '' end
  from relations as r
  join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  where r.relkind in ('r', 'p')
  union all
  select
    'constraint',
    r.name || '.' || k.conname,
    pg_get_constraintdef(k.oid)
  from relations as r
  join pg_constraint as k on k.conrelid = r.oid
  union all
  -- constraints of domains, which several columns share
  select
    'constraint',
    o.name || '.' || t.typname || '.' || k.conname,
    pg_get_constraintdef(k.oid)
  from pg_type as t
  join own_schemas as o on o.oid = t.typnamespace
  join pg_constraint as k on k.contypid = t.oid
  union all
  -- the part of "CREATE UNIQUE INDEX name ON ONLY schema.table USING btree (…)" that the name does not contain
  select
    'index',
    o.name || '.' || c.relname,
    case when i.indisunique then 'unique ' else '' end
      || regexp_replace(pg_get_indexdef(c.oid), '^.*? ON (ONLY )?(.*?) USING ', '\2 ')
      || case when i.indisvalid then '' else ' invalid' end
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  join own_schemas as o on o.oid = c.relnamespace
  where not c.relispartition
  union all
  select
    'function',
    o.name || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
    case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end
      || case when p.prosecdef then ' security definer' else '' end
  from pg_proc as p
  join own_schemas as o on o.oid = p.pronamespace
)
select
  kind as "kind!",
  name as "name!",
  words as "words!"
from objects
order by kind, name
