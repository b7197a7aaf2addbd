//! Classifies the statements of a file that need approval: those that may lose stored data, and
//! those whose effect PostgreSQL's parser cannot determine.
//!
//! Statements known to be harmless are listed, and all others are held. A statement is classified
//! by its own text. Not followed, since a file's text does not show it:
//! - the schema's own actions on a harmless statement: triggers, rules, column defaults, checks and
//!   domains, the queries of views, the expressions of indexes;
//! - functions called by a cast to or from one of the service's types, and `t.name` where that is a
//!   function of the row and not a column;
//! - a function or operator of the service with the name of a built-in one and better matching
//!   arguments.
//!
//! It guards against mistakes, not against a malicious author, who can also change the service's
//! code.

mod functions;
mod walk;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableCmd, AlterTableStmt, AlterTableType, DropBehavior, DropStmt, Node, ObjectType, RangeVar, RawStmt,
    TransactionStmtKind, VariableSetStmt, a_const,
};
use serde_json::Value;

use self::walk::evaluated;
use super::lexer;

/// The longest file that is split: the parser has all of it in memory.
const LARGEST_FILE: usize = 1 << 20;
/// The longest statement that is parsed: its tree takes about 20 MiB.
const LARGEST: usize = 64 * 1024;
/// How many names or reasons are printed for one statement.
const REPORTED: usize = 3;
/// Settings that change the role or the meaning of the rest of the file, or how it is parsed.
const HELD_SETTINGS: &[&str] = &[
    "backslash_quote",
    "client_encoding",
    "role",
    "session_authorization",
    "session_replication_role",
    "standard_conforming_strings",
];

/// A statement that needs approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The line in the file, from 1.
    pub line: u32,
    /// Its effect, or why that is unknown: names, but no literals, which may be secret.
    pub why: String,
}

/// The statements of a file that need approval, in the file's order.
pub fn held(sql: &str) -> Vec<Held> {
    if sql.len() > LARGEST_FILE {
        let why = format!("a file of more than {} MiB, which is not analysed", LARGEST_FILE >> 20);
        return vec![Held { line: 1, why }];
    }
    let Ok(statements) = pg_query::split_with_parser(sql) else { return vec![unreadable(sql)] };
    let (mut line, mut counted) = (1, 0);
    let mut held = Vec::new();
    for statement in statements {
        let at = (statement.as_ptr().addr() - sql.as_ptr().addr()).max(counted);
        line += newlines(&sql.as_bytes()[counted..at]);
        counted = at;
        let reasons = statement_reasons(statement);
        if !reasons.is_empty() {
            held.push(Held { line, why: listed(reasons) });
        }
    }
    held
}

/// A tree takes about a hundred times the memory of its text, so only one exists at a time.
fn statement_reasons(statement: &str) -> Vec<String> {
    if statement.len() > LARGEST {
        return vec![format!("a statement of more than {} KiB, which is not analysed", LARGEST / 1024)];
    }
    match pg_query::parse(statement, 0) {
        Ok(parsed) => match parsed.protobuf.stmts.as_slice() {
            [RawStmt { stmt: Some(node), .. }] => reasons_of(node),
            _ => vec!["a statement of an unknown kind".to_owned()],
        },
        // It was parsed to be split, so the cause is the crate's limit of a hundred levels, which is
        // about 45 operators or joins in a row.
        Err(_) => vec!["a statement that is nested too deeply to be analysed".to_owned()],
    }
}

/// The parser reports no line, and its message quotes the file: so this finds the first statement
/// that it cannot parse separately.
fn unreadable(sql: &str) -> Held {
    let line = lexer::statements(sql).find_map(|statement| match statement {
        Ok(statement) => pg_query::split_with_parser(statement.text).is_err().then_some(statement.line),
        Err(error) => Some(error.line),
    });
    let line = line.unwrap_or(1);
    let why = "PostgreSQL's parser cannot read it, so no statement of this file can be classified: a mistake, the syntax of \
               another version, or too deep a nesting";
    Held { line, why: why.to_owned() }
}

fn newlines(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX)
}

fn reasons_of(node: &Node) -> Vec<String> {
    // A node without a kind is one that this build of the parser does not know.
    node.node.as_ref().map_or_else(|| vec!["a statement of an unknown kind".to_owned()], reasons)
}

