#!/bin/bash
# How far --plan-only is from steps that are measured.
#
#   tests/bench/plan.sh [--steps N] [--topology NAME] [--core NAME] [--dry]
#
# lm_moe.dsl with 8, 32 and 256 experts and the controls, at V=10000, in f32 and
# bf16, on one device; then with 32 experts by 2 and 4 processes of one thread
# each. Each row: the planned time of a step, the measured one (moerun bench,
# the median), and by how much the plan is wrong; the same for the memory of a
# process. The topologies (default cpu, and core for one thread) should be this
# machine's: the rates that moerun bench --profile finds. --dry makes tiny models,
# one step, to see that it works.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} steps=6 topology=cpu core=core dry=
while [ $# -gt 0 ]; do
  case $1 in
  --steps) steps=${2:?--steps needs a number} && shift ;;
  --topology) topology=${2:?--topology needs a name} && shift ;;
  --core) core=${2:?--core needs a name} && shift ;;
  --dry) dry=yes steps=1 ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  *) echo "plan.sh: unknown argument '$1'; --help tells more" >&2 && exit 2 ;;
  esac
  shift
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

number() { # KEY FILE
  grep -o "\"$1\": [0-9.e+-]*" "$2" | head -1 | cut -d' ' -f2
}

row() { # NAME PRECISION RANKS moec's arguments...
  local name=$1 precision=$2 ranks=$3 device=$topology run=()
  shift 3
  [ ! "$dry" ] || set -- "$@" -D V=32 -D D=16 -D T=4 -D B=4
  if [ "$ranks" != 1 ]; then
    set -- "$@" --mesh "dev=$ranks"
    device=$core run=(-n "$ranks")
  fi
  set -- "$@" --precision="$precision" --reshard-limit=100000
  "$BUILD/moec" --target=cpu "$@" -o "$work/x.so"
  "$BUILD/moec" "$@" --topology "$device" --plan-only --json >"$work/plan"
  "$BUILD/moerun" "${run[@]}" bench "$work/x.so" --steps "$steps" \
    ${run:+--threads 1} >"$work/bench"
  awk -v name="$name | $precision" -v p="$(number step_ms "$work/plan")" \
    -v m="$(number step_ms "$work/bench")" \
    -v pb="$(number memory_bytes "$work/plan")" \
    -v mb="$(number peak_bytes_measured "$work/bench")" 'BEGIN {
      printf "| %s | %.1f | %.1f | %+.0f %% | %.0f | %.0f | %+.0f %% |\n",
        name, p, m, 100 * (p / m - 1), pb / 2 ^ 20, mb / 2 ^ 20,
        100 * (pb / mb - 1) }'
}

cat <<'TEXT'
| case | precision | planned, ms | measured, ms | error | planned, MiB | measured, MiB | error |
|---|---|---|---|---|---|---|---|
TEXT
for precision in f32 bf16; do
  for n in 8 32 256; do
    [ ! "$dry" ] || [ $n = 8 ] || continue
    row "moe-$n" $precision 1 models/lm_moe.dsl -D V=10000 -D N=$n
  done
  row wide $precision 1 models/lm_wide.dsl -D V=10000
  row 4lstm $precision 1 models/lm_4lstm.dsl -D V=10000
  for n in 2 4; do
    row "moe-32, $n ranks" $precision $n models/lm_moe.dsl -D V=10000
  done
done
