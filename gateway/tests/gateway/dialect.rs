//! PostgREST's dialect, case by case: `dialect/*.yaml` has requests with the outcome that PostgREST has. Each is sent to
//! the gateway; the number of those with the same outcome stands in the file and in docs/gateway.md.

use std::collections::BTreeMap;
use std::fmt::Write;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::server::{Answer, Gateway};

const AREAS: [&str; 3] =
    [include_str!("dialect/read.yaml"), include_str!("dialect/write.yaml"), include_str!("dialect/embedding.yaml")];
const DOCS: &str = include_str!("../../../docs/gateway.md");
/// Of each area, at least so many in a hundred.
const LEAST: usize = 80;
/// What a URL must not have as it is. A `%` begins what is encoded already.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    area: String,
    /// How many cases have PostgREST's outcome.
    passes: usize,
    cases: Vec<Case>,
}

/// A request with PostgREST's outcome.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    case: String,
    get: Option<String>,
    head: Option<String>,
    post: Option<String>,
    patch: Option<String>,
    put: Option<String>,
    delete: Option<String>,
    prefer: Option<String>,
    accept: Option<String>,
    headers: BTreeMap<String, String>,
    /// The body as JSON.
    send: Option<Value>,
    /// The body as it is.
    raw: Option<String>,
    /// Whether a write is kept. It is rolled back otherwise (`tx=rollback`).
    commit: bool,
    /// 200 by default: 201 of POST, 204 of a write without a body.
    status: Option<u16>,
    json: Option<Value>,
    /// The column `id` of the rows, which are ordered by it.
    ids: Option<Value>,
    text: Option<String>,
    /// `code` of an error.
    code: Option<String>,
    /// Headers of the answer; `null` for none.
    has: BTreeMap<String, Option<String>>,
    /// Requests after it.
    then: Vec<Case>,
    /// Why the gateway has another outcome.
    differs: Option<String>,
    /// Why the gateway does not have this.
    #[serde(rename = "left out")]
    left_out: Option<String>,
    /// The gateway's own outcome.
    here: Option<Box<Case>>,
}

impl Case {
    fn request(&self) -> (&'static str, &str) {
        let methods = [
            ("GET", &self.get),
            ("HEAD", &self.head),
            ("POST", &self.post),
            ("PATCH", &self.patch),
            ("PUT", &self.put),
            ("DELETE", &self.delete),
        ];
        let mut named = methods.into_iter().filter_map(|(method, path)| Some((method, path.as_deref()?)));
        match (named.next(), named.next()) {
            (Some(only), None) => only,
            _ => panic!("{}: not one request", self.case),
        }
    }

    fn writes(&self) -> bool {
        !["GET", "HEAD"].contains(&self.request().0)
    }

    async fn send(&self, gateway: &Gateway, token: &str) -> Answer {
        let (method, path) = self.request();
        let mut path = utf8_percent_encode(path, UNSAFE).to_string();
        if self.ids.is_some() {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("select=id&order=id");
        }
        let mut prefer: Vec<&str> = self.prefer.iter().map(String::as_str).collect();
        if self.writes() && !self.commit {
            prefer.push("tx=rollback");
        }
        let prefer = prefer.join(", ");
        let mut headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        if !prefer.is_empty() {
            headers.push(("prefer", &prefer));
        }
        headers.extend(self.accept.as_deref().map(|accept| ("accept", accept)));
        let body = self.raw.clone().or_else(|| self.send.as_ref().map(Value::to_string));
        gateway.send(token, method, &path, &headers, body).await
    }