/// Why a statement is held; empty if it is harmless.
fn reasons(node: &NodeEnum) -> Vec<String> {
    use NodeEnum as N;
    let one = |why: &str| vec![why.to_owned()];
    match node {
        // Definitions: the functions in them are not called now.
        N::ViewStmt(_)
        | N::CreateFunctionStmt(_)
        | N::CreateTrigStmt(_)
        | N::CreatePolicyStmt(_)
        | N::RuleStmt(_)
        | N::DefineStmt(_)
        | N::CompositeTypeStmt(_)
        | N::CreateEnumStmt(_)
        | N::CreateRangeStmt(_)
        | N::CreateDomainStmt(_)
        | N::CreateSeqStmt(_)
        | N::CreateStatsStmt(_)
        | N::CreateExtensionStmt(_)
        | N::CreateCastStmt(_)
        | N::CreateConversionStmt(_)
        | N::CreateOpClassStmt(_)
        | N::CreateOpFamilyStmt(_)
        | N::CreatePublicationStmt(_) => vec![],
        // Changes of objects without rows.
        N::AlterEnumStmt(_)
        | N::AlterFunctionStmt(_)
        | N::AlterPolicyStmt(_)
        | N::AlterSeqStmt(_)
        | N::AlterStatsStmt(_)
        | N::AlterCollationStmt(_)
        | N::AlterTsdictionaryStmt(_)
        | N::AlterTsconfigurationStmt(_)
        | N::AlterObjectSchemaStmt(_)
        | N::AlterDefaultPrivilegesStmt(_)
        | N::GrantStmt(_)
        | N::CommentStmt(_) => vec![],
        // Statements that change nothing. A materialized view's query was classified when it was created.
        N::VariableShowStmt(_)
        | N::ConstraintsSetStmt(_)
        | N::LockStmt(_)
        | N::NotifyStmt(_)
        | N::ListenStmt(_)
        | N::UnlistenStmt(_)
        | N::VacuumStmt(_)
        | N::ReindexStmt(_)
        | N::ClusterStmt(_)
        | N::RefreshMatViewStmt(_) => vec![],
        // Expressions that are evaluated now are harmless if all called functions are.
        N::SelectStmt(_)
        | N::InsertStmt(_)
        | N::UpdateStmt(_)
        | N::DeleteStmt(_)
        | N::MergeStmt(_)
        | N::CreateTableAsStmt(_)
        | N::IndexStmt(_) => evaluated(node),
        // Of a new table only a partition's bounds are evaluated.
        N::CreateStmt(create) => create.partbound.as_ref().map_or_else(Vec::new, evaluated),
        N::CreateSchemaStmt(create) => create.schema_elts.iter().flat_map(reasons_of).collect(),
        N::ExplainStmt(explain) => {
            let runs = explain
                .options
                .iter()
                .any(|option| matches!(&option.node, Some(N::DefElem(option)) if option.defname == "analyze"));
            if runs { explain.query.as_deref().map_or_else(Vec::new, reasons_of) } else { vec![] }
        }
        N::TransactionStmt(control) => match control.kind() {
            TransactionStmtKind::TransStmtSavepoint
            | TransactionStmtKind::TransStmtRelease
            | TransactionStmtKind::TransStmtRollbackTo => vec![],
            _ => one("ends the transaction of the file"),
        },
        N::VariableSetStmt(set) => setting(set),
        N::DropStmt(drop) => dropped(drop),
        N::AlterTableStmt(alter) => altered(alter),
        N::AlterDomainStmt(alter) if alter.behavior() == DropBehavior::DropCascade => {
            vec![format!("changes the domain {} and what depends on it", dotted(&alter.type_name))]
        }
        // A new check reads stored data. A default is evaluated later.
        N::AlterDomainStmt(alter) => {
            if alter.subtype == "C" {
                evaluated(&alter.def)
            } else {
                vec![]
            }
        }
        // A new name loses no data, but roles and databases do not belong to the schema.
        N::RenameStmt(rename) => outside(rename.rename_type),
        N::AlterOwnerStmt(alter) => outside(alter.object_type),
        N::TruncateStmt(truncate) => vec![format!("empties the table {}", names(&truncate.relations))],
        N::DoStmt(_) => one("a DO block, which can do anything"),
        N::CallStmt(call) => {
            let name = call.funccall.as_ref().map_or_else(String::new, |call| dotted(&call.funcname));
            vec![format!("calls the procedure {name}, which can do anything")]
        }
        N::PrepareStmt(_) | N::ExecuteStmt(_) => one("a prepared statement, which can do anything"),
        N::CopyStmt(_) => one("a COPY, whose data is unknown"),
        N::LoadStmt(_) => one("loads a library, which can do anything"),
        N::DropOwnedStmt(_) => one("drops all that a role owns"),
        _ => vec![format!("{}, which is not known to be harmless", kind_of(node))],
    }
}

