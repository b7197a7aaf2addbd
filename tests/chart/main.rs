//! The rendered Helm chart: rights, values, the CRD, and the manifests generated from it.
//!
//! Needs Helm: `target/dev/bin/helm`, or one on the PATH.

mod helm;

use std::collections::BTreeMap;

use clap::{Args, FromArgMatches};
use helm::{render, render_error, text};
use serde_yaml::Value;
use servicedb::operator::Options;

/// Values with which every optional object and setting appears.
const EVERYTHING: &str = "
watchNamespaces: [messaging, games]
monitoringNamespaces: [monitoring]
clients: {allowedNamespaces: {messaging: [reports, web], '*': [audit]}}
replicas: 2
vault:
  namespace: teams/data
  databaseMount: database
  databaseClients: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: vault}}}]
  ca: |
    -----BEGIN CERTIFICATE-----
    MIIB
    -----END CERTIFICATE-----
postgres: {imagePullSecrets: [registry]}
gateway: {image: ''}
imagePullSecrets: [{name: registry}]
metrics:
  serviceMonitor: {enabled: true}
  podMonitor: {enabled: true, labels: {release: monitoring}}
  podAnnotations: true
  tls: {enabled: true}
  rules: {enabled: true, runbookUrl: https://docs.example.com/alerts}
  dashboards: {enabled: true}
networkPolicy: {enabled: true, from: [{podSelector: {}}]}
priorityClassName: system-cluster-critical
podAnnotations: {example.com/team: data}
commonLabels: {example.com/team: data}
extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}]
backup:
  stores:
    main:
      s3: {endpoint: https://s3.example.com, region: eu-central-1, bucket: backups, prefix: production, uriStyle: path}
      keys: {vaultPath: backups/main}
    google: {gcs: {bucket: backups}, keys: {vaultPath: backups/google, keyField: key}}
    azure: {azure: {account: acme, container: backups, keyType: sas, uriStyle: path}, keys: {vaultPath: backups/azure}}
    own: {s3: {endpoint: https://s3.example.com, region: eu-central-1, bucket: backups, identity: pod}}
  defaultStore: main
  restoreFrom: [{store: main, path: /prod/a/b/c, passphraseVaultPath: prod/a/b/backup/c, namespaces: [staging]}]
  concurrency: 3
";

const APPROLE: &str = "vault: {auth: {method: approle, approleSecret: operator-approle}}";
const TOKEN_FILE: &str = "vault: {auth: {method: token-file, tokenSecret: {name: operator-token}}}";

#[test]
fn no_role_has_a_wildcard_or_a_right_that_the_operator_must_not_have() {
    for rendered in [render(""), render(EVERYTHING)] {
        for role in rendered.roles() {
            let name = &role.name;
            for rule in &role.rules {
                for word in rule.groups.iter().chain(&rule.resources).chain(&rule.verbs) {
                    assert!(!word.contains('*'), "{name} has a wildcard: {rule:?}");
                }
                assert!(
                    !rule.verbs.iter().any(|verb| ["escalate", "bind", "impersonate"].contains(&verb.as_str())),
                    "{name} can raise its own rights: {rule:?}"
                );
                for forbidden in [
                    "pods/exec",
                    "pods/attach",
                    "pods/portforward",
                    "pods/ephemeralcontainers",
                    "serviceaccounts/token",
                    "nodes/proxy",
                ] {
                    assert!(!rule.resources.iter().any(|resource| resource == forbidden), "{name} has {forbidden}");
                }
                if rule.resources.iter().any(|resource| resource == "secrets") {
                    for verb in ["list", "watch", "update", "deletecollection"] {
                        assert!(!rule.verbs.iter().any(|v| v == verb), "{name} may {verb} Secrets");
                    }
                }
            }
        }
    }
}

#[test]
fn the_operator_has_what_it_grants_to_database_pods() {
    let role = render("").cluster_role("servicedb-operator-databases");
    for resource in ["configmaps", "pods"] {
        for verb in ["get", "list", "watch", "patch", "update"] {
            assert!(role.allows("", resource, verb), "the operator lacks {verb} on {resource}");
        }
    }
    assert!(role.allows("rbac.authorization.k8s.io", "rolebindings", "create"));
}

/// The operator must be able to watch what it applies; Secrets are the exception, see the other test.
#[test]
fn the_operator_watches_what_it_applies() {
    let role = render("").cluster_role("servicedb-operator-databases");
    for (group, resource) in [
        ("apps", "statefulsets"),
        ("", "services"),
        ("networking.k8s.io", "networkpolicies"),
        ("policy", "poddisruptionbudgets"),
        ("batch", "jobs"),
        ("", "configmaps"),
        ("", "persistentvolumeclaims"),
        ("", "serviceaccounts"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ] {
        for verb in ["list", "watch"] {
            assert!(role.allows(group, resource, verb), "the operator lacks {verb} on {resource}");
        }
    }
}

/// A pod or a volume claim by dry run needs the right to create one, which is no more than creating a
/// StatefulSet gives; volumes are never read.
#[test]
fn the_operator_may_ask_for_a_pod_and_its_volume() {
    let role = render("").cluster_role("servicedb-operator-databases");
    assert!(role.allows("", "pods", "create") && role.allows("apps", "statefulsets", "create"));
    for verb in ["list", "watch", "create", "patch", "delete"] {
        assert!(role.allows("", "persistentvolumeclaims", verb), "the operator lacks {verb} on volume claims");
    }
    assert!(!role.allows("", "persistentvolumes", "get"));
}

#[test]
fn without_watch_namespaces_the_rights_are_bound_cluster_wide() {
    let rendered = render("");
    assert_eq!(
        rendered.names("ClusterRoleBinding"),
        ["servicedb-operator", "servicedb-operator-databases"],
        "both ClusterRoles are bound"
    );
    assert_eq!(rendered.names("RoleBinding"), ["servicedb-operator"], "only the operator's own namespace");
    assert_eq!(rendered.env().get("SERVICEDB_WATCH_NAMESPACES"), None, "an empty variable would name a namespace ''");
}

#[test]
fn with_watch_namespaces_databases_are_touched_nowhere_else() {
    let rendered = render("watchNamespaces: [messaging, games]");
    assert_eq!(
        rendered.names("ClusterRoleBinding"),
        ["servicedb-operator"],
        "ServiceDatabases and the read-only rights"
    );
    let mut bound: Vec<_> = rendered
        .of_kind("RoleBinding")
        .filter(|binding| text(&binding["roleRef"]["name"]) == "servicedb-operator-databases")
        .map(|binding| text(&binding["metadata"]["namespace"]))
        .collect();
    bound.sort_unstable();
    assert_eq!(bound, ["games", "messaging"]);
    assert_eq!(rendered.env()["SERVICEDB_WATCH_NAMESPACES"], "messaging,games");

    for rule in rendered.cluster_role("servicedb-operator").rules {
        let own = rule.groups == ["servicedb.dev"];
        let reads = rule.verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str()));
        assert!(own || reads, "cluster-wide, the operator writes only ServiceDatabases: {rule:?}");
    }
}

#[test]
fn the_crd_is_the_one_of_the_types_and_is_kept_on_uninstall() {
    let rendered = render("");
    let mut crd = rendered.of_kind("CustomResourceDefinition").next().expect("a CRD").clone();
    let metadata = crd["metadata"].as_mapping_mut().expect("metadata");
    let annotations = metadata.remove("annotations").expect("annotations");
    assert_eq!(text(&annotations["helm.sh/resource-policy"]), "keep");
    metadata.remove("labels");
    let expected = serde_yaml::to_value(servicedb::api::crd::definition()).expect("the CRD as YAML");
    assert!(
        crd == expected,
        "out of date: cargo run -- crd > crds/servicedatabases.servicedb.dev.yaml, then manifests/generate.sh"
    );

    assert_eq!(render("crds: {install: false}").of_kind("CustomResourceDefinition").count(), 0);
}

#[test]
fn every_setting_of_the_operator_is_reachable_and_reads_back() {
    let command = Options::augment_args(clap::Command::new("operator"));
    let mut missing: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for values in ["", EVERYTHING, APPROLE, TOKEN_FILE] {
        let env = render(values).env();
        missing.retain(|name| !env.contains_key(name));
        let options = options(&command, &env);
        assert_eq!(options.cluster_id, "test");
        assert_eq!(options.vault_address, "https://vault.vault.svc:8200");
        assert_eq!(
            options.postgres_images.iter().map(|(version, _)| version.as_str()).collect::<Vec<_>>(),
            ["17", "18"]
        );
    }
    assert!(missing.is_empty(), "no value of the chart sets {missing:?}");
}

#[test]
fn the_environment_names_no_setting_that_the_operator_does_not_have() {
    let command = Options::augment_args(clap::Command::new("operator"));
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .chain(["SERVICEDB_LOG".to_owned(), "HTTPS_PROXY".to_owned()])
        .collect();
    for name in render(EVERYTHING).env().keys() {
        assert!(known.contains(name), "{name} is set and nothing reads it");
    }
}

#[test]
fn the_operator_logs_in_where_its_databases_do_unless_told_otherwise() {
    for (values, mount) in [
        ("", "kubernetes"),
        ("vault: {auth: {method: jwt}}", "jwt"),
        (APPROLE, "approle"),
        ("vault: {kubernetesMount: clusters/one}", "clusters/one"),
        ("vault: {kubernetesMount: clusters/one, auth: {mount: operators}}", "operators"),
    ] {
        assert_eq!(render(values).env()["SERVICEDB_VAULT_AUTH_MOUNT"], mount, "{values}");
    }
}

#[test]
fn a_new_vault_authority_restarts_nothing() {
    let with = |certificate: &str| {
        let rendered = render(&format!("vault: {{ca: '-----BEGIN CERTIFICATE----- {certificate}'}}"));
        rendered.deployment()["spec"]["template"].clone()
    };
    assert_eq!(with("one"), with("other"));
}

#[test]
fn every_pod_meets_the_restricted_standard() {
    for values in ["", EVERYTHING] {
        let rendered = render(values);
        let pods = rendered.pod_specs();
        assert_eq!(pods.len(), 3, "the operator, the uninstall check and the Vault check");
        for pod in pods {
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], Value::Bool(true));
            assert_eq!(text(&context["seccompProfile"]["type"]), "RuntimeDefault");
            for container in pod["containers"].as_sequence().expect("containers") {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], Value::Bool(false));
                assert_eq!(context["readOnlyRootFilesystem"], Value::Bool(true));
                assert_eq!(text(&context["capabilities"]["drop"][0]), "ALL");
                assert!(!container["resources"]["limits"]["memory"].is_null(), "a memory limit");
            }
        }
    }
}

