-- 005_worker
-- purpose: what we add to the runbook's slices: leases, owners of BOMs, versions of scenarios, no job twice, the recommended checks
-- depends: 004
-- needs: table boms, table jobs, table feature_store, table recommendations, column feature_store.features_json
-- rollback: destructive
-- creates: job_leases, flagged_margins, boms_owner_ck, boms_asin_version_unique, jobs_pending_unique, jobs_attempts_ck, feature_store_bom_cost_ck

-- Apart from the slices, so that jobs keeps its 19 columns and the counts of tables after 004 stay the runbook's.

-- Whose a running job is. A terminal update of jobs must carry this token, so that a worker thought dead writes nothing.
create table if not exists job_leases (
  job_id integer primary key references jobs (id) on delete cascade,
  owner varchar(200) not null,
  token uuid not null,
  heartbeat_at timestamptz not null default current_timestamp,
  lease_until timestamptz not null,
  constraint job_leases_until_ck check (lease_until > heartbeat_at)
);
create index if not exists idx_job_leases_until on job_leases (lease_until);

-- The rules. Rows that one would refuse are named, not dropped: whose they are is not ours to say. A rule that is there is
-- left alone, so that a second run reads no table through.
do $$
declare
  wrong text;
begin
  -- exactly one owner, the scope's
  if not exists (select from pg_constraint where conrelid = to_regclass('boms') and conname = 'boms_owner_ck') then
    select string_agg(id::text, ', ' order by id)
    into wrong
    from boms
    where not (
      scope_type = 'LISTING' and listing_id is not null and asin_entity_id is null
      or scope_type = 'ASIN_SCENARIO' and asin_entity_id is not null and listing_id is null
    );
    if wrong is not null then
      raise exception 'these boms have no owner, two, or one of the other scope: %', wrong;
    end if;
    alter table boms add constraint boms_owner_ck check (
      scope_type = 'LISTING' and listing_id is not null and asin_entity_id is null
      or scope_type = 'ASIN_SCENARIO' and asin_entity_id is not null and listing_id is null
    );
  end if;

  if to_regclass('boms_asin_version_unique') is null then
    select string_agg(format('asin_entity_id %s version %s', asin_entity_id, version), ', ')
    into wrong
    from (
      select asin_entity_id, version
      from boms
      where asin_entity_id is not null
      group by asin_entity_id, version
      having count(*) > 1
    ) as repeated;
    if wrong is not null then
      raise exception 'these versions of scenario boms stand more than once: %', wrong;
    end if;
    create unique index boms_asin_version_unique on boms (asin_entity_id, version) where asin_entity_id is not null;
  end if;

  -- one pending job of a type for a target: to look first and insert then is a race
  if to_regclass('jobs_pending_unique') is null then
    select string_agg(ids, '; ')
    into wrong
    from (
      select string_agg(id::text, ', ' order by id) as ids
      from jobs
      where status = 'PENDING'
      group by job_type, coalesce(listing_id, 0), coalesce(asin_entity_id, 0), coalesce(input_json ->> 'asin', '')
      having count(*) > 1
    ) as repeated;
    if wrong is not null then
      raise exception 'these pending jobs are the same: %', wrong using hint = 'cancel all but one of each';
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
    into wrong
    from jobs
    where attempts > max_attempts;
    if wrong is not null then
      raise exception 'these jobs have more attempts than they may: %', wrong;
    end if;
    alter table jobs add constraint jobs_attempts_ck check (attempts <= max_attempts);
  end if;

  -- a cost is a number and not negative; where there is none there is nothing to check
  if not exists (
    select from pg_constraint where conrelid = to_regclass('feature_store') and conname = 'feature_store_bom_cost_ck'
  ) then
    select string_agg(id::text, ', ' order by id)
    into wrong
    from feature_store
    where not case coalesce(jsonb_typeof(features_json -> 'bom_cost_ex_vat'), 'null')
      when 'number' then (features_json ->> 'bom_cost_ex_vat')::numeric >= 0
      when 'null' then true
      else false
    end;
    if wrong is not null then
      raise exception 'these rows of feature_store have a bom_cost_ex_vat under 0 or no number: %', wrong;
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

-- A margin beyond -1..1 is a loss, or a doubt: kept, and shown here. To refuse it would hide the loss.
create or replace view flagged_margins as
select id, entity_type, entity_id, (features_json ->> 'margin')::numeric as margin, computed_at
from feature_store
where case jsonb_typeof(features_json -> 'margin')
  when 'number' then (features_json ->> 'margin')::numeric not between -1 and 1
  else false
end;

-- For the fleet's roles, where this database is one of a fleet.
do $$
declare
  place text := quote_ident(current_schema());
begin
  if to_regrole('etl_rw') is not null then
    execute format('grant usage on schema %s to etl_rw', place);
    execute format('grant select, insert, update, delete on all tables in schema %s to etl_rw', place);
    execute format('grant usage, select on all sequences in schema %s to etl_rw', place);
  end if;
  if to_regrole('app_ro') is not null then
    execute format('grant usage on schema %s to app_ro', place);
    execute format('grant select on all tables in schema %s to app_ro', place);
  end if;
  if to_regrole('vinops_ops') is not null then
    execute format('grant usage on schema %s to vinops_ops', place);
    execute format('grant select on all tables in schema %s to vinops_ops', place);
    execute format('grant update on %s.jobs, %s.settings to vinops_ops', place, place);
  end if;
end
$$;
