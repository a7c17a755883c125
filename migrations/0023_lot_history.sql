-- 0023_lot_history
-- purpose: a lot's past for those who may only read, and the share of words that nobody knows
-- depends: 0021
-- rollback: yes
-- creates: raw.lot_versions, raw.file_manifests, raw.lot_sightings, audit.lot_changes, audit.vehicle_changes, raw.idx_csv_files_late

-- The row versions of a lot. `complete` is null for a file that came late: only such a file's manifest may hold a
-- version that was stored in a newer window.
create or replace view raw.lot_versions as
select
  r.payload_jsonb ->> 'Lot number' as lot_number,
  f.source,
  r.id as row_id,
  r.window_start_utc,
  r.file_id,
  f.complete is null as late,
  f.headers_jsonb as header,
  r.payload_jsonb as payload
from raw.rows as r
join raw.csv_files as f
  on f.file_id = r.file_id;
comment on view raw.lot_versions is 'the row versions of each lot, with the header they were read by';

-- Which versions each file holds.
create or replace view raw.file_manifests as
select
  f.source,
  f.window_start_utc,
  f.file_id,
  f.complete,
  f.complete is null as late,
  m.row_ids
from raw.csv_files as f
join raw.manifests as m
  on m.file_id = f.file_id;
comment on view raw.file_manifests is 'the row versions that each file holds, in its order';

create index if not exists idx_csv_files_late
  on raw.csv_files (source, window_start_utc)
  where complete is null;

-- Until when each open lot was seen.
create or replace view raw.lot_sightings as
select
  h.source,
  h.lot,
  coalesce(h.last_seen, s.head_window) as last_seen,
  h.last_seen is null as in_feed
from raw.heads as h
join raw.sources as s
  on s.source = h.source;
comment on view raw.lot_sightings is 'until when each open lot was seen, and whether it stands in the newest file';

-- What has changed of a lot and of its status, {"column": [old, new]}. In the order of (applied_at, file_no, what, id)
-- each old value is the new one before it, also where windows came late; the order of windows does not promise that.
create or replace view audit.lot_changes as
select
  c.lot_external_id,
  c.what,
  c.window_start_utc,
  c.file_id,
  c.id,
  c.changes,
  c.reason,
  coalesce(f.ingested_at, c.at) as applied_at,
  f.file_no
from (
  select lot_external_id, 'lot' as what, window_start_utc, file_id, id, changes, null::text as reason, detected_at as at
  from audit.lot_conflicts
  union all
  select
    lot_external_id, 'status', window_start_utc, file_id, id,
    jsonb_build_object('status', jsonb_build_array(old_status, new_status)), reason, transitioned_at
  from audit.status_transitions
) as c
left join raw.csv_files as f
  on f.file_id = c.file_id;
comment on view audit.lot_changes is 'a lot''s history: its changes and its moves of status';

-- The same of a vehicle, whichever of its lots brought it.
create or replace view audit.vehicle_changes as
select
  c.vin,
  c.lot_external_id,
  c.window_start_utc,
  c.file_id,
  c.id,
  c.changes,
  coalesce(f.ingested_at, c.detected_at) as applied_at,
  f.file_no
from audit.vehicle_conflicts as c
left join raw.csv_files as f
  on f.file_id = c.file_id;
comment on view audit.vehicle_changes is 'a vehicle''s history, with the lot that brought each change';

alter view raw.lot_versions owner to vinops_admin;
alter view raw.file_manifests owner to vinops_admin;
alter view raw.lot_sightings owner to vinops_admin;
alter view audit.lot_changes owner to vinops_admin;
alter view audit.vehicle_changes owner to vinops_admin;
grant select on raw.lot_versions, raw.file_manifests, raw.lot_sightings to etl_rw, app_ro, vinops_ops;
grant select on audit.lot_changes, audit.vehicle_changes to etl_rw, app_ro, vinops_ops;

