use super::*;
use crate::db::catalogue::ActAuthor;

fn entry(nth: u32, act: CatalogueAct) -> CatalogueEntry {
    let at = "2026-03-06T17:00:00Z".parse().unwrap();
    CatalogueEntry { key: format!("catalogue/{nth}"), at, act, body: String::new() }
}

fn file(hour: u32, sha: &str) -> FileOfWindow {
    let window_start_utc = format!("2026-03-06T{hour}:00:00Z").parse().unwrap();
    FileOfWindow { source: "copart".to_owned(), window_start_utc, sha256: sha.repeat(32) }
}

fn receipt(file: FileOfWindow) -> CatalogueAct {
    let path = format!("raw/copart/2026/03/06/{}.csv.zst", file.window_start_utc.format("%H%M"));
    CatalogueAct::Receipt {
        file,
        path,
        packed_sha256: None,
        bytes: 10,
        stored_bytes: None,
        etag: None,
        last_modified: None,
    }
}

fn withdrawal(file: FileOfWindow) -> CatalogueAct {
    let author = ActAuthor { operator: "nana".to_owned(), reason: "a test".to_owned() };
    CatalogueAct::Withdrawal { file, author }
}

#[test]
fn a_withdrawn_file_is_left_out_until_it_comes_again() {
    let acts = [
        receipt(file(17, "aa")),
        receipt(file(18, "bb")),
        CatalogueAct::Repeat { file: file(19, "aa") },
        withdrawal(file(17, "aa")),
        withdrawal(file(18, "bb")),
        receipt(file(18, "bb")),
    ];
    let entries = acts.into_iter().enumerate().map(|(nth, act)| entry(nth as u32, act)).collect();
    let plan = RebuildPlan::of_entries(entries, HashMap::new());
    let kept: Vec<bool> = plan.acts.iter().map(|act| matches!(act, PlannedAct::Entry(_))).collect();
    assert_eq!(kept, [false, false, true, false, false, true]);
    let report = plan.report(true);
    assert_eq!((report.files, report.windows, report.repeats), (1, 2, 1));
    assert_eq!(report.withdrawn, [file(17, "aa"), file(18, "bb")]);
    assert_eq!(report.missing, ["raw/copart/2026/03/06/1800.csv.zst"]);
}

#[test]
fn by_names_files_come_in_the_order_of_windows_and_what_is_no_file_of_a_window_is_listed() {
    let keys = [
        "raw/copart/2026/03/06/1715-0a1b2c3d.csv.zst",
        "raw/copart/2026/03/06/1715.csv.zst",
        "raw/iaai/2026/03/06/1700.csv.zst",
        "raw/copart/2026/03/05/2345.csv.zst",
        "raw/copart/2026/03/06/1715-0a1b2c3.csv.zst",
        "raw/copart/2026/03/06/1730.csv",
        "raw/copart/2026/13/06/1730.csv.zst",
    ];
    let object = |key: &str| {
        let modified = "2026-03-06T17:00:00Z".parse().unwrap();
        (key.to_owned(), StoredObject { key: key.to_owned(), stored_bytes: 1, modified })
    };
    let plan = RebuildPlan::of_names(keys.into_iter().map(object).collect());
    let named = plan.acts.iter().map(|act| match act {
        PlannedAct::Named(file) => file.key.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(named.collect::<Vec<_>>(), [keys[3], keys[2], keys[1], keys[0]]);
    assert_eq!(plan.report(true).unlisted.len(), 3);
}
