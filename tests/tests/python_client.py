"""Python's official Kubernetes client against the cluster of KUBECONFIG: what a diagnostic tool written with it does.

Ends with `passed: NAME` for each part; any exception ends it.
"""

import sys
import time

from kubernetes import client, config, watch
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def part(function):
    function()
    print("passed:", function.__name__, flush=True)


def listing():
    pods = core.list_namespaced_pod("shop", label_selector="app=shop").items
    assert len(pods) == 2, pods
    assert all(pod.status.phase == "Running" for pod in pods)
    assert {node.metadata.name for node in core.list_node().items} == {"node-0", "node-1"}
    first = core.list_pod_for_all_namespaces(limit=1)
    assert len(first.items) == 1 and first.metadata._continue
    rest = core.list_pod_for_all_namespaces(_continue=first.metadata._continue)
    assert first.items[0].metadata.name not in {pod.metadata.name for pod in rest.items}
    slices = client.DiscoveryV1Api().list_namespaced_endpoint_slice("shop")
    assert slices.items[0].ports[0].port == 8080, slices
    assert client.NetworkingV1Api().list_ingress_for_all_namespaces().items[0].spec.rules[0].host == "shop.test"
    assert client.VersionApi().get_code().major == "1"


def watching():
    version = core.list_namespaced_config_map("shop").metadata.resource_version
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="watched"), data={"colour": "blue"})
    core.create_namespaced_config_map("shop", body)
    core.patch_namespaced_config_map("watched", "shop", {"data": {"colour": "red"}})
    core.delete_namespaced_config_map("watched", "shop")
    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, "shop", resource_version=version, timeout_seconds=20):
        if event["object"].metadata.name == "watched":
            seen.append((event["type"], event["object"].data["colour"]))
        if len(seen) == 3:
            watcher.stop()
    assert seen == [("ADDED", "blue"), ("MODIFIED", "red"), ("DELETED", "red")], seen


def patching():
    apps.patch_namespaced_deployment("shop", "shop", {"spec": {"replicas": 3}})
    apps.patch_namespaced_deployment_scale("shop", "shop", {"spec": {"replicas": 2}})
    assert apps.read_namespaced_deployment("shop", "shop").spec.replicas == 2
    service = core.read_namespaced_service("shop", "shop")
    stale = core.read_namespaced_service("shop", "shop")
    service.metadata.annotations = {"touched": "yes"}
    core.replace_namespaced_service("shop", "shop", service)
    try:
        core.replace_namespaced_service("shop", "shop", stale)
        raise AssertionError("a stale object was taken")
    except client.ApiException as refused:
        assert refused.status == 409, refused
    try:
        core.read_namespaced_pod("nobody", "shop")
        raise AssertionError("there is no such pod")
    except client.ApiException as refused:
        assert refused.status == 404 and '"reason":"NotFound"' in refused.body.replace('": "', '":"'), refused.body


def a_pod():
    for _ in range(100):
        pods = core.list_namespaced_pod("shop", label_selector="app=shop").items
        ready = [pod for pod in pods if not pod.metadata.deletion_timestamp
                 and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])]
        if ready:
            return ready[0].metadata.name
        time.sleep(0.1)
    raise AssertionError("no pod is Ready")


def executing():
    command = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 3"]
    session = stream(core.connect_get_namespaced_pod_exec, a_pod(), "shop", command=command, stdin=True, stdout=True,
                     stderr=True, tty=False, _preload_content=False)
    session.write_stdin("typed\n")
    session.run_forever(timeout=20)
    assert session.read_stdout() == "out\ngot typed\n"
    assert session.read_stderr() == "err\n"
    assert session.returncode == 3
    whole = stream(core.connect_get_namespaced_pod_exec, a_pod(), "shop", command=["echo", "whole"], stdout=True, stderr=True,
                   stdin=False, tty=False)
    assert whole == "whole\n", whole


def logging():
    name = a_pod()
    stream(core.connect_get_namespaced_pod_exec, name, "shop", command=["sh", "-c", "echo said > /proc/1/fd/1"], stdout=True,
           stderr=True, stdin=False, tty=False)
    for _ in range(100):
        if "said\n" in core.read_namespaced_pod_log(name, "shop", tail_lines=50):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the line is not in the log")
    lines = core.read_namespaced_pod_log(name, "shop", follow=True, tail_lines=1, _preload_content=False)
    assert next(lines.stream()), "a followed log begins with its tail"
    lines.close()


def forwarding():
    forward = portforward(core.connect_get_namespaced_pod_portforward, a_pod(), "shop", ports="8080")
    socket = forward.socket(8080)
    socket.setblocking(True)
    socket.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := socket.recv(4096):
        answer += piece
    socket.close()
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert forward.error(8080) is None


for function in [listing, watching, patching, executing, logging, forwarding]:
    part(function)
sys.stdout.flush()
