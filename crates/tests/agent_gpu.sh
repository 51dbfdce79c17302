#!/usr/bin/env bash
# The agent on a real GPU: the packed test bed, the agent, and pods that compute on the GPU they asked for.
#
#   crates/tests/agent_gpu.sh pack DIR    where there are Rust and Go: builds what is carried, into DIR
#   crates/tests/agent_gpu.sh run DIR     on the machine with the GPU, as root
#
# `run` changes no setting of the GPU, and says so if one changed all the same. What it did and saw goes to
# $OUT/agent-gpu.log (or DIR/out), a short table to standard output.
set -uo pipefail

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

pack() {
    local dir=$1 hook
    cargo build --release -p pitcrew || exit 1
    hook=$(cargo xtask hook) || exit 1
    mkdir -p "$dir/with"
    cp "${CARGO_TARGET_DIR:-target}/release/pitcrew" "$dir/with/"
    cp "$hook" "$dir/with/pitcrew-hook"
    cargo run --release -p xtask -- testbed pack --out "$dir" --with "$dir/with/pitcrew" --with "$dir/with/pitcrew-hook"
    rm -r "$dir/with"
}

log=
say() { printf '%s\n' "$*" >>"$log"; }

# A command whose output and exit status go to the log.
show() {
    say "\$ $*"
    "$@" >>"$log" 2>&1 </dev/null
    code=$?
    say "[exit $code]"
    say ""
    return "$code"
}

row() {
    printf '%-34s %-7s %s\n' "$1" "$2" "$3" >>"$out/summary.txt"
    [ "$2" = ok ] || status=1
}

bed() { "$work/bin/testbed" testbed "$@"; }
node() { bed exec -- "$@"; }

settings() {
    local modes=persistence_mode,compute_mode,mig.mode.current,mig.mode.pending,ecc.mode.current,ecc.mode.pending
    nvidia-smi --format=csv,noheader --query-gpu="uuid,$modes,power.limit,clocks.max.sm,clocks.max.memory"
}

# Waits until the node has so many of a resource to give.
allocatable() {
    local resource=${1//./\\.} end=$((SECONDS + 40)) found
    while [ $SECONDS -lt $end ]; do
        found=$(node kubectl get node 127.0.0.1 -o "jsonpath={.status.allocatable.$resource}" 2>/dev/null)
        [ "$found" = "$2" ] && return 0
        sleep 0.5
    done
    say "$1 is ${found:-absent}, not $2"
    return 1
}

# A pod that runs as nobody on a read-only root, asks for one of a resource, and runs a program to its end.
pod() {
    local name=$1 resource=$2 word
    shift 2
    local words=""
    for word in "$@"; do words="$words\"$word\","; done
    cat <<POD
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$name"}, "spec": {
 "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
 "securityContext": {"runAsNonRoot": true, "runAsUser": 65532},
 "containers": [{"name": "main", "image": "localhost/glibc:1", "command": [${words%,}],
  "resources": {"limits": {"$resource": 1}},
  "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
   "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]}}
POD
}

# Runs pods at the same time and waits for all; each must have computed right.
pods() {
    local title=$1 resource=$2 seconds=$3 name good=0 lines=""
    shift 3
    for name in "$@"; do pod "$name" "$resource" probe cuda "$seconds" | node kubectl apply -f - >>"$log" 2>&1; done
    for name in "$@"; do
        show node kubectl wait --for=jsonpath='{.status.phase}'=Succeeded "pod/$name" --timeout=60s && good=$((good + 1))
        show node kubectl logs "$name"
        lines="$lines$(node kubectl logs "$name" 2>&1 | tail -n 1); "
    done
    [ "$good" = $# ] || show node kubectl get pods -o yaml
    row "$title" "$([ "$good" = $# ] && echo ok || echo FAILED)" "${lines%; }"
    for name in "$@"; do node kubectl delete pod "$name" --wait=true >/dev/null 2>&1; done
}

start_agent() {
    : >"$out/agent.err"
    begun=$(date +%s%N)
    node env NODE_NAME=127.0.0.1 pitcrew agent "$@" >/dev/null 2>"$out/agent.err" </dev/null &
    agent=$!
    say "\$ pitcrew agent $*    (process $agent)"
}

stop_agent() {
    kill "$agent" 2>/dev/null
    wait "$agent" 2>/dev/null
    say "the agent said:"
    cat "$out/agent.err" >>"$log"
    say ""
}

# User and system time of the agent so far, in hundredths of a second.
cpu_time() { awk '{print $14 + $15}' "/proc/$agent/stat"; }

run() {
    local dir=$1 before end
    work=$(mktemp -d)
    export PITCREW_TESTBED=$work/bed
    cat "$dir"/pitcrew-testbed*.tar.xz >/dev/null || exit 2
    for part in "$dir"/pitcrew-testbed*.tar.xz; do tar -xJf "$part" -C "$work" || exit 1; done
    log=$out/agent-gpu.log
    mkdir -p "$out"
    : >"$log"
    : >"$out/summary.txt"
    before=$(settings)
    show nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    show bed up || { tail -n 20 "$log"; exit 1; }
    node kubectl wait --for=create serviceaccount/default --timeout=30s >/dev/null 2>&1

    start_agent
    allocatable nvidia.com/gpu 1 || { stop_agent; tail -n 60 "$log"; row allocatable FAILED "see the log"; }
    pods "a pod, native CDI" nvidia.com/gpu 2 alone
    sleep 5
    local rss first seconds=20
    rss=$(awk '/VmRSS/ {print $2 " " $3}' "/proc/$agent/status")
    first=$(cpu_time)
    sleep "$seconds"
    row "the agent at rest" ok "RSS $rss, $(($(cpu_time) - first)) hundredths of a second of CPU time in $seconds s"
    show node kubectl get gpunodes -o wide
    show node kubectl get node 127.0.0.1 -o 'jsonpath={.metadata.labels}'
    stop_agent

    cat >"$work/slices.yaml" <<'CONFIG'
version: v1
sharing:
  timeSlicing:
    resources:
    - {name: nvidia.com/gpu, replicas: 2}
CONFIG
    start_agent --config "$work/slices.yaml"
    allocatable nvidia.com/gpu 2
    pods "two pods, time-slicing" nvidia.com/gpu 5 slice-1 slice-2
    stop_agent

    # Not MPS: it sets the compute mode of the card, which is left as it is here.
    show node pitcrew agent uninstall
    row uninstall "$([ $code = 0 ] && echo ok || echo FAILED)" "$(node sh -c 'ls /var/run/cdi 2>/dev/null | wc -l') files in /var/run/cdi"
    show bed down
    [ "$before" = "$(settings)" ] && row settings ok "as before" || row settings FAILED "changed: $(settings)"
    cat "$out/summary.txt"
    exit "$status"
}

status=0
[ $# = 2 ] || usage
case $1 in
pack) mkdir -p "$2" || exit 2 ;;
run) ;;
*) usage ;;
esac
dir=$(realpath -e "$2") || exit 2
out=$(realpath -m "${OUT:-$dir/out}")
cd "$(dirname "$0")/../.." || exit 2
"$1" "$dir"
