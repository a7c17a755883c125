-- 005_worker
-- purpose: additions to the runbook's slices: leases, unique pending jobs, unique BOM versions, checks
-- depends: 004
-- needs: table boms, table jobs, table feature_store, table recommendations, column feature_store.features_json
-- rollback: destructive
-- creates: job_leases, flagged_margins, boms_owner_ck, boms_asin_version_unique, jobs_pending_unique, jobs_attempts_ck, feature_store_bom_cost_ck

-- Separate from the slices, so that jobs keeps its 19 columns and the counts of tables after 004 match the runbook.

-- The lease of a running job. A terminal update of jobs must contain this token, so that a worker that is considered
-- dead writes nothing.
create table if not exists job_leases (
  job_id integer primary key references jobs (id) on delete cascade,
  owner varchar(200) not null,
  token uuid not null,
  heartbeat_at timestamptz not null default current_timestamp,
  lease_until timestamptz not null,
  constraint job_leases_until_ck check (lease_until > heartbeat_at)
);
create index if not exists idx_job_leases_until on job_leases (lease_until);

-- The checks. Rows that violate a check are listed and not deleted, since they belong to the operator. An existing
-- check is left unchanged, so that a second run scans no table.
do $$
declare
  violations text;
begin
  -- exactly one owner, that of the scope
  if not exists (select from pg_constraint where conrelid = to_regclass('boms') and conname = 'boms_owner_ck') then
    select string_agg(id::text, ', ' order by id)
    into violations
    from boms
    where not (
      scope_type = 'LISTING' and listing_id is not null and asin_entity_id is null
      or scope_type = 'ASIN_SCENARIO' and asin_entity_id is not null and listing_id is null
    );
    if violations is not null then
      raise exception 'boms without exactly the owner of their scope: %', violations;
    end if;
    alter table boms add constraint boms_owner_ck check (
      scope_type = 'LISTING' and listing_id is not null and asin_entity_id is null
      or scope_type = 'ASIN_SCENARIO' and asin_entity_id is not null and listing_id is null
    );
  end if;

  if to_regclass('boms_asin_version_unique') is null then
    select string_agg(format('asin_entity_id %s version %s', asin_entity_id, version), ', ')
    into violations
    from (
      select asin_entity_id, version
      from boms
      where asin_entity_id is not null
      group by asin_entity_id, version
      having count(*) > 1
    ) as duplicates;
    if violations is not null then
      raise exception 'scenario boms with duplicate versions: %', violations;
    end if;
    create unique index boms_asin_version_unique on boms (asin_entity_id, version) where asin_entity_id is not null;
  end if;

  -- one pending job of a type per target; a look-up before the insert would be a race
  if to_regclass('jobs_pending_unique') is null then
    select string_agg(ids, '; ')
    into violations
    from (
      select string_agg(id::text, ', ' order by id) as ids
      from jobs
      where status = 'PENDING'
      group by job_type, coalesce(listing_id, 0), coalesce(asin_entity_id, 0), coalesce(input_json ->> 'asin', '')
      having count(*) > 1
    ) as duplicates;
    if violations is not null then
      raise exception 'duplicate pending jobs: %', violations using hint = 'Cancel all but one of each group.';
    end if;
    create unique index jobs_pending_unique on jobs (
      job_type,
      coalesce(listing_id, 0),
      coalesce(asin_entity_id, 0),
      coalesce(input_json ->> 'asin', '')
    ) where status = 'PENDING';
  end if;

  if not exists (select from pg_constraint where conrelid = to_regclass('jobs') and conname = 'jobs_attempts_ck') then
    select string_agg(id::text, ', ' order by id)
    into violations
    from jobs
    where attempts > max_attempts;
    if violations is not null then
      raise exception 'jobs with more attempts than max_attempts: %', violations;
    end if;
    alter table jobs add constraint jobs_attempts_ck check (attempts <= max_attempts);
  end if;

  -- a cost is a number and not negative; a missing cost is not checked
  if not exists (
    select from pg_constraint where conrelid = to_regclass('feature_store') and conname = 'feature_store_bom_cost_ck'
  ) then
    select string_agg(id::text, ', ' order by id)
    into violations
    from feature_store
    where not case coalesce(jsonb_typeof(features_json -> 'bom_cost_ex_vat'), 'null')
      when 'number' then (features_json ->> 'bom_cost_ex_vat')::numeric >= 0
      when 'null' then true
      else false
    end;
    if violations is not null then
      raise exception 'rows of feature_store with a negative or non-numeric bom_cost_ex_vat: %', violations;
    end if;
    alter table feature_store add constraint feature_store_bom_cost_ck check (
      case coalesce(jsonb_typeof(features_json -> 'bom_cost_ex_vat'), 'null')
        when 'number' then (features_json ->> 'bom_cost_ex_vat')::numeric >= 0
        when 'null' then true
        else false
      end
    );
  end if;
end
$$;

-- Features with a margin outside -1..1, which is a loss or doubtful data. Such rows are stored and shown here, because
-- rejecting them would hide the loss.
create or replace view flagged_margins as
select id, entity_type, entity_id, (features_json ->> 'margin')::numeric as margin, computed_at
from feature_store
where case jsonb_typeof(features_json -> 'margin')
  when 'number' then (features_json ->> 'margin')::numeric not between -1 and 1
  else false
end;

-- Grants for the roles of the fleet, if they exist in this cluster.
do $$
declare
  schema_name text := quote_ident(current_schema());
begin
  if to_regrole('etl_rw') is not null then
    execute format('grant usage on schema %s to etl_rw', schema_name);
    execute format('grant select, insert, update, delete on all tables in schema %s to etl_rw', schema_name);
    execute format('grant usage, select on all sequences in schema %s to etl_rw', schema_name);
  end if;
  if to_regrole('app_ro') is not null then
    execute format('grant usage on schema %s to app_ro', schema_name);
    execute format('grant select on all tables in schema %s to app_ro', schema_name);
  end if;
  if to_regrole('vinops_ops') is not null then
    execute format('grant usage on schema %s to vinops_ops', schema_name);
    execute format('grant select on all tables in schema %s to vinops_ops', schema_name);
    execute format('grant update on %s.jobs, %s.settings to vinops_ops', schema_name, schema_name);
  end if;
end
$$;
