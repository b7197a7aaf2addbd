//! No service can access another's database: by PostgreSQL, by Vault as a service or as a database
//! pod, or by the Kubernetes API.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::PostParams;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Sandbox, service_account, sqlstate};

/// `chat` and `game` of the example, both Ready: neither can access the other.
pub async fn services_are_apart(sandbox: &Sandbox) {
    in_postgres(sandbox).await;
    as_services_in_vault(sandbox).await;
    as_pods_in_vault(sandbox).await;
    in_kubernetes(sandbox).await;
    network_policy_says_who(sandbox).await;
}

/// The credentials of one are invalid on the other's server.
async fn in_postgres(sandbox: &Sandbox) {
    for (holder, other) in [("chat", "game"), ("game", "chat")] {
        let own = sandbox.credentials(holder).await;
        sandbox.login(holder, &own).await.expect("its own credentials log in");
        // With the right authority and the right database, so that only the login is wrong.
        let theirs = sandbox.credentials(other).await;
        for database in [&theirs.database, &own.database] {
            let mut stolen = own.clone();
            (stolen.ca, stolen.database) = (theirs.ca.clone(), database.clone());
            let refused = sandbox.login(other, &stolen).await.err();
            let refused =
                refused.unwrap_or_else(|| panic!("the credentials of {holder} log in at {other}, database {database}"));
            // Refused before it is asked for a password: the role is not one that may connect.
            assert_eq!(sqlstate(&refused).as_deref(), Some("28000"), "{holder} at {other}: {refused}");
        }
        assert_ne!(own.password, theirs.password);
    }
}

