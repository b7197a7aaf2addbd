//! The log of a database pod: agent, Patroni and PostgreSQL, each line as JSON.

use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use crate::harness::{SOON, Sandbox, column, plugin, run, until};

/// The bound of PostgreSQL's files, in bytes, with what the agent stores beside them.
const BOUND: u64 = (16 << 20) + (64 << 10);
/// What they have while the log is passed on, at most: some files of a megabyte.
const FEW: u64 = 4 << 20;

/// The log of a pod's database.
pub async fn text(sandbox: &Sandbox, pod: &str) -> String {
    let parameters = LogParams { container: Some("database".to_owned()), ..LogParams::default() };
    sandbox.api::<Pod>().logs(pod, &parameters).await.expect("the pod's log")
}

/// The lines that are JSON; the others are an error, but for a last one that is still written, and a first one that is
/// the rest of a line: containerd divides the line that it is reading when the kubelet begins another file.
pub fn lines(text: &str) -> Result<Vec<Value>, String> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let is_rest = |(number, line): &(usize, &str)| *number == 0 && !line.starts_with('{') && line.ends_with('}');
    let parsed = whole.lines().enumerate().filter(|line| !is_rest(line)).map(|(_, line)| line);
    let parsed = parsed.map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")));
    parsed.collect()
}

fn has(line: &Value, field: &str, part: &str) -> bool {
    line[field].as_str().is_some_and(|text| text.contains(part))
}

/// An audit is turned on without a restart, and shows who did what, without values.
pub async fn audit(sandbox: &Sandbox, primary: &str) {
    let started = "SELECT pg_postmaster_start_time()::text";
    let connection = sandbox.connect("metered").await;
    let before = column(&connection, started).await.expect("its start");
    let classes = json!({"spec": {"audit": {"classes": ["Write", "Role", "Ddl"]}}});
    sandbox.patch::<ServiceDatabase>("metered", &classes).await;
    let audited = async || {
        let mut lines = lines(&text(sandbox, primary).await)?;
        lines.retain(|line| line["audit"] == true);
        Ok::<_, String>(lines)
    };
    until("an INSERT is audited", SOON, || async {
        let insert = "INSERT INTO notes (id, body) SELECT -7, 'audited' WHERE false";
        run(&connection, insert).await.map_err(|error| format!("{error:?}"))?;
        let lines = audited().await?;
        let line = lines.iter().rev().find(|line| has(line, "message", "INSERT INTO notes")).ok_or("no line yet")?;
        assert_eq!((&line["logger"], &line["level"]), (&"postgres".into(), &"INFO".into()), "{line}");
        assert_eq!((&line["user"], &line["dbname"]), (&"metered_a".into(), &"metered_db".into()), "{line}");
        assert!(line["remote_host"].as_str().is_some_and(|host| host.parse::<std::net::IpAddr>().is_ok()), "{line}");
        assert!(has(line, "message", ",WRITE,INSERT,") && has(line, "timestamp", "T"), "{line}");
        Ok::<_, String>(())
    })
    .await;
    assert_eq!(column(&connection, started).await.expect("its start"), before, "PostgreSQL was restarted");
    let grant = "psql -X -q -h /run/postgresql -U servicedb_local -d metered_db -c 'SET ROLE metered_db_owner' -c 'GRANT SELECT ON notes TO metered_db_app'";
    assert!(sandbox.exec(primary, grant).await.status.success());
    let mut wrong = sandbox.credentials("metered").await;
    wrong.password = "wrong-of-the-audit".to_owned();
    assert!(sandbox.login("metered", &wrong).await.is_err());
    // A tenant's message is no audit, nor one whose line is cut before what shows it.
    run(&connection, "DO $$ BEGIN RAISE LOG 'AUDIT: SESSION,1,1,WRITE,DELETE,,,forged'; END $$").await.expect("a line");
    let long = "DO $$ BEGIN RAISE LOG 'AUDIT: SESSION,1,1,WRITE,DELETE,,,forged %', repeat('x', 300000); END $$";
    run(&connection, long).await.expect("a line");
    let text_then = until("the GRANT, the refusal and the message are in the log", SOON, || async {
        let text = text(sandbox, primary).await;
        let found = lines(&text)?;
        let any = |is_it: &dyn Fn(&Value) -> bool| found.iter().any(is_it);
        let granted = any(&|line| {
            line["audit"] == true && line["user"] == "servicedb_local" && has(line, "message", ",ROLE,GRANT,")
        });
        let refused = any(&|line| line["user"] == "metered_a" && has(line, "message", "authentication failed"));
        let forged = any(&|line| has(line, "message", "AUDIT: SESSION,1,1,WRITE,DELETE,,,forged"));
        let cut =
            any(&|line| line["cut"] == true && has(line, "message", "AUDIT: SESSION,1,1,WRITE,DELETE,,,forged x"));
        if granted && refused && forged && cut {
            Ok(text)
        } else {
            Err(format!("a GRANT: {granted}, a refusal: {refused}, a message: {forged}, a long one: {cut}"))
        }
    })
    .await;
    assert!(!text_then.contains("wrong-of-the-audit"));
    for line in audited().await.expect("JSON") {
        assert_ne!(line["user"], "postgres", "the agent's own sessions: {line}");
        assert!(!has(&line, "message", "forged"), "{line}");
    }
    // A relation is audited by a right that its owner granted, whatever the classes are.
    let granted = json!({"spec": {"audit": {"classes": null, "grantedRelations": true}}});
    sandbox.patch::<ServiceDatabase>("metered", &granted).await;
    let grant = "psql -X -q -h /run/postgresql -U servicedb_local -d metered_db -c 'SET ROLE metered_db_owner' -c 'GRANT DELETE ON notes TO servicedb_audit'";
    assert!(sandbox.exec(primary, grant).await.status.success());
    until("a DELETE is audited by its relation", SOON, || async {
        run(&connection, "DELETE FROM notes WHERE id = -11").await.map_err(|error| format!("{error:?}"))?;
        let of_relation = |line: &Value| has(line, "message", "AUDIT: OBJECT,") && has(line, "message", "id = -11");
        if audited().await?.iter().any(of_relation) { Ok(()) } else { Err("no line yet".to_owned()) }
    })
    .await;
    assert_eq!(column(&connection, started).await.expect("its start"), before, "PostgreSQL was restarted");
    // New credentials, whose verifier is in no line.
    let rotated = plugin(sandbox, &["rotate", "metered"]).await;
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert!(!text(sandbox, primary).await.contains("SCRAM-SHA-256$"), "a verifier");
}

