//! One VIN rule, two implementations: `auction::vin` for what comes in, the SQL function for operators and checks.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vinops::auction::vin::{Vin, classify, normalize_vin};
use vinops::testing::database;

#[tokio::test]
async fn the_vin_rule_is_the_same_in_rust_and_in_sql_for_any_text() {
    let test = database().await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let texts = prop_oneof![
        any::<String>(),
        "[ \t\n\r\x0b\x0c\u{a0}]{0,3}[a-zA-Z0-9]{8,20}[ \t\n\r\x0b\x0c\u{2003}]{0,3}",
        "[ioqIOQ ıİſKéßǆ]{0,9}[A-Z0-9]{9,14}[ioqIOQ ]{0,4}",
    ];
    let mut draw = || texts.new_tree(&mut runner).unwrap().current().replace('\0', "");
    let raws: Vec<String> = (0..4000).map(|_| draw()).collect();
    // one round trip: what SQL makes of each, and whether the tables' check takes it
    let told: Vec<(String, bool)> = sqlx::query_as(
        "select normalize_vin(raw), normalize_vin(raw) ~ '^[A-HJ-NPR-Z0-9]{11,17}$'
        from unnest($1::text[]) with ordinality as u (raw, n) order by n",
    )
    .bind(&raws)
    .fetch_all(&test.db.pool)
    .await
    .unwrap();
    let mut valid = 0;
    for (raw, (normalized, fits)) in raws.iter().zip(told) {
        assert_eq!(normalize_vin(raw), normalized, "of {raw:?}");
        assert_eq!(matches!(classify(raw), Vin::Valid(_)), fits, "of {raw:?}");
        valid += usize::from(fits);
    }
    assert!(valid > 300 && valid < raws.len() - 300, "{valid} of the texts are VINs");
}
