-- 0017_rollback: returns grants and ownership to the migrating user. No rows are changed. The roles stay, because they
-- belong to the cluster, where other databases may use them, and 0008 refers to etl_rw.

do $$
declare
  own_schemas constant text[] := array['raw', 'staging', 'audit', 'taxonomies', 'fleet'];
  schema_name text;
  statement text;
begin
  foreach schema_name in array own_schemas || array['public'] loop
    continue when to_regnamespace(schema_name) is null;
    execute format('revoke all on schema %I from etl_rw, app_ro, vinops_ops', schema_name);
    execute format('revoke all on all tables in schema %I from etl_rw, app_ro, vinops_ops', schema_name);
    execute format('revoke all on all sequences in schema %I from etl_rw, app_ro, vinops_ops', schema_name);
    execute format('revoke all on all routines in schema %I from etl_rw, app_ro, vinops_ops', schema_name);
    foreach statement in array array['', 'for role vinops_admin'] loop
      execute format(
        'alter default privileges %s in schema %I revoke select on tables from etl_rw, app_ro, vinops_ops',
        statement, schema_name
      );
    end loop;
  end loop;

  for statement in
    select format('alter schema %I owner to current_user', n.nspname)
    from pg_namespace as n
    where n.nspname = any (own_schemas)
      and n.nspowner = 'vinops_admin'::regrole
    union all
    select format('alter table %I.%I owner to current_user', n.nspname, c.relname)
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'S')
      and n.nspname = any (own_schemas || array['public'])
      and c.relowner = 'vinops_admin'::regrole
      and not exists (
        select
        from pg_depend as d
        where d.classid = 'pg_class'::regclass
          and d.objid = c.oid
          and c.relkind = 'S'
          and d.deptype in ('a', 'i')
      )
    union all
    select format('alter routine %s owner to current_user', p.oid::regprocedure)
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = any (own_schemas || array['public'])
      and p.proowner = 'vinops_admin'::regrole
  loop
    execute statement;
  end loop;

  -- the earlier state: functions executable by everyone, the functions of raw that create partitions still security
  -- definer
  foreach schema_name in array array['raw', 'staging', 'audit', 'fleet'] loop
    continue when to_regnamespace(schema_name) is null;
    execute format('grant execute on all routines in schema %I to public', schema_name);
  end loop;
  if to_regprocedure('public.upsert_vehicles_batch(uuid)') is not null then
    grant execute on function public.upsert_vehicles_batch(uuid) to public;
  end if;
  if to_regprocedure('public.upsert_lots_batch(uuid)') is not null then
    grant execute on function public.upsert_lots_batch(uuid) to public;
  end if;

  revoke usage, create on schema public from vinops_admin;
end
$$;
