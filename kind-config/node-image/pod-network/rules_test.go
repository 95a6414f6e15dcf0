package main

import (
	"net"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(namespace, name, node, address string, set map[string]string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: name, Labels: set},
		Spec: v1.PodSpec{NodeName: node, Containers: []v1.Container{{
			Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: v1.ProtocolTCP}},
		}}},
		Status: v1.PodStatus{Phase: v1.PodRunning, PodIP: address},
	}
}

func policy(selector map[string]string, spec networking.NetworkPolicySpec) *networking.NetworkPolicy {
	spec.PodSelector = meta.LabelSelector{MatchLabels: selector}
	return &networking.NetworkPolicy{ObjectMeta: meta.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: spec}
}

func table(policies ...*networking.NetworkPolicy) string {
	view := clusterView{
		node: "n1",
		pods: []*v1.Pod{
			pod("shop", "server", "n1", "10.244.0.5", map[string]string{"app": "server"}),
			pod("shop", "near", "n1", "10.244.0.6", map[string]string{"role": "friend"}),
			pod("shop", "far", "n2", "10.244.1.7", map[string]string{"role": "friend"}),
			pod("gateway", "gateway", "n2", "10.244.1.8", map[string]string{"role": "friend"}),
		},
		namespaces: map[string]labels.Set{"shop": {"team": "shop"}, "gateway": {"team": "edge"}},
		policies:   policies,
	}
	_, network, _ := net.ParseCIDR("10.244.0.0/16")
	return render(view, network)
}

// chainOf returns the lines of one pod's chain, "" when there is none.
func chainOf(table, name string) string {
	_, rest, found := strings.Cut(table, "\tchain "+name+" {\n")
	if !found {
		return ""
	}
	body, _, _ := strings.Cut(rest, "\t}\n")
	return strings.ReplaceAll(body, "\t", "")
}

func friends() networking.NetworkPolicyPeer {
	return networking.NetworkPolicyPeer{PodSelector: &meta.LabelSelector{MatchLabels: map[string]string{"role": "friend"}}}
}

func port(value intstr.IntOrString) []networking.NetworkPolicyPort {
	return []networking.NetworkPolicyPort{{Port: &value}}
}

func expectChain(t *testing.T, table, name string, lines ...string) {
	t.Helper()
	want := strings.Join(lines, "\n") + "\n"
	if got := chainOf(table, name); got != want {
		t.Errorf("chain %s:\n%swant:\n%s", name, got, want)
	}
}

func TestNoPolicyIsolatesNobody(t *testing.T) {
	if got := table(); strings.Contains(got, "drop") || strings.Contains(got, "vmap") {
		t.Errorf("a cluster without policies must not filter:\n%s", got)
	}
}

func TestIngressFromPodsOfTheSameNamespace(t *testing.T) {
	got := table(policy(map[string]string{"app": "server"}, networking.NetworkPolicySpec{
		PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress},
		Ingress: []networking.NetworkPolicyIngressRule{{
			From: []networking.NetworkPolicyPeer{friends()}, Ports: port(intstr.FromString("http")),
		}},
	}))
	expectChain(t, got, "ingress-10-244-0-5",
		"ip saddr 10.244.0.5 return",
		"ip saddr 10.244.0.6 tcp dport 8080 return",
		"ip saddr 10.244.1.7 tcp dport 8080 return",
		"counter drop")
	if !strings.Contains(got, "ip daddr vmap { 10.244.0.5 : jump ingress-10-244-0-5 }") {
		t.Errorf("only the server's ingress may be filtered:\n%s", got)
	}
	if strings.Contains(got, "egress-") {
		t.Errorf("a policy of type Ingress must leave egress open:\n%s", got)
	}
}

func TestNamespaceSelectorReachesOtherNamespaces(t *testing.T) {
	edge := networking.NetworkPolicyPeer{NamespaceSelector: &meta.LabelSelector{MatchLabels: map[string]string{"team": "edge"}}}
	got := table(policy(map[string]string{"app": "server"}, networking.NetworkPolicySpec{
		PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress},
		Ingress:     []networking.NetworkPolicyIngressRule{{From: []networking.NetworkPolicyPeer{edge}}},
	}))
	expectChain(t, got, "ingress-10-244-0-5",
		"ip saddr 10.244.0.5 return", "ip saddr 10.244.1.8 return", "counter drop")
}

func TestDenyAllLeavesOnlyThePodItself(t *testing.T) {
	got := table(policy(nil, networking.NetworkPolicySpec{
		PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress},
	}))
	expectChain(t, got, "ingress-10-244-0-6", "ip saddr 10.244.0.6 return", "counter drop")
	expectChain(t, got, "egress-10-244-0-6", "ip daddr 10.244.0.6 return", "counter drop")
	if strings.Contains(got, "10-244-1-7") {
		t.Errorf("pods of other nodes are filtered there, not here:\n%s", got)
	}
}

func TestEgressPortsRangesAndBlocks(t *testing.T) {
	end := int32(9000)
	from := intstr.FromInt32(8000)
	udp := v1.ProtocolUDP
	got := table(policy(map[string]string{"app": "server"}, networking.NetworkPolicySpec{
		PolicyTypes: []networking.PolicyType{networking.PolicyTypeEgress},
		Egress: []networking.NetworkPolicyEgressRule{
			{
				To: []networking.NetworkPolicyPeer{{IPBlock: &networking.IPBlock{
					CIDR: "192.0.2.0/24", Except: []string{"192.0.2.9/32"},
				}}},
				Ports: []networking.NetworkPolicyPort{{Port: &from, EndPort: &end}},
			},
			{Ports: []networking.NetworkPolicyPort{{Protocol: &udp}}},
		},
	}))
	expectChain(t, got, "egress-10-244-0-5",
		"ip daddr 10.244.0.5 return",
		"ip daddr 192.0.2.0/24 ip daddr != { 192.0.2.9/32 } tcp dport 8000-9000 return",
		"meta l4proto udp return",
		"counter drop")
}

func TestAnEmptyRuleAllowsEverything(t *testing.T) {
	got := table(policy(map[string]string{"app": "server"}, networking.NetworkPolicySpec{
		PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress},
		Ingress:     []networking.NetworkPolicyIngressRule{{}},
	}))
	expectChain(t, got, "ingress-10-244-0-5", "ip saddr 10.244.0.5 return", "return", "counter drop")
}

func TestAnAddressBelongsToItsNewestPod(t *testing.T) {
	older := pod("shop", "old", "n1", "10.244.0.5", map[string]string{"app": "old"})
	newer := pod("shop", "new", "n1", "10.244.0.5", map[string]string{"app": "new"})
	newer.CreationTimestamp = meta.Now()
	local := localPods(clusterView{node: "n1", pods: []*v1.Pod{older, newer}})
	if len(local) != 1 || local[0].Name != "new" {
		t.Errorf("one owner per address, the newest, not %d", len(local))
	}
}
