#!/usr/bin/env bash
# The agent on a real GPU: the packed test bed, the agent, and pods that compute on the GPU they asked for.
#
#   crates/tests/agent_gpu.sh pack DIR    where there are Rust and Go: builds what is carried, into DIR
#   crates/tests/agent_gpu.sh run DIR     on the machine with the GPU, as root
#
# `run` changes no setting of the GPU, and says so if one changed all the same. What it did and saw goes to
# $OUT/agent-gpu.log (or DIR/out), a short table to standard output. Ends with 1 where a line is neither ok nor skipped.
# shellcheck source=gpu_bed.sh
. "$(dirname "$0")/gpu_bed.sh"
name=agent-gpu

pack() {
    local dir=$1 hook
    # As in the image.
    cargo build --release -p pitcrew --no-default-features || exit 1
    hook=$(cargo xtask hook) || exit 1
    mkdir -p "$dir/with"
    cp "${CARGO_TARGET_DIR:-target}/release/pitcrew" "$dir/with/"
    cp "$hook" "$dir/with/pitcrew-hook"
    pack_bed "$dir" "$dir/with/pitcrew" "$dir/with/pitcrew-hook"
    rm -r "$dir/with"
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

# Starts pods that run the same at the same time: RESOURCE, the program in one word, NAME...
begin() {
    local resource=$1 name words
    read -ra words <<<"$2"
    shift 2
    for name in "$@"; do pod "$name" "$resource" "${words[@]}" | node kubectl apply -f - >>"$log" 2>&1; done
}

phase() { node kubectl get pod "$1" -o 'jsonpath={.status.phase}' 2>/dev/null; }
ended() { case $(phase "$1") in Succeeded | Failed) ;; *) return 1 ;; esac }

