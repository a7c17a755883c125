-- Removes what 001 added, by the ledger, in the runbook's order. Nothing cascades, so the reference to marketplaces is
-- dropped first. The three renamed columns keep their names and values (`down --restore-names` restores the old names).
-- Settings are deleted only if they still have their seeded value.
select vinops.take_back('001', array[
  'constraint listings.listings_marketplace_id_fkey',
  'index idx_listings_marketplace',
  'index idx_listings_seller_sku',
  'table listing_cost_overrides',
  'table bom_lines',
  'table boms',
  'table components',
  'table suppliers',
  'table marketplaces',
  'type bom_scope_type',
  'column listings.marketplace_id',
  'setting guardrails.min_margin',
  'setting guardrails.max_price_change_pct_per_day',
  'setting guardrails.min_days_of_cover_before_price_change',
  'setting guardrails.min_stock_threshold',
  'setting default_vat_rate'
]);
