"""Time from apply to Ready against the floor, all in one run; see dev/bench.sh."""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import statistics
import sys
import time

from floors import floor_set, patroni_objects
from kubernetes import GROUP, ApiError, Cluster, Watch, condition

NAMESPACE = "servicedb-bench"
FLOOR_NAME = "floor: initdb in a bare StatefulSet"
PATRONI_NAME = "three members of bare Patroni"
OPERATOR = ("servicedb-system", "servicedb-operator")
ROOT = pathlib.Path(__file__).resolve().parents[2]
# Longer than anything that is worth measuring.
TIMEOUT = 180

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
STATEFUL_SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"
SERVICE_ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
DATABASES = f"{GROUP}/namespaces/{NAMESPACE}/servicedatabases"

def database(name, instances, migrations):
    spec = {
        # The migrations of the example take rights from the role chat_db_app.
        "database": "chat_db",
        "instances": instances,
        "storage": {"size": "1Gi"},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "deletionPolicy": "Delete",
    }
    if migrations:
        spec["migrations"] = {"source": {"configMap": {"name": "five-migrations"}}}
    return {"apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": name}, "spec": spec}


class Bench:
    def __init__(self, cluster, image):
        self.cluster, self.image, self.number, self.samples = cluster, image, 0, {}

    def prepare(self):
        """A namespace of its own, with the five migrations of the chat example."""
        if not self.cluster.exists(f"/api/v1/namespaces/{NAMESPACE}"):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
            self.cluster.post("/api/v1/namespaces", namespace)
        self.remove_all()
        folder = ROOT / "examples/game-platform/chat/migrations"
        files = {file.name: file.read_text() for file in sorted(folder.glob("*.up.sql"))}
        if len(files) != 5:
            raise SystemExit(f"bench: {folder} has {len(files)} migrations, and the column is of five")
        self.cluster.delete(f"{CONFIG_MAPS}/five-migrations")
        self.cluster.post(CONFIG_MAPS, {"metadata": {"name": "five-migrations"}, "data": files})

    def remove_all(self):
        """Removes what a run left, and waits until the machine is at rest again."""
        for path in (DATABASES, STATEFUL_SETS):
            for thing in self.cluster.get(path)["items"]:
                self.cluster.delete(f"{path}/{thing['metadata']['name']}")
        deadline = time.monotonic() + TIMEOUT
        while any(self.cluster.get(path)["items"] for path in (DATABASES, STATEFUL_SETS, PODS, CLAIMS)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"what the last run made does not go away: kubectl -n {NAMESPACE} get all,pvc,sdb")
            time.sleep(0.2)
        time.sleep(1)

    def close(self):
        self.remove_all()
        self.cluster.delete(f"/api/v1/namespaces/{NAMESPACE}")

    def name(self):
        self.number += 1
        return f"b{self.number}"

    def floor(self):
        name = self.name()
        with Watch(self.cluster, PODS) as watch:
            start = time.monotonic()
            self.cluster.post(STATEFUL_SETS, floor_set(name, self.image))
            ready = watch.until(lambda pods: is_ready(pods.get(f"{name}-0")), TIMEOUT, f"pod {name}-0")
        return ready - start

    def bare_patroni(self):
        """Three members of Patroni with nothing around them, until all three are ready, as Ready of a database means."""
        name = self.name()
        objects = patroni_objects(name, NAMESPACE, self.image)
        paths = {"ServiceAccount": SERVICE_ACCOUNTS, "Role": f"{RBAC}/roles", "RoleBinding": f"{RBAC}/rolebindings", "StatefulSet": STATEFUL_SETS}
        pods = [f"{name}-{ordinal}" for ordinal in range(3)]
        with Watch(self.cluster, PODS) as watch:
            start = time.monotonic()
            for thing in objects:
                self.cluster.post(paths[thing["kind"]], thing)
            ready = watch.until(lambda found: all(is_ready(found.get(pod)) for pod in pods), TIMEOUT, f"pods of {name}")
        for thing in objects:
            self.cluster.delete(f"{paths[thing['kind']]}/{thing['metadata']['name']}")
        for record in ("config", "leader", "failover", "sync", "failsafe"):
            self.cluster.delete(f"{CONFIG_MAPS}/{name}-{record}")
        return ready - start

    def databases(self, count, instances, migrations):
        """From the first request until the last one is Ready, with every instance that it declares."""
        wanted = [database(self.name(), instances, migrations) for _ in range(count)]
        names = [thing["metadata"]["name"] for thing in wanted]
        with Watch(self.cluster, DATABASES) as watch:
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda thing: self.cluster.post(DATABASES, thing), wanted))
            done = lambda found: all(is_ready(found.get(name)) for name in names)
            ready = watch.until(done, TIMEOUT, f"Ready of {', '.join(names)}")
        for name in names:
            status = self.cluster.get(f"{DATABASES}/{name}")["status"]
            expected = {"instances": f"{instances}/{instances}", "schemaVersion": "5" if migrations else None}
            for key, value in expected.items():
                if status.get(key) != value:
                    raise SystemExit(f"bench: {name} is Ready, but its status.{key} is {status.get(key)}, not {value}")
        return ready - start

    def measure(self, what, times, sample):
        """The median of some samples; between them everything is removed again."""
        taken = []
        for _ in range(times):
            taken.append(sample())
            print(f"    {what}: {taken[-1]:.2f} s", flush=True)
            self.remove_all()
        self.samples[what] = taken
        return statistics.median(taken)

    def operator_memory(self):
        """The operator's working set in MiB, as the kubelet tells it; the most of ten seconds."""
        namespace, app = OPERATOR
        most = 0
        for _ in range(5):
            for pod in self.cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]:
                if not pod["metadata"]["name"].startswith(app) or not is_ready(pod):
                    continue
                summary = self.cluster.get(f"/api/v1/nodes/{pod['spec']['nodeName']}/proxy/stats/summary")
                for stats in summary["pods"]:
                    if stats["podRef"]["uid"] == pod["metadata"]["uid"]:
                        for container in stats["containers"]:
                            most = max(most, container.get("memory", {}).get("workingSetBytes", 0))
            time.sleep(2)
        return most / 2**20