/// The kind of a statement, as the parser names it.
fn kind_of(node: &NodeEnum) -> String {
    let kind = match serde_json::to_value(node) {
        Ok(Value::Object(map)) => map.into_iter().next().map_or_else(String::new, |(kind, _)| kind),
        _ => String::new(),
    };
    let mut words = String::from("a statement of the kind");
    for character in kind.trim_end_matches("Stmt").chars() {
        if character.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(character.to_ascii_uppercase());
    }
    words
}

fn setting(set: &VariableSetStmt) -> Vec<String> {
    // Names of settings are case-insensitive, even in quotes.
    let name = set.name.to_ascii_lowercase();
    if HELD_SETTINGS.contains(&name.as_str()) {
        return vec![format!("changes the setting {name}, and with it the meaning of the rest of the file")];
    }
    // Built-in functions are found first, unless pg_catalog follows another schema in the path.
    let shadowed = name == "search_path" && set.args.iter().skip(1).any(|arg| constant(arg) == Some("pg_catalog"));
    if shadowed { vec!["puts other schemas before pg_catalog".to_owned()] } else { vec![] }
}

fn constant(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::AConst(constant)) => match &constant.val {
            Some(a_const::Val::Sval(text)) => Some(&text.sval),
            _ => None,
        },
        _ => None,
    }
}

fn dropped(drop: &DropStmt) -> Vec<String> {
    use ObjectType as O;
    let cascade = drop.behavior() == DropBehavior::DropCascade;
    let kind = drop.remove_type();
    let holds_nothing = matches!(
        kind,
        O::ObjectAggregate
            | O::ObjectCast
            | O::ObjectCollation
            | O::ObjectConversion
            | O::ObjectFunction
            | O::ObjectIndex
            | O::ObjectOpclass
            | O::ObjectOperator
            | O::ObjectOpfamily
            | O::ObjectPolicy
            | O::ObjectProcedure
            | O::ObjectRoutine
            | O::ObjectRule
            | O::ObjectStatisticExt
            | O::ObjectTransform
            | O::ObjectTrigger
            | O::ObjectTsconfiguration
            | O::ObjectTsdictionary
            | O::ObjectTsparser
            | O::ObjectTstemplate
            | O::ObjectView
    );
    if holds_nothing && !cascade {
        return vec![];
    }
    let dependants = if cascade { " and what depends on it" } else { "" };
    vec![format!("drops the {} {}{dependants}", word(kind), names(&drop.objects))]
}

fn word(kind: ObjectType) -> String {
    match kind {
        ObjectType::ObjectMatview => "materialized view".to_owned(),
        ObjectType::ObjectStatisticExt => "statistics".to_owned(),
        kind => kind.as_str_name().trim_start_matches("OBJECT_").replace('_', " ").to_ascii_lowercase(),
    }
}

/// Objects of the server, not of the database's schemas.
fn outside(kind: i32) -> Vec<String> {
    use ObjectType as O;
    let kind = ObjectType::try_from(kind).unwrap_or(O::Undefined);
    let outside = matches!(
        kind,
        O::Undefined
            | O::ObjectDatabase
            | O::ObjectEventTrigger
            | O::ObjectFdw
            | O::ObjectForeignServer
            | O::ObjectRole
            | O::ObjectSubscription
            | O::ObjectTablespace
    );
    if outside { vec![format!("changes a {}, which does not belong to the schema", word(kind))] } else { vec![] }
}

fn altered(alter: &AlterTableStmt) -> Vec<String> {
    let table = alter.relation.as_ref().map_or_else(String::new, relation);
    alter
        .cmds
        .iter()
        .flat_map(|command| match &command.node {
            Some(NodeEnum::AlterTableCmd(command)) => altered_by(command, &table, alter.objtype()),
            _ => vec![format!("changes {table} in a way that is not known to be harmless")],
        })
        .collect()
}

