-- Removes what 005 added, by the ledger. The grants stay: they are dropped with the tables, and the roles keep their
-- right to read the base.
select vinops.take_back('005', array[
  'view flagged_margins',
  'constraint feature_store.feature_store_bom_cost_ck',
  'constraint jobs.jobs_attempts_ck',
  'index jobs_pending_unique',
  'index boms_asin_version_unique',
  'constraint boms.boms_owner_ck',
  'table job_leases'
]);
