-- 004_slice_d_schema
-- purpose: slice D: recommendations and their events
-- depends: 003
-- needs: table jobs, table feature_store, type feature_entity_type
-- rollback: destructive
-- creates: recommendations, recommendation_events, recommendation_type, recommendation_status, confidence_band, recommendation_event_type

do $$
begin
  if to_regtype('recommendation_type') is null then
    create type recommendation_type as enum (
      'PRICE_DECREASE_REGAIN_BUYBOX',
      'PRICE_INCREASE_MARGIN_OPPORTUNITY',
      'STOCK_INCREASE_STOCKOUT_RISK',
      'STOCK_DECREASE_OVERSTOCK',
      'MARGIN_AT_RISK_COMPONENT_COST',
      'ANOMALY_SALES_DROP',
      'ANOMALY_CONVERSION_DROP',
      'ANOMALY_BUY_BOX_LOSS',
      'OPPORTUNITY_CREATE_LISTING'
    );
  end if;
  if to_regtype('recommendation_status') is null then
    create type recommendation_status as enum (
      'PENDING', 'ACCEPTED', 'REJECTED', 'SNOOZED', 'EXPIRED', 'SUPERSEDED'
    );
  end if;
  if to_regtype('confidence_band') is null then
    create type confidence_band as enum ('HIGH', 'MEDIUM', 'LOW');
  end if;
  if to_regtype('recommendation_event_type') is null then
    create type recommendation_event_type as enum (
      'GENERATED',
      'VIEWED',
      'ACCEPTED',
      'REJECTED',
      'SNOOZED',
      'EXPIRED',
      'SUPERSEDED',
      'ACTION_STARTED',
      'ACTION_COMPLETED',
      'ACTION_FAILED'
    );
  end if;
end
$$;

create table if not exists recommendations (
  id serial primary key,
  recommendation_type recommendation_type not null,
  entity_type feature_entity_type not null,
  entity_id integer not null,
  status recommendation_status not null default 'PENDING',
  action_payload_json jsonb not null,
  evidence_json jsonb not null,
  guardrails_json jsonb,
  impact_json jsonb not null,
  confidence confidence_band not null default 'MEDIUM',
  confidence_score numeric(5,4),
  generated_at timestamp not null default current_timestamp,
  expires_at timestamp,
  accepted_at timestamp,
  rejected_at timestamp,
  snoozed_until timestamp,
  generation_job_id integer references jobs (id) on delete set null,
  accepted_job_id integer references jobs (id) on delete set null,
  notes text,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);
create index if not exists idx_recommendations_entity on recommendations (entity_type, entity_id);
create index if not exists idx_recommendations_type on recommendations (recommendation_type);
create index if not exists idx_recommendations_status on recommendations (status);
create index if not exists idx_recommendations_pending on recommendations (status) where status = 'PENDING';
create index if not exists idx_recommendations_generated on recommendations (generated_at desc);

create table if not exists recommendation_events (
  id serial primary key,
  recommendation_id integer not null references recommendations (id) on delete cascade,
  event_type recommendation_event_type not null,
  job_id integer references jobs (id) on delete set null,
  details_json jsonb,
  reason text,
  created_by varchar(100) default 'system',
  created_at timestamp default current_timestamp
);
create index if not exists idx_rec_events_recommendation on recommendation_events (recommendation_id);
create index if not exists idx_rec_events_type on recommendation_events (event_type);
create index if not exists idx_rec_events_created on recommendation_events (created_at);
