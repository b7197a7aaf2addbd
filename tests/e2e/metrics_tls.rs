//! Metrics over TLS, scraped by a pod in a namespace of the platform's monitoring that trusts the database's authority.

use crate::harness::{Cluster, Sandbox};
use crate::network_policies::{MONITORING, said_in_a_pod};

/// The scraper: by the name that each server certificate has, at the pod's address.
const SCRIPT: &str = r#"
cat >/tmp/ca.crt <<'END'
CA
END
scrape() { curl --silent --show-error --fail --max-time 20 --connect-to localhost:8011:ADDRESS:8011 "$@" https://localhost:8011/metrics; }
for try in $(seq 25); do
  scrape --cacert /tmp/ca.crt >/tmp/page && break
  sleep 1
done
echo "up $(grep -cE '^servicedb_up 1(\.0)?$' /tmp/page)"
echo "families $(grep -c '^# TYPE ' /tmp/page)"
scrape >/dev/null 2>&1
echo "unknown authority $?"
curl --silent --max-time 20 --output /dev/null http://ADDRESS:8011/metrics
echo "without TLS $?"
echo "port of the probes $(curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' http://ADDRESS:8010/metrics)"
echo end
"#;

/// The page of each instance is read over TLS alone, by who trusts the authority.
pub async fn is_scraped(sandbox: &Sandbox, name: &str) {
    if !Cluster::is_local() {
        println!("not run: it needs the client image of the local cluster, and its monitoring namespace");
        return;
    }
    let authority = sandbox.credentials(name).await.ca;
    let monitoring = sandbox.cluster_namespace(MONITORING).await;
    for pod in sandbox.pods(name).await {
        let address = pod.status.and_then(|status| status.pod_ip).expect("the pod's address");
        let script = SCRIPT.replace("CA\nEND", &format!("{}\nEND", authority.trim())).replace("ADDRESS", &address);
        let said = said_in_a_pod(sandbox, &monitoring, "prometheus", &script).await;
        let value = |what: &str| said.lines().find_map(|line| line.strip_prefix(what)?.trim().parse::<u32>().ok());
        assert_eq!(value("up"), Some(1), "{said}");
        assert!(value("families").is_some_and(|families| families > 300), "{said}");
        // What curl answers if it does not know the authority.
        assert_eq!(value("unknown authority"), Some(60), "{said}");
        assert!(value("without TLS").is_some_and(|code| code != 0), "{said}");
        assert_eq!(value("port of the probes"), Some(404), "{said}");
    }
}