def is_ready(thing):
    return thing is not None and condition(thing, "Ready") == "True"


def trace(bench, instances, migrations):
    """Where the time of one database goes: every change that can be seen, with its time."""
    jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    paths = {"database": DATABASES, "set": STATEFUL_SETS, "pod": PODS, "job": jobs}
    watches = {kind: Watch(bench.cluster, path) for kind, path in paths.items()}
    start = time.monotonic()
    name = bench.name()
    bench.cluster.post(DATABASES, database(name, instances, migrations))
    watches["database"].until(lambda found: is_ready(found.get(name)), TIMEOUT, f"Ready of {name}")
    told, seen = [], set()
    for kind, watch in watches.items():
        for came, change, thing in watch.events:
            for word in words(kind, change, thing):
                if (thing["metadata"]["name"], word) not in seen:
                    seen.add((thing["metadata"]["name"], word))
                    told.append((came - start, f"{kind} {thing['metadata']['name']}: {word}"))
        watch.close()
    before = 0.0
    for came, line in sorted(told):
        print(f"  {came:6.2f} s  +{came - before:4.2f}  {line}")
        before = came
    bench.remove_all()


def words(kind, change, thing):
    """What can be said of a change."""
    if change == "ADDED":
        yield "created"
    for found in thing.get("status", {}).get("conditions") or []:
        reason = f" ({found['reason']})" if found.get("reason") else ""
        yield f"{found['type']}={found['status']}{reason}"
    for container in thing.get("status", {}).get("containerStatuses") or []:
        for state in container.get("state", {}):
            yield f"container {container['name']} {state}"
    report = (thing["metadata"].get("annotations") or {}).get("servicedb.dev/agent")
    if report:
        report = json.loads(report)
        yield f"agent: {report['phase']}, role {report.get('role')}"
        if report.get("credentials"):
            yield f"agent: credentials of generation {report['credentials']['generation']} proved"
        if report.get("ledger"):
            yield f"agent: ledger at {report['ledger'].get('version')}, revision {'known' if report['ledger'].get('revision') else 'unknown'}"


