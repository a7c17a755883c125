-- rights: what is granted
-- One row per object of the project's schemas, grantee and privilege. An object without grants has one row without
-- them. Of the functions only those that run with their owner's rights are included. The rights of owners are omitted.
with own_schemas as (
  select oid, nspname, nspacl, nspowner
  from pg_namespace
  where nspname in ('public', 'raw', 'staging', 'audit', 'fleet', 'taxonomies', 'vinops')
),
relations as (
  select
    c.oid,
    c.relacl,
    c.relowner as owner,
    case
      when c.relispartition then 'partitions'
      -- a load in progress
      else n.nspname || '.' || regexp_replace(
        regexp_replace(c.relname, '_[0-9]{4}_[0-9]{2}_[0-9]{2}_loading$', '_YYYY_MM_DD_loading'),
        '_[0-9]{4}_[0-9]{2}_loading$', '_YYYY_MM_loading')
    end as object
  from pg_class as c
  join own_schemas as n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    and not (c.relkind = 'S' and c.relacl is null)
    and not exists (
      select
      from pg_depend as d
      where d.classid = 'pg_class'::regclass
        and d.objid = c.oid
        and d.deptype = 'e'
    )
),
grants as (
  select r.object, r.owner, a.grantee, lower(a.privilege_type) as privilege
  from relations as r
  left join lateral aclexplode(r.relacl) as a on true
  union all
  select r.object, r.owner, a.grantee, format('%s (%s)', lower(a.privilege_type), t.attname)
  from relations as r
  join pg_attribute as t on t.attrelid = r.oid
  cross join lateral aclexplode(t.attacl) as a
  union all
  select 'schema ' || n.nspname, n.nspowner, a.grantee, lower(a.privilege_type)
  from own_schemas as n
  left join lateral aclexplode(n.nspacl) as a on true
  union all
  select
    format('%s.%s(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)),
    p.proowner,
    a.grantee,
    lower(a.privilege_type)
  from pg_proc as p
  join own_schemas as n on n.oid = p.pronamespace
  left join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a on true
  where p.prosecdef
)
select distinct
  g.object as "object!",
  case when g.grantee = 0 then 'public' else pg_get_userbyid(g.grantee)::text end as grantee,
  case
    when g.grantee <> g.owner and pg_get_userbyid(g.grantee) <> 'vinops_admin' or g.grantee = 0 then g.privilege
  end as privilege,
  coalesce(g.grantee = 0 or pg_has_role(current_user, g.grantee, 'usage'), false) as "held!"
from grants as g
order by 1, 2, 3
