# Daemons without systemd. Sourced, after common.sh.
# shellcheck shell=bash
#
# $RUN/NAME.pid holds: pid, the process's start time, the boot it belongs to,
# and a fingerprint of its program and arguments. Pid numbers are reused and
# /run may survive a restart of the machine, so a number alone proves nothing.

BOOT=$(cat /proc/sys/kernel/random/boot_id)

# started_at PID: clock ticks since boot; empty when there is no such process.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) } # the name before it may hold spaces
  # shellcheck disable=SC2086
  set -- $stat
  [[ $1 == Z ]] || echo "${20}"
}

# running NAME: whether it runs. Sets `pid` and `made_of`.
running() {
  local start boot
  pid='' made_of=''
  [[ -s $RUN/$1.pid ]] || return 1
  read -r pid start boot made_of <"$RUN/$1.pid"
  [[ $boot == "$BOOT" && -n $start && $(started_at "$pid") == "$start" ]]
}

# start NAME COMMAND…: starts it unless exactly that command runs already; a process
# with an older binary or other arguments is replaced. With NETNS=<name> it runs in
# that network namespace. Sets `how`.
start() {
  local name=$1 want
  # CPU is scarcer than memory here: less frequent garbage collection.
  local -a inside=() setting=(env GOGC=400)
  shift
  # Not `ip netns exec`, which would mount another /sys, without the cgroups.
  [[ -z ${NETNS:-} ]] || inside=(nsenter "--net=/run/netns/$NETNS")
  # An older binary: the file was replaced since (another inode).
  want=$(fingerprint -- "$(stat -Lc '%i %Y' "$(command -v "$1")")" ${inside[@]+"${inside[@]}"} "${setting[@]}" "$@" "${RESTART_ON:-}")
  if running "$name"; then
    if [[ $made_of == "$want" ]]; then [[ ${how:-} == started ]] || how=running; return; fi
    stop "$name"
  fi
  how=started
  mkdir -p "$RUN" "$LOG"
  # Limits the size of the log.
  if [[ -f $LOG/$name.log && $(stat -c %s "$LOG/$name.log") -gt 50000000 ]]; then mv "$LOG/$name.log" "$LOG/$name.log.1"; fi
  # The child notes its own pid before it becomes the program, so that Ctrl-C
  # at any moment leaves no daemon without a pid file. setsid keeps Ctrl-C from it.
  # shellcheck disable=SC2016
  setsid bash -c '
    file=$1 boot=$2 made_of=$3; shift 3
    stat=$(cat /proc/$$/stat); stat=${stat##*) }; set -- "$stat" "$@"
    read -ra field <<<"$1"; shift
    echo "$$ ${field[19]} $boot $made_of" >"$file.new" && mv "$file.new" "$file"
    exec "$@"' "$name" "$RUN/$name.pid" "$BOOT" "$want" ${inside[@]+"${inside[@]}"} "${setting[@]}" "$@" \
    </dev/null >>"$LOG/$name.log" 2>&1 7>&- 8>&- 9>&- &
}

# stop NAME: sends SIGTERM, waits, then sends SIGKILL.
stop() {
  local name=$1 seconds=${2:-10}
  if running "$name"; then
    local mine=$pid
    kill "$mine" 2>/dev/null || true
    for ((i = 0; i < seconds * 10; i++)); do
      running "$name" || break
      sleep 0.1
    done
    if running "$name"; then kill -9 "$mine" 2>/dev/null || true; sleep 0.2; fi
  fi
  rm -f "$RUN/$name.pid"
}
