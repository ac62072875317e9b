#!/bin/bash
# --plan-only on whole models: counts of the 2017 paper, to the digit and beyond
# 2^31; the same bytes and exchanges as --explain=shard; products divided over
# the devices without a rest; on one device the arena of the real plan, nearly;
# every topology that comes along; and a list of 2048 devices.
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

# ---- one truth with --explain=shard ------------------------------------------

# The tables of the text, without what is only in one of them.
explained() { # MODEL MESH
  "$MOEC" "$@" --reshard-limit=100000 --explain=shard 2>"$d/err" |
    awk '$1 == "parameters" || $1 == "optimiser" { print $1, $2, $3 }
         /^  in / { p = $2 == "train" } /^$/ { p = 0 }
         p && $1 ~ /^all_|^reduce_/ { n[$1] = $2 }
         p && $1 == "together" { print "sent", $3, $4 }
         /^Sent:/ { exit }
         END { for (k in n) print k, n[k] }' | sort
}
planned() {
  "$MOEC" "$@" --reshard-limit=100000 --plan-only 2>"$d/err" |
    awk '$1 == "parameters" || $1 == "optimiser" { print $1, $2, $3 }
         /^  exchanges/ { p = 1 } /^$/ { p = 0 }
         p && $1 ~ /^all_|^reduce_/ {
           for (i = 2; $i ~ /^@/; i++) ; n[$1] += $i }
         p && $1 == "together" { print "sent", $2, $3 }
         END { for (k in n) print k, n[k] }' | sort
}

same() { # MODEL --mesh MESH ...
  local name="$* as explained"
  explained "$@" >"$d/explained"
  planned "$@" >"$d/planned"
  if [ -s "$d/planned" ] && cmp -s "$d/explained" "$d/planned"; then
    echo "ok $name"
  else
    bad "$name" "$(diff "$d/explained" "$d/planned" | tr '\n' ' ')"
  fi
}

for mesh in dev=8 data=2,expert=4 data=4,model=2 dev=2,data=2,model=2; do
  same models/lm_moe.dsl --mesh $mesh
done
same models/lm_moe.dsl --mesh dev=4 -D V=10000 --precision=bf16
same models/lm_4lstm.dsl --mesh data=4,model=2
same models/lm_wide.dsl --mesh dev=2,model=4

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

# ---- memory of one device ----------------------------------------------------

arena() { # moec's arguments...
  local name="memory of $*" real
  real=$("$MOEC" "$@" --report=memory |
    awk '/^  arena, of the largest/ { print $6 }')
  plan "$@" || { bad "$name" "no plan"; return; }
  if awk -v a="$real" -v b="$(number activation_bytes)" \
    -v c="$(number gradient_bytes)" \
    'BEGIN { x = (b + c) / a; exit !(x > 0.95 && x < 1.05) }'; then
    echo "ok $name"
  else
    bad "$name" "$(number activation_bytes) beside gradients, not $real"
  fi
}

for precision in f32 bf16; do
  for model in models/lm_*.dsl; do
    arena "$model" --precision=$precision
  done
  arena models/lm_moe.dsl -D V=10000 -D N=256 --precision=$precision
done

# ---- topologies --------------------------------------------------------------

for file in models/topologies/*.topo; do
  name=$(basename "$file" .topo)
  if plan models/lm_moe.dsl --mesh dev=8 --topology "$name"; then
    cp "$d/json" "$d/named"
    plan models/lm_moe.dsl --mesh dev=8 --topology "$file" &&
      cmp -s "$d/json" "$d/named" ||
      bad "topology $name" "its file is another"
    echo "ok topology $name"
  else
    bad "topology $name" "no plan for eight devices"
  fi
done

# ---- many devices ------------------------------------------------------------

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
