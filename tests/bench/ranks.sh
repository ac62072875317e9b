#!/bin/bash
# Tokens a second at 1, 2 and 4 ranks of one core each, what of a step is spent
# in exchanges, and what of that is exposed: waited for.
#
#   tests/bench/ranks.sh [--model FILE] [--steps N] [--ranks "1 2 4"]
#                        [--topology NAME] [MOEC OPTION...]
#
# Every count trains the same batch, so it is the same work shared out: `of
# ideal` is the speed against one rank's, times the number of ranks. What is in
# exchanges without being waited for went on behind computation, or while others
# had not come yet. Times are of rank 0. `estimate` is what --plan-only says of
# a step, and how far off that is. The table is for RESULTS.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
model=models/lm_moe.dsl steps=6 counts='1 2 4' topology=core
while [ $# -gt 0 ]; do
  case $1 in
  --model) model=$2 && shift 2 ;;
  --steps) steps=$2 && shift 2 ;;
  --ranks) counts=$2 && shift 2 ;;
  --topology) topology=$2 && shift 2 ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  *) break ;;
  esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

field() { sed -E "s/.*\"$1\": ([0-9.e+-]+).*/\1/; t; s/.*/0/" "$2"; }

# Milliseconds a step as planned.
estimate() {
  "$BUILD/moec" "$model" "${@:2}" --mesh dev="$1" --plan-only --json \
    --topology="$topology" >"$work/plan"
  field step_ms "$work/plan"
}

echo "$(basename "$model") ${*:-}, one core a rank"
echo
echo '| ranks | tokens/s | of ideal | ms a step | in exchanges | exposed |' \
  'MB in | estimate |'
echo '|---|---|---|---|---|---|---|---|'
first=
for n in $counts; do
  "$BUILD/moec" --target=cpu "$model" "$@" --mesh dev="$n" -o "$work/$n.so"
  "$BUILD/moerun" -n "$n" bench "$work/$n.so" --steps "$steps" --threads 1 \
    >"$work/$n.json"
  json=$work/$n.json
  speed=$(field tokens_per_s "$json")
  first=${first:-$(awk "BEGIN { print $speed / $n }")}
  awk -v n="$n" -v speed="$speed" -v first="$first" \
    -v ms="$(field step_ms "$json")" -v busy="$(field exchange_ms "$json")" \
    -v exposed="$(field exposed_ms "$json")" \
    -v bytes="$(field exchange_bytes "$json")" \
    -v guess="$(estimate "$n" "$@")" 'BEGIN {
      printf "| %d | %.0f | %.0f %% | %.1f | %.1f | %.1f | %.1f |", n, speed,
        100 * speed / (n * first), ms, busy, exposed, bytes / 1e6
      printf " %.1f ms, %+.0f %% |\n", guess, 100 * (guess - ms) / ms }'
done
