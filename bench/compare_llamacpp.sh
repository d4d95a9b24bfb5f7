#!/bin/sh
# lamina beside llama.cpp's mmap: the same bf16 weights, the same memory cgroup, alternating runs, ratios.
#
#   bench/compare_llamacpp.sh CHECKPOINT WORK [LIMIT...]      limits: default 5100M 3200M 1600M, and "all" (no limit)
#
# WORK is a folder for what is built and converted (kept: a second run begins at once). llama.cpp comes from the source
# package of llama-cpp-python on PyPI. Needs python3 with venv, cmake, a C++ compiler, and the right to make memory
# cgroups (bench/capped). Environment: ROUNDS (default 3), THREADS (default: nproc), LAMINA (default build/lamina),
# DTYPE (of lamina's store, as "packed"; default: as the checkpoint is).
set -eu
[ $# -ge 2 ] || { sed -n '2,10p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$1 work=$2
shift 2
[ $# -gt 0 ] || set -- all 5100M 3200M 1600M
rounds=${ROUNDS:-3} threads=${THREADS:-$(nproc)} lamina=${LAMINA:-$here/../build/lamina} dtype=${DTYPE:-}
# shellcheck source=bench/llamacpp.sh
. "$here/llamacpp.sh"
mkdir -p "$work"
work=$(cd "$work" && pwd)
bench_python "$work"
llamacpp_program "$work" llama-bench
llama_bench=$work/build/bin/llama-bench

name=$(basename "$checkpoint")
gguf=$work/$name.gguf store=$work/$name${dtype:+.$dtype}.store
[ -f "$gguf" ] || { "$python" "$here/hf_to_gguf.py" "$checkpoint" "$gguf.part" && mv "$gguf.part" "$gguf"; }
[ -f "$store/manifest.json" ] || "$lamina" pack "$checkpoint" -o "$store" ${dtype:+--dtype "$dtype"}

json() { "$python" -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1], {"d": d}))' "$1"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR ? (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 : "nan" }'; }
in_cap() { limit=$1; shift; if [ "$limit" = all ]; then "$@"; else "$here/capped" "$limit" "$@"; fi; }

peer() { # LIMIT TOKENS -> tokens per second; the warm-up pass fills what the cache can hold
    in_cap "$1" "$llama_bench" -m "$gguf" -p 0 -n "$2" -t "$threads" -r 1 -ngl 0 -o json 2>>"$work/peer.log" |
        json 'd[0]["avg_ts"]'
}
ours() { # LIMIT -> tokens per second
    budget=$1
    [ "$1" != all ] || budget=$(($(awk '/MemAvailable/ { print $2 }' /proc/meminfo) * 9 / 10))K
    in_cap "$1" "$lamina" bench "$store" --memory "$budget" --threads "$threads" --prompt-tokens 0 --rounds 1 \
        --seconds 10 --json 2>>"$work/ours.log" | json 'd["decode_tokens_per_s"]'
}

printf '%-8s %14s %14s %8s\n' limit lamina llama.cpp ratio
for limit in "$@"; do
    tokens=8
    [ "$limit" != all ] || tokens=128
    a=$work/a.$$ b=$work/b.$$
    : >"$a"; : >"$b"
    for _ in $(seq "$rounds"); do
        peer "$limit" "$tokens" >>"$b"
        ours "$limit" >>"$a"
    done
    x=$(median <"$a") y=$(median <"$b")
    printf '%-8s %14.4f %14.4f %8.2f\n' "$limit" "$x" "$y" "$(echo "$x $y" | awk '{ print $1 / $2 }')"
    rm -f "$a" "$b"
done
