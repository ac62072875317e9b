#!/bin/bash
# How the cost of a token grows with the number of experts, and how it falls with
# threads, as tables for tests/bench/RESULTS.md.
#
#   tests/bench/sweep.sh [experts] [threads] [--steps N] [--dry]
#
#   experts  lm_moe.dsl at H=64 with 4 to 4096 experts: what a token computes is
#            nearly the same, what a step moves grows with the parameters
#   threads  lm_moe.dsl with 32 experts by 1 to all threads, f32 and bf16
#
# --dry takes tiny models, few of them and one step, to see that it works.
#
# The limit is that of tests/bench/cpu.sh. `bound by` is the larger part of it,
# products or memory, where a step reaches half of it; else the source line that
# takes longest, with its share of the step.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} work=${BUILD:-build}/bench
steps=5 sweeps= most_experts=4096 most_threads=$(nproc) sizes=
while [ $# -gt 0 ]; do
  case $1 in
  experts | threads) sweeps+=" $1" ;;
  --steps) steps=${2:?--steps needs a number} && shift ;;
  --dry) steps=1 work=$BUILD/bench-dry most_experts=4 most_threads=1
    sizes='-D V=32 -D D=16 -D T=4 -D B=4' ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  *) echo "sweep.sh: unknown argument '$1'; --help tells more" >&2 && exit 2 ;;
  esac
  shift
done
mkdir -p "$work"

# One row: FIRST-CELLS THREADS MODEL.so
row() {
  "$BUILD/moerun" bench "$3" --steps "$steps" --threads "$2" --profile \
    >"$work/sweep.json" 2>"$work/sweep.txt"
  awk -v first="$1" '
    function field(name,   at) {
      at = index(json, "\"" name "\": ")
      return substr(json, at + length(name) + 4) + 0
    }
    FNR == NR { json = $0; next }
    found { share = $2; for (i = 6; i <= NF && !where; i++)
              if ($i ~ /:[0-9]+$/) where = $i
            exit }
    /^ms a step/ { found = 1 }
    END {
      n = split(where, part, "/")
      bound = sprintf("%s (%.0f %%)", n ? part[n] : "copies", share)
      if (field("limit_share") >= 0.5)
        bound = field("products_ms") > field("memory_ms") ? "products" : "memory"
      printf "| %s | %.0f | %.2f | %.2f (%.2f, %.2f) | %.0f %% | %s |\n", first,
        field("tokens_per_s"), 1e6 / field("tokens_per_s"),
        field("limit_ms") * 1e6 / (field("step_ms") * field("tokens_per_s")),
        field("products_ms") * 1e6 / (field("step_ms") * field("tokens_per_s")),
        field("memory_ms") * 1e6 / (field("step_ms") * field("tokens_per_s")),
        100 * field("limit_share"), bound
    }' "$work/sweep.json" "$work/sweep.txt"
}

columns='tokens/s | us a token | limit, us (products, memory) | share | bound by |'

sweep_experts() {
  local n precision
  echo "| experts | precision | $columns"
  echo '|---|---|---|---|---|---|---|'
  for ((n = 4; n <= most_experts; n *= 4)); do
    for precision in f32 bf16; do
      # shellcheck disable=SC2086
      "$BUILD/moec" --target=cpu models/lm_moe.dsl -D H=64 -D N=$n $sizes \
        --precision=$precision -o "$work/sweep.so"
      row "$n | $precision" "$(nproc)" "$work/sweep.so"
    done
  done
}

sweep_threads() {
  local threads precision
  echo "| threads | precision | $columns"
  echo '|---|---|---|---|---|---|---|'
  for precision in f32 bf16; do
    # shellcheck disable=SC2086
    "$BUILD/moec" --target=cpu \
      models/lm_moe.dsl -D V=10000 $sizes --precision=$precision \
      -o "$work/sweep.so"
    for ((threads = 1; threads <= most_threads; threads++)); do
      row "$threads | $precision" "$threads" "$work/sweep.so"
    done
  done
}

for sweep in ${sweeps:-experts threads}; do
  "sweep_$sweep"
  echo
done
