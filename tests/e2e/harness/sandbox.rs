//! A test's sandbox: a separate namespace, removed at the end, with diagnostics on failure.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::api::names::{Names, VaultNames};
use tokio::sync::{RwLock, Semaphore, watch};

use super::cluster::{Cluster, RUNTIME};
use super::diagnosis;
use super::vault::Vault;
use super::version;

/// How many tests run at once: two cores starve the instances of more, and a primary that cannot
/// renew its lease for 15 s is stopped.
static AT_WORK: Semaphore = Semaphore::const_new(3);
/// Tests that disturb the whole cluster hold this exclusively.
static WHOLE_CLUSTER: RwLock<()> = RwLock::const_new(());
/// The number of shared tests that run or wait.
static SHARED: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));
/// Timeout of a test.
const LONGEST: Duration = Duration::from_secs(1800);
/// How long the deletion of a test's databases may take.
const CLEAN_UP: Duration = Duration::from_secs(400);

/// A test's sandbox in the cluster.
pub struct Sandbox {
    /// The cluster.
    pub cluster: &'static Cluster,
    /// The test's namespace.
    pub namespace: String,
}

/// Runs a test in parallel with others.
pub fn shared<Fut: Future<Output = ()>>(name: &str, body: impl FnOnce(Arc<Sandbox>) -> Fut) {
    RUNTIME.block_on(async {
        let _counted = Counted::new();
        let _lock = WHOLE_CLUSTER.read().await;
        let _permit = AT_WORK.acquire().await.expect("the semaphore is never closed");
        run(name, body).await;
    });
}

/// Runs a test while no other runs: when all shared ones that were begun have ended, so that
/// these are not held up once for each that is alone.
pub fn alone<Fut: Future<Output = ()>>(name: &str, body: impl FnOnce(Arc<Sandbox>) -> Fut) {
    RUNTIME.block_on(async {
        let mut shared = SHARED.subscribe();
        let _lock = loop {
            shared.wait_for(|tests| *tests == 0).await.expect("the count is never dropped");
            // The next test starts shortly after one has ended.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let lock = WHOLE_CLUSTER.write().await;
            if *shared.borrow() == 0 {
                break lock;
            }
        };
        run(name, body).await;
    });
}

/// A shared test that runs or waits.
struct Counted;

impl Counted {
    fn new() -> Self {
        SHARED.send_modify(|tests| *tests += 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        SHARED.send_modify(|tests| *tests -= 1);
    }
}

async fn run<Fut: Future<Output = ()>>(name: &str, body: impl FnOnce(Arc<Sandbox>) -> Fut) {
    let cluster = Cluster::get().await;
    let began = tokio::time::Instant::now();
    let sandbox = Arc::new(Sandbox::new(cluster, name).await);
    // On the heap: an unoptimised build moves what is awaited several times, and a test's thread has a stack of 2 MiB.
    let work = tokio::time::timeout(LONGEST, version::scoped(name, Box::pin(body(sandbox.clone()))));
    let result = AssertUnwindSafe(work).catch_unwind().await;
    let in_time = matches!(result, Ok(Ok(())));
    if !in_time {
        eprintln!("{}", version::described(name));
        eprintln!("{}", diagnosis::of(&sandbox).await);
    }
    let kept = !in_time && std::env::var_os("E2E_KEEP").is_some();
    if kept {
        eprintln!("E2E_KEEP is set: the namespace {} stays", sandbox.namespace);
    } else {
        sandbox.remove(in_time).await;
    }
    note_time(name, began.elapsed());
    match result {
        Ok(Ok(())) => {}
        Ok(Err(_)) => panic!("the test took longer than {} s", LONGEST.as_secs()),
        Err(panic) => resume_unwind(panic),
    }
}

/// Records the duration of a test.
fn note_time(name: &str, took: Duration) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-times.txt");
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = writeln!(file, "{:.1} {name}", took.as_secs_f64());
    }
}

