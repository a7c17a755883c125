//! `vinops verify listing`: its output, its rollback of all changes, and its output for a database that is not ready.

use super::{ListingFixture, SAMPLE_LISTINGS};
use vinops::db::listing::verify::{OVERALL, VERDICT_ROWS};

#[tokio::test]
async fn a_migrated_database_gets_the_runbooks_verdict() {
    let fixture = ListingFixture::migrated().await;
    let said = fixture.run_vinops(&["verify", "listing"]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    let lines: Vec<&str> = said.out.lines().filter(|line| line.starts_with("PASS ")).collect();
    assert_eq!(lines.len(), 39, "{}", said.out);
    assert!(lines.iter().all(|line| line.contains(" (") && line.ends_with(')')), "each has its evidence");
    let rows: Vec<&str> = said.out.lines().filter(|line| line.starts_with('│')).skip(1).collect();
    for (row, name) in rows.iter().zip(VERDICT_ROWS.into_iter().chain([OVERALL])) {
        assert!(row.contains(name) && row.contains("PASS"), "{row}");
    }
    assert_eq!(rows.len(), 9);
    // `vinops migrate verify` is the same
    assert_eq!(fixture.migrate(&["verify"]).await, said.out);

    let report = fixture.verify().await;
    assert_eq!(report["verdict"].as_array().unwrap().len(), 9);
    assert_eq!(report["verdict"][8], serde_json::json!({"check": "Overall", "status": "PASS"}));
    assert_eq!(report["checks"][16]["line"], 17);
    let margins = report["checks"][24]["evidence"].as_str().unwrap();
    assert!(margins.contains("a margin outside -1..1 is flagged, not rejected"), "{margins}");
}

/// Returns all objects, rows and sequence values of the schema, the registry and the ledger.
async fn dump_database(fixture: &ListingFixture) -> String {
    let mut all = fixture.describe_schema().await;
    let tables = "select string_agg(quote_ident(schemaname) || '.' || quote_ident(tablename), ' ' order by 1)
        from pg_tables where schemaname in ('listing', 'vinops')";
    for table in fixture.query_text(tables).await.split(' ') {
        let rows =
            format!("select '{table} ' || coalesce(string_agg(t::text, chr(10) order by t::text), '') from {table} t");
        all += &fixture.query_text(&rows).await;
    }
    let sequences =
        "select string_agg(concat_ws(' ', schemaname, sequencename, coalesce(last_value::text, 'never drawn')),
        chr(10) order by sequencename) from pg_sequences";
    let sequences = fixture.query_text(sequences).await;
    assert!(sequences.lines().count() > 20, "{sequences}");
    let schemas = "select string_agg(nspname, ' ' order by nspname) from pg_namespace where nspname not like 'pg\\_%'";
    all + &sequences + &fixture.query_text(schemas).await
}

#[tokio::test]
async fn it_leaves_no_trace_not_even_in_a_sequence() {
    let fixture = ListingFixture::migrated().await;
    fixture
        .run_statements(
            &SAMPLE_LISTINGS
                .replace("sku,", "seller_sku,")
                .replace("price, quantity", "price_inc_vat, available_quantity"),
        )
        .await;
    // missing, so that the rehearsed run inserts it
    fixture
        .run_statements("delete from settings where key = 'default_vat_rate'; delete from marketplaces where false")
        .await;
    let before = dump_database(&fixture).await;
    let report = fixture.verify().await;
    let failed: Vec<_> = report["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let after = dump_database(&fixture).await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_database_without_a_listing_helper_is_told_the_way() {
    let fixture = ListingFixture::new().await;
    let said = fixture.run_vinops(&["verify", "listing"]).await;
    let way = "error: the database has no listing helper\nhint: run `vinops migrate --set listing up`\n";
    assert_eq!((said.code, said.err.as_str()), (Some(3), way));
    fixture.migrate(&["up", "--to", "002"]).await;
    let said = fixture.run_vinops(&["verify", "listing"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("FAIL 08 003 created its five tables (table asin_entities is missing"), "{}", said.out);
    assert!(said.out.contains("PASS 18 "), "what is there passes");
}

#[tokio::test]
async fn somebody_elses_lock_makes_verify_give_way_and_say_so() {
    let fixture = ListingFixture::migrated().await;
    let mut holder = fixture.pool().begin().await.unwrap();
    sqlx::raw_sql("lock table listing.recommendations in row exclusive mode").execute(&mut *holder).await.unwrap();
    let report = fixture.verify().await;
    let failed = report["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false);
    for check in failed.clone() {
        assert!(check["evidence"].as_str().unwrap().contains("lock timeout"), "{check}");
    }
    let lines: Vec<_> = failed.map(|check| check["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [12, 29, 30, 31, 32, 34]);
    // the holder of the lock continues
    sqlx::raw_sql("update listing.recommendations set notes = ''").execute(&mut *holder).await.unwrap();
    holder.commit().await.unwrap();
    assert_eq!(fixture.verify().await["ok"], true);
}

#[tokio::test]
async fn the_auctions_proof_is_the_one_of_migrate_verify() {
    let test = vinops::testing::migrated_database().await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_vinops"));
        command.args(arguments).env_clear().env("DATABASE_URL", &test.url).env("HOME", "/nonexistent");
        super::process_output(command.output().await.unwrap())
    };
    let (one, other) = (run(&["verify", "auction"]).await, run(&["migrate", "verify"]).await);
    assert_eq!((one.code, &one.out), (Some(0), &other.out), "{}", one.err);
    assert!(one.out.ends_with(" passed, 0 failed\n"));
}
