// The local cluster's dynamic volumes: every claim of the StorageClass gets a
// folder of this machine, world-writable, so that a pod that is not root can
// use it, as it could a cloud disk with fsGroup.
//
// They are `local` volumes, not `hostPath`: for those the kubelet applies
// fsGroup, as it does on a real cluster. Their node affinity names every
// node, since all nodes of the local cluster are this machine and a pod may move.
//
// With the parameter `filesystem: xfs` a claim gets a file system of its own, in
// a sparse file beside its mount point: its size holds, and it grows in use. Not
// ext4, which grows in use only for a process with CAP_SYS_RESOURCE; machines
// like the one that this was made for lack that.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// The name that StorageClasses refer to.
const name = "servicedb.dev/folder"

// What is added to a folder's name for the file that is mounted there.
const image = ".xfs"

// What of a file system is the volume. It exists only while the file system is
// mounted: a kubelet that is earlier than the mount finds no volume and waits,
// where it would otherwise give a pod the empty folder below.
const inside = "data"

type provisioner struct{ root string }

func (p provisioner) Provision(_ context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	for _, mode := range o.PVC.Spec.AccessModes {
		if mode == v1.ReadWriteMany || mode == v1.ReadOnlyMany {
			return nil, controller.ProvisioningFinished, fmt.Errorf("access mode %s is not offered: a cloud disk would not have it either", mode)
		}
	}
	// The claim's name is in the folder's, so that a person finds it.
	path := filepath.Join(p.root, fmt.Sprintf("%s_%s_%s", o.PVC.Namespace, o.PVC.Name, o.PVName))
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	switch filesystem := o.StorageClass.Parameters["filesystem"]; filesystem {
	case "":
	case "xfs":
		if err := makeImage(path, o.PVC.Spec.Resources.Requests[v1.ResourceStorage]); err != nil {
			return nil, controller.ProvisioningFinished, err
		}
		path = filepath.Join(path, inside)
	default:
		return nil, controller.ProvisioningFinished, fmt.Errorf("file system %s is not offered", filesystem)
	}
	// MkdirAll's mode is subject to the umask.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	filesystem := v1.PersistentVolumeFilesystem
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			AccessModes:                   o.PVC.Spec.AccessModes,
			MountOptions:                  o.StorageClass.MountOptions,
			VolumeMode:                    &filesystem,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: o.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelOSStable, Operator: v1.NodeSelectorOpIn, Values: []string{"linux"}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

func (p provisioner) Delete(_ context.Context, pv *v1.PersistentVolume) error {
	if pv.Spec.Local == nil || !strings.HasPrefix(filepath.Clean(pv.Spec.Local.Path), p.root+"/") {
		return &controller.IgnoredError{Reason: "it is no folder of this provisioner"}
	}
	folder := p.folder(pv)
	if mounted(folder) {
		// The loop device goes with the last mount.
		if err := run("umount", folder); err != nil {
			return err
		}
	}
	if err := os.Remove(folder + image); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.RemoveAll(folder)
}

// folder of a volume: of one with a file system of its own, where that is mounted.
func (p provisioner) folder(pv *v1.PersistentVolume) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Clean(pv.Spec.Local.Path), p.root+"/"), "/")
	return filepath.Join(p.root, name)
}

// makeImage makes a file system of that size and mounts it; it may have been broken off before.
func makeImage(folder string, size resource.Quantity) error {
	file := folder + image
	if _, err := os.Stat(file); err != nil {
		// Whole or not at all: only then it has its name.
		fresh := file + ".new"
		if err := os.WriteFile(fresh, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(fresh, size.Value()); err != nil {
			return err
		}
		// XFS is not meant for less than 300 MiB, and would take 64 MiB for its log.
		if err := run("mkfs.xfs", "-q", "-f", "--unsupported", "-l", "size=8m", fresh); err != nil {
			return err
		}
		if err := os.Rename(fresh, file); err != nil {
			return err
		}
	}
	if err := mountImage(folder); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(folder, inside), 0o777)
}

func mountImage(folder string) error {
	if mounted(folder) {
		return nil
	}
	return run("mount", "-t", "xfs", "-o", "loop", folder+image, folder)
}

// mountAll brings back what a restart of the machine unmounted.
func (p provisioner) mountAll() {
	files, _ := filepath.Glob(filepath.Join(p.root, "*"+image))
	for _, file := range files {
		if err := mountImage(strings.TrimSuffix(file, image)); err != nil {
			klog.Error(err)
		}
	}
}

func mounted(folder string) bool { return exec.Command("mountpoint", "-q", folder).Run() == nil }

func run(command string, arguments ...string) error {
	if out, err := exec.Command(command, arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", command, strings.Join(arguments, " "), err, out)
	}
	return nil
}

