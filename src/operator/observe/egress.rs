//! NetworkPolicies that block a pod's access to required ports. They are read only if a pod cannot
//! reach a peer: the pod itself can only report that a name is not found or a connection is
//! refused.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams};
use kube::core::{Selector, SelectorExt};
use kube::{Client, ResourceExt};

use super::pods::DatabasePod;
use crate::api::conditions::reason;
use crate::api::names::{LABEL_SCOPE, Names};
use crate::contract::pod::{PATRONI_PORT, POSTGRES_PORT};
use crate::contract::report::Trouble;
use crate::operator::apply::object::Owner;
use crate::operator::plan::migration;

/// Vault's port if its address has none.
const HTTPS_PORT: u16 = 443;
/// The API server: the port of its Service, and the usual one of its endpoints. The network plugin
/// determines which of them a policy must name.
const API_SERVER: [u16; 2] = [443, 6443];

/// A port that a pod must reach; with several ports, one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredPort {
    what: &'static str,
    ports: Vec<u16>,
    protocol: &'static str,
}

impl RequiredPort {
    fn tcp(what: &'static str, ports: &[u16]) -> Self {
        Self { what, ports: ports.to_vec(), protocol: "TCP" }
    }

    fn dns() -> Self {
        Self { what: "DNS", ports: vec![53], protocol: "UDP" }
    }
}

/// The ports that an instance must reach.
pub fn of_an_instance(vault_address: &str, several: bool) -> Vec<RequiredPort> {
    let mut needs = vec![RequiredPort::dns(), RequiredPort::tcp("the API server", &API_SERVER), vault(vault_address)];
    if several {
        needs.push(RequiredPort::tcp("PostgreSQL of the other instances", &[POSTGRES_PORT]));
        needs.push(RequiredPort::tcp("Patroni of the other instances", &[PATRONI_PORT]));
    }
    needs
}

/// The ports that a migration Job must reach.
pub fn of_a_job(vault_address: &str) -> Vec<RequiredPort> {
    vec![RequiredPort::dns(), vault(vault_address), RequiredPort::tcp("PostgreSQL", &[POSTGRES_PORT])]
}

fn vault(address: &str) -> RequiredPort {
    let port = address.parse::<http::Uri>().ok().and_then(|uri| uri.port_u16());
    RequiredPort::tcp("Vault", &[port.unwrap_or(HTTPS_PORT)])
}

/// NetworkPolicies that may block required ports.
pub struct Obstacle {
    /// Their names, and the blocked ports.
    pub message: String,
    /// Whether a port is allowed by no rule. Otherwise rules name peers, which may be the right
    /// ones.
    pub certain: bool,
}

/// Names the policies that restrict the egress of pods with these labels without allowing all
/// required ports; none if all are allowed, or if the policies cannot be read: they explain a
/// failure, and nothing is decided by them.
pub async fn obstacle(
    client: &Client,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    needs: &[RequiredPort],
) -> Option<Obstacle> {
    match Api::<NetworkPolicy>::namespaced(client.clone(), namespace).list(&ListParams::default()).await {
        Ok(policies) => decide(&policies.items, labels, needs),
        Err(error) => {
            tracing::warn!(%error, "the NetworkPolicies of the namespace cannot be read");
            None
        }
    }
}

/// The labels of the pods of a database: of its instances, or of its migration Jobs.
pub fn labels(owner: &Owner, is_job: bool) -> BTreeMap<String, String> {
    let component = if is_job { migration::COMPONENT } else { "database" };
    let mut labels: BTreeMap<_, _> = owner.labels().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    labels.insert("app.kubernetes.io/component".to_owned(), component.to_owned());
    if !is_job {
        labels.insert(LABEL_SCOPE.to_owned(), owner.names.base());
    }
    labels
}

/// Finds policies that block instances which do not report, cannot reach Vault, or do not become
/// ready, and records them as the trouble of these instances. Connections that a pod opened before
/// the network plugin applied a policy are kept: an agent may report while Patroni is cut off.
pub async fn explain(client: &Client, names: &Names, uid: &str, vault_address: &str, pods: &mut [DatabasePod]) {
    let cut_off = |pod: &DatabasePod| pod.silent || pod.lingers || pod.misses_vault();
    if !pods.iter().any(cut_off) {
        return;
    }
    let labels = labels(&Owner { names: names.clone(), uid: uid.to_owned() }, false);
    let needs = of_an_instance(vault_address, pods.len() > 1);
    let Some(obstacle) = obstacle(client, &names.namespace, &labels, &needs).await else { return };
    let Obstacle { message: obstacle, certain } = obstacle;
    // A slow start alone is no evidence that the peers of a rule are wrong.
    let explained = |pod: &DatabasePod| pod.silent || pod.misses_vault() || (pod.lingers && certain);
    for pod in pods.iter_mut().filter(|pod| explained(pod)) {
        let health = pod.report.as_mut().and_then(|report| report.vault.as_mut());
        let message = match health.filter(|health| !health.ok).and_then(|health| health.message.as_mut()) {
            Some(message) => {
                *message = format!("{message}; {obstacle}");
                message.clone()
            }
            None if pod.silent => format!("its agent does not report; {obstacle}"),
            None => format!("it does not become ready; {obstacle}"),
        };
        // A serving instance is not affected.
        let unexplained = pod.trouble.as_ref().is_none_or(|trouble| trouble.reason == reason::VAULT_UNREACHABLE);
        if !pod.ready && unexplained {
            let message = format!("pod {}: {message}", pod.name);
            pod.trouble = Some(Trouble { reason: reason::EGRESS_DENIED.to_owned(), message });
        }
    }
}

