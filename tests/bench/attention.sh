#!/bin/bash
# Attention, forward and backward: the fused op, the same written out in the
# language, and PyTorch's scaled_dot_product_attention, on the same shapes.
#
#   tests/bench/attention.sh [--times "512 2048"] [--python PATH|none]
#                            [--threads N] [--steps N] [--dry] [MOEC OPTION...]
#
# 8 sequences of 8 heads, 64 wide (-D B=, H=, E=). Of a step of
# tests/bench/attention.dsl only what attention takes counts: not the loss, the
# update, nor casts of what it is given. The table is for RESULTS.md; last come
# the times in all of the others divided by that of the op.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
model=tests/bench/attention.dsl
times='512 2048' masks='1 0' python=$BUILD/peers/venv/bin/python threads=$(nproc) steps=4
b=8 h=8 e=64
while [ $# -gt 0 ]; do
  case $1 in
  --times) times=$2 && shift 2 ;;
  --python) python=$2 && shift 2 ;;
  --threads) threads=$2 && shift 2 ;;
  --steps) steps=$2 && shift 2 ;;
  --dry) times=8 masks=1 python=none steps=1 b=2 h=2 e=4 && shift ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  *) break ;;
  esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
loss=$(grep -n minimize $model | cut -d: -f1)

# Milliseconds a step of the lines that are not the loss, nor in no line.
ours() { # FUSED T CAUSAL PRECISION OPTION...
  "$BUILD/moec" --target=cpu \
    $model -D B=$b -D H=$h -D E=$e -D FUSED="$1" -D T="$2" \
    -D CAUSAL="$3" --precision="$4" "${@:5}" -o "$work/a.so"
  "$BUILD/moerun" bench "$work/a.so" --steps "$steps" --threads "$threads" \
    --profile 2>&1 >"$work/json" |
    awk -v loss=":$loss " '/^ms a step/ { rows = 1; next }
      rows && /dsl:/ && index($0, loss) == 0 { sum += $1 }
      END { printf "%.3f", sum }'
}

peer() { # T CAUSAL PRECISION
  [ "$python" != none ] || { echo -; return; }
  "$python" tests/bench/peers/attention_torch.py --shape $b $h "$1" $e \
    --causal "$2" --precision "$3" --threads "$threads"
}

ratio() { # MS MS
  [ "$1" = - ] && echo - || awk -v a="$1" -v b="$2" 'BEGIN {
    printf "%.2f", a / b }'
}

echo "$b sequences, $h heads, $e wide, $threads threads${*:+, $*}"
echo
echo '| T | sees | precision | op | written out | PyTorch | written out / op |' \
  'PyTorch / op |'
echo '|---|---|---|---|---|---|---|---|'
for t in $times; do
  for causal in $masks; do
    for precision in f32 bf16; do
      op=$(ours 1 "$t" $causal $precision "$@")
      plain=$(ours 0 "$t" $causal $precision "$@")
      other=$(peer "$t" $causal $precision)
      [ $causal = 1 ] && sees=past || sees=all
      echo "| $t | $sees | $precision | $op | $plain | $other |" \
        "$(ratio "$plain" "$op") | $(ratio "$other" "$op") |"
    done
  done
done
