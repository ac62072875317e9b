#!/bin/bash
# The main job at a small size, through the programs: compile, train, resume,
# evaluate, sample, measure; and what users get when something is wrong.
source tests/checks.bash

# The last of the numbers behind a key.
last() { field "$@" | tail -1; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

small=(-D D=16 -D N=8 -D K=2 -D H=24 -D T=8 -D B=4 -D WARMUP=20)
cat models/lib/*.dsl models/*.dsl >"$d/text"
train() { "$MOERUN" train "$d/lm.so" --data "$d/text" --threads 2 --quiet "$@"; }

# ---- compiling -------------------------------------------------------------------

run 'compile' 0 '' "$MOEC" --target=cpu \
  models/lm_moe.dsl "${small[@]}" -o "$d/lm.so"
run 'from a dump' 0 '' "$MOEC" --target=cpu \
  models/lm_moe.dsl "${small[@]}" --loc \
  --stop-after=expand -o "$d/expanded.ir"
run 'to a library' 0 '' "$MOEC" --target=cpu \
  --from=simplify.3 "$d/expanded.ir" \
  -o "$d/resumed.so"
run 'info' 0 'lm/moe/experts/w1' "$MOERUN" info "$d/lm.so"
run 'embedded text' 0 'entry @train' "$MOERUN" info "$d/lm.so" --ir plan
for kind in loops llvm asm; do
  run "emit $kind" 0 '' "$MOEC" --target=cpu \
    models/lm_moe.dsl "${small[@]}" --emit=$kind
  expect "emit $kind writes text" [ -s "$d/out" ]
done
run 'memory report' 0 'arena' "$MOEC" --target=cpu \
  models/lm_moe.dsl "${small[@]}" \
  --report=memory
expect 'memory report: no lines of zeros' [ "$(grep -c ' 0 B$' "$d/out")" = 0 ]
expect 'memory report: what runs' \
  [ "$(echo $(grep '^entry' "$d/out"))" = 'entry init entry train entry eval entry decode' ]

# ---- training --------------------------------------------------------------------

run 'train' 0 '' train --steps 40 --log "$d/a.jsonl" --ckpt "$d/a"
run 'train again' 0 '' train --steps 40 --log "$d/b.jsonl" --ckpt "$d/b"
expect 'a line a step' [ "$(grep -c . "$d/a.jsonl")" = 40 ]
for key in step loss lr grad_norm tokens_per_s cv_importance cv_load \
  max_over_mean_load; do
  expect "the log has $key" [ "$(field $key "$d/a.jsonl" | wc -l)" = 40 ]
done
expect 'two runs, the same losses' \
  [ "$(field loss "$d/a.jsonl")" = "$(field loss "$d/b.jsonl")" ]
expect 'the loss falls' less "$(last loss "$d/a.jsonl")" \
  "$(field loss "$d/a.jsonl" | head -1)"
"$MOERUN" train "$d/resumed.so" --data "$d/text" --threads 2 --quiet --steps 40 \
  --log "$d/c.jsonl"
expect 'compiled from a dump, the same losses' \
  [ "$(field loss "$d/a.jsonl")" = "$(field loss "$d/c.jsonl")" ]
train --steps 25 --log "$d/r.jsonl" --ckpt "$d/r"
run 'resume' 0 '' train --steps 40 --log "$d/r.jsonl" --ckpt "$d/r" --resume auto
expect 'resumed, the same losses' \
  [ "$(field loss "$d/a.jsonl")" = "$(field loss "$d/r.jsonl")" ]
for file in params optim state; do
  expect "resumed, the same $file" cmp "$d/a/step-00000040/$file.safetensors" \
    "$d/r/step-00000040/$file.safetensors"
done
run 'poisoned memory' 0 '' train --steps 5 --poison --log "$d/p.jsonl"
expect 'poisoned memory, the same losses' \
  [ "$(field loss "$d/a.jsonl" | head -5)" = "$(field loss "$d/p.jsonl")" ]

# ---- using it ----------------------------------------------------------------------

bytes=$(stat -c %s "$d/text")
run 'eval' 0 "$((bytes - 1))" "$MOERUN" eval "$d/lm.so" --data "$d/text" \
  --ckpt "$d/a"
run 'sample' 0 '' "$MOERUN" sample "$d/lm.so" --ckpt "$d/a" --prompt fn \
  --tokens 50 --seed 3
cp "$d/out" "$d/sample"
run 'sample again' 0 '' "$MOERUN" sample "$d/lm.so" --ckpt "$d/a" --prompt fn \
  --tokens 50 --seed 3
expect 'one seed, one sample' cmp "$d/out" "$d/sample"
run 'bench' 0 '' "$MOERUN" bench "$d/lm.so" --steps 3
expect 'bench prints one line' [ "$(wc -l <"$d/out")" = 1 ]
for key in tokens_per_s step_ms gflops peak_bytes_planned peak_bytes_measured; do
  expect "bench tells $key" [ "$(last $key "$d/out")" ]
done

run 'compile a model that probes' 0 '' "$MOEC" --target=cpu \
  tests/models/blocks.dsl \
  -o "$d/blocks.so"
tr 'a-z' '\001-\012' <"$d/text" | tr -dc '\001-\012' >"$d/small"
run 'probe' 0 '' "$MOERUN" train "$d/blocks.so" --data "$d/small" --steps 5 \
  --probe "$d/probes" --probe-every 2 --quiet
expect 'probe: some steps and the last' [ "$(echo $(ls "$d/probes"))" = \
  "$(printf 'step-%08d.safetensors ' 2 4 5 | sed 's/ $//')" ]
expect 'probe: a tensor' grep -qa \
  '"squares":{"dtype":"F32","shape":\[2,3,5\]' "$d/probes/step-00000005.safetensors"
run 'probe: no such place' 1 '/proc/nowhere: No such file' "$MOERUN" train \
  "$d/blocks.so" --data "$d/small" --steps 1 --probe /proc/nowhere

# ---- sizes at the edge ----------------------------------------------------------------

edge() { # NAME -D options...
  local name=$1
  shift
  run "compile with $name" 0 '' "$MOEC" --target=cpu \
    models/lm_moe.dsl "${small[@]}" "$@" \
    -o "$d/edge.so"
  run "train with $name" 0 '' "$MOERUN" train "$d/edge.so" --data "$d/text" \
    --steps 40 --set lr=1e-2 --quiet --log "$d/edge.jsonl"
  expect "the loss falls with $name" less "$(last loss "$d/edge.jsonl")" \
    "$(field loss "$d/edge.jsonl" | head -1)"
}
edge 'one expert' -D N=1 -D K=1
edge 'all experts chosen' -D N=4 -D K=4
edge 'odd sizes' -D D=7 -D N=5 -D K=3 -D H=9 -D T=3 -D B=5
cp "$d/edge.so" "$d/odd.so"
edge 'one sequence' -D B=1
edge 'no fusion' -O0
edge 'AVX2' --mcpu=x86-64-v3
run 'fewer experts than K' 1 'models/.*:[0-9]*:[0-9]*: error' "$MOEC" \
  models/lm_moe.dsl "${small[@]}" -D N=2 -D K=4 -o "$d/few.so"
run 'all dropped out' 1 'dropout must be from 0 to below 1: 1' "$MOEC" \
  models/lm_moe.dsl "${small[@]}" -D P=1.0 -o "$d/few.so"
expect 'no library then' [ ! -e "$d/few.so" ]

# ---- what goes wrong ---------------------------------------------------------------

: >"$d/empty"
printf 'short' >"$d/short"
run 'missing file' 1 'none' train --steps 1 --data "$d/none"
run 'empty file' 1 'empty' train --steps 1 --data "$d/empty"
run 'file shorter than a batch' 1 'short' train --steps 1 --data "$d/short"
run 'no such library' 1 'none.so' "$MOERUN" info "$d/none.so"
run 'not a library' 1 'text' "$MOERUN" info "$d/text"
run 'unknown option' 2 "did you mean '*--steps" "$MOERUN" train "$d/lm.so" \
  --stesp 3
run 'loss that is not finite' 1 '[0-9]*:[0-9]*' train --steps 30 --set lr=1e30 \
  --ckpt "$d/inf" --ckpt-every 1
run 'the last good checkpoint is kept' 0 '' "$MOERUN" eval "$d/lm.so" \
  --data "$d/text" --ckpt "$d/inf"
cp -r "$d/a" "$d/cut"
truncate -s 1000 "$d/cut/step-00000040/params.safetensors"
run 'truncated checkpoint' 1 'truncated' train --steps 50 --resume "$d/cut"
run 'checkpoint of another size' 1 'in the file' "$MOERUN" train "$d/odd.so" \
  --data "$d/text" --steps 50 --resume "$d/a"
run 'unknown processor' 1 "unknown cpu 'knl'" "$MOEC" --target=cpu \
  models/lm_moe.dsl \
  "${small[@]}" --mcpu=knl -o "$d/knl.so"
exit $status
