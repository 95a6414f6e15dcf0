#!/bin/bash
# Proves that a cluster of the lab's node image works: DNS, Services, traffic
# between nodes and from the host, NetworkPolicy, exec, logs and port-forward.
#
#   check-cluster.sh [--context kind-NAME] [--image IMAGE]
#
# Everything happens in the namespace node-image-check, which is deleted at the end.
set -euo pipefail

context=$(kubectl config current-context)
image=localhost/gatelab/busybox:bookworm
while [ $# -gt 0 ]; do
  case $1 in
    --context) context=$2; shift 2 ;;
    --image) image=$2; shift 2 ;;
    *) echo "check-cluster.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
namespace=node-image-check
k() { kubectl --context "$context" --namespace "$namespace" "$@"; }
failures=0
forward=
cleanup() {
  [ -z "$forward" ] || kill "$forward" 2>/dev/null || true
  k delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
}
trap cleanup EXIT

check() { # check WHAT COMMAND...
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    echo "ok      $what${output:+: $(tail -n 1 <<<"$output" | cut -c1-90)}"
  else
    echo "FAILED  $what: $(tail -n 3 <<<"$output")"
    failures=$((failures + 1))
  fi
}
refuse() { ! "$@"; }
# A condition that needs a moment (rules follow the API): polled, with a deadline.
within() { # within SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.3
  done
}

k get namespace kube-system >/dev/null
nodes=$(k get nodes --no-headers | wc -l)
echo "context $context: $nodes node(s)"
check "all nodes are Ready" k wait --for=condition=Ready node --all --timeout=120s
# only now: a node that is not ready yet has a taint, too
schedulable=$(k get nodes -o json | jq '[.items[] | select(any(.spec.taints[]?; .effect == "NoSchedule") | not)] | length')
check "CoreDNS is available" kubectl --context "$context" -n kube-system rollout status deployment/coredns --timeout=120s

k create namespace "$namespace" >/dev/null
k apply -f - >/dev/null <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: { name: server }
spec:
  replicas: 2
  selector: { matchLabels: { app: server } }
  template:
    metadata: { labels: { app: server } }
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: server } } }
      containers:
        - name: server
          image: $image
          command: [sh, -c, "mkdir /tmp/w && hostname >/tmp/w/index.html && exec busybox httpd -f -p 8080 -h /tmp/w"]
          ports: [{ name: http, containerPort: 8080 }]
          readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: server }
spec:
  type: NodePort
  selector: { app: server }
  ports: [{ port: 80, targetPort: http, nodePort: 30080 }]
YAML
for client in friend stranger; do
  k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: { name: $client, labels: { role: $client } }
spec:
  terminationGracePeriodSeconds: 0
  containers: [{ name: client, image: $image, command: [sleep, "3600"] }]
YAML
done
check "the Deployment is available" k rollout status deployment/server --timeout=120s
check "the client pods run" k wait --for=condition=Ready pod/friend pod/stranger --timeout=60s
k get pods -o wide --no-headers | awk '{ print "        " $1, $6, $7 }'
used=$(k get pods -l app=server -o json | jq '[.items[].spec.nodeName] | unique | length')
wanted=$((schedulable < 2 ? schedulable : 2))
check "the servers run on $wanted node(s)" test "$used" = "$wanted"

get() { k exec "$1" -- timeout 3 wget -q -O - "$2"; }
for pod in $(k get pods -l app=server -o name); do
  address=$(k get "$pod" -o jsonpath='{.status.podIP}')
  check "friend reaches ${pod#pod/} by its address" get friend "http://$address:8080/"
done
both_answer() {
  local seen
  seen=$(for _ in $(seq 20); do get friend http://server.$namespace.svc.cluster.local/ || echo none; done | sort | uniq -c)
  echo "$(tr -s ' \n' ' ' <<<"$seen")"
  [ "$(grep -c server- <<<"$seen")" = 2 ] && ! grep -q none <<<"$seen"
}
check "the Service by name answers 20 of 20 times, from both pods" both_answer
check "the node port answers on every node" bash -euc "for node in $(k get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}'); do
  kubectl --context $context -n $namespace exec friend -- timeout 3 wget -q -O - http://\$node:30080/; done"
engine=${KIND_EXPERIMENTAL_PROVIDER:-docker}
if host=$("$engine" port "${context#kind-}-control-plane" 30080 2>/dev/null); then
  check "the host reaches the node port on $host" curl -fsS -m 3 "http://$host/"
fi
check "a name outside the cluster fails without hanging" bash -c "kubectl --context $context -n $namespace exec friend -- timeout 15 nslookup no-such-name.invalid; [ \$? = 1 ]"
check "kubectl logs" k logs deployment/server
k port-forward service/server 18080:80 >/dev/null 2>&1 &
forward=$!
check "kubectl port-forward" within 5 curl -fsS -m 2 http://127.0.0.1:18080/

policy() { k apply -f - >/dev/null; }
policy <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: server }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress]
  ingress:
    - from: [{ podSelector: { matchLabels: { role: friend } } }]
      ports: [{ port: http }]
YAML
each_server() { # each_server CLIENT: every server answers
  local address
  for address in $(k get pods -l app=server -o jsonpath='{.items[*].status.podIP}'); do get "$1" "http://$address:8080/" || return 1; done
}
no_server() { # no_server CLIENT: none answers
  local address
  for address in $(k get pods -l app=server -o jsonpath='{.items[*].status.podIP}'); do ! get "$1" "http://$address:8080/" || return 1; done
}
check "NetworkPolicy: a stranger reaches no server" within 20 no_server stranger
check "NetworkPolicy: a friend reaches every server" each_server friend
check "NetworkPolicy: the Service is closed to a stranger" refuse get stranger http://server/
check "NetworkPolicy: kubelet's probes still pass" k wait --for=condition=Ready pod -l app=server --timeout=5s
policy <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: friend-goes-nowhere }
spec:
  podSelector: { matchLabels: { role: friend } }
  policyTypes: [Egress]
YAML
check "NetworkPolicy: egress of the friend is closed" within 20 no_server friend
k delete networkpolicy --all >/dev/null
check "without policies the stranger reaches every server again" within 20 each_server stranger

if [ $failures -gt 0 ]; then
  echo "$failures check(s) failed"
  exit 1
fi
echo "all checks passed"
