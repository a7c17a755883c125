//! Pagination during writes: a lot that does not change is on exactly one page, whatever is inserted, deleted and
//! changed meanwhile. A seeded generator decides what is written between which pages. The last test runs a writer
//! concurrently.

use super::{ApiClient, plain_fixture, run_sql};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::PgPool;
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

const LOT_COUNT: i32 = 160;
/// Lots whose number is divisible by this never change.
const STILL: i32 = 2;

const SORT_ORDERS: [&str; 10] =
    ["sale_date", "-sale_date", "price", "-price", "year", "-year", "updated", "-updated", "lot", "-lot"];

/// Changes, adds or hides some of the lots that may change.
async fn write_changes(pool: &PgPool, dice: &mut StdRng, added: &mut i32) {
    for _ in 0..dice.random_range(1..5) {
        let lot = 1001 + STILL * dice.random_range(0..LOT_COUNT / STILL);
        let statement = match dice.random_range(0..5) {
            0 => format!(
                "update public.lots set current_bid_usd = {}, updated_at = now() where lot_external_id = '{lot}'",
                dice.random_range(0..60)
            ),
            1 => format!(
                "update public.lots set auction_datetime_utc = null, updated_at = now() where lot_external_id = '{lot}'"
            ),
            2 => format!(
                "update public.lots set auction_datetime_utc = '2026-03-01T00:00Z'::timestamptz + {} * interval '1 day', updated_at = now() where lot_external_id = '{lot}'",
                dice.random_range(0..12)
            ),
            3 => format!(
                "update public.vehicles set year = {} where vin = (select vin from public.lots where lot_external_id = '{lot}')",
                dice.random_range(1999..2022)
            ),
            // limited, because a walk with new lots behind its last page would never end
            _ if *added >= 400 => continue,
            _ => {
                *added += STILL;
                let number = 100_001 + *added;
                format!(
                    "insert into public.lots (lot_external_id, vin, source, status, auction_datetime_utc, current_bid_usd)
                    select '{number}', vin, 'copart', 'active', auction_datetime_utc, current_bid_usd from public.lots where lot_external_id = '{lot}'"
                )
            }
        };
        run_sql(pool, &statement).await;
    }
}

/// Returns how often the pages of one walk contained each lot that does not change.
async fn walk_pages(
    reader: &ApiClient,
    sort: &str,
    mut between: impl AsyncFnMut(usize) -> usize,
) -> BTreeMap<i64, usize> {
    let mut shown = BTreeMap::new();
    let (mut cursor, mut pages) = (String::new(), 0);
    loop {
        let limit = between(pages).await;
        let page = reader.get_json(&format!("/search?sort={sort}&limit={limit}{cursor}")).await;
        for lot in page["lots"].as_array().unwrap() {
            let number: i64 = lot["lot"].as_str().unwrap().parse().unwrap();
            if number < 100_000 && number % i64::from(STILL) == 0 {
                *shown.entry(number).or_default() += 1;
            }
        }
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return shown,
        }
    }
}

fn assert_each_once(shown: &BTreeMap<i64, usize>, sort: &str) {
    let still: BTreeSet<i64> = (1000..1000 + i64::from(LOT_COUNT)).filter(|lot| lot % i64::from(STILL) == 0).collect();
    let lost: Vec<_> = still.iter().filter(|lot| !shown.contains_key(lot)).collect();
    let repeated: Vec<_> = shown.iter().filter(|(_, times)| **times > 1).collect();
    assert!(lost.is_empty() && repeated.is_empty(), "{sort}: lost {lost:?}, repeated {repeated:?}");
}

#[tokio::test]
async fn a_lot_that_does_not_change_is_on_one_page_whatever_is_written_between_them() {
    let (test, reader) = plain_fixture(LOT_COUNT).await;
    let mut added = 0;
    for seed in 0..2 {
        for sort in SORT_ORDERS {
            let mut dice = StdRng::seed_from_u64(seed);
            let shown = walk_pages(&reader, sort, async |_| {
                write_changes(&test.db.pool, &mut dice, &mut added).await;
                // sometimes the lots in memory are behind the tables
                if dice.random_bool(0.8) {
                    reader.api.refresh().await.unwrap();
                }
                dice.random_range(1..40)
            })
            .await;
            assert_each_once(&shown, &format!("{sort}, seed {seed}"));
        }
    }
    assert!(added > 40, "lots came meanwhile");
}

#[tokio::test]
async fn the_same_holds_beside_a_writer_who_waits_for_nobody() {
    let (test, reader) = plain_fixture(LOT_COUNT).await;
    let done = CancellationToken::new();
    let writing = tokio::spawn({
        let (pool, done) = (test.db.pool.clone(), done.clone());
        async move {
            let (mut dice, mut added, mut times) = (StdRng::seed_from_u64(7), 0, 0);
            while !done.is_cancelled() {
                write_changes(&pool, &mut dice, &mut added).await;
                times += 1;
            }
            times
        }
    });
    for sort in SORT_ORDERS.into_iter().step_by(3) {
        let shown = walk_pages(&reader, sort, async |page| {
            reader.api.refresh().await.unwrap();
            5 + page % 13
        })
        .await;
        assert_each_once(&shown, sort);
    }
    done.cancel();
    assert!(writing.await.unwrap() > 10, "it wrote");
}

#[tokio::test]
async fn a_cursor_belongs_to_its_question() {
    let (_test, reader) = plain_fixture(30).await;
    let page = reader.get_json("/search?make=KIA&sort=price&limit=2").await;
    let next = page["next"].as_str().unwrap();
    for (query, status) in [
        (format!("make=KIA&sort=price&limit=9&lang=ru&cursor={next}"), 200),
        (format!("sort=price&cursor={next}&make=KIA"), 200),
        (format!("make=BMW&sort=price&cursor={next}"), 400),
        (format!("make=KIA&sort=-price&cursor={next}"), 400),
        (format!("make=KIA&sort=price&cursor={next}00"), 400),
        ("cursor=x".to_owned(), 400),
    ] {
        let answer = reader.get(&format!("/search?{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        if status == 400 {
            assert_eq!(answer.json()["parameter"], "cursor", "{query}");
        }
    }
}
