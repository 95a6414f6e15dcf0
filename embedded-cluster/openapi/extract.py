#!/usr/bin/env python3
"""Makes schemas.deflate from Kubernetes' published OpenAPI v3 documents: see README.md.

usage: extract.py <folder of the Go module k8s.io/kubernetes>
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
