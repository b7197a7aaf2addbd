"""A real Prometheus scrapes a database under pgbench: every query of every panel and rule gives what it should, and
faults make exactly their alert fire, and clear."""

import argparse
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import yaml_rules

NAME = "observed"
PORT = 9095
# Panels that are empty while all is well, or without a store for backups.
EMPTY = {"Conditions that do not hold", "Age of the newest backup", "Age of the last tested restore"}
# What only a database with a store or a pooler has.
OF_OTHERS = {"servicedb_archive_failing", "servicedb_pooler_longest_wait_seconds", "servicedb_pooler_holding"}
# Limits of a test, instead of hours and minutes.
SHORT = {
    "ServicedbLongTransaction": ("> 3600", "> 25"),
    "ServicedbLockWait": ("> 60", "> 4"),
    "ServicedbReplicationLag": ("> 60", "> 4"),
    "ServicedbConnectionsNearLimit": ("> 0.9", "> 0.9"),
    "ServicedbStalled": ("== 1", "== 1"),
}

arguments = argparse.ArgumentParser()
arguments.add_argument("--prometheus", required=True)
arguments.add_argument("--root", required=True)
arguments.add_argument("--faults", action="store_true")
options = arguments.parse_args()
namespace = f"alerts-{secrets.token_hex(4)}"
passed = 0


def kubectl(*words, text=None, check=True):
    done = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"kubectl {' '.join(words)}: {done.stderr}")
    return done.stdout


def until(what, seconds, test):
    deadline = time.monotonic() + seconds
    while True:
        found, told = test()
        if found:
            return told
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not happen within {seconds} s: {told}")
        time.sleep(1)


def execute(script, pod=None, wait=True):
    pod = pod or primary()
    words = ["kubectl", "-n", namespace, "exec", pod, "-c", "database", "--", "sh", "-c", script]
    if not wait:
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def primary():
    return kubectl("-n", namespace, "get", "sdb", NAME, "-o", "jsonpath={.status.primary}")


def memory():
    """Proportional set size of the agent and of the sessions that read metrics, in kB."""
    script = r'''for p in /proc/[0-9]*; do
      line=$(tr '\0' ' ' <$p/cmdline 2>/dev/null)
      case $line in
      '/usr/local/bin/servicedb agent '*) echo agent $(awk '/^Pss:/ {print $2}' $p/smaps_rollup);;
      'postgres: '*servicedb_monitor*) echo session $(awk '/^Pss:/ {print $2}' $p/smaps_rollup);;
      esac
    done'''
    return ", ".join(execute(script).split("\n")[:-1])


def psql(statement):
    return f"""PGOPTIONS='-c role={NAME}_db_owner' psql -X -q -h /run/postgresql -U servicedb_local -d {NAME}_db -c "{statement}" """


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


def firing():
    alerts = get("/api/v1/alerts")["data"]["alerts"]
    of_it = (alert for alert in alerts if alert["labels"].get("namespace") == namespace)
    return {alert["labels"]["alertname"] for alert in of_it if alert["state"] == "firing"}


