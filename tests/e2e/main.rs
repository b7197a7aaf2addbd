//! End-to-end tests of the README's features, on a real cluster whose operator was installed by
//! the chart.
//!
//! They need `make cluster` and `make install` (`make test` does both). A missing cluster or
//! operator is a failure that says so, never a skip. Each test has a namespace of its own;
//! those of [`whole_cluster`] use the cluster exclusively. Run with
//! `cargo test --test e2e -- --test-threads 24`: the tests mostly wait, and limit the number that
//! run at once themselves; exclusive tests wait for
//! all others, in threads of their own.

mod api_server_away;
mod approval;
mod archive;
mod authority;
mod backup_campaign;
mod backups;
mod client_campaign;
mod clients;
mod cluster_faults;
mod deletion;
mod examples;
mod exposition;
mod extensions;
mod failures;
mod gateway;
mod harness;
mod hostile;
mod immune;
mod initialisation;
mod isolation;
mod kept_volumes;
mod maintenance;
mod metrics;
mod metrics_tls;
mod migration_images;
mod migration_recovery;
mod migrations;
mod network_policies;
mod nodes;
mod object_loss;
mod overload;
mod ownership;
mod parameters;
mod pod_log;
mod pooler;
mod postgis;
mod provisioning;
mod pushed_folders;
mod refused_pods;
mod replicas;
mod restores;
mod restores_in_place;
mod rollout;
mod rotation;
mod scaling;
mod scrape_campaign;
mod secrecy;
mod service_access;
mod short_lived;
mod stalls;
mod storage_growth;
mod store_campaign;
mod store_keys;
mod survival;
mod switchover;
mod targets;
mod tenants;
mod two_stores;
mod upgrade_campaign;
mod upgrade_jobs;
mod upgrades;
mod upgrades_at_once;
mod vault_away;
mod vault_changes;
mod wal_budget;
mod whole_cluster;
