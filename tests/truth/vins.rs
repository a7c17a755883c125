//! One VIN rule, two implementations: `auction::vin` for the feed, the SQL function for operators and checks.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vinops::auction::blank::trim_blanks;
use vinops::auction::vin::{ParsedVin, classify_vin, normalize_vin};
use vinops::testing::migrated_database;

#[tokio::test]
async fn the_vin_rule_is_the_same_in_rust_and_in_sql_for_any_text() {
    let test = migrated_database().await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let texts = prop_oneof![
        any::<String>(),
        "[ \t\n\r\x0b\x0c\u{a0}]{0,3}[a-zA-Z0-9]{8,20}[ \t\n\r\x0b\x0c\u{2003}]{0,3}",
        "[\u{85}\u{a0}\u{1680}\u{180e}\u{2000}-\u{2010}\u{2026}-\u{2030}\u{205d}-\u{206a}\u{3000}\u{fefe}\u{feff}]{1,3}[A-Z0-9]{11,17}\u{200b}?",
        "[ioqIOQ ıİſKéßǆ]{0,9}[A-Z0-9]{9,14}[ioqIOQ ]{0,4}",
    ];
    let mut draw = || texts.new_tree(&mut runner).unwrap().current().replace('\0', "");
    let raws: Vec<String> = (0..4000).map(|_| draw()).collect();
    // one round trip: SQL's result for each, and whether the tables' check accepts it
    let output: Vec<(String, bool)> = sqlx::query_as(
        "select normalize_vin(raw), normalize_vin(raw) ~ '^[A-HJ-NPR-Z0-9]{11,17}$'
        from unnest($1::text[]) with ordinality as u (raw, n) order by n",
    )
    .bind(&raws)
    .fetch_all(&test.db.pool)
    .await
    .unwrap();
    let mut valid = 0;
    for (raw, (normalized, fits)) in raws.iter().zip(output) {
        assert_eq!(normalize_vin(raw), normalized, "of {raw:?}");
        assert_eq!(matches!(classify_vin(raw), ParsedVin::Valid(_)), fits, "of {raw:?}");
        valid += usize::from(fits);
    }
    // every character of the basic plane, as the one at both ends
    let ends: Vec<String> = ('\u{1}'..='\u{ffff}').map(|c| format!("{c}1HGCM82633A004352{c}")).collect();
    let differs: Vec<String> = sqlx::query_scalar(
        "select raw from unnest($1::text[], $2::text[]) as u (raw, trimmed)
        where public.trim_blanks(raw) <> trimmed or normalize_vin(raw) <> replace(replace(replace(upper(trimmed collate \"C\"), 'I', ''), 'O', ''), 'Q', '')",
    )
    .bind(&ends)
    .bind(ends.iter().map(|raw| trim_blanks(raw)).collect::<Vec<_>>())
    .fetch_all(&test.db.pool)
    .await
    .unwrap();
    assert_eq!(differs, Vec::<String>::new());
    assert!(valid > 300 && valid < raws.len() - 300, "{valid} of the texts are VINs");
}
