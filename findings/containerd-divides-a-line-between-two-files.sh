#!/usr/bin/env bash
# One would guess: where the kubelet begins another file of a container's log, one file ends with a whole line and the next begins with one, if the program writes each line whole.
# containerd 2.1.9: reopened with lines in its pipe, it divides the one that it has read in part: its beginning ends the old file as a partial line (P), its rest is the new file's first line, which says that it is full (F). One file no longer tells: the kubelet's own reader (k8s.io/cri-client 0.36.3, kubectl logs) begins with the rest as if it were a line, so a line of JSON is no JSON in either file. Only who joins the lines of two files has it whole; without rotation, or when lines come slowly, none is divided.
set -euo pipefail
[[ $(id -u) == 0 ]] || { echo "containers need root" >&2; exit 1; }
folder=$(mktemp -d)
shims() { pgrep -f -- "-address $folder/containerd.sock"; }
end() {
  if [[ -e $folder/pid ]]; then
    # containerd itself clears up after containers that are still there.
    cat "$folder"/state/*/k8s.io/*/init.pid 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    for _ in {1..50}; do shims >/dev/null || break; sleep 0.2; done
    shims | xargs -r kill -9 || true
    kill "$(<"$folder/pid")" 2>/dev/null || true
    wait
  fi
  awk -v folder="$folder/" 'index($5, folder) == 1 {print $5}' /proc/self/mountinfo | sort -r | xargs -r -n 1 umount -l
  rmdir /sys/fs/cgroup/{,*/}"${folder##*/}" 2>/dev/null || true
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 1' INT TERM
cd "$folder"
# The machine's runc, or that of its release: it is not what is looked at.
mkdir -p apt/lists/partial apt/cache/archives/partial apt/none debian logs
runc=$(command -v runc) || { (cd apt && apt-get -qq download runc >/dev/null) && dpkg -x apt/runc_*.deb debian && runc=$folder/debian/usr/sbin/runc; }
# Debian's testing package from the machine's own mirror, unpacked beside the machine's.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$')
touch apt/status
echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::State::lists "$folder/apt/lists"; Dir::State::status "$folder/apt/status"; Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list"; Dir::Etc::sourceparts "$folder/apt/none"; Dir::Etc::preferencesparts "$folder/apt/none";
APT::Sandbox::User "root"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Languages "none";
CONF
export APT_CONFIG=$folder/apt/apt.conf
apt-get -qq update
(cd apt && apt-get -qq download containerd=2.1.9+ds1-5 >/dev/null)
dpkg -x apt/containerd_*.deb debian
export PATH=$folder/debian/usr/bin:$PATH
mkdir print client
cat >go.mod <<'MOD'
module demo

go 1.26

require (
	google.golang.org/grpc v1.79.3
	k8s.io/cri-api v0.36.3
	k8s.io/cri-client v0.36.3
)
MOD
cat >print/main.go <<'GO'
// print LINES PAUSE: so many numbered lines of JSON, each in one write, with a pause after each. Without arguments it holds a sandbox.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 1 {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		<-stop
		return
	}
	lines, _ := strconv.Atoi(os.Args[1])
	pause, _ := time.ParseDuration(os.Args[2])
	text := strings.Repeat("abcdefghij", 15)
	for number := 1; number <= lines; number++ {
		line := fmt.Sprintf("{\"number\":%d,\"text\":\"%s\"}\n", number, text)
		if n, err := syscall.Write(1, []byte(line)); err != nil || n != len(line) {
			os.Exit(1)
		}
		time.Sleep(pause)
	}
}
GO
cat >client/main.go <<'GO'
// client SOCKET LOGS LIMIT ROTATIONS ARGUMENT …: runs print and lets its log begin another file as the kubelet does, whenever it has LIMIT bytes. Then reads the last file as `kubectl logs` does.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	reader "k8s.io/cri-client/pkg/logs"
)

