-- 002_slice_b_schema
-- purpose: slice B: jobs, events of a listing, its current offer and its fee snapshots
-- depends: 001
-- needs: table listings, table settings, table boms, table marketplaces
-- rollback: destructive
-- creates: jobs, listing_events, listing_offer_current, fee_snapshots, job_type, job_status, job_scope_type, buy_box_status_type, listing_event_type

do $$
begin
  if to_regtype('job_type') is null then
    create type job_type as enum (
      'SYNC_AMAZON_OFFER',
      'SYNC_AMAZON_SALES',
      'SYNC_AMAZON_CATALOG',
      'SYNC_KEEPA_ASIN',
      'COMPUTE_FEATURES_LISTING',
      'COMPUTE_FEATURES_ASIN',
      'GENERATE_RECOMMENDATIONS_LISTING',
      'GENERATE_RECOMMENDATIONS_ASIN',
      'PUBLISH_PRICE_CHANGE',
      'PUBLISH_STOCK_CHANGE'
    );
  end if;
  if to_regtype('job_status') is null then
    create type job_status as enum ('PENDING', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED');
  end if;
  if to_regtype('job_scope_type') is null then
    create type job_scope_type as enum ('LISTING', 'ASIN', 'GLOBAL');
  end if;
  if to_regtype('buy_box_status_type') is null then
    create type buy_box_status_type as enum ('WON', 'LOST', 'UNKNOWN');
  end if;
  if to_regtype('listing_event_type') is null then
    create type listing_event_type as enum (
      'PRICE_CHANGE_DRAFTED',
      'PRICE_CHANGE_PUBLISHED',
      'PRICE_CHANGE_SUCCEEDED',
      'PRICE_CHANGE_FAILED',
      'STOCK_CHANGE_DRAFTED',
      'STOCK_CHANGE_PUBLISHED',
      'STOCK_CHANGE_SUCCEEDED',
      'STOCK_CHANGE_FAILED',
      'BOM_UPDATED',
      'COST_OVERRIDE_UPDATED',
      'AMAZON_SYNC_COMPLETED',
      'KEEPA_SYNC_COMPLETED',
      'FEATURES_COMPUTED',
      'LISTING_CREATED',
      'LISTING_ARCHIVED'
    );
  end if;
end
$$;

-- The base has the first and the last of these columns. The ledger then records that this slice did not add them.
alter table listings
  add column if not exists status varchar(20) default 'active',
  add column if not exists fulfillment_channel varchar(10) default 'FBM',
  add column if not exists category varchar(100);

-- 003 adds the foreign key of asin_entity_id with its table.
create table if not exists jobs (
  id serial primary key,
  job_type job_type not null,
  scope_type job_scope_type not null default 'LISTING',
  listing_id integer references listings (id) on delete set null,
  asin_entity_id integer,
  status job_status not null default 'PENDING',
  priority integer default 5 check (priority between 1 and 10),
  attempts integer default 0,
  max_attempts integer default 5,
  input_json jsonb,
  result_json jsonb,
  log_json jsonb default '[]',
  error_message text,
  scheduled_for timestamp default current_timestamp,
  started_at timestamp,
  finished_at timestamp,
  created_by varchar(100) default 'system',
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);
create index if not exists idx_jobs_status on jobs (status);
create index if not exists idx_jobs_type on jobs (job_type);
create index if not exists idx_jobs_listing on jobs (listing_id);
create index if not exists idx_jobs_created on jobs (created_at);
create index if not exists idx_jobs_scheduled on jobs (scheduled_for) where status = 'PENDING';

create table if not exists listing_events (
  id serial primary key,
  listing_id integer not null references listings (id) on delete cascade,
  event_type listing_event_type not null,
  job_id integer references jobs (id) on delete set null,
  before_json jsonb,
  after_json jsonb,
  reason text,
  correlation_id varchar(100),
  created_by varchar(100) default 'system',
  created_at timestamp default current_timestamp
);
create index if not exists idx_listing_events_listing on listing_events (listing_id);
create index if not exists idx_listing_events_type on listing_events (event_type);
create index if not exists idx_listing_events_job on listing_events (job_id);
create index if not exists idx_listing_events_created on listing_events (created_at);
create index if not exists idx_listing_events_correlation on listing_events (correlation_id)
  where correlation_id is not null;

create table if not exists listing_offer_current (
  listing_id integer primary key references listings (id) on delete cascade,
  price_inc_vat numeric(12,2),
  available_quantity integer,
  buy_box_status buy_box_status_type default 'UNKNOWN',
  buy_box_percentage_30d numeric(5,2),
  buy_box_price numeric(12,2),
  is_buy_box_winner boolean,
  observed_at timestamp default current_timestamp,
  created_at timestamp default current_timestamp,
  updated_at timestamp default current_timestamp
);

create table if not exists fee_snapshots (
  id serial primary key,
  listing_id integer not null references listings (id) on delete cascade,
  price_inc_vat numeric(12,2) not null,
  referral_fee_ex_vat numeric(12,2),
  fba_fee_ex_vat numeric(12,2),
  variable_closing_fee_ex_vat numeric(12,2),
  per_item_fee_ex_vat numeric(12,2),
  total_fee_ex_vat numeric(12,2) not null,
  category varchar(100),
  fulfillment_channel varchar(10) default 'FBM',
  raw_json jsonb,
  captured_at timestamp default current_timestamp,
  created_at timestamp default current_timestamp
);
create index if not exists idx_fee_snapshots_listing on fee_snapshots (listing_id);
create index if not exists idx_fee_snapshots_captured on fee_snapshots (listing_id, captured_at desc);

-- Four of these settings belong to 001. Only the last one is new.
insert into settings (key, value, description)
values
  ('guardrails.min_margin', '0.15', 'minimum margin after a price change'),
  ('guardrails.max_price_change_pct_per_day', '0.05', 'maximum price change per day, as a fraction of the price'),
  ('guardrails.min_days_of_cover_before_price_change', '7', 'minimum days of cover before a price is reduced'),
  ('guardrails.min_stock_threshold', '5', 'stock level below which a warning is raised'),
  ('guardrails.allow_price_below_break_even', 'false', 'true if a price may be below cost')
on conflict (key) do nothing;
