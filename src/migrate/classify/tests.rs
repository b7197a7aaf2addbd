use super::*;

/// The reason for one statement; empty if it is harmless.
fn why(sql: &str) -> String {
    let held = held(sql);
    assert!(held.len() <= 1, "{sql}: {held:?}");
    held.into_iter().next().map(|held| held.why).unwrap_or_default()
}

fn lines(sql: &str) -> Vec<u32> {
    held(sql).iter().map(|held| held.line).collect()
}

#[test]
fn harmless_statements_are_not_held() {
    let cases = [
        "CREATE TABLE t (id uuid PRIMARY KEY DEFAULT my_id(), n int CHECK (mine(n)), g int GENERATED ALWAYS AS (f(n)) STORED)",
        "CREATE TABLE IF NOT EXISTS p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)",
        "CREATE TABLE t2 (LIKE t INCLUDING ALL) INHERITS (t)",
        "CREATE TABLE t2 AS SELECT lower(name), count(*) FROM t GROUP BY 1",
        "CREATE MATERIALIZED VIEW m AS SELECT max(n) FROM t WITH NO DATA",
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t USING gin (lower(name) gin_trgm_ops) WHERE n > 1",
        "CREATE OR REPLACE VIEW v AS SELECT my_function(n) FROM t",
        "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM t; END $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC DELETE FROM t; SELECT 1; END",
        "CREATE PROCEDURE p() LANGUAGE sql AS $x$ TRUNCATE t $x$",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW WHEN (mine(OLD.n)) EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; SELECT 1)",
        "CREATE POLICY p ON t USING (owner = my_user())",
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE TYPE r AS RANGE (subtype = float8)",
        "CREATE DOMAIN email AS text CHECK (mine(VALUE))",
        "CREATE SEQUENCE s START 5",
        "CREATE SCHEMA a CREATE TABLE t (n int) CREATE VIEW v AS SELECT f(n) FROM t",
        "CREATE EXTENSION IF NOT EXISTS citext",
        "CREATE STATISTICS s (dependencies) ON a, b FROM t",
        "CREATE AGGREGATE mine (int) (sfunc = int4pl, stype = int)",
        "CREATE OPERATOR === (leftarg = int, rightarg = int, function = mine)",
        "CREATE CAST (int AS mood) WITH FUNCTION mine(int)",
        "DROP INDEX CONCURRENTLY IF EXISTS i",
        "DROP VIEW v",
        "DROP FUNCTION f(int)",
        "DROP TRIGGER g ON t",
        "DROP POLICY p ON t",
        "DROP RULE r ON t",
        "DROP AGGREGATE mine(int)",
        "DROP CAST (int AS mood)",
        "DROP OPERATOR === (int, int)",
        "ALTER TABLE t ADD COLUMN c timestamptz NOT NULL DEFAULT now(), ADD d bigserial, ADD e mood DEFAULT 'ok'::mood",
        "ALTER TABLE t ALTER c SET DEFAULT mine(), ALTER c DROP DEFAULT, ALTER c SET NOT NULL, ALTER c DROP NOT NULL",
        "ALTER TABLE t ADD CONSTRAINT k CHECK (length(name) BETWEEN 1 AND 9 AND n NOT BETWEEN SYMMETRIC 2 AND 1) NOT VALID",
        "ALTER TABLE t ADD FOREIGN KEY (u) REFERENCES users ON DELETE CASCADE",
        "ALTER TABLE t VALIDATE CONSTRAINT k, DROP CONSTRAINT j, ADD PRIMARY KEY USING INDEX i",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE t DISABLE TRIGGER g, OWNER TO me, ALTER c SET STATISTICS 500, SET (fillfactor = 70)",
        "ALTER TABLE t ATTACH PARTITION p1 FOR VALUES IN ('a', 'b')",
        "ALTER TABLE t ALTER c DROP EXPRESSION",
        "ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE t RENAME COLUMN a TO b",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t SET SCHEMA other",
        "ALTER VIEW v RENAME TO w",
        "ALTER INDEX i SET (fillfactor = 70)",
        "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'happy' BEFORE 'ok'",
        "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
        "ALTER TYPE pair ADD ATTRIBUTE c int CASCADE",
        "ALTER DOMAIN email ADD CHECK (VALUE ~ '@')",
        "ALTER DOMAIN email SET DEFAULT mine()",
        "ALTER SEQUENCE s OWNED BY t.id",
        "ALTER FUNCTION f() OWNER TO me",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO app",
        "COMMENT ON COLUMN t.c IS 'DROP TABLE t'",
        "GRANT SELECT ON t TO app",
        "REVOKE ALL ON t FROM app",
        "SET LOCAL lock_timeout = '1s'",
        "SET search_path TO pg_catalog, app",
        "RESET ALL",
        "SHOW work_mem",
        "SAVEPOINT s",
        "ROLLBACK TO SAVEPOINT s",
        "LOCK TABLE t IN EXCLUSIVE MODE",
        "NOTIFY c, 'x'",
        "ANALYZE t",
        "VACUUM (FULL) t",
        "REINDEX INDEX CONCURRENTLY i",
        "CLUSTER t USING i",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
        "SET CONSTRAINTS ALL DEFERRED",
        "INSERT INTO t (id, n) VALUES (gen_random_uuid(), DEFAULT), (pg_catalog.gen_random_uuid(), 2) RETURNING id",
        "INSERT INTO t SELECT * FROM u ON CONFLICT DO NOTHING",
        "SELECT 1",
        "SELECT setval(pg_get_serial_sequence('t', 'id'), coalesce(max(id), 1)) FROM t",
        "SELECT extract(year FROM d), trim(both 'x' FROM s), d AT TIME ZONE 'UTC', substring(s FROM 1 FOR 2), a LIKE 'x' ESCAPE '!', \
         a SIMILAR TO 'b', current_user, greatest(a, b), CASE WHEN a IS DISTINCT FROM b THEN 1 END, j #>> '{a}', NULLIF(a, b) FROM t",
        "SELECT * FROM t WHERE id = ANY (ARRAY[1]) AND x IN (SELECT y FROM u) AND EXISTS (SELECT FROM u) ORDER BY x USING <",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT n, row_number() OVER w FROM r WINDOW w AS (ORDER BY n)",
        "SELECT * INTO u FROM t",
        "TABLE t",
        "VALUES (1)",
        "EXPLAIN DELETE FROM t",
        "EXPLAIN (ANALYZE) SELECT 1",
    ];
    for sql in cases {
        assert_eq!(why(sql), "", "{sql}");
    }
    assert_eq!(held(""), []);
    assert_eq!(held("-- DROP TABLE t;\n/* DELETE FROM t */ ;;"), []);
}