fn altered_by(command: &AlterTableCmd, table: &str, kind: ObjectType) -> Vec<String> {
    use AlterTableType as A;
    let cascade = command.behavior() == DropBehavior::DropCascade;
    let dependants = if cascade { " and what depends on it" } else { "" };
    let part = if kind == ObjectType::ObjectType { "attribute" } else { "column" };
    let name = identifier(&command.name);
    let one = |why: String| vec![why];
    match command.subtype() {
        // Stored data is rewritten or checked now.
        A::AtAddColumn | A::AtAddConstraint | A::AtSetExpression | A::AtAttachPartition => evaluated(&command.def),
        A::AtDropColumn => one(format!("drops the {part} {name} of {table}{dependants}")),
        A::AtAlterColumnType => {
            one(format!("changes the type of the {part} {name} of {table}, which may lose values that do not fit"))
        }
        A::AtDropConstraint if cascade => one(format!("drops the constraint {name} of {table}{dependants}")),
        // The counter's value is lost, as with DROP SEQUENCE.
        A::AtDropIdentity => one(format!("drops the sequence of the column {name} of {table}")),
        // The rows are kept, but the table's readers no longer see them.
        A::AtDetachPartition | A::AtDetachPartitionFinalize => one(format!("removes a partition's rows from {table}")),
        A::AtDropInherit => one(format!("removes the rows of {table} from its parent")),
        A::AtSetUnLogged => one(format!("makes {table} unlogged: a crash or a failover empties it")),
        // A default is evaluated later, and a dropped default stays in the rows.
        A::AtColumnDefault
        | A::AtDropExpression
        | A::AtSetNotNull
        | A::AtDropNotNull
        | A::AtSetStatistics
        | A::AtSetOptions
        | A::AtResetOptions
        | A::AtSetStorage
        | A::AtSetCompression
        | A::AtAlterConstraint
        | A::AtValidateConstraint
        | A::AtAddIndexConstraint
        | A::AtDropConstraint
        | A::AtChangeOwner
        | A::AtClusterOn
        | A::AtDropCluster
        | A::AtSetLogged
        | A::AtSetAccessMethod
        | A::AtSetTableSpace
        | A::AtSetRelOptions
        | A::AtResetRelOptions
        | A::AtEnableTrig
        | A::AtEnableAlwaysTrig
        | A::AtEnableReplicaTrig
        | A::AtDisableTrig
        | A::AtEnableTrigAll
        | A::AtDisableTrigAll
        | A::AtEnableTrigUser
        | A::AtDisableTrigUser
        | A::AtEnableRule
        | A::AtEnableAlwaysRule
        | A::AtEnableReplicaRule
        | A::AtDisableRule
        | A::AtAddInherit
        | A::AtAddOf
        | A::AtDropOf
        | A::AtReplicaIdentity
        | A::AtEnableRowSecurity
        | A::AtDisableRowSecurity
        | A::AtForceRowSecurity
        | A::AtNoForceRowSecurity
        | A::AtAddIdentity
        | A::AtSetIdentity => vec![],
        _ => one(format!("changes {table} in a way that is not known to be harmless")),
    }
}

fn names(objects: &[Node]) -> String {
    listed(objects.iter().map(object_name).collect())
}

fn object_name(object: &Node) -> String {
    match &object.node {
        Some(NodeEnum::String(name)) => identifier(&name.sval),
        Some(NodeEnum::List(list)) => dotted(&list.items),
        Some(NodeEnum::TypeName(name)) => dotted(&name.names),
        Some(NodeEnum::ObjectWithArgs(object)) => dotted(&object.objname),
        Some(NodeEnum::RangeVar(table)) => relation(table),
        _ => String::new(),
    }
}

fn dotted(parts: &[Node]) -> String {
    parts.iter().map(object_name).collect::<Vec<_>>().join(".")
}

fn relation(table: &RangeVar) -> String {
    qualified(&table.schemaname, &table.relname)
}

fn qualified(schema: &str, name: &str) -> String {
    if schema.is_empty() { identifier(name) } else { format!("{}.{}", identifier(schema), identifier(name)) }
}

/// A name in SQL syntax. It is printed and logged, so it has no control characters.
fn identifier(name: &str) -> String {
    let starts_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    if starts_plain && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '$')) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\"").replace(char::is_control, "\u{fffd}"))
}

fn listed(mut parts: Vec<String>) -> String {
    let more = parts.len().saturating_sub(REPORTED);
    parts.truncate(REPORTED);
    let listed = parts.join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

#[cfg(test)]
mod tests;
