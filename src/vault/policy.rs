//! The policies of one ServiceDatabase, in HCL: pure text from its names. Every path is
//! spelled out to the record, so that none holds a wildcard.

use crate::api::names::VaultNames;

/// The mounts that policies speak of.
#[derive(Clone, Copy, Debug)]
pub struct Mounts<'a> {
    /// The mount of KV v2.
    pub kv: &'a str,
}

type Capabilities = &'static [&'static str];
const READ: Capabilities = &["read"];
const DELETE: Capabilities = &["delete"];
/// Of a record's versions, each by its number.
const DESTROY: Capabilities = &["update"];
/// Write, under check-and-set against what is read.
const PROMOTE: Capabilities = &["create", "read", "update"];

/// What database pods may do: read `pending`, promote it to `runtime` and `migrator`, and
/// destroy what was promoted.
pub fn instance(mounts: &Mounts, names: &VaultNames) -> String {
    render([
        (data(mounts, &names.pending()), READ),
        (format!("{}/destroy/{}", mounts.kv.trim_matches('/'), names.pending()), DESTROY),
        // What agents of the version before do.
        (metadata(mounts, &names.pending()), DELETE),
        (data(mounts, &names.runtime()), PROMOTE),
        (metadata(mounts, &names.runtime()), READ),
        (data(mounts, &names.migrator_record()), PROMOTE),
        (metadata(mounts, &names.migrator_record()), READ),
    ])
}

/// What the migration Job may do: read its own record.
pub fn migrator(mounts: &Mounts, names: &VaultNames) -> String {
    render([(data(mounts, &names.migrator_record()), READ)])
}

/// What the clients may do: read `runtime`.
pub fn client(mounts: &Mounts, names: &VaultNames) -> String {
    render([(data(mounts, &names.runtime()), READ)])
}

fn data(mounts: &Mounts, record: &str) -> String {
    format!("{}/data/{record}", mounts.kv.trim_matches('/'))
}

fn metadata(mounts: &Mounts, record: &str) -> String {
    format!("{}/metadata/{record}", mounts.kv.trim_matches('/'))
}

fn render<const N: usize>(rules: [(String, Capabilities); N]) -> String {
    let rule = |(path, capabilities): (String, Capabilities)| {
        let capabilities: Vec<_> = capabilities.iter().map(|capability| format!("\"{capability}\"")).collect();
        format!("path \"{path}\" {{\n  capabilities = [{}]\n}}\n", capabilities.join(", "))
    };
    rules.map(rule).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    const MOUNTS: Mounts = Mounts { kv: "team/kv/" };

    fn names() -> VaultNames {
        Names::new("messaging", "chat").vault("dev")
    }

    #[test]
    fn the_instance_promotes_and_destroys_what_is_pending() {
        let expected = r#"path "team/kv/data/dev/messaging/chat/pending" {
  capabilities = ["read"]
}

path "team/kv/destroy/dev/messaging/chat/pending" {
  capabilities = ["update"]
}

path "team/kv/metadata/dev/messaging/chat/pending" {
  capabilities = ["delete"]
}

path "team/kv/data/dev/messaging/chat/runtime" {
  capabilities = ["create", "read", "update"]
}

path "team/kv/metadata/dev/messaging/chat/runtime" {
  capabilities = ["read"]
}

path "team/kv/data/dev/messaging/chat/migrator" {
  capabilities = ["create", "read", "update"]
}

path "team/kv/metadata/dev/messaging/chat/migrator" {
  capabilities = ["read"]
}
"#;
        assert_eq!(instance(&MOUNTS, &names()), expected);
    }

    #[test]
    fn the_migrator_reads_its_record_alone() {
        let expected = "path \"team/kv/data/dev/messaging/chat/migrator\" {\n  capabilities = [\"read\"]\n}\n";
        assert_eq!(migrator(&MOUNTS, &names()), expected);
    }

    #[test]
    fn the_clients_read_the_runtime_record_alone() {
        let expected = "path \"team/kv/data/dev/messaging/chat/runtime\" {\n  capabilities = [\"read\"]\n}\n";
        assert_eq!(client(&MOUNTS, &names()), expected);
    }

    #[test]
    fn no_policy_has_a_wildcard() {
        for text in [instance(&MOUNTS, &names()), migrator(&MOUNTS, &names()), client(&MOUNTS, &names())] {
            assert!(!text.contains(['*', '+']), "{text}");
        }
    }
}