# Waits for the end of pods, which must be a good one, and deletes them.
finish() {
    local title=$1 name good=0 lines=""
    shift
    for name in "$@"; do
        await 60 ended "$name"
        [ "$(phase "$name")" = Succeeded ] && good=$((good + 1))
        show node kubectl logs "$name"
        lines="$lines$(node kubectl logs "$name" 2>&1 | tail -n 1); "
    done
    [ "$good" = $# ] || { show node kubectl get pods -o yaml; show node kubectl get events; }
    [ "$good" = $# ]
    verdict "$title" $? "${lines%; }"
    for name in "$@"; do node kubectl delete pod "$name" --wait=true >/dev/null 2>&1; done
}

# User and system time of the agent so far, in hundredths of a second.
cpu_time() { awk '{print $14 + $15}' "/proc/$agent/stat"; }

whole() {
    local rss first seconds=15
    start_agent
    allocatable nvidia.com/gpu 1 || return
    begin nvidia.com/gpu "probe cuda 2" alone
    finish "a pod, native CDI" alone
    sleep 3
    rss=$(awk '/^VmRSS/ {all=$2} /^RssAnon/ {own=$2} END {print all " kB, of which not files " own " kB"}' \
        "/proc/$agent/status")
    first=$(cpu_time)
    sleep "$seconds"
    row "the agent at rest" ok "RSS $rss; $(($(cpu_time) - first)) hundredths of a second of CPU time in $seconds s"
    show node kubectl get gpunodes -o wide
    show node kubectl get node 127.0.0.1 -o 'jsonpath={.metadata.labels}'
}

slices() {
    cat >"$work/slices.yaml" <<'CONFIG'
version: v1
sharing:
  timeSlicing:
    resources:
    - {name: nvidia.com/gpu, replicas: 2}
CONFIG
    start_agent --config "$work/slices.yaml"
    allocatable nvidia.com/gpu 2 || return
    begin nvidia.com/gpu "probe cuda 5" slice-1 slice-2
    finish "two pods, time-slicing" slice-1 slice-2
}

# Processes of MPS on the machine: PID COMMAND.
mps_processes() {
    local dir name
    for dir in /proc/[0-9]*; do
        # The kernel keeps 15 letters of it.
        { read -r name <"$dir/comm"; } 2>/dev/null || continue
        case $name in nvidia-cuda-mps*) printf '%s %s\n' "${dir#/proc/}" "$(tr '\0' ' ' <"$dir/cmdline")" ;; esac
    done
}

# Its control daemons.
mps_daemon() { mps_processes | awk '/mps-control/ {printf "%s ", $1}'; }

no_mps() { [ -z "$(mps_processes)" ]; }

# Says something to the daemon.
mps_ask() {
    printf '%s\n' "$1" | node env CUDA_MPS_PIPE_DIRECTORY=/run/nvidia/mps/nvidia.com/gpu/pipe "$control" 2>>"$log"
}

# Whether the servers have so many clients.
mps_clients() {
    local server
    servers=$(mps_ask get_server_list)
    clients=""
    for server in $servers; do clients="$clients $(mps_ask "get_client_list $server" | tr '\n' ' ')"; done
    [ "$(wc -w <<<"$clients")" = "$1" ]
}

# The limit of a client: half of the memory, as one of two.
mps_limit() { nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | awk '{print int($1 / 2) + 2048; exit}'; }

mps() {
    local whole_sms shared_sms more server uid daemon
    # Where the agent looks for it.
    control=$(node sh -c 'for dir in usr/bin usr/sbin bin sbin usr/local/bin usr/local/sbin usr/local/nvidia/bin; do
        [ ! -x "/$dir/nvidia-cuda-mps-control" ] || { echo "/$dir/nvidia-cuda-mps-control"; break; }; done')
    if [ -z "$control" ]; then
        row "two pods, MPS" skipped "this machine has no nvidia-cuda-mps-control: $(type -P nvidia-cuda-mps-control || echo nowhere on the PATH)"
        return
    fi
    if ! no_mps; then
        row "two pods, MPS" skipped "MPS runs here already: $(mps_processes | tr '\n' ';')"
        return
    fi
    cat >"$work/mps.yaml" <<'CONFIG'
version: v1
sharing:
  mps:
    resources:
    - {name: nvidia.com/gpu, replicas: 2}
CONFIG
    start_agent --config "$work/mps.yaml" --mps-compute-mode=leave
    if ! allocatable nvidia.com/gpu 2; then
        show node sh -c 'cat /run/nvidia/mps/nvidia.com/gpu/log/*'
        return
    fi
    show node kubectl get gpunodes -o 'jsonpath={.items[*].status.conditions}'
    begin nvidia.com/gpu "probe cuda 15" mps-1 mps-2
    await 30 mps_clients 2
    server=$servers
    uid=$(stat -c %u "/proc/${server%%[!0-9]*}" 2>/dev/null)
    say "servers: $servers; clients:$clients"
    say "$(mps_ask ps)"
    show mps_processes
    show nvidia-smi
    show nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv
    mps_clients 2
    verdict "MPS holds both" $? "server ${server:-none} of user ${uid:-unknown} has the clients${clients:- none}"
    # In the middle of it, as where the agent's pod is replaced.
    daemon=$(mps_daemon)
    kill -9 "$agent"
    wait "$agent" 2>/dev/null
    start_agent --config "$work/mps.yaml" --mps-compute-mode=leave
    await 20 grep -q "is taken over" "$out/agent.err"
    [ -n "$daemon" ] && [ "$(mps_daemon)" = "$daemon" ] && mps_clients 2
    verdict "the agent is killed meanwhile" $? "daemon $daemon before, $(mps_daemon) after, with the clients$clients"
    finish "two pods, MPS" mps-1 mps-2
    whole_sms=$(grep -o '[0-9]* multiprocessors' "$log" | head -n 1 | grep -o '^[0-9]*')
    shared_sms=$(grep -o '[0-9]* multiprocessors' "$log" | tail -n 1 | grep -o '^[0-9]*')
    [ "${shared_sms:-0}" -gt 0 ] && [ "$shared_sms" -le $((whole_sms / 2 + 1)) ]
    verdict "threads of a client" $? "${shared_sms:-none} of ${whole_sms:-unknown} multiprocessors"
    more=$(mps_limit)
    allocatable nvidia.com/gpu 2 || return
    begin nvidia.com/gpu "probe memory $more" mps-greedy
    finish "a client that wants $more MiB" mps-greedy
    grep -q "^$more MiB: CUDA_ERROR_OUT_OF_MEMORY" "$log"
    verdict "is refused them" $?
    show node sh -c 'tail -n 40 /run/nvidia/mps/nvidia.com/gpu/log/*'
}

run() {
    bed_up "$1"

    whole
    stop_agent
    slices
    stop_agent
    mps
    stop_agent

    show node pitcrew agent uninstall
    verdict uninstall $? "$(node sh -c 'ls /var/run/cdi 2>/dev/null | wc -l') files in /var/run/cdi"
    await 15 no_mps
    verdict "MPS is gone" $? "$(mps_processes | tr '\n' ';')"
    bed_over
}

gpu_bed "$@"
