-- 0017_roles
-- purpose: roles and grants: vinops_admin owns, etl_rw works, app_ro reads, vinops_ops operates
-- depends: 0016
-- rollback: yes
-- creates: vinops_admin, etl_rw, app_ro, vinops_ops

-- The migrating user owns the database and is a superuser or has CREATEROLE. The four roles have no login. People and
-- programs get logins that are members of one of them.
--
-- Roles belong to the cluster, so another database may have created them already, or may be creating them now.
do $$
declare
  role_name text;
begin
  foreach role_name in array array['vinops_admin', 'etl_rw', 'app_ro', 'vinops_ops'] loop
    if not exists (select from pg_roles where rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception
        when duplicate_object or unique_violation then null;
      end;
    end if;
  end loop;
  -- to transfer objects, and to apply later migrations, the user must be a member of the owner
  if not pg_has_role(current_user, 'vinops_admin', 'usage') then
    execute format('grant vinops_admin to %I', current_user);
  end if;
end
$$;

-- Databases of older PostgreSQL versions grant this right to everyone, although schema public is searched first.
revoke create on schema public from public;

grant usage, create on schema public to vinops_admin;
grant usage on schema public, raw, staging, audit, taxonomies, fleet to etl_rw, vinops_ops;
grant usage on schema public, raw, audit, taxonomies, fleet to app_ro;

-- vinops_admin owns everything, above all the `security definer` functions, which create and drop partitions with its
-- rights. In schema public only this project's objects change their owner, since extensions and other objects are there
-- too.
do $$
declare
  own_schemas constant text[] := array['raw', 'staging', 'audit', 'taxonomies', 'fleet'];
  statement text;
begin
  for statement in
    select format('alter schema %I owner to vinops_admin', n.nspname)
    from pg_namespace as n
    where n.nspname = any (own_schemas)
    union all
    -- `alter table` also applies to views and sequences. Sequences that belong to a column follow their table.
    select format('alter table %I.%I owner to vinops_admin', n.nspname, c.relname)
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'S')
      and (n.nspname = any (own_schemas) or c.oid in (
        select to_regclass('public.' || name)
        from unnest(array['vehicles', 'lots', 'sale_events', 'images', 'config']) as name
      ))
      and not exists (
        select
        from pg_depend as d
        where d.classid = 'pg_class'::regclass
          and d.objid = c.oid
          and (d.deptype = 'e' or (c.relkind = 'S' and d.deptype in ('a', 'i')))
      )
    union all
    select format('alter routine %s owner to vinops_admin', p.oid::regprocedure)
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = any (own_schemas)
      or (
        n.nspname = 'public'
        and p.proname in (
          'trim_blanks', 'normalize_vin', 'feed_status', 'sale_day', 'replace_image_links', 'upsert_vehicles_batch',
          'upsert_lots_batch')
      )
  loop
    execute statement;
  end loop;
end
$$;

-- Functions are executable by everyone by default. The right is revoked here, then granted to the roles that need it.
revoke execute on all routines in schema raw, staging, audit, fleet from public;
revoke execute on function
  public.upsert_vehicles_batch(uuid, timestamptz), public.upsert_lots_batch(uuid, timestamptz),
  public.replace_image_links(bigint[], text[], text[], timestamptz)
from public;

-- SECURITY.md lists the rights of each role, object by object, and a test compares the two. A table or function that
-- workers write or call gets its grant here, or in its own migration if that is a later one.
--
-- etl_rw: no DDL, and no right to change what was recorded. Core rows are upserted, never deleted. Row versions,
-- manifests and the logs of audit are only inserted (functions drop their old partitions).
grant select on all tables in schema public, raw, staging, audit, taxonomies, fleet to etl_rw;
grant insert, update on public.vehicles, public.lots, public.images to etl_rw;
grant insert on raw.rows, raw.manifests, raw.former_vins to etl_rw;
grant insert on raw.headers, raw.header_changes to etl_rw;
grant insert, update on raw.sightings, raw.sources to etl_rw;
-- the bytes of a file, its path and its source stay as first recorded
grant insert on raw.csv_files to etl_rw;
grant update (
  state, row_count, headers_jsonb, header_no, snapshot_clock, complete, incomplete_reason, record_count,
  recognised_lots, ingested_at
) on raw.csv_files to etl_rw;
grant insert, update, delete on raw.heads, raw.lotless_rows to etl_rw;
grant insert, update on staging.copart_raw to etl_rw;
grant insert on
  audit.vin_conflicts, audit.vehicle_conflicts, audit.lot_conflicts, audit.parse_errors, audit.skipped_lots,
  audit.status_transitions
