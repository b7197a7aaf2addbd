//! `kubectl servicedb migrations push`: packs a folder of migrations into ConfigMaps, and names them in
//! the resource.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::args::Connection;
use super::connection::{PluginError, connect, read};
use crate::api::ServiceDatabase;
use crate::contract::pack::{LIMIT, pack};

/// The label of the ConfigMaps: the ServiceDatabase whose migrations they have.
const LABEL: &str = "servicedb.dev/pushed-for";
/// The annotation of the ConfigMaps: when they were pushed last.
const PUSHED_AT: &str = "servicedb.dev/pushed-at";
/// How old a push must be before another one removes its ConfigMaps: it may be about to name them.
const IN_USE: SignedDuration = SignedDuration::from_mins(10);
/// How often a ConfigMap is created that another push removes.
const ATTEMPTS: usize = 3;
/// How many characters of the hash are in a name.
const HASH: usize = 10;

/// Packs the folder, creates the ConfigMaps, and names them in the resource.
pub async fn run(connection: &Connection, name: &str, folder: &Path) -> Result<ExitCode, PluginError> {
    let refused = |problem: String| PluginError::Folder { folder: folder.display().to_string(), problem };
    let files = files(folder).map_err(|error| refused(error.to_string()))?;
    if files.is_empty() {
        return Err(refused("it has no files".to_owned()));
    }
    let count = files.len();
    let parts = pack(&files).map_err(|error| refused(error.to_string()))?;
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let former: Vec<String> = named(&resource);
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let config_maps = config_maps(name, parts);
    let now = Timestamp::now();
    for config_map in &config_maps {
        create(&api, config_map, now).await?;
    }
    let names: Vec<String> = config_maps.iter().map(ResourceExt::name_any).collect();
    point(&client, &namespace, name, &names).await?;
    println!(
        "{count} files are in {} ConfigMap{}: {}",
        names.len(),
        if names.len() == 1 { "" } else { "s" },
        names.join(", ")
    );
    // An operator that still reads the former spec needs its ConfigMaps; another push may have named
    // others meanwhile.
    let latter = named(&read(&client, &namespace, name).await?);
    let kept = |config_map: &str| names.iter().chain(&former).chain(&latter).any(|name| name == config_map);
    remove_others(&api, name, kept, now).await?;
    println!("kubectl servicedb migrations {name} -n {namespace} --follow shows the run");
    println!("{}", manifest(name, &names));
    Ok(ExitCode::SUCCESS)
}

/// The ConfigMaps that a resource names.
fn named(resource: &ServiceDatabase) -> Vec<String> {
    let source = resource.spec.migrations.iter().map(|migrations| &migrations.source);
    source.flat_map(|source| source.references().map(|reference| reference.name.clone())).collect()
}

/// The files of a folder and its folders, by their paths; names that start with a dot are left out.
fn files(folder: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut left = LIMIT;
    let mut folders = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(std::io::Error::other(format!("{} has a name that is not UTF-8", folder.display())));
            };
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{prefix}{name}");
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
                continue;
            }
            if !metadata.is_file() {
                // A link may lead to what nobody means to show, such as a key.
                let message = format!("{path} is a link or no file: put the file itself there, or remove it");
                return Err(std::io::Error::other(message));
            }
            left = left.checked_sub(metadata.len()).ok_or_else(|| {
                std::io::Error::other(format!("it has more than {} MiB: keep data out of it", LIMIT >> 20))
            })?;
            files.insert(path, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// A ConfigMap for each part; the names follow the content, since another one is another set of
/// migrations.
fn config_maps(name: &str, parts: Vec<(String, Vec<u8>)>) -> Vec<ConfigMap> {
    let mut hasher = Sha256::new();
    for (key, content) in &parts {
        hasher.update(key.as_bytes());
        hasher.update(content);
    }
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let config_map = |(at, (key, content)): (usize, (String, Vec<u8>))| ConfigMap {
        metadata: ObjectMeta {
            name: Some(format!("{name}-migrations-{}-{}", &hash[..HASH], at + 1)),
            labels: Some([(LABEL.to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        },
        binary_data: Some([(key, ByteString(content))].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    };
    parts.into_iter().enumerate().map(config_map).collect()
}

/// Creates a ConfigMap, or says of an existing one that it was pushed again: its name follows its content,
/// and it cannot be changed. Another push may remove it between the two requests.
async fn create(api: &Api<ConfigMap>, config_map: &ConfigMap, now: Timestamp) -> Result<(), PluginError> {
    let name = config_map.name_any();
    let mut dated = config_map.clone();
    dated.annotations_mut().insert(PUSHED_AT.to_owned(), now.to_string());
    let annotation = json!({"metadata": {"annotations": {PUSHED_AT: now.to_string()}}});
    for _ in 0..ATTEMPTS {
        match api.create(&PostParams::default(), &dated).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => {
                return created
                    .map(drop)
                    .map_err(|error| PluginError::kubernetes(format!("creating the ConfigMap {name}"), error));
            }
        }
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&annotation)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            patched => {
                return patched
                    .map(drop)
                    .map_err(|error| PluginError::kubernetes(format!("annotating the ConfigMap {name}"), error));
            }
        }
    }
    Err(PluginError::Contended(name))
}

/// The patch that names the ConfigMaps, in place of another source. The format is kept.
fn source(names: &[String]) -> Value {
    let references: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let source = json!({"configMaps": references, "configMap": null, "image": null, "job": null});
    json!({"spec": {"migrations": {"source": source}}})
}

/// What to change in a manifest: `kubectl apply` would add its former source beside the pushed one, which the API server
/// refuses, or name the ConfigMaps of an earlier push.
fn manifest(name: &str, names: &[String]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("{{name: {name}}}")).collect();
    format!(
        "if a manifest declares {name}, put this into its spec.migrations.source before it is applied again, in place of \
         configMap, image or job, or of former configMaps:\n  configMaps: [{}]",
        list.join(", ")
    )
}

async fn point(client: &Client, namespace: &str, name: &str, names: &[String]) -> Result<(), PluginError> {
    let api: Api<ServiceDatabase> = Api::namespaced(client.clone(), namespace);
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&source(names))).await;
    patched.map(drop).map_err(|error| {
        PluginError::kubernetes(format!("naming the ConfigMaps in the ServiceDatabase {namespace}/{name}"), error)
    })
}

