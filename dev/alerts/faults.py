"""The faults: each makes exactly its alert fire, and clear. Rules have the limits and times of a test."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable

from cluster import (
    NAME, apply, as_owner, as_superuser, condition, execute, here, kubectl, patch, plugin, primary, replica, run,
    signals, vault,
)

VOLUME = "/var/lib/postgresql/data"
# The operator's rights to the resources themselves.
ROLE = "servicedb-operator"
# Rules that no fault of some minutes reaches; promtool tests them.
WITHOUT = {
    "ServicedbTransactionIdWraparound": "the ids of template0 grow with all others, and nobody may freeze it by hand",
    "ServicedbRestoreNotVerified": "the test of a backup takes minutes; tests/e2e damages a backup and reads the condition",
}


@dataclasses.dataclass
class Fault:
    """One alert: `begin` is a context in which the fault lasts."""

    alert: str
    begin: Callable
    # What of the rule is replaced: its limit, or its range.
    short: tuple[tuple[str, str], ...] = ()
    seconds: int = 60
    clear: int = 90
    # Rules without a time to wait that fire for the same cause, with what is replaced of them.
    also: dict = dataclasses.field(default_factory=dict)
    # Whether it clears by its cause alone; otherwise its limit is the fault.
    lasts: bool = True


@contextlib.contextmanager
def ending_sleepers(process):
    """Ends a process, and the sessions that it has opened and that sleep."""
    try:
        yield
    finally:
        process.kill()
        process.wait()
        execute(as_superuser(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE '%pg_sleep(300)%' AND pid <> pg_backend_pid()"
        ))


def session(statement):
    """A session of the primary that a statement keeps open."""
    return ending_sleepers(execute(as_owner(statement), wait=False))


@contextlib.contextmanager
def stopped(process, pod):
    execute(signals("STOP", process), pod=pod)
    try:
        yield
    finally:
        execute(signals("CONT", process), pod=pod)


@contextlib.contextmanager
def stopped_server():
    """All processes of the replica's PostgreSQL stand still: the agent's session is one of them."""
    pod, number = replica(), f"$(head -1 {VOLUME}/pgdata/postmaster.pid)"
    every = lambda kind: f"kill -{kind} {number}; " + signals(kind, "")
    execute(every("STOP"), pod=pod)
    try:
        yield
    finally:
        # The agent may have ended it by then.
        execute(every("CONT"), pod=pod, check=False)


@contextlib.contextmanager
def looping(step, pod):
    """Repeats a step in the pod. The end of kubectl does not end it there; the end of a file does."""
    flag = "/tmp/alerts-loop"
    process = execute(f"touch {flag}; while [ -e {flag} ]; do {step}; done", pod=pod, wait=False)
    try:
        yield
    finally:
        execute(f"rm -f {flag}", pod=pod)
        process.wait(timeout=30)


@contextlib.contextmanager
def once(begin, end=lambda: None):
    begin()
    try:
        yield
    finally:
        end()


def many_sessions():
    return ending_sleepers(execute(" ".join([as_owner("SELECT pg_sleep(300)").strip() + " &"] * 24) + " wait", wait=False))


def deadlock():
    execute(as_owner("CREATE TABLE IF NOT EXISTS tangle (id int PRIMARY KEY); INSERT INTO tangle VALUES (1), (2) ON CONFLICT DO NOTHING"))
    one = as_owner("BEGIN; SELECT FROM tangle WHERE id = 1 FOR UPDATE; SELECT pg_sleep(1); SELECT FROM tangle WHERE id = 2 FOR UPDATE")
    two = as_owner("BEGIN; SELECT FROM tangle WHERE id = 2 FOR UPDATE; SELECT pg_sleep(1); SELECT FROM tangle WHERE id = 1 FOR UPDATE")
    execute(f"{one} & {two} ; wait; true", check=False)


def conflict():
    """A query on a replica reads a table that is dropped meanwhile."""
    for turn in range(2):
        execute(as_owner(f"CREATE TABLE short_lived_{turn} AS SELECT 1"))
        time.sleep(1)
        reads = execute(as_owner(f"BEGIN; SELECT * FROM short_lived_{turn}; SELECT pg_sleep(60)"), pod=replica(), wait=False)
        time.sleep(1)
        execute(as_owner(f"DROP TABLE short_lived_{turn}"))
        reads.wait(timeout=60)


@contextlib.contextmanager
def filled(step):
    """The volume of the replica fills by so many MiB a second, to three fifths."""
    pod, file = replica(), f"{VOLUME}/filled"
    most = int(execute(f"df --output=size -B1M {VOLUME} | tail -1", pod=pod)) * 6 // 10
    grow = f"i=${{i:-0}}; [ $i -ge {most} ] || fallocate -o ${{i}}M -l {step}M {file}; i=$((i + {step})); sleep 1"
    try:
        with looping(grow, pod):
            yield
    finally:
        execute(f"rm -f {file}", pod=pod)


@contextlib.contextmanager
def without_store():
    """No new connection reaches the store."""
    address = kubectl("-n", "store", "get", "pod", "store-0", "-o", "jsonpath={.status.podIP}")
    everything_else = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"{address}/32"]}}]}
    apply("NetworkPolicy", "no-store", "networking.k8s.io/v1", spec={
        "podSelector": {}, "policyTypes": ["Egress"], "egress": [everything_else],
    })
    try:
        yield
    finally:
        here("delete", "networkpolicy", "no-store")


@contextlib.contextmanager
def archive_is_away(segments=1):
    with without_store():
        for _ in range(segments):
            execute(as_superuser("SELECT pg_switch_wal()") + " && " + as_owner("CREATE TABLE IF NOT EXISTS written (id int); INSERT INTO written VALUES (1)"))
        yield


@contextlib.contextmanager
def backup_fails():
    with without_store():
        plugin("backup", NAME, "--timeout", "0", check=False)
        condition("BackedUp", "False", 300)
        yield
    plugin("backup", NAME, "--timeout", "300")


@contextlib.contextmanager
def lost_credentials():
    record = here("get", "sdb", NAME, "-o", "jsonpath={.status.credentials.vaultPath}")
    vault("kv", "metadata", "delete", *of_kv(record))
    # A loss is seen at a resync, or by a rotation, which then waits for a decision.
    plugin("rotate", NAME, "--timeout", "0", check=False)
    try:
        yield
    finally:
        plugin("rotate", NAME, "--reissue")


def of_kv(path):
    """A path as status has it, `<mount>/data/<path>`, for the command line client."""
    mount, rest = path.split("/data/", 1) if "/data/" in path else path.split("/", 1)
    return [f"-mount={mount}", rest]


@contextlib.contextmanager
def failed_migration():
    apply("ConfigMap", "migrations", data={"1_wrong.up.sql": "SELECT 1/0;"})
    patch({"migrations": {"source": {"configMap": {"name": "migrations"}}}})
    try:
        yield
    finally:
        apply("ConfigMap", "migrations", data={"1_right.up.sql": "CREATE TABLE IF NOT EXISTS migrated (id int);"})


@contextlib.contextmanager
def drift():
    """pgbench's tables are in no migration. The check ends with the declaration."""
    apply("ConfigMap", "migrations", data={"1_right.up.sql": "CREATE TABLE IF NOT EXISTS migrated (id int);"})
    patch({"migrations": {"source": {"configMap": {"name": "migrations"}}}})
    condition("MigrationsApplied", "True")
    plugin("drift", NAME, check=False)
    try:
        yield
    finally:
        patch({"migrations": None})