#[test]
fn statements_that_lose_stored_data_are_held() {
    let cases = [
        ("DROP TABLE IF EXISTS public.users", "drops the table public.users"),
        ("DROP TABLE a, \"B c\", d, e, f", "drops the table a, \"B c\", d and 2 more"),
        ("DROP TABLE \"O\"\"Brien\nx\"", "drops the table \"O\"\"Brien\u{fffd}x\""),
        ("DROP TABLE \"Users\", \"Тест\"", "drops the table \"Users\", \"Тест\""),
        ("DROP SCHEMA s CASCADE", "drops the schema s and what depends on it"),
        ("DROP SEQUENCE s", "drops the sequence s"),
        ("DROP MATERIALIZED VIEW m", "drops the materialized view m"),
        ("DROP TYPE app.mood", "drops the type app.mood"),
        ("DROP DOMAIN d", "drops the domain d"),
        ("DROP EXTENSION hstore", "drops the extension hstore"),
        ("DROP FOREIGN TABLE f", "drops the foreign table f"),
        ("DROP OWNED BY me", "drops all that a role owns"),
        ("DROP VIEW v CASCADE", "drops the view v and what depends on it"),
        ("DROP FUNCTION s.f(int) CASCADE", "drops the function s.f and what depends on it"),
        ("DROP TRIGGER g ON s.t CASCADE", "drops the trigger s.t.g and what depends on it"),
        ("DROP INDEX i CASCADE", "drops the index i and"),
        ("ALTER TABLE users DROP COLUMN email", "drops the column email of users"),
        ("ALTER TABLE ONLY s.users DROP email CASCADE", "drops the column email of s.users and what depends on it"),
        (
            "ALTER TABLE t ADD a int, DROP b, ALTER c TYPE int",
            "drops the column b of t, changes the type of the column c",
        ),
        ("ALTER TABLE t ALTER c TYPE int USING c::int", "changes the type of the column c of t"),
        ("ALTER TABLE t DROP CONSTRAINT k CASCADE", "drops the constraint k of t and what depends on it"),
        ("ALTER TABLE t ALTER id DROP IDENTITY", "drops the sequence of the column id of t"),
        ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "removes a partition's rows from t"),
        ("ALTER TABLE t NO INHERIT p", "removes the rows of t from its parent"),
        ("ALTER TABLE t SET UNLOGGED", "unlogged"),
        ("ALTER TYPE pair DROP ATTRIBUTE a", "drops the attribute a of pair"),
        ("ALTER TYPE pair ALTER ATTRIBUTE a TYPE text", "changes the type of the attribute a of pair"),
        ("ALTER DOMAIN d DROP CONSTRAINT c CASCADE", "changes the domain d and what depends on it"),
        ("TRUNCATE a, s.b CASCADE", "empties the table a, s.b"),
        ("DELETE FROM ONLY s.t WHERE id = 1", "deletes rows of s.t"),
        ("UPDATE t SET a = 'secret'", "overwrites rows of t"),
        ("MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE", "merges into t"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1", "overwrites rows of t that exist already"),
        ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "deletes rows of t"),
        (
            "WITH d AS (UPDATE t SET a = 1 RETURNING *), e AS (DELETE FROM u) INSERT INTO x SELECT * FROM d",
            "deletes rows of u",
        ),
        ("SELECT * FROM x UNION (WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d)", "deletes rows of t"),
        ("CREATE TABLE n AS WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "deletes rows of t"),
        ("WITH i AS (INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1) SELECT 1", "overwrites rows of t"),
        ("EXPLAIN (COSTS, ANALYZE) DELETE FROM t", "deletes rows of t"),
        ("EXPLAIN ANALYZE UPDATE t SET a = 1", "overwrites rows of t"),
    ];
    for (sql, fragment) in cases {
        let why = why(sql);
        assert!(why.contains(fragment), "{sql}: {why:?}");
        assert!(!why.contains("secret"), "{sql}: {why:?}");
    }
}

