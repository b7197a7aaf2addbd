//! Checks `spec.clients`: names, and declared rights. The rules of the CRD refuse most errors; those that would be
//! dangerous under a CRD without the rules are checked here again.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::NodeEnum;
use pg_query::protobuf::{FuncCall, RawStmt, SelectStmt, SetOperation};

use crate::api::clients::{MAXIMUM_MAX_TTL, MAXIMUM_NAME, MAXIMUM_TTL, MINIMUM_TTL};
use crate::api::names::PostgresNames;
use crate::api::{AccessMode, ClientSpec, GrantSpec, Privilege, ServiceDatabaseSpec};
use crate::operator::context::namespaces::is_namespace;
use crate::operator::context::options::Options;

/// The maximum length of a name in PostgreSQL, in bytes.
const IDENTIFIER: usize = 63;
/// Schemas that are not a service's own.
const RESERVED_SCHEMAS: [&str; 3] =
    ["information_schema", PostgresNames::LEDGER_SCHEMA, PostgresNames::EXTENSIONS_SCHEMA];
/// The function whose only argument a row policy is parsed as.
const WRAPPER: &str = "servicedb_row_policy";

/// Checks the names of the Secrets with credentials.
///
/// # Errors
/// The first error: the field, the problem, and the remedy.
pub fn check_secrets(spec: &ServiceDatabaseSpec, base: &str) -> Result<(), String> {
    let shared = spec.credentials.secret.iter().map(|secret| ("spec.credentials.secret.name".to_owned(), &secret.name));
    let own = spec.clients.iter().filter_map(|client| {
        let field = format!("spec.clients[].secret.name of {}", client.name());
        Some((field, &client.secret.as_ref()?.name))
    });
    if let Some(client) = spec.clients.iter().find(|client| client.secret.is_some() && client.own().is_none()) {
        return Err(format!(
            "spec.clients[].secret of {} needs access with a mode other than Shared: spec.credentials.secret has the \
             shared login",
            client.name()
        ));
    }
    let mut names = BTreeSet::new();
    for (field, name) in shared.chain(own) {
        if name.starts_with(base) {
            return Err(format!(
                "{field} is {name}, but names that begin with {base} are reserved for the operator: choose another"
            ));
        }
        if !names.insert(name) {
            return Err(format!("{field} is {name}, which is another login's Secret, too: choose another"));
        }
    }
    Ok(())
}

