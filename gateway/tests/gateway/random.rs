//! Filters, embedding and ranges that nobody would write down, compared with the same question in SQL.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::server::Gateway;

const SCHEMA: &str = "\
CREATE TABLE parents (id int PRIMARY KEY, label text);
CREATE TABLE rows (id int PRIMARY KEY, number int, label text, flag bool, many int[], data jsonb, parent_id int REFERENCES parents);
INSERT INTO parents SELECT n, 'p' || n % 4 FROM generate_series(1, 12) n;
INSERT INTO rows SELECT n, nullif(n * 7 % 13, 4), (ARRAY['a', 'ab', 'b,c', 'd\"e', 'f\\g', '(h)', 'null', '', NULL])[1 + n * 5 % 9], (ARRAY[true, false, NULL])[1 + n % 3],
 ARRAY[n % 3, n % 5], jsonb_build_object('k', n % 4, 't', 'v' || n % 3), nullif(nullif(n % 14, 13), 0) FROM generate_series(1, 80) n";

/// A condition in the dialect and in SQL.
struct Pair {
    dialect: String,
    sql: String,
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// One test of a column, as it stands in a list of conditions.
fn test(random: &mut StdRng) -> Pair {
    let labels = ["a", "ab", "b,c", "d\"e", "f\\g", "(h)", "null", "", "none"];
    let operators = [("eq", "="), ("neq", "<>"), ("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<=")];
    let (name, sql) = operators[random.random_range(0..operators.len())];
    let number: i32 = random.random_range(-1..14);
    let label = labels[random.random_range(0..labels.len())];
    let not = random.random_bool(0.3);
    let (column, dialect, sql) = match random.random_range(0..8) {
        0 => ("number", format!("{name}.{number}"), format!("number {sql} {number}")),
        1 => ("label", format!("{name}.{}", quoted(label)), format!("label {sql} {}", literal(label))),
        2 => {
            let other = labels[random.random_range(0..labels.len())];
            let list = format!("in.({},{})", quoted(label), quoted(other));
            ("label", list, format!("label IN ({}, {})", literal(label), literal(other)))
        }
        3 => {
            let what = ["null", "true", "false", "unknown"][random.random_range(0..4)];
            ("flag", format!("is.{what}"), format!("flag IS {what}"))
        }
        4 => ("many", format!("cs.{{{number}}}"), format!("many @> ARRAY[{number}]")),
        5 => {
            ("data->>t", format!("eq.v{}", number.rem_euclid(4)), format!("data ->> 't' = 'v{}'", number.rem_euclid(4)))
        }
        6 => ("data->k", format!("{name}.{number}"), format!("data -> 'k' {sql} '{number}'::jsonb")),
        _ => ("label", "like.*b*".to_owned(), "label LIKE '%b%'".to_owned()),
    };
    let dialect = if not { format!("{column}.not.{dialect}") } else { format!("{column}.{dialect}") };
    Pair { dialect, sql: if not { format!("NOT ({sql})") } else { format!("({sql})") } }
}

/// A tree of conditions.
fn tree(random: &mut StdRng, depth: u32) -> Pair {
    if depth == 0 || random.random_bool(0.4) {
        return test(random);
    }
    let (word, sql) = if random.random_bool(0.5) { ("and", " AND ") } else { ("or", " OR ") };
    let members: Vec<Pair> = (0..random.random_range(1..4)).map(|_| tree(random, depth - 1)).collect();
    let not = random.random_bool(0.25);
    let list: Vec<_> = members.iter().map(|member| member.dialect.as_str()).collect();
    let texts: Vec<_> = members.iter().map(|member| member.sql.as_str()).collect();
    let (dialect, sql) = (format!("{word}({})", list.join(",")), format!("({})", texts.join(sql)));
    if not { Pair { dialect: format!("not.{dialect}"), sql: format!("(NOT {sql})") } } else { Pair { dialect, sql } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_question_in_sql() {
    let gateway = Gateway::start("random", SCHEMA, json!({})).await;
    let token = gateway.token("shop/app");
    let seed = std::env::var("GATEWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("GATEWAY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut with_rows = 0;
    for _ in 0..300 {
        let filter = tree(&mut random, 3);
        let (limit, offset) = (random.random_range(0..20), random.random_range(0..10));
        let inner = random.random_bool(0.4);
        let inside = random.random_range(0..4);
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let embed = if inner { "parents!inner(label)" } else { "parents(label)" };
        let path = format!(
            "/rows?select=id,{embed}&parents.label=eq.p{inside}&and={}&order=number.desc.nullslast,id&limit={limit}&offset={offset}",
            encode(&format!("({})", filter.dialect))
        );
        let join = if inner { "JOIN" } else { "LEFT JOIN" };
        let from = format!(
            "FROM rows {join} parents p ON p.id = parent_id AND p.label = 'p{inside}' WHERE {}",
            filter.sql.replace("label", "rows.label")
        );
        let sql = format!(
            "SELECT coalesce(json_agg(t), '[]')::text FROM (SELECT rows.id, CASE WHEN p.id IS NOT NULL THEN json_build_object('label', p.label) END AS parents \
             {from} ORDER BY number DESC NULLS LAST, rows.id LIMIT {limit} OFFSET {offset}) t"
        );
        let wanted = gateway.admin.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let wanted: Value = serde_json::from_str(wanted.get(0)).expect("JSON");
        let total: i64 =
            gateway.admin.query_one(&format!("SELECT count(*) {from}"), &[]).await.expect("a count").get(0);
        let answer = gateway.send(&token, "GET", &path, &[("prefer", "count=exact")], None).await;
        if offset > total {
            assert_eq!(answer.status, 416, "GATEWAY_SEED={seed} {path}");
            continue;
        }
        assert_eq!(answer.ok(), wanted, "GATEWAY_SEED={seed} {} {sql}", filter.dialect);
        assert!(
            answer.header("content-range").ends_with(&format!("/{total}")),
            "GATEWAY_SEED={seed} {path}: {answer:?}"
        );
        with_rows += usize::from(wanted != json!([]));
    }
    assert!(with_rows > 30, "most questions have no answer: {with_rows}");
}
