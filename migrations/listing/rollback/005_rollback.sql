-- Takes back what 005 added here, by the ledger. What was granted stays: it goes with the tables, and the base stays theirs
-- to read.
select vinops.take_back('005', array[
  'view flagged_margins',
  'constraint feature_store.feature_store_bom_cost_ck',
  'constraint jobs.jobs_attempts_ck',
  'index jobs_pending_unique',
  'index boms_asin_version_unique',
  'constraint boms.boms_owner_ck',
  'table job_leases'
]);