def scale_operator(replicas):
    kubectl("-n", "servicedb-system", "scale", "deployment", "servicedb-operator", f"--replicas={replicas}")


@contextlib.contextmanager
def no_operator():
    before = kubectl("-n", "servicedb-system", "get", "deployment", "servicedb-operator", "-o", "jsonpath={.spec.replicas}")
    scale_operator(0)
    try:
        yield
    finally:
        scale_operator(before)
        kubectl("-n", "servicedb-system", "rollout", "status", "deployment/servicedb-operator", "--timeout=120s")


def sealed(root):
    @contextlib.contextmanager
    def context():
        vault("operator", "seal")
        here("annotate", "sdb", NAME, f"alerts.test/read={time.time()}", "--overwrite")
        plugin("rotate", NAME, "--timeout", "0", check=False)
        try:
            yield
        finally:
            run([f"{root}/dev/vault.sh", "unseal"])
            condition("VaultReachable", "True", 180)

    return context


@contextlib.contextmanager
def status_refused():
    """The operator may write no status, and there is a new database."""
    role = json.loads(kubectl("get", "clusterrole", ROLE, "-o", "json"))
    rules = [rule for rule in role["rules"] if "servicedatabases/status" not in rule["resources"]]
    assert len(rules) < len(role["rules"]), f"{ROLE} has no rule for servicedatabases/status"
    set_rules = lambda rules: kubectl("patch", "clusterrole", ROLE, "--type=merge", "-p", json.dumps({"rules": rules}))
    set_rules(rules)
    try:
        apply("ServiceDatabase", "untold", "servicedb.dev/v1alpha1", spec={"storage": {"size": "256Mi"}, "deletionPolicy": "Delete"})
        yield
    finally:
        set_rules(role["rules"])
        here("delete", "sdb", "untold", "--timeout=120s", check=False)


