#!/usr/bin/env python3
"""Writes messages.txt from the types of k8s.io/api and k8s.io/apimachinery, which the published generated.proto files are made of too.

The Go types say more than those: which fields are pointers, and which messages are inline in JSON.

    go mod download k8s.io/api@v0.34.4 k8s.io/apimachinery@v0.34.4
    ./generate.py "$(go env GOMODCACHE)/k8s.io" v0.34.4 > messages.txt
"""

import pathlib
import re
import sys

PACKAGES = {
    "meta/v1": "meta",
    "core/v1": "v1",
    "apps/v1": "apps/v1",
    "authentication/v1": "authentication.k8s.io/v1",
    "authorization/v1": "authorization.k8s.io/v1",
    "autoscaling/v1": "autoscaling/v1",
    "autoscaling/v2": "autoscaling/v2",
    "batch/v1": "batch/v1",
    "coordination/v1": "coordination.k8s.io/v1",
    "discovery/v1": "discovery.k8s.io/v1",
    "events/v1": "events.k8s.io/v1",
    "networking/v1": "networking.k8s.io/v1",
    "policy/v1": "policy/v1",
    "rbac/v1": "rbac.authorization.k8s.io/v1",
    "scheduling/v1": "scheduling.k8s.io/v1",
    "storage/v1": "storage.k8s.io/v1",
}
PLAIN = {
    "string": "text", "types.UID": "text", "[]byte": "bytes", "bool": "bool",
    "int": "int", "int32": "int", "int64": "int", "uint8": "int", "uint32": "int", "uint64": "int",
    "metav1.Time": "time", "metav1.MicroTime": "microtime", "metav1.Duration": "duration", "metav1.FieldsV1": "json",
    "runtime.RawExtension": "json", "resource.Quantity": "quantity", "intstr.IntOrString": "intstr",
}
ALIASES = {"v1": "core/v1", "apiv1": "core/v1", "corev1": "core/v1", "metav1": "meta/v1"}
FIELD = re.compile(r'^\t(?:(\w+)\s+)?([*\[\]\w.]+)\s+`json:"([^",]*)((?:,\w+)*)"(?:[^`]*?)protobuf:"\w+,(\d+),', re.ASCII)


def main(modules, version):
    structs, named, texts = {}, {}, {}
    for package in PACKAGES:
        root = f"apimachinery@{version}/pkg/apis" if package == "meta/v1" else f"api@{version}"
        files = sorted((pathlib.Path(modules) / root / package).glob("*types.go"))
        if package == "meta/v1":
            files.append(files[0].parent / "time.go")
        for text in (file.read_text() for file in files):
            for match in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
                structs[package, match[1]] = match[2]
            # Some are declared in a group; comments end in newlines.
            for match in re.finditer(r"^type (\w+) ([\w.\[\]]+)(?: //.*)?$", text, re.M):
                named[package, match[1]] = match[2]

    def resolve(package, written):
        """The type as the table has it."""
        if written.startswith("*"):
            inner = resolve(package, written[1:])
            return inner if inner.startswith(("[]", "map:")) else "*" + inner
        if package == "meta/v1" and "metav1." + written in PLAIN:
            return PLAIN["metav1." + written]
        if written in PLAIN:
            return PLAIN[written]
        if written.startswith("[]"):
            return "[]" + resolve(package, written[2:])
        if written.startswith("map["):
            return "map:" + resolve(package, written.split("]", 1)[1])
        owner, name = (ALIASES[written.split(".")[0]], written.split(".")[1]) if "." in written else (package, written)
        if (owner, name) in structs:
            return name if owner == package else f"{PACKAGES[owner]}#{name}"
        if (owner, name) not in named:
            raise SystemExit(f"{package}: the type {written} is not known")
        under = named[owner, name]
        # A named list is a message of its own in protobuf.
        return "list:" + resolve(owner, under[2:]) if under.startswith("[]") else resolve(owner, under)

    print(f"# Written by generate.py from k8s.io/api and k8s.io/apimachinery {version}; schema.rs says how a line is read.")
    for package, api_version in PACKAGES.items():
        print(f"\n[{api_version}]")
        for (owner, name), body in structs.items():
            fields = []
            for line in body.splitlines():
                match = FIELD.match(line)
                if owner != package or not match:
                    continue
                _, written, json, options, number = match.groups()
                inline = "~" if not json else ""
                json = json or "-"
                fields.append(f"{number} {json} {inline}{resolve(package, written)}")
            expected = sum("protobuf:" in line and 'protobuf:"-"' not in line and not line.strip().startswith("//") for line in body.splitlines())
            if owner == package and len(fields) != expected:
                raise SystemExit(f"{package}.{name}: {len(fields)} of {expected} fields are read")
            if fields:
                print(f"{name}: {', '.join(fields)}")


main(*sys.argv[1:])
