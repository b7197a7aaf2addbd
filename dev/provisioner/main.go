// The local cluster's dynamic volumes: every claim of the StorageClass gets a
// folder of this machine, world-writable, so that a pod that is not root can
// use it, as it could a cloud disk with fsGroup.
//
// They are `local` volumes, not `hostPath`: for those the kubelet applies
// fsGroup, as it does on a real cluster. Their node affinity names every
// node, since all nodes of the local cluster are this machine and a pod may move.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// The name that StorageClasses refer to.
const name = "servicedb.dev/folder"

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
	return os.RemoveAll(filepath.Clean(pv.Spec.Local.Path))
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := controller.NewProvisionController(ctx, client, name, provisioner{filepath.Clean(*root)},
		controller.LeaderElection(false),
		controller.Threadiness(16),
		controller.ResyncPeriod(time.Minute),
		// The library waits 15 s before it tries a claim again.
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 5*time.Second)),
	)
	c.Run(ctx)
}
