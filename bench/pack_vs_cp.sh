#!/bin/sh
# Packing beside copying: how long `lamina pack` takes for a checkpoint, and `cp` (with sync) for the same bytes.
#
#   bench/pack_vs_cp.sh CHECKPOINT WORK      WORK: a folder on the same disk; twice the checkpoint's size is used
#
# Alternating, each from a cold page cache where that is permitted. Environment: ROUNDS (default 3), LAMINA.
set -eu
[ $# -eq 2 ] || { sed -n '2,6p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$1 work=$2 rounds=${ROUNDS:-3} lamina=${LAMINA:-$here/../build/lamina}
mkdir -p "$work"

cold() { sync; { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null || true; }
seconds() { # COMMAND... -> wall seconds
    begin=$(date +%s.%N)
    "$@" >/dev/null
    end=$(date +%s.%N)
    echo "$end $begin" | awk '{ print $1 - $2 }'
}
copy() { cp -r "$checkpoint" "$work/copy" && sync -f "$work/copy" && find "$work/copy" -type f -exec sync {} +; }
pack() { "$lamina" pack "$checkpoint" -o "$work/store"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR ? (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 : "nan" }'; }

a=$work/pack.times b=$work/cp.times
: >"$a"; : >"$b"
for _ in $(seq "$rounds"); do
    rm -rf "$work/copy"; cold; seconds copy >>"$b"; rm -rf "$work/copy"
    rm -rf "$work/store"; cold; seconds pack >>"$a"
done
rm -rf "$work/store"
x=$(median <"$a") y=$(median <"$b")
printf 'pack %.2f s, cp %.2f s: packing runs at %.3f of the speed of cp\n' "$x" "$y" "$(echo "$y $x" | awk '{ print $1 / $2 }')"