// check panics, so that the sandbox is removed.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	logs := os.Args[2]
	limit, err := strconv.ParseInt(os.Args[3], 10, 64)
	check(err)
	rotations, err := strconv.Atoi(os.Args[4])
	check(err)
	connection, err := grpc.NewClient("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	runtime := cri.NewRuntimeServiceClient(connection)
	host := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}
	unconfined := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: filepath.Base(logs), Namespace: "demo", Uid: filepath.Base(logs)},
		LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    "/" + filepath.Base(filepath.Dir(filepath.Dir(logs))),
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: host, Seccomp: unconfined},
		},
	}
	sandbox, err := runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	check(err)
	defer func() {
		_, err := runtime.StopPodSandbox(context.Background(), &cri.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		check(err)
		_, err = runtime.RemovePodSandbox(context.Background(), &cri.RemovePodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		check(err)
	}()
	container, err := runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId:  sandbox.PodSandboxId,
		SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "print"},
			Image:    &cri.ImageSpec{Image: "localhost/demo:1"},
			Args:     os.Args[5:],
			LogPath:  "0.log",
			Linux: &cri.LinuxContainerConfig{
				SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: host, Seccomp: unconfined},
			},
		},
	})
	check(err)
	_, err = runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container.ContainerId})
	check(err)
	log := filepath.Join(logs, "0.log")
	for done := 0; done < rotations; {
		if info, err := os.Stat(log); err == nil && info.Size() >= limit {
			done++
			check(os.Rename(log, fmt.Sprintf("%s.%d", log, done)))
			_, err = runtime.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: container.ContainerId})
			check(err)
		}
		check(ctx.Err())
		time.Sleep(time.Millisecond)
	}
	for {
		answer, err := runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: container.ContainerId})
		check(err)
		if answer.Status.State == cri.ContainerState_CONTAINER_EXITED {
			if answer.Status.ExitCode != 0 {
				check(fmt.Errorf("print ended with %d", answer.Status.ExitCode))
			}
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(time.Second)
	read, err := os.Create(filepath.Join(logs, "read"))
	check(err)
	check(reader.ReadLogs(ctx, log, container.ContainerId, &reader.LogOptions{}, nil, read, os.Stderr))
	check(read.Close())
}
GO
cat >look.py <<'PY'
import json
import sys
from pathlib import Path


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


logs, lines, rotations = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
files = [[line.split(" ", 3)[2:] for line in (logs / name).read_text().splitlines()]
         for name in [f"0.log.{n}" for n in range(1, rotations + 1)] + ["0.log"]]
divided = 0
for old, new in zip(files, files[1:]):
    if not is_json(old[-1][1]):
        divided += 1
        if divided == 1:
            print("  old file's last line: ", *old[-1])
            print("  new file's first line:", *new[0])
print("  no JSON, by tag:", {tag: sum(t == tag and not is_json(text) for file in files for t, text in file) for tag in "PF"})
joined, begun = [], ""
for tag, text in (line for file in files for line in file):
    begun += text
    if tag == "F":
        joined.append(begun)
        begun = ""
whole = [json.loads(line)["number"] for line in joined] == list(range(1, lines + 1)) and not begun
print("  joined over the files, every line is whole:", whole)
read = (logs / "read").read_text().splitlines()
print("  kubectl logs begins with a whole line:", is_json(read[0]))
Path(logs / "found").write_text(f"{divided} {sum(not is_json(text) for file in files for _, text in file)} {whole} {is_json(files[-1][0][1]) == is_json(read[0])}\n")
PY
mkdir image
CGO_ENABLED=0 go build -mod=mod -o image/ ./print ./client 2>go.log || { tail -n 5 go.log; exit 1; }
# An image of one program, as `docker save` would write it.
tar -C image -cf image/layer.tar print
echo '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/print"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$(sha256sum image/layer.tar | cut -d' ' -f1)"'"]}}' >image/config.json
echo '[{"Config":"config.json","RepoTags":["localhost/demo:1"],"Layers":["layer.tar"]}]' >image/manifest.json
cat >containerd.toml <<TOML
version = 3
root = "$folder/root"
state = "$folder/state"
[grpc]
  address = "$folder/containerd.sock"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "$folder/none"
[plugins."io.containerd.internal.v1.opt"]
  path = "$folder/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "localhost/demo:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = "$folder/none"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "$runc"
      Root = "$folder/runc"
TOML
containerd --config containerd.toml >containerd.log 2>&1 &
echo $! >pid
client=(ctr -a "$folder/containerd.sock" -n k8s.io)
for _ in {1..100}; do "${client[@]}" version >/dev/null 2>&1 && break; sleep 0.2; done
tar -C image -cf - manifest.json config.json layer.tar | "${client[@]}" images import --local --snapshotter native - >/dev/null
containerd --version | cut -d' ' -f1,3
# run NAME LIMIT ROTATIONS LINES PAUSE
run() {
  echo "$4 lines, a pause of $5 after each, $3 rotations:"
  image/client "$folder/containerd.sock" "$folder/logs/$1" "$2" "$3" "$4" "$5"
  /usr/bin/python3 look.py "logs/$1" "$4" "$3"
}
run fast 1000000 5 100000 0s
run kept 1000000 0 100000 0s
run slow 20000 5 600 5ms
# How many of the five divide a line depends on the moment.
read -r divided broken whole same <logs/fast/found
((divided >= 1 && broken == 2 * divided)) && [[ "$whole $same" == "True True" && $(<logs/kept/found) == "0 0 True True" && $(<logs/slow/found) == "0 0 True True" ]] ||
  { echo "this has changed" >&2; exit 1; }
