-- Removes what 004 added, by the ledger, in the runbook's order. Nothing cascades.
select vinops.take_back('004', array[
  'table recommendation_events',
  'table recommendations',
  'type recommendation_event_type',
  'type recommendation_status',
  'type recommendation_type',
  'type confidence_band'
]);
