//! The logs of all pods: a fault removes the pod and its log, which is needed to explain a lost
//! row.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use servicedb::api::ServiceDatabase;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::cluster::dev_file;
use crate::harness::{Operator, Sandbox};

/// The polling interval for new pods.
const LOOK: Duration = Duration::from_millis(500);

/// The logs of one namespace, followed until this is dropped.
pub struct Logs {
    place: Arc<Sandbox>,
    folder: PathBuf,
    follower: JoinHandle<()>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Logs {
    /// Follows the logs of all pods of a namespace from now on.
    pub fn keep(place: Arc<Sandbox>) -> Self {
        let folder = dev_file("outage-logs").join(&place.namespace);
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let follower = tokio::spawn(follow_all(place.clone(), folder.clone()));
        Self { place, folder, follower }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes down how everything is now, and what the operator said of it.
    pub async fn state(&self) {
        let all = ListParams::default();
        let mut text = String::new();
        for mut database in self.place.api::<ServiceDatabase>().list(&all).await.into_iter().flatten() {
            database.metadata.managed_fields = None;
            let _ = writeln!(text, "---\n{}", serde_yaml::to_string(&database).unwrap_or_default());
        }
        for mut pod in self.place.api::<Pod>().list(&all).await.into_iter().flatten() {
            pod.metadata.managed_fields = None;
            let _ = writeln!(text, "---\n{}", serde_yaml::to_string(&pod).unwrap_or_default());
        }
        for event in self.place.api::<Event>().list(&all).await.into_iter().flatten() {
            let (object, time) = (&event.involved_object, event.last_timestamp.as_ref());
            let _ = writeln!(
                text,
                "# event {} {}: {}: {}",
                time.map(|time| time.0.to_string()).unwrap_or_default(),
                object.name.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default(),
            );
        }
        let operator = Operator::of(self.place.cluster).logs(None).await;
        let of_us = operator.lines().filter(|line| line.contains(&self.place.namespace)).collect::<Vec<_>>().join("\n");
        for (file, content) in [("state.yaml", text), ("operator.log", of_us)] {
            // It explains a failure, and must not hide it by its own.
            let _ = std::fs::write(self.folder.join(file), content);
        }
    }
}

async fn follow_all(place: Arc<Sandbox>, folder: PathBuf) {
    let (mut known, mut followers) = (BTreeSet::new(), JoinSet::new());
    loop {
        for pod in place.api::<Pod>().list(&ListParams::default()).await.into_iter().flatten() {
            let Some(uid) = pod.uid() else { continue };
            for container in pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()) {
                let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
                let one = (pod.name_any(), uid.clone(), container.restart_count);
                if running && known.insert(one.clone()) {
                    followers.spawn(follow(place.clone(), folder.clone(), one, container.name.clone()));
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Follows one container to its end; what breaks the connection, such as a node that is cut
/// off, does not end that.
async fn follow(place: Arc<Sandbox>, folder: PathBuf, one: (String, String, i32), container: String) {
    let (pod, uid, restart) = one;
    let path = folder.join(format!("{pod}.{}.{restart}.log", uid.get(..8).unwrap_or(&uid)));
    let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&path).await else { return };
    let mut since = None;
    loop {
        let parameters = LogParams {
            container: Some(container.clone()),
            follow: true,
            timestamps: true,
            since_time: since,
            ..LogParams::default()
        };
        if let Ok(stream) = place.api::<Pod>().log_stream(&pod, &parameters).await {
            let mut stream = std::pin::pin!(stream);
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                since = Some(Timestamp::now());
                if write(&mut file, &buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
        let Ok(now) = place.api::<Pod>().get_opt(&pod).await else { continue };
        let Some(now) = now.filter(|now| now.uid().as_ref() == Some(&uid)) else { return };
        let statuses = now.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        if statuses.filter(|status| status.name == container).any(|status| status.restart_count != restart) {
            return;
        }
    }
}

async fn write(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes).await?;
    file.flush().await
}