#[test]
fn statements_with_an_unknown_effect_are_held() {
    let cases = [
        ("DO $$ BEGIN PERFORM 1; END $$", "a DO block, which can do anything"),
        ("CALL app.tidy('secret')", "calls the procedure app.tidy"),
        ("PREPARE p AS DELETE FROM t", "prepared"),
        ("EXECUTE p('secret')", "prepared"),
        ("CREATE TABLE t AS EXECUTE p", "runs another statement"),
        ("EXPLAIN ANALYZE EXECUTE p", "prepared"),
        ("COPY t FROM '/secret'", "COPY"),
        ("COPY (DELETE FROM t RETURNING *) TO '/secret'", "COPY"),
        ("LOAD 'secret'", "loads a library"),
        ("SELECT tidy('secret')", "calls the function tidy, which can do anything"),
        ("SELECT app.lower('secret')", "calls the function app.lower"),
        ("SELECT \"Lower\"('secret')", "calls the function \"Lower\""),
        ("SELECT set_config('role', 'secret', false)", "set_config"),
        ("SELECT query_to_xml('secret', true, true, '')", "query_to_xml"),
        ("SELECT 1 FROM t, LATERAL tidy(t.id)", "tidy"),
        ("SELECT 1 FROM ROWS FROM (now(), tidy(1))", "tidy"),
        ("SELECT count(*) FILTER (WHERE tidy(a)) OVER (PARTITION BY b) FROM t", "tidy"),
        ("SELECT sum(a) OVER (ORDER BY tidy(b)) FROM t", "tidy"),
        ("SELECT json_object('a' : tidy(1))", "tidy"),
        ("SELECT json_value(tidy(1), '$')", "tidy"),
        ("SELECT 1 WHERE (SELECT tidy(1)) IS NULL LIMIT tidy(2)", "tidy"),
        ("SELECT a === b FROM t", "uses the operator ==="),
        ("SELECT a OPERATOR(app.+) b FROM t", "uses the operator app.+"),
        ("SELECT 1 FROM t WHERE a === ANY (SELECT 1)", "uses the operator ==="),
        ("SELECT 1 FROM t ORDER BY a USING <<<", "uses the operator <<<"),
        ("INSERT INTO t VALUES (lower('x'), tidy(1))", "tidy"),
        ("INSERT INTO t VALUES (1) RETURNING tidy(1)", "tidy"),
        ("CREATE MATERIALIZED VIEW m AS SELECT tidy(1)", "tidy"),
        ("CREATE INDEX ON t (tidy(a))", "tidy"),
        ("CREATE INDEX ON t (a) WHERE tidy(a)", "tidy"),
        ("ALTER TABLE t ADD c int DEFAULT tidy(1)", "tidy"),
        ("ALTER TABLE t ADD c int GENERATED ALWAYS AS (tidy(a)) STORED", "tidy"),
        ("ALTER TABLE t ADD CHECK (tidy(a))", "tidy"),
        ("ALTER DOMAIN d ADD CHECK (tidy(VALUE))", "tidy"),
        ("ALTER TABLE t ATTACH PARTITION p FOR VALUES FROM (tidy(1)) TO (2)", "tidy"),
        ("CREATE TABLE p PARTITION OF t FOR VALUES IN (tidy(1))", "tidy"),
        ("CREATE SCHEMA a CREATE TABLE t (n int) CREATE INDEX ON t (tidy(n))", "tidy"),
        ("SET ROLE postgres", "changes the setting role"),
        ("RESET ROLE", "changes the setting role"),
        ("SET \"Role\" = 'secret'", "changes the setting role"),
        ("SET SESSION AUTHORIZATION 'secret'", "changes the setting session_authorization"),
        ("SET standard_conforming_strings = off", "standard_conforming_strings"),
        ("SET NAMES 'SJIS'", "client_encoding"),
        ("SET search_path = app, pg_catalog", "before pg_catalog"),
        ("COMMIT", "ends the transaction"),
        (
            "ALTER SYSTEM SET work_mem = 'secret'",
            "a statement of the kind ALTER SYSTEM, which is not known to be harmless",
        ),
        ("CREATE ROLE x PASSWORD 'secret'", "CREATE ROLE"),
        ("ALTER ROLE x PASSWORD 'secret'", "ALTER ROLE"),
        ("DROP ROLE x", "DROP ROLE"),
        ("GRANT admin TO me", "GRANT ROLE"),
        ("ALTER ROLE x RENAME TO y", "changes a role"),
        ("ALTER DATABASE x OWNER TO y", "changes a database"),
        ("DROP DATABASE x", "DROPDB"),
        ("ALTER DATABASE x SET role = 'secret'", "ALTER DATABASE SET"),
        ("ALTER EXTENSION x UPDATE", "ALTER EXTENSION"),
        ("CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()", "CREATE EVENT TRIG"),
        ("DISCARD ALL", "DISCARD"),
    ];
    for (sql, fragment) in cases {
        let why = why(sql);
        assert!(why.contains(fragment), "{sql}: {why:?}");
        assert!(!why.contains("secret"), "{sql}: {why:?}");
    }
}

