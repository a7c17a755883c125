//! Printed output: tables as text, and JSON for programs.

use crate::telemetry::{escape_json, escape_text};
use anyhow::Context;
use chrono::{DateTime, Utc};
use comfy_table::{Cell, CellAlignment, presets};
use serde::Serialize;

/// Parses a time argument.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    text.parse().map_err(|_| "expected a date, a time and a zone, for example 2026-11-20T14:30:00Z")
}

/// The option `--json`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct JsonArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Prints `value` as JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("could not convert the result to JSON")?;
    println!("{}", escape_json(&text));
    Ok(())
}

/// Prints `value` as JSON on one line.
pub fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("could not convert the result to JSON")?;
    println!("{}", escape_json(&text));
    Ok(())
}

/// A table of text. Control characters are escaped before the widths of columns are measured.
#[derive(Debug)]
pub struct TextTable(comfy_table::Table);

impl TextTable {
    /// Adds a row.
    pub fn add_row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut TextTable {
        self.0.add_row(cells.into_iter().map(|cell| visible_cell(cell.into())));
        self
    }
}

impl std::fmt::Display for TextTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn visible_cell(cell: Cell) -> Cell {
    let text = cell.content();
    match escape_text(&text) {
        std::borrow::Cow::Borrowed(_) => cell,
        std::borrow::Cow::Owned(shown) => Cell::new(shown),
    }
}

/// Returns an empty table with these headings. [`right_cell`] aligns a cell to the right.
pub fn new_table(headings: &[&str]) -> TextTable {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(headings.iter().map(Cell::new));
    TextTable(table)
}

/// Returns a cell that is aligned to the right.
pub fn right_cell(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Formats a count with groups of thousands, for example `153,991`.
pub fn format_count(n: impl TryInto<i64>) -> String {
    let n = n.try_into().unwrap_or(i64::MAX);
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n < 0 {
        out.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a size in units of 10^6 bytes, for example `19.2 MB`.
pub fn format_megabytes(bytes: i64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Formats a duration, for example `1.23 s`.
pub fn format_seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

/// Formats a time in UTC, for example `2026-11-20 14:30`.
pub fn format_minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!([0, 7, 1000, 153_991, -1_234_567].map(format_count), ["0", "7", "1,000", "153,991", "-1,234,567"]);
    }
}
