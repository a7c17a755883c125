-- Takes back what 004 added here, by the ledger, in the runbook's order; nothing cascades.
select vinops.take_back('004', array[
  'table recommendation_events',
  'table recommendations',
  'type recommendation_event_type',
  'type recommendation_status',
  'type recommendation_type',
  'type confidence_band'
]);