to etl_rw;
grant insert, update on audit.etl_runs, audit.unknown_taxonomy_values to etl_rw;
grant insert, update on fleet.jobs, fleet.windows to etl_rw;
grant insert on fleet.job_runs to etl_rw;
grant usage on sequence public.lots_id_seq, public.images_id_seq, staging.copart_raw_id_seq,
  raw.csv_files_file_no_seq
to etl_rw;
grant execute on function
  raw.ensure_partition(regclass, timestamptz), audit.ensure_partitions(timestamptz),
  raw.open_month(timestamptz), raw.index_month(timestamptz), raw.attach_month(timestamptz),
  staging.open_day(timestamptz), staging.index_day(timestamptz), staging.attach_day(timestamptz),
  staging.analyze(timestamptz, bigint), raw.first_heads(text, uuid, timestamptz, regclass),
  raw.seen(timestamptz, uuid, raw.heads, timestamptz), raw.header_no(jsonb),
  raw.suspend(regclass), raw.resume(regclass), raw.reserve_lot_ids(uuid),
  fleet.prune_jobs(bigint, integer, interval, interval)
to etl_rw;
grant execute on function fleet.ready_depth(text[]) to etl_rw, vinops_ops;
grant execute on function
  public.upsert_vehicles_batch(uuid, timestamptz), public.upsert_lots_batch(uuid, timestamptz),
  public.replace_image_links(bigint[], text[], text[], timestamptz)
to etl_rw;

-- app_ro: all of the core tables and the taxonomy; of the other schemas the windows and the views, which run with their
-- owner's rights.
grant select on all tables in schema public, taxonomies to app_ro;
grant select on fleet.windows to app_ro;

do $$
declare
  grant_statement text;
begin
  for grant_statement in
    select format('grant select on %I.%I to app_ro', schemaname, viewname)
    from pg_views
    where schemaname in ('raw', 'audit', 'fleet')
  loop
    execute grant_statement;
  end loop;
end
$$;

-- vinops_ops: reads everything, changes jobs and windows, sets the switches, edits the taxonomy. No DDL, and no deletes
-- except of unknown raw values.
grant select on all tables in schema public, raw, staging, audit, taxonomies, fleet to vinops_ops;
grant insert, update on fleet.jobs, fleet.windows to vinops_ops;
grant insert on fleet.job_runs to vinops_ops;
grant update on public.config to vinops_ops;
grant delete on audit.unknown_taxonomy_values to vinops_ops;

do $$
declare
  grant_statement text;
begin
  for grant_statement in
    select format('grant insert, update on %I.%I to vinops_ops', schemaname, tablename)
    from pg_tables
    where schemaname = 'taxonomies'
      and tablename <> 'seeds'
    union all
    -- 0018 replaces it by a function with other arguments
    select format('grant execute on function %s to etl_rw, vinops_ops', p.oid::regprocedure)
    from pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace
      and p.proname = 'enqueue'
  loop
    execute grant_statement;
  end loop;
end
$$;

-- Only the owner may read or write what raw.resume executes.
revoke all on raw.suspended from public, etl_rw, app_ro, vinops_ops;

-- Tables of later migrations are readable by the same roles at once. The right to write is granted where the table is
-- created. Partitions, which vinops_admin creates, are read and written through their parent, whose grants apply.
alter default privileges in schema public, raw, staging, audit, taxonomies, fleet
  grant select on tables to etl_rw, vinops_ops;
alter default privileges in schema public, taxonomies
  grant select on tables to app_ro;
alter default privileges for role vinops_admin in schema public, raw, staging, audit, taxonomies, fleet
  grant select on tables to etl_rw, vinops_ops;
alter default privileges for role vinops_admin in schema public, taxonomies
  grant select on tables to app_ro;
