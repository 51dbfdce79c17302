# The packed test bed on a machine with a GPU: what the scripts share that run something in it. Sourced, not run.
#
# A script that sources it has the functions `pack` and `run`, each of a directory, names its log in `name`, and ends with
# `gpu_bed "$@"`.
# shellcheck shell=bash disable=SC2034,SC2154
set -uo pipefail

usage() {
    sed -n '2,/^# shellcheck/{/^# shellcheck/!s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

# Packs the bed into a directory, with these files.
pack_bed() {
    local dir=$1 file
    local with=()
    shift
    for file in "$@"; do with+=(--with "$file"); done
    cargo run --release -p xtask -- testbed pack --out "$dir" "${with[@]}" || exit 1
    du -ch "$dir"/pitcrew-testbed*.tar.xz
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
    case $2 in ok | skipped) ;; *) status=1 ;; esac
}

# A row for what was looked at before.
verdict() {
    local title=$1 is_so=$2
    shift 2
    row "$title" "$([ "$is_so" = 0 ] && echo ok || echo FAILED)" "$*"
}

bed() { "$work/bin/testbed" testbed "$@"; }
node() { bed exec -- "$@"; }

settings() {
    local modes=persistence_mode,compute_mode,mig.mode.current,mig.mode.pending,ecc.mode.current,ecc.mode.pending
    nvidia-smi --format=csv,noheader --query-gpu="uuid,$modes,power.limit,clocks.max.sm,clocks.max.memory"
}

# Waits until a command succeeds, for so many seconds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.3
    done
}

offers() {
    found=$(node kubectl get node 127.0.0.1 -o "jsonpath={.status.allocatable.${1//./\\.}}" 2>/dev/null)
    [ "$found" = "$2" ]
}

# Waits until the node has so many of a resource to give.
allocatable() {
    await 40 offers "$@" && return
    say "$1 is ${found:-absent}, not $2"
    row "$2 of $1" FAILED "the node offers ${found:-none}; the agent's last word: $(tail -n 1 "$out/agent.err")"
    return 1
}

agent=
start_agent() {
    # In place of the subshell: what is looked at and ended must be the agent itself.
    (exec "$work/bin/testbed" testbed exec -- env NODE_NAME=127.0.0.1 pitcrew agent "$@") >/dev/null 2>>"$out/agent.err" </dev/null &
    agent=$!
    say "\$ pitcrew agent $*    (process $agent)"
    say ""
}

stop_agent() {
    [ -n "$agent" ] || return 0
    kill "$agent" 2>/dev/null
    wait "$agent" 2>/dev/null
    agent=
    say "the agent said:"
    cat "$out/agent.err" >>"$log"
    say ""
    : >"$out/agent.err"
}

# Unpacks and starts the bed of a directory.
bed_up() {
    local dir=$1 part
    work=$(mktemp -d)
    export PITCREW_TESTBED=$work/bed
    cat "$dir"/pitcrew-testbed*.tar.xz >/dev/null || exit 2
    for part in "$dir"/pitcrew-testbed*.tar.xz; do tar -xJf "$part" -C "$work" || exit 1; done
    log=$out/$name.log
    mkdir -p "$out"
    : >"$log"
    : >"$out/summary.txt"
    : >"$out/agent.err"
    before=$(settings) || { echo "nvidia-smi does not answer here" >&2; exit 2; }
    show nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    trap 'bed down >>"$log" 2>&1' EXIT
    show bed up || { tail -n 20 "$log"; exit 1; }
    node kubectl wait --for=create serviceaccount/default --timeout=30s >/dev/null 2>&1
    node kubectl apply -f - <deploy/crds/gpunodes.pitcrew.dev.yaml >>"$log" 2>&1
}

# Takes the bed down, compares the settings of the GPU with those of before, and prints the table.
bed_over() {
    local after
    trap - EXIT
    show bed down
    verdict "the bed is gone" $?
    after=$(settings)
    [ "$before" = "$after" ]
    verdict settings $? "before: $before; after: $after"
    cat "$out/summary.txt"
    echo "in $SECONDS s"
    exit "$status"
}

status=0
gpu_bed() {
    local dir
    [ $# = 2 ] || usage
    case $1 in
    pack) mkdir -p "$2" || exit 2 ;;
    run) ;;
    *) usage ;;
    esac
    dir=$(realpath -e "$2") || exit 2
    out=$(realpath -m "${OUT:-$dir/out}")
    cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
    "$1" "$dir"
}
