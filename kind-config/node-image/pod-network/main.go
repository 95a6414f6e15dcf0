// Command pod-network is the node agent of the lab's kind node image: it gives
// the pods of a node their network and enforces NetworkPolicy.
//
// It does what a cluster needs whose nodes share one layer-2 network, and no
// more: the CNI configuration of the node from its podCIDR, one route per other
// node, masquerading of traffic that leaves the pod network, and NetworkPolicy
// as nftables rules in the node's forward hook.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// settings come from the DaemonSet's environment.
type settings struct {
	nodeName string
	// podNetwork is the range of all pods of the cluster (kind's podSubnet).
	podNetwork *net.IPNet
	// apiServer is host:port of the API server. The agent cannot use the
	// kubernetes Service: it must work before kube-proxy does.
	apiServer string
	// cniDirectory is where containerd looks for the CNI configuration.
	cniDirectory string
}

func settingsFromEnvironment() (settings, error) {
	s := settings{
		nodeName:     os.Getenv("NODE_NAME"),
		apiServer:    os.Getenv("CONTROL_PLANE_ENDPOINT"),
		cniDirectory: "/etc/cni/net.d",
	}
	if s.nodeName == "" {
		return s, fmt.Errorf("NODE_NAME is not set: the DaemonSet must pass spec.nodeName")
	}
	_, podNetwork, err := net.ParseCIDR(os.Getenv("POD_SUBNET"))
	if err != nil {
		return s, fmt.Errorf("POD_SUBNET must be one IPv4 range, as kind fills it in: %w", err)
	}
	if podNetwork.IP.To4() == nil {
		return s, fmt.Errorf("POD_SUBNET %s: only IPv4 clusters are supported", podNetwork)
	}
	s.podNetwork = podNetwork
	return s, nil
}

func run(ctx context.Context) error {
	s, err := settingsFromEnvironment()
	if err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("reading the service account of this pod: %w", err)
	}
	if s.apiServer != "" {
		config.Host = "https://" + s.apiServer
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("building the API client: %w", err)
	}

	factory := informers.NewSharedInformerFactory(client, 0)
	nodes := factory.Core().V1().Nodes()
	pods := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()

	// One slot: any number of events between two passes cost one pass.
	nodesChanged := make(chan struct{}, 1)
	rulesChanged := make(chan struct{}, 1)
	for _, watch := range []struct {
		informer cache.SharedIndexInformer
		changed  chan struct{}
	}{
		{nodes.Informer(), nodesChanged},
		{pods.Informer(), rulesChanged},
		{namespaces.Informer(), rulesChanged},
		{policies.Informer(), rulesChanged},
	} {
		notify := func() {
			select {
			case watch.changed <- struct{}{}:
			default:
			}
		}
		if _, err := watch.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		}); err != nil {
			return fmt.Errorf("watching the API: %w", err)
		}
	}
	factory.Start(ctx.Done())
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("the first listing of %v did not finish", kind)
		}
	}
	fmt.Printf("pod-network: node %s, pod network %s, API server %s\n", s.nodeName, s.podNetwork, config.Host)

	routes := router{settings: s}
	rules := ruleset{settings: s}
	// Routes and rules that somebody else removed come back after this long.
	repair := time.NewTicker(30 * time.Second)
	defer repair.Stop()
	// Rules are applied before the CNI configuration is written: no pod starts
	// on this node while policies are not enforced.
	doRoutes, doRules := true, true
	for {
		if doRules {
			view, err := readCluster(pods.Lister(), namespaces.Lister(), policies.Lister(), s.nodeName)
			if err == nil {
				err = rules.apply(view)
			}
			if err != nil {
				return err
			}
		}
		if doRoutes {
			if err := routes.apply(nodes.Lister()); err != nil {
				// Not fatal: a node that has no podCIDR yet gets one soon, and
				// every change of a node object comes by here again.
				fmt.Fprintf(os.Stderr, "pod-network: %v\n", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-nodesChanged:
			doRoutes, doRules = true, false
		case <-rulesChanged:
			doRoutes, doRules = false, true
		case <-repair.C:
			doRoutes, doRules = true, true
			rules.forget()
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "pod-network: %v\n", err)
		os.Exit(1)
	}
}
