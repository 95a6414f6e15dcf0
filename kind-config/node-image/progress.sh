# shellcheck shell=bash
# Steps with a cache stamp, a log and a line of progress. Sourced by build.sh,
# which sets $cache and $total_steps.
build_started=$SECONDS
step_number=0
current_log=

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
fail() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
elapsed_total() { clock $((SECONDS - build_started)); }

step_key() { cat "$cache/stamps/$1" 2>/dev/null || true; }
forget_step() { rm -f "$cache/stamps/$1"; }
skip_step() {
  step_number=$((step_number + 1))
  say "[$step_number/$total_steps] $1: skipped ($2)"
}

# step NAME INPUTS OUTPUT COMMAND...: runs COMMAND unless OUTPUT was made from the
# same INPUTS before. The stamp is written last, so an interrupted step runs again.
step() {
  local name=$1 inputs=$2 output=$3 key
  shift 3
  step_number=$((step_number + 1))
  key=$(sha256sum <<<"$inputs" | cut -c1-24)
  local label="[$step_number/$total_steps] $name"
  if [ "$(step_key "$name")" = "$key" ] && [ -e "$output" ]; then
    say "$label: cached"
    return
  fi
  mkdir -p "$cache/stamps" "$cache/logs"
  rm -f "$cache/stamps/$name"
  current_log=$cache/logs/$name.log
  say "$label: started"
  local started=$SECONDS status=0
  # A subshell of its own, waited for with a heartbeat: no silent minutes.
  (
    set -euo pipefail
    "$@"
  ) >"$current_log" 2>&1 9>&- &
  local child=$! next=15
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - started)) -ge $next ]; then
      say "$label: $(clock $next), $(wc -l <"$current_log") lines of log, now: $(tail -n 1 "$current_log" | cut -c1-70)"
      next=$((next + 15))
    fi
  done
  wait "$child" || status=$?
  if [ $status -ne 0 ]; then
    tail -n 20 "$current_log" >&2
    fail "step $name failed after $(clock $((SECONDS - started))); whole log: $current_log. Running build.sh again goes on from here."
  fi
  [ -e "$output" ] || fail "step $name did not make $output (log: $current_log)"
  echo "$key" >"$cache/stamps/$name"
  say "$label: done in $(clock $((SECONDS - started)))"
}