// growAll looks at the claims of our file systems, and grows those that ask for
// more than they have. What failed is tried again the next time.
func (p provisioner) growAll(ctx context.Context, client kubernetes.Interface, f informers.SharedInformerFactory) {
	volumes, _ := f.Core().V1().PersistentVolumes().Lister().List(labels.Everything())
	for _, pv := range volumes {
		if pv.Spec.Local == nil || pv.Spec.ClaimRef == nil || pv.Status.Phase != v1.VolumeBound ||
			!strings.HasPrefix(pv.Spec.Local.Path, p.root+"/") || filepath.Base(pv.Spec.Local.Path) != inside {
			continue
		}
		pvc, err := f.Core().V1().PersistentVolumeClaims().Lister().PersistentVolumeClaims(pv.Spec.ClaimRef.Namespace).Get(pv.Spec.ClaimRef.Name)
		if err != nil || pvc.UID != pv.Spec.ClaimRef.UID || pvc.DeletionTimestamp != nil {
			continue
		}
		if err := p.grow(ctx, client, pv, pvc); err != nil {
			klog.Errorf("%s/%s: %v", pvc.Namespace, pvc.Name, err)
		}
	}
}

func (p provisioner) grow(ctx context.Context, client kubernetes.Interface, pv *v1.PersistentVolume, pvc *v1.PersistentVolumeClaim) error {
	want := pvc.Spec.Resources.Requests[v1.ResourceStorage]
	have, told := pv.Spec.Capacity[v1.ResourceStorage], pvc.Status.Capacity[v1.ResourceStorage]
	if want.Cmp(have) > 0 {
		if err := growImage(p.folder(pv), want.Value()); err != nil {
			return err
		}
		capacity := map[string]any{"spec": map[string]any{"capacity": map[string]any{"storage": want.String()}}}
		if _, err := client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, encode(capacity), metav1.PatchOptions{}); err != nil {
			return err
		}
		klog.Infof("%s/%s: grown from %s to %s", pvc.Namespace, pvc.Name, have.String(), want.String())
		have = want
	}
	// Of a claim that no pod uses, no kubelet tells that it has grown.
	if pvc.Status.Phase != v1.ClaimBound || told.Cmp(have) >= 0 {
		return nil
	}
	others := []v1.PersistentVolumeClaimCondition{}
	for _, condition := range pvc.Status.Conditions {
		switch condition.Type {
		case v1.PersistentVolumeClaimResizing, v1.PersistentVolumeClaimFileSystemResizePending,
			v1.PersistentVolumeClaimControllerResizeError, v1.PersistentVolumeClaimNodeResizeError:
		default:
			others = append(others, condition)
		}
	}
	status := map[string]any{
		// Or what a kubelet added since would be lost.
		"metadata": map[string]any{"resourceVersion": pvc.ResourceVersion},
		"status":   map[string]any{"capacity": map[string]any{"storage": have.String()}, "conditions": others},
	}
	_, err := client.CoreV1().PersistentVolumeClaims(pvc.Namespace).Patch(ctx, pvc.Name, types.MergePatchType, encode(status), metav1.PatchOptions{}, "status")
	return err
}

// growImage: the file, then the loop device, then the file system; while it is in use.
func growImage(folder string, size int64) error {
	if info, err := os.Stat(folder + image); err != nil || info.Size() < size {
		if err := os.Truncate(folder+image, size); err != nil {
			return err
		}
	}
	device, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "--mountpoint", folder).Output()
	if err != nil {
		return fmt.Errorf("%s is not mounted: %w", folder, err)
	}
	if err := run("losetup", "-c", strings.TrimSpace(string(device))); err != nil {
		return err
	}
	return run("xfs_growfs", folder)
}

func encode(patch any) []byte {
	data, err := json.Marshal(patch)
	if err != nil {
		panic(err)
	}
	return data
}

func main() {
	klog.InitFlags(nil)
	kubeconfig := flag.String("kubeconfig", "", "how to reach the cluster")
	root := flag.String("root", "", "where the folders are made")
	flag.Parse()
	if *root == "" || !filepath.IsAbs(*root) {
		klog.Fatal("--root must be an absolute path")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatal(err)
	}
	// Ten databases at once must not wait for the client's own throttle.
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		klog.Fatal(err)
	}
	p := provisioner{filepath.Clean(*root)}
	// Pods wait for them.
	p.mountAll()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := controller.NewProvisionController(ctx, client, name, p,
		controller.LeaderElection(false),
		controller.Threadiness(16),
		controller.ResyncPeriod(time.Minute),
		// The library waits 15 s before it tries a claim again.
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 5*time.Second)),
	)
	f := informers.NewSharedInformerFactory(client, 0)
	f.Core().V1().PersistentVolumes().Informer()
	f.Core().V1().PersistentVolumeClaims().Informer()
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	// From the informers' memory, so a second is cheap.
	go wait.UntilWithContext(ctx, func(ctx context.Context) { p.growAll(ctx, client, f) }, time.Second)
	c.Run(ctx)
}