def targets(of, selector, port):
    """The pods with the labels that the chart's monitors give them. Debian's Prometheus cannot discover them itself:
    it is built without Kubernetes' client."""
    pods = json.loads(kubectl("-n", of, "get", "pods", "-l", selector, "-o", "json"))["items"]
    for pod in pods:
        labels = {"namespace": of, "pod": pod["metadata"]["name"]}
        name = pod["metadata"]["labels"].get("servicedb.dev/name")
        yield {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": labels | ({"servicedb": name} if name else {})}


def configuration(folder):
    jobs = [
        {
            "job_name": "databases",
            "static_configs": list(targets(namespace, "app.kubernetes.io/component=database", 8010)),
        },
        {
            "job_name": "operator",
            "honor_labels": True,
            "static_configs": list(targets("servicedb-system", "app.kubernetes.io/component=operator", 8080)),
        },
    ]
    text = open(f"{options.root}/charts/servicedb/files/rules.yaml").read()
    with open(f"{folder}/rules.yaml", "w") as file:
        file.write(yaml_rules.shortened(text, SHORT))
    with open(f"{folder}/prometheus.yml", "w") as file:
        # JSON is YAML.
        json.dump({
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }, file)


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
                    for name, value in (("namespace", namespace), ("servicedb", NAME), ("__rate_interval", "20s")):
                        expression = expression.replace(f"${name}", value)
                    yield file, panel["title"], expression


def check_queries():
    global passed
    for file, title, expression in panels():
        found = query(expression)
        if not found and title not in EMPTY:
            sys.exit(f"the panel {title!r} of {file} is empty: {expression}")
        passed += 1
    for name, expression in yaml_rules.expressions(open(f"{options.root}/charts/servicedb/files/rules.yaml").read()):
        query(expression)
        for metric in sorted(set(re.findall(r"\b(?:servicedb|pg)_[a-z_0-9]+", expression))):
            if metric not in OF_OTHERS and not query(f"count({metric})"):
                sys.exit(f"{name} goes by {metric}, which nothing has")
        passed += 1


def fault(alert, begin, end, seconds=60):
    global passed
    undo = begin()
    try:
        # With the limits of a test, without the rules' time to wait, one sample is enough for another to fire: a replica
        # that has just received the first record after a pause is as late as the pause was long.
        until(f"{alert} fires, and nothing else", seconds, lambda: (lambda now: (now == {alert}, now))(firing()))
    finally:
        end(undo)
    until(f"{alert} clears", 90, lambda: (alert not in firing(), firing()))
    passed += 1
    print(f"{alert}: fired and cleared", flush=True)


def faults():
    hold = lambda statement: lambda: execute(psql(statement), wait=False)
    kill = lambda process: (process.kill(), process.wait(), execute(
        "psql -X -q -h /run/postgresql -d postgres -c \"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query LIKE '%pg_sleep(300)%' AND pid <> pg_backend_pid()\""
    ))
    fault("ServicedbLockWait", hold("BEGIN; LOCK TABLE pgbench_branches; SELECT pg_sleep(300)"), kill, 20)
    fault("ServicedbLongTransaction", hold("BEGIN; SELECT txid_current(); SELECT pg_sleep(300)"), kill)
    if not options.faults:
        return
    many = "; ".join([psql("SELECT pg_sleep(300)").strip() + " &"] * 12).replace("&;", "&") + " wait"
    fault("ServicedbConnectionsNearLimit", lambda: execute(many, wait=False), kill)
    patch = lambda value: kubectl(
        "-n", namespace, "patch", "sdb", NAME, "--type=merge", "-p",
        json.dumps({"spec": {"postgres": {"parameters": {"work_mem": value}}}}),
    )
    fault("ServicedbStalled", lambda: patch("much"), lambda _: patch(None), 90)
    replica = next(f"{NAME}-db-{i}" for i in range(2) if f"{NAME}-db-{i}" != primary())
    replay = lambda sign: execute(
        "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in"
        f" 'postgres: {NAME}-db: startup'*) kill -{sign} ${{p#/proc/}};; esac; done", pod=replica,
    )
    fault("ServicedbReplicationLag", lambda: replay("STOP"), lambda _: replay("CONT"), 90)


def main():
    folder = tempfile.mkdtemp(prefix="servicedb-alerts-")
    prometheus = bench = None
    failed = True
    try:
        kubectl("create", "namespace", namespace)
        kubectl("-n", namespace, "apply", "-f", "-", text=json.dumps({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": NAME},
            "spec": {
                "instances": 2, "storage": {"size": "512Mi"}, "deletionPolicy": "Delete",
                "postgres": {"parameters": {"max_connections": "28"}},
                "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            },
        }))
        kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=240s", f"sdb/{NAME}")
        bench_options = f"PGOPTIONS='-c role={NAME}_db_owner' pgbench -h /run/postgresql -U servicedb_local"
        execute(f"{bench_options} -q -i -s 1 {NAME}_db")
        bench = execute(f"{bench_options} -n -c 2 -T 1200 -R 40 {NAME}_db", wait=False)
        before = memory()
        configuration(folder)
        prometheus = start(folder)
        until("the first scrapes", 60, lambda: (
            _up() >= 3, open(f"{folder}/log").read()[-500:] or f"{_up()} targets are up",
        ))
        # Rates need two scrapes that differ, and a page is kept for five seconds.
        time.sleep(25)
        check_queries()
        print(f"memory in kB, before the first scrape: {before}; after some thirty: {memory()}", flush=True)
        if firing():
            sys.exit(f"nothing is wrong, and these fire: {firing()}")
        faults()
        failed = False
    finally:
        for process in (prometheus, bench):
            if process:
                process.send_signal(signal.SIGTERM)
                process.wait()
        kubectl("-n", namespace, "delete", "sdb", NAME, "--wait=true", "--timeout=120s", check=False)
        kubectl("delete", "namespace", namespace, "--wait=false", check=False)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{passed} passed, {int(failed)} failed", flush=True)


def _up():
    try:
        return len(query("up == 1"))
    except OSError:
        return 0


main()
