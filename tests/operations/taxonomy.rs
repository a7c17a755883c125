//! Raw values that operators map, and labels that are exported to a translator and imported again.

use crate::cli_fixture::CliFixture;
use std::process::Output;

/// Runs a command that must succeed. Returns its standard output.
async fn run_successfully(fixture: &CliFixture, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = fixture.vinops_command(arguments).output().await.unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs a command. Returns its exit code and standard error.
async fn run_failing(fixture: &CliFixture, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = fixture.vinops_command(arguments).output().await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn an_unknown_spelling_is_listed_until_it_is_mapped() {
    let fixture = CliFixture::new().await;
    assert_eq!(run_successfully(&fixture, &["taxonomy", "unknown"]).await, "every value has a code\n");
    sqlx::raw_sql(
        "insert into audit.unknown_taxonomy_values (domain, raw_value, occurrences)
        values ('fuel_types', 'FLEX FUEL', 2), ('colors', 'OCTARINE', 3)",
    )
    .execute(fixture.pool())
    .await
    .unwrap();
    let table = run_successfully(&fixture, &["taxonomy", "unknown"]).await;
    let places = ["OCTARINE", "FLEX FUEL"].map(|word| table.find(word).unwrap());
    assert!(places.is_sorted(), "the most frequent comes first: {table}");
    let one = run_successfully(&fixture, &["taxonomy", "unknown", "--domain", "fuel_types", "--json"]).await;
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one.as_array().unwrap().len(), &one[0]["raw_value"]), (1, &"FLEX FUEL".into()));

    let (code, why) = run_failing(&fixture, &["taxonomy", "map", "fuel_types", "flex-fuel", "fuel_goat"]).await;
    assert_eq!((code, why.contains("unknown code \"fuel_goat\" in taxonomy fuel_types")), (Some(1), true), "{why}");
    let (code, why) = run_failing(&fixture, &["taxonomy", "map", "fuels", "flex-fuel", "fuel_flex"]).await;
    assert_eq!(
        (code, why.contains("unknown domain \"fuels\"; expected one of damage_types, title_types")),
        (Some(2), true),
        "{why}"
    );
    let said = run_successfully(&fixture, &["taxonomy", "map", "fuel_types", "flex-fuel", "fuel_flex"]).await;
    assert_eq!(said, "fuel_types: \"flex-fuel\" is mapped to fuel_flex; 0 lots recoded\n");
    assert!(!run_successfully(&fixture, &["taxonomy", "unknown"]).await.contains("FLEX FUEL"));
}

#[tokio::test]
async fn labels_go_to_a_translator_and_come_back_and_migrating_leaves_them() {
    let fixture = CliFixture::new().await;
    let path = fixture.folder.path().join("colors.csv");
    let file = path.to_str().unwrap();
    run_successfully(&fixture, &["taxonomy", "export", "--domain", "colors", "--out", file]).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("domain,code,state,en,ru,needs_review\ncolors,color_white,,White,Белый,false\n"),
        "{text}"
    );
    assert_eq!(run_successfully(&fixture, &["taxonomy", "import", file]).await, "25 labels read, 0 changed\n");
    std::fs::write(&path, text.replace("Белый", "Белоснежный")).unwrap();
    assert_eq!(run_successfully(&fixture, &["taxonomy", "import", file]).await, "25 labels read, 1 changed\n");
    run_successfully(&fixture, &["migrate", "up"]).await;
    assert!(run_successfully(&fixture, &["taxonomy", "export"]).await.contains("Белоснежный"));

    std::fs::write(&path, "domain,code\ncolors,color_white\n").unwrap();
    let (code, why) = run_failing(&fixture, &["taxonomy", "import", file]).await;
    assert_eq!((code, why.contains("`vinops taxonomy export` writes the expected columns")), (Some(2), true), "{why}");
}