/// Whether the policies allow a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Allowed {
    Nobody,
    Some,
    All,
}

fn decide(policies: &[NetworkPolicy], labels: &BTreeMap<String, String>, needs: &[RequiredPort]) -> Option<Obstacle> {
    let restricting: Vec<_> = policies.iter().filter(|policy| restricts_egress(policy, labels)).collect();
    if restricting.is_empty() {
        return None;
    }
    let rules: Vec<_> =
        restricting.iter().filter_map(|policy| policy.spec.as_ref()?.egress.as_ref()).flatten().collect();
    let allowed = |need: &RequiredPort| rules.iter().map(|rule| allows(rule, need)).max().unwrap_or(Allowed::Nobody);
    let list = |wanted: Allowed| -> Option<String> {
        let needs: Vec<_> = needs.iter().filter(|need| allowed(need) == wanted).map(describe).collect();
        (!needs.is_empty()).then(|| needs.join(", "))
    };
    let names: Vec<_> = restricting.iter().map(|policy| policy.name_any()).collect();
    let names = match names.as_slice() {
        [one] => format!("the NetworkPolicy {one} restricts its egress"),
        several => format!("the NetworkPolicies {} restrict its egress", several.join(", ")),
    };
    let denied = list(Allowed::Nobody).map(|needs| format!("no rule allows {needs}"));
    let doubtful =
        list(Allowed::Some).map(|needs| format!("the rules for {needs} name peers, which may be the wrong ones"));
    let certain = denied.is_some();
    let problem = denied.or(doubtful)?;
    Some(Obstacle { message: format!("{names}, and {problem}: see NetworkPolicies in docs/install.md"), certain })
}

fn describe(need: &RequiredPort) -> String {
    let ports: Vec<_> = need.ports.iter().map(u16::to_string).collect();
    format!("{} ({} {})", need.what, need.protocol, ports.join(" or "))
}

fn restricts_egress(policy: &NetworkPolicy, labels: &BTreeMap<String, String>) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let egress = spec.policy_types.iter().flatten().any(|kind| kind == "Egress") || spec.egress.is_some();
    let selector = Selector::try_from(spec.pod_selector.clone().unwrap_or_default());
    egress && selector.is_ok_and(|selector| selector.matches(labels))
}

fn allows(rule: &NetworkPolicyEgressRule, need: &RequiredPort) -> Allowed {
    let of_port = match rule.ports.as_deref() {
        None | Some([]) => true,
        Some(ports) => need.ports.iter().any(|wanted| ports.iter().any(|port| covers(port, need.protocol, *wanted))),
    };
    match (of_port, rule.to.as_deref()) {
        (false, _) => Allowed::Nobody,
        (true, None | Some([])) => Allowed::All,
        (true, Some(_)) => Allowed::Some,
    }
}

fn covers(port: &NetworkPolicyPort, protocol: &str, wanted: u16) -> bool {
    let wanted = i32::from(wanted);
    let of_protocol = port.protocol.as_deref().unwrap_or("TCP") == protocol;
    of_protocol
        && match (&port.port, port.end_port) {
            (None, _) => true,
            (Some(IntOrString::Int(first)), last) => (*first..=last.unwrap_or(*first)).contains(&wanted),
            // A named port of the peer may have any number.
            (Some(IntOrString::String(_)), _) => true,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a policy")
    }

    fn deny_all() -> NetworkPolicy {
        policy("default-deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
    }

    fn of_instance(policies: &[NetworkPolicy]) -> Option<String> {
        let owner = Owner { names: Names::new("messaging", "chat"), uid: String::new() };
        let needs = of_an_instance("https://vault.vault.svc:8200", true);
        decide(policies, &labels(&owner, false), &needs).map(|obstacle| obstacle.message)
    }

    #[test]
    fn a_policy_that_denies_everything_is_named_with_all_blocked_ports() {
        let message = of_instance(&[deny_all()]).expect("an obstacle");
        for part in [
            "NetworkPolicy default-deny",
            "DNS (UDP 53)",
            "API server (TCP 443 or 6443)",
            "Vault (TCP 8200)",
            "5432",
            "8008",
        ] {
            assert!(message.contains(part), "{part} is missing: {message}");
        }
    }

    #[test]
    fn allowed_ports_are_not_reported() {
        let dns = policy(
            "allow-dns",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}),
        );
        let message = of_instance(&[deny_all(), dns]).expect("an obstacle");
        assert!(message.contains("default-deny, allow-dns") && !message.contains("DNS ("), "{message}");
        let range = policy(
            "allow",
            json!({"podSelector": {"matchLabels": {"servicedb.dev/scope": "chat-db"}}, "policyTypes": ["Egress"],
                "egress": [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 443, "endPort": 9000}]}]}),
        );
        assert_eq!(of_instance(&[deny_all(), range]), None, "every port is allowed to everybody");
    }

    #[test]
    fn rules_with_peers_may_name_the_wrong_ones() {
        let peers = policy(
            "allow-namespace",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]}),
        );
        let message = of_instance(&[deny_all(), peers]).expect("an obstacle");
        assert!(message.contains("name peers") && message.contains("DNS (UDP 53)"), "{message}");
    }

    #[test]
    fn policies_of_other_pods_and_of_ingress_are_no_obstacle() {
        let other = policy("other", json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}));
        let ingress = policy("ingress", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
        assert_eq!(of_instance(&[other, ingress]), None);
    }

    #[test]
    fn an_address_without_a_port_means_https() {
        assert_eq!(vault("https://vault.example.org").ports, [443]);
        assert_eq!(vault("https://vault.vault.svc:8200").ports, [8200]);
    }
}
