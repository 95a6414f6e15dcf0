package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
)

// clusterView is what the rules of one node are computed from.
type clusterView struct {
	node       string
	pods       []*v1.Pod
	namespaces map[string]labels.Set
	policies   []*networking.NetworkPolicy
}

func readCluster(
	pods corelisters.PodLister,
	namespaces corelisters.NamespaceLister,
	policies networkinglisters.NetworkPolicyLister,
	node string,
) (clusterView, error) {
	view := clusterView{node: node, namespaces: map[string]labels.Set{}}
	var err error
	if view.pods, err = pods.List(labels.Everything()); err != nil {
		return view, fmt.Errorf("listing pods: %w", err)
	}
	if view.policies, err = policies.List(labels.Everything()); err != nil {
		return view, fmt.Errorf("listing network policies: %w", err)
	}
	all, err := namespaces.List(labels.Everything())
	if err != nil {
		return view, fmt.Errorf("listing namespaces: %w", err)
	}
	for _, namespace := range all {
		view.namespaces[namespace.Name] = namespace.Labels
	}
	return view, nil
}

// ruleset applies the node's nftables table when it differs from the last one.
type ruleset struct {
	settings settings
	applied  string
}

// forget makes the next apply write the table even when nothing changed.
func (r *ruleset) forget() { r.applied = "" }

func (r *ruleset) apply(view clusterView) error {
	wanted := render(view, r.settings.podNetwork)
	if wanted == r.applied {
		return nil
	}
	// One transaction: no packet ever meets a half-written table.
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(wanted)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		return fmt.Errorf("nft refused the rules of this node: %w: %s", err, output.String())
	}
	r.applied = wanted
	return nil
}

// direction is one side of a NetworkPolicy, seen from the selected pod.
type direction struct {
	name string
	// ours and theirs are nftables' words for the pod's and its peer's address.
	ours, theirs string
}

var (
	ingress = direction{name: "ingress", ours: "daddr", theirs: "saddr"}
	egress  = direction{name: "egress", ours: "saddr", theirs: "daddr"}
)

// render writes the whole table. The forward hook sees packets after kube-proxy's
// DNAT and before its SNAT: both ends are pod addresses there. Packets between a
// node and its own pods (kubelet's probes) do not pass it, which is what the
// NetworkPolicy API demands ("always allowed").
func render(view clusterView, podNetwork *net.IPNet) string {
	var chains strings.Builder
	jumps := map[string][]string{}
	for _, pod := range localPods(view) {
		for _, way := range []direction{ingress, egress} {
			rules, isolated := rulesFor(view, pod, way)
			if !isolated {
				continue
			}
			chain := way.name + "-" + strings.ReplaceAll(pod.Status.PodIP, ".", "-")
			jumps[way.name] = append(jumps[way.name], pod.Status.PodIP+" : jump "+chain)
			// A pod always reaches itself (through its own Service too).
			fmt.Fprintf(&chains, "\tchain %s {\n\t\tip %s %s return\n", chain, way.theirs, pod.Status.PodIP)
			for _, rule := range rules {
				fmt.Fprintf(&chains, "\t\t%s\n", strings.TrimSpace(rule+" return"))
			}
			chains.WriteString("\t\tcounter drop\n\t}\n")
		}
	}
	var table strings.Builder
	// Declare, delete, declare again: replaces the table whether or not it exists.
	table.WriteString("table ip pod-network\ndelete table ip pod-network\ntable ip pod-network {\n")
	table.WriteString(chains.String())
	table.WriteString("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n")
	table.WriteString("\t\tct state established,related accept\n")
	for _, way := range []direction{egress, ingress} {
		if elements := jumps[way.name]; len(elements) > 0 {
			fmt.Fprintf(&table, "\t\tip %s vmap { %s }\n", way.ours, strings.Join(elements, ", "))
		}
	}
	table.WriteString("\t}\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n")
	fmt.Fprintf(&table, "\t\tip saddr %s ip daddr != %s counter masquerade\n\t}\n}\n", podNetwork, podNetwork)
	return table.String()
}

