#!/bin/bash
# Training in bf16: near f32, the same each time, f32 in all that is kept, and
# right where products are widened.
source tests/checks.bash

compile() { # NAME OPTION...
  local name=$1
  shift
  "$MOEC" --target=cpu \
    models/lm_moe.dsl -D D=16 -D N=8 -D K=2 -D H=24 -D T=8 -D B=4 \
    -D WARMUP=20 "$@" -o "$d/$name.so"
}
train() { # LIBRARY NAME
  "$MOERUN" train "$d/$1.so" --data "$d/text" --threads 2 --quiet --steps 120 \
    --set lr=5e-3 --log "$d/$2.jsonl" --ckpt "$d/$2"
}
# The mean loss of the last 40 steps.
loss() {
  tail -40 "$d/$1.jsonl" | grep -o '"loss": [^,}]*' |
    awk '{ s += $2 } END { print s / NR }'
}
# near A B SHARE: their losses.
near() {
  awk -v a="$(loss "$1")" -v b="$(loss "$2")" -v share="$3" 'BEGIN {
    print a, b
    exit !(a > 0 && a - b < share * b && b - a < share * b) }'
}
same_slots() {
  for part in params optim state; do
    cmp "$d/$1/step-00000120/$part.safetensors" \
      "$d/$2/step-00000120/$part.safetensors" || return 1
  done
}
only_f32() { ! grep -aq '"BF16"' "$d/bf16/step-00000120/"*.safetensors; }
warns() { compile "$@" 2>&1 | grep -q 'warning: no fast products of bf16'; }
quiet() { ! warns "$@"; }

cat models/lib/*.dsl models/*.dsl >"$d/text"
expect 'compiles' compile f32
expect 'compiles to bf16' compile bf16 --precision=bf16
expect 'warns where it may be slow' warns v3 --precision=bf16 --mcpu=x86-64-v3
expect 'warns of bf16 alone' quiet v3f --mcpu=x86-64-v3
for name in f32 bf16 v3; do expect "$name trains" train $name $name; done
expect 'slots are f32' only_f32
expect 'trains again' train bf16 again
expect 'the same bits each time' same_slots bf16 again
expect 'a loss near that of f32' near bf16 f32 0.005
expect 'for another machine, too' near v3 f32 0.005
exit $status