/// A ServiceAccount's token, as a pod of it would have one.
pub async fn token(sandbox: &Sandbox, namespace: &str, account: &str) -> String {
    let api: Api<ServiceAccount> = Api::namespaced(sandbox.cluster.client.clone(), namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.unwrap_or_else(|error| panic!("a token of {namespace}/{account}: {error}"));
    answer.status.expect("a token").token
}

/// A client of `chat` logs in by its ServiceAccount and reads `chat`, and nothing else;
/// nobody else logs in as it.
async fn as_services_in_vault(sandbox: &Sandbox) {
    let status = sandbox.get("chat").await.status.expect("a status");
    let role = status.credentials.and_then(|credentials| credentials.vault_role).expect("the role of the clients");
    let vault = sandbox.vault();
    let jwt = token(sandbox, &sandbox.namespace, "chat").await;
    let auth = vault.kubernetes_login(&role, &jwt).await.expect("the client's login at Vault");
    assert_eq!(auth["token_policies"], json!([sandbox.vault_names("chat").client()]), "the client's policies");
    assert!(
        auth["lease_duration"].as_i64().is_some_and(|seconds| (1..=3600).contains(&seconds)),
        "{}",
        auth["lease_duration"]
    );
    let client = auth["client_token"].as_str().expect("a token");
    let (own, other) = (sandbox.vault_names("chat"), sandbox.vault_names("game"));
    for (method, path, wanted) in [
        (Method::GET, data(&own.runtime()), 200),
        (Method::GET, data(&own.pending()), 403),
        (Method::GET, data(&own.migrator_record()), 403),
        (Method::PUT, data(&own.runtime()), 403),
        (Method::GET, data(&other.runtime()), 403),
        (Method::GET, format!("secret/metadata/{}?list=true", sandbox.cluster.id), 403),
        (Method::GET, "sys/policies/acl?list=true".to_owned(), 403),
    ] {
        let body = (method == Method::PUT).then(|| json!({"data": {"x": "y"}}));
        let status = vault.status_with(client, method.clone(), &path, body.as_ref()).await;
        assert_eq!(status, wanted, "a client of chat: {method} {path}");
    }

    let game = sandbox.get("game").await.status.and_then(|status| status.credentials?.vault_role).expect("game's role");
    assert!(vault.kubernetes_login(&game, &jwt).await.is_err(), "chat logged in as a client of game");
    sandbox.create(service_account("stranger")).await;
    let jwt = token(sandbox, &sandbox.namespace, "stranger").await;
    assert!(vault.kubernetes_login(&role, &jwt).await.is_err(), "a ServiceAccount that is no client logged in");
    // The same name in another namespace is somebody else.
    let jwt = token(sandbox, "default", "default").await;
    assert!(vault.kubernetes_login(&role, &jwt).await.is_err(), "a ServiceAccount of another namespace logged in");
}

fn data(path: &str) -> String {
    format!("secret/data/{path}")
}

/// The credentials of a database pod and of a migration Job give access only to their own records.
async fn as_pods_in_vault(sandbox: &Sandbox) {
    let vault = sandbox.vault();
    let (own, other) = (sandbox.vault_names("chat"), sandbox.vault_names("game"));
    let (role_id, secret_id) = approle(sandbox, "chat-db-approle").await;
    let auth = vault.approle_login(&role_id, &secret_id).await.expect("the database pod's login at Vault");
    assert_eq!(auth["token_type"], json!("batch"));
    assert_eq!(auth["token_policies"], json!([own.instance()]));
    let pod = auth["client_token"].as_str().expect("a token");
    for (path, wanted) in [
        (data(&own.runtime()), 200),
        (data(&other.runtime()), 403),
        (data(&other.pending()), 403),
        (data(&other.migrator_record()), 403),
        (format!("auth/approle/role/{}/role-id", other.instance()), 403),
    ] {
        assert_eq!(
            vault.status_with(pod, Method::GET, &path, None).await,
            wanted,
            "a database pod of chat: GET {path}"
        );
    }

    let (migrator_role, migrator_secret) = approle(sandbox, "chat-db-migrator").await;
    let auth = vault.approle_login(&migrator_role, &migrator_secret).await.expect("the migration Job's login at Vault");
    let job = auth["client_token"].as_str().expect("a token");
    for (path, wanted) in
        [(data(&own.migrator_record()), 200), (data(&own.runtime()), 403), (data(&other.migrator_record()), 403)]
    {
        assert_eq!(
            vault.status_with(job, Method::GET, &path, None).await,
            wanted,
            "the migration Job of chat: GET {path}"
        );
    }

    // A role_id and a secret_id of different roles do not log in.
    let (_, foreign) = approle(sandbox, "game-db-approle").await;
    assert!(vault.approle_login(&role_id, &foreign).await.is_err(), "chat's role_id with game's secret_id logged in");
    assert!(
        vault.approle_login(&migrator_role, &secret_id).await.is_err(),
        "the migrator's role_id with the pod's secret_id logged in"
    );
}

/// A role_id and its secret_id, from the two objects that hold them.
async fn approle(sandbox: &Sandbox, name: &str) -> (String, String) {
    let config_map = sandbox.api::<ConfigMap>().get(name).await.expect("the ConfigMap with the role_id");
    let secret = sandbox.api::<Secret>().get(name).await.expect("the Secret with the secret_id");
    let keys: Vec<_> = secret.data.iter().flat_map(|data| data.keys()).map(String::as_str).collect();
    assert_eq!(keys, ["accessor", "secret-id"], "the Secret {name} holds the secret_id and what names it");
    let secret_id = secret.data.and_then(|data| data.get("secret-id").cloned()).expect("a secret_id");
    let data = config_map.data.expect("data");
    let secret_id = String::from_utf8(secret_id.0).expect("text");
    assert!(!json!(data).to_string().contains(&secret_id), "role_id and secret_id travel together");
    (data["role-id"].clone(), secret_id)
}

/// What the database pod's ServiceAccount may do in Kubernetes: its own objects, by name.
async fn in_kubernetes(sandbox: &Sandbox) {
    for (account, verb, resource, name, wanted) in [
        ("chat-db", "patch", "configmaps", "chat-db-leader", true),
        ("chat-db", "patch", "pods", "chat-db-0", true),
        ("chat-db", "patch", "configmaps", "game-db-leader", false),
        ("chat-db", "patch", "pods", "game-db-0", false),
        ("chat-db", "patch", "configmaps", "chat-db-desired", false),
        ("chat-db", "get", "secrets", "chat-db-ca", false),
        ("chat-db", "get", "secrets", "chat-db-approle", false),
        ("chat-db", "list", "secrets", "", false),
        ("chat-db", "create", "pods", "", false),
        ("chat-db", "delete", "persistentvolumeclaims", "data-chat-db-0", false),
        ("chat-db-migrator", "get", "configmaps", "chat-db-migrator", false),
        ("chat", "get", "secrets", "chat-db-approle", false),
    ] {
        let allowed = allowed(sandbox, account, verb, resource, name).await;
        assert_eq!(allowed, wanted, "may {account} {verb} {resource} {name}?");
    }
}

async fn allowed(sandbox: &Sandbox, account: &str, verb: &str, resource: &str, name: &str) -> bool {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{}:{account}", sandbox.namespace)),
            groups: Some(vec!["system:serviceaccounts".to_owned(), "system:authenticated".to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(sandbox.namespace.clone()),
                verb: some(verb),
                resource: some(resource),
                name: some(name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(sandbox.cluster.client.clone());
    let answer = api.create(&PostParams::default(), &review).await.expect("an access review");
    answer.status.is_some_and(|status| status.allowed)
}

/// The rules as they are stored; `network_policies` shows them enforced.
async fn network_policy_says_who(sandbox: &Sandbox) {
    let policy = sandbox.api::<NetworkPolicy>().get("chat-db").await.expect("the NetworkPolicy");
    let spec: Value = json!(policy.spec.expect("a spec"));
    assert_eq!(spec["podSelector"]["matchLabels"], json!({"servicedb.dev/scope": "chat-db"}));
    assert_eq!(spec["policyTypes"], json!(["Ingress"]), "denying egress would cut Patroni off from the API server");
    let rules = spec["ingress"].as_array().expect("rules");
    let peers = |port: u16| -> Vec<&Value> {
        let to_port = |rule: &&Value| {
            rule["ports"].as_array().is_some_and(|ports| ports.iter().any(|known| known["port"] == json!(port)))
        };
        rules
            .iter()
            .filter(to_port)
            .flat_map(|rule| rule["from"].as_array().expect("a rule that lets everybody in"))
            .collect()
    };
    let selector = |labels: Value| json!({"podSelector": {"matchLabels": labels}});
    let members = selector(json!({"servicedb.dev/scope": "chat-db"}));
    assert_eq!(peers(8008), [&members], "who reaches Patroni");
    let clients = peers(5432);
    assert!(
        clients.contains(&&members) && clients.contains(&&selector(json!({"app": "chat"}))),
        "who reaches PostgreSQL: {clients:?}"
    );
    assert!(!clients.iter().any(|peer| peer.to_string().contains("game")), "{clients:?}");
    assert!(
        rules.iter().all(|rule| rule["from"].as_array().is_some_and(|from| !from.is_empty())),
        "a rule lets everybody in: {spec}"
    );
}
