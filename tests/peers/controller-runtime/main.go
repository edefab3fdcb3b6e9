// The plugin hello as an operator of its own, as kubebuilder's book writes one: the text of each Hello goes into a ConfigMap
// of the same name. What Reef is measured against.
//
// Default settings, unless --workers says how many objects are reconciled at once; then the other two usual measures are taken
// too: only a new generation of a Hello wakes it, and the client's own rate limit is off.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// HelloReconciler writes the text of each Hello into a ConfigMap of the same name.
type HelloReconciler struct {
	client.Client
	Scheme *runtime.Scheme
	count  atomic.Int64
}

func (r *HelloReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	defer r.count.Add(1)
	var hello Hello
	if err := r.Get(ctx, request.NamespacedName, &hello); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: hello.Namespace, Name: hello.Name}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, config, func() error {
		config.Data = map[string]string{"text": hello.Spec.Text}
		return controllerutil.SetControllerReference(&hello, config, r.Scheme, controllerutil.WithBlockOwnerDeletion(false))
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	changed := meta.SetStatusCondition(&hello.Status.Conditions, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionTrue, ObservedGeneration: hello.Generation,
		Reason: "Written", Message: "the text is in the ConfigMap of the same name",
	})
	if hello.Status.Text != hello.Spec.Text {
		hello.Status.Text, changed = hello.Spec.Text, true
	}
	if changed {
		if err := r.Status().Update(ctx, &hello); err != nil {
			if apierrors.IsConflict(err) {
				log.FromContext(ctx).V(1).Info("changed meanwhile, once more")
				return ctrl.Result{RequeueAfter: time.Millisecond}, nil
			}
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{}, nil
}

func (r *HelloReconciler) setup(manager ctrl.Manager, workers int) error {
	var hellos []builder.ForOption
	var options controller.Options
	if workers > 0 {
		hellos = append(hellos, builder.WithPredicates(predicate.GenerationChangedPredicate{}))
		options.MaxConcurrentReconciles = workers
	}
	return ctrl.NewControllerManagedBy(manager).
		For(&Hello{}, hellos...).
		Owns(&corev1.ConfigMap{}).
		WithOptions(options).
		Complete(r)
}

func run() error {
	namespace := flag.String("namespace", "", "whose Hellos are reconciled")
	workers := flag.Int("workers", 0, "objects reconciled at once; 0: everything as it is by default")
	flag.Parse() // also --kubeconfig
	ctrl.SetLogger(zap.New())
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	AddToScheme(scheme)
	config := ctrl.GetConfigOrDie()
	if *workers > 0 {
		config.QPS = -1
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{*namespace: {}}},
		Metrics: server.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	reconciler := &HelloReconciler{Client: manager.GetClient(), Scheme: scheme}
	if err := reconciler.setup(manager, *workers); err != nil {
		return err
	}
	go report(&reconciler.count)
	return manager.Start(ctrl.SetupSignalHandler())
}

// report says how many reconciles there were, whenever there are more: the benchmark waits for them.
func report(count *atomic.Int64) {
	said := int64(0)
	for range time.Tick(200 * time.Millisecond) {
		if now := count.Load(); now != said {
			fmt.Println("reconciles", now)
			said = now
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
