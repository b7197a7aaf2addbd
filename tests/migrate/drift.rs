//! The comparison of two catalogs: detected and ignored differences.

use servicedb::migrate::drift::catalog;
use servicedb::migrate::drift::compare::{Catalog, differences};

use crate::{Session, database};

const SCHEMA: &str = "
    SET ROLE drifting_owner;
    CREATE TYPE mood AS ENUM ('low', 'high');
    CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, age int DEFAULT 1, mood mood);
    CREATE INDEX users_email ON users (email);
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner bigint REFERENCES users);
    CREATE VIEW adults AS SELECT id FROM users WHERE age >= 18;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER touched BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch();
    GRANT SELECT ON users TO drifting_app;
    RESET ROLE;";

/// One change, and its message.
const CHANGES: [(&str, &str); 16] = [
    ("ALTER TABLE users ADD note text", "column public.users.note is not in the migrations"),
    ("ALTER TABLE orders DROP owner", "column public.orders.owner is missing"),
    (
        "ALTER TABLE users ALTER email DROP NOT NULL",
        "column public.users.email is text; the migrations define text NOT NULL",
    ),
    (
        "ALTER TABLE users ALTER age SET DEFAULT 2",
        "column public.users.age is integer DEFAULT 2; the migrations define",
    ),
    ("ALTER TABLE users ALTER email TYPE varchar(300)", "character varying(300) NOT NULL; the migrations define text"),
    ("DROP INDEX users_email", "index public.users_email on public.users is missing"),
    ("CREATE TABLE scratch (id int)", "table public.scratch is not in the migrations"),
    ("DROP VIEW adults", "view public.adults is missing"),
    ("CREATE OR REPLACE VIEW adults AS SELECT id FROM users WHERE age >= 21", "view public.adults"),
    (
        "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN old; END'",
        "function public.touch",
    ),
    ("ALTER TABLE users DISABLE TRIGGER touched", "trigger touched on public.users"),
    ("ALTER TABLE users ENABLE ROW LEVEL SECURITY", "table public.users"),
    ("REVOKE SELECT ON users FROM drifting_app", "privileges"),
    ("ALTER TABLE orders OWNER TO postgres", "owner"),
    ("ALTER TYPE mood ADD VALUE 'middle'", "public.mood"),
    ("ALTER TABLE orders ADD CHECK (id > 0) NOT VALID", "constraint"),
];

async fn read(session: &Session) -> Catalog {
    catalog(&session.client).await.expect("the catalog")
}

#[tokio::test]
async fn every_change_by_hand_is_seen_and_data_is_not() {
    let database = database("drifting").await;
    let admin = database.superuser().await;
    admin.client.batch_execute(SCHEMA).await.expect("a schema");
    let declared = read(&admin).await;
    for (change, told) in CHANGES {
        // Names are found as the person finds them who makes the change.
        let by_hand = format!("SET search_path = public; BEGIN; {change};");
        admin.client.batch_execute(&by_hand).await.expect(change);
        let found: Vec<_> = differences(&declared, &read(&admin).await).iter().map(ToString::to_string).collect();
        admin.client.batch_execute("ROLLBACK").await.expect("taken back");
        assert!(found.iter().any(|line| line.contains(told)), "{change}: {found:?}");
        assert!(found.len() <= 3, "{change}: {found:?}");
    }
    let used = "SET search_path = public; INSERT INTO users VALUES (1, 'a'); INSERT INTO orders (owner) VALUES (1);
                DELETE FROM orders; ANALYZE; CREATE TEMPORARY TABLE mine (id int);
                CREATE TABLE servicedb_like (id int); DROP TABLE servicedb_like;";
    admin.client.batch_execute(used).await.expect("use");
    assert_eq!(differences(&declared, &read(&admin).await), []);
    // The check needs no rights.
    assert_eq!(differences(&declared, &read(&database.migrator().await).await), []);
}