/// A slow statement is a line without the values of its parameters, each part of the pod has its lines, and PostgreSQL's
/// files keep their bound and are removed.
pub async fn structured(sandbox: &Sandbox, primary: &str) {
    sandbox.patch::<ServiceDatabase>("metered", &json!({"spec": {"monitoring": {"slowQuerySeconds": 1}}})).await;
    let connection = sandbox.connect("metered").await;
    let found = until("a slow statement is in the log", SOON, || async {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&1.2_f64, &"left-out-of-the-log"];
        let slow = connection.client.query("SELECT pg_sleep($1), $2::text", &parameters).await;
        slow.map_err(|error| error.to_string())?;
        let found = lines(&text(sandbox, primary).await)?;
        let is_slow = |line: &Value| has(line, "message", "duration: ") && has(line, "message", "pg_sleep($1)");
        let line = found.iter().rev().find(|line| is_slow(line)).ok_or("no line yet")?;
        assert_eq!((&line["logger"], &line["dbname"]), (&"postgres".into(), &"metered_db".into()), "{line}");
        Ok::<_, String>(found)
    })
    .await;
    assert!(!found.iter().any(|line| line.to_string().contains("left-out-of-the-log")));
    let of = |is_it: &dyn Fn(&Value) -> bool| found.iter().filter(|line| is_it(line)).count();
    let agent = of(&|line| has(line, "target", "servicedb::"));
    let (patroni, postgres) = (of(&|line| line["logger"] == "patroni"), of(&|line| line["logger"] == "postgres"));
    assert!(agent > 0 && patroni > 0 && postgres > 0, "{agent} lines of the agent, {patroni}, {postgres}");
    for line in &found {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    // More than the bound, which a server that waited for its log would take long to write.
    let flood = "DO $$ BEGIN FOR i IN 1..24000 LOOP RAISE LOG 'flood % %', i, repeat('x', 1000); END LOOP; END $$";
    run(&connection, flood).await.expect("lines");
    let size = async || {
        let output = sandbox.exec(primary, "du -sb /run/servicedb/log | cut -f1").await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse::<u64>().map_err(|error| format!("{error}: {text}"))
    };
    until("the files keep their bound", SOON, || async {
        let now = size().await?;
        if now <= BOUND { Ok(()) } else { Err(format!("{now} bytes")) }
    })
    .await;
    // The kubelet may have begun another file after the last line of the flood: a later line is passed on after it.
    until("the last line of the flood, or a later one, is in the log", SOON, || async {
        run(&connection, "DO $$ BEGIN RAISE LOG 'after the flood'; END $$")
            .await
            .map_err(|error| format!("{error:?}"))?;
        let last = lines(&text(sandbox, primary).await)?;
        let is_last = |line: &Value| has(line, "message", "flood 24000 ") || line["message"] == "after the flood";
        if last.iter().any(is_last) { Ok(()) } else { Err(format!("{} lines", last.len())) }
    })
    .await;
    until("what was passed on is removed", SOON, || async {
        // The collector begins another file with its next line, and once a second at most.
        run(&connection, "DO $$ BEGIN RAISE LOG 'next'; END $$").await.map_err(|error| format!("{error:?}"))?;
        let now = size().await?;
        if now <= FEW { Ok(()) } else { Err(format!("{now} bytes")) }
    })
    .await;
    sandbox.patch::<ServiceDatabase>("metered", &json!({"spec": {"monitoring": {"slowQuerySeconds": null}}})).await;
}