def table(rows):
    """Rows as Markdown."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def spread(samples):
    """The least and the most of some samples, and how many they are."""
    return f"{min(samples):.2f} to {max(samples):.2f} ({len(samples)})"


def busy_share(seconds):
    """What part of the processors' time is not idle while nothing is measured."""

    def times():
        with open("/proc/stat", encoding="utf-8") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    before = times()
    time.sleep(seconds)
    after = times()
    return 1 - (after[1] - before[1]) / (after[0] - before[0])


def machine():
    """What it ran on."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {os.uname().release}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", required=True, help="the database image, which the floor runs, too")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--trace", action="store_true", help="only shows where the time of one database goes")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a folder for bench.md and bench.json")
    arguments = parser.parse_args()

    bench = Bench(Cluster(), arguments.image)
    bench.prepare()
    try:
        if arguments.trace:
            for what, instances, migrations in (
                ("one instance", 1, False),
                ("one instance, five migrations", 1, True),
                ("three instances", 3, False),
            ):
                print(what)
                trace(bench, instances, migrations)
            return 0
        return measure_all(bench, arguments)
    finally:
        bench.close()


def measure_all(bench, arguments):
    busy = busy_share(5)
    print(f"{machine()}; {busy:.0%} busy" + (", so figures will be worse" if busy > 0.2 else ""))
    few = max(1, (arguments.samples + 1) // 2)
    # One that is thrown away: the first of everything reads the image from disk.
    bench.floor()
    bench.remove_all()
    bench.measure(FLOOR_NAME, arguments.samples, bench.floor)
    patroni = bench.measure(PATRONI_NAME, arguments.samples, bench.bare_patroni)
    figures = []
    for what, count, instances, times, limit in (
        ("one instance", 1, 1, arguments.samples, 1.7),
        ("three instances", 1, 3, arguments.samples, 3.6),
        ("ten databases at once", 10, 1, few, 10),
    ):
        plain = bench.measure(what, times, lambda: bench.databases(count, instances, False))
        migrated = bench.measure(f"{what}, five migrations", times, lambda: bench.databases(count, instances, True))
        figures.append((what, plain, migrated, limit))
    bench.databases(10, 1, True)
    memory = bench.operator_memory()

    # The least of its samples: a floor that was disturbed is too high, and every multiple of it too kind.
    floors = bench.samples[FLOOR_NAME]
    floor = min(floors)
    rows = [("Apply to Ready, median", "seconds", "range", "x floor", "target", "", "with five migrations", "x floor")]
    rows.append((FLOOR_NAME, f"{floor:.2f}", spread(floors), "1.0", "", "", "", ""))
    taken = spread(bench.samples[PATRONI_NAME])
    rows.append((PATRONI_NAME, f"{patroni:.2f}", taken, f"{patroni / floor:.1f}", "", "", "", ""))
    for what, plain, migrated, limit in figures:
        met = "met" if plain <= limit * floor else "missed"
        taken = spread(bench.samples[what])
        rows.append((what, f"{plain:.2f}", taken, f"{plain / floor:.1f}", f"≤ {limit}", met, f"{migrated:.2f}", f"{migrated / floor:.1f}"))
    three = next(plain for what, plain, _, _ in figures if what == "three instances")
    met = "met" if three <= 1.15 * patroni else "missed"
    rows.append(("three instances, against bare Patroni", f"{three / patroni:.2f} x", "", "", "≤ 1.15 x", met, "", ""))
    met = "met" if memory <= 30 else "missed"
    rows.append(("operator's memory with ten databases", f"{memory:.1f} MiB", "", "", "≤ 30 MiB", met, "", ""))
    text = f"{table(rows)}\n\n{machine()}; {busy:.0%} busy at the start; {datetime.date.today()}; `make bench`\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "bench.md").write_text(text, encoding="utf-8")
    (arguments.output / "bench.json").write_text(json.dumps({**bench.samples, "memory": memory}, indent=2) + "\n")
    print("\n" + text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ApiError, TimeoutError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
