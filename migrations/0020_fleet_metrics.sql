-- 0020_fleet_metrics
-- purpose: views for monitoring: freshness of each source, and metrics of queue, windows, sources and files
-- depends: 0019
-- rollback: yes
-- creates: fleet.freshness, fleet.metrics

-- One row per source: its newest successful window, and the time when that window ended. A window is successful if its
-- own file was applied or incomplete, or if it repeats such a file (the same bytes, or a server response that nothing
-- changed). A window that repeats a quarantined file is not successful. A rerun does not change `ended_at`. The columns
-- are null if no window was successful yet.
create or replace view fleet.freshness as
with recursive source_names as (
  -- the sources, without reading all their windows
  select min(source) as source
  from fleet.windows
  union all
  select (select min(w.source) from fleet.windows as w where w.source > source_names.source)
  from source_names
  where source_names.source is not null
),
sources as (
  select source
  from source_names
  where source is not null
  union
  select source
  from fleet.sources_view
)
select
  s.source,
  newest_window.window_start_utc as last_good_window,
  newest_window.state,
  newest_window.file_id,
  newest_window.ended_at,
  extract(epoch from now() - newest_window.ended_at)::float8 as age_seconds,
  extract(epoch from now() - newest_window.window_start_utc)::float8 as window_age_seconds
from sources as s
left join lateral (
  select w.window_start_utc, w.state, w.file_id, w.ended_at
  from fleet.windows as w
  left join raw.csv_files as f
    on f.file_id = w.file_id
  where w.source = s.source
    and w.ended_at is not null
    and (w.state in ('applied', 'incomplete') or w.state = 'unchanged' and f.state in ('applied', 'incomplete'))
  order by w.window_start_utc desc
  limit 1
) as newest_window on true;

comment on view fleet.freshness is 'one row per source: the newest successful window, the time of its end, and its age';

