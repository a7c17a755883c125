//! Ledger counts of a fleet's database: everything that must be equal with and without faults.

use sqlx::PgPool;
use std::collections::BTreeMap;
use vinops::db::digest::{DataDigest, compute_digest};

/// The digest, and row counts by name.
#[derive(Debug, PartialEq)]
pub struct LedgerCounts {
    pub digest: DataDigest,
    pub counts: BTreeMap<String, i64>,
}

const COUNTS_QUERY: &str = "
select 'window ' || state, count(*) from fleet.windows group by state
union all select 'job ' || kind || ' ' || state, count(*) from fleet.jobs group by kind, state
union all select 'runs that ended a job', count(*) from fleet.job_attempts where outcome = 'done'
union all select 'leases', count(*) from fleet.jobs where lease_until is not null or locked_by is not null
union all select 'attempts beyond the first', coalesce(sum(attempt - 1), 0) from fleet.jobs
union all select 'files ' || state, count(*) from raw.csv_files group by state
union all select 'runs of files ' || status, count(*) from audit.etl_runs group by status
union all select 'row versions', count(*) from raw.rows
union all select 'manifests', count(*) from raw.manifests
union all select 'heads', count(*) from raw.heads
union all select 'staged', count(*) from staging.copart_raw
union all select 'parse errors', count(*) from audit.parse_errors
union all select 'skipped', count(*) from audit.skipped_lots
union all select 'unknown spellings', coalesce(sum(occurrences), 0)::bigint from audit.unknown_taxonomy_values
union all select 'vin conflicts', count(*) from audit.vin_conflicts
union all select 'vehicle changes', count(*) from audit.vehicle_conflicts
union all select 'lot changes', count(*) from audit.lot_conflicts
union all select 'transitions', count(*) from audit.status_transitions
union all select 'images', count(*) from public.images
union all select 'lots ' || status, count(*) from public.lots group by status";

impl LedgerCounts {
    pub async fn read(pool: &PgPool) -> LedgerCounts {
        let counts: Vec<(String, i64)> = sqlx::query_as(COUNTS_QUERY).fetch_all(pool).await.unwrap();
        LedgerCounts { digest: compute_digest(pool).await.unwrap(), counts: counts.into_iter().collect() }
    }
}
