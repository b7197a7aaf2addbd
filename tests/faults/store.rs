//! The archives of the cases in the local object store, whose volume is a folder of this machine.

use std::fs;
use std::path::Path;

use crate::harness::Sandbox;

/// The folder of all volumes (dev/README.md).
const VOLUMES: &str = "/var/lib/servicedb-dev/volumes";
/// How the name of the store's volume begins.
const VOLUME: &str = "store_";
/// The bucket, and what the store keeps beside it.
const BUCKETS: [&str; 2] = ["store/backups", "sidecar/backups"];

/// Removes what a namespace has in the store: its operator is gone, and each case would leave some MiB.
pub fn remove(sandbox: &Sandbox) {
    let volumes = fs::read_dir(VOLUMES).into_iter().flatten().flatten();
    for volume in volumes.filter(|volume| volume.file_name().to_string_lossy().starts_with(VOLUME)) {
        remove_in(&volume.path(), &sandbox.cluster.id, &sandbox.namespace);
    }
}

fn remove_in(volume: &Path, cluster: &str, namespace: &str) {
    for bucket in BUCKETS {
        // Most cases have no archive. A file that comes meanwhile is from a pod that is being ended.
        let _ = fs::remove_dir_all(volume.join(bucket).join(cluster).join(namespace));
    }
}

#[test]
fn the_archive_of_a_case_is_removed_and_no_other() {
    let volume = std::env::temp_dir().join(format!("servicedb-faults-store-{}", std::process::id()));
    let file = |namespace: &str| volume.join("store/backups/dev").join(namespace).join("chat/uid/archive/file");
    for namespace in ["faults-1", "faults-12"] {
        fs::create_dir_all(file(namespace).parent().expect("a folder")).expect("a folder");
        fs::write(file(namespace), "").expect("a file");
    }
    remove_in(&volume, "dev", "faults-1");
    assert_eq!((file("faults-1").exists(), file("faults-12").exists()), (false, true));
    fs::remove_dir_all(volume).expect("the folder");
}