#[test]
fn a_value_that_is_missing_is_asked_for_in_words() {
    for (values, message) in [
        ("clusterId: ''", "clusterId is required: a name for this cluster"),
        ("vault: {address: ''}", "vault.address is required: Vault's address, such as https://"),
        ("vault: {auth: {method: approle}}", "vault.auth.approleSecret is required"),
        ("vault: {auth: {method: token-file}}", "vault.auth.tokenSecret.name is required"),
        ("serviceAccount: {create: false}", "serviceAccount.name is required"),
        (
            "vault: {caConfigMap: {name: a}, caSecret: {name: b}}",
            "vault.caConfigMap and vault.caSecret are given together",
        ),
        (
            "metrics: {service: {enabled: false}, serviceMonitor: {enabled: true}}",
            "metrics.serviceMonitor.enabled needs metrics.service.enabled",
        ),
    ] {
        let error = render_error(values);
        assert!(error.contains(message), "{values}: {error}");
    }
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    for (values, field) in [
        ("clusterId: Prod_1", "/clusterId"),
        ("clusterId: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "/clusterId"),
        ("clusterId: 7", "/clusterId"),
        ("vault: {address: vault.vault.svc:8200}", "/vault/address"),
        ("vault: {address: 'https://user@vault:8200'}", "/vault/address"),
        ("vault: {address: 'https://vault:8200/v1'}", "/vault/address"),
        ("vault: {ca: /etc/ssl/vault.pem}", "/vault/ca"),
        ("vault: {adress: 'https://vault:8200'}", "adress"),
        ("vault: {kvMount: secret/}", "/vault/kvMount"),
        ("vault: {timeoutSeconds: 0}", "/vault/timeoutSeconds"),
        ("vault: {auth: {method: userpass}}", "/vault/auth/method"),
        ("vault: {auth: {token: hvs.x}}", "token"),
        ("watchNamespaces: messaging", "/watchNamespaces"),
        ("watchNamespaces: [Messaging]", "/watchNamespaces/0"),
        ("watchNamespaces: ['']", "/watchNamespaces/0"),
        ("clients: {allowedNamespaces: {messaging: ['*']}}", "/clients/allowedNamespaces/messaging/0"),
        ("clients: {allowedNamespaces: {messaging: reports}}", "/clients/allowedNamespaces/messaging"),
        ("clients: {allowedNamespaces: {Messaging: [reports]}}", "Messaging"),
        ("postgres: {images: {'17.4': 'postgres:17.4'}}", "'/postgres/images': additional properties '17.4'"),
        ("postgres: {images: {'17': 'a,b'}}", "/postgres/images/17"),
        ("postgres: {images: {'17': null, '18': null}}", "/postgres/images"),
        ("postgres: {runAsUser: 0}", "/postgres/runAsUser"),
        ("image: {pullPolicy: Sometimes}", "/image/pullPolicy"),
        ("image: {digest: latest}", "/image/digest"),
        ("replicas: many", "/replicas"),
        ("concurrency: 0", "/concurrency"),
        ("listen: {port: 80}", "/listen/port"),
        ("listen: {address: '::'}", "/listen/address"),
        ("extraEnv: [{name: SERVICEDB_CLUSTER_ID, value: other}]", "/extraEnv/0/name"),
        ("replicaCount: 2", "replicaCount"),
    ] {
        let error = render_error(values);
        assert!(error.contains("schema") && error.contains(field), "{values}: {error}");
    }
}

#[test]
fn the_notes_set_up_vault_with_the_values_of_the_release() {
    let notes = helm::notes(
        "
serviceAccount: {name: sdb}
vault: {kvMount: kv, approleMount: pods, kubernetesMount: k8s, databaseMount: logins, auth: {role: sdb-operator, audience: ''}}
",
    );
    let setup = include_str!("../../manifests/vault-setup.sh");
    for (name, value) in [
        ("CLUSTER_ID", "test"),
        ("OPERATOR_NAMESPACE", "servicedb-system"),
        ("OPERATOR_SERVICE_ACCOUNT", "sdb"),
        ("KV_MOUNT", "kv"),
        ("APPROLE_MOUNT", "pods"),
        ("KUBERNETES_MOUNT", "k8s"),
        ("DATABASE_MOUNT", "logins"),
        ("ROLE", "sdb-operator"),
        ("AUDIENCE", ""),
    ] {
        assert!(notes.contains(&format!(" {name}={value} \\\n")), "{name}: {notes}");
        assert!(setup.contains(&format!("{name}=${{{name}")), "vault-setup.sh does not read {name}");
    }
}

#[test]
fn each_alert_has_its_section_and_both_its_cases() {
    let rendered = render(EVERYTHING);
    let rules = rendered.object("PrometheusRule", "servicedb");
    let docs = include_str!("../../docs/alerts.md");
    let cases: Value = serde_yaml::from_str(include_str!("../alerts/rules.yaml")).expect("the cases of the rules");
    let cases: Vec<_> = cases["tests"].as_sequence().expect("cases").iter().map(|case| text(&case["name"])).collect();
    let groups = rules["spec"]["groups"].as_sequence().expect("groups").iter();
    let mut names = Vec::new();
    for rule in groups.flat_map(|group| group["rules"].as_sequence().expect("rules")) {
        let name = text(&rule["alert"]);
        assert!(docs.contains(&format!("\n### {name}\n")), "docs/alerts.md has no section {name}");
        let url = format!("https://docs.example.com/alerts#{}", name.to_lowercase());
        assert_eq!(text(&rule["annotations"]["runbook_url"]), url);
        assert!(["critical", "warning", "info"].contains(&text(&rule["labels"]["severity"]).as_str()), "{name}");
        for case in ["fires", "does not fire"] {
            // A case may say more, such as where.
            assert!(
                cases.iter().any(|found| found.starts_with(&format!("{name} {case}"))),
                "tests/alerts/rules.yaml lacks a case in which {name} {case}"
            );
        }
        names.push(name);
    }
    let sections = docs.lines().filter_map(|line| line.strip_prefix("### "));
    assert_eq!(sections.map(str::to_owned).collect::<Vec<_>>(), names, "a section without an alert");
}

#[test]
fn databases_are_found_by_prometheus_where_the_chart_says() {
    let rendered = render("metrics: {podMonitor: {enabled: true}}");
    let monitor = rendered.object("PodMonitor", "servicedb-databases");
    assert_eq!(monitor["spec"]["namespaceSelector"]["any"], Value::Bool(true));
    let monitor = render(EVERYTHING).object("PodMonitor", "servicedb-databases");
    let namespaces = monitor["spec"]["namespaceSelector"]["matchNames"].as_sequence().expect("namespaces").len();
    assert_eq!(namespaces, 2, "those that the operator watches");
    for kind in ["PodMonitor", "PrometheusRule", "ServiceMonitor"] {
        assert_eq!(render("").names(kind), [""; 0], "{kind} needs a CustomResourceDefinition that may be missing");
    }
    let endpoints = |rendered: &helm::Rendered| {
        let monitor = rendered.object("PodMonitor", "servicedb-databases");
        monitor["spec"]["podMetricsEndpoints"].as_sequence().expect("endpoints").clone()
    };
    let plain = endpoints(&rendered);
    assert!(plain.len() == 2 && plain.iter().all(|endpoint| endpoint.get("scheme").is_none()), "{plain:?}");
    let encrypted = endpoints(&render(EVERYTHING));
    let [agent, _, tls] = encrypted.as_slice() else { panic!("{encrypted:?}") };
    assert_eq!((text(&tls["port"]), text(&tls["scheme"])), ("metrics-tls".to_owned(), "https".to_owned()));
    assert_eq!(tls["tlsConfig"]["insecureSkipVerify"], Value::Bool(true));
    let dropped = agent["relabelings"].as_sequence().expect("relabelings").iter();
    assert!(dropped.filter_map(|rule| rule.get("action")).any(|action| text(action) == "drop"), "{agent:?}");
    let own = "metrics: {podMonitor: {enabled: true}, tls: {enabled: true, config: {insecureSkipVerify: false, serverName: localhost}}}";
    assert_eq!(text(&endpoints(&render(own))[2]["tlsConfig"]["serverName"]), "localhost");
    let dashboards = render(EVERYTHING);
    for name in ["fleet", "database"] {
        let dashboard = dashboards.object("ConfigMap", &format!("servicedb-dashboard-{name}"));
        let content = text(&dashboard["data"][format!("servicedb-{name}.json")]);
        let content: serde_json::Value = serde_json::from_str(&content).expect("JSON");
        assert!(content["panels"].as_array().is_some_and(|panels| panels.len() > 12));
    }
}

/// docs/dashboards.md has each panel's queries.
#[test]
fn the_page_of_the_dashboards_is_what_they_have() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/alerts/panels.py");
    let output = std::process::Command::new("python3").args([script, "--check"]).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn helm_lint_is_content() {
    helm::lint();
}

#[test]
fn the_manifests_are_what_the_chart_gives() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/generate.sh");
    let output = std::process::Command::new(script).arg("--check").output().expect("manifests/generate.sh runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The settings as the operator would read them from this environment.
fn options(command: &clap::Command, env: &BTreeMap<String, String>) -> Options {
    let mut arguments = vec!["operator".to_owned()];
    for argument in command.get_arguments() {
        let (Some(name), Some(flag)) = (argument.get_env(), argument.get_long()) else { continue };
        if let Some(value) = env.get(&*name.to_string_lossy()) {
            arguments.push(format!("--{flag}={value}"));
        }
    }
    let matches =
        command.clone().try_get_matches_from(arguments).expect("the operator accepts the chart's environment");
    Options::from_arg_matches(&matches).expect("the settings")
}
