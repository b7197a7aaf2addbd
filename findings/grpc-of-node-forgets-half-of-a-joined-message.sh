#!/usr/bin/env bash
# One would guess: the bytes of two messages of Protocol Buffers, one after the other, are the two merged for every library, as the encoding's guide has it: so defaults and overrides are joined without a parser, and a field of a message may come in parts.
# Python's protobuf 7.36.2 and npm's protobufjs 8.8.1 merge them: limits keep the cpu of the first and get the memory of the second. gRPC's own loader for Node.js, @grpc/proto-loader 0.8.1 (with protobufjs 7.6.6), npm's ts-proto 2.18.0 and Python's betterproto2 0.10.0 take the last limits alone: cpu is 0 and the list has lost an entry; where two members of a oneof come, of which the last counts, the loader and betterproto2 give both. Without an error (protobufjs pull requests 2193 and 2195 mended it in April 2026 for the next line).
set -euo pipefail
umask 022
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q protobuf==7.36.2 grpcio-tools==1.85.1 betterproto2==0.10.0
for name in loader newest; do mkdir $name && (cd $name && npm init -y >/dev/null); done
(cd loader && npm install --silent --no-audit --no-fund @grpc/proto-loader@0.8.1 protobufjs@7.6.6 ts-proto@2.18.0 @bufbuild/protobuf@2.17.0 esbuild@0.25.12)
(cd newest && npm install --silent --no-audit --no-fund protobufjs@8.8.1)
cat >job.proto <<'PROTO'
syntax = "proto3";

message Limits {
  int32 cpu = 1;
  int32 memory = 2;
  repeated string zones = 3;
}

message Job {
  string name = 1;
  Limits limits = 2;
  oneof target {
    string host = 3;
    string pool = 4;
  }
}

service Runner {
  rpc Run(Job) returns (Job);
}
PROTO
venv/bin/python -m grpc_tools.protoc -I. --python_out=. --plugin=protoc-gen-ts_proto=loader/node_modules/.bin/protoc-gen-ts_proto --ts_proto_out=loader --ts_proto_opt=outputServices=none job.proto
(cd loader && npx esbuild job.ts --bundle --platform=node --format=cjs --outfile=job.js --log-level=error)
cat >join.py <<'PY'
import job_pb2

defaults = job_pb2.Job(name="nightly", limits=job_pb2.Limits(cpu=4, memory=512, zones=["a"]), host="one")
override = job_pb2.Job(limits=job_pb2.Limits(memory=1024, zones=["b"]), pool="many")
print((defaults.SerializeToString() + override.SerializeToString()).hex())
PY
cat >read.py <<'PY'
import sys
from dataclasses import dataclass

import betterproto2
import job_pb2


@dataclass(eq=False)
class Limits(betterproto2.Message):
    cpu: int = betterproto2.field(1, betterproto2.TYPE_INT32)
    memory: int = betterproto2.field(2, betterproto2.TYPE_INT32)
    zones: "list[str]" = betterproto2.field(3, betterproto2.TYPE_STRING, repeated=True)


@dataclass(eq=False)
class Job(betterproto2.Message):
    name: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    limits: "Limits | None" = betterproto2.field(2, betterproto2.TYPE_MESSAGE, optional=True)
    host: "str | None" = betterproto2.field(3, betterproto2.TYPE_STRING, optional=True, group="target")
    pool: "str | None" = betterproto2.field(4, betterproto2.TYPE_STRING, optional=True, group="target")


def tell(name, job, host, pool):
    print(f"{name}: cpu {job.limits.cpu}, memory {job.limits.memory}, zones {','.join(job.limits.zones)}; host {host}, pool {pool}")


data = bytes.fromhex(sys.argv[1])
job = job_pb2.Job.FromString(data)
tell("protobuf, Python", job, *(getattr(job, name) if job.HasField(name) else None for name in ("host", "pool")))
job = Job.parse(data)
tell("betterproto2, Python", job, job.host, job.pool)
PY
cat >read.cjs <<'JS'
const data = Buffer.from(process.argv[2], 'hex')
const tell = (name, job) => console.log(`${name}: cpu ${job.limits.cpu}, memory ${job.limits.memory}, zones ${job.limits.zones}; host ${job.host || undefined}, pool ${job.pool || undefined}`)
const newest = require('./newest/node_modules/protobufjs').loadSync('job.proto').lookupType('Job')
tell('protobufjs 8', newest.toObject(newest.decode(data)))
const runner = require('./loader/node_modules/@grpc/proto-loader').loadSync('job.proto', { defaults: true, keepCase: true })
tell('@grpc/proto-loader', runner.Runner.Run.requestDeserialize(data))
tell('ts-proto', require('./loader/job.js').Job.decode(data))
JS
{
  joined=$(venv/bin/python join.py)
  venv/bin/python read.py "$joined"
  node read.cjs "$joined"
} | tee found.txt
expected=$(cat <<'TXT'
protobuf, Python: cpu 4, memory 1024, zones a,b; host None, pool many
betterproto2, Python: cpu 0, memory 1024, zones b; host one, pool many
protobufjs 8: cpu 4, memory 1024, zones a,b; host undefined, pool many
@grpc/proto-loader: cpu 0, memory 1024, zones b; host one, pool many
ts-proto: cpu 0, memory 1024, zones b; host one, pool many
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
