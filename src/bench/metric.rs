//! Statistics of measurements, metrics with limits, and their Markdown tables.

use serde::Serialize;

/// Measurements of one quantity with their statistics.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SampleStats {
    /// Median. For an even number of measurements, the mean of the two middle ones.
    pub median: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
    /// All measurements, in the order in which they were taken.
    pub all: Vec<f64>,
}

impl SampleStats {
    /// Computes the statistics of measurements. Returns zeros if there are none.
    pub fn from_samples(all: impl IntoIterator<Item = f64>) -> SampleStats {
        let all: Vec<f64> = all.into_iter().collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return SampleStats::default() };
        SampleStats { median: quantile(&sorted, 0.5), min, max, all }
    }

    /// Formats the median, minimum and maximum, such as `3.21 (3.05..4.80)`.
    pub fn to_text(&self, digits: usize) -> String {
        let SampleStats { median, min, max, .. } = self;
        format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }
}

/// Returns the quantile `share` (0 to 1) of sorted values, interpolated linearly. Returns 0 if there are none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - at.floor())
}

/// Measured value with its limit.
#[derive(Clone, Debug, Serialize)]
pub struct BenchMetric {
    /// Name of the metric.
    pub name: &'static str,
    /// Measured value, in `unit`.
    pub value: f64,
    /// Unit of value and limit. MB are 10^6 bytes.
    pub unit: &'static str,
    /// Maximum permitted value, in `unit`.
    pub limit: f64,
    /// True if the value is within the limit. Null if the limit was set for another size of the input.
    pub pass: Option<bool>,
}

impl BenchMetric {
    /// Returns a metric, compared with its limit if `applies` is true.
    pub fn new(name: &'static str, value: f64, unit: &'static str, limit: f64, applies: bool) -> BenchMetric {
        BenchMetric { name, value, unit, limit, pass: applies.then_some(value <= limit) }
    }

    /// Returns `PASS`, `FAIL` or, for a limit that does not apply, a dash.
    pub fn result_label(&self) -> &'static str {
        match self.pass {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "-",
        }
    }
}

/// Returns a Markdown table with padded columns, readable as plain text. All columns but the first are right-aligned.
pub fn markdown_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &[String]| {
        for (at, width) in widths.iter().enumerate() {
            let cell = cells.get(at).map_or("", String::as_str);
            out.push_str(&if at == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") });
        }
        out.push_str("|\n");
    };
    line(&headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>());
    let rule = |(at, width): (usize, &usize)| match at {
        0 => "-".repeat(*width),
        _ => "-".repeat(width - 1) + ":",
    };
    line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle_whatever_the_order() {
        assert_eq!(SampleStats::from_samples([5.0, 1.0, 3.0]).median, 3.0);
        assert_eq!(SampleStats::from_samples([4.0, 1.0, 2.0, 9.0]).median, 3.0);
        assert_eq!(SampleStats::from_samples([5.0, 1.0, 3.0]).to_text(1), "3.0 (1.0..5.0)");
        assert_eq!(SampleStats::from_samples([]).median, 0.0);
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        let sorted: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.99), 99.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.75), 1.75);
    }

    #[test]
    fn a_limit_set_for_another_size_gives_no_verdict() {
        assert_eq!(BenchMetric::new("ratio", 2.8, "x", 2.8, true).result_label(), "PASS");
        assert_eq!(BenchMetric::new("ratio", 2.9, "x", 2.8, true).result_label(), "FAIL");
        assert_eq!(BenchMetric::new("ratio", 2.9, "x", 2.8, false).result_label(), "-");
    }

    #[test]
    fn a_table_reads_as_text_and_as_markdown() {
        let table = markdown_table(&["what", "s"], &[vec!["floor".to_owned(), "2.84".to_owned()]]);
        assert_eq!(table, "| what  |    s |\n| ----- | ---: |\n| floor | 2.84 |\n");
    }
}
