//! KV version 2: check-and-set, deletion, custom metadata.

use std::collections::BTreeMap;

use servicedb::contract::records::Data;
use servicedb::vault::{Vault, VaultError};

use crate::server::Server;

const PENDING: &str = "test/messaging/chat/pending";
const RUNTIME: &str = "test/messaging/chat/runtime";

fn data(value: &str) -> Data {
    Data::from([("KEY".to_owned(), value.to_owned()), ("QUOTED".to_owned(), "a\"b\\c\nü".to_owned())])
}

#[tokio::test]
async fn a_record_is_written_only_over_what_was_read() {
    let server = Server::set_up();
    let vault = server.operator();
    assert!(vault.read_kv(PENDING).await.unwrap().is_none());
    assert_eq!(vault.write_kv(PENDING, &data("1"), 0).await.unwrap(), 1);
    let read = vault.read_kv(PENDING).await.unwrap().expect("it was written");
    assert_eq!((read.version, read.data), (1, data("1")));

    for wrong in [0, 2, u64::MAX] {
        let error = vault.write_kv(PENDING, &data("2"), wrong).await.unwrap_err();
        assert!(matches!(error, VaultError::CasMismatch { .. }), "check-and-set {wrong}: {error}");
    }
    assert_eq!(vault.write_kv(PENDING, &data("2"), 1).await.unwrap(), 2);
    assert_eq!(vault.read_kv(PENDING).await.unwrap().unwrap().data, data("2"));

    vault.delete_kv(PENDING).await.unwrap();
    vault.delete_kv(PENDING).await.unwrap();
    assert!(vault.read_kv(PENDING).await.unwrap().is_none());
    assert_eq!(vault.write_kv(PENDING, &data("3"), 0).await.unwrap(), 1, "no version is left");
}

#[tokio::test]
async fn a_record_that_a_person_deleted_reads_as_absent() {
    let server = Server::set_up();
    let vault = server.operator();
    vault.write_kv(PENDING, &data("1"), 0).await.unwrap();
    server.vault(&["kv", "delete", &format!("secret/{PENDING}")]);
    assert!(vault.read_kv(PENDING).await.unwrap().is_none());
}

#[tokio::test]
async fn metadata_can_be_there_before_the_record() {
    let server = Server::set_up();
    let vault = server.operator();
    assert_eq!(vault.read_kv_metadata(RUNTIME).await.unwrap(), None);
    let owner = BTreeMap::from([("owner-uid".to_owned(), "u-1".to_owned())]);
    vault.write_kv_metadata(RUNTIME, &owner).await.unwrap();
    assert_eq!(vault.read_kv_metadata(RUNTIME).await.unwrap().map(|found| found.custom), Some(owner.clone()));
    assert!(vault.read_kv(RUNTIME).await.unwrap().is_none());
    server.vault(&["kv", "put", "-cas=0", &format!("secret/{RUNTIME}"), "number=5"]);
    assert_eq!(vault.read_kv(RUNTIME).await.unwrap().unwrap().data["number"], "5");
    assert_eq!(vault.read_kv_metadata(RUNTIME).await.unwrap().map(|found| found.custom), Some(owner));
    vault.delete_kv(RUNTIME).await.unwrap();
    assert_eq!(vault.read_kv_metadata(RUNTIME).await.unwrap(), None);
}

/// The limits that the Vault in memory of the operator's tests has, too.
#[tokio::test]
async fn metadata_has_64_keys_with_values_of_512_bytes_at_most() {
    let server = Server::set_up();
    let vault = server.operator();
    let of = |count: usize, length: usize| -> BTreeMap<String, String> {
        (0..count).map(|number| (format!("key-{number}"), "x".repeat(length))).collect()
    };
    vault.write_kv_metadata(RUNTIME, &of(64, 512)).await.unwrap();
    for (count, length) in [(65, 1), (1, 513)] {
        let error = vault.write_kv_metadata(RUNTIME, &of(count, length)).await.unwrap_err();
        assert!(matches!(error, VaultError::Unexpected { status: 400, .. }), "{count} keys of {length}: {error}");
    }
    assert_eq!(vault.read_kv_metadata(RUNTIME).await.unwrap().map(|found| found.custom), Some(of(64, 512)));
}

#[tokio::test]
async fn concurrent_writers_of_one_version_have_one_winner() {
    let server = Server::set_up();
    let vault = server.operator();
    let value = data("x");
    let writes = (0..8).map(|_| vault.write_kv(PENDING, &value, 0));
    let results = futures::future::join_all(writes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let lost = results.iter().filter(|result| matches!(result, Err(VaultError::CasMismatch { .. }))).count();
    assert_eq!(lost, 7, "{results:?}");
}

/// Of a record's own setting; that of the mount holds over all records.
#[tokio::test]
async fn a_record_lets_no_version_expire_by_a_setting_of_its_own() {
    let server = Server::set_up();
    let vault = server.operator();
    let path = format!("secret/{RUNTIME}");
    server.vault(&["kv", "metadata", "put", "-delete-version-after=48h", &path]);
    server.vault(&["kv", "put", &path, "number=5"]);
    let metadata = vault.read_kv_metadata(RUNTIME).await.unwrap().expect("metadata");
    assert!(metadata.lets_expire && metadata.present && metadata.expires_at.is_some(), "{metadata:?}");
    assert_eq!(vault.read_kv(RUNTIME).await.unwrap().expect("a record").expires_at, metadata.expires_at);

    vault.write_kv_metadata(RUNTIME, &metadata.custom).await.unwrap();
    server.vault(&["kv", "put", &path, "number=6"]);
    let metadata = vault.read_kv_metadata(RUNTIME).await.unwrap().expect("metadata");
    assert!(!metadata.lets_expire && metadata.present && metadata.expires_at.is_none(), "{metadata:?}");

    let earlier = vault.read_kv_version(RUNTIME, 1).await.unwrap().expect("the version before");
    assert_eq!((earlier.version, earlier.data["number"].as_str()), (1, "5"));
    assert!(vault.read_kv_version(RUNTIME, 3).await.unwrap().is_none());
}
