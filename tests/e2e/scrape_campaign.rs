//! The agent's memory under as many scrapes as a day has, while tables, statements and sessions come and go: it does not
//! grow. A page is collected at most each five seconds, whoever asks: so the time that the campaign takes
//! (`CAMPAIGN_MINUTES`) decides on the number of collections, and a day's scrapes are distributed over it.
//! `dev/campaigns.sh scrape_campaign`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::exposition::Page;
use crate::harness::{READY, Sandbox, database, run, shared};

/// The scrapes of a day, one each fifteen seconds.
const SCRAPES: u64 = 24 * 3600 / 15;
/// How many times memory is measured; the first quarter is the warm-up.
const ROUNDS: u64 = 20;
/// How much it may grow from the second quarter to the last, in bytes: an allocator's own measure, not one series a scrape.
const SLACK: f64 = 2.0 * 1024.0 * 1024.0;

/// Scrapes so many times within so many seconds, and returns the last page.
async fn scrape(sandbox: &Sandbox, pod: &str, times: u64, within: Duration) -> Page {
    let script = format!(
        "python3 - <<'END'\nimport time, urllib.request\npage = b''\nfor i in range({times}):\n    \
         page = urllib.request.urlopen('http://127.0.0.1:8010/metrics', timeout=30).read()\n    \
         time.sleep({pause:.3})\nprint(page.decode())\nEND",
        pause = within.as_secs_f64() / times as f64,
    );
    let output = sandbox.exec(pod, &script).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Page::read(&String::from_utf8_lossy(&output.stdout))
}

/// Other tables, statements and sessions than in the round before.
async fn churn(sandbox: &Sandbox, round: u64) {
    let connection = sandbox.connect("shop").await;
    for table in 0..30 {
        run(&connection, &format!("CREATE TABLE t_{round}_{table} (id int)")).await.expect("a table");
        run(&connection, &format!("INSERT INTO t_{round}_{table} VALUES ({table})")).await.expect("a row");
        if round > 0 {
            run(&connection, &format!("DROP TABLE t_{}_{table}", round - 1)).await.expect("the former table");
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
#[ignore = "takes a quarter of an hour: dev/campaigns.sh scrape_campaign"]
fn the_agents_memory_is_flat_after_a_days_scrapes() {
    let minutes = std::env::var("CAMPAIGN_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok()).unwrap_or(15);
    assert!((1..=25).contains(&minutes), "CAMPAIGN_MINUTES is {minutes}: 1 to 25, since a test ends after 30 minutes");
    shared("scrapes", async |sandbox| {
        sandbox.create(database("shop", json!({}))).await;
        sandbox.ready("shop", READY).await;
        let pod = sandbox.primary("shop").await;
        let within = Duration::from_secs(minutes * 60 / ROUNDS);
        let (mut resident, mut collected, began) = (Vec::new(), Vec::new(), Instant::now());
        for round in 0..ROUNDS {
            churn(&sandbox, round).await;
            let page = scrape(&sandbox, &pod, SCRAPES / ROUNDS, within).await;
            let value = |name: &str| page.value(name).unwrap_or_else(|| panic!("no {name}"));
            resident.push(value("process_resident_memory_bytes"));
            collected.push(value("pg_exporter_scrapes_total"));
        }
        let collections = collected[collected.len() - 1] - collected[0];
        let mib: Vec<_> = resident.iter().map(|bytes| format!("{:.1}", bytes / 1024.0 / 1024.0)).collect();
        println!("{SCRAPES} scrapes, {collections} collections in {:?}; MiB: {}", began.elapsed(), mib.join(" "));
        assert!(collections >= ROUNDS as f64, "{collected:?}");
        let quarter = resident.len() / 4;
        let (second, last) = (mean(&resident[quarter..2 * quarter]), mean(&resident[3 * quarter..]));
        assert!(last - second < SLACK, "from {second} to {last} bytes: {mib:?}");
    });
}
