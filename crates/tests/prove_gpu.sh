#!/usr/bin/env bash
# `pitcrew prove` in pods on a real GPU: the packed test bed, the agent, the image, and pods that may nothing but compute.
#
#   crates/tests/prove_gpu.sh pack DIR    where there are Rust and Go: builds what is carried, into DIR
#   crates/tests/prove_gpu.sh run DIR     on the machine with the GPU, as root
#
# Every pod is in a namespace that enforces Kubernetes' restricted standard. `run` changes no setting of the GPU, and says
# so if one changed all the same. What it did and saw goes to $OUT/prove-pods.log (or DIR/out), the Job's report to
# report.json and report.html beside it, a short table to standard output. Ends with 1 where a line is neither ok nor
# skipped.
# shellcheck source=gpu_bed.sh
. "$(dirname "$0")/gpu_bed.sh"
name=prove-pods

pack() {
    local dir=$1 with=$1/with hook scout pitcrew=${CARGO_TARGET_DIR:-target}/release/pitcrew
    cargo build --release -p pitcrew --no-default-features || exit 1
    hook=$(cargo xtask hook) || exit 1
    scout=$(cargo xtask scout) || exit 1
    mkdir -p "$with"
    cp "$pitcrew" "$with/"
    cp "$hook" "$with/pitcrew-hook"
    # Plain, as the same programs lie beside it.
    cargo xtask image --plain --pitcrew "$pitcrew" --hook "$hook" --scout "$scout" --out "$with/image.tar" || exit 1
    pack_bed "$dir" "$with/pitcrew" "$with/pitcrew-hook" "$with/image.tar"
    rm -r "$with"
}

kube() { node kubectl -n pitcrew-prove "$@"; }

# The pod of a proof, as the Job's: NAME, GPUS (0 for none), the environment as JSON, ARGUMENT...
proof() {
    local name=$1 limits="" env=$3 word words=""
    [ "$2" = 0 ] || limits="\"nvidia.com/gpu\": $2"
    shift 3
    for word in "$@"; do words="$words, \"$word\""; done
    # The finalizer keeps a pod that is deleted until it was looked at.
    kube apply -f - <<POD >>"$log" 2>&1
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$name", "finalizers": ["pitcrew.dev/looked-at"]}, "spec": {
 "restartPolicy": "Never", "terminationGracePeriodSeconds": 10, "automountServiceAccountToken": false,
 "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
 "containers": [{"name": "prove", "image": "$image", "command": ["/usr/bin/pitcrew"],
  "args": ["prove", "--termination-log=/dev/termination-log"$words], "env": [$env],
  "resources": {"limits": {$limits}},
  "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
   "capabilities": {"drop": ["ALL"]}}}]}}
POD
}

# What became of a pod's container.
ended() { kube get pod "$1" -o "jsonpath={.status.containerStatuses[0].state.terminated.$2}" 2>/dev/null; }
has_ended() { [ -n "$(ended "$1" finishedAt)" ]; }
seconds_of() { echo $(($(date -d "$(ended "$1" finishedAt)" +%s) - $(date -d "$(ended "$1" startedAt)" +%s))); }

# Waits for a pod's end and looks at it: the code is in $exit, the first line of its message in $said, its log in $lines.
finish() {
    await "${2:-90}" has_ended "$1" || show kube describe pod "$1"
    exit=$(ended "$1" exitCode)
    message=$(ended "$1" message)
    said=$(head -n 1 <<<"$message")
    lines=$(kube logs "$1" 2>&1)
    took=$(seconds_of "$1")
    say "pod $1: exit code ${exit:-none} after $took s; it left this message and log:"
    say "$message"
    say "$lines"
    say ""
}

gone() {
    kube patch pod "$1" --type=merge -p '{"metadata": {"finalizers": null}}' >/dev/null 2>&1
    kube delete pod "$1" --wait=true --ignore-not-found >/dev/null 2>&1
}

# A proof that was done, whatever it found of the GPU's rate: nothing wrong, and by kernels of one kind alone.
is_proved() { case $exit in 0 | 30 | 31) ;; *) return 1 ;; esac; grep -q '"verified_outputs": [1-9]' <<<"$lines"; }
kernels_are() { grep -q "\"code\": \"$1\"" <<<"$lines" && ! grep -q "\"code\": \"$2\"" <<<"$lines"; }
kernels() { grep -oE '"code": "(cubin|ptx)"' <<<"$lines" | sort | uniq -c | tr -s ' \n' ' '; }
# The sum of what was verified.
verified() { grep -o '"verified_outputs": [0-9]*' <<<"$lines" | awk '{all += $2} END {printf "%.1e results verified", all}'; }

as_it_is() {
    proof plain 1 "" -q -o json --profile smoke
    finish plain
    is_proved && kernels_are cubin ptx
    verdict "restricted pod, smoke" $? "$said in $took s; $(verified);$(kernels)"
    gone plain
}

from_ptx() {
    proof ptx 1 '{"name": "CUDA_FORCE_PTX_JIT", "value": "1"}' -q -o json --profile smoke
    finish ptx
    is_proved && kernels_are ptx cubin
    verdict "CUDA_FORCE_PTX_JIT=1" $? "$said in $took s; $(verified);$(kernels)"
    gone ptx
}