impl Sandbox {
    async fn new(cluster: &'static Cluster, name: &str) -> Self {
        let suffix: u32 = rand::random();
        let namespace = format!("e2e-{name}-{suffix:08x}");
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {
                "name": namespace,
                // The API server enforces the restricted profile.
                "labels": {"servicedb.dev/e2e": "true", "pod-security.kubernetes.io/enforce": "restricted"},
            },
        }))
        .expect("a namespace");
        Api::<Namespace>::all(cluster.client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("creating the namespace {namespace}: {error}"));
        Self { cluster, namespace }
    }

    /// The objects of a kind in the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Vault, as its root.
    pub fn vault(&self) -> &'static Vault {
        &self.cluster.vault
    }

    /// The names of a database's objects in Kubernetes.
    pub fn names(&self, name: &str) -> Names {
        Names::new(self.namespace.clone(), name)
    }

    /// The names of a database's objects in Vault.
    pub fn vault_names(&self, name: &str) -> VaultNames {
        self.names(name).vault(&self.cluster.id)
    }

    /// Creates an object from its JSON, as `kubectl create --validate=strict` does.
    ///
    /// # Errors
    /// Any error of the API server.
    pub async fn try_create(&self, object: Value) -> Result<DynamicObject, kube::Error> {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let plural = match kind.as_str() {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            "StorageClass" => "storageclasses".to_owned(),
            other => format!("{}s", other.to_lowercase()),
        };
        let scope = if kind == "StorageClass" { String::new() } else { format!("/namespaces/{}", self.namespace) };
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let request = http::Request::post(format!("{root}{scope}/{plural}?fieldValidation=Strict"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .expect("a request");
        self.cluster.client.request(request).await
    }

    /// Creates an object from its JSON.
    ///
    /// # Panics
    /// If the API server refuses.
    pub async fn create(&self, object: Value) -> DynamicObject {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        self.try_create(object).await.unwrap_or_else(|error| panic!("creating {what}: {error}"))
    }

    /// Changes an object by a merge patch.
    pub async fn patch<K>(&self, name: &str, patch: &Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap_or_else(|error| panic!("changing {} {name}: {error}", K::kind(&())))
    }

    /// Deletes an object.
    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap_or_else(|error| panic!("deleting {} {name}: {error}", K::kind(&())));
    }

    /// Runs a part of a test beside another namespace, which is removed after it.
    pub async fn beside_another<Fut: Future<Output = ()>>(&self, name: &str, body: impl FnOnce(Arc<Sandbox>) -> Fut) {
        let other = Arc::new(Self::new(self.cluster, name).await);
        let result = AssertUnwindSafe(body(other.clone())).catch_unwind().await;
        if result.is_err() {
            eprintln!("{}", diagnosis::of(&other).await);
        }
        other.remove(result.is_ok()).await;
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    }

    /// Removes the namespace with all databases, and what they kept in Vault. After a success
    /// a database that does not go is a failure of its own.
    async fn remove(&self, succeeded: bool) {
        let databases: Api<ServiceDatabase> = self.api();
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        let list = || async { databases.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() };
        for database in list().await {
            let policy = json!({"spec": {"deletionPolicy": "Delete"}});
            let _ = databases.patch(&database.name_any(), &PatchParams::default(), &Patch::Merge(&policy)).await;
            let _ = databases.delete(&database.name_any(), &DeleteParams::default()).await;
        }
        let started = tokio::time::Instant::now();
        let mut left = list().await;
        while !left.is_empty() && started.elapsed() < CLEAN_UP {
            tokio::time::sleep(Duration::from_millis(500)).await;
            left = list().await;
        }
        let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        let folder = format!("{}/{}", self.cluster.id, self.namespace);
        for name in self.vault().list(&format!("{}/metadata/{folder}", super::vault::KV)).await {
            for record in ["runtime", "pending", "migrator"] {
                self.vault().forget(&format!("{folder}/{}/{record}", name.trim_end_matches('/'))).await;
            }
        }
        let waits: Vec<_> =
            left.iter().map(|database| format!("{} ({})", database.name_any(), super::describe(database))).collect();
        assert!(!succeeded || waits.is_empty(), "not deleted within {} s: {}", CLEAN_UP.as_secs(), waits.join("; "));
    }
}
