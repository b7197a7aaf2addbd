//! Lines that programs write to their standard error, as lines of JSON in the form of the agent's own log.

use k8s_openapi::jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::json;

/// The field `logger` of such a line.
const LOGGER: &str = "stderr";

/// A line of a program as JSON: as it is, if it is an object already. None if it is empty.
pub fn as_json(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Some(text.to_owned());
    }
    as_message(line)
}

/// A line as the message of a line of JSON, whatever it has: what a tenant can write has no fields of its own. None if it
/// is empty.
pub fn as_message(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    (!text.is_empty()).then(|| wrapped(level(text), LOGGER, text))
}

/// A message as a line of JSON.
pub fn wrapped(level: &str, logger: &str, message: &str) -> String {
    json!({ "timestamp": Timestamp::now().to_string(), "level": level, "logger": logger, "message": message })
        .to_string()
}

/// The level of a line, by the words of PostgreSQL's and pgBackRest's logs.
fn level(text: &str) -> &'static str {
    let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    if has(&["FATAL:", "PANIC:", "ERROR:"]) {
        "ERROR"
    } else if has(&["WARNING:", "WARN:"]) {
        "WARN"
    } else {
        "INFO"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_becomes_an_object_and_an_object_stays_as_it_is() {
        let object = br#"{"level":"INFO","logger":"patroni","message":"promoted self"}"#;
        assert_eq!(as_json(object).expect("a line").as_bytes(), object);
        assert_eq!((as_json(b" \n"), as_message(b" \n")), (None, None));
        let found: Value = serde_json::from_str(&as_message(object).expect("a line")).expect("JSON");
        assert_eq!(
            (&found["logger"], found["message"].as_str().map(str::as_bytes)),
            (&"stderr".into(), Some(&object[..]))
        );
        let lines: [(&[u8], &str); 4] = [
            (b"2026-11-30 17:39:27.317 UTC [7] LOG:  redirecting log output\n", "INFO"),
            (b"2026-11-30 17:39:27.317 UTC [7] FATAL:  \"a\"\tb\n", "ERROR"),
            (b"P00   WARN: \xff\n", "WARN"),
            (b"{\"cut\":\"", "INFO"),
        ];
        for (line, level) in lines {
            let found: Value = serde_json::from_str(&as_json(line).expect("a line")).expect("JSON");
            assert_eq!((&found["level"], &found["logger"]), (&level.into(), &"stderr".into()));
            let message = String::from_utf8_lossy(line).trim_end().to_owned();
            assert_eq!(found["message"], message);
            assert!(found["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{found}");
        }
    }
}
