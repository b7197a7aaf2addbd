//! One line of PostgreSQL's `jsonlog`, with the fields by which it is selected in the log of the pod.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::long::Cut;
use crate::postgres::stray;

/// The field `logger` of PostgreSQL's lines.
pub const LOGGER: &str = "postgres";
/// How PostgreSQL begins each line.
const BEGINS: &str = r#"{"timestamp":""#;
/// How pgaudit begins its messages.
const AUDIT: &str = "AUDIT: ";

/// What decides the fields.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    error_severity: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    context: Option<IgnoredAny>,
}

/// The line with `level`, `logger` and the marks `audit` and `cut`, and with its time as the agent writes it, where it is
/// in UTC. One that is no line of `jsonlog` is a message. None if it is empty.
pub fn marked(line: &[u8], cut: Option<Cut>) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if text.is_empty() {
        return None;
    }
    let closed = if cut.is_some() { closed(text) } else { Cow::Borrowed(text) };
    Some(of(&closed, cut).unwrap_or_else(|| stray::wrapped("WARN", LOGGER, text)))
}

fn of(text: &str, cut: Option<Cut>) -> Option<String> {
    let (time, rest) = text.strip_prefix(BEGINS)?.split_once('"')?;
    let content: Content<'_> = serde_json::from_str(text).ok()?;
    let mut line = format!(
        r#"{BEGINS}{}","level":"{}","logger":"{LOGGER}""#,
        time_of_agent(time).unwrap_or_else(|| time.to_owned()),
        level(&content.error_severity)
    );
    // A message of a tenant's function has a context, pgaudit's never has. It may be in the part that is left out.
    let has_context = content.context.is_some() || cut.is_some_and(|cut| cut.has_context);
    if content.message.starts_with(AUDIT) && !has_context {
        line.push_str(r#","audit":true"#);
    }
    if cut.is_some() {
        line.push_str(r#","cut":true"#);
    }
    line.push_str(rest);
    Some(line)
}

/// RFC 3339, as in the agent's lines.
fn time_of_agent(time: &str) -> Option<String> {
    let (date, time) = time.strip_suffix(" UTC").or_else(|| time.strip_suffix(" GMT"))?.split_once(' ')?;
    Some(format!("{date}T{time}Z"))
}

/// The level as the agent has it, of PostgreSQL's severity.
fn level(severity: &str) -> &'static str {
    match severity {
        "ERROR" | "FATAL" | "PANIC" => "ERROR",
        "WARNING" => "WARN",
        severity if severity.starts_with("DEBUG") => "DEBUG",
        _ => "INFO",
    }
}

/// The beginning of an object of texts and numbers, ended: within a text, or after the last whole member.
fn closed(text: &str) -> Cow<'_, str> {
    let (mut is_text, mut is_value, mut last_member) = (false, false, None);
    // Where the last escape begins, and the number of its bytes that are still to come.
    let (mut escape, mut missing) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        if missing > 0 {
            missing = if byte == b'u' && at == escape + 1 { 4 } else { missing - 1 };
        } else if is_text {
            match byte {
                b'\\' => (escape, missing) = (at, 1),
                b'"' => is_text = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => is_text = true,
                b':' => is_value = true,
                b',' => (is_value, last_member) = (false, Some(at)),
                _ => {}
            }
        }
    }
    if is_text && is_value {
        let end = if missing > 0 { escape } else { text.len() };
        return format!("{}\"}}", &text[..end]).into();
    }
    last_member.map_or(Cow::Borrowed(text), |end| format!("{}}}", &text[..end]).into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-11-30 17:39:29.314 UTC","user":"chat_a","pid":7,"error_severity":"LOG","message":"AUDIT: SESSION,1,1,WRITE,INSERT,,,\"x\u0001y\",<not logged>","query_id":0}"#;

    const OF_SERVER: Option<Cut> = Some(Cut { has_context: false });

    fn parsed(line: &str) -> Value {
        serde_json::from_str(&marked(line.as_bytes(), None).expect("a line")).expect("JSON")
    }

    #[test]
    fn a_line_keeps_its_fields_and_gets_ours() {
        let found = parsed(LINE);
        assert_eq!(found["timestamp"], "2026-11-30T17:39:29.314Z");
        assert_eq!(
            (&found["level"], &found["logger"], &found["audit"]),
            (&"INFO".into(), &LOGGER.into(), &true.into())
        );
        assert_eq!((&found["user"], &found["pid"], &found["query_id"]), (&"chat_a".into(), &7.into(), &0.into()));
        assert!(found.get("cut").is_none());
        let elsewhere = parsed(&LINE.replace("UTC", "CET").replace("LOG", "FATAL"));
        assert_eq!(elsewhere["timestamp"], "2026-11-30 17:39:29.314 CET");
        assert_eq!(elsewhere["level"], "ERROR");
    }

    #[test]
    fn a_tenant_cannot_write_an_audit_line() {
        let raised = LINE.replace(r#","query_id""#, r#","context":"PL/pgSQL function f() line 1 at RAISE","query_id""#);
        assert!(parsed(&raised).get("audit").is_none());
        assert!(parsed(&LINE.replace("AUDIT: ", "x AUDIT: ")).get("audit").is_none());
        // So long that the context is in the part that is left out.
        let begins = &LINE.as_bytes()[..LINE.len() - 30];
        let found = marked(begins, Some(Cut { has_context: true })).expect("a line");
        assert!(!found.contains("audit\":") && found.contains(r#""cut":true"#), "{found}");
    }

    #[test]
    fn what_is_no_line_of_the_server_is_a_message() {
        for line in ["plain", "{\"timestamp\":\"x\",", "[1]", "{}", &LINE[20..]] {
            let found = parsed(line);
            assert_eq!((&found["logger"], &found["message"]), (&LOGGER.into(), &line.into()));
        }
        assert_eq!(marked(b"\n", None), None);
        let bytes =
            [b"{\"timestamp\":\"2026-11-30 17:39:29.314 UTC\",\"message\":\"\xff\"}".as_slice(), b"\n"].concat();
        let found: Value = serde_json::from_str(&marked(&bytes, None).expect("a line")).expect("JSON");
        assert_eq!(found["message"], "\u{fffd}");
    }

    #[test]
    fn a_line_that_is_cut_anywhere_is_json() {
        for end in 60..LINE.len() {
            let found = marked(&LINE.as_bytes()[..end], OF_SERVER).expect("a line");
            let found: Value = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"));
            assert_eq!(
                (&found["cut"], &found["user"].as_str().map(|user| "chat_a".starts_with(user))),
                (&true.into(), &Some(true))
            );
        }
        let of_message = LINE.find("WRITE").expect("a class");
        let found = marked(&LINE.as_bytes()[..of_message], OF_SERVER).expect("a line");
        assert!(found.contains(r#""audit":true"#) && found.ends_with(r#"AUDIT: SESSION,1,1,"}"#), "{found}");
    }
}
