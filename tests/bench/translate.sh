#!/bin/bash
# Translation with and without experts: tests/bench/translate.sh DIR
#
# DIR has pairs of sentences, a line each: train.SRC, valid.SRC, test.SRC and the
# same with .TGT. Trains models/mt_moe.dsl with experts and without on them, and
# prints for tests/bench/RESULTS.md perplexity on valid and BLEU on test, and the
# first translations beside source and reference. Logs, checkpoints and
# translations stay in build/translate/. In the environment: SRC, TGT (default de,
# en), STEPS, EXPERTS, OPTIONS of moec, SET (moerun's options), THREADS.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} SRC=${SRC:-de} TGT=${TGT:-en} STEPS=${STEPS:-2400}
dir=${1:?usage: tests/bench/translate.sh DIR}
work=$BUILD/translate
mkdir -p "$work"
size=${SIZE:-8000}
options=${OPTIONS:--D D=256 -D U=512 -D H=512 -D K=2 -D P=0.3 -D SMOOTH=0.1 -D MIDDLE=24 -D W=1920 -D WARMUP=200 --precision=bf16}
read -ra options <<<"$options"
read -ra set <<<"${SET:---set lr=2e-3} --threads ${THREADS:-0}"

"$BUILD/moerun" vocab "$dir/train.$SRC" "$dir/train.$TGT" -o "$work/vocab" \
  --split punctuation --size "$size"
printf '| experts | parameters | steps | perplexity on valid | BLEU on test |\n|---|---|---|---|---|\n' \
  >"$work/table"
for n in ${EXPERTS:-0 8}; do
  so=$work/mt$n.so
  "$BUILD/moec" --target=cpu models/mt_moe.dsl -D V="$size" -D N="$n" \
    -D STEPS="$STEPS" "${options[@]}" -o "$so"
  "$BUILD/moerun" train "$so" --data "$dir/train.$SRC" --target "$dir/train.$TGT" \
    --valid "$dir/valid.$SRC" --valid-target "$dir/valid.$TGT" --valid-every 500 \
    --vocab "$work/vocab" --steps "$STEPS" --ckpt "$work/mt$n" --ckpt-every 500 \
    --resume auto --log "$work/mt$n.jsonl" "${set[@]}" >"$work/mt$n.json"
  "$BUILD/moerun" translate "$so" --data "$dir/test.$SRC" --vocab "$work/vocab" \
    --ckpt "$work/mt$n" --threads "${THREADS:-0}" >"$work/test$n.$TGT"
  field() { grep -o "\"$1\": [^,}]*" "$2" | tail -1 | sed 's/.*: //'; }
  parameters=$("$BUILD/moerun" info "$so" | awk '!n && /^    all, elements/ { n = $3 } END { print n }')
  printf '| %s | %s | %s | %.2f | %s |\n' "$n" "$parameters" "$STEPS" \
    "$(field valid_perplexity "$work/mt$n.jsonl")" \
    "$("$BUILD/moerun" bleu "$work/test$n.$TGT" "$dir/test.$TGT" | sed 's/BLEU = \([0-9.]*\).*/\1/')" >>"$work/table"
done
cat "$work/table"
for i in 1 2 3 4 5; do
  printf '\n    %s\n    %s\n' "$(sed -n ${i}p "$dir/test.$SRC")" "$(sed -n ${i}p "$dir/test.$TGT")"
  for n in ${EXPERTS:-0 8}; do
    printf '    %s: %s\n' "$n" "$(sed -n ${i}p "$work/test$n.$TGT")"
  done
done
