//! Formats a log line as one flat JSON object.
//!
//! `job`, `attempt`, `source` and `window` are top-level fields, whether they belong to the line or to the span of a
//! job. A field of the line overrides a field of the span, and an inner span overrides an outer one.

use serde_json::{Map, Value};
use std::fmt::Write;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events as lines of JSON.
pub(super) struct JsonFormatter;

impl<S> FormatEvent<S, JsonFields> for JsonFormatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(written) = span.extensions().get::<FormattedFields<JsonFields>>() {
                fields.extend(parse_object(&written.fields));
            }
        }
        let mut own = String::new();
        context.field_format().format_fields(Writer::new(&mut own), event)?;
        fields.extend(parse_object(&own));

        let meta = event.metadata();
        let at = crate::config::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let message = fields.remove("message").unwrap_or_default();
        // Timestamp, level and message come first, for people who read the lines.
        let mut line = String::new();
        write!(line, "{{\"timestamp\":\"{at}\",\"level\":\"{}\",\"message\":{message}", meta.level())?;
        fields.entry("target").or_insert_with(|| meta.target().into());
        for (name, value) in fields {
            write!(line, ",{}:{value}", Value::String(name))?;
        }
        writeln!(writer, "{}}}", super::escape_json(&line))
    }
}

/// Returns the object that tracing has written as JSON, or an empty object.
fn parse_object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::JsonFormatter;
    use serde_json::Value;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::format::JsonFields;

    #[derive(Clone, Default)]
    struct JsonLogBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for JsonLogBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_flat_object_with_its_spans_words_and_its_own_over_them() {
        let written = JsonLogBuffer::default();
        let lines = tracing_subscriber::fmt().fmt_fields(JsonFields::new()).event_format(JsonFormatter).with_writer({
            let written = written.clone();
            move || written.clone()
        });
        tracing::subscriber::with_default(lines.finish(), || {
            let span = tracing::info_span!("job", job = 7, attempt = 1, source = tracing::field::Empty);
            span.record("source", "copart");
            let _inside = span.enter();
            tracing::info!(attempt = 2, ms = 12, "ended\nwell");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["job"], &line["attempt"], &line["ms"]), (&7.into(), &2.into(), &12.into()));
        assert_eq!((&line["source"], &line["level"]), (&"copart".into(), &"INFO".into()));
        assert_eq!(line["message"], "ended\nwell");
        assert!(text.starts_with("{\"timestamp\":\"") && line["target"].is_string(), "{text}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
