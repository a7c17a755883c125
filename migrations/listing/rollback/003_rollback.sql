-- Removes what 003 added, by the ledger, in the runbook's order. Nothing cascades. The column asin is dropped only
-- where 003 added it: most bases have the column, with values of their own.
select vinops.take_back('003', array[
  'constraint jobs.jobs_asin_entity_fk',
  'constraint boms.boms_asin_entity_fk',
  'index boms_asin_active_unique',
  'table feature_store',
  'table listing_sales_daily',
  'table amazon_catalog_snapshots',
  'table keepa_snapshots',
  'table asin_entities',
  'type feature_entity_type',
  'column listings.asin'
]);
