//! Shared by all cases: the cluster, the proxies' certificate, the operator's identity.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use servicedb::api::ServiceDatabase;
use tokio::task::JoinHandle;

use super::call::Side;
use super::installed::{Installed, node_address};
use super::proxy::{Tls, Upstream};
use super::scenario::NAME;
use crate::harness::{Cluster, Sandbox};

/// Label of the namespaces of a run.
const LABEL: &str = "servicedb.dev/faults";

/// The data shared by all cases.
pub struct Bench {
    /// The cluster.
    pub cluster: &'static Cluster,
    /// The installed operator.
    pub installed: Installed,
    /// The proxies' certificate.
    pub tls: Arc<Tls>,
    /// The API server.
    pub kubernetes: Upstream,
    /// Vault.
    pub vault: Upstream,
    /// This machine's address for pods.
    pub node: IpAddr,
    /// The folder of this run's files, including the operators' logs.
    pub folder: PathBuf,
    token: String,
    clean_ups: Mutex<Vec<JoinHandle<()>>>,
}

/// The namespace of an operator's Lease, used by one operator at a time.
pub struct Desk {
    namespace: String,
}

impl Bench {
    /// Reads the cluster's settings, and writes the operators' files.
    pub async fn new(cluster: &'static Cluster) -> Self {
        let installed = Installed::read(&cluster.client).await;
        let node = node_address(&cluster.client).await;
        let tls = Arc::new(Tls::new(&[[127, 0, 0, 1].into(), node]));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for the run's files");
        let token = installed.token(Vec::new()).await;
        let bench = Self {
            cluster,
            tls,
            kubernetes: kubernetes().await,
            vault: Upstream {
                side: Side::Vault,
                address: cluster.vault.address.trim_end_matches('/').to_owned(),
                client: cluster.vault.http.clone(),
            },
            node,
            folder,
            token,
            clean_ups: Mutex::default(),
            installed,
        };
        bench.write("ca.crt", &bench.tls.authority);
        bench.write("vault-login", &bench.installed.token(vec!["vault".to_owned()]).await);
        bench
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder.join(name), content).expect("a file of the run");
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A namespace for an operator.
    pub async fn desk(&self) -> Desk {
        let namespace = self.create_namespace("faults-operator").await;
        let rights = json!({"metadata": {"name": "operator"}, "rules": self.installed.own_rights.rules});
        let rights: Role = serde_json::from_value(rights).expect("a Role");
        let binding = json!({
            "metadata": {"name": "operator"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
            "subjects": [self.installed.subject()],
        });
        let binding: RoleBinding = serde_json::from_value(binding).expect("a RoleBinding");
        let (client, parameters) = (&self.cluster.client, PostParams::default());
        let roles: Api<Role> = Api::namespaced(client.clone(), &namespace);
        roles.create(&parameters, &rights).await.expect("the operator's Role");
        let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), &namespace);
        bindings.create(&parameters, &binding).await.expect("the operator's RoleBinding");
        Desk { namespace }
    }

    /// A namespace for a case.
    pub async fn namespace(&self) -> Sandbox {
        Sandbox { cluster: self.cluster, namespace: self.create_namespace("faults").await }
    }

    async fn create_namespace(&self, prefix: &str) -> String {
        let namespace = format!("{prefix}-{:08x}", rand::random::<u32>());
        let object = json!({"metadata": {"name": namespace, "labels": {LABEL: "true"}}});
        let object: Namespace = serde_json::from_value(object).expect("a namespace");
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        api.create(&PostParams::default(), &object).await.expect("a namespace");
        namespace
    }

    /// Removes every namespace of such a run: at its end those of interrupted cases, at its beginning
    /// those of a killed run. There is one run at a time.
    pub async fn sweep(&self) {
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        let left = api.list(&ListParams::default().labels(LABEL)).await.map(|list| list.items).unwrap_or_default();
        for namespace in left.into_iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_none()) {
            remove(Sandbox { cluster: self.cluster, namespace: namespace.name_any() }).await;
        }
    }

    /// The environment of a case's operator: the installed one's, with the proxies' addresses.
    pub fn environment(
        &self,
        desk: &Desk,
        namespace: &str,
        kubernetes: &str,
        vault: &str,
        resync_seconds: u64,
    ) -> BTreeMap<String, String> {
        let kubeconfig = format!("{namespace}.kubeconfig");
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "faults",
            "clusters": [{"name": "faults", "cluster": {"server": kubernetes, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": "faults", "user": {"token": self.token}}],
            "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "faults", "namespace": namespace}}],
        });
        self.write(&kubeconfig, &content.to_string());
        let mut environment = self.installed.environment.clone();
        environment.extend(
            [
                ("KUBECONFIG", self.file(&kubeconfig)),
                ("POD_NAME", "faults".to_owned()),
                ("POD_NAMESPACE", desk.namespace.clone()),
                ("SERVICEDB_WATCH_NAMESPACES", namespace.to_owned()),
                // Its probes and metrics are not used.
                ("SERVICEDB_LISTEN", "127.0.0.1:0".to_owned()),
                ("SERVICEDB_VAULT_ADDRESS", vault.to_owned()),
                ("SERVICEDB_VAULT_CA_FILE", self.file("ca.crt")),
                ("SERVICEDB_VAULT_TOKEN_FILE", self.file("vault-login")),
                ("SERVICEDB_RESYNC_SECONDS", resync_seconds.to_string()),
                ("SERVICEDB_LOG", "info,servicedb=debug,kube=warn".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        environment
    }

    /// Cleans up in parallel with the next cases.
    pub fn clean_up(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.clean_ups.lock().unwrap_or_else(PoisonError::into_inner).push(tokio::spawn(work));
    }

    /// Waits until all is cleaned up.
    pub async fn cleaned_up(&self) {
        let works = std::mem::take(&mut *self.clean_ups.lock().unwrap_or_else(PoisonError::into_inner));
        for work in works {
            let _ = work.await;
        }
    }
}

/// The API server, without the administrator's identity.
async fn kubernetes() -> Upstream {
    let config = crate::harness::cluster::config().await.expect("the kubeconfig");
    let mut builder = reqwest::Client::builder();
    let roots = config.root_cert.unwrap_or_default();
    let roots = roots.iter().map(|der| reqwest::Certificate::from_der(der).expect("the cluster's authority"));
    builder = builder.tls_certs_only(roots);
    let client = builder.no_proxy().build().expect("a client");
    let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    Upstream { side: Side::Kubernetes, address, client }
}

/// Removes a case's namespace by force, and its objects in Vault and in the store: its operator is gone, and the
/// scenarios of deletion test the regular way.
pub async fn remove(sandbox: Sandbox) {
    let client = &sandbox.cluster.client;
    let resources: Api<ServiceDatabase> = sandbox.api();
    let let_go = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let _ = resources.patch(NAME, &PatchParams::default(), &let_go).await;
    // Its controller would keep trying to recreate the pods while the namespace is deleted.
    let _ = sandbox.api::<StatefulSet>().delete(&sandbox.names(NAME).base(), &DeleteParams::background()).await;
    let _ = Api::<Namespace>::all(client.clone()).delete(&sandbox.namespace, &DeleteParams::default()).await;
    let at_once = DeleteParams::default().grace_period(0);
    let _ = sandbox.api::<Pod>().delete_collection(&at_once, &ListParams::default()).await;
    super::vault_state::remove(&sandbox).await;
    super::store::remove(&sandbox);
}
