-- Removes what 002 added, by the ledger, in the runbook's order. Nothing cascades. Of the settings only its own is
-- deleted, and only if it still has its seeded value: the other four belong to 001, and an edited one is the
-- operator's.
select vinops.take_back('002', array[
  'table fee_snapshots',
  'table listing_offer_current',
  'table listing_events',
  'table jobs',
  'type listing_event_type',
  'type buy_box_status_type',
  'type job_scope_type',
  'type job_status',
  'type job_type',
  'column listings.status',
  'column listings.fulfillment_channel',
  'column listings.category',
  'setting guardrails.allow_price_below_break_even'
]);
