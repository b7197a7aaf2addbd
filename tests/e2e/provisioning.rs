//! From a resource to a serving database: one instance, and three.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio_postgres::{Config, NoTls, config::SslMode};

use crate::harness::{
    NOTES, READY, SOON, Sandbox, column, condition, config_map, database, dump_command, login_at, plugin,
    postgres_major, run, service_account, shared, sqlstate, until,
};

#[test]
fn one_instance_is_ready_and_its_credentials_log_in() {
    shared("one", async |sandbox| {
        sandbox.create(service_account("shop")).await;
        sandbox.create(database("shop", json!({"clients": [{"serviceAccountName": "shop"}]}))).await;
        let ready = sandbox.ready("shop", READY).await;

        let status = ready.status.clone().expect("a status");
        for (kind, wanted) in [
            ("Ready", "True"),
            ("Reconciling", "False"),
            ("Stalled", "False"),
            ("DatabaseAvailable", "True"),
            ("CredentialsReady", "True"),
            ("MigrationsApplied", "True"),
            ("VaultReachable", "True"),
        ] {
            let found = condition(&ready, kind).unwrap_or_else(|| panic!("no condition {kind}"));
            assert_eq!(found.status, wanted, "{kind}: {} {}", found.reason, found.message);
            assert_eq!(found.observed_generation, ready.metadata.generation, "{kind} is of another generation");
        }
        assert_eq!(status.database.as_deref(), Some("shop_db"));
        assert_eq!(status.instances.as_deref(), Some("1/1"));
        assert_eq!(status.primary.as_deref(), Some("shop-db-0"));
        let version = status.postgres_version.as_deref().unwrap_or_default();
        let major = postgres_major().unwrap_or_else(|| "18".to_owned());
        assert!(version.starts_with(&format!("{major}.")), "the server's version is {version:?}");
        let endpoints = status.endpoints.expect("endpoints");
        assert_eq!(endpoints.primary, format!("shop-db.{}.svc:5432", sandbox.namespace));
        assert_eq!(endpoints.replicas, None, "one instance has no replicas");
        let credentials = status.credentials.expect("credentials");
        assert_eq!(credentials.generation, 1);
        assert!(credentials.rotated_at.is_some(), "no time of promotion");
        let path = format!("secret/{}/{}/shop/runtime", sandbox.cluster.id, sandbox.namespace);
        assert_eq!(credentials.vault_path.as_deref(), Some(path.as_str()));

        columns_tell(&sandbox, "shop", &ready.uid().unwrap_or_default()).await;
        record_is_complete(&sandbox, "shop", &ready.uid().unwrap_or_default()).await;
        logins_are_as_promised(&sandbox, "shop").await;
    });
}

/// What `kubectl get sdb` prints.
async fn columns_tell(sandbox: &Sandbox, name: &str, uid: &str) {
    let path = format!("/apis/servicedb.dev/v1alpha1/namespaces/{}/servicedatabases/{name}", sandbox.namespace);
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .expect("a request");
    let table: Value = sandbox.cluster.client.request(request).await.expect("the resource as a table");
    let names: Vec<_> =
        table["columnDefinitions"].as_array().expect("columns").iter().map(|column| &column["name"]).collect();
    assert_eq!(
        names,
        [
            "Name",
            "Ready",
            "Reason",
            "Instances",
            "Primary",
            "Schema",
            "Age",
            "Version",
            "Vault path",
            "Backup",
            "Verified",
            "Rotated"
        ],
        "the columns of {uid}"
    );
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells[..5], [json!(name), json!("True"), json!("Ready"), json!("1/1"), json!(format!("{name}-db-0"))]);
}

