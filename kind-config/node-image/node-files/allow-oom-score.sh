#!/bin/bash
# Lowering a process's oom_score_adj needs CAP_SYS_RESOURCE (bit 24). Where the
# machine's bounding set lacks it, runc would fail to start every pod that asks
# for a negative score (all control plane pods do): containerd is told to raise
# the request to what it may set. Kind's entrypoint does the same for user
# namespaces.
set -euo pipefail
bounding=$(awk '/^CapBnd:/ { print $2 }' /proc/self/status)
if ! (((16#$bounding >> 24) & 1)); then
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml
  echo "no CAP_SYS_RESOURCE here: containerd restricts oom_score_adj"
fi
