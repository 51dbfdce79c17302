#!/usr/bin/env bash
# pitcrew on a real GPU, on a machine that may have no network, Rust or Kubernetes.
#
#   crates/tests/real_gpu.sh pack DIR    where there is Rust: builds what is carried, into DIR
#   crates/tests/real_gpu.sh run DIR     on the machine with the GPU: runs it, from a checkout without a build
#
# `run` only reads: it sets no MIG mode, clock or power limit and resets nothing, and says so if a setting changed all
# the same. Whole outputs go to $OUT (or DIR/out), a short table to standard output. Ends with 1 where a line is not ok.
set -uo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# What is carried: the program, and the programs of ring 5 as ring5/PACKAGE/NAME.
pack() {
    local dir=$1 package name path
    mkdir -p "$dir/ring5"
    {
        cargo build --profile "${PROFILE:-release}" -p pitcrew --message-format=json-render-diagnostics &&
            cargo test --workspace --test 'ring5_*' --no-run --message-format=json-render-diagnostics
    } >"$dir/cargo.json" || exit 1
    python3 -c '
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        package = os.path.basename(os.path.dirname(message["manifest_path"]))
        print(package, message["target"]["name"], message["executable"])
' <"$dir/cargo.json" | while read -r package name path; do
        case $name in
        pitcrew) strip -o "$dir/pitcrew" "$path" ;;
        ring5_*) mkdir -p "$dir/ring5/$package" && strip -o "$dir/ring5/$package/$name" "$path" ;;
        esac
    done
    rm "$dir/cargo.json"
    find "$dir" -type f -exec du -h {} +
}

# One line of the account: name, verdict, what there is to say.
row() {
    printf '%-18s %-8s %s\n' "$1" "$2" "$3" >>"$out/summary.txt"
    case $2 in ok | skipped) ;; *) status=1 ;; esac
}

# Runs a command for at most $limit seconds; all that it writes goes to $out/NAME.txt. Its exit status is in $code.
limit=60
quietly() {
    local name=$1
    shift
    timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err" </dev/null
    code=$?
}

# A line for a command that must end with one of these statuses, and not by a panic.
step() {
    local name=$1 wanted=$2
    shift 2
    quietly "$name" "$@"
    local verdict=FAILED said
    case " $wanted " in *" $code "*) verdict=ok ;; esac
    if grep -q 'panicked at' "$out/$name.txt" "$out/$name.err"; then verdict=PANICKED; fi
    if [ "$verdict" = ok ]; then
        said=$(tail -n 1 "$out/$name.txt")
    else
        said=$(grep -v '^$' "$out/$name.err" | head -n 1)
        [ -n "$said" ] || said=$(tail -n 1 "$out/$name.txt")
        [ "$code" = 124 ] && said="did not end within $limit s"
    fi
    row "$name" "$verdict" "($code) ${said:0:140}"
}

# Everything that can be set and that this script must leave alone.
settings() {
    local modes=persistence_mode,compute_mode,mig.mode.current,mig.mode.pending,ecc.mode.current,ecc.mode.pending
    nvidia-smi --format=csv,noheader --query-gpu="uuid,$modes,power.limit,clocks.max.sm,clocks.max.memory"
}

use_count() {
    cat /sys/module/nvidia/refcnt 2>/dev/null || echo unknown
}

# The median of ten runs in milliseconds; fewer where they take more than a minute together.
median() {
    local name=$1 start took total=0 runs=0 all=""
    shift
    while [ "$runs" -lt 10 ] && [ "$total" -lt 60000000 ]; do
        start=$(date +%s%N)
        timeout -k 5 60 "$@" >/dev/null 2>&1 </dev/null
        took=$((($(date +%s%N) - start) / 1000))
        total=$((total + took)) runs=$((runs + 1)) all="$all$took"$'\n'
    done
    # For an even number the upper of the two in the middle.
    took=$(printf %s "$all" | sort -n | sed -n "$((runs / 2 + 1))p")
    printf '%-42s %8d.%d ms, median of %d\n' "$name" $((took / 1000)) $((took % 1000 / 100)) "$runs" \
        >>"$out/timings.txt"
}

run() {
    local dir=$1 pitcrew program package name before count result failed
    pitcrew=$dir/pitcrew
    [ -x "$pitcrew" ] || { echo "error: there is no $pitcrew; \`$0 pack $1\` makes it" >&2; exit 2; }
    command -v nvidia-smi >/dev/null || { echo "error: there is no nvidia-smi on this machine" >&2; exit 2; }
    mkdir -p "$out"
    : >"$out/summary.txt"
    : >"$out/timings.txt"
    { uname -a; nvidia-smi -L; cat /proc/driver/nvidia/version; ls -l /dev/nvidia*; } >"$out/machine.txt" 2>&1
    nvidia-smi -q -x >"$out/nvidia-smi.xml" 2>&1
    before=$(settings)
    count=$(use_count)

    # 1: pitcrew found something wrong with a GPU or the node, which is no fault of pitcrew's.
    step gpus "0 1" "$pitcrew" gpus
    step gpus-json "0 1" "$pitcrew" gpus -o json
    if command -v python3 >/dev/null; then
        step smi-compare 0 python3 -B crates/tests/python/smi_compare.py --run "$pitcrew" --save "$out/compared"
    else
        row smi-compare skipped "there is no python3"
    fi
    for program in "$dir"/ring5/*/*; do
        [ -x "$program" ] || { row ring5 FAILED "no programs in $dir/ring5"; break; }
        name=$(basename "$program") package=$(basename "$(dirname "$program")")
        limit=180
        quietly "$name" env -C "crates/$package" CARGO_MANIFEST_DIR="$PWD/crates/$package" PITCREW_BIN="$pitcrew" \
            "$program" --include-ignored --test-threads=1
        limit=60
        result=$(grep '^test result: ' "$out/$name.txt" | cut -d';' -f1-3)
        failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/; \1/p' "$out/$name.txt" | tr -d '\n')
        row "$name" "$([ "$code" = 0 ] && echo ok || echo FAILED)" "($code) $result$failed"
    done
    step check "0 1" "$pitcrew" check
    step top-once "0 1" "$pitcrew" top --once
    if command -v python3 >/dev/null; then
        step descriptors 0 python3 -B crates/tests/python/descriptors.py "$pitcrew" top
    else
        row descriptors skipped "there is no python3"
    fi

    median "pitcrew gpus -o json" "$pitcrew" gpus -o json
    median "pitcrew gpus --scenario h100x8 -o json" "$pitcrew" gpus --scenario h100x8 -o json
    median "pitcrew check" "$pitcrew" check
    median "pitcrew top --once" "$pitcrew" top --once
    median "nvidia-smi -q -x" nvidia-smi -q -x

    if [ "$count" = unknown ]; then
        row use-count skipped "the module nvidia does not tell"
    else
        row use-count "$([ "$count" = "$(use_count)" ] && echo ok || echo FAILED)" \
            "of the module nvidia: $count before, $(use_count) after"
    fi
    settings >"$out/settings-after.txt"
    if [ "$before" = "$(cat "$out/settings-after.txt")" ]; then
        row settings ok "modes and limits are as before"
    else
        printf '%s\n' "$before" >"$out/settings-before.txt"
        row settings FAILED "modes or limits changed: $out/settings-before.txt, $out/settings-after.txt"
    fi

    head -n 3 "$out/machine.txt"
    cat "$out/timings.txt" "$out/summary.txt"
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
