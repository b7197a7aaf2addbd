#!/usr/bin/env bash
# Builds the Go programs of dev/*/ into target/dev/bin: build.sh NAME…
# A program is rebuilt only when its sources have changed.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

command -v go >/dev/null || fail "Go is needed (1.26 or newer)"
mkdir -p "$BIN"

build() {
  local name=$1 dir=$ROOT/dev/$1 package=. stamp=$BIN/.$1.stamp want
  local -a flags=(-trimpath) # no paths of this machine in the program
  local ldflags='-s -w'
  case $name in
  kubernetes)
    flags+=(-tags "providerless,dockerless")
    # Without its version every component reports v0.0.0.
    local v=k8s.io/component-base/version
    ldflags+=" -X $v.gitVersion=v$KUBERNETES_VERSION -X $v.gitTreeState=clean"
    ldflags+=" -X $v.gitMajor=${KUBERNETES_VERSION%%.*} -X $v.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION")"
    ;;
  helm) package=helm.sh/helm/v4/cmd/helm ;;
  versitygw) package=github.com/versity/versitygw/cmd/versitygw ;;
  goose)
    package=github.com/pressly/goose/v3/cmd/goose
    # For PostgreSQL only.
    flags+=(-tags "no_clickhouse no_libsql no_mssql no_mysql no_sqlite3 no_vertica no_ydb no_duckdb no_spanner")
    ;;
  esac
  local -a sources=("$dir/go.mod" "$dir/go.sum")
  local source
  for source in "$dir"/*.go; do [[ ! -f $source ]] || sources+=("$source"); done
  want=$(cd "$dir" && fingerprint "${sources[@]##*/}" -- "${flags[@]}" "$ldflags" "$(go env GOVERSION)")
  if [[ -x $BIN/$name && $(cat "$stamp" 2>/dev/null) == "$want" ]]; then
    how=reused
  else
    # Static, for images without a libc. Built to another name and renamed: an
    # interrupted build leaves the old program intact.
    (cd "$dir" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build "${flags[@]}" -ldflags "$ldflags" -o "$BIN/.$name.new" "$package")
    mv -f "$BIN/.$name.new" "$BIN/$name"
    echo "$want" >"$stamp"
    how=built
  fi
  # kubectl and kubeadm by their own names, for users.
  if [[ $name == kubernetes ]]; then
    for link in kubectl kubeadm; do ln -sfn kubernetes "$BIN/$link"; done
  fi
}

for name in "$@"; do step "$name program" build "$name"; done
