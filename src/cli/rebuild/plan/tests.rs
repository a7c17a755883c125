use super::*;
use crate::db::catalogue::ActionAuthor;

fn catalogue_entry(nth: u32, act: CatalogueAction) -> CatalogueEntry {
    let at = "2026-03-06T17:00:00Z".parse().unwrap();
    CatalogueEntry { key: format!("catalogue/{nth}"), at, act, body: String::new() }
}

fn file_of_window(hour: u32, sha: &str) -> FileOfWindow {
    let window_start_utc = format!("2026-03-06T{hour}:00:00Z").parse().unwrap();
    FileOfWindow { source: "copart".to_owned(), window_start_utc, sha256: sha.repeat(32) }
}

fn receipt_act(file: FileOfWindow) -> CatalogueAction {
    let path = format!("raw/copart/2026/03/06/{}.csv.zst", file.window_start_utc.format("%H%M"));
    CatalogueAction::Receipt {
        file,
        path,
        packed_sha256: None,
        bytes: 10,
        stored_bytes: None,
        etag: None,
        last_modified: None,
    }
}

fn withdrawal_act(file: FileOfWindow) -> CatalogueAction {
    let author = ActionAuthor { operator: "nana".to_owned(), reason: "a test".to_owned() };
    CatalogueAction::Withdrawal { file, author }
}

#[test]
fn a_withdrawn_file_is_left_out_until_it_comes_again() {
    let acts = [
        receipt_act(file_of_window(17, "aa")),
        receipt_act(file_of_window(18, "bb")),
        CatalogueAction::Repeat { file: file_of_window(19, "aa") },
        withdrawal_act(file_of_window(17, "aa")),
        withdrawal_act(file_of_window(18, "bb")),
        receipt_act(file_of_window(18, "bb")),
    ];
    let entries = acts.into_iter().enumerate().map(|(nth, act)| catalogue_entry(nth as u32, act)).collect();
    let plan = RebuildPlan::from_entries(entries, HashMap::new());
    let kept: Vec<bool> = plan.acts.iter().map(|act| matches!(act, PlannedAction::Entry(_))).collect();
    assert_eq!(kept, [false, false, true, false, false, true]);
    let report = plan.new_report(true);
    assert_eq!((report.files, report.windows, report.repeats), (1, 2, 1));
    assert_eq!(report.withdrawn, [file_of_window(17, "aa"), file_of_window(18, "bb")]);
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
    let plan = RebuildPlan::from_names(keys.into_iter().map(object).collect());
    let named = plan.acts.iter().map(|act| match act {
        PlannedAction::Named(file) => file.key.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(named.collect::<Vec<_>>(), [keys[3], keys[2], keys[1], keys[0]]);
    assert_eq!(plan.new_report(true).unlisted.len(), 3);
}