#[test]
fn the_line_is_that_of_the_first_word() {
    let sql = "-- größer: ДROP TABLE x;\n\nSELECT 'ü;\n', \"ä;\"\"\" FROM t;\n/* DROP\n TABLE */ -- c\n  DROP TABLE a ;\r\n\
               CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $x$\nDROP TABLE b;\n$x$; DELETE FROM c;\n\n\
               /* c */ WITH d AS (\nDELETE FROM e RETURNING *) SELECT * FROM d;;\n\n;-- end\nINSERT INTO t VALUES (f());\nTRUNCATE t\n-- end";
    assert_eq!(lines(sql), [7, 10, 12, 16, 17]);
    let held = held(sql);
    let whys: Vec<&str> = held.iter().map(|held| held.why.as_str()).collect();
    assert_eq!(whys[0], "drops the table a");
    assert_eq!(whys[2], "deletes rows of e");
    for statement in
        ["DELETE FROM t", "INSERT INTO t SELECT f()", "UPDATE t SET a = 1", "(SELECT f())", "ALTER TABLE t DROP c"]
    {
        assert_eq!(lines(&format!("-- a\n-- b\n{statement}\n;\n/* \n */{statement}")), [3, 6], "{statement}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_held_whole() {
    let nested = format!("SELECT 1;\n\nSELECT {}'secret'{}", "lower(".repeat(20_000), ")".repeat(20_000));
    let cases = [
        ("SELECT 1;\n\nSELEC 'secret';\nDROP TABLE t", 3, "cannot read"),
        ("DROP TABLE t;\nSELECT 'secret", 2, "cannot read"),
        ("SELECT 1;\nINSERT INTO t VALUES ('a', 'secret' 'x' y z);", 2, "cannot read"),
        ("SELECT \u{0}1", 1, "cannot read"),
        (&nested, 3, "cannot read"),
    ];
    for (sql, line, fragment) in cases {
        let held = held(sql);
        assert_eq!(held.len(), 1, "{held:?}");
        assert_eq!(held[0].line, line, "{held:?}");
        assert!(held[0].why.contains(fragment) && !held[0].why.contains("secret"), "{held:?}");
    }
}

#[test]
fn only_the_statement_that_is_not_analysed_is_held() {
    let deep = format!("SELECT 1;\nSELECT 1{};\nSELECT 2;\nDROP TABLE t", " || 'secret'".repeat(60));
    let large =
        format!("SELECT 1;\nINSERT INTO t VALUES ('secret'{});\nSELECT 2;\nDROP TABLE t", ", 1".repeat(LARGEST / 3));
    for (sql, fragment) in [(deep, "nested too deeply"), (large, "more than 64 KiB")] {
        assert_eq!(lines(&sql), [2, 4]);
        let held = held(&sql);
        assert!(held[0].why.contains(fragment) && !held[0].why.contains("secret"), "{held:?}");
    }
}

/// In a test's thread, whose stack is as large as those of tokio's.
#[test]
fn nesting_never_overflows_the_stack() {
    let all = |open: &str, core: &str, close: &str, times: usize| {
        format!("SELECT {}{core}{}", open.repeat(times), close.repeat(times))
    };
    for times in [10, 20, 40, 60, 100, 1000, 10_000, 100_000] {
        let cases = [
            all("(", "1", ")", times),
            all("(SELECT ", "1", ")", times),
            all("- ", "1", "", times),
            all("NOT ", "true", "", times),
            all("", "1", " + 1", times),
            all("", "1", "::int", times),
            all("lower(", "'a'", ")", times),
            all("CASE WHEN true THEN ", "1", " END", times),
            all("ARRAY[", "1", "]", times),
            all("", "1", " UNION ALL SELECT 1", times),
            all("", "a", ".a", times),
            format!("{}{}", "EXPLAIN ".repeat(times), "SELECT 1"),
            format!("SELECT * FROM {}t{}", "(".repeat(times), " CROSS JOIN t)".repeat(times)),
            format!("SELECT {}", vec!["true"; times].join(" AND ")),
        ];
        for sql in cases {
            let held = held(&sql);
            assert!(
                held.iter().all(|held| held.why.contains("cannot read")
                    || held.why.contains("not analysed")
                    || held.why.contains("too deep")),
                "{times} {:.40}: {held:?}",
                sql
            );
        }
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let sql = "SELECT 1;\nDROP TABLE a;\nSELECT lower('x');\nSELECT f();";
    std::thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                for _ in 0..200 {
                    assert_eq!(lines(sql), [2, 4]);
                    assert_eq!(lines(if worker % 2 == 0 { "SELEC" } else { "DROP TABLE a" }), [1]);
                }
            });
        }
    });
}