def loud_server():
    """The agent of the replica stands still while its server logs more than the pod's memory keeps. It goes on by itself,
    also after a failed statement."""
    to_agent = lambda kind: (
        "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in"
        f" '/usr/local/bin/servicedb agent '*) kill -{kind} ${{p#/proc/}};; esac; done"
    )
    loud = as_owner("DO 'BEGIN FOR i IN 1..300 LOOP RAISE LOG ''%'', repeat(''x'', 100000); END LOOP; END'")
    execute(f"{to_agent('STOP')}; {loud}; {to_agent('CONT')}", pod=replica())


@contextlib.contextmanager
def metrics_unreadable():
    """The login that reads metrics may do nothing more."""
    execute(as_superuser(
        "ALTER ROLE servicedb_monitor NOLOGIN; "
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'servicedb_monitor'"
    ))
    try:
        yield
    finally:
        execute(as_superuser("ALTER ROLE servicedb_monitor LOGIN"))


@contextlib.contextmanager
def pooler_queue():
    """One connection in the pool, and three clients that each keep it: in the pooler's pod, which lets in only clients."""
    record = here("get", "sdb", NAME, "-o", "jsonpath={.status.credentials.vaultPath}")
    data = json.loads(vault("kv", "get", "-format=json", *of_kv(record)))["data"]["data"]
    of = lambda key: data[f"{NAME.upper()}_DB_{key}"]
    login = f"host=127.0.0.1 port=6432 dbname={of('NAME')} user={of('USER')} sslmode=require"
    client = f"""psql -X -q "{login}" -c 'BEGIN; SELECT pg_sleep(300)' &"""
    # The password goes by the standard input, into memory.
    script = f'umask 077; f=$(mktemp -p /dev/shm); cat >"$f"; export PGPASSFILE="$f"; {client} {client} {client} wait; rm "$f"'
    pod = here("get", "pod", "-l", f"servicedb.dev/name={NAME},app.kubernetes.io/component=pooler", "-o", "name").strip()
    process = execute(script, pod, wait=False, text=f"*:*:*:*:{of('PASSWORD')}\n", container="pooler")
    with ending_sleepers(process):
        try:
            yield
        finally:
            # All of them: one that still waits would be the next to sleep. The end of kubectl does not end them.
            execute(
                "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in"
                " psql\\ -X*|*/psql\\ -X*) kill ${p#/proc/};; esac; done; true", pod, container="pooler",
            )


def other_primary():
    # The pod of a primary that is deleted may be back before its lease ends.
    plugin("switchover", NAME)


def both_lost():
    here("delete", "pod", f"{NAME}-db-0", f"{NAME}-db-1", "--grace-period=0", "--force")


