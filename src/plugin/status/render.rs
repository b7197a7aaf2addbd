//! An overview as text.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::overview::{Instance, Overview};
use crate::api::{
    AccessMode, BackupStatus, DeletionPolicy, InPlaceRestore, MigrationState, PoolerStatus, RequestState, conditions,
};
use crate::contract::report::Phase;
use crate::plugin::age::{age, duration};
use crate::plugin::table::{Table, plain};

/// The access of clients that share a login.
const SHARED: &str = AccessMode::Shared.as_str();

/// The whole text.
pub fn render(overview: &Overview, now: Timestamp) -> String {
    let sections = [
        summary(overview, now),
        conditions(overview, now),
        instances(overview, now),
        volumes(overview),
        credentials(overview, now),
        clients(overview, now),
        migrations(overview, now),
        events(overview, now),
        not_read(overview),
    ];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn summary(overview: &Overview, now: Timestamp) -> Option<String> {
    let mut lines = Lines::default();
    lines.add("Name", &overview.name);
    lines.add("Namespace", &overview.namespace);
    match condition(overview, conditions::READY) {
        Some(ready) => {
            let since = age(ready.last_transition_time.0, now);
            lines.add("Ready", &format!("{} (for {since}), {}", ready.status, ready.reason));
            lines.add("", &ready.message);
        }
        None => lines.add("Ready", "Unknown: no operator has processed this resource yet; check that it is running"),
    }
    // A deletion request increases the generation too, and is not a change of spec.
    let behind = overview.observed_generation.is_some() && overview.observed_generation < overview.generation;
    if behind && overview.deleted_at.is_none() {
        lines.add("", "The operator has not yet processed the last change of spec.");
    }
    if let Some(deleted_at) = overview.deleted_at {
        let waits_for = overview.deletion_waits_for.as_deref().map(|what| format!("; it waits for {what}"));
        lines.add("Deletion", &format!("requested {} ago{}", age(deleted_at, now), waits_for.unwrap_or_default()));
    }
    lines.add("Database", &format!("{} on PostgreSQL {}", overview.database, overview.postgres_version));
    if let Some(message) = overview.upgrade.as_ref().and_then(|upgrade| upgrade.message.as_deref()) {
        lines.add("Upgrade", message);
    }
    lines.add("Primary", overview.primary.as_deref().unwrap_or("none"));
    if let Some(endpoints) = &overview.endpoints {
        lines.add("Endpoints", &format!("{} (primary)", endpoints.primary));
        if let Some(replicas) = &endpoints.replicas {
            lines.add("", &format!("{replicas} (replicas)"));
        }
    }
    if let Some(gateway) = &overview.gateway {
        let (ready, url) = (gateway.instances.as_deref(), gateway.url.as_deref());
        lines.add("Gateway", &format!("{} pods ready, {}", ready.unwrap_or_default(), url.unwrap_or_default()));
        if let Some(message) = &gateway.message {
            lines.add("", message);
        }
    }
    if let Some(pooler) = &overview.pooler {
        for (n, line) in poolers(overview, pooler, now).iter().enumerate() {
            lines.add(if n == 0 { "Pooler" } else { "" }, line);
        }
    }
    if let Some(backup) = &overview.backup {
        for (n, line) in backups(backup, now).iter().enumerate() {
            lines.add(if n == 0 { "Backups" } else { "" }, line);
        }
    }
    if let Some(restore) = &overview.restore {
        for (n, line) in restores(restore, now).iter().enumerate() {
            lines.add(if n == 0 { "Restore" } else { "" }, line);
        }
    }
    if let Some(restored) = &overview.restored {
        lines.add("Restored", restored);
    }
    if let Some(created_at) = overview.created_at {
        lines.add("Age", &age(created_at, now));
    }
    let policy = match overview.deletion_policy {
        DeletionPolicy::Retain => "Retain",
        DeletionPolicy::Delete => "Delete",
    };
    lines.add("Deletion policy", policy);
    lines.add("Paused", if overview.paused { "yes: the operator changes nothing" } else { "no" });
    Some(lines.text)
}

/// The pooler's pods with their address, and the last planned change.
fn poolers(overview: &Overview, pooler: &PoolerStatus, now: Timestamp) -> Vec<String> {
    let endpoints = overview.endpoints.as_ref();
    let line = |ready: &str, address: Option<&String>| match address {
        Some(address) => format!("{ready} pods ready, {address}"),
        None => format!("{ready} pods ready"),
    };
    let mut lines = Vec::new();
    if let Some(ready) = &pooler.instances {
        lines.push(line(ready, endpoints.and_then(|endpoints| endpoints.pooler.as_ref())));
    }
    if let Some(ready) = &pooler.replica_instances {
        lines.push(format!("{} (replicas)", line(ready, endpoints.and_then(|it| it.pooler_replicas.as_ref()))));
    }
    if let Some(hold) = &pooler.last_hold {
        let how = match &hold.message {
            Some(message) => message.as_str(),
            None if hold.held => "queries were held",
            None => "queries are being held",
        };
        lines.push(format!("{}, {} ago: {how}", hold.change, age(hold.started_at.0, now)));
    }
    lines
}

/// What the store has, and when it was proved.
fn backups(backup: &BackupStatus, now: Timestamp) -> Vec<String> {
    let mut lines = vec![match (&backup.newest, &backup.recoverable_from) {
        (Some(newest), Some(from)) => format!(
            "the newest ({:?}) is {} old, in the store {}; recoverable from {} on{}",
            newest.kind,
            age(newest.finished_at.0, now),
            backup.store,
            from.0,
            if backup.windows.is_empty() { "" } else { ", in the windows of status.backup.windows" }
        ),
        _ => format!("none yet, in the store {}", backup.store),
    }];
    if let Some(second) = &backup.second {
        lines.extend(backups(second, now));
    }
    if let Some(verified) = &backup.verified {
        let (age, seconds) = (age(verified.at.0, now), verified.restore_seconds);
        lines.push(format!("the last tested restore was {age} ago and took {seconds} s"));
    }
    lines
}

/// The last requested restore in place, and the one before it that succeeded: its result has the way back.
fn restores(restore: &InPlaceRestore, now: Timestamp) -> Vec<String> {
    let (run, age) = (&restore.run, age(restore.run.started_at.0, now));
    let state = match run.state {
        RequestState::Running => "Running",
        RequestState::Done => "Done",
        RequestState::Failed => "Failed",
    };
    let message = run.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    let mut lines = vec![format!("{state}, requested {age} ago{message}")];
    lines.extend(restore.last_done.as_ref().map(|done| format!("the last one that succeeded: {done}")));
    lines
}

/// The abnormal conditions; Ready is in the summary. A condition keeps its transition time when only its reason changes.
fn conditions(overview: &Overview, now: Timestamp) -> Option<String> {
    let odd: Vec<&Condition> =
        overview.conditions.iter().filter(|it| it.type_ != conditions::READY && !is_as_it_should_be(it)).collect();
    let mut table = Table::new(["CONDITION", "STATUS", "FOR", "REASON", "MESSAGE"]);
    let ready = condition(overview, conditions::READY).map(|ready| ready.message.as_str());
    for it in &odd {
        let since = age(it.last_transition_time.0, now);
        let message = if ready == Some(it.message.as_str()) { "as Ready" } else { it.message.as_str() };
        table.row([it.type_.clone(), it.status.clone(), since, it.reason.clone(), message.to_owned()]);
    }
    (!odd.is_empty()).then(|| format!("Abnormal conditions\n{}", table.render()))
}

pub(super) fn is_as_it_should_be(condition: &Condition) -> bool {
    use conditions::reason::{ASYNCHRONOUS, SINGLE_INSTANCE};
    let good = match condition.type_.as_str() {
        conditions::RECONCILING
        | conditions::STALLED
        | conditions::ROLLOUT_PENDING
        | conditions::SCHEMA_DRIFT
        | conditions::VOLUME_NEARLY_FULL
        | conditions::COLLATIONS_CHANGED => "False",
        _ => "True",
    };
    // The spec declares no synchronous replication.
    condition.status == good || [SINGLE_INSTANCE, ASYNCHRONOUS].contains(&condition.reason.as_str())
}

fn instances(overview: &Overview, now: Timestamp) -> Option<String> {
    let ready = overview.instances.iter().filter(|instance| instance.ready).count();
    let mut text = format!("Instances: {ready} of {} ready\n", overview.declared_instances);
    if overview.instances.is_empty() {
        return Some(text);
    }
    let mut table = Table::new(["POD", "ROLE", "READY", "STATUS", "NODE", "AGE", "RESTARTS", "AGENT", "LAG"]);
    for instance in &overview.instances {
        table.row([
            instance.pod.clone(),
            instance.role.clone().unwrap_or_default(),
            if instance.ready { "yes" } else { "no" }.to_owned(),
            instance.status.clone(),
            instance.node.clone().unwrap_or_default(),
            instance.created_at.map(|at| age(at, now)).unwrap_or_default(),
            instance.restarts.to_string(),
            agent(instance),
            instance.agent.as_ref().and_then(|agent| agent.lag_bucket_bytes).map(lag).unwrap_or_default(),
        ]);
    }
    text.push_str(&table.render());
    for (instance, agent) in overview.instances.iter().filter_map(|it| Some((it, it.agent.as_ref()?))) {
        if let Some(trouble) = &agent.trouble {
            text.push_str(&format!("  {}: {}: {}\n", instance.pod, trouble.reason, plain(&trouble.message)));
        }
    }
    Some(text)
}

fn agent(instance: &Instance) -> String {
    let Some(agent) = &instance.agent else { return String::new() };
    let phase = match agent.phase {
        Phase::Starting => "starting",
        Phase::WaitingForVault => "waiting for Vault",
        Phase::Initializing => "initializing",
        Phase::StartingPostgres => "starting PostgreSQL",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
    };
    if agent.restart_pending { format!("{phase}, restart pending") } else { phase.to_owned() }
}

/// A bucket of lag: an upper bound in the unit with the fewest digits.
fn lag(bytes: u64) -> String {
    match bytes {
        ..0x10_0000 => "< 1Mi".to_owned(),
        0x10_0000..0x4000_0000 => format!("<= {}Mi", bytes >> 20),
        _ => format!("<= {}Gi", bytes >> 30),
    }
}

fn volumes(overview: &Overview) -> Option<String> {
    let mut table = Table::new(["VOLUME CLAIM", "SIZE", "STATUS", "CLASS"]);
    for volume in &overview.volumes {
        let size = match (&volume.requested, &volume.capacity) {
            (Some(requested), Some(capacity)) if requested != capacity => format!("{capacity}, {requested} requested"),
            (requested, capacity) => capacity.clone().or_else(|| requested.clone()).unwrap_or_default(),
        };
        let class = volume.storage_class_name.clone().unwrap_or_default();
        table.row([volume.claim.clone(), size, volume.phase.clone(), class]);
    }
    (!overview.volumes.is_empty()).then(|| format!("Volumes\n{}", table.render()))
}

fn credentials(overview: &Overview, now: Timestamp) -> Option<String> {
    let mut lines = Lines::default();
    lines.text.push_str("Credentials\n");
    lines.indent = "  ";
    let Some(credentials) = overview.credentials.as_ref().filter(|credentials| credentials.generation > 0) else {
        lines.text.push_str("  none yet\n");
        return Some(lines.text);
    };
    let rotated = credentials.rotated_at.as_ref().map(|at| format!(", rotated {} ago", age(at.0, now)));
    lines.add("Generation", &format!("{}{}", credentials.generation, rotated.unwrap_or_default()));
    if let Some(sessions) = credentials.old_sessions.filter(|sessions| *sessions > 0) {
        lines.add("Old sessions", &format!("{sessions}, with the replaced login"));
    }
    if let Some(path) = &credentials.vault_path {
        lines.add("Vault path", path);
    }
    if let Some(role) = &credentials.vault_role {
        lines.add("Vault role", role);
    }
    Some(lines.text)
}

/// Who may connect, and what differs from the declared rights.
fn clients(overview: &Overview, now: Timestamp) -> Option<String> {
    let mut table = Table::new(["CLIENT", "ACCESS", "GENERATION", "ROTATED", "SESSIONS", "RIGHTS"]);
    let mut messages = String::new();
    for client in &overview.clients {
        table.row([
            client.name.clone(),
            client.access.clone(),
            if client.short_lived { "short-lived".to_owned() } else { client.generation.to_string() },
            client.rotated_at.map(|at| format!("{} ago", age(at, now))).unwrap_or_default(),
            client.sessions.map(|sessions| sessions.to_string()).unwrap_or_default(),
            client
                .rights
                .clone()
                .unwrap_or_else(|| if client.access == SHARED { "all data" } else { "Unknown" }.into()),
        ]);
        if let Some(message) = &client.message {
            messages.push_str(&format!("  {}: {}\n", plain(&client.name), plain(message)));
        }
    }
    (!overview.clients.is_empty()).then(|| format!("Clients\n{}{messages}", table.render()))
}

fn migrations(overview: &Overview, now: Timestamp) -> Option<String> {
    let Some(source) = &overview.migrations_source else {
        return Some("Migrations: none declared\n".to_owned());
    };
    let version = overview.schema_version.as_deref().map(|version| format!("schema {}, ", plain(version)));
    let counts = overview.migrations.clone().unwrap_or_default();
    let mut text = format!(
        "Migrations: {}{} applied, {} pending, {} failed, from {source}\n",
        version.unwrap_or_default(),
        counts.applied,
        counts.pending,
        counts.failed
    );
    let mut table = Table::new(["VERSION", "NAME", "STATE", "STARTED", "DURATION", "ERROR"]);
    for migration in &counts.recent {
        let state = match migration.state {
            MigrationState::Pending => "pending",
            MigrationState::Executing => "executing",
            MigrationState::Completed => "completed",
            MigrationState::Failed => "failed",
        };
        table.row([
            migration.version.to_string(),
            migration.name.clone(),
            state.to_owned(),
            migration.started_at.as_ref().map(|at| format!("{} ago", age(at.0, now))).unwrap_or_default(),
            migration.duration_ms.map(duration).unwrap_or_default(),
            migration.error.clone().unwrap_or_default(),
        ]);
    }
    if !counts.recent.is_empty() {
        text.push_str(&table.render());
    }
    Some(text)
}

fn events(overview: &Overview, now: Timestamp) -> Option<String> {
    let mut table = Table::new(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    for event in &overview.events {
        let last_seen = event.last_seen.map(|at| age(at, now)).unwrap_or_default();
        let seen = if event.count > 1 { format!("{last_seen} (x{})", event.count) } else { last_seen };
        let cells = [&event.kind, &event.reason, &event.object, &event.message].map(String::clone);
        let [kind, reason, object, message] = cells;
        table.row([seen, kind, reason, object, message]);
    }
    (!overview.events.is_empty()).then(|| format!("Events, the newest last\n{}", table.render()))
}

fn not_read(overview: &Overview) -> Option<String> {
    let lines: String = overview.not_read.iter().map(|part| format!("  {}\n", plain(part))).collect();
    (!lines.is_empty()).then(|| format!("Not shown, because reading failed\n{lines}"))
}

fn condition<'a>(overview: &'a Overview, kind: &str) -> Option<&'a Condition> {
    overview.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Lines with a label and a value.
#[derive(Default)]
struct Lines {
    text: String,
    indent: &'static str,
}

impl Lines {
    /// Adds a line; one without a label continues the previous line.
    fn add(&mut self, label: &str, value: &str) {
        let label = if label.is_empty() { String::new() } else { format!("{label}:") };
        let width = 18 - self.indent.len();
        self.text.push_str(format!("{}{label:width$}{}", self.indent, plain(value)).trim_end());
        self.text.push('\n');
    }
}
