//! The runbook's values, in `runbook/`, compared with the database. `foreign_keys.txt` has one reference more, which
//! the runbook's table of risks promises (jobs to asin_entities).

use super::ListingFixture;
use vinops::db::listing::{VERBATIM_ROLLBACKS, rollback_objects};
use vinops::db::migrations::LISTING_SET;

#[tokio::test]
async fn enums_have_the_runbooks_words_in_its_order() {
    let fixture = ListingFixture::migrated().await;
    for line in include_str!("runbook/enums.txt").lines() {
        let (name, range) = line.split_once(' ').unwrap();
        assert_eq!(fixture.query_text(&format!("select enum_range(null::{name})::text")).await, range, "{name}");
    }
    // section 9: all custom types
    let types = "select string_agg(typname, chr(10) order by typname) from pg_type
        where typnamespace = (select oid from pg_namespace where nspname = 'listing') and typtype = 'e'";
    assert_eq!(fixture.query_text(types).await, include_str!("runbook/types.txt").trim());
}

#[tokio::test]
async fn tables_have_the_runbooks_columns_in_its_order() {
    let fixture = ListingFixture::migrated().await;
    for line in include_str!("runbook/columns.txt").lines() {
        let (table, columns) = line.split_once(' ').unwrap();
        let query = format!(
            "select string_agg(column_name, ', ' order by ordinal_position) from information_schema.columns
             where table_schema = current_schema() and table_name = '{table}'"
        );
        assert_eq!(fixture.query_text(&query).await, columns, "{table}");
    }
}

#[tokio::test]
async fn references_are_those_that_the_runbook_lists() {
    let fixture = ListingFixture::migrated().await;
    let query =
        "select string_agg(concat_ws(' ', conname, conrelid::regclass, confrelid::regclass), chr(10) order by conname)
        from pg_constraint
        where contype = 'f' and conrelid::regclass::text in ('boms','jobs','recommendations')";
    assert_eq!(fixture.query_text(query).await, include_str!("runbook/foreign_keys.txt").trim());
}

/// Returns the object that a line of the runbook's own statements removes, as the ledger names it.
fn object_name(statement: &str) -> Option<String> {
    let words: Vec<&str> = statement.trim_end_matches(';').split_whitespace().collect();
    match words.as_slice() {
        ["drop", kind, "if", "exists", name, ..] => Some(format!("{kind} {name}")),
        ["alter", "table", table, "drop", kind, "if", "exists", name] => Some(format!("{kind} {table}.{name}")),
        _ => None,
    }
}

#[test]
fn the_ways_back_take_things_away_in_the_runbooks_order() {
    for migration in LISTING_SET.migrations.iter().filter(|migration| ("001"..="004").contains(&migration.id)) {
        let lines = include_str!("runbook/rollback.txt").lines();
        let of = lines.filter_map(|line| line.strip_prefix(migration.id)).map(str::trim);
        let of: Vec<String> = of.map(str::to_owned).collect();
        let ours = rollback_objects(migration).into_iter().map(str::to_owned);
        let ours: Vec<String> = ours.filter(|thing| of.contains(thing)).collect();
        assert_eq!(ours, of, "{}", migration.id);
        let letter = VERBATIM_ROLLBACKS.iter().find(|(id, _)| *id == migration.id).unwrap().1;
        assert_eq!(letter.lines().filter_map(object_name).collect::<Vec<_>>(), of, "{} to the letter", migration.id);
    }
}

#[tokio::test]
async fn slices_go_back_in_the_runbooks_order() {
    let fixture = ListingFixture::migrated().await;
    let said = fixture.migrate(&["down", "--to", "000"]).await;
    let order = ["005_worker", "004_slice_d_schema", "003_slice_c_schema", "002_slice_b_schema", "001_slice_a_schema"];
    assert_eq!(said, order.map(|stem| format!("rolled back {stem}\n")).concat());
}