/// The record that a service reads has everything that a connection takes.
async fn record_is_complete(sandbox: &Sandbox, name: &str, uid: &str) {
    let names = sandbox.vault_names(name);
    let record = sandbox.vault().record(&names.runtime()).await.expect("the runtime record");
    let keys: BTreeSet<_> = record.as_object().expect("keys").keys().map(String::as_str).collect();
    let wanted =
        ["CA", "HOST", "NAME", "PASSWORD", "PORT", "SSLMODE", "URL", "USER"].map(|key| format!("SHOP_DB_{key}"));
    for key in &wanted {
        assert!(keys.contains(key.as_str()), "the record has no {key}, only {keys:?}");
    }
    let host = format!("{name}-db.{}.svc", sandbox.namespace);
    for (key, value) in
        [("HOST", host.as_str()), ("PORT", "5432"), ("NAME", "shop_db"), ("USER", "shop_a"), ("SSLMODE", "verify-full")]
    {
        assert_eq!(record[format!("SHOP_DB_{key}")], json!(value));
    }
    let password = record["SHOP_DB_PASSWORD"].as_str().expect("a password");
    assert!(password.len() >= 24, "the password has {} characters", password.len());
    let url = format!("postgresql://shop_a:{password}@{host}:5432/shop_db?sslmode=verify-full");
    assert!(record["SHOP_DB_URL"] == json!(url), "SHOP_DB_URL does not hold what the other keys hold");

    let metadata = sandbox.vault().metadata(&names.runtime()).await.expect("metadata");
    assert_eq!(metadata["custom_metadata"]["servicedb-uid"], json!(uid), "the record's owner");
    assert_eq!(metadata["current_version"], json!(1), "the record was written once");
    assert!(sandbox.vault().record(&names.pending()).await.is_none(), "the record pending was left behind");
}

