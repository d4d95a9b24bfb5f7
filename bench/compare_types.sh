#!/bin/sh
# What a type costs and saves: bytes, decoding in memory beside llama.cpp on the same quantised file, the prompt, and the
# same beside the unquantised model. Alternating runs, ratios of medians.
#
#   bench/compare_types.sh CHECKPOINT WORK [TYPE...]      default types: Q8_0 Q6_K Q4_K Q4_0
#
# CHECKPOINT is a Hugging Face folder in bf16. WORK is a folder for what is built and made (each quantised file is removed
# when it has been measured; kept with KEEP=yes). A TYPE in small letters (packed, nf4) is lamina's alone: a store by
# --dtype. llama.cpp computes with activations rounded to 8 bits, lamina with f32. Environment: ROUNDS (default 3), THREADS
# (default: nproc), LAMINA (default build/lamina), PROMPT (tokens, default 256; 0: none).
set -eu
[ $# -ge 2 ] || { sed -n '2,11p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$1 work=$2
shift 2
[ $# -gt 0 ] || set -- Q8_0 Q6_K Q4_K Q4_0
rounds=${ROUNDS:-3} threads=${THREADS:-$(nproc)} lamina=${LAMINA:-$here/../build/lamina} prompt=${PROMPT:-256}
# shellcheck source=bench/llamacpp.sh
. "$here/llamacpp.sh"
mkdir -p "$work"
work=$(cd "$work" && pwd)
bench_python "$work"
llamacpp_program "$work" llama-bench
name=$(basename "$checkpoint")
source=$work/$name.gguf
[ -f "$source" ] || { "$python" "$here/hf_to_gguf.py" "$checkpoint" "$source.part" && mv "$source.part" "$source"; }

json() { "$python" -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1], {"d": d}))' "$1"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR ? (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 : "nan" }'; }

peer() { # FILE -> decode | prompt tokens per second
    "$work/build/bin/llama-bench" -m "$1" -p "$prompt" -n 32 -t "$threads" -r 1 -ngl 0 -o json 2>>"$work/peer.log" |
        json '"%s %s" % (d[-1]["avg_ts"], d[0]["avg_ts"])'
}
ours() { # MODEL -> decode | prompt tokens per second, all in memory
    budget=$(($(awk '/MemAvailable/ { print $2 }' /proc/meminfo) * 9 / 10))K
    "$lamina" bench "$1" --memory "$budget" --threads "$threads" --prompt-tokens "$prompt" --rounds 1 --seconds 4 \
        --json 2>>"$work/ours.log" | json '"%s %s" % (d["decode_tokens_per_s"], d["prefill_tokens_per_s"])'
}

measure() { # NAME MODEL FILE ("": no peer): its line
    a=$work/a.$$ b=$work/b.$$
    : >"$a"; : >"$b"
    for _ in $(seq "$rounds"); do
        [ -z "$3" ] || peer "$3" >>"$b"
        ours "$2" >>"$a"
    done
    x=$(cut -d' ' -f1 "$a" | median) p=$(cut -d' ' -f2 "$a" | median)
    y=$(cut -d' ' -f1 "$b" | median) q=$(cut -d' ' -f2 "$b" | median)
    [ "$1" != source ] || { base=$x base_prompt=$p; }
    bytes=$("$lamina" inspect "$2" --brief --json | json 'd["weight_bytes"]')
    echo "$1 $bytes $x $y $base $p $q $base_prompt" | awk '
        function over(a, b) { return b + 0 > 0 && a + 0 > 0 ? sprintf("%.2f", a / b) : "-" }
        { printf "| %s | %.2f GB | %.2f | %s | %s | %.1f | %s | %s |\n", $1, $2 / 1e9, $3, over($3, $4), over($3, $5), $6,
                 over($6, $7), over($6, $8) }'
    rm -f "$a" "$b"
}

printf '| type | weights | tokens/s | over llama.cpp | over source | prompt, tokens/s | over llama.cpp | over source |\n'
printf '|---|---|---|---|---|---|---|---|\n'
measure source "$checkpoint" "$source"
for type in "$@"; do
    case $type in
    [a-z]*)
        made=$work/$name.$type.store file=
        [ -f "$made/manifest.json" ] || "$lamina" pack "$checkpoint" -o "$made" --dtype "$type" >"$work/pack.log" 2>&1
        ;;
    *)
        llamacpp_program "$work" llama-quantize
        made=$work/$name.$type.gguf file=$made
        [ -f "$made" ] || { "$work/build/bin/llama-quantize" --pure "$source" "$made.part" "$type" >"$work/quantize.log" 2>&1 &&
            mv "$made.part" "$made"; }
        ;;
    esac
    measure "$type" "$made" "$file"
    [ -n "${KEEP:-}" ] || rm -rf "$made"
done