-- The figures of 0020, with the share of words that nobody knows.
create or replace view fleet.figures as
with waiting as (
  select
    kind,
    state,
    count(*) as jobs,
    count(*) filter (where run_at <= now()) as ready,
    min(run_at) filter (where run_at <= now()) as oldest
  from fleet.jobs
  where state in ('available', 'scheduled', 'retryable')
  group by kind, state
),
ready as (
  select kind, sum(ready) as jobs, extract(epoch from now() - min(oldest)) as age
  from waiting
  group by kind
),
running as (
  select kind, count(*) as jobs
  from fleet.jobs
  where state = 'running'
  group by kind
),
-- a worker that has not been seen for its lease is lost
workers as (
  select
    case
      when seen_at < now() - lease then 'lost'
      when draining then 'draining'
      else 'working'
    end as state,
    count(*) as workers
  from fleet.workers
  group by 1
),
-- the few sources, without reading all their windows
sources as (
  with recursive named as (
    select min(source) as source
    from fleet.windows
    union all
    select (select min(w.source) from fleet.windows as w where w.source > named.source)
    from named
    where named.source is not null
  )
  select source
  from named
  where source is not null
  union
  select source
  from fleet.sources_view
),
latest as (
  select
    s.source,
    known.breaker_state,
    known.enabled,
    coalesce(known.consecutive_failures, 0) as failures,
    known.session_expires_at,
    applied.window_start_utc as applied,
    ended.updated_at as ended
  from sources as s
  left join fleet.sources_view as known
    on known.source = s.source
  left join lateral (
    select w.window_start_utc
    from fleet.windows as w
    where w.source = s.source
      and w.state = 'applied'
    order by w.window_start_utc desc
    limit 1
  ) as applied on true
  left join lateral (
    select w.updated_at
    from fleet.windows as w
    where w.source = s.source
      and w.state in ('applied', 'incomplete', 'unchanged')
    order by w.window_start_utc desc
    limit 1
  ) as ended on true
),
recent as (
  select w.source, w.state, count(*) as windows
  from sources as s
  join fleet.windows as w
    on w.source = s.source
  where w.window_start_utc > now() - interval '24 hours'
  group by w.source, w.state
),
-- the newest file of each source that was taken apart
runs as (
  select
    s.source,
    e.report #> '{ingest,header_drift}' as drift,
    e.report #> '{ingest,words}' as words,
    coalesce(100.0 * e.rows_missing_vin / nullif(e.rows_processed, 0), 0) as vin_null_pct,
    coalesce(100.0 * e.rows_missing_lot / nullif(e.rows_processed, 0), 0) as lot_null_pct
  from sources as s
  cross join lateral (
    select f.file_id
    from raw.csv_files as f
    where f.source = s.source
      and f.ingested_at is not null
    order by f.window_start_utc desc, f.received_at desc
    limit 1
  ) as newest
  join audit.etl_runs as e
    on e.file_id = newest.file_id
),
figures as (
  select 'vinops_jobs' as metric, jsonb_build_object('kind', kind, 'state', state) as labels, jobs::float8 as value
  from waiting
  union all
  select 'vinops_jobs', jsonb_build_object('kind', kind, 'state', 'running'), jobs
  from running
  union all
  select 'vinops_jobs_ready', jsonb_build_object('kind', kind), jobs
  from ready
  union all
  select 'vinops_oldest_ready_age_seconds', jsonb_build_object('kind', kind), age
  from ready
  union all
  select 'vinops_workers', jsonb_build_object('state', state), workers
  from workers
  union all
  select 'vinops_kind_paused', jsonb_build_object('kind', kind), (paused_at is not null)::int
  from fleet.kinds
  union all
  select 'vinops_last_applied_window_age_seconds', jsonb_build_object('source', source), extract(epoch from now() - applied)
  from latest
  union all
  select 'etl_last_success_timestamp_seconds', jsonb_build_object('source', source), extract(epoch from ended)
  from latest
  union all
  select 'vinops_consecutive_failures', jsonb_build_object('source', source), failures
  from latest
  union all
  select 'vinops_breaker_state', jsonb_build_object('source', source, 'state', coalesce(breaker_state, 'closed')), 1
  from latest
  union all
  select 'vinops_source_enabled', jsonb_build_object('source', source), coalesce(enabled, true)::int
  from latest
  union all
  select 'vinops_session_expiry_timestamp_seconds', jsonb_build_object('source', source), extract(epoch from session_expires_at)
  from latest
  union all
  select 'vinops_windows', jsonb_build_object('source', source, 'state', state), windows
  from recent
  union all
  select 'etl_unknown_rate_percent', jsonb_build_object('source', source, 'column', 'vin'), vin_null_pct
  from runs
  union all
  select 'etl_unknown_rate_percent', jsonb_build_object('source', source, 'column', 'lot'), lot_null_pct
  from runs
  union all
  -- of the rows that were new or changed: {"damage_types": {"values": 5900, "unknown": 3}, …}
  select
    'etl_unknown_words_percent',
    jsonb_build_object('source', source, 'domain', w.key),
    100.0 * (w.value ->> 'unknown')::float8 / nullif((w.value ->> 'values')::float8, 0)
  from runs
  cross join lateral jsonb_each(words) as w
  union all
  select 'etl_header_drift_columns', jsonb_build_object('source', source), coalesce(jsonb_array_length(drift), 0)
  from runs
  union all
  select 'etl_quarantined_files_total', '{}', count(*)
  from raw.csv_files
  where state = 'quarantined'
  union all
  -- the foreign key holds them at none; without it they are counted
  select 'etl_orphan_lots_total', '{}', case
      when exists (
        select
        from pg_constraint
        where conrelid = 'public.lots'::regclass
          and confrelid = 'public.vehicles'::regclass
          and contype = 'f'
          and convalidated
      ) then 0
      else (
        select count(*)
        from public.lots as l
        where not exists (select from public.vehicles as v where v.vin = l.vin)
      )
    end
)
select metric, labels, value
from figures
where value is not null;

-- A mapped spelling of keys or conditions codes its rows too.
grant update (has_keys_code, lot_condition_code) on public.lots to vinops_ops;
grant update (has_keys_code, lot_condition_code) on staging.copart_raw to vinops_ops;
