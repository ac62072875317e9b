#!/bin/bash
# Loss curves on real text: tests/bench/learn.sh FILE [MODEL...]
#
# Trains each model (default: lm_moe and its two controls) on the first nine
# tenths of the file, evaluates on all of the last tenth, and prints a table of
# tokens seen and nats a byte for tests/bench/RESULTS.md. Logs stay in
# build/learn/. STEPS, EVERY (steps between evaluations) and SET (moerun's
# options) can be given in the environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} STEPS=${STEPS:-1100} EVERY=${EVERY:-100}
file=${1:?usage: tests/bench/learn.sh FILE [MODEL...]}
shift
[ $# -gt 0 ] || set -- lm_moe lm_wide lm_4lstm
work=$BUILD/learn
mkdir -p "$work"

bytes=$(stat -Lc %s "$file")
head -c $((bytes * 9 / 10)) "$file" >"$work/train"
tail -c +$((bytes * 9 / 10 + 1)) "$file" >"$work/valid"

for model; do
  "$BUILD/moec" --target=cpu \
    "models/$model.dsl" -D WARMUP=200 -o "$work/$model.so"
  tokens=$("$BUILD/moec" "models/$model.dsl" --report=cost |
    sed -nE 's/.* ([0-9]+) tokens a step.*/\1/p')
  # shellcheck disable=SC2086
  "$BUILD/moerun" train "$work/$model.so" --data "$work/train" \
    --valid "$work/valid" --valid-every "$EVERY" --steps "$STEPS" --seed 1 \
    ${SET:---set lr=2e-3} --log "$work/$model.jsonl"
  echo
  echo "$model on $(basename "$file"), last tenth held out"
  awk -v tokens="$tokens" '
    function field(name,   at) {
      at = index($0, "\"" name "\": ")
      return at ? substr($0, at + length(name) + 4) + 0 : ""
    }
    BEGIN { print "| step | training tokens | train loss | held out, nats a byte |"
            print "|---|---|---|---|" }
    { loss += field("loss"); n++; ms += 1e3 / field("tokens_per_s")
      if (field("cv_load") != "") cv[NR % 100] = field("cv_load") }
    field("valid_loss") != "" {
      printf "| %d | %d | %.3f | %.3f |\n", field("step"),
        field("step") * tokens, loss / n, field("valid_loss")
      loss = n = 0 }
    END { for (i in cv) { sum += cv[i]; count++ }
          if (count)
            printf "\ncv_load, mean of the last %d steps: %.3f\n", count, sum / count
          printf "\n%.0f tokens a second\n", 1e3 * NR / ms }
  ' "$work/$model.jsonl"
done
