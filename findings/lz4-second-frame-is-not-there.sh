#!/usr/bin/env bash
# One would guess: a file of several LZ4 frames, as `lz4 >>` makes it and the format's specification allows, is read to its end by every library, or refused.
# Of three frames Go's pierrec/lz4 4.1.33, pyarrow 26.0.1 and lz4.frame.open of Python's lz4 4.4.5 give all; lz4.frame.decompress of the same package, Rust's lz4_flex 0.14.2 (read_to_string and lines, Ok) and npm's lz4js 0.2.0 give the first and leave the others out, without an error: a third of the log (lz4_flex pull request 206 would add a reader of more).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
/usr/bin/python3 -m venv venv
venv/bin/pip install -q lz4==4.4.5 pyarrow==26.0.1
npm init -y >/dev/null
npm install --no-audit --no-fund --silent lz4js@0.2.0
mkdir -p go rust/src
cat >go/main.go <<'GO'
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/pierrec/lz4/v4"
)

func main() {
	text, err := io.ReadAll(lz4.NewReader(os.Stdin))
	fmt.Println("Go pierrec/lz4:", bytes.Count(text, []byte("\n")), "lines, error:", err)
}
GO
(cd go && go mod init demo && go get github.com/pierrec/lz4/v4@v4.1.33 && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >rust/Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
lz4_flex = "=0.14.2"
TOML
cat >rust/src/main.rs <<'RS'
use std::io::{BufRead, BufReader, Read};

fn main() {
    let file = std::env::args().nth(1).unwrap();
    let open = || lz4_flex::frame::FrameDecoder::new(std::fs::File::open(&file).unwrap());
    let mut text = String::new();
    let result = open().read_to_string(&mut text).map(|_| ());
    println!("Rust lz4_flex, read_to_string: {} lines, {result:?}", text.lines().count());
    println!("Rust lz4_flex, lines: {}", BufReader::new(open()).lines().map_while(Result::ok).count());
}
RS
(cd rust && cargo build -q)
cat >make.py <<'PY'
import lz4.frame
with open("log.lz4", "wb") as file:
    for day in range(3):
        file.write(lz4.frame.compress("".join(f"day {day}, line {line}\n" for line in range(1000)).encode()))
PY
cat >read.py <<'PY'
import lz4.frame, pyarrow
file = open("log.lz4", "rb").read()
print("Python lz4.frame.open:", lz4.frame.open("log.lz4").read().count(b"\n"), "lines")
print("Python lz4.frame.decompress:", lz4.frame.decompress(file).count(b"\n"), "lines")
print("Python pyarrow:", pyarrow.input_stream("log.lz4", compression="lz4").read().count(b"\n"), "lines")
PY
cat >read.mjs <<'JS'
import fs from 'node:fs';
import lz4 from 'lz4js';

console.log('npm lz4js:', Buffer.from(lz4.decompress(fs.readFileSync('log.lz4'))).toString().split('\n').length - 1, 'lines');
JS
venv/bin/python make.py
{
  go/demo <log.lz4
  venv/bin/python read.py
  rust/target/debug/demo log.lz4
  node read.mjs
} | tee found.txt
expected='Go pierrec/lz4: 3000 lines, error: <nil>
Python lz4.frame.open: 3000 lines
Python lz4.frame.decompress: 1000 lines
Python pyarrow: 3000 lines
Rust lz4_flex, read_to_string: 1000 lines, Ok(())
Rust lz4_flex, lines: 1000
npm lz4js: 1000 lines'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
