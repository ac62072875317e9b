#!/bin/bash
# not under the sanitizers: what the scripts run is tested there by itself
# The scripts of tests/bench that need no Python and no data of their own, at tiny
# sizes: that they run and print a row for each case. The numbers do not matter.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
status=0

# check NAME ROWS PATTERN ARGUMENTS...: so many lines have the pattern.
check() {
  local name=$1 want=$2 pattern=$3 n
  shift 3
  if ! bash tests/bench/"$@" >"$d/out" 2>"$d/err"; then
    echo "not ok $name: it fails"
    tail -5 "$d/err" >&2
    status=1
    return
  fi
  n=$(cat "$d/out" "$d/err" | grep -cE "^\| ($pattern) \|.*[0-9]")
  if [ "$n" = "$want" ]; then
    echo "ok $name"
  else
    echo "not ok $name: $n rows, not $want"
    status=1
  fi
}

check 'speed, without peers' 2 'moe-8 \| (f32|bf16)' cpu.sh --dry --only moe-8
check 'speed, told again' 2 'moe-8 \| (f32|bf16)' cpu.sh --dry --only moe-8 \
  --report
check 'cost against experts' 2 '4 \| (f32|bf16)' sweep.sh experts --dry
check 'cost against threads' 2 '1 \| (f32|bf16)' sweep.sh threads --dry
check 'ranks' 2 '[12]' ranks.sh --steps 1 --ranks '1 2' \
  -D V=256 -D D=16 -D N=4 -D H=16 -D T=4 -D B=4
check 'attention' 2 '8 \| [a-z]* \| [bf0-9]*' attention.sh --dry
check 'layouts' 4 '(lm_[a-z0-9]*|tiny)[^|]*' layouts.sh --dry
check 'plans against steps' 10 '[a-z0-9, -]+ \| (f32|bf16)' plan.sh --dry
mkdir "$d/texts"
cp README.md "$d/texts/one.txt"
cp HACKING.md "$d/texts/two.txt"
export SEEDS=1
check "papers' findings" 2 '(factored )?Adam' papers.sh "$d/texts" optimiser --dry
check "papers' findings, told again" 2 '(factored )?Adam' papers.sh "$d/texts" optimiser --dry --report
exit $status
