//! Schema drift: `verify` reports each changed object, and nothing else.
use crate::{INSERT_CAR, failed_checks, run_sql};
use vinops::testing::migrated_database;

#[tokio::test]
async fn verify_fails_exactly_the_line_of_what_was_broken() {
    // (the change, the line that must fail, a part of its evidence)
    for (statement, line, says) in [
        ("drop index lots_vin_idx", "index public.lots_vin_idx", "missing"),
        (
            "drop index images_vin_idx; create index images_vin_idx on images (lot_id)",
            "index public.images_vin_idx",
            "(lot_id); expected",
        ),
        ("alter table lots drop column location_zip", "column public.lots.location_zip", "missing"),
        (
            "alter table lots alter odometer type numeric(12,1)",
            "column public.lots.odometer",
            "numeric(12,1); expected",
        ),
        ("alter table vehicles alter make set not null", "column public.vehicles.make", "text not null; expected"),
        ("alter table images drop constraint images_seq_ck", "constraint public.images.images_seq_ck", "missing"),
        (
            "alter table images drop constraint images_seq_ck, add constraint images_seq_ck check (seq > 0) not valid",
            "constraint public.images.images_seq_ck",
            "NOT VALID; expected",
        ),
        ("drop view audit.v_unknown_rate", "view audit.v_unknown_rate", "missing"),
        ("alter view audit.v_parse_errors rename error_count to n", "view audit.v_parse_errors", "n, repaired"),
        (
            "drop function upsert_lots_batch",
            "function public.upsert_lots_batch(staging_file_id uuid, of_window timestamp with time zone)",
            "missing",
        ),
        (
            "alter function upsert_lots_batch security definer",
            "function public.upsert_lots_batch(staging_file_id uuid, of_window timestamp with time zone)",
            "security definer; expected",
        ),
        ("drop extension citext", "extension citext", "missing"),
    ] {
        let t = migrated_database().await;
        run_sql(&t.db.pool, statement).await.unwrap();
        let failed = failed_checks(&t.db.pool).await;
        assert_eq!(failed.len(), 1, "{statement}: {failed:?}");
        assert_eq!(failed[0].0, line, "{statement}");
        assert!(failed[0].1.contains(says), "{statement}: {}", failed[0].1);
    }
}

#[tokio::test]
async fn verify_tells_a_broken_reference_and_an_orphan() {
    let t = migrated_database().await;
    run_sql(&t.db.pool, INSERT_CAR).await.unwrap();
    run_sql(
        &t.db.pool,
        "alter table lots drop constraint lots_vin_fkey;
         update lots set vin = 'JH4KA7561PC008269';
         alter table lots add constraint lots_vin_fkey foreign key (vin) references vehicles (vin) on delete cascade not valid",
    )
    .await
    .unwrap();
    let failed = failed_checks(&t.db.pool).await;
    let objects: Vec<_> = failed.iter().map(|(object, _)| object.as_str()).collect();
    assert_eq!(
        objects,
        [
            "constraint public.lots.lots_vin_fkey",
            "rule every lot has its vehicle",
            "rule references to vehicles cascade updates, restrict deletes",
        ]
    );
    assert_eq!(failed[1].1, "1 lots without their vehicle");
}
