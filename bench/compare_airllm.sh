#!/bin/sh
# lamina beside AirLLM on the CPU: the same bf16 weights, the same memory cgroup, alternating runs, ratio.
#
#   bench/compare_airllm.sh CHECKPOINT WORK [LIMIT]      limit: default 4096M
#
# CHECKPOINT needs a tokenizer that transformers reads. WORK is a folder for AirLLM's virtual environment and its split
# copy of the checkpoint (kept). Needs python3 with venv and the right to make memory cgroups (bench/capped).
# Environment: ROUNDS (default 3), TOKENS (default 4), LAMINA (default build/lamina), DTYPE (of lamina's store, as
# "packed"; default: as the checkpoint is).
set -eu
[ $# -ge 2 ] || { sed -n '2,9p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$(cd "$1" && pwd) work=$2 limit=${3:-4096M}
rounds=${ROUNDS:-3} tokens=${TOKENS:-4} lamina=${LAMINA:-$here/../build/lamina} dtype=${DTYPE:-}
mkdir -p "$work"
work=$(cd "$work" && pwd)

if [ ! -x "$work/venv-airllm/bin/python" ]; then
    python3 -m venv "$work/venv-airllm"
    "$work/venv-airllm/bin/pip" install -q "airllm==4.0.0"
fi
python=$work/venv-airllm/bin/python
store=$work/$(basename "$checkpoint")${dtype:+.$dtype}.store
[ -f "$store/manifest.json" ] || "$lamina" pack "$checkpoint" -o "$store" ${dtype:+--dtype "$dtype"}

cat >"$work/airllm_decode.py" <<'PY'
import sys, time
import torch
from airllm import AutoModel

checkpoint, shards, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = AutoModel.from_pretrained(checkpoint, device="cpu", dtype=torch.bfloat16, layer_shards_saving_path=shards,
                                  prefetching=True)
ids = torch.tensor([[1, 2, 3, 4]])
if tokens:
    def timed(n):
        begin = time.monotonic()
        model.generate(ids, max_new_tokens=n, min_new_tokens=n, do_sample=False, use_cache=True)
        return time.monotonic() - begin
    first = timed(1)
    print(tokens / max(timed(1 + tokens) - first, 1e-9))
PY
# The split is made once, outside of the cap.
[ -f "$work/airllm.split" ] || { "$python" "$work/airllm_decode.py" "$checkpoint" "$work/airllm" 0 >"$work/airllm.log" 2>&1 &&
    touch "$work/airllm.split"; }

median() { sort -g | awk '{ v[NR] = $1 } END { print NR ? (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 : "nan" }'; }
a=$work/a.$$ b=$work/b.$$
: >"$a"; : >"$b"
for _ in $(seq "$rounds"); do
    "$here/capped" "$limit" "$python" "$work/airllm_decode.py" "$checkpoint" "$work/airllm" "$tokens" \
        2>>"$work/airllm.log" | tail -n 1 >>"$b"
    "$here/capped" "$limit" "$lamina" bench "$store" --memory "$limit" --prompt-tokens 0 --rounds 1 --seconds 10 --json \
        2>>"$work/ours.log" | "$python" -c 'import json,sys; print(json.load(sys.stdin)["decode_tokens_per_s"])' >>"$a"
done
x=$(median <"$a") y=$(median <"$b")
printf '%-8s %14s %14s %8s\n' limit lamina AirLLM ratio
printf '%-8s %14.4f %14.4f %8.2f\n' "$limit" "$x" "$y" "$(echo "$x $y" | awk '{ print $1 / $2 }')"
rm -f "$a" "$b"
