//! `raw.file_rows`: each file's rows under that file's own column names, whichever file stored the versions.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

fn window_start(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

/// Returns the rows of the file of a window, in its order.
async fn read_rows(pipeline: &Pipeline, n: i64) -> Vec<Value> {
    sqlx::query_scalar(
        "select r.payload_jsonb from raw.file_rows r join raw.csv_files f using (file_id) where f.window_start_utc = $1 order by r.row_no",
    )
    .bind(window_start(n))
    .fetch_all(pipeline.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn each_file_shows_its_rows_under_its_own_names_whichever_file_stored_them() {
    let mut pipeline = Pipeline::new().await;
    let (one, two) = ("70000001,1HGCM82633A000001,N", "70000002,1HGCM82633A000002,Y");
    let time = "2026-11-20T01:00:00Z";
    let files = [
        format!(
            "Id,Lot number,VIN,Copart Select,Announcements,Last Updated Time,Create Date/Time,Mood\n\
             1,{one},,{time},c0,blue\n2,{two},,{time},c0,\n"
        ),
        // renamed, and in another order
        format!(
            "Id,Lot number,VIN,Wholesale,Announcements,Last Updated Time,Create Date/Time,Mood\n\
             1,{two},,{time},c1,\n2,{one},,{time},c1,blue\n"
        ),
        // a new column without values, and an unknown one in other letters
        format!(
            "Id,Lot number,VIN,Wholesale,Announcements,Last Updated Time,Create Date/Time,MOOD,Aura\n\
             1,{one},,{time},c2,blue,\n2,{two},,{time},c2,,\n"
        ),
        // a lost column
        format!(
            "Id,Lot number,VIN,Wholesale,Last Updated Time,Create Date/Time,Mood\n\
             1,{one},{time},c3,blue\n2,{two},{time},c3,\n"
        ),
        // all in capitals, a column twice, and Ids that are not the positions
        format!(
            "ID,LOT NUMBER,VIN,WHOLESALE,LAST UPDATED TIME,CREATE DATE/TIME,MOOD,VIN\n\
             7,{one},{time},c4,blue,\n10,{two},{time},c4,,\n"
        ),
        // a clock of each row, and no Id
        format!(
            "Lot number,VIN,Copart Select,Last Updated Time,Create Date/Time,Mood\n\
             {one},{time},c5,blue\n{two},{time},c6,\n"
        ),
    ];
    for (n, file) in files.iter().enumerate() {
        let chain = pipeline.run_chain(file.as_bytes(), window_start(n as i64)).await;
        assert_eq!(chain.report_number("ingest", "/unchanged"), if n == 0 { 0 } else { 2 }, "file {n}");
    }
    let (first, second) = ("1HGCM82633A000001", "1HGCM82633A000002");
    assert_eq!(
        read_rows(&pipeline, 0).await,
        [
            json!({"Id": "1", "Lot number": "70000001", "VIN": first, "Copart Select": "N", "Announcements": "",
                "Last Updated Time": time, "Create Date/Time": "c0", "Mood": "blue"}),
            json!({"Id": "2", "Lot number": "70000002", "VIN": second, "Copart Select": "Y", "Announcements": "",
                "Last Updated Time": time, "Create Date/Time": "c0", "Mood": ""}),
        ]
    );
    assert_eq!(
        read_rows(&pipeline, 1).await,
        [
            json!({"Id": "1", "Lot number": "70000002", "VIN": second, "Wholesale": "Y", "Announcements": "",
                "Last Updated Time": time, "Create Date/Time": "c1", "Mood": ""}),
            json!({"Id": "2", "Lot number": "70000001", "VIN": first, "Wholesale": "N", "Announcements": "",
                "Last Updated Time": time, "Create Date/Time": "c1", "Mood": "blue"}),
        ]
    );
    assert_eq!(
        read_rows(&pipeline, 2).await[0],
        json!({"Id": "1", "Lot number": "70000001", "VIN": first, "Wholesale": "N", "Announcements": "",
            "Last Updated Time": time, "Create Date/Time": "c2", "MOOD": "blue", "Aura": ""})
    );
    assert_eq!(
        read_rows(&pipeline, 3).await[1],
        json!({"Id": "2", "Lot number": "70000002", "VIN": second, "Wholesale": "Y",
            "Last Updated Time": time, "Create Date/Time": "c3", "Mood": ""})
    );
    assert_eq!(
        read_rows(&pipeline, 4).await,
        [
            json!({"ID": "1", "LOT NUMBER": "70000001", "VIN": first, "WHOLESALE": "N", "LAST UPDATED TIME": time,
                "CREATE DATE/TIME": "c4", "MOOD": "blue", "VIN (2)": ""}),
            json!({"ID": "2", "LOT NUMBER": "70000002", "VIN": second, "WHOLESALE": "Y", "LAST UPDATED TIME": time,
                "CREATE DATE/TIME": "c4", "MOOD": "", "VIN (2)": ""}),
        ]
    );
    assert_eq!(
        read_rows(&pipeline, 5).await[0],
        json!({"Lot number": "70000001", "VIN": first, "Copart Select": "N", "Last Updated Time": time,
            "Create Date/Time": null, "Mood": "blue"})
    );
    assert_eq!(pipeline.query_number("select count(*) from raw.rows").await, 2, "each version is stored once");
}

#[tokio::test]
async fn a_row_written_by_hand_is_shown_as_it_is() {
    let pipeline = Pipeline::without_worker().await;
    pipeline
        .run_sql(
            "insert into raw.csv_files (file_id, path, sha256, bytes, window_start_utc)
              values ('00000000-0000-0000-0000-000000000001', '2026/11/20/1400.csv', repeat('a', 64), 1, '2026-11-20T14:00Z');
            select raw.open_month('2026-11-20T14:00Z'), raw.index_month('2026-11-20T14:00Z'), raw.attach_month('2026-11-20T14:00Z');
            insert into raw.rows (id, file_id, row_no, window_start_utc, payload_jsonb)
              select n, file_id, n, window_start_utc, jsonb_build_object('Lot number', number, 'Id', '9')
              from raw.csv_files, unnest(array['45,148,624', '45148624.0', E' 0045148624\\u00a0', 'x']) with ordinality as u (number, n);
            insert into raw.manifests (file_id, window_start_utc, row_ids)
              select file_id, window_start_utc, '{2,4}' from raw.csv_files",
        )
        .await;
    assert_eq!(
        read_rows(&pipeline, 0).await,
        [json!({"Id": "1", "Lot number": "45148624.0"}), json!({"Id": "2", "Lot number": "x"})]
    );
    let found = "select string_agg(row_id::text, ' ' order by row_id) from raw.lot_versions where lot = 45148624 and source = 'copart'";
    assert_eq!(pipeline.query_text(found).await, "1 2 3", "a row without a key is found by its payload");
}
