//! Tests of the operator commands on taxonomies, with a database that has lots.

use super::*;
use crate::testing::migrated_database;
use sqlx::PgPool;

fn test_actor() -> Actor {
    Actor { who: "nana".to_owned(), why: "the feed has learnt a word".to_owned() }
}

/// Inserts three lots: one with a known value, and two with the same unknown value in two forms. Both forms are
/// recorded as unknown.
async fn insert_goat_lots(pool: &PgPool) {
    sqlx::raw_sql(
        "insert into vehicles (vin, vin_raw) values ('1HGCM82633A004352', '1HGCM82633A004352');
        insert into lots (vin, lot_external_id, damage_description, damage_code, secondary_damage)
        values
          ('1HGCM82633A004352', '1', 'FRONT END', 'damage_front_end', null),
          ('1HGCM82633A004352', '2', 'EATEN BY GOAT', null, 'SIDE'),
          ('1HGCM82633A004352', '3', 'SIDE', 'damage_side', 'Eaten-by goat');
        insert into audit.unknown_taxonomy_values (domain, raw_value, occurrences)
        values ('damage_types', 'EATEN BY GOAT', 3), ('damage_types', 'Eaten-by goat', 1), ('colors', 'OCTARINE', 7)",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_mapped_spelling_codes_its_rows_and_is_unknown_no_more() {
    let test = migrated_database().await;
    let pool = &test.db.pool;
    insert_goat_lots(pool).await;
    let occurrences = |unknown: Vec<UnknownValue>| -> Vec<(String, i64)> {
        unknown.into_iter().map(|u| (u.raw_value, u.occurrences)).collect()
    };
    let word = |word: &str, n| (word.to_owned(), n);
    assert_eq!(
        occurrences(unknown_values(pool, None, 10).await.unwrap()),
        [word("OCTARINE", 7), word("EATEN BY GOAT", 3), word("Eaten-by goat", 1)]
    );
    let mut connection = pool.acquire().await.unwrap();
    for (round, lots, known_now) in [(0, 2, 2), (1, 0, 0)] {
        let mapped =
            map_alias(&mut connection, TaxonomyDomain::DamageTypes, "eaten by GOAT", "damage_vandalism", &test_actor())
                .await
                .unwrap();
        assert_eq!(mapped.before, (round == 1).then(|| "damage_vandalism".to_owned()));
        assert_eq!((mapped.lots, mapped.known_now.len()), (lots, known_now));
    }
    let codes: Vec<(Option<String>, Option<String>)> =
        sqlx::query_as("select damage_code, secondary_damage_code from lots order by lot_external_id")
            .fetch_all(pool)
            .await
            .unwrap();
    let code = |code: &str| Some(code.to_owned());
    assert_eq!(
        codes,
        [
            (code("damage_front_end"), None),
            (code("damage_vandalism"), None),
            (code("damage_side"), code("damage_vandalism")),
        ]
    );
    assert_eq!(occurrences(unknown_values(pool, Some(TaxonomyDomain::DamageTypes), 10).await.unwrap()), []);
    assert_eq!(
        occurrences(unknown_values(pool, Some(TaxonomyDomain::Colors), 10).await.unwrap()),
        [word("OCTARINE", 7)]
    );
    let aliases = load_aliases(&mut connection).await.unwrap();
    assert_eq!(aliases.find_code(TaxonomyDomain::DamageTypes, "Eaten by goat!"), Some("damage_vandalism"));
    crate::db::seed::apply_seeds(&mut connection).await.unwrap();
    let acts: i64 = sqlx::query_scalar("select count(*) from audit.operator_actions where who = 'nana'")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(acts, 2);
}

#[tokio::test]
async fn a_code_that_is_not_there_is_refused_and_nothing_is_mapped() {
    let test = migrated_database().await;
    insert_goat_lots(&test.db.pool).await;
    let mut connection = test.db.pool.acquire().await.unwrap();
    for (raw, code, why) in [
        (
            "EATEN BY GOAT",
            "damage_goat",
            "unknown code \"damage_goat\" in taxonomy damage_types\nhint: `vinops taxonomy export --domain damage_types`",
        ),
        ("EATEN BY GOAT", "color_white", "unknown code \"color_white\" in taxonomy damage_types"),
        ("--", "damage_side", "neither letters nor digits"),
        (&"goat".repeat(40), "damage_side", "is longer than 128 bytes"),
    ] {
        let error =
            map_alias(&mut connection, TaxonomyDomain::DamageTypes, raw, code, &test_actor()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error:#}");
    }
    let spelled = load_aliases(&mut connection).await.unwrap();
    assert_eq!(spelled.find_code(TaxonomyDomain::DamageTypes, "EATEN BY GOAT"), None);
}

#[tokio::test]
async fn an_operator_may_teach_the_vocabulary_with_no_right_beyond_his_role() {
    let test = migrated_database().await;
    insert_goat_lots(&test.db.pool).await;
    let mut connection = test.db.pool.acquire().await.unwrap();
    sqlx::query("set role vinops_ops").execute(&mut *connection).await.unwrap();
    map_alias(&mut connection, TaxonomyDomain::DamageTypes, "EATEN BY GOAT", "damage_side", &test_actor())
        .await
        .unwrap();
    let labels = read_labels(&test.db.pool, Some(TaxonomyDomain::Colors)).await.unwrap();
    let edited = LabelRow { ru: "Снежный".to_owned(), ..labels[0].clone() };
    assert_eq!(import_labels(&mut connection, &[edited], &test_actor()).await.unwrap(), 1);
    sqlx::query("reset role").execute(&mut *connection).await.unwrap();
}

#[tokio::test]
async fn labels_come_back_as_the_translator_left_them_all_or_none() {
    let test = migrated_database().await;
    let pool = &test.db.pool;
    let mut connection = pool.acquire().await.unwrap();
    let before = read_labels(pool, None).await.unwrap();
    assert_eq!(import_labels(&mut connection, &before, &test_actor()).await.unwrap(), 0, "nothing has been edited");
    let mut edited = before.clone();
    for label in edited.iter_mut().filter(|label| label.code == "title_rb") {
        label.ru = format!("{} ✓", label.ru);
        label.needs_review = false;
    }
    let mut wrong = edited.clone();
    wrong.push(LabelRow { code: "color_octarine".to_owned(), domain: "colors".to_owned(), ..wrong[0].clone() });
    let error = import_labels(&mut connection, &wrong, &test_actor()).await.unwrap_err();
    assert!(error.to_string().contains("unknown code \"color_octarine\" in domain colors"), "{error:#}");
    assert_eq!(read_labels(pool, None).await.unwrap(), before);
    assert_eq!(
        import_labels(&mut connection, &edited, &test_actor()).await.unwrap(),
        2,
        "the general label and that of Florida"
    );
    crate::db::seed::apply_seeds(&mut connection).await.unwrap();
    assert_eq!(read_labels(pool, None).await.unwrap(), edited, "a seeding leaves what was imported");
}