-- One metric per row: name as exported to Prometheus, labels and value. Rows with an unknown value are omitted: without
-- a ready job there is no age of the oldest one. The queue's part reads the partial indexes of waiting and running
-- jobs, so a million finished jobs cost nothing. The windows' part reads the newest windows of each source. This is a
-- view, so that a read-only role (app_ro), and programs other than vinops, can monitor the system.
create or replace view fleet.metrics as
with waiting_jobs as (
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
ready_jobs as (
  select kind, sum(ready) as jobs, extract(epoch from now() - min(oldest)) as age
  from waiting_jobs
  group by kind
),
running_jobs as (
  select kind, count(*) as jobs
  from fleet.jobs
  where state = 'running'
  group by kind
),
-- a worker not seen for the duration of its lease is lost
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
sources as (
  select source
  from fleet.freshness
),
source_states as (
  select
    freshness_row.source,
    source_view.breaker_state,
    source_view.enabled,
    coalesce(source_view.consecutive_failures, 0) as failures,
    source_view.session_expires_at,
    freshness_row.window_age_seconds,
    freshness_row.ended_at
  from fleet.freshness as freshness_row
  left join fleet.sources_view as source_view
    on source_view.source = freshness_row.source
),
window_counts as (
  select w.source, w.state, count(*) as windows
  from sources as s
  join fleet.windows as w
    on w.source = s.source
  where w.window_start_utc > now() - interval '24 hours'
  group by w.source, w.state
),
-- the newest ingested file of each source
runs as (
  select
    s.source,
    e.report #> '{ingest,header_drift}' as drift,
    e.report #> '{ingest,words}' as words,
    e.report #> '{ingest,unreadable}' as unreadable,
    (e.report #>> '{ingest,staged}')::float8 as staged,
    e.report #> '{ingest,column_drift}' as column_drift,
    coalesce(100.0 * e.rows_missing_vin / nullif(e.rows_processed, 0), 0) as vin_null_pct,
    coalesce(100.0 * e.rows_missing_lot / nullif(e.rows_processed, 0), 0) as lot_null_pct
  from sources as s
  cross join lateral (
    select f.file_id, f.window_start_utc
    from raw.csv_files as f
    where f.source = s.source
      and f.ingested_at is not null
      and f.state <> 'withdrawn'
    order by f.window_start_utc desc, f.received_at desc
    limit 1
  ) as newest_file
  join audit.etl_runs as e
    on e.file_id = newest_file.file_id
    and e.window_start_utc = newest_file.window_start_utc
),
samples as (
  select 'vinops_jobs' as metric, jsonb_build_object('kind', kind, 'state', state) as labels, jobs::float8 as value
  from waiting_jobs
  union all
  select 'vinops_jobs', jsonb_build_object('kind', kind, 'state', 'running'), jobs
  from running_jobs
  union all
  select 'vinops_jobs_ready', jsonb_build_object('kind', kind), jobs
  from ready_jobs
  union all
  select 'vinops_oldest_ready_age_seconds', jsonb_build_object('kind', kind), age
  from ready_jobs
  union all
  select 'vinops_workers', jsonb_build_object('state', state), workers
  from workers
  union all
  select 'vinops_kind_paused', jsonb_build_object('kind', kind), (paused_at is not null)::int
  from fleet.job_kind_settings
  union all
  select 'vinops_last_applied_window_age_seconds', jsonb_build_object('source', source), window_age_seconds
  from source_states
  union all
  select 'etl_last_success_timestamp_seconds', jsonb_build_object('source', source), extract(epoch from ended_at)
  from source_states
  union all
  select 'vinops_consecutive_failures', jsonb_build_object('source', source), failures
  from source_states
  union all
  select 'vinops_breaker_state', jsonb_build_object('source', source, 'state', coalesce(breaker_state, 'closed')), 1
  from source_states
  union all
  select 'vinops_source_enabled', jsonb_build_object('source', source), coalesce(enabled, true)::int
  from source_states
  union all
  select
    'vinops_session_expiry_timestamp_seconds',
    jsonb_build_object('source', source),
    extract(epoch from session_expires_at)
  from source_states
  union all
  select 'vinops_windows', jsonb_build_object('source', source, 'state', state), windows
  from window_counts
  union all
  select 'etl_unknown_rate_percent', jsonb_build_object('source', source, 'column', 'vin'), vin_null_pct
  from runs
  union all
  select 'etl_unknown_rate_percent', jsonb_build_object('source', source, 'column', 'lot'), lot_null_pct
  from runs
  union all
  -- for new and changed rows: {"damage_types": {"values": 5900, "unknown": 3}, …}
  select
    'etl_unknown_words_percent',
    jsonb_build_object('source', source, 'domain', w.key),
    100.0 * (w.value ->> 'unknown')::float8 / nullif((w.value ->> 'values')::float8, 0)
  from runs
  cross join lateral jsonb_each(words) as w
  union all
  -- {"Odometer": {"count": 3, "first": "N/A"}, …}; few rows are no evidence for a column
  select
    'etl_unreadable_values_ratio',
    jsonb_build_object('source', source, 'column', u.key),
    (u.value ->> 'count')::float8 / staged
  from runs
  cross join lateral jsonb_each(unreadable) as u
  where staged >= 200
  union all
  -- [{"column": "Odometer", "unreadable": 300, …}, …]
  select 'etl_column_drift', jsonb_build_object('source', source, 'column', d.value ->> 'column'), 1
  from runs
  cross join lateral jsonb_array_elements(column_drift) as d
  union all
  select 'etl_header_drift_columns', jsonb_build_object('source', source), coalesce(jsonb_array_length(drift), 0)
  from runs
  union all
  select 'etl_quarantined_files_total', '{}', count(*)
  from raw.csv_files
  where state = 'quarantined'
  union all
  -- 0 while the foreign key exists; otherwise the orphans are counted
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
from samples
where value is not null;

comment on view fleet.metrics is 'metrics for monitoring: one row per metric, labels and value';

alter view fleet.freshness owner to vinops_admin;
alter view fleet.metrics owner to vinops_admin;
grant select on fleet.freshness, fleet.metrics to etl_rw, app_ro, vinops_ops;
