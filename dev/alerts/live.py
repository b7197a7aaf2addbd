"""A real Prometheus scrapes a database under pgbench: every query of every panel and rule gives what it should, and
faults make exactly their alert fire, and clear."""

import argparse
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import faults
import plots
import yaml_rules
from cluster import NAME, apply, execute, here, kubectl, memory, namespace, until

PORT = 9095
# Panels that are empty while all is well, or without a store for backups.
EMPTY = {"Conditions that do not hold", "Age of the newest backup", "Age of the last tested restore"}
# What only a database with a store or a pooler has.
OF_OTHERS = {"servicedb_archive_failing", "servicedb_pooler_holding"}
# What a pooler has once it had a client.
OF_A_CLIENT = {"servicedb_pooler_longest_wait_seconds"}

arguments = argparse.ArgumentParser()
arguments.add_argument("--prometheus", required=True)
arguments.add_argument("--root", required=True)
arguments.add_argument("--faults", action="store_true", help="all of them")
arguments.add_argument("--only", help="the faults of these alerts, with commas between them")
arguments.add_argument("--plots", help="a folder in which a plot of each panel is written at the end")
options = arguments.parse_args()
passed = 0


def get(path, **parameters):
    url = f"http://127.0.0.1:{PORT}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def query(expression):
    answer = get("/api/v1/query", query=expression)
    if answer["status"] != "success":
        sys.exit(f"{expression}: {answer.get('error')}")
    return answer["data"]["result"]


def query_range(expression, start, end, step):
    answer = get("/api/v1/query_range", query=expression, start=start, end=end, step=step)
    return answer["data"]["result"] if answer["status"] == "success" else []


def firing():
    alerts = get("/api/v1/alerts")["data"]["alerts"]
    # Those of the operator have no namespace.
    of_it = (alert for alert in alerts if alert["labels"].get("namespace", namespace) == namespace)
    return {alert["labels"]["alertname"] for alert in of_it if alert["state"] == "firing"}