/// Checks the clients of a database in this namespace.
///
/// # Errors
/// The first error: the field, the problem, and the remedy.
pub fn check(clients: &[ClientSpec], namespace: &str, names: &PostgresNames) -> Result<(), String> {
    let full_name = |client: &ClientSpec| format!("{}/{}", client.namespace(namespace), client.account_name());
    let mut accounts = BTreeSet::new();
    let mut roles: BTreeSet<String> = [names.owner(), names.app(), names.clients()]
        .into_iter()
        .chain((1..=2).flat_map(|turn| [names.login(turn), names.migrator_login(turn)]))
        .collect();
    for (index, client) in clients.iter().enumerate() {
        let account = full_name(client);
        check_namespace(client)?;
        if !accounts.insert(account.clone()) {
            return Err(format!("spec.clients has two entries of the ServiceAccount {account}: keep one of them"));
        }
        if let Some(other) = clients[..index].iter().find(|other| have_one_name(client, other)) {
            return Err(format!(
                "spec.clients has two entries with the name {}, of the ServiceAccounts {} and {account}: set another \
                 spec.clients[].name for one of them",
                client.name(),
                full_name(other)
            ));
        }
        let Some(access) = client.own() else { continue };
        let name = client.name();
        if !is_name(name) {
            return Err(format!(
                "spec.clients[].name of the ServiceAccount {account} is {name:?}: a client with access of its own needs a \
                 name of at most {MAXIMUM_NAME} of a-z, 0-9 and '-', a letter first; set spec.clients[].name"
            ));
        }
        let of_client = [names.client(name), names.client_login(name, 1), names.client_login(name, 2)];
        if let Some(long) = of_client.iter().find(|role| role.len() > IDENTIFIER) {
            return Err(format!(
                "spec.clients[].name {name} makes the name {long}, which is longer than the {IDENTIFIER} characters that \
                 PostgreSQL keeps: choose a shorter name"
            ));
        }
        for role in of_client {
            if let Some(role) = roles.replace(role) {
                return Err(format!(
                    "spec.clients[].name {name} makes the name of a role that another client or the service has: {role}; \
                     choose another name"
                ));
            }
        }
        let in_range = |value: Option<i64>, maximum| value.is_none_or(|value| (1..=maximum).contains(&value));
        if !in_range(client.connection_limit.map(i64::from), 10_000)
            || !in_range(client.statement_timeout_seconds, 86_400)
        {
            return Err(format!(
                "spec.clients[] {name}: connectionLimit or statementTimeoutSeconds is out of its bounds"
            ));
        }
        if let Some(lifetimes) = access.dynamic {
            let (ttl, max_ttl) = (lifetimes.ttl_seconds, lifetimes.max_ttl_seconds);
            if !(MINIMUM_TTL..=MAXIMUM_TTL).contains(&ttl) || !(ttl..=MAXIMUM_MAX_TTL).contains(&max_ttl) {
                return Err(format!(
                    "spec.clients[].access.dynamic of {name}: ttlSeconds must be from {MINIMUM_TTL} to {MAXIMUM_TTL}, and \
                     maxTtlSeconds from ttlSeconds to {MAXIMUM_MAX_TTL}"
                ));
            }
            if client.secret.is_some() {
                return Err(format!(
                    "spec.clients[].secret of {name} is a copy of a record, and a client with access.dynamic has none: \
                     remove one of both"
                ));
            }
        }
        if (access.mode == AccessMode::Custom) == access.grants.is_empty() {
            return Err(format!(
                "spec.clients[].access of {name}: the mode Custom needs grants, and the other modes have none"
            ));
        }
        grants(&access.grants).map_err(|problem| format!("spec.clients[].access.grants of {name}: {problem}"))?;
    }
    Ok(())
}

/// Whether two clients have one name, which is that of one role and one record. Clients of the shared login have neither,
/// and may have had the name of another client since before `<namespace>/<name>` was a form of an account. With it, two
/// entries have one name by default, so people and tools could not tell them apart: then the name is always unique.
fn have_one_name(client: &ClientSpec, other: &ClientSpec) -> bool {
    let has_namespace_in_name = |client: &ClientSpec| client.service_account_name.contains('/');
    let have_logins = client.own().is_some() && other.own().is_some();
    client.name() == other.name() && (have_logins || has_namespace_in_name(client) || has_namespace_in_name(other))
}

/// What a client of another namespace cannot have. The shared login has one role in Vault, which would be bound to each of
/// its ServiceAccounts' names in each of their namespaces, and its password cannot be taken back from one client.
fn check_namespace(client: &ClientSpec) -> Result<(), String> {
    let Some(namespace) = client.account_namespace() else { return Ok(()) };
    let account = &client.service_account_name;
    let is_in_name = account.contains('/');
    let field = if is_in_name { "spec.clients[].serviceAccountName" } else { "spec.clients[].serviceAccountNamespace" };
    if is_in_name && client.service_account_namespace.is_some() {
        return Err(format!("{field} {account} has a namespace: remove serviceAccountNamespace"));
    }
    if !is_namespace(namespace) {
        return Err(format!("{field} of {account}: {namespace:?} is no name of a namespace"));
    }
    if client.account_name().is_empty() || client.account_name().contains('/') {
        return Err(format!("{field} {account} is not <namespace>/<name>: write one namespace and one name"));
    }
    if client.own().is_none() || client.is_shared() {
        return Err(format!(
            "{field} of {account}: a client of another namespace has a login of its own: set access.mode to another than \
             Shared, and no sharedToo"
        ));
    }
    if client.secret.is_some() {
        return Err(format!(
            "{field} of {account}: a Secret would be in the database's namespace, where the client cannot read it: remove \
             secret; the client reads its record in Vault"
        ));
    }
    Ok(())
}

