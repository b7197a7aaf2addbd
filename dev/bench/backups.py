#!/usr/bin/env python3
"""Archiving, backup and restore against barman-cloud and against a floor, in one run, on the local cluster's store.

Everything runs in the database image's own file system (chroot), with the options of the product
(src/pgbackrest/config.rs). The floor compresses the same bytes (zstd, level 3) and uploads or downloads them with
two threads, and does nothing else. Prints a table, which is kept in backups.md of the output folder.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

# barman asks for psycopg2, which has no wheel; psycopg2-binary is the same module.
BARMAN, MODULES = "barman==3.19.1", ["boto3", "psycopg2-binary", "zstandard"]
BIN = "/usr/lib/postgresql/17/bin"
DATA, RESTORED = "/bench/data", "/bench/restored"
BUCKET, HOST = "bench", "s3.store.svc:7070"

FLOOR = r'''
import concurrent.futures as futures, os, sys, boto3, zstandard
what, folder, prefix = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"])
BUNDLE = 20 << 20
def files():
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path) and "/pg_wal/" not in path: yield path, os.path.getsize(path)
def parts():
    for path, size in sorted(files()):
        for at in range(0, max(size, 1), 1 << 30): yield path, at, min(size - at, 1 << 30)
def bundles():
    bundle, size = [], 0
    for path, at, length in parts():
        for begin in range(at, max(at + length, at + 1), BUNDLE):
            piece = (path, begin, min(BUNDLE, at + length - begin))
            bundle.append(piece); size += piece[2]
            if size >= BUNDLE: yield bundle; bundle, size = [], 0
    if bundle: yield bundle
def put(numbered):
    number, bundle = numbered
    data = b""
    for path, at, length in bundle:
        with open(path, "rb") as file:
            file.seek(at); data += file.read(length)
    s3.put_object(Bucket="%s", Key=f"{prefix}/{number}", Body=zstandard.ZstdCompressor(level=3).compress(data))
def get(key):
    data = zstandard.ZstdDecompressor().decompress(s3.get_object(Bucket="%s", Key=key)["Body"].read(), max_output_size=1 << 30)
    with open(os.path.join(folder, key.replace("/", "_")), "wb") as file: file.write(data)
with futures.ThreadPoolExecutor(2) as pool:
    if what == "put": list(pool.map(put, enumerate(bundles())))
    else:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="%s", Prefix=prefix + "/")
        list(pool.map(get, [found["Key"] for page in pages for found in page.get("Contents", [])]))
''' % (BUCKET, BUCKET, BUCKET)


class Machine:
    """The image's file system, with a PostgreSQL of its own."""

    def __init__(self, arguments):
        self.output = pathlib.Path(arguments.output)
        self.buildah = ["buildah", "--root", arguments.storage + "/root", "--runroot", arguments.storage + "/run"]
        self.container = self.host(*self.buildah, "from", arguments.image).strip()
        self.root = pathlib.Path(self.host(*self.buildah, "mount", self.container).strip())
        self.keys = dict(line.split("=", 1) for line in (self.output / "store.env").read_text().split())
        self.mounts, self.prepared = [], False

    @staticmethod
    def host(*command):
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def prepare(self):
        work = self.output / "bench-backups"
        shutil.rmtree(work, ignore_errors=True)
        (work / "spool").mkdir(parents=True)
        for source, target in [(str(work), "bench"), ("/dev", "dev"), ("/proc", "proc")]:
            (self.root / target).mkdir(exist_ok=True)
            self.host("mount", "--bind", source, str(self.root / target))
            self.mounts.append(str(self.root / target))
        self.work = work
        address = self.host("kubectl", "-n", "store", "get", "service", "s3", "-o", "jsonpath={.spec.clusterIP}")
        with open(self.root / "etc/hosts", "a", encoding="utf-8") as hosts:
            hosts.write(f"127.0.0.1 localhost\n{address} s3.store.svc\n")
        shutil.copy(self.output / "store-ca.crt", work / "ca.crt")
        (work / "floor.py").write_text(FLOOR)
        version = self.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])", user="root").strip()
        for names in [["--no-deps", BARMAN], MODULES]:
            self.host(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(work / "python"), "--python-version", version,
                      "--only-binary=:all:", "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64", *names)
        self.host("chown", "-R", "999:999", str(work))
        (work / "pgbackrest.conf").write_text(f"""[global]
repo1-type=s3
repo1-s3-endpoint=s3.store.svc
repo1-storage-port=7070
repo1-storage-ca-file=/bench/ca.crt
repo1-s3-uri-style=path
repo1-s3-region=us-east-1
repo1-s3-bucket={BUCKET}
repo1-s3-key={self.keys['ROOT_ACCESS_KEY']}
repo1-s3-key-secret={self.keys['ROOT_SECRET_KEY']}
repo1-path=/pgbackrest
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=bench
repo1-bundle=y
repo1-block=y
repo1-retention-full=2
compress-type=zst
process-max=2
spool-path=/bench/spool
lock-path=/bench/spool
log-level-console=off
log-level-file=off
log-level-stderr=error
start-fast=y
archive-async=y
[db]
pg1-path={DATA}
pg1-socket-path=/bench
pg1-user=postgres
""")
        self.host("chown", "999:999", str(work / "pgbackrest.conf"))
        self.prepared = True

    def run(self, *command, user="postgres", check=True):
        environment = {
            "PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/bench", "LC_ALL": "C.UTF-8", "PGHOST": "/bench", "PGUSER": "postgres",
            "PYTHONPATH": "/bench/python", "PYTHONDONTWRITEBYTECODE": "1", "ENDPOINT": f"https://{HOST}",
            "AWS_ACCESS_KEY_ID": self.keys["ROOT_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": self.keys["ROOT_SECRET_KEY"],
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_CA_BUNDLE": "/bench/ca.crt", "PGBACKREST_CONFIG": "/bench/pgbackrest.conf",
            "PGBACKREST_STANZA": "db", "TMPDIR": "/bench",
        }
        wrapped = ["/usr/sbin/chroot", f"--userspec={user}", str(self.root), *command]
        done = subprocess.run(wrapped, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, check=False)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def timed(self, *command):
        begin = time.monotonic()
        self.run(*command)
        return time.monotonic() - begin

    def python(self, program, *arguments):
        return self.run("python3", "-c", program, *arguments)

    def sql(self, text):
        return self.run("psql", "-XAtqc", text).strip()

    def start(self):
        self.run("pg_ctl", "-D", DATA, "-w", "-t", "120", "-l", "/bench/log", "start")

    def stop(self):
        self.run("pg_ctl", "-D", DATA, "-w", "-t", "300", "-m", "fast", "stop")

    def setting(self, name, value):
        with open(self.work / "data/postgresql.auto.conf", "a", encoding="utf-8") as file:
            file.write(f"{name} = '{value}'\n")

    def end(self):
        if self.prepared:
            self.run("pg_ctl", "-D", DATA, "-m", "immediate", "stop", check=False)
            self.empty_store()
        for mount in reversed(self.mounts):
            subprocess.run(["umount", "-l", mount], check=False)
        subprocess.run([*self.buildah, "rm", self.container], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(self.output / "bench-backups", ignore_errors=True)

    def empty_store(self):
        try:
            self.python(f"import boto3, os\nb = boto3.resource('s3', endpoint_url=os.environ['ENDPOINT']).Bucket('{BUCKET}')\n"
                        "b.objects.all().delete(); b.delete()")
        except SystemExit as error:
            print(error, file=sys.stderr)


def barman(machine, command, *arguments):
    program = f"import sys; from barman.clients.{command} import main; sys.exit(main())"
    return machine.timed("python3", "-c", program, "--cloud-provider", "aws-s3", "--endpoint-url", f"https://{HOST}", *arguments)


def archived(machine, command, segments):
    """Seconds until PostgreSQL's archiver has passed these segments to a command."""
    status = machine.work / "data/pg_wal/archive_status"
    for done in status.glob("*.done"):
        done.unlink()
    for segment in segments:
        (status / f"{segment}.ready").touch()
        os.chown(status / f"{segment}.ready", 999, 999)
    machine.setting("archive_command", command)
    begin = time.monotonic()
    machine.start()
    deadline = begin + 1200
    while any((status / f"{segment}.ready").exists() for segment in segments):
        if time.monotonic() > deadline:
            raise SystemExit(f"{command}: not all segments are archived\n{(machine.work / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    machine.setting("archive_command", "/bin/true")
    machine.stop()
    return seconds


def measure(machine, arguments):
    rows = []
    machine.python(f"import boto3, os\nboto3.client('s3', endpoint_url=os.environ['ENDPOINT']).create_bucket(Bucket='{BUCKET}')")
    machine.run("initdb", "-D", DATA, "-A", "trust", "--data-checksums", "--no-sync")
    for name, value in [("unix_socket_directories", "/bench"), ("listen_addresses", ""), ("max_wal_size", "8GB"), ("archive_mode", "on"),
                        ("archive_command", "/bin/true"), ("wal_keep_size", "16GB"), ("shared_buffers", "256MB"), ("checkpoint_timeout", "1h"),
                        ("fsync", "off"), ("summarize_wal", "off")]:
        machine.setting(name, value)
    machine.start()
    scale = max(1, int(arguments.gigabytes * 1024 / 15))
    machine.run("pgbench", "-i", "-q", "-s", str(scale), "postgres")
    first = machine.sql("SELECT pg_walfile_name(pg_switch_wal())")
    rounds = 0
    def complete():
        current = machine.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        names = sorted(path.name for path in (machine.work / "data/pg_wal").glob("00000001*") if re.fullmatch("[0-9A-F]{24}", path.name))
        return [name for name in names if first < name < current]
    while len(complete()) < arguments.segments and rounds < 40:
        machine.run("pgbench", "-n", "-c", "4", "-j", "2", "-T", "10", "postgres")
        rounds += 1
    segments = complete()[:arguments.segments]
    size = int(machine.sql("SELECT sum(pg_database_size(oid)) FROM pg_database"))
    machine.run("pgbackrest", "stanza-create")
    machine.stop()

    folder = machine.work / "segments"
    folder.mkdir()
    for segment in segments:
        shutil.copy(machine.work / "data/pg_wal" / segment, folder / segment)
    machine.host("chown", "-R", "999:999", str(folder))
    count = len(segments)
    floor = machine.timed("python3", "/bench/floor.py", "put", "/bench/segments", "floor-wal")
    ours = archived(machine, "pgbackrest archive-push %p", segments)
    program = "import sys; from barman.clients.cloud_walarchive import main; sys.exit(main())"
    (machine.work / "barman-wal").write_text(
        f"#!/bin/sh\nexec python3 -c '{program}' --cloud-provider aws-s3 --endpoint-url https://{HOST} --zstd s3://{BUCKET}/barman main \"$1\"\n")
    (machine.work / "barman-wal").chmod(0o755)
    few = segments[:max(4, count // 4)]
    theirs = archived(machine, "/bench/barman-wal %p", few) * count / len(few)
    rows.append((f"{count} WAL segments archived, segments/s", count / ours, count / theirs, count / floor))

    machine.setting("archive_command", "pgbackrest archive-push %p")
    machine.start()
    floor = machine.timed("python3", "/bench/floor.py", "put", DATA, "floor-data")
    ours = machine.timed("pgbackrest", "backup", "--type=full")
    full = ours
    theirs = barman(machine, "cloud_backup", "--jobs", "2", "--immediate-checkpoint", "--host", "/bench", "--user", "postgres", f"s3://{BUCKET}/barman", "main")
    rows.append((f"full backup of {size >> 20} MiB, s", ours, theirs, floor))
    machine.sql(f"UPDATE pgbench_accounts SET abalance = 1 WHERE aid <= {scale * 1000}; CHECKPOINT")
    incremental = machine.timed("pgbackrest", "backup", "--type=incr")
    rows.append(("incremental backup after 1 % was changed, s", incremental, None, full))
    machine.stop()

    (machine.work / "got").mkdir()
    machine.host("chown", "999:999", str(machine.work / "got"))
    floor = machine.timed("python3", "/bench/floor.py", "get", "/bench/got", "floor-data")
    shutil.rmtree(machine.work / "got")
    ours = machine.timed("pgbackrest", "restore", f"--pg1-path={RESTORED}", "--type=none")
    shutil.rmtree(machine.work / "restored")
    listing = machine.run("python3", "-c", "import sys; from barman.clients.cloud_backup_list import main; sys.exit(main())", "--cloud-provider", "aws-s3",
                          "--endpoint-url", f"https://{HOST}", "--format", "json", f"s3://{BUCKET}/barman", "main")
    backup = json.loads(listing)["backups_list"][0]["backup_id"]
    theirs = barman(machine, "cloud_restore", f"s3://{BUCKET}/barman", "main", backup, RESTORED)
    rows.append((f"restore of {size >> 20} MiB, s", ours, theirs, floor))
    return rows


def table(rows):
    lines = ["| | Servicedb (pgBackRest) | barman-cloud | floor | against the floor | against barman-cloud |", "|---|---|---|---|---|---|"]
    for name, ours, theirs, floor in rows:
        cells = [f"{ours:.1f}", "" if theirs is None else f"{theirs:.1f}", f"{floor:.1f}", f"{ours / floor:.2f} ×", "" if theirs is None else f"{ours / theirs:.2f} ×"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\nThe floor of the incremental backup is the full one.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--segments", type=int, default=64)
    arguments = parser.parse_args()
    machine = Machine(arguments)
    try:
        machine.prepare()
        text = table(measure(machine, arguments))
    finally:
        machine.end()
    print(text)
    (machine.output / "backups.md").write_text(text)


main()
