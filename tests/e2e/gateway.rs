//! The data gateway: callers by their own rights, a switchover and changed settings under load, its removal.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use tokio::task::JoinHandle;

use crate::harness::{
    Caller, READY, SOON, Sandbox, column, gateway_token as token, plugin, service_account, shared, until, with_notes,
};

async fn set(sandbox: &Sandbox, spec: Value) {
    sandbox.patch::<ServiceDatabase>("shop", &json!({"spec": spec})).await;
}

fn small(more: Value) -> Value {
    let mut gateway =
        json!({"instances": 2, "connections": 4, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        gateway[key] = value.clone();
    }
    gateway
}

#[test]
fn clients_call_the_gateway_by_their_own_rights() {
    shared("gateway", async |sandbox| {
        for account in ["app", "viewer", "stranger"] {
            sandbox.create(service_account(account)).await;
        }
        let clients = json!([
            {"serviceAccountName": "app"},
            {"serviceAccountName": "viewer", "access": {"mode": "ReadOnly"}},
        ]);
        with_notes(&sandbox, json!({"instances": 2, "clients": clients, "gateway": small(json!({}))})).await;

        let (app, viewer) = (Caller::of(&sandbox, "shop", "app").await, Caller::of(&sandbox, "shop", "viewer").await);
        // The role of a client may be younger than Ready.
        until("the viewer may read", SOON, || async {
            let (status, body) = viewer.ask(Method::GET, "notes", None).await?;
            if status == StatusCode::OK { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
        let (status, body) = app.post("notes", json!({"id": 0, "body": "by the gateway"})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        assert_eq!(viewer.get("notes?select=body").await.1, json!([{"body": "by the gateway"}]));
        let (status, body) = viewer.post("notes", json!({"id": 1, "body": "no"})).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
        assert_eq!(viewer.get("migrations").await.0, StatusCode::OK);
        refused(&sandbox).await;
        told(&sandbox).await;
        found_from_another_pod(&sandbox).await;

        // A switchover, and other settings, under load.
        let load = Load::start(app.clone(), 1000, Repeats::Never);
        let keyed = Load::start(app.clone(), 1_000_000, Repeats::WithItsKey);
        load.goes_on(50).await;
        let output = plugin(&sandbox, &["switchover", "shop"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        load.goes_on(50).await;
        let before = load.failed();
        set(&sandbox, json!({"gateway": small(json!({"statementTimeoutSeconds": 7}))})).await;
        rolled_out(&sandbox).await;
        load.goes_on(50).await;
        println!("failures of the switchover: {before:?}; and with those of other pods: {:?}", load.failed());
        load.all_are_there_once(&sandbox).await;
        // And a primary that is lost.
        sandbox.lose_primary("shop").await;
        keyed.goes_on(50).await;
        println!("repeated with their keys: {:?}", keyed.failed());
        keyed.all_are_there_once(&sandbox).await;

        // A client that is taken out, and another that comes.
        set(&sandbox, json!({"clients": [{"serviceAccountName": "app"}, {"serviceAccountName": "stranger", "access": {"mode": "ReadWrite"}}]})).await;
        until("the viewer is refused", SOON, || async {
            match viewer.ask(Method::GET, "notes", None).await? {
                (StatusCode::OK, _) => Err("it reads".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        let stranger = Caller::of(&sandbox, "shop", "stranger").await;
        until("another client may write", SOON, || async {
            let row = json!({"id": -1, "body": "by another"});
            let (status, body) = stranger.ask(Method::POST, "notes", Some(row)).await?;
            if status == StatusCode::CREATED { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
        removed(&sandbox).await;
    });
}

/// Nobody calls without a token of this database's audience and of a client.
async fn refused(sandbox: &Sandbox) {
    let audience = format!("shop.{}.servicedb", sandbox.namespace);
    for (token, wanted) in [
        (String::new(), StatusCode::UNAUTHORIZED),
        (token(sandbox, "app", "other.servicedb").await, StatusCode::UNAUTHORIZED),
        (token(sandbox, "app", "https://kubernetes.default.svc.cluster.local").await, StatusCode::UNAUTHORIZED),
        (token(sandbox, "stranger", &audience).await, StatusCode::FORBIDDEN),
    ] {
        let (status, body) = Caller::new(sandbox, "shop", &token).await.get("notes").await;
        assert_eq!(status, wanted, "{body}");
    }
    // Its login has no password and no rights of its own, and may become its callers' roles; what somebody changes is
    // put back.
    let primary = sandbox.primary("shop").await;
    assert_eq!(psql(sandbox, &primary, LOGIN).await, OWN_LOGIN);
    let change =
        "ALTER ROLE servicedb_gateway CREATEROLE PASSWORD 'x'; ALTER ROLE servicedb_gateway SET search_path = public;
                  GRANT shop_db_owner TO servicedb_gateway; GRANT shop_db_app TO servicedb_gateway WITH INHERIT TRUE";
    // In one transaction: the agent may put it back at once.
    assert_ne!(psql(sandbox, &primary, &format!("BEGIN; {change}; {LOGIN}; COMMIT")).await, OWN_LOGIN);
    until("the login is as before", SOON, || async {
        let now = psql(sandbox, &primary, LOGIN).await;
        if now == OWN_LOGIN { Ok(()) } else { Err(now) }
    })
    .await;
}

/// What the gateway's login is, and what it may do.
const LOGIN: &str = "\
    SELECT rolcanlogin, rolcreaterole OR rolinherit OR rolpassword IS NOT NULL,
           has_table_privilege(oid, 'notes', 'SELECT'), has_table_privilege(oid, 'servicedb.migrations', 'SELECT'),
           (SELECT count(*) FROM pg_db_role_setting WHERE setrole = r.oid),
           (SELECT string_agg(g.rolname || CASE WHEN m.inherit_option OR NOT m.set_option THEN ' at once' ELSE '' END, ' ' ORDER BY g.rolname)
            FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)
    FROM pg_authid r WHERE rolname = 'servicedb_gateway'";
const OWN_LOGIN: &str = "t|f|f|t|0|shop_db_app shop_db_c_viewer";

/// The answer to a superuser in the tenant's database.
async fn psql(sandbox: &Sandbox, pod: &str, sql: &str) -> String {
    let output = sandbox.exec(pod, &format!("psql -XqAt -v ON_ERROR_STOP=1 shop_db <<'SQL'\n{sql};\nSQL")).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Status and plugin say where it is.
async fn told(sandbox: &Sandbox) {
    let status = sandbox.get("shop").await.status.and_then(|status| status.gateway).expect("its status");
    assert_eq!(status.instances.as_deref(), Some("2/2"));
    let url = status.url.expect("its address");
    let said = async |arguments: &[&str]| {
        let output = plugin(sandbox, arguments).await;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    let description = said(&["gateway", "shop"]).await;
    assert!(description.contains(&url) && description.contains("ReadOnly"), "{description}");
    assert!(said(&["status", "shop"]).await.contains("2/2 pods ready"));
    let token = said(&["gateway", "shop", "--token", "viewer"]).await;
    assert_eq!(Caller::new(sandbox, "shop", token.trim()).await.get("notes").await.0, StatusCode::OK);
}

/// The ready pods of the gateway: name and address.
async fn pods(sandbox: &Sandbox) -> Vec<(String, IpAddr)> {
    let of_gateway = ListParams::default().labels("app.kubernetes.io/component=gateway");
    let pods = sandbox.api::<Pod>().list(&of_gateway).await.expect("pods").items;
    let there = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(|pod| {
        let status = pod.status?;
        let ready = status.conditions?.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        ready.then_some((pod.metadata.name?, status.pod_ip?.parse().ok()?))
    });
    there.collect()
}

/// An open transaction is found from the pod that does not have it, and is gone with the one that has it.
async fn found_from_another_pod(sandbox: &Sandbox) {
    let app = token(sandbox, "app", &format!("shop.{}.servicedb", sandbox.namespace)).await;
    let viewer = token(sandbox, "viewer", &format!("shop.{}.servicedb", sandbox.namespace)).await;
    let both = pods(sandbox).await;
    let [(name, one), (_, other)] = &both[..] else { panic!("{both:?}") };
    let here = Caller::of_pod(sandbox, "shop", &app, *one).await;
    let there = Caller::of_pod(sandbox, "shop", &app, *other).await;
    let begin = async || {
        let (status, begun) = here.post("transaction", json!({"begin": true})).await;
        assert_eq!(status, StatusCode::CREATED, "{begun}");
        begun["txn_id"].as_str().expect("an id").to_owned()
    };
    let id = begin().await;
    let row = json!({"id": -10, "body": "by both pods"});
    let inside = there.within(&id, Method::POST, "notes", Some(row)).await.expect("an answer");
    assert_eq!(inside.0, StatusCode::CREATED, "{inside:?}");
    let seen = here.within(&id, Method::GET, "notes?id=eq.-10&select=body", None).await.expect("an answer");
    assert_eq!(seen.1, json!([{"body": "by both pods"}]));
    assert_eq!(there.get("notes?id=eq.-10").await.1, json!([]), "it is not committed yet");
    // The pod that has it verifies the token that was passed on.
    let stranger = Caller::of_pod(sandbox, "shop", &viewer, *other).await;
    let refused = stranger.within(&id, Method::GET, "notes", None).await.expect("an answer");
    assert_eq!((refused.0, &refused.1["code"]), (StatusCode::NOT_FOUND, &json!("SDB403")));
    let (status, body) = there.post("transaction", json!({"commit": id})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(here.get("notes?id=eq.-10&select=body").await.1, json!([{"body": "by both pods"}]));

    let id = begin().await;
    let row = json!({"id": -11, "body": "lost"});
    let inside = there.within(&id, Method::POST, "notes", Some(row)).await.expect("an answer");
    assert_eq!(inside.0, StatusCode::CREATED, "{inside:?}");
    sandbox.delete::<Pod>(name).await;
    // It serves open transactions for some seconds more.
    until("the transaction is gone", SOON, || async {
        match there.within(&id, Method::GET, "notes?id=eq.-11", None).await? {
            (StatusCode::CONFLICT, body) if body["code"] == "SDB410" => Ok(()),
            (status, body) => Err(format!("{status} {body}")),
        }
    })
    .await;
    let (status, body) = there.post("transaction", json!({"commit": id})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("SDB410")));
    assert_eq!(there.get("notes?id=eq.-11").await.1, json!([]));
    until("another pod is ready", READY, || async {
        let now = pods(sandbox).await;
        if now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// Waits until all pods have the present settings.
async fn rolled_out(sandbox: &Sandbox) {
    until("the gateway's pods have the present settings", READY, || async {
        let map = sandbox.api::<ConfigMap>().get("shop-db-gateway").await.map_err(|error| error.to_string())?;
        let settings = map.data.unwrap_or_default().remove("gateway.yaml").unwrap_or_default();
        let deployment = sandbox.api::<Deployment>().get("shop-db-gateway").await.map_err(|error| error.to_string())?;
        let (generation, status) = (deployment.metadata.generation, deployment.status.unwrap_or_default());
        let done = settings.contains("7000")
            && status.observed_generation == generation
            && status.updated_replicas == Some(2)
            && status.replicas == Some(2)
            && status.available_replicas == Some(2);
        if done { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// Without `spec.gateway` nothing of it is left.
async fn removed(sandbox: &Sandbox) {
    set(sandbox, json!({"gateway": null})).await;
    until("the gateway is removed", SOON, || async {
        let name = "shop-db-gateway";
        let left = [
            sandbox.api::<Deployment>().get_opt(name).await.map(|it| it.is_some()),
            sandbox.api::<Service>().get_opt(name).await.map(|it| it.is_some()),
            sandbox.api::<Service>().get_opt("shop-db-gateway-peers").await.map(|it| it.is_some()),
            sandbox.api::<ConfigMap>().get_opt(name).await.map(|it| it.is_some()),
            sandbox.api::<ServiceAccount>().get_opt(name).await.map(|it| it.is_some()),
            sandbox.api::<NetworkPolicy>().get_opt(name).await.map(|it| it.is_some()),
            sandbox.api::<Secret>().get_opt("shop-db-gateway-tls").await.map(|it| it.is_some()),
        ];
        let left: Vec<_> =
            left.into_iter().map(|it| it.map_err(|error| error.to_string())).collect::<Result<_, _>>()?;
        let query = "SELECT rolcanlogin, (SELECT count(*) FROM pg_auth_members WHERE member = r.oid)
                     FROM pg_roles r WHERE rolname = 'servicedb_gateway'";
        let roles = psql(sandbox, &sandbox.primary("shop").await, query).await;
        if left.contains(&true) || roles != "f|0" { Err(format!("{left:?}, its role: {roles}")) } else { Ok(()) }
    })
    .await;
    assert!(sandbox.get("shop").await.status.is_some_and(|status| status.gateway.is_none()));
}

/// A client that posts rows one by one.
struct Load {
    stop: Arc<AtomicBool>,
    state: Arc<std::sync::Mutex<State>>,
    repeats: Repeats,
    task: JoinHandle<()>,
}

/// What the client does with a row whose result is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// It posts the next row.
    Never,
    /// It posts the row again with its key, until it is acknowledged.
    WithItsKey,
}

#[derive(Default)]
struct State {
    acknowledged: Vec<u64>,
    failed: BTreeMap<String, usize>,
}

/// Whether a failure is one of docs/gateway.md: the database is away for a moment, or no pod of the gateway took the
/// connection; of a row that is posted again with its key, the first request is still under way, or was carried out and
/// its answer lost.
fn is_documented(why: &str, repeats: Repeats) -> bool {
    let is_of_a_key = || why.contains("SDB123") || why.contains("SDB408");
    why.starts_with("503") || why.contains("ConnectionRefused") || (repeats == Repeats::WithItsKey && is_of_a_key())
}

impl Load {
    /// Posts rows from `first` on.
    fn start(caller: Caller, first: u64, repeats: Repeats) -> Self {
        let (stop, state) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(State::default())));
        let (stopped, seen) = (stop.clone(), state.clone());
        let task = tokio::spawn(async move {
            let mut id = first;
            while !stopped.load(Ordering::Relaxed) {
                let row = json!({"id": id, "body": "load"});
                let answer = match repeats {
                    Repeats::Never => caller.ask(Method::POST, "notes", Some(row)).await,
                    Repeats::WithItsKey => caller.post_once(&format!("note-{id}"), "notes", row).await,
                };
                let failure = match answer {
                    Ok((StatusCode::CREATED, _)) => None,
                    Ok((status, body)) => Some(format!("{status} {}", body["code"])),
                    Err(error) => Some(error),
                };
                let is_next = failure.is_none() || repeats == Repeats::Never;
                {
                    let mut state = seen.lock().expect("the state");
                    match failure {
                        None => state.acknowledged.push(id),
                        Some(why) => *state.failed.entry(why).or_default() += 1,
                    }
                }
                id += u64::from(is_next);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { stop, state, repeats, task }
    }

    fn failed(&self) -> BTreeMap<String, usize> {
        self.state.lock().expect("the state").failed.clone()
    }

    async fn goes_on(&self, rows: usize) {
        let count = || self.state.lock().expect("the state").acknowledged.len();
        let before = count();
        until("rows are acknowledged", SOON, || async {
            let now = count();
            if now >= before + rows { Ok(()) } else { Err(format!("{now}, {:?}", self.failed())) }
        })
        .await;
    }

    async fn all_are_there_once(self, sandbox: &Sandbox) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the load");
        let State { acknowledged, failed } = std::mem::take(&mut *self.state.lock().expect("the state"));
        let connection = sandbox.connect("shop").await;
        let stored = column(&connection, "SELECT id::text FROM notes WHERE id > 0").await.expect("the rows");
        let stored: std::collections::BTreeSet<u64> = stored.iter().filter_map(|id| id.parse().ok()).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(id)).collect();
        assert!(lost.is_empty(), "{lost:?} of {} rows are lost", acknowledged.len());
        // A row that is there already would be a conflict.
        let odd: Vec<_> = failed.keys().filter(|why| !is_documented(why, self.repeats)).collect();
        assert!(odd.is_empty(), "{failed:?}");
    }
}
