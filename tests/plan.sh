#!/bin/bash
# --plan-only on whole models: counts of the 2017 paper, to the digit and beyond
# 2^31; products divided over the devices without a rest; the arena of
# --report=memory; every topology that comes along; and a list of 2048 devices.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
status=0

bad() { # NAME WHY
  echo "not ok $1: $2"
  [ -s "$d/err" ] && head -10 "$d/err" >&2
  status=1
}

plan() { "$MOEC" "$@" --plan-only --json 2>"$d/err" >"$d/json"; }

number() { # KEY: its value in the JSON
  grep -o "\"$1\": [0-9.e+-]*" "$d/json" | head -1 | cut -d' ' -f2
}

# ---- counts of the paper -----------------------------------------------------

count() { # NAME PARAMETERS OPERATIONS moec's arguments...
  local name="counts of $1" params=$2 ops=$3
  shift 3
  plan "$@" || { bad "$name" "no plan"; return; }
  if [ "$(number core_parameters)" = "$params" ] &&
    [ "$(number core_macs)" = $((ops * $(number tokens))) ]; then
    echo "ok $name"
  else
    bad "$name" "$(number core_parameters), $(number core_macs) a step"
  fi
}

count MoE-4 8392704 8392704 models/lm_moe.dsl -D N=4 --mesh dev=4
count MoE-32 37781504 8421376 models/lm_moe.dsl
count 'MoE-32 on 16 devices' 37781504 8421376 models/lm_moe.dsl --mesh dev=16
count MoE-256 272891904 8650752 models/lm_moe.dsl -D N=256 --mesh dev=64
count MoE-1-Wide 8388608 8388608 models/lm_wide.dsl --mesh data=4
count 4xLSTM-512 8388608 8388608 models/lm_4lstm.dsl --mesh data=8
# 2 LSTMs of 2097152, a gate of 2 * 512 * N, N experts of 1048576
count 'a flat MoE of 131072 experts' \
  $((2 * 2097152 + 1024 * 131072 + 131072 * 1048576)) \
  $((2 * 2097152 + 1024 * 131072 + 4 * 1048576)) \
  models/lm_moe.dsl -D N=131072 -D B=2048 --mesh dev=2048 \
  --reshard-limit=100000

# ---- products ----------------------------------------------------------------

# Devices that divide all sizes share the products without a rest.
shared() { # DEVICES moec's arguments...
  local n=$1 name one
  shift
  name="products of $* by devices"
  plan "${@:1:$#-2}" || { bad "$name" "no plan for one"; return; }
  one=$(number flops)
  plan "$@" || { bad "$name" "no plan"; return; }
  if awk -v a="$one" -v b="$(number flops)" -v n="$n" \
    'BEGIN { exit !(a > 0 && (a - n * b) ^ 2 < (1e-6 * a) ^ 2) }'; then
    echo "ok $name"
  else
    bad "$name" "$one on one device, $(number flops) on each of $n"
  fi
}

for mesh in dev=8 data=4,model=2 data=2,expert=4; do
  shared 8 models/lm_moe.dsl --mesh $mesh
done
shared 4 models/lm_moe.dsl -D V=10000 --precision=bf16 --mesh dev=4
shared 16 models/lm_4lstm.dsl --mesh data=4,model=4
shared 4 models/lm_wide.dsl --mesh dev=2,model=2

# ---- memory ------------------------------------------------------------------

arena() { # moec's arguments...
  local name="memory of $*" real
  real=$("$MOEC" "$@" --report=memory 2>"$d/err" |
    awk '/^  arena, of the largest/ { print $6 }')
  plan "$@" || { bad "$name" "no plan"; return; }
  if [ "$real" ] && [ "$real" = $(($(number activation_bytes) +
    $(number gradient_bytes))) ] &&
    [ "$(number gradient_bytes)" -le "$(number parameter_bytes)" ]; then
    echo "ok $name"
  else
    bad "$name" "$(number activation_bytes) beside gradients, not $real"
  fi
}

arena models/lm_moe.dsl -D V=10000 -D N=256 --precision=bf16
arena models/lm_moe.dsl --mesh dev=64
arena models/lm_4lstm.dsl --mesh data=4,model=2

# ---- topologies --------------------------------------------------------------

for file in models/topologies/*.topo; do
  name=$(basename "$file" .topo)
  if plan models/lm_moe.dsl --mesh dev=4 --topology "$name"; then
    cp "$d/json" "$d/named"
    plan models/lm_moe.dsl --mesh dev=4 --topology "$file" &&
      cmp -s "$d/json" "$d/named" ||
      bad "topology $name" "its file is another"
    echo "ok topology $name"
  else
    bad "topology $name" "no plan for four devices"
  fi
done

# ---- many devices ------------------------------------------------------------

if plan models/lm_moe.dsl --mesh dev=128 &&
  [ "$(number tokens)" = $((128 * 32)) ] &&
  grep -q '"with": "B=128"' "$d/json" &&
  grep -q 'warning: planned with B=128: 64 does not divide' "$d/err"
then
  echo "ok more devices than sequences"
else
  bad "more devices than sequences" "no plan for a larger batch"
fi

if timeout 60 "$MOEC" models/lm_moe.dsl -D N=1024 -D B=64 --grow=B,N \
  --mesh dev=16 --plan-only=16..2048 --topology h100 --reshard-limit=100000 \
  >"$d/table" 2>"$d/err"; then
  rows=$(awk '$1 ~ /^[0-9]+$/ { n++ } END { print n + 0 }' "$d/table")
  [ "$rows" = 8 ] && echo "ok 16 to 2048 devices" ||
    bad "16 to 2048 devices" "$rows rows"
else
  bad "16 to 2048 devices" "no table"
fi
"$MOEC" models/lm_moe.dsl -D N=131072 -D B=16 --mesh dev=16 --topology k40 \
  --plan-only --reshard-limit=100000 >"$d/out" 2>"$d/err"
if [ $? = 1 ] && [ ! -s "$d/out" ] &&
  grep -q 'too little memory' "$d/err" && grep -q 'note: --mesh dev=' "$d/err"
then
  echo "ok what would fit"
else
  bad "what would fit" "it is not told"
fi
exit $status
