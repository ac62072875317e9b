#!/bin/bash
# moec against PyTorch: the same model from the same weights on the same bytes.
#
#   tests/bench/agree.sh FILE [moec's -D options...]
#
# The first step's gradients and the first 20 losses must agree within 1e-4.
# Needs a Python with torch: $PYTHON, or one that is put into build/peers/venv
# from PyPI (several GB, as PyTorch comes with its GPU libraries).
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} STEPS=${STEPS:-20}
data=${1:?usage: tests/bench/agree.sh FILE [-D NAME=VALUE...]}
shift
work=$BUILD/peers/agree
mkdir -p "$work"

PYTHON=${PYTHON:-$BUILD/peers/venv/bin/python}
if ! "$PYTHON" -c 'import torch, numpy' 2>/dev/null; then
  echo "installing PyTorch into $BUILD/peers/venv"
  python3 -m venv "$BUILD/peers/venv"
  PYTHON=$BUILD/peers/venv/bin/python
  "$PYTHON" -m pip install -q torch numpy
fi

# A const of agree.dsl, as the options set it.
size() {
  local value
  value=$(sed -nE "s/^const $1 *= *([0-9]+).*/\1/p" tests/bench/agree.dsl)
  for arg in "${options[@]}"; do
    case $arg in "$1="*) value=${arg#*=} ;; esac
  done
  echo "$value"
}
options=("$@")

"$PYTHON" tests/bench/peers/lm_moe_torch.py weights "$work/weights.safetensors" \
  --width "$(size D)" --experts "$(size N)" --hidden "$(size H)" \
  --vocabulary "$(size V)"
"$BUILD/moec" --target=cpu tests/bench/agree.dsl "$@" -o "$work/agree.so"
rm -rf "$work/after" "$work/log.jsonl"
run() { # moerun's options...
  "$BUILD/moerun" train "$work/agree.so" --data "$data" --quiet \
    --load "$work/weights.safetensors:*" "$@"
}
run --entry descend --steps 1 --ckpt "$work/after"
run --steps "$STEPS" --log "$work/log.jsonl"
"$PYTHON" tests/bench/peers/lm_moe_torch.py compare --data "$data" --steps "$STEPS" \
  --weights "$work/weights.safetensors" --log "$work/log.jsonl" \
  --after "$work/after/$(cat "$work/after/latest")/params.safetensors" \
  --k "$(size K)" --batch "$(size B)" --time "$(size T)" \
  --warmup "$(size WARMUP)" --sgd-rate "$(size RATE)"