    /// In which points an answer is not the outcome.
    fn faults(&self, answer: &Answer) -> Vec<String> {
        let mut faults = Vec::new();
        let mut compare = |what: &str, wanted: &Value, found: &Value| {
            if wanted != found {
                faults.push(format!("{what}: {found}, wanted {wanted}"));
            }
        };
        let body = || serde_json::from_str(&answer.text).unwrap_or(Value::Null);
        compare("status", &json!(self.wanted_status()), &json!(answer.status));
        if let Some(wanted) = &self.json {
            compare("body", wanted, &body());
        }
        if let Some(wanted) = &self.ids {
            let rows = body();
            let ids: Option<Vec<_>> =
                rows.as_array().map(|rows| rows.iter().map(|row: &Value| row["id"].clone()).collect());
            compare("ids", wanted, &json!(ids));
        }
        if let Some(wanted) = &self.text {
            compare("text", &json!(wanted), &json!(answer.text));
        }
        if let Some(wanted) = &self.code {
            compare("code", &json!(wanted), &body()["code"]);
        }
        for (name, wanted) in &self.has {
            let found = answer.headers.get(name).map(|value| value.to_str().expect("text"));
            match (name.as_str(), found) {
                // Their order has no meaning; ours is the runner's.
                ("preference-applied", Some(found)) => {
                    let names = |text: &str| {
                        let mut names: Vec<_> = text.split(", ").filter(|name| *name != "tx=rollback").collect();
                        names.sort_unstable();
                        names.join(", ")
                    };
                    let wanted = wanted.as_deref().map(names).unwrap_or_default();
                    compare(name, &json!(wanted), &json!(names(found)));
                }
                _ => compare(name, &json!(wanted), &json!(found)),
            }
        }
        faults
    }

    fn wanted_status(&self) -> u16 {
        let has_body = self.json.is_some() || self.text.as_ref().is_some_and(|text| !text.is_empty());
        self.status.unwrap_or_else(|| match self.request().0 {
            "GET" | "HEAD" => 200,
            "POST" => 201,
            _ if has_body => 200,
            _ => 204,
        })
    }

    /// Sends it and what follows it.
    async fn run(&self, gateway: &Gateway, token: &str) -> (Vec<String>, Answer) {
        let answer = self.send(gateway, token).await;
        let mut faults = self.faults(&answer);
        for next in &self.then {
            let answer = next.send(gateway, token).await;
            faults.extend(next.faults(&answer).iter().map(|fault| format!("then {:?}: {fault}", next.request())));
        }
        (faults, answer)
    }

    /// What is wrong with the case as it stands in its file; whether it has PostgREST's outcome.
    async fn verdict(&self, gateway: &Gateway, token: &str) -> (Option<String>, bool) {
        let (faults, answer) = self.run(gateway, token).await;
        let passes = faults.is_empty();
        let marked = self.differs.is_some() || self.left_out.is_some();
        let wrong = match (passes, marked) {
            (true, false) => None,
            (true, true) => Some("it has PostgREST's outcome, and is marked as another one".to_owned()),
            (false, false) => Some(format!("{}\n    {} {}", faults.join("\n    "), answer.status, answer.text)),
            (false, true) => {
                let here = self.here.as_ref().map(|here| here.faults(&answer)).unwrap_or_default();
                (!here.is_empty()).then(|| format!("here: {}\n    {} {}", here.join("; "), answer.status, answer.text))
            }
        };
        (wrong, passes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_cases_with_the_outcome_of_postgrest() {
    let schema = include_str!("dialect/schema.sql");
    let gateway = Gateway::start("dialect", schema, json!({"schemas": ["public", "depot"]})).await;
    let token = gateway.token("shop/app");
    let (mut wrong, mut table) = (String::new(), String::new());
    for file in AREAS {
        let area: Area = serde_yaml::from_str(file).expect("cases");
        let mut passes = 0;
        for case in &area.cases {
            let (fault, passed) = case.verdict(&gateway, &token).await;
            passes += usize::from(passed);
            if let Some(fault) = fault {
                let _ = writeln!(wrong, "{}: {}: {:?}\n    {fault}", area.area, case.case, case.request());
            }
        }
        let marked = |mark: fn(&Case) -> bool| area.cases.iter().filter(|case| mark(case)).count();
        let (differ, left_out) = (marked(|case| case.differs.is_some()), marked(|case| case.left_out.is_some()));
        let all = area.cases.len();
        let row = format!("| {} | {all} | {passes} | {differ} | {left_out} |", area.area);
        println!("{}: {passes} of {all}", area.area);
        if passes != area.passes {
            let _ = writeln!(wrong, "{}: {passes} of {all} pass, the file says {}", area.area, area.passes);
        }
        if passes * 100 < all * LEAST {
            let _ = writeln!(wrong, "{}: {passes} of {all} is less than {LEAST} %", area.area);
        }
        if !DOCS.contains(&row) {
            let _ = writeln!(wrong, "docs/gateway.md has another row than this: {row}");
        }
        let _ = writeln!(table, "{row}");
    }
    assert!(wrong.is_empty(), "{wrong}\n{table}");
}
