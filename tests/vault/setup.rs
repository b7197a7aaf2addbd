//! `manifests/vault-setup.sh`: the objects that it creates, and the limits of the operator's policy.

use crate::server::{OPERATOR_POLICY, Server, text};

#[test]
fn the_set_up_can_be_repeated_and_refuses_bad_settings() {
    let server = Server::set_up();
    let again = server.run_set_up(&[]);
    let said = text(&again.stdout);
    assert!(again.status.success(), "{}", text(&again.stderr));
    for kept in [
        "secrets engine secret/",
        "secrets engine database/",
        "auth method approle/",
        "auth method kubernetes/",
        "auth/kubernetes/config",
    ] {
        assert!(said.contains(&format!("kept     {kept}")), "{kept} is not kept: {said}");
    }
    assert!(said.contains("clusterId: test"), "the values are not told: {said}");

    let other = server.run_set_up(&[("KV_MOUNT", "team/kv"), ("APPROLE_MOUNT", "team/approle")]);
    assert!(text(&other.stdout).contains("created  secrets engine team/kv/"), "{}", text(&other.stderr));

    for (setting, value, word) in [
        ("CLUSTER_ID", "", "CLUSTER_ID is not set"),
        ("CLUSTER_ID", "Prod", "other characters"),
        ("CLUSTER_ID", "a*", "other characters"),
        ("KV_MOUNT", "secret\" {}", "cannot be a mount"),
        ("ROLE", "servicedb.test.me", "rewrite its own policy"),
        ("KV_MOUNT", "sys", "not a KV secrets engine"),
        ("DATABASE_MOUNT", "secret", "not a database secrets engine"),
        ("DATABASE_MOUNT", "", "set DATABASE_MOUNT (or DATABASE_MOUNT=none to take them away)"),
        ("APPROLE_MOUNT", "kubernetes", "not of the type approle"),
        ("VAULT_TOKEN", "nonsense", "does not answer this token"),
    ] {
        let refused = server.run_set_up(&[(setting, value)]);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(word), "{setting}={value}: {said}");
    }

    let has_engine = || server.vault(&["policy", "read", OPERATOR_POLICY]).contains("revoke-force");
    assert!(has_engine(), "a refused run takes nothing away");
    for value in ["none", ""] {
        let without = server.run_set_up(&[("DATABASE_MOUNT", value)]);
        assert!(without.status.success(), "DATABASE_MOUNT={value}: {}", text(&without.stderr));
        assert!(!has_engine(), "DATABASE_MOUNT={value}");
    }
}

#[test]
fn a_version_1_mount_is_refused() {
    let server = Server::set_up();
    server.vault(&["secrets", "enable", "-path=old", "-version=1", "kv"]);
    let refused = server.run_set_up(&[("KV_MOUNT", "old")]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("KV version 1"), "{}", text(&refused.stderr));
}

#[test]
fn the_operators_policy_reaches_nothing_else() {
    let server = Server::set_up();
    server.vault(&["kv", "put", "secret/other/ns/db/runtime", "a=b"]);
    server.vault(&["kv", "put", "secret/test/ns/db/migrator", "a=b"]);
    server.vault(&["write", "auth/approle/role/servicedb.other.ns.db.instance", "token_type=batch"]);
    let token = server.operator_token();
    let body = format!("@{}", server.write("body", r#"{"data": {"a": "b"}}"#).display());
    let own_policy = format!("sys/policies/acl/{OPERATOR_POLICY}");
    let forbidden: [&[&str]; 23] = [
        &["read", "sys/mounts"],
        &["write", "-f", "sys/mounts/evil", "type=kv"],
        &["write", "-f", "sys/auth/evil", "type=approle"],
        &["write", "-f", "auth/token/create"],
        &["list", "sys/policies/acl"],
        &["write", &own_policy, "policy=path \"*\" {}"],
        &["write", "sys/policies/acl/servicedb.test2.ns.db.instance", "policy=path \"*\" {}"],
        &["read", "sys/policies/acl/servicedb.other.ns.db.instance"],
        &["read", "auth/approle/role/servicedb.other.ns.db.instance/role-id"],
        &["write", "auth/approle/role/other", "token_policies=root"],
        &["read", "auth/kubernetes/role/servicedb-operator"],
        &["write", "auth/kubernetes/role/servicedb-operator", "token_policies=root"],
        &["write", "auth/kubernetes/config", "kubernetes_host=https://evil"],
        &["read", "secret/data/other/ns/db/runtime"],
        &["read", "secret/data/test/ns/db/migrator"],
        &["write", "secret/data/test/ns/db/runtime", &body],
        &["write", "secret/data/test/ns/db/clients/bot/runtime", &body],
        &["read", "secret/data/other/ns/db/clients/bot/runtime"],
        &["read", "database/creds/servicedb.test.ns.db.bot"],
        &["read", "database/config/servicedb.test.ns.db"],
        &["write", "database/config/servicedb.test.ns.db", "plugin_name=postgresql-database-plugin"],
        &["write", "database/roles/servicedb.other.ns.db.bot", "db_name=x"],
        &["write", "-f", "sys/leases/revoke-force/database/creds/servicedb.other.ns.db.bot"],
    ];
    for arguments in forbidden {
        let output = server.try_vault(&token, arguments);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("permission denied"), "{arguments:?} was not denied: {said}");
    }
}