def quick():
    """Those that every run has."""
    yield Fault("ServicedbLockWait", lambda: session("BEGIN; LOCK TABLE pgbench_branches; SELECT pg_sleep(300)"), ((" > 60", " > 10"),))
    yield Fault("ServicedbLongTransaction", lambda: session("BEGIN; SELECT txid_current(); SELECT pg_sleep(300)"), ((" > 3600", " > 25"),), 90)


def every(root, targets):
    """All; `targets(n)` is a context in which Prometheus scrapes n instances."""
    yield from quick()
    short_failover = (("[15m]", "[40s]"),)
    yield Fault("ServicedbConnectionsNearLimit", many_sessions)
    yield Fault("ServicedbStalled", lambda: once(
        lambda: patch({"postgres": {"parameters": {"work_mem": "much"}}}),
        lambda: patch({"postgres": {"parameters": {"work_mem": None}}}),
    ), seconds=90)
    yield Fault("ServicedbReplicationLag", lambda: stopped("startup", replica()), ((" > 60", " > 20"),), 90)
    yield Fault("ServicedbNotScraped", lambda: targets(1))
    yield Fault("ServicedbMetricsUnreadable", metrics_unreadable)
    yield Fault("ServicedbLogDropped", lambda: once(loud_server), (("[15m]", "[60s]"),), 60, 120)
    yield Fault("ServicedbDeadlocks", lambda: once(deadlock), (("[30m]", "[60s]"), (" > 5", " > 0")))
    yield Fault("ServicedbReplicaConflicts", lambda: once(conflict), (("[30m]", "[60s]"), (" > 10", " > 0")), 120)
    yield Fault("ServicedbVolumeFull", lambda: filled(200), ((" < 0.05", " < 0.5"),))
    yield Fault("ServicedbVolumeFillsUp", lambda: filled(10), (("[6h]", "[30s]"), (" < 0.5", " < 1")), 60, 120)
    yield Fault("ServicedbWalHeldBySlot", lambda: stopped("walreceiver", replica()), (("0.1 * max", "0.0002 * max"),), 90)
    without_replica = lambda: looping(signals("TERM", "walreceiver") + "; sleep 0.1", replica())
    yield Fault("ServicedbReplicaNotStreaming", without_replica)
    yield Fault("ServicedbNoStandby", without_replica, seconds=120)
    yield Fault("ServicedbInstanceDown", stopped_server)
    yield Fault("ServicedbInstanceMissing", lambda: once(lambda: here("delete", "pod", replica(), "--grace-period=0", "--force")))
    yield Fault("ServicedbPoolerQueue", pooler_queue, ((" > 5", " > 2"),), 90)
    by_limit = lambda: contextlib.nullcontext()
    yield Fault("ServicedbCertificateExpiring", by_limit, (("< 30 * 86400", "< 4000 * 86400"),), lasts=False)
    yield Fault("ServicedbSecretIdExpiring", by_limit, (("< 36 * 3600", "< 36000 * 3600"),), lasts=False)
    yield Fault("ServicedbMigrationFailed", failed_migration, seconds=120)
    yield Fault("ServicedbSchemaDrift", drift, seconds=120)
    yield Fault("ServicedbArchiveFailing", archive_is_away, seconds=120, clear=120)
    yield Fault("ServicedbArchiveLate", lambda: archive_is_away(3), ((" > 8", " > 1"),), 120, 120)
    yield Fault("ServicedbBackupOverdue", backup_fails, seconds=60, clear=120)
    yield Fault("ServicedbCredentialsLost", lost_credentials, seconds=120)
    yield Fault("ServicedbOperatorDown", no_operator)
    yield Fault("ServicedbVaultUnreachable", sealed(root), seconds=120, clear=120)
    yield Fault("ServicedbReconcileErrors", status_refused, (("[10m]", "[60s]"), (" > 0.2", " > 0.02")), 120, 180)
    # The last ones: with its range of a quarter of an hour, the rule fires until long after them.
    yield Fault("ServicedbFailover", lambda: once(other_primary), short_failover, 120, 120)
    yield Fault("ServicedbDatabaseDown", lambda: once(both_lost), also={"ServicedbFailover": short_failover}, seconds=60, clear=120)
