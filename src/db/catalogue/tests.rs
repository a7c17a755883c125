use super::*;
use crate::taxonomy::TaxonomyDomain;
use crate::testing::migrated_database;
use std::sync::Mutex;

fn sample_file(hour: u32) -> FileOfWindow {
    let window_start_utc = format!("2026-03-06T{hour}:00:00Z").parse().unwrap();
    FileOfWindow { source: "copart".to_owned(), window_start_utc, sha256: "ab".repeat(32) }
}

fn test_author() -> ActionAuthor {
    ActionAuthor { operator: "nana".to_owned(), reason: "a test".to_owned() }
}

fn sample_actions() -> Vec<CatalogueAction> {
    let receipt = CatalogueAction::Receipt {
        file: sample_file(17),
        path: "raw/copart/2026/03/06/1700.csv.zst".to_owned(),
        packed_sha256: None,
        bytes: 5_000_000_000,
        stored_bytes: Some(2),
        etag: Some("\"1\"".to_owned()),
        last_modified: Some("2026-03-06T17:02:00Z".parse().unwrap()),
    };
    let label = LabelRow {
        domain: TaxonomyDomain::Colors.name().to_owned(),
        code: "color_white".to_owned(),
        state: String::new(),
        en: "White".to_owned(),
        ru: "Белый".to_owned(),
        needs_review: false,
    };
    vec![
        receipt,
        CatalogueAction::Repeat { file: sample_file(18) },
        CatalogueAction::Accept { file: sample_file(18), author: test_author() },
        CatalogueAction::Withdrawal { file: sample_file(18), author: test_author() },
        CatalogueAction::AcceptSize { source: "copart".to_owned(), author: test_author() },
        CatalogueAction::Mapping {
            domain: "damage_types".to_owned(),
            spelling: "eaten by goat".to_owned(),
            code: "damage_vandalism".to_owned(),
            author: test_author(),
        },
        CatalogueAction::Labels { labels: vec![label], author: test_author() },
    ]
}

/// Returns the entries in the order of their puts.
async fn put_all(pool: &PgPool) -> Vec<CatalogueEntry> {
    let objects = Mutex::new(Vec::new());
    let put = |key: String, body| {
        objects.lock().unwrap().push(CatalogueEntry::parse(&key, body).unwrap());
        std::future::ready(Ok(()))
    };
    write_pending_entries(pool, put).await.unwrap();
    objects.into_inner().unwrap()
}

#[tokio::test]
async fn every_act_is_read_back_as_it_was_noted_in_the_order_of_its_key() {
    let test = migrated_database().await;
    let pool = &test.db.pool;
    let mut conn = pool.acquire().await.unwrap();
    for act in sample_actions() {
        record_action(&mut conn, &act).await.unwrap();
    }
    let found = put_all(pool).await;
    assert_eq!(found.iter().map(|entry| entry.act.clone()).collect::<Vec<_>>(), sample_actions());
    assert!(found.is_sorted_by(|a, b| a.key < b.key && a.at < b.at), "{found:?}");
    assert_eq!(put_all(pool).await, [], "nothing is put twice");
}

#[tokio::test]
async fn an_act_that_is_rolled_back_and_one_that_is_repeated_by_a_rebuild_are_not_noted() {
    let test = migrated_database().await;
    let pool = &test.db.pool;
    let mut tx = pool.begin().await.unwrap();
    record_action(&mut tx, &sample_actions()[1]).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    begin_rebuilding(&mut tx).await.unwrap();
    record_action(&mut tx, &sample_actions()[1]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(put_all(pool).await, []);
    record_action(&mut pool.acquire().await.unwrap(), &sample_actions()[1]).await.unwrap();
    assert_eq!(put_all(pool).await.len(), 1, "the switch ends with its transaction");
}

#[tokio::test]
async fn a_put_that_fails_is_tried_again_by_the_next_step() {
    let test = migrated_database().await;
    let pool = &test.db.pool;
    let mut conn = pool.acquire().await.unwrap();
    for act in sample_actions() {
        record_action(&mut conn, &act).await.unwrap();
    }
    let puts = Mutex::new(0);
    let put = |_, _| {
        let mut puts = puts.lock().unwrap();
        *puts += 1;
        std::future::ready(if *puts < 3 { Ok(()) } else { Err(anyhow::anyhow!("the store is away")) })
    };
    let error = write_pending_entries(pool, put).await.unwrap_err();
    assert_eq!(error.to_string(), "the store is away");
    assert_eq!(put_all(pool).await.len(), sample_actions().len() - 2);
}

#[tokio::test]
async fn what_is_hidden_by_a_statement_is_noted_by_the_trigger() {
    let test = migrated_database().await;
    let pool = &test.db.pool;
    sqlx::raw_sql(
        "insert into vehicles (vin) values ('1HGCM82633A004352');
        insert into lots (vin, lot_external_id, source, status) values ('1HGCM82633A004352', '7', 'copart', 'active');
        insert into images (vin, lot_id, seq, variant, source_url)
          select vin, id, 1, 'listing', 'https://x/1.jpg' from lots;
        update lots set is_removed = is_removed;
        update lots set is_removed = true;
        update images set is_removed = true;
        update vehicles set is_removed = true;
        update lots set is_removed = false",
    )
    .execute(pool)
    .await
    .unwrap();
    let found = put_all(pool).await.into_iter().map(|entry| match entry.act {
        CatalogueAction::Removal { removed, vin, source, lot, image, variant, .. } => {
            let parts = [vin, source, lot, image, variant].into_iter().flatten().collect::<Vec<_>>();
            format!("{removed} {}", parts.join(" "))
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            "true copart 7",
            "true 1HGCM82633A004352 copart 7 https://x/1.jpg listing",
            "true 1HGCM82633A004352",
            "false copart 7",
        ]
    );
}

#[test]
fn an_object_of_another_version_is_refused_and_a_field_that_is_new_is_not() {
    let object = |version: u32, kind: &str| {
        format!(
            r#"{{"version":{version},"kind":"{kind}","at":"2026-03-06T17:00:00.000001Z","source":"copart","new":1,
            "operator":"nana","reason":"x"}}"#
        )
    };
    assert!(CatalogueEntry::parse("k", object(1, "accept_size")).is_ok());
    let error = CatalogueEntry::parse("k", object(2, "accept_size")).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error:#}");
    assert!(CatalogueEntry::parse("k", object(1, "accept_colour")).is_err());
}