/// The clients that the platform allows in a database of this namespace, and those that it does not; in one form, whatever
/// the spec has.
pub fn admitted(clients: &[ClientSpec], namespace: &str, options: &Options) -> (Vec<ClientSpec>, Vec<ClientSpec>) {
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    for client in clients {
        let client = client.normalized(namespace);
        match refusal(&client, namespace, options) {
            None => admitted.push(client),
            Some(why) => {
                // A service that moves from the shared login keeps it.
                if why == Refusal::ShortLived && client.shared_too == Some(true) {
                    admitted.push(as_shared(&client));
                }
                refused.push(client);
            }
        }
    }
    (admitted, refused)
}

/// Why the platform does not allow a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is of a namespace that may not have clients of this database.
    Namespace,
    /// Its logins are short-lived, and there is no engine for them.
    ShortLived,
}

/// Why the platform does not allow this client in a database of this namespace; none if it does.
pub fn refusal(client: &ClientSpec, namespace: &str, options: &Options) -> Option<Refusal> {
    if client.account_namespace().is_some_and(|of_client| !options.client_namespaces.allow(namespace, of_client)) {
        return Some(Refusal::Namespace);
    }
    (client.dynamic().is_some() && options.vault_database_mount.is_none()).then_some(Refusal::ShortLived)
}

