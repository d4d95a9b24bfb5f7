#!/bin/sh
# What quantising a model costs, by type and by quantiser: bytes, perplexity, and the divergence from the model that was
# quantised, with standard errors.
#
#   bench/compare_quants.sh MODEL WORK [TYPE...]       default types: Q8_0 Q6_K Q5_K Q4_K Q4_0
#
# MODEL is a GGUF file in f32, f16 or bf16 (bench/gguf_widen.py makes one of a quantised file) or a checkpoint that
# bench/hf_to_gguf.py can write. llama.cpp's llama-quantize and lamina pack --dtype quantise it, without calibration, every
# matrix to the same type (llama.cpp: --pure); a type that ends in _S, _M or _L is llama.cpp's mixture of that name. WORK is
# a folder for what is built and made (kept: a second run begins at once). A TYPE that is a path is a model that somebody
# else has quantised, and is compared as it is; one with "=" (bits=4.5) or in small letters (nf4) is lamina's alone. With
# $CALIBRATE, a text, lamina's rows come twice, the second time by --calibrate.
#
# The text: $TEXT, or this repository's documents. Environment: LAMINA (default build/lamina), MEMORY (default 2G), TOKENS
# (default all), CONTEXT (default 512, in windows side by side), THREADS.
set -eu
[ $# -ge 2 ] || { sed -n '2,14p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
model=$1 work=$2
shift 2
[ $# -gt 0 ] || set -- Q8_0 Q6_K Q5_K Q4_K Q4_0
lamina=${LAMINA:-$here/../build/lamina} memory=${MEMORY:-2G} context=${CONTEXT:-512} tokens=${TOKENS:-2147483647}
# shellcheck source=bench/llamacpp.sh
. "$here/llamacpp.sh"
mkdir -p "$work"
work=$(cd "$work" && pwd)
bench_python "$work"

name=$(basename "$model")
name=${name%.gguf}
source=$model
if [ -d "$model" ]; then
    source=$work/$name.gguf
    [ -f "$source" ] || { "$python" "$here/hf_to_gguf.py" "$model" "$source.part" && mv "$source.part" "$source"; }
fi
text=${TEXT:-$work/documents.txt}
[ -n "${TEXT:-}" ] || (cd "$here/.." && cat README.md CONTRIBUTING.md docs/*.md tests/data/text/*.txt) >"$text"
logits=$work/$name.$(sha256sum <"$text" | cut -c1-12).$context.$tokens.logits

json() { "$python" -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1], {"d": d}))' "$1"; }

size() { # MODEL -> bytes | bits per weight
    "$lamina" inspect "$1" --brief --json | json '"%d | %.3f" % (d["weight_bytes"], 8 * d["weight_bytes"] / d["parameters"])'
}

row() { # WHO TYPE MODEL: evaluates it, and prints its line of the table; before the first line that of the source
    log=$work/$name.$(printf %s "$1" | tr ' ' -).$2.json
    "$lamina" eval "$3" "$text" --against "$source" --logits-cache "$logits" --context "$context" --stride "$context" \
        -n "$tokens" --memory "$memory" ${THREADS:+--threads "$THREADS"} --json >"$log" 2>"$work/eval.log" ||
        { printf '| %s | %s | %s |\n' "$1" "$2" "$(tail -n 1 "$work/eval.log")"; return 0; }
    [ -n "$headed" ] || printf '| source | | %s | %s | | | |\n' "$(size "$source")" "$(json '"%.4f ± %.4f" % (
        d["reference"]["perplexity"], d["reference"]["perplexity_stderr"])' <"$log")"
    headed=yes
    printf '| %s | %s | %s | %s |\n' "$1" "$2" "$(size "$3")" "$(json '"%.4f ± %.4f | %.6f ± %.6f | %.4f ± %.4f | %.2f ± %.2f" % (
        d["perplexity"], d["perplexity_stderr"], d["kl_mean"], d["kl_mean_stderr"], d["kl_p99"], d["kl_p99_stderr"],
        100 * d["top1_agreement"], 100 * d["top1_agreement_stderr"])' <"$log")"
}

lamina_row() { # TYPE: by the weights alone and, where there is a text, by that
    spec=$(printf %s "$1" | tr '[:upper:]' '[:lower:]')
    for by in "" "$calibrate"; do
        [ -n "$by" ] || [ -n "$first" ] || continue
        first=
        made=$work/$name.$1${by:+.by.$(sha256sum <"$by" | cut -c1-8)}.store
        [ -f "$made/manifest.json" ] ||
            "$lamina" pack "$source" -o "$made" --dtype "$spec" --memory "$memory" ${by:+--calibrate "$by"} >"$work/pack.log" 2>&1 ||
            { printf '| lamina | %s | %s |\n' "$1" "$(tail -n 1 "$work/pack.log")"; continue; }
        row "lamina${by:+ calibrated}" "$1" "$made"
    done
}

headed=
calibrate=${CALIBRATE:-}
printf '%s over %s bytes of text, windows of %s tokens\n\n' "$name" "$(wc -c <"$text" | tr -d ' ')" "$context"
printf '| quantiser | type | bytes | bits a weight | perplexity | KL divergence, mean | 99th percentile | same top token, %% |\n'
printf '|---|---|---|---|---|---|---|---|\n'
for type in "$@"; do
    first=yes
    if [ -e "$type" ]; then
        row given "$(basename "$type")" "$type"
        continue
    fi
    case $type in *=* | [a-z]*) lamina_row "$type"; continue ;; esac
    pure=--pure
    case $type in *_S | *_M | *_L) pure= ;; esac
    llamacpp_program "$work" llama-quantize
    made=$work/$name.$type.gguf
    [ -f "$made" ] || { "$work/build/bin/llama-quantize" $pure "$source" "$made.part" "$type" >"$work/quantize.log" 2>&1 &&
        mv "$made.part" "$made"; }
    row llama.cpp "$type" "$made"
    [ -z "$pure" ] || lamina_row "$type"
done
