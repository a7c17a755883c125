//! Whether all of the feed is in a file, judged by its size beside the files before it.

/// A file is complete when it has at least 70 % of the median of the last three files' rows; the first always is. Of two
/// files the greater counts as the median: doubting a whole file costs a quarter-hour, believing half of one closes lots.
pub fn is_complete(rows: u64, last_three: &[i32]) -> bool {
    let mut sorted = last_three.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    rows * 10 >= u64::try_from(median).unwrap_or(0) * 7
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn a_file_that_shrank_by_half_is_not_complete_and_one_that_stays_small_is_again() {
        assert!(is_complete(10, &[]));
        assert!(is_complete(70, &[100, 100, 100]));
        assert!(!is_complete(69, &[100, 100, 100]));
        assert!(!is_complete(50, &[50, 100, 100]));
        assert!(is_complete(50, &[50, 50, 100]));
        assert!(!is_complete(50, &[40, 100]));
    }
}