/// The client without a login of its own.
fn as_shared(client: &ClientSpec) -> ClientSpec {
    ClientSpec {
        access: None,
        shared_too: None,
        connection_limit: None,
        statement_timeout_seconds: None,
        ..client.clone()
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAXIMUM_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn grants(grants: &[GrantSpec]) -> Result<(), String> {
    let mut policies: BTreeMap<(&str, &str, Privilege), Option<&str>> = BTreeMap::new();
    for grant in grants {
        let GrantSpec { schema, tables, columns, privileges, row_policy } = grant;
        if schema.starts_with("pg_") || RESERVED_SCHEMAS.contains(&schema.as_str()) {
            return Err(format!(
                "the schema {schema} is PostgreSQL's or Servicedb's own: rights are granted on a service's own schemas"
            ));
        }
        let identifiers = [schema].into_iter().chain(tables).chain(columns);
        if let Some(bad) = identifiers.into_iter().find(|name| !is_identifier(name)) {
            return Err(format!("{bad:?} is not a name that PostgreSQL has: at most {IDENTIFIER} bytes, printable"));
        }
        let is_all = tables.iter().any(|table| table == "*");
        if tables.is_empty() || privileges.is_empty() || (is_all && tables.len() > 1) {
            return Err("each needs privileges, and tables: names, or '*' alone".to_owned());
        }
        let of_columns = [Privilege::Select, Privilege::Insert, Privilege::Update];
        if !columns.is_empty() && (is_all || privileges.iter().any(|privilege| !of_columns.contains(privilege))) {
            return Err("columns need tables by name, and only SELECT, INSERT and UPDATE have columns".to_owned());
        }
        if let Some(expression) = row_policy {
            if is_all || privileges.contains(&Privilege::Truncate) {
                return Err("rowPolicy needs tables by name, and TRUNCATE is not limited to rows".to_owned());
            }
            row_policy_parses(expression)?;
        }
        for (table, privilege) in tables.iter().flat_map(|table| privileges.iter().map(move |one| (table, *one))) {
            let before = policies.insert((schema, table, privilege), row_policy.as_deref());
            if before.is_some_and(|before| before != row_policy.as_deref()) {
                return Err(format!(
                    "{} on {schema}.{table} is granted twice with different rowPolicies: join them into one, with OR",
                    privilege.as_str()
                ));
            }
        }
    }
    let limited =
        policies.iter().filter(|(_, policy)| policy.is_some()).map(|((schema, _, privilege), _)| (schema, privilege));
    for (schema, privilege) in limited {
        if policies.contains_key(&(schema, "*", *privilege)) {
            return Err(format!(
                "{} on all tables of {schema} would go around the rowPolicy of one of them: name the tables",
                privilege.as_str()
            ));
        }
    }
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    (1..=IDENTIFIER).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The problem of an expression that the parser refuses in the wrapper. Without its closing parenthesis the parser names
/// nothing that the expression lacks.
fn syntax_error(expression: &str) -> String {
    match pg_query::parse(&format!("SELECT {WRAPPER}(\n{expression}\n"), 0) {
        Ok(_) => "it has a closing parenthesis too many".to_owned(),
        Err(pg_query::Error::Parse(message)) if message.contains("at end of input") => "it is not complete".to_owned(),
        Err(pg_query::Error::Parse(message)) => message,
        Err(error) => error.to_string(),
    }
}

/// Whether it is one expression, by PostgreSQL's own parser. Its message quotes the expression, so it is told.
fn row_policy_parses(expression: &str) -> Result<(), String> {
    if expression.contains('\0') {
        return Err("the rowPolicy has a character that PostgreSQL does not have".to_owned());
    }
    // A comment at its end ends with the line.
    let parsed = pg_query::parse(&format!("SELECT {WRAPPER}(\n{expression}\n)"), 0)
        .map_err(|_| format!("the rowPolicy {expression:?} is not an SQL expression: {}", syntax_error(expression)))?;
    let is_one = match parsed.protobuf.stmts.as_slice() {
        [RawStmt { stmt: Some(node), .. }] => node.node.as_ref().is_some_and(is_wrapped),
        _ => false,
    };
    if is_one { Ok(()) } else { Err(format!("the rowPolicy {expression:?} is not one SQL expression")) }
}

/// Whether the statement is the call of the wrapper with one argument, and nothing else.
fn is_wrapped(statement: &NodeEnum) -> bool {
    let NodeEnum::SelectStmt(select) = statement else { return false };
    let [target] = select.target_list.as_slice() else { return false };
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return false };
    let Some(NodeEnum::FuncCall(call)) = target.val.as_ref().and_then(|value| value.node.as_ref()) else {
        return false;
    };
    let bare = SelectStmt { target_list: select.target_list.clone(), ..bare_select() };
    let is_bare = SelectStmt { limit_option: bare.limit_option, op: bare.op, ..(**select).clone() } == bare
        && select.op == SetOperation::SetopNone as i32;
    let is_plain = |call: &FuncCall| {
        call.agg_order.is_empty()
            && call.agg_filter.is_none()
            && call.over.is_none()
            && !(call.agg_within_group || call.agg_star || call.agg_distinct || call.func_variadic)
    };
    let is_ours = match call.funcname.as_slice() {
        [name] => matches!(&name.node, Some(NodeEnum::String(name)) if name.sval == WRAPPER),
        _ => false,
    };
    let is_positional = |call: &FuncCall| {
        let [argument] = call.args.as_slice() else { return false };
        !matches!(argument.node, Some(NodeEnum::NamedArgExpr(_)) | None)
    };
    is_bare
        && is_ours
        && target.name.is_empty()
        && target.indirection.is_empty()
        && is_plain(call)
        && is_positional(call)
}

fn bare_select() -> SelectStmt {
    SelectStmt::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;
    use crate::operator::context::namespaces::ClientNamespaces;
    use crate::operator::tests::fixtures::options;

    fn problem(clients: &str) -> Option<String> {
        let clients: Vec<ClientSpec> = serde_yaml::from_str(clients).expect(clients);
        check(&clients, "messaging", &Names::new("messaging", "chat").postgres("chat_db")).err()
    }

    fn of_grant(grant: &str) -> Option<String> {
        problem(&format!("[{{serviceAccountName: bot, access: {{mode: Custom, grants: [{{{grant}}}]}}}}]"))
    }

    #[test]
    fn clients_of_every_kind_are_accepted() {
        let clients = "
- {serviceAccountName: a.very.long.name.of.a.service.account}
- {serviceAccountName: reports, access: {mode: ReadOnly}, connectionLimit: 5, statementTimeoutSeconds: 30}
- {serviceAccountName: worker, access: {mode: ReadWrite}, sharedToo: true}
- {serviceAccountName: some.other.name, name: bot, access: {mode: Custom, grants: [
    {tables: [files], privileges: [SELECT], rowPolicy: \"NOT is_secret -- a comment\"},
    {tables: [files], privileges: [UPDATE], columns: [file_path]},
    {schema: app, tables: ['*'], privileges: [SELECT, INSERT]}]}}";
        assert_eq!(problem(clients), None);
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_name_of_the_field() {
        for (clients, says) in [
            ("[{serviceAccountName: a}, {serviceAccountName: a}]", "two entries of the ServiceAccount messaging/a:"),
            (
                "[{serviceAccountName: a, name: x, access: {mode: ReadOnly}}, {serviceAccountName: b, name: x, access: {mode: ReadOnly}}]",
                "two entries with the name x",
            ),
            ("[{serviceAccountName: a.b, access: {mode: ReadOnly}}]", "set spec.clients[].name"),
            (
                "[{serviceAccountName: a, name: 'x\"; DROP ROLE postgres; --', access: {mode: ReadOnly}}]",
                "spec.clients[].name",
            ),
            ("[{serviceAccountName: a, access: {mode: Custom}}]", "needs grants"),
            (
                "[{serviceAccountName: a, access: {mode: ReadOnly, grants: [{tables: [x], privileges: [SELECT]}]}}]",
                "needs grants",
            ),
        ] {
            let problem = problem(clients).unwrap_or_default();
            assert!(problem.contains(says), "{clients}: {problem:?}");
        }
    }

    #[test]
    fn a_client_of_another_namespace_has_a_login_of_its_own_and_no_secret() {
        let of = |more: &str| {
            problem(&format!("[{{serviceAccountName: bot, serviceAccountNamespace: {more}}}]")).unwrap_or_default()
        };
        for (more, says) in [
            ("reports", "set access.mode to another than Shared"),
            ("reports, access: {mode: Shared}", "set access.mode to another than Shared"),
            ("reports, access: {mode: ReadOnly}, sharedToo: true", "no sharedToo"),
            ("reports, access: {mode: ReadOnly}, secret: {name: s}", "remove secret"),
            ("'*', access: {mode: ReadOnly}", "no name of a namespace"),
            ("'', access: {mode: ReadOnly}", "no name of a namespace"),
            ("'a,b', access: {mode: ReadOnly}", "no name of a namespace"),
            ("kube-system/default, access: {mode: ReadOnly}", "no name of a namespace"),
            (r#""a\nb", access: {mode: ReadOnly}"#, "no name of a namespace"),
        ] {
            let problem = of(more);
            assert!(problem.starts_with("spec.clients[].serviceAccountNamespace of bot"), "{more}: {problem:?}");
            assert!(problem.contains(says), "{more}: {problem:?}");
        }
        assert_eq!(of("reports, access: {mode: ReadOnly}, sharedToo: false"), "");
    }

    #[test]
    fn a_namespace_in_the_name_of_the_account_is_held_to_the_same() {
        let of = |account: &str, more: &str| problem(&format!("[{{serviceAccountName: {account}, {more}}}]"));
        let own = "access: {mode: ReadOnly}";
        assert_eq!(of("reports/bot", own), None);
        assert_eq!(of("messaging/bot", own), None);
        for (account, more, says) in [
            ("reports/bot", "direct: true", "set access.mode to another than Shared"),
            ("messaging/bot", "direct: true", "set access.mode to another than Shared"),
            ("reports/bot", "access: {mode: ReadOnly}, sharedToo: true", "no sharedToo"),
            ("reports/bot", "access: {mode: ReadOnly}, secret: {name: s}", "remove secret"),
            (
                "reports/bot",
                "access: {mode: ReadOnly}, serviceAccountNamespace: reports",
                "remove serviceAccountNamespace",
            ),
            ("'*/bot'", own, "no name of a namespace"),
            ("'/bot'", own, "no name of a namespace"),
            ("'a,b/bot'", own, "no name of a namespace"),
            ("'reports/'", own, "is not <namespace>/<name>"),
            ("reports/web/bot", own, "is not <namespace>/<name>"),
        ] {
            let problem = of(account, more).unwrap_or_default();
            assert!(problem.starts_with("spec.clients[].serviceAccountName "), "{account}: {problem:?}");
            assert!(problem.contains(says), "{account} {more}: {problem:?}");
        }
    }

    #[test]
    fn accounts_of_one_name_in_several_namespaces_are_clients_by_names_of_their_own() {
        let own = "access: {mode: ReadOnly}";
        let two = |first: &str, second: &str| {
            problem(&format!("[{{serviceAccountName: {first}}}, {{serviceAccountName: {second}}}]"))
        };
        for (first, second) in [
            (format!("bot, {own}"), format!("reports/bot, name: reports-bot, {own}")),
            ("bot".to_owned(), format!("reports/bot, name: reports-bot, {own}")),
            (format!("reports/bot, name: reports-bot, {own}"), format!("web/bot, {own}")),
            (format!("bot, serviceAccountNamespace: reports, {own}"), format!("web/bot, name: web-bot, {own}")),
            // As before: a client of the shared login has no role of its name.
            ("a".to_owned(), format!("b, name: a, {own}")),
        ] {
            assert_eq!(two(&first, &second), None, "{first}; {second}");
        }
        for (first, second) in [
            (format!("bot, {own}"), format!("reports/bot, {own}")),
            ("bot".to_owned(), format!("reports/bot, {own}")),
            (format!("reports/bot, {own}"), "bot".to_owned()),
            (format!("bot, name: x, {own}"), format!("reports/bot, name: x, {own}")),
        ] {
            let problem = two(&first, &second).unwrap_or_default();
            for part in ["two entries with the name", "messaging/bot", "reports/bot", "set another spec.clients[].name"]
            {
                assert!(problem.contains(part), "{first}; {second}: {problem:?}");
            }
        }
        // One account, in each of its forms.
        for (first, second) in [
            (format!("bot, {own}"), format!("messaging/bot, name: x, {own}")),
            (format!("messaging/bot, name: x, {own}"), "bot".to_owned()),
            (format!("bot, serviceAccountNamespace: messaging, {own}"), format!("messaging/bot, name: x, {own}")),
        ] {
            let problem = two(&first, &second).unwrap_or_default();
            assert!(
                problem.contains("two entries of the ServiceAccount messaging/bot: keep one"),
                "{first}; {second}: {problem:?}"
            );
        }
        let problem =
            two(&format!("bot, serviceAccountNamespace: reports, {own}"), &format!("reports/bot, name: x, {own}"));
        assert!(problem.unwrap_or_default().contains("two entries of the ServiceAccount reports/bot: keep one"));
    }

    #[test]
    fn who_is_admitted_is_the_platforms_decision() {
        let clients: Vec<ClientSpec> = serde_yaml::from_str(
            "[{serviceAccountName: a}, {serviceAccountName: b, serviceAccountNamespace: chat},
              {serviceAccountName: c, serviceAccountNamespace: reports}, {serviceAccountName: d, serviceAccountNamespace: web},
              {serviceAccountName: chat/e}, {serviceAccountName: reports/a}, {serviceAccountName: web/a}]",
        )
        .expect("clients");
        let allowed = ClientNamespaces::parse(r#"{"chat": ["reports"], "games": ["web"]}"#).expect("namespaces");
        let allowing = Options { client_namespaces: allowed, ..options() };
        let (admitted, refused) = admitted(&clients, "chat", &allowing);
        let accounts = |clients: &[ClientSpec]| clients.iter().map(ClientSpec::account).collect::<Vec<_>>();
        assert_eq!(
            (accounts(&admitted), accounts(&refused)),
            (
                vec!["a".to_owned(), "b".into(), "reports/c".into(), "e".into(), "reports/a".into()],
                vec!["web/d".to_owned(), "web/a".into()],
            )
        );
    }

    #[test]
    fn lifetimes_have_bounds_and_short_lived_logins_no_secret() {
        let of = |more: &str| problem(&format!("[{{serviceAccountName: bot, {more}}}]"));
        let dynamic = |lifetimes: &str| of(&format!("access: {{mode: ReadOnly, dynamic: {{{lifetimes}}}}}"));
        assert_eq!(dynamic(""), None);
        assert_eq!(dynamic("ttlSeconds: 60, maxTtlSeconds: 60"), None);
        for lifetimes in
            ["ttlSeconds: 59", "ttlSeconds: 86401", "ttlSeconds: 600, maxTtlSeconds: 599", "maxTtlSeconds: 2592001"]
        {
            assert!(dynamic(lifetimes).is_some_and(|problem| problem.contains("ttlSeconds must be")), "{lifetimes}");
        }
        let with_secret = of("access: {mode: ReadOnly, dynamic: {}}, secret: {name: s}");
        assert!(with_secret.is_some_and(|problem| problem.contains("a client with access.dynamic has none")));
    }

    #[test]
    fn two_names_never_make_one_role() {
        let names = Names::new("n", "chat").postgres("chat");
        let clients: Vec<ClientSpec> = serde_yaml::from_str(
            "[{serviceAccountName: x, name: bot, access: {mode: ReadOnly}},
              {serviceAccountName: y, name: bot-a, access: {mode: ReadOnly}}]",
        )
        .expect("clients");
        let problem = check(&clients, "n", &names).expect_err("chat_c_bot_a is a login of bot");
        assert!(problem.contains("chat_c_bot_a"), "{problem}");
        let long = Names::new("n", "s".repeat(40)).postgres(&"d".repeat(50));
        let clients: Vec<ClientSpec> =
            serde_yaml::from_str("[{serviceAccountName: twenty-characters-xx, access: {mode: ReadOnly}}]")
                .expect("clients");
        assert!(check(&clients, "n", &long).expect_err("too long").contains("shorter name"));
    }

    #[test]
    fn rights_on_catalogues_the_ledger_and_odd_tables_are_refused() {
        for (grant, says) in [
            ("schema: pg_catalog, tables: [pg_authid], privileges: [SELECT]", "the schema pg_catalog is"),
            ("schema: servicedb, tables: [migrations], privileges: [INSERT]", "the schema servicedb is"),
            ("schema: information_schema, tables: ['*'], privileges: [SELECT]", "the schema information_schema is"),
            (r#"tables: ["a\u0000b"], privileges: [SELECT]"#, "is not a name"),
            ("tables: ['*', files], privileges: [SELECT]", "'*' alone"),
            ("tables: ['*'], columns: [id], privileges: [SELECT]", "columns need tables by name"),
            ("tables: [files], columns: [id], privileges: [DELETE]", "columns need tables by name"),
            ("tables: ['*'], rowPolicy: 'true', privileges: [SELECT]", "rowPolicy needs tables by name"),
            ("tables: [files], rowPolicy: 'true', privileges: [TRUNCATE]", "rowPolicy needs tables by name"),
            ("tables: [files], rowPolicy: 'a', privileges: [SELECT]}, {tables: [files], privileges: [SELECT]", "twice"),
            (
                "tables: [files], rowPolicy: 'a', privileges: [SELECT]}, {tables: ['*'], privileges: [SELECT]",
                "go around",
            ),
        ] {
            let problem = of_grant(grant).unwrap_or_default();
            assert!(problem.contains(says), "{grant}: {problem:?}");
        }
    }

    #[test]
    fn a_row_policy_is_one_expression_and_nothing_else() {
        for good in ["NOT is_secret", "owner_id = 1 OR is_shared", "id IN (SELECT file_id FROM permissions)", "a -- b"]
        {
            assert_eq!(row_policy_parses(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "true) OR (true",
            "true) WITH CHECK (true",
            "true); DROP TABLE files; SELECT (1",
            "true) FROM files WHERE (true",
            "a, b",
            "a ORDER BY b",
            "DISTINCT a",
            "x => true",
            "VARIADIC a",
            "true) FILTER (WHERE true",
            "true) UNION SELECT (1",
            "*",
            "SELECT 1",
            "'unfinished",
        ] {
            assert!(row_policy_parses(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_syntax_error_names_nothing_that_the_expression_lacks() {
        for (bad, says) in [
            ("owner_id =", ": it is not complete"),
            ("(is_shared", ": it is not complete"),
            ("is_shared)", ": it has a closing parenthesis too many"),
            ("is_shared AND AND true", ": syntax error at or near \"AND\""),
        ] {
            let said = row_policy_parses(bad).expect_err(bad);
            assert!(said.ends_with(says), "{bad}: {said}");
        }
    }
}
