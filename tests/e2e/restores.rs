//! Restores from the object store of the local cluster into new databases.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use crate::archive::archive_a_segment;
use crate::harness::{
    Cluster, Credentials, READY, SOON, Sandbox, Writer, column, database, plugin, shared, sqlstate, store, with_notes,
};

/// The client with short-lived logins, and its declaration.
const READER: &str = "reader";

fn reader() -> Value {
    json!({"serviceAccountName": READER, "access": {"mode": "ReadOnly", "dynamic": {}}})
}

async fn psql(sandbox: &Sandbox, service: &str, statement: &str) -> String {
    let pod = sandbox.primary(service).await;
    let output =
        sandbox.exec(&pod, &format!("psql -XqAt -d {}_db -c \"{statement}\"", service.replace('-', "_"))).await;
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Creates a database that is restored.
async fn restore(sandbox: &Sandbox, name: &str, source: Value, target: Value) {
    let restore =
        if target.is_null() { json!({"source": source}) } else { json!({"source": source, "target": target}) };
    // The others need no store: two Jobs run at once in the cluster, and each database would wait for its first backup.
    let backup = if name == "two" {
        json!({"store": "main", "schedule": {"verification": ""}})
    } else {
        json!({"enabled": false})
    };
    let clients = if name == "one" { json!([reader()]) } else { json!([]) };
    let bootstrap = json!({"restore": restore});
    let spec = json!({"storage": {"size": "1Gi"}, "backup": backup, "bootstrap": bootstrap, "clients": clients});
    sandbox.create(database(name, spec)).await;
}

/// A moment of a database that is written to.
struct Moment {
    time: Timestamp,
    /// The ids of the rows that were acknowledged before it.
    rows: Vec<u64>,
    /// The highest id that may have been sent before it. A row whose acknowledgement was lost in a switchover has an
    /// id below it, and may be stored or not: so rows are compared by id, never by their number.
    newest: u64,
}

impl Moment {
    async fn of(writer: &Writer) -> Self {
        writer.goes_on(20).await;
        let rows = writer.rows();
        let time = Timestamp::now();
        // This thread may have stood still between the two.
        let moment = Self { time, rows, newest: writer.sent() };
        // PostgreSQL's time of a commit is before its acknowledgement.
        tokio::time::sleep(Duration::from_millis(20)).await;
        moment
    }

    fn target(&self) -> Value {
        // Of people in another time zone.
        json!({"time": self.time.display_with_offset(jiff::tz::offset(5)).to_string()})
    }
}

/// A row is lost by mistake, and comes back: a new database has each row that was acknowledged before the chosen
/// moment, and none that was sent after it, whoever led meanwhile. It has its own names, logins and archive.
#[test]
fn a_new_database_has_the_state_of_a_chosen_moment() {
    if !Cluster::is_local() {
        return;
    }
    let _store = store::used();
    shared("restores", async |sandbox| {
        let backup = json!({"store": "main", "schedule": {"verification": ""}});
        with_notes(&sandbox, json!({"instances": 2, "backup": backup, "clients": [reader()]})).await;
        sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
        // It is in the data that is restored.
        let leased = sandbox.leased("shop", READER).await;
        let writer = Writer::start(sandbox.clone(), "shop");
        let first = Moment::of(&writer).await;
        writer.goes_on(20).await;
        let switched = plugin(&sandbox, &["switchover", "shop"]).await;
        assert!(switched.status.success(), "{}", String::from_utf8_lossy(&switched.stderr));
        let second = Moment::of(&writer).await;
        let lsn = psql(&sandbox, "shop", "SELECT pg_current_wal_lsn()").await;
        let named = plugin(&sandbox, &["restore-point", "shop", "before-it"]).await;
        let (out, error) = (String::from_utf8_lossy(&named.stdout), String::from_utf8_lossy(&named.stderr));
        assert!(named.status.success() && out.contains("before-it is the state at"), "{out}{error}");
        writer.goes_on(20).await;
        let written = writer.stop().await.len() as u64;
        archive_a_segment(&sandbox, &sandbox.primary("shop").await).await;

        // Before the first backup nothing can be recovered, and nothing is made.
        let from =
            sandbox.get("shop").await.status.and_then(|status| status.backup?.recoverable_from).expect("a window");
        let early = json!({"time": (from.0 - Duration::from_secs(1)).to_string()});
        let late = json!({"time": (Timestamp::now() + Duration::from_secs(3600)).to_string()});
        let foreign =
            json!({"store": "main", "path": place(&sandbox).await.replace(&sandbox.namespace, "kube-system")});
        for (name, source, target, word) in [
            ("too-early", json!({"name": "shop"}), early, from.0.to_string()),
            ("too-late", json!({"name": "shop"}), late, "until now".to_owned()),
            ("of-others", foreign, Value::Null, sandbox.namespace.clone()),
        ] {
            restore(&sandbox, name, source, target).await;
            let refused = sandbox.condition(name, "Stalled", "True", "RestoreRefused", SOON).await;
            assert!(refused.message.contains(&word), "{}", refused.message);
            assert!(sandbox.pods(name).await.is_empty());
            sandbox.delete::<ServiceDatabase>(name).await;
        }

        let moments = [("one", &first), ("two", &second)];
        for (name, moment) in moments {
            restore(&sandbox, name, json!({"name": "shop"}), moment.target()).await;
        }
        restore(&sandbox, "by-lsn", json!({"name": "shop"}), json!({"lsn": lsn})).await;
        restore(&sandbox, "by-name", json!({"name": "shop"}), json!({"name": "before-it"})).await;
        for (name, moment) in moments {
            sandbox.ready(name, READY).await;
            // By the credentials in Vault, which are its own.
            let connection = sandbox.connect(name).await;
            let ids = column(&connection, "SELECT id FROM notes").await.expect("the rows");
            let ids: BTreeSet<u64> = ids.iter().map(|id| id.parse().expect("a number")).collect();
            let lost: Vec<_> = moment.rows.iter().filter(|id| !ids.contains(id)).collect();
            assert!(lost.is_empty(), "{name} lacks {lost:?}");
            let last = ids.last().copied().unwrap_or_default();
            assert!(last <= moment.newest, "{name}: {last} <= {}", moment.newest);
        }
        the_clients_of_a_clone_are_its_own(&sandbox, "one", &leased).await;
        for name in ["by-lsn", "by-name"] {
            sandbox.ready(name, READY).await;
            let rows: u64 = psql(&sandbox, name, "SELECT count(*) FROM notes").await.parse().expect("a number");
            let before = second.rows.len() as u64;
            assert!(before <= rows && rows < written, "{name}: {before} <= {rows} < {written}");
        }
        let told = sandbox.get("two").await.status.and_then(|status| status.restored).expect("what was restored");
        assert!(told.contains("of shop was restored from the backup"), "{told}");

        // Nothing of the other database lets anybody in.
        let logins = psql(
            &sandbox,
            "two",
            "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_authid WHERE rolname LIKE 'shop%'",
        )
        .await;
        assert_eq!(logins, "");
        let owner = psql(&sandbox, "two", "SELECT tableowner FROM pg_tables WHERE tablename = 'notes'").await;
        assert_eq!(owner, "two_db_owner");

        // It archives to a place of its own, and can be restored itself; the other one goes on as if nothing was.
        sandbox.condition("two", "BackedUp", "True", "BackedUp", READY * 2).await;
        psql(&sandbox, "two", "CREATE TABLE public.later (id int)").await;
        let backed_up = plugin(&sandbox, &["backup", "two"]).await;
        assert!(backed_up.status.success(), "{}", String::from_utf8_lossy(&backed_up.stderr));
        restore(&sandbox, "of-two", json!({"name": "two"}), json!({"immediate": true})).await;
        sandbox.ready("of-two", READY).await;
        assert_eq!(psql(&sandbox, "of-two", "SELECT count(*) FROM public.later").await, "0");

        // A database that was deleted comes back by its folder, whatever one of its name has archived since.
        let path = place(&sandbox).await;
        sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": {"deletionPolicy": "Delete"}})).await;
        sandbox.delete::<ServiceDatabase>("shop").await;
        sandbox.gone("shop", READY).await;
        another_of_this_name(&sandbox, &path).await;
        restore(&sandbox, "back", json!({"store": "main", "path": path}), Value::Null).await;
        sandbox.ready("back", READY).await;
        let rows: u64 = psql(&sandbox, "back", "SELECT count(*) FROM notes").await.parse().expect("a number");
        assert!(rows >= written, "{rows} of {written}");
    });
}

/// A short-lived login that the restored data has is refused by the new database, and goes on in the other one. Vault
/// makes logins for the client of each, with which nobody logs in to the other one.
async fn the_clients_of_a_clone_are_its_own(sandbox: &Sandbox, clone: &str, of_source: &Credentials) {
    let (of_clone, another) = (sandbox.leased(clone, READER).await, sandbox.leased("shop", READER).await);
    for (at, login, may) in [
        (clone, &of_clone, true),
        (clone, of_source, false),
        (clone, &another, false),
        ("shop", of_source, true),
        ("shop", &another, true),
        ("shop", &of_clone, false),
    ] {
        // As if it were its own, so that only the login may be wrong.
        let there = sandbox.credentials(at).await;
        let login = Credentials { user: login.user.clone(), password: login.password.clone(), ..there };
        let what = format!("{} at {at}", login.user);
        match sandbox.login(at, &login).await {
            Ok(session) => {
                assert!(may, "{what}: it is accepted");
                column(&session, "SELECT id FROM notes").await.unwrap_or_else(|refusal| panic!("{what}: {refusal:?}"));
            }
            Err(error) => {
                let is_refused = sqlstate(&error).is_some_and(|code| code.starts_with("28"));
                assert!(!may && is_refused, "{what}: {error}");
            }
        }
    }
}

/// The folder of the database in the store.
async fn place(sandbox: &Sandbox) -> String {
    sandbox.get("shop").await.status.and_then(|status| status.backup).expect("a place").path
}

/// Another resource has the name of a deleted one: it archives to a folder of its own, and is restored to its own state.
async fn another_of_this_name(sandbox: &Sandbox, former: &str) {
    let backup = json!({"store": "main", "schedule": {"verification": ""}});
    let migrations = json!({"source": {"configMap": {"name": "migrations"}}});
    sandbox.create(database("shop", json!({"backup": backup, "migrations": migrations}))).await;
    sandbox.ready("shop", READY).await;
    sandbox.condition("shop", "BackedUp", "True", "BackedUp", READY * 2).await;
    let path = place(sandbox).await;
    let folder = |path: &str| path.rsplit_once('/').expect("a folder").0.to_owned();
    assert!(path != former && folder(&path) == folder(former), "{path}, after {former}");
    assert_eq!(psql(sandbox, "shop", "SELECT count(*) FROM notes").await, "0", "it has rows of the former one");
    psql(sandbox, "shop", "INSERT INTO notes VALUES (1, 'of the second one')").await;
    archive_a_segment(sandbox, &sandbox.primary("shop").await).await;
    restore(sandbox, "of-second", json!({"name": "shop"}), Value::Null).await;
    sandbox.ready("of-second", READY).await;
    let rows = psql(sandbox, "of-second", "SELECT string_agg(body, ',') FROM notes").await;
    assert_eq!(rows, "of the second one");
    sandbox.delete::<ServiceDatabase>("of-second").await;
}