/// Without migrations the application creates its schema; who migrates later can change it; pg_dump as
/// the application works, and its dump can be loaded as documented.
async fn creates_its_own_schema(sandbox: &Sandbox, name: &str) {
    let connection = sandbox.connect(name).await;
    let statements = "CREATE TABLE orders (id bigint PRIMARY KEY); COMMENT ON TABLE orders IS 'by the application'; \
                      CREATE SCHEMA billing; CREATE TABLE billing.invoices (id bigint PRIMARY KEY); \
                      INSERT INTO orders VALUES (1)";
    run(&connection, statements).await.expect("the application creates its schema");
    let ledger = run(&connection, "CREATE TABLE servicedb.mine (id int)").await.expect_err("the ledger's schema");
    assert_eq!(ledger.sqlstate.as_deref(), Some("42501"));
    let owner = plugin(sandbox, &["psql", name, "--", "-c", "ALTER TABLE orders ADD COLUMN total int"]).await;
    assert!(owner.status.success(), "{}", String::from_utf8_lossy(&owner.stderr));

    let dump = dump_command(&sandbox.credentials(name).await);
    let dumped = sandbox.exec(&format!("{name}-db-0"), &dump).await;
    let text = String::from_utf8_lossy(&dumped.stdout).into_owned();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    for part in ["CREATE TABLE public.orders", "CREATE TABLE billing.invoices", "COMMENT ON TABLE public.orders"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    run(&connection, "DROP TABLE orders; DROP SCHEMA billing CASCADE").await.expect("it owns them");
}

async fn logins_are_as_promised(sandbox: &Sandbox, name: &str) {
    let credentials = sandbox.credentials(name).await;
    // TLS verify-full with the record's authority and host name.
    let connection = sandbox.connect(name).await;
    let seen = column(&connection, "SET ROLE NONE; SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .await
        .expect("a query");
    assert_eq!(seen, ["t"], "the connection is not encrypted");
    let who = column(&connection, "RESET ROLE; SELECT session_user || ' as ' || current_user").await.expect("a query");
    assert_eq!(who, ["shop_a as shop_db_app"]);
    let superuser = column(&connection, "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = session_user").await;
    assert_eq!(superuser.expect("a query"), ["f"], "the application's login has an administrator's rights");
    let others =
        column(&connection, "SELECT rolname FROM pg_authid").await.expect_err("verifiers are not for everybody");
    assert_eq!(others.sqlstate.as_deref(), Some("42501"));

    creates_its_own_schema(sandbox, name).await;

    // Another authority does not vouch for it.
    sandbox.create(database("other", json!({}))).await;
    sandbox.ready("other", READY).await;
    let mut distrustful = credentials.clone();
    distrustful.ca = sandbox.credentials("other").await.ca;
    let refused =
        sandbox.login(name, &distrustful).await.err().expect("the certificate is of another authority").to_string();
    assert!(refused.contains("ertificate"), "{refused}");

    // Plain, without TLS.
    let address = sandbox.address(&format!("{name}-db")).await;
    let plain = Config::new()
        .host(credentials.host.as_str())
        .hostaddr(address)
        .user(&credentials.user)
        .password(&credentials.password)
        .dbname(&credentials.database)
        .ssl_mode(SslMode::Disable)
        .connect_timeout(Duration::from_secs(5))
        .connect(NoTls)
        .await;
    let refused = plain.err().expect("a connection without TLS was let in");
    assert_eq!(refused.code().map(|code| code.code()), Some("28000"), "{refused:?}");

    // A wrong password, another's database, the superuser.
    for (user, password, database, wanted) in [
        ("shop_a", "wrong", "shop_db", &["28P01"][..]),
        ("shop_a", credentials.password.as_str(), "postgres", &["42501", "28000"]),
        ("postgres", credentials.password.as_str(), "shop_db", &["28000", "28P01"]),
        ("replicator", credentials.password.as_str(), "shop_db", &["28000", "28P01"]),
        ("shop_db_owner", credentials.password.as_str(), "shop_db", &["28000", "28P01"]),
    ] {
        let mut bad = credentials.clone();
        (bad.user, bad.password, bad.database) = (user.to_owned(), password.to_owned(), database.to_owned());
        let refused = sandbox.login(name, &bad).await.err().unwrap_or_else(|| panic!("{user} was let into {database}"));
        let code = sqlstate(&refused).unwrap_or_default();
        assert!(wanted.contains(&code.as_str()), "{user} at {database}: {refused}");
    }
}

#[test]
fn three_instances_replicate_and_fail_over() {
    shared("three", async |sandbox| {
        sandbox.create(config_map("migrations", &[NOTES])).await;
        let spec = json!({"instances": 3, "migrations": {"source": {"configMap": {"name": "migrations"}}}});
        sandbox.create(database("shop", spec)).await;
        let ready = sandbox.ready("shop", READY).await;
        let status = ready.status.expect("a status");
        assert_eq!(status.instances.as_deref(), Some("3/3"));
        let replicas = format!("shop-db-replicas.{}.svc:5432", sandbox.namespace);
        assert_eq!(status.endpoints.and_then(|endpoints| endpoints.replicas).as_deref(), Some(replicas.as_str()));

        let primary = roles_are_clear(&sandbox).await;
        assert_eq!(status.primary.as_deref(), Some(primary.as_str()));
        streams_synchronously(&sandbox, &primary).await;
        replicas_only_read(&sandbox).await;

        let budget = sandbox.api::<PodDisruptionBudget>().get("shop-db").await.expect("a PodDisruptionBudget");
        until("the budget counts the replicas", SOON, || async {
            let budget =
                sandbox.api::<PodDisruptionBudget>().get("shop-db").await.map_err(|error| error.to_string())?;
            let status = budget.status.unwrap_or_default();
            if status.expected_pods == 2 && status.disruptions_allowed == 1 {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
        let selected = budget.spec.and_then(|spec| spec.selector?.match_labels).unwrap_or_default();
        assert_eq!(selected.get("servicedb.dev/role").map(String::as_str), Some("replica"), "{selected:?}");
        let of_primary =
            sandbox.api::<PodDisruptionBudget>().get("shop-db-primary").await.expect("the primary's budget");
        assert_eq!(
            of_primary.status.map(|status| status.disruptions_allowed),
            Some(0),
            "a drain could take the primary"
        );

        crate::survival::primary_pod_is_deleted(&sandbox, "shop", &primary).await;
        let workload = sandbox.api::<StatefulSet>().get("shop-db").await.expect("the StatefulSet");
        assert_eq!(workload.spec.and_then(|spec| spec.replicas), Some(3));
    });
}

/// One pod is labelled primary, two replica, and the Services' endpoints are those.
async fn roles_are_clear(sandbox: &Sandbox) -> String {
    let pods = sandbox
        .api::<Pod>()
        .list(&ListParams::default().labels("servicedb.dev/scope=shop-db"))
        .await
        .expect("pods")
        .items;
    let with_role = |role: &str| -> Vec<&Pod> {
        pods.iter().filter(|pod| pod.labels().get("servicedb.dev/role").is_some_and(|label| label == role)).collect()
    };
    let (primaries, replicas) = (with_role("primary"), with_role("replica"));
    assert_eq!(
        (primaries.len(), replicas.len()),
        (1, 2),
        "roles of {:?}",
        pods.iter().map(|pod| (pod.name_any(), pod.labels())).collect::<Vec<_>>()
    );
    let addresses = |pods: &[&Pod]| -> BTreeSet<String> {
        pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect()
    };
    for (service, wanted) in [("shop-db", addresses(&primaries)), ("shop-db-replicas", addresses(&replicas))] {
        until(&format!("the Service {service} leads to its pods"), SOON, || async {
            let found = endpoints(sandbox, service).await;
            if found == wanted { Ok(()) } else { Err(format!("it leads to {found:?}, not {wanted:?}")) }
        })
        .await;
    }
    primaries[0].name_any()
}

async fn endpoints(sandbox: &Sandbox, service: &str) -> BTreeSet<String> {
    let parameters = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = sandbox.api::<EndpointSlice>().list(&parameters).await.expect("EndpointSlices").items;
    slices.into_iter().flat_map(|slice| slice.endpoints).flat_map(|endpoint| endpoint.addresses).collect()
}

/// Patroni has chosen a synchronous standby, and the server waits for it.
async fn streams_synchronously(sandbox: &Sandbox, primary: &str) {
    let connection = sandbox.connect("shop").await;
    until("a synchronous standby", SOON, || async {
        let sync = sandbox.api::<ConfigMap>().get("shop-db-sync").await.map_err(|error| error.to_string())?;
        let standby = sync.annotations().get("sync_standby").cloned().unwrap_or_default();
        let names = column(&connection, "SHOW synchronous_standby_names").await.map_err(|refusal| refusal.message)?;
        if standby.starts_with("shop-db-") && standby != primary && names.iter().any(|name| name.contains(&standby)) {
            Ok(())
        } else {
            Err(format!("sync_standby {standby:?}, synchronous_standby_names {names:?}"))
        }
    })
    .await;
    let commit = column(&connection, "SHOW synchronous_commit").await.expect("a setting");
    assert_eq!(commit, ["on"]);
}

/// What the replicas' Service leads to reads what the primary wrote, and writes nothing.
async fn replicas_only_read(sandbox: &Sandbox) {
    let primary = sandbox.connect("shop").await;
    run(&primary, "INSERT INTO notes VALUES (-1, 'from the primary')").await.expect("a write on the primary");
    let credentials = sandbox.credentials("shop").await;
    let address: IpAddr = sandbox.address("shop-db-replicas").await;
    let host = format!("shop-db-replicas.{}.svc", sandbox.namespace);
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        let replica = login_at(address, &host, &credentials).await.expect("a login at a replica");
        assert_eq!(
            column(&replica, "SELECT pg_is_in_recovery()").await.expect("a query"),
            ["t"],
            "the replicas' Service led to a primary"
        );
        seen.extend(column(&replica, "SELECT inet_server_addr()").await.expect("a query"));
        until("the replica has the row", SOON, || async {
            let rows =
                column(&replica, "SELECT body FROM notes WHERE id = -1").await.map_err(|refusal| refusal.message)?;
            if rows == ["from the primary"] { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
        let refused = run(&replica, "INSERT INTO notes VALUES (-2, 'x')").await.expect_err("a replica took a write");
        assert_eq!(refused.sqlstate.as_deref(), Some("25006"), "{refused:?}");
    }
    assert!(!seen.is_empty() && seen.len() <= 2, "eight connections reached {seen:?}");
}
