//! One variable of the configuration: the lookup of its value, and the value or its error.

use anyhow::Context;
use std::path::Path;
use std::sync::Arc;

/// The value of a variable, or the reason why it cannot be used.
///
/// A wrong value is an error only of the commands that use the variable: `vinops migrate status` works whatever
/// `VINOPS_STORE` contains.
#[derive(Clone, Debug)]
pub struct Setting<T>(Result<T, SettingError>);

/// The error of a variable with an invalid value. The message names the variable and never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(Arc<str>);

impl<T> Setting<T> {
    /// Returns the value.
    ///
    /// # Errors
    ///
    /// Returns an error if the environment has an invalid value.
    pub fn get(&self) -> Result<&T, SettingError> {
        self.0.as_ref().map_err(SettingError::clone)
    }

    /// Returns the reason why the value cannot be used.
    pub(super) fn error(&self) -> Option<SettingError> {
        self.0.as_ref().err().cloned()
    }
}

impl<T> From<T> for Setting<T> {
    fn from(value: T) -> Setting<T> {
        Setting(Ok(value))
    }
}

impl<T> From<anyhow::Result<T>> for Setting<T> {
    fn from(value: anyhow::Result<T>) -> Setting<T> {
        Setting(value.map_err(|error| SettingError(format!("{error:#}").into())))
    }
}

/// A function that returns the value of an environment variable.
pub(super) type VariableLookup = dyn Fn(&str) -> Option<String>;

/// Returns the value of a variable from the first of its three places that has one.
pub(super) fn find_value(name: &str, environment: &VariableLookup) -> anyhow::Result<Option<String>> {
    let filled = |text: String| (!text.is_empty()).then_some(text);
    if let Some(text) = environment(name).and_then(filled) {
        return Ok(Some(text));
    }
    let file_name = format!("{name}_FILE");
    if let Some(path) = environment(&file_name).and_then(filled) {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{file_name}: could not read the file {path}"))?;
        return Ok(filled(trim_line_end(text)));
    }
    if let Some(folder) = environment("CREDENTIALS_DIRECTORY").and_then(filled) {
        let path = Path::new(&folder).join(name.to_lowercase());
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(filled(trim_line_end(text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{name}: could not read the file {}", path.display())),
        };
    }
    Ok(None)
}

fn trim_line_end(text: String) -> String {
    text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).unwrap_or(text)
}
