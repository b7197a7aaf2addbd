#!/usr/bin/env bash
# One would guess: tomlkit, the library that edits TOML and keeps its layout, writes the document that it holds: what the program reads from the object after an edit is what every reader finds in the file.
# tomlkit 0.15.2: where a table has dotted keys (pool.size = 5), a table or a list of tables set beside them, by assignment or update(), is written as [pool.limits] among the lines of [database], and those that follow, the user and the password's file, are in it from then on; the new table itself is no longer in [database] but beside it. The text is valid TOML, the object in memory is right, and there is no error or warning (tomlkit issue 495, mended, was about inline tables). Taking the only table out of another loses that one too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q tomlkit==0.15.2
cat >edit.py <<'PY'
import json, tomllib
import tomlkit

def tell(name, document):
    print(f"{name}\n  in memory:    {json.dumps(document.unwrap())}\n  in the file:  {json.dumps(tomllib.loads(tomlkit.dumps(document)))}")

text = """[database]
host = "db.example"
pool.size = 5
pool.timeout = 30
user = "shop"
password-file = "/run/password"
"""
document = tomlkit.parse(text)
document["database"]["pool"]["idle"] = 2
tell("a number beside dotted keys", document)
document = tomlkit.parse(text)
document["database"]["pool"]["limits"] = {"idle": 2}
tell("a table beside dotted keys", document)
print(tomlkit.dumps(document).rstrip())
document = tomlkit.parse(text)
document["database"]["pool"].update({"limits": [{"idle": 2}]})
tell("a list of tables beside dotted keys", document)
document = tomlkit.parse("[server.tls]\nport = 443\n")
del document["server"]["tls"]
tell("the only table of a table taken out", document)
PY
venv/bin/python edit.py | tee found.txt
expected=$(cat <<'TXT'
a number beside dotted keys
  in memory:    {"database": {"host": "db.example", "pool": {"size": 5, "idle": 2, "timeout": 30}, "user": "shop", "password-file": "/run/password"}}
  in the file:  {"database": {"host": "db.example", "pool": {"size": 5, "idle": 2, "timeout": 30}, "user": "shop", "password-file": "/run/password"}}
a table beside dotted keys
  in memory:    {"database": {"host": "db.example", "pool": {"size": 5, "limits": {"idle": 2}, "timeout": 30}, "user": "shop", "password-file": "/run/password"}}
  in the file:  {"database": {"host": "db.example", "pool": {"size": 5}}, "pool": {"limits": {"idle": 2, "pool": {"timeout": 30}, "user": "shop", "password-file": "/run/password"}}}
[database]
host = "db.example"
pool.size = 5

[pool.limits]
idle = 2
pool.timeout = 30
user = "shop"
password-file = "/run/password"
a list of tables beside dotted keys
  in memory:    {"database": {"host": "db.example", "pool": {"size": 5, "limits": [{"idle": 2}], "timeout": 30}, "user": "shop", "password-file": "/run/password"}}
  in the file:  {"database": {"host": "db.example", "pool": {"size": 5}}, "pool": {"limits": [{"idle": 2, "pool": {"timeout": 30}, "user": "shop", "password-file": "/run/password"}]}}
the only table of a table taken out
  in memory:    {"server": {}}
  in the file:  {}
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
