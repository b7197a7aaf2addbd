//! The database under test: three instances, synchronous, with default settings.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use servicedb::api::ServiceDatabase;
use servicedb::api::names::{ANNOTATION_REPORT, LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY};
use servicedb::contract::report::{Phase, Report, Role};
use tokio::time::Instant;

use crate::harness::{Sandbox, condition, config_map, database, describe};

/// The resource's name.
pub const NAME: &str = "shop";
/// How many instances it has.
pub const INSTANCES: usize = 3;
/// Timeout of its recovery.
pub const WHOLE: Duration = Duration::from_secs(300);
/// Without a key: a row that is there twice is to be seen, not refused.
const TABLE: &str = "CREATE TABLE written (writer integer NOT NULL, sequence bigint NOT NULL);";

/// The database.
pub struct Subject {
    /// Where it is.
    pub place: Arc<Sandbox>,
}

impl Subject {
    /// Creates it, and waits until it is whole.
    ///
    /// # Errors
    /// If it does not become whole.
    pub async fn create(place: Arc<Sandbox>) -> Result<Self, String> {
        place.create(config_map("migrations", &[("1_written.up.sql", TABLE)])).await;
        let spec = json!({
            "instances": INSTANCES,
            "deletionPolicy": "Delete",
            "migrations": {"source": {"configMap": {"name": "migrations"}}},
        });
        place.create(database(NAME, spec)).await;
        let subject = Self { place };
        subject.whole(WHOLE).await?;
        Ok(subject)
    }

    /// Waits until the database has recovered: Ready, every instance running and replicating, a
    /// standby that commits wait for.
    ///
    /// # Errors
    /// If that is not so in time: what is missing.
    pub async fn whole(&self, bound: Duration) -> Result<(), String> {
        self.whole_with(INSTANCES, bound).await
    }

    /// The same with so many instances.
    ///
    /// # Errors
    /// If that is not so in time: what is missing.
    pub async fn whole_with(&self, instances: usize, bound: Duration) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let missing = match self.missing(instances).await {
                Ok(None) => return Ok(()),
                Ok(Some(missing)) => missing,
                Err(error) => error.to_string(),
            };
            if started.elapsed() > bound {
                return Err(format!("not whole again within {} s: {missing}", bound.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn missing(&self, instances: usize) -> Result<Option<String>, kube::Error> {
        let database = self.place.api::<ServiceDatabase>().get(NAME).await?;
        let status = database.status.clone().unwrap_or_default();
        let holds = |kind: &str| condition(&database, kind).is_some_and(|condition| condition.status == "True");
        let all = status.instances.as_deref() == Some(&format!("{instances}/{instances}"));
        let current = status.observed_generation == database.metadata.generation;
        let synchronous = instances == 1 || holds("SynchronousReplication");
        if !(all && current && holds("Ready") && synchronous) {
            return Ok(Some(describe(&database)));
        }
        let pods = self.pods().await?;
        let bad = pods.iter().find_map(|pod| Some(format!("pod {}: {}", pod.name_any(), defect(pod)?)));
        let leading = pods.iter().filter(|pod| role(pod) == Some(Role::Primary)).count();
        Ok(match bad {
            Some(bad) => Some(bad),
            None if pods.len() != instances => Some(format!("{} pods", pods.len())),
            None if leading != 1 => Some(format!("{leading} pods say that they lead")),
            None => None,
        })
    }

    /// The database's pods.
    ///
    /// # Errors
    /// Whatever the API server said.
    pub async fn pods(&self) -> Result<Vec<Pod>, kube::Error> {
        let base = self.place.names(NAME).base();
        let parameters = ListParams::default().labels(&format!("{LABEL_SCOPE}={base}"));
        Ok(self.place.api::<Pod>().list(&parameters).await?.items)
    }

    /// The pod that leads, if it is known, and the others.
    ///
    /// # Errors
    /// Whatever the API server said.
    pub async fn roles(&self) -> Result<(Option<Pod>, Vec<Pod>), kube::Error> {
        let status = self.place.api::<ServiceDatabase>().get(NAME).await?.status;
        let said = status.and_then(|status| status.primary);
        let mut pods = self.pods().await?;
        let labelled = |pod: &Pod| pod.labels().get(LABEL_ROLE).is_some_and(|role| role == ROLE_PRIMARY);
        let leads = pods.iter().position(|pod| Some(pod.name_any()) == said && labelled(pod));
        let leads = leads.or_else(|| pods.iter().position(labelled));
        let primary = leads.map(|index| pods.remove(index));
        Ok((primary, pods))
    }

    /// The pod that leads.
    ///
    /// # Errors
    /// If none does, or the API server does not answer.
    pub async fn primary(&self) -> Result<Pod, String> {
        let (primary, _) = self.roles().await.map_err(|error| error.to_string())?;
        primary.ok_or_else(|| "no pod leads".to_owned())
    }
}

/// What an agent says of its pod.
pub fn report(pod: &Pod) -> Option<Report> {
    let report: Report = serde_json::from_str(pod.annotations().get(ANNOTATION_REPORT)?).ok()?;
    (Some(&report.pod_uid) == pod.metadata.uid.as_ref()).then_some(report)
}

fn role(pod: &Pod) -> Option<Role> {
    report(pod)?.role
}

/// The node of a pod.
pub fn node(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

fn defect(pod: &Pod) -> Option<&'static str> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    match report(pod) {
        _ if pod.metadata.deletion_timestamp.is_some() => Some("is being deleted"),
        _ if !ready => Some("is not Ready"),
        None => Some("its agent has not reported"),
        Some(report) if report.phase != Phase::Running => Some("its agent does not call it running"),
        Some(_) => None,
    }
}
