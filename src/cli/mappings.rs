//! The operator's mappings: `<source>.json` files in the folder `VINOPS_MAPPINGS`, read when the program starts.

use crate::auction::mapping::{self, SourceMapping};
use anyhow::Context;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

/// Reads the folder and installs the mappings.
///
/// # Errors
/// Returns an error with the name of the file if a file cannot be read or is no mapping.
pub fn install_mappings(folder: &Path) -> anyhow::Result<()> {
    // A process installs mappings once. Only tests call this again in the same process.
    let _ = mapping::install_mappings(read_mappings(folder)?);
    Ok(())
}

/// Reads the folder without installing the mappings.
///
/// # Errors
/// Returns an error with the name of the file if a file cannot be read or is no mapping.
pub fn check_mappings(folder: &Path) -> anyhow::Result<()> {
    read_mappings(folder).map(drop)
}

/// Reads the mappings of a folder, by source.
fn read_mappings(folder: &Path) -> anyhow::Result<BTreeMap<String, SourceMapping>> {
    let mut mappings = BTreeMap::new();
    let read = || format!("could not read the folder {} of VINOPS_MAPPINGS", folder.display());
    for entry in std::fs::read_dir(folder).with_context(read)? {
        let path = entry.with_context(read)?.path();
        if path.extension() != Some(OsStr::new("json")) {
            continue;
        }
        let about = || format!("could not read the mapping {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(about)?;
        let mapping = SourceMapping::parse(&text).with_context(about)?;
        let source =
            path.file_stem().and_then(OsStr::to_str).context("the file name is not UTF-8").with_context(about)?;
        mappings.insert(source.to_owned(), mapping);
    }
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::Column;

    #[test]
    fn each_json_file_of_the_folder_is_the_mapping_of_the_source_that_it_is_named_after() {
        let folder = tempfile::tempdir().unwrap();
        let copart = include_str!("../auction/mappings/copart.json");
        std::fs::write(folder.path().join("north.json"), copart.replacen("\"Lot number\"", "\"Stock#\"", 1)).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "none").unwrap();
        let mappings = read_mappings(folder.path()).unwrap();
        assert_eq!(mappings.keys().collect::<Vec<_>>(), ["north"]);
        assert_eq!(mappings["north"].header_name(Column::LotNumber), Some("Stock#"));
        std::fs::write(folder.path().join("south.json"), "{}").unwrap();
        let error = format!("{:#}", read_mappings(folder.path()).unwrap_err());
        assert!(error.contains("south.json: the mapping is not valid: missing field `kind`"), "{error}");
        let error = format!("{:#}", read_mappings(&folder.path().join("none")).unwrap_err());
        assert!(error.contains("none of VINOPS_MAPPINGS"), "{error}");
    }
}
