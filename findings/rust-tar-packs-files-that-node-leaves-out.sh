#!/usr/bin/env bash
# One would guess: a tar archive of a folder with a sparse file (a preallocated log, a disk image) holds the same files for every library that reads it without a complaint.
# Rust tar 0.4.46 packs sparse files as GNU's sparse entries by default; npm's tar 7.5.23 then leaves the file out and tar-stream 3.2.2 gives it without a type and its holes, both without a warning. Of GNU tar's --sparse --format=posix, npm's tar and Rust's tar unpack a file GNUSparseFile.NNN/disk with a list of numbers and no holes (tar-rs issue 295, tar-stream issue 63); Python's tarfile reads both rightly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
npm init -y >/dev/null
npm install --no-audit --no-fund --silent tar@7.5.23 tar-stream@3.2.2
mkdir -p rust/src files
cat >rust/Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
tar = "=0.4.46"
TOML
cat >rust/src/main.rs <<'RS'
use std::fs::File;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[1] == "pack" {
        let mut archive = tar::Builder::new(File::create(&arguments[2])?);
        archive.append_dir_all(".", &arguments[3])?;
        archive.finish()
    } else {
        tar::Archive::new(File::open(&arguments[2])?).unpack(&arguments[3])
    }
}
RS
(cd rust && cargo build -q)
cat >unpack.mjs <<'JS'
import fs from 'node:fs';
import { pipeline } from 'node:stream/promises';
import * as tar from 'tar';
import stream from 'tar-stream';

const [, , file, folder] = process.argv;
await tar.x({ file, cwd: folder, onwarn: (code, message) => console.log('warning:', code, message) });
const entries = stream.extract();
entries.on('entry', (header, body, next) => {
  let length = 0;
  if (header.type !== 'directory') body.on('end', () => console.log(`tar-stream: ${header.name}: ${length} bytes, type ${header.type}`));
  body.on('data', (part) => { length += part.length; });
  body.on('end', next);
});
await pipeline(fs.createReadStream(file), entries);
JS
cat >unpack.py <<'PY'
import sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    archive.extractall(sys.argv[2])
PY
printf 'first' | dd of=files/disk bs=1 conv=notrunc status=none
printf 'last' | dd of=files/disk bs=1 seek=900000 conv=notrunc status=none
truncate -s 1M files/disk
echo 'a note' >files/note
list() { (cd "$1" && find . -type f -printf '%P\n' | sort | while read -r file; do
  if cmp -s "$file" "../files/$file"; then echo "$2: $file is the same"; else echo "$2: $file has $(stat -c %s "$file") bytes"; fi
done); }
all() {
  rm -rf by-*
  mkdir by-node by-python by-rust
  node unpack.mjs "$1" by-node | sort
  /usr/bin/python3 unpack.py "$1" by-python 2>/dev/null
  rust/target/debug/demo unpack "$1" by-rust
  list by-node "npm's tar"
  list by-rust "Rust's tar"
  list by-python "Python's tarfile"
}
rust/target/debug/demo pack rust.tar files
(cd files && tar --sparse --format=posix -cf ../posix.tar disk note)
{
  echo "disk has $(stat -c %s files/disk) bytes; packed by Rust's tar:"
  all rust.tar
  echo "packed by GNU tar --sparse --format=posix:"
  all posix.tar
} | sed 's/GNUSparseFile\.[0-9]*/GNUSparseFile.NNN/' | tee found.txt
expected="disk has 1048576 bytes; packed by Rust's tar:
tar-stream: disk: 8192 bytes, type null
tar-stream: note: 7 bytes, type file
npm's tar: note is the same
Rust's tar: disk is the same
Rust's tar: note is the same
Python's tarfile: disk is the same
Python's tarfile: note is the same
packed by GNU tar --sparse --format=posix:
tar-stream: ./GNUSparseFile.NNN/disk: 8704 bytes, type file
tar-stream: note: 7 bytes, type file
npm's tar: GNUSparseFile.NNN/disk has 8704 bytes
npm's tar: note is the same
Rust's tar: GNUSparseFile.NNN/disk has 8704 bytes
Rust's tar: note is the same
Python's tarfile: disk is the same
Python's tarfile: note is the same"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
