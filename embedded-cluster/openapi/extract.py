#!/usr/bin/env python3
"""Makes schemas.deflate from Kubernetes' published OpenAPI v3 documents: see README.md.

usage: extract.py <folder of the Go module k8s.io/kubernetes>

The published documents leave the fixed sets of values out (`enum`, and what each means at the end of the description), which an API
server tells: they are taken from the generated Go definitions that it is built with.
"""
import json
import re
import sys
import zlib
from pathlib import Path

# The group versions that the API server serves. Those whose kinds it does not serve are left out by it, not here.
DOCUMENTS = [
    "api__v1", "apis__apiextensions.k8s.io__v1", "apis__apps__v1", "apis__authentication.k8s.io__v1", "apis__authorization.k8s.io__v1",
    "apis__autoscaling__v1", "apis__autoscaling__v2", "apis__batch__v1", "apis__coordination.k8s.io__v1", "apis__discovery.k8s.io__v1",
    "apis__events.k8s.io__v1", "apis__networking.k8s.io__v1", "apis__policy__v1", "apis__rbac.authorization.k8s.io__v1",
    "apis__scheduling.k8s.io__v1", "apis__storage.k8s.io__v1",
]

folder = Path(sys.argv[1]) / "api/openapi-spec/v3"
schemas = {}
for document in DOCUMENTS:
    content = json.loads((folder / f"{document}_openapi.json").read_text())
    for name, schema in content["components"]["schemas"].items():
        assert schemas.get(name, schema) == schema, f"{name} differs between documents"
        schemas[name] = schema

generated = (Path(sys.argv[1]) / "pkg/generated/openapi/zz_generated.openapi.go").read_text()
definition = {}
for path, function in re.findall(r'^\t\t"?([^":]+)"?:\s+(schema_\w+)\(ref\),$', generated, re.M):
    host, _, rest = path.partition("/")
    definition[function] = ".".join(reversed(host.split("."))) + "." + rest.replace("/", ".")
schema = field = description = None
enumerations = 0
for line in generated.splitlines():
    text = line.lstrip("\t")
    depth = len(line) - len(text)
    if found := re.match(r"func (schema_\w+)\(ref ", line):
        schema, field = schemas.get(definition.get(found[1], "")), None
    elif schema is None:
        continue
    elif depth == 5 and (found := re.match(r'"([^"]+)": \{$', text)):
        field = schema.get("properties", {}).get(found[1])
    elif field is None:
        continue
    elif text.startswith("Description:") and depth == 7:
        description = json.loads(text.removeprefix("Description:").strip().rstrip(","))
    elif found := re.match(r"Enum:\s+\[\]interface\{\}\{(.*)\},$", text):
        # Of the field, or of what is in a list or map.
        of = field if depth == 7 else field.get("items") or field["additionalProperties"]
        of["enum"] = json.loads(f"[{found[1]}]")
        field["description"] = description
        enumerations += 1
assert enumerations > 50, f"only {enumerations} enumerations found"

lines = []
for name, schema in sorted(schemas.items()):
    kinds = schema.get("x-kubernetes-group-version-kind", [])
    # Options (DeleteOptions, WatchEvent) are of every group; only what is of one is looked up by its kind.
    own = kinds[0] if len(kinds) == 1 else {"group": "", "version": "", "kind": ""}
    text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
    assert "\n" not in text and "\t" not in text
    lines.append("\t".join([name, own["group"], own["version"], own["kind"], text]) + "\n")
raw = "".join(lines).encode()
packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
packed = packer.compress(raw) + packer.flush()
Path(__file__).with_name("schemas.deflate").write_bytes(packed)
print(f"{len(lines)} schemas, {len(raw)} bytes, {len(packed)} packed")