/// Removes the ConfigMaps of former pushes, unless they were pushed again meanwhile.
async fn remove_others(
    api: &Api<ConfigMap>,
    name: &str,
    kept: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<(), PluginError> {
    let labels = ListParams::default().labels(&format!("{LABEL}={name}"));
    let listed =
        api.list(&labels).await.map_err(|error| PluginError::kubernetes("listing former ConfigMaps", error))?;
    for config_map in listed.items.iter().filter(|one| !kept(&one.name_any()) && is_old(one, now)) {
        let metadata = &config_map.metadata;
        let exactly = Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let parameters = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        match api.delete(&config_map.name_any(), &parameters).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            removed => {
                removed
                    .map_err(|error| PluginError::kubernetes(format!("removing {}", config_map.name_any()), error))?;
            }
        }
    }
    Ok(())
}

/// Whether a ConfigMap was pushed long ago. One without the annotation has the time of its creation.
fn is_old(config_map: &ConfigMap, now: Timestamp) -> bool {
    let pushed = config_map.annotations().get(PUSHED_AT).and_then(|at| at.parse::<Timestamp>().ok());
    let pushed = pushed.or_else(|| config_map.creation_timestamp().map(|time| time.0));
    pushed.is_none_or(|pushed| now.duration_since(pushed) > IN_USE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::pack::unpack;

    #[test]
    fn a_folder_is_packed_with_its_folders_and_without_what_begins_with_a_dot() {
        let folder = std::env::temp_dir().join(format!("servicedb-push-{}", std::process::id()));
        for (path, text) in [("1_a b/up.sql", "SELECT 1"), ("2_b.sql", "SELECT 2"), (".git/HEAD", "x")] {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let found = files(&folder).expect("readable");
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["1_a b/up.sql", "2_b.sql"]);

        let made = config_maps("chat", pack(&found).expect("packed"));
        let again = config_maps("chat", pack(&found).expect("packed"));
        assert_eq!(made, again, "the same content has the same name");
        let parts = made.iter().flat_map(|one| one.binary_data.clone().unwrap_or_default());
        assert_eq!(unpack(parts.map(|(key, bytes)| (key, bytes.0)).collect()).expect("unpacked"), found);
        assert!(made[0].name_any().starts_with("chat-migrations-") && made[0].name_any().ends_with("-1"));
    }

    #[test]
    fn another_source_is_replaced_and_the_format_kept() {
        let patch = source(&["a".to_owned()]);
        let source = &patch["spec"]["migrations"]["source"];
        assert_eq!(source["configMaps"], json!([{"name": "a"}]));
        assert!(source["image"].is_null() && source.get("format").is_none());
    }

    #[test]
    fn the_source_of_a_manifest_is_told() {
        let told = manifest("chat", &["chat-migrations-0a-1".to_owned(), "chat-migrations-0a-2".to_owned()]);
        let source = "\n  configMaps: [{name: chat-migrations-0a-1}, {name: chat-migrations-0a-2}]";
        assert!(told.contains("a manifest declares chat") && told.ends_with(source), "{told}");
    }

    #[test]
    fn a_missing_folder_is_the_problem() {
        let missing = std::env::temp_dir().join(format!("servicedb-no-folder-{}", std::process::id()));
        assert_eq!(files(&missing).expect_err("no folder").kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_recent_push_is_not_removed_by_another() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().expect("a time");
        let mut config_map = config_maps("chat", vec![("a".to_owned(), vec![1])]).remove(0);
        let mut pushed = |at: &str| {
            config_map.annotations_mut().insert(PUSHED_AT.to_owned(), at.to_owned());
            is_old(&config_map, now)
        };
        assert!(!pushed("2026-11-29T11:55:00Z") && !pushed("2026-11-29T12:05:00Z") && pushed("2026-11-29T11:40:00Z"));
        assert!(pushed("never"), "neither an annotation nor a time of creation");
    }
}