without_compiler() {
    local file files empty=$work/bed/empty
    files=$(node sh -c 'find /usr /run/nvidia -name "libnvidia-ptxjitcompiler.so.*.*" -type f 2>/dev/null')
    if [ -z "$files" ]; then
        row "without the driver's compiler" skipped "the node has no libnvidia-ptxjitcompiler.so"
        return
    fi
    # In the node's own mounts alone: the machine keeps its file.
    : >"$empty"
    for file in $files; do show node mount --bind "$empty" "$file"; done
    proof no-compiler 1 "" -q -o json --profile smoke
    finish no-compiler
    is_proved && kernels_are cubin ptx
    verdict "without the driver's compiler" $? "$said in $took s; $(verified);$(kernels)"
    gone no-compiler
    proof no-compiler-ptx 1 "" -q -o json --profile smoke --ptx
    finish no-compiler-ptx
    [ "$exit" = 40 ] && grep -q "ptxjitcompiler" <<<"$lines"
    verdict "and PTX is refused there" $? "exit code $exit: $(grep -o 'CUDA_ERROR[A-Z_]*[^;"]*' <<<"$lines" | head -n 1)"
    gone no-compiler-ptx
    for file in $files; do show node umount "$file"; done
}

without_gpu() {
    proof none 0 "" -q -o json
    finish none
    kube describe pod none >"$work/described" 2>&1
    cat "$work/described" >>"$log"
    [ "$exit" = 40 ] && [ "$took" -lt 10 ] && grep -q "request .nvidia.com/gpu." "$work/described"
    verdict "a pod without a GPU" $? "exit code $exit in $took s: $(sed -n 2p <<<"$message")"
    gone none
}

used_memory() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | sort -n | tail -n 1; }
computes() { [ "$(used_memory)" -gt 4096 ]; }

deleted() {
    local begin
    proof deleted 1 "" -q -o json
    await 30 computes
    begin=$(date +%s.%N)
    kube delete pod deleted --wait=false >>"$log" 2>&1
    finish deleted 15
    # Its log goes with its container: the message is what is left.
    [ "$exit" = 50 ] && grep -q '^INTERRUPTED' <<<"$said" && grep -q 'the run ended before it' <<<"$message"
    verdict "kubectl delete pod" $? "exit code $exit, $said; seen $(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}') s later"
    gone deleted
}

# The most memory that a proof's process had so far.
peak() {
    local dir
    for dir in /proc/[0-9]*; do
        { tr '\0' ' ' <"$dir/cmdline"; } 2>/dev/null | grep -q '^/usr/bin/pitcrew prove' && awk '/^VmHWM/ {print $2 " kB"}' "$dir/status"
    done
}

# As anybody applies it; meanwhile somebody starts a proof on the node itself.
job() {
    local conditions="{.status.conditions}" memory code pitcrew=$work/bin/pitcrew
    kube apply -f - <deploy/prove/10-job.yaml >>"$log" 2>&1
    await 30 computes
    timeout 30 "$pitcrew" prove --profile smoke >"$work/host" 2>&1 </dev/null
    code=$?
    cat "$work/host" >>"$log"
    [ "$code" = 40 ]
    verdict "on the node while a pod computes" $? "exit code $code: $(grep -i -m 1 -e share -e process "$work/host" | tr -s ' ')"
    memory=$(peak)
    show kube wait job/pitcrew-prove "--for=jsonpath=$conditions" --timeout=150s
    kube logs job/pitcrew-prove >"$out/report.json"
    show "$pitcrew" prove show "$out/report.json" --html "$out/report.html"
    lines=$(cat "$out/report.json")
    exit=$(kube get pods -l app.kubernetes.io/component=prove -o 'jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}')
    said=$(kube get pods -l app.kubernetes.io/component=prove -o 'jsonpath={.items[0].status.containerStatuses[0].state.terminated.message}')
    is_proved && kernels_are cubin ptx && grep -q '</html>' "$out/report.html"
    verdict "deploy/prove, its report, the page" $? "$(head -n 1 <<<"$said"); $(verified); $(wc -c <"$out/report.json") bytes; memory $memory"
    show kube describe pods -l app.kubernetes.io/component=prove
    kube delete job pitcrew-prove --wait=true >/dev/null 2>&1
}

# What the agent has proved by itself, as its object says.
proven() { node kubectl get gpunodes -o "jsonpath={.items[0].status.conditions[?(@.type==\"Proven\")].$1}" 2>/dev/null; }
is_proven() { [ "$(proven status)" = True ]; }

by_agent() {
    local name
    name=$(node kubectl get gpunodes -o name)
    show node kubectl patch "$name" --type=merge -p '{"spec": {"proof": {"profile": "smoke", "request": "now"}}}'
    await 60 is_proven
    verdict "GpuNode.spec.proof, by the agent" $? "$(proven reason): $(proven message)"
    show node kubectl get "$name" -o yaml
    allocatable nvidia.com/gpu "$gpus"
    verdict "and the GPUs are given back" $? ""
}

pair() {
    if [ "$gpus" -lt 2 ]; then
        row "two GPUs in a pod" skipped "this machine has one"
        return
    fi
    proof pair 2 "" -q -o json --profile smoke
    finish pair
    is_proved && [ "$(grep -c '"route": ' <<<"$lines")" = 2 ]
    verdict "two GPUs in a pod" $? "$said in $took s; $(verified); ways $(grep -o '"route": "[a-z-]*"' <<<"$lines" | sort | uniq -c | tr -s ' \n' ' ')"
    gone pair
}

run() {
    bed_up "$1"
    image=$(sed -n 's/^ *image: //p' deploy/prove/10-job.yaml)
    gpus=$(nvidia-smi -L | wc -l)
    node kubectl apply -f - <deploy/prove/00-namespace.yaml >>"$log" 2>&1
    node kubectl wait -n pitcrew-prove --for=create serviceaccount/default --timeout=30s >/dev/null 2>&1
    without_gpu
    start_agent
    if allocatable nvidia.com/gpu "$gpus"; then
        as_it_is
        from_ptx
        deleted
        job
        by_agent
        pair
        without_compiler
    fi
    stop_agent
    show node pitcrew agent uninstall
    bed_over
}

gpu_bed "$@"