// localPods are the running pods of this node with an address of their own, in a
// fixed order.
func localPods(view clusterView) []*v1.Pod {
	var local []*v1.Pod
	for _, pod := range view.pods {
		if pod.Spec.NodeName == view.node && hasOwnAddress(pod) {
			local = append(local, pod)
		}
	}
	sort.Slice(local, func(i, j int) bool {
		if local[i].Status.PodIP != local[j].Status.PodIP {
			return local[i].Status.PodIP < local[j].Status.PodIP
		}
		return local[j].CreationTimestamp.Before(&local[i].CreationTimestamp)
	})
	// host-local hands an address out again as soon as the sandbox is gone, which
	// is before the old pod's object is: the newest pod owns the address.
	owners := local[:0]
	for _, pod := range local {
		if len(owners) == 0 || owners[len(owners)-1].Status.PodIP != pod.Status.PodIP {
			owners = append(owners, pod)
		}
	}
	return owners
}

// hasOwnAddress: a finished pod's address may already belong to another pod.
func hasOwnAddress(pod *v1.Pod) bool {
	finished := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
	return !pod.Spec.HostNetwork && !finished && net.ParseIP(pod.Status.PodIP).To4() != nil
}

// rulesFor returns the matches of everything that is allowed for the pod, and
// whether any policy isolates it in this direction at all.
func rulesFor(view clusterView, pod *v1.Pod, way direction) (rules []string, isolated bool) {
	for _, policy := range view.policies {
		if policy.Namespace != pod.Namespace || !applies(policy, way) ||
			!matches(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		isolated = true
		if way.name == ingress.name {
			for _, rule := range policy.Spec.Ingress {
				rules = append(rules, allowed(view, policy.Namespace, pod, way, rule.From, rule.Ports)...)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				rules = append(rules, allowed(view, policy.Namespace, pod, way, rule.To, rule.Ports)...)
			}
		}
	}
	sort.Strings(rules)
	return rules, isolated
}

func applies(policy *networking.NetworkPolicy, way direction) bool {
	if len(policy.Spec.PolicyTypes) == 0 {
		// The API server fills policyTypes in; this is its own default.
		return way.name == ingress.name || len(policy.Spec.Egress) > 0
	}
	for _, kind := range policy.Spec.PolicyTypes {
		if strings.EqualFold(string(kind), way.name) {
			return true
		}
	}
	return false
}

// allowed turns one rule of a policy into nftables matches. An empty list of
// peers means everybody, an empty list of ports every port.
func allowed(
	view clusterView, namespace string, pod *v1.Pod, way direction,
	peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort,
) []string {
	var result []string
	if len(peers) == 0 {
		for _, port := range portMatches(ports, namedPortOwner(pod, nil, way)) {
			result = append(result, strings.TrimSpace(port))
		}
		// A named port towards anywhere means the pods that have such a port.
		if way.name == egress.name && anyNamed(ports) {
			for _, peer := range view.pods {
				if hasOwnAddress(peer) {
					result = append(result, withPorts("ip daddr "+peer.Status.PodIP, named(ports), peer)...)
				}
			}
		}
		return result
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			match := fmt.Sprintf("ip %s %s", way.theirs, peer.IPBlock.CIDR)
			if len(peer.IPBlock.Except) > 0 {
				match += fmt.Sprintf(" ip %s != { %s }", way.theirs, strings.Join(peer.IPBlock.Except, ", "))
			}
			if strings.Contains(match, ":") {
				continue // an IPv6 block: this network has no IPv6
			}
			result = append(result, withPorts(match, ports, namedPortOwner(pod, nil, way))...)
			continue
		}
		for _, other := range view.pods {
			if hasOwnAddress(other) && isPeer(view, namespace, peer, other) {
				match := fmt.Sprintf("ip %s %s", way.theirs, other.Status.PodIP)
				result = append(result, withPorts(match, ports, namedPortOwner(pod, other, way))...)
			}
		}
	}
	return result
}

func isPeer(view clusterView, namespace string, peer networking.NetworkPolicyPeer, other *v1.Pod) bool {
	if peer.NamespaceSelector == nil {
		if other.Namespace != namespace {
			return false
		}
	} else if !matches(peer.NamespaceSelector, view.namespaces[other.Namespace]) {
		return false
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, other.Labels)
}

// matches: a selector the API server accepted cannot fail to parse; if one does,
// it selects nothing rather than everything.
func matches(selector *meta.LabelSelector, set labels.Set) bool {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

// namedPortOwner is the pod whose container ports a port's name refers to: the
// receiving end.
func namedPortOwner(pod, peer *v1.Pod, way direction) *v1.Pod {
	if way.name == ingress.name {
		return pod
	}
	return peer
}