def targets(of, selector, port):
    """The pods with the labels that the chart's monitors give them. Debian's Prometheus cannot discover them itself:
    it is built without Kubernetes' client."""
    pods = json.loads(kubectl("-n", of, "get", "pods", "-l", selector, "-o", "json"))["items"]
    # One that has just been made has no address yet.
    for pod in (pod for pod in pods if "podIP" in pod["status"]):
        labels = {"namespace": of, "pod": pod["metadata"]["name"]}
        name = pod["metadata"]["labels"].get("servicedb.dev/name")
        yield {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": labels | ({"servicedb": name} if name else {})}


def configuration(folder, short=None, instances=None):
    """Writes what Prometheus reads: the rules, one of them with other limits, and the targets, or some of them."""
    databases = list(targets(namespace, "app.kubernetes.io/component=database", 8010))
    jobs = [
        {"job_name": "databases", "static_configs": databases[:instances]},
        {"job_name": "poolers", "static_configs": list(targets(namespace, "app.kubernetes.io/component=pooler", 8010))},
        {
            "job_name": "operator",
            "honor_labels": True,
            "static_configs": list(targets("servicedb-system", "app.kubernetes.io/component=operator", 8080)),
        },
    ]
    with open(f"{folder}/rules.yaml", "w") as file:
        file.write(yaml_rules.shortened(rules(), short or {}))
    with open(f"{folder}/prometheus.yml", "w") as file:
        # JSON is YAML.
        json.dump({
            # A page may take eight seconds on a busy machine.
            "global": {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "2s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }, file)


def rules():
    with open(f"{options.root}/charts/servicedb/files/rules.yaml") as file:
        return file.read()


def start(folder):
    log = open(f"{folder}/log", "w")
    return subprocess.Popen(
        [
            options.prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{PORT}", "--log.level=warn",
        ],
        stdout=log, stderr=log,
    )


def panels():
    for file in ("fleet", "database"):
        with open(f"{options.root}/charts/servicedb/files/dashboards/{file}.json") as content:
            for panel in json.load(content)["panels"]:
                for target in panel.get("targets", []):
                    expression = target["expr"]
                    for name, value in (("namespace", namespace), ("servicedb", NAME), ("__rate_interval", "40s")):
                        expression = expression.replace(f"${name}", value)
                    yield file, panel["title"], expression


def empty_panels():
    return [f"{title!r} of {file}: {expression}" for file, title, expression in panels()
            if title not in EMPTY and not query(expression)]


def check_queries():
    global passed
    passed += sum(1 for _ in panels())
    for name, expression in yaml_rules.expressions(rules()):
        query(expression)
        for metric in sorted(set(re.findall(r"\b(?:servicedb|pg)_[a-z_0-9]+", expression))):
            expected = metric not in OF_A_CLIENT and (options.faults or metric not in OF_OTHERS)
            if expected and not query(f"count({metric})"):
                sys.exit(f"{name} goes by {metric}, which nothing has")
        passed += 1


def show(fault, folder, reload):
    """A fault, with its rule alone shortened: it fires and nothing else does, and it clears."""
    global passed
    alert, also = fault.alert, set(fault.also)
    short = {alert: fault.short} | fault.also
    configuration(folder, short)
    reload()
    only_it = lambda: (alert in (now := firing()) and now <= also | {alert}, now)
    with fault.begin():
        until(f"{alert} fires, and nothing else", fault.seconds, only_it)
    # A rule that goes by its limit alone clears with the limit.
    if not fault.lasts:
        configuration(folder)
        reload()
    # Pods that were replaced have new addresses.
    deadline = time.monotonic() + fault.clear
    while firing():
        if time.monotonic() > deadline:
            sys.exit(f"{alert} does not clear: {firing()}")
        time.sleep(2)
        configuration(folder, short if fault.lasts else None)
        reload()
    passed += 1
    print(f"{alert}: fired and cleared", flush=True)


def check_that_all_have_a_fault(shown):
    names = {name for name, _ in yaml_rules.expressions(rules())}
    missing = names - {fault.alert for fault in shown} - set(faults.WITHOUT)
    if missing:
        sys.exit(f"these alerts have neither a fault nor a reason for none: {sorted(missing)}")


def database():
    spec = {
        "instances": 2, "storage": {"size": "512Mi"}, "deletionPolicy": "Delete",
        "postgres": {"parameters": {"max_connections": "28"}},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    }
    if options.faults:
        spec |= {
            "storage": {"size": "1Gi", "storageClassName": "growable"}, "backup": {"store": "main"},
            "pooler": {"instances": 1, "poolSize": 1},
        }
        spec["postgres"]["parameters"] |= {"max_standby_streaming_delay": "1s", "max_connections": "40"}
    return spec


def main():
    folder = tempfile.mkdtemp(prefix="servicedb-alerts-")
    prometheus = bench = None
    failed = True

    @contextlib.contextmanager
    def scraped(instances):
        configuration(folder, {"ServicedbNotScraped": ()}, instances)
        prometheus.send_signal(signal.SIGHUP)
        yield

    try:
        kubectl("create", "namespace", namespace)
        apply("ServiceDatabase", NAME, "servicedb.dev/v1alpha1", spec=database())
        here("wait", "--for=condition=Ready", "--timeout=240s", f"sdb/{NAME}")
        bench_options = f"PGOPTIONS='-c role={NAME}_db_owner' pgbench -h /run/postgresql -U servicedb_local"
        execute(f"{bench_options} -q -i -s 1 {NAME}_db")
        bench = execute(f"while :; do {bench_options} -n -c 2 -T 3000 -R 40 {NAME}_db; sleep 1; done", wait=False)
        before = memory()
        configuration(folder)
        prometheus = start(folder)
        until("the first scrapes", 60, lambda: (
            _up() >= 3, open(f"{folder}/log").read()[-500:] or f"{_up()} targets are up",
        ))
        # Rates need two scrapes that differ, and a page is kept for five seconds.
        time.sleep(25)
        if not options.only:
            until("every panel has data", 60, lambda: (not (empty := empty_panels()), empty))
            check_queries()
        print(f"memory in kB, before the first scrape: {before}; after some thirty: {memory()}", flush=True)
        until("nothing fires while nothing is wrong", 60, lambda: (not (now := firing()), now))
        reload = lambda: prometheus.send_signal(signal.SIGHUP)
        every = list(faults.every(options.root, scraped))
        check_that_all_have_a_fault(every)
        wanted = options.only.split(",") if options.only else None
        broken = []
        for fault in every if options.faults else faults.quick():
            if not wanted or fault.alert in wanted:
                try:
                    show(fault, folder, reload)
                except SystemExit as error:
                    # The next one is tried once nothing of this one fires any more.
                    print(f"{fault.alert}: FAILED: {error}", flush=True)
                    broken.append(fault.alert)
                    configuration(folder)
                    reload()
                    until("nothing fires after a fault that failed", 300, lambda: (not (now := firing()), now))
        if options.plots:
            plots.write(options.plots, query_range, list(panels()))
        if broken:
            sys.exit(f"failed: {', '.join(broken)}")
        failed = False
    finally:
        for process in (prometheus, bench):
            if process:
                process.send_signal(signal.SIGTERM)
                process.wait()
        here("delete", "sdb", NAME, "--wait=true", "--timeout=120s", check=False)
        kubectl("delete", "namespace", namespace, "--wait=false", check=False)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{passed} passed, {int(failed)} failed", flush=True)


def _up():
    try:
        return len(query("up == 1"))
    except OSError:
        return 0


main()
