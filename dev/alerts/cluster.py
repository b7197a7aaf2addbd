"""The observed database and its cluster, by kubectl."""

import json
import os
import secrets
import subprocess
import sys
import time

NAME = "observed"
namespace = f"alerts-{secrets.token_hex(4)}"


def run(words, text=None, check=True, **options):
    done = subprocess.run(words, input=text, capture_output=True, text=True, **options)
    if check and done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stdout[-500:]}{done.stderr}")
    return done.stdout


def kubectl(*words, text=None, check=True):
    return run(["kubectl", *words], text, check)


def here(*words, text=None, check=True):
    """In the namespace of the observed database."""
    return kubectl("-n", namespace, *words, text=text, check=check)


def plugin(*words, check=True):
    # kubectl takes no option before the name of a plugin.
    return kubectl("servicedb", *words, "-n", namespace, check=check)


def apply(kind, name, version="v1", **content):
    there = {"apiVersion": version, "kind": kind, "metadata": {"name": name}} | content
    here("apply", "-f", "-", text=json.dumps(there))


def patch(spec):
    here("patch", "sdb", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))


def vault(*words, check=True):
    return run(["vault", *words], check=check, env=os.environ)


def until(what, seconds, test):
    deadline = time.monotonic() + seconds
    while True:
        found, told = test()
        if found:
            return told
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not happen within {seconds} s: {told}")
        time.sleep(1)


def condition(kind, status, seconds=120):
    """Waits for a condition of the observed database."""
    path = f'{{.status.conditions[?(@.type=="{kind}")].status}} {{.status.conditions[?(@.type=="{kind}")].message}}'

    def holds():
        told = here("get", "sdb", NAME, "-o", f"jsonpath={path}")
        return told.split(" ")[0] == status, told

    return until(f"{kind} {status}", seconds, holds)


def execute(script, pod=None, wait=True, check=True, text=None, container="database"):
    """Runs a script in a pod of the database, by default the primary's: its output, or the process that runs it."""
    pod = pod or primary()
    words = ["kubectl", "-n", namespace, "exec", "-i", pod, "-c", container, "--", "sh", "-c", script]
    if wait:
        return run(words, text or "", check)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    process.stdin.write(text or "")
    process.stdin.close()
    return process


def primary():
    return here("get", "sdb", NAME, "-o", "jsonpath={.status.primary}")


def replica():
    leader = primary()
    return next(pod for pod in (f"{NAME}-db-{i}" for i in range(2)) if pod != leader)


def as_owner(statement):
    """A psql as the owner of the database."""
    return f"""PGOPTIONS='-c role={NAME}_db_owner' psql -X -q -h /run/postgresql -U servicedb_local -d {NAME}_db -c "{statement}" """


def as_superuser(statement):
    return f"""psql -X -q -At -h /run/postgresql -d postgres -c "{statement}" """


def signals(kind, process):
    """A script that sends a signal to PostgreSQL's processes whose title begins with this."""
    return (
        "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in"
        f" 'postgres: {NAME}-db: {process}'*) kill -{kind} ${{p#/proc/}};; esac; done"
    )


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
