#!/bin/bash
# Every model in every layout, as far as shard: its text reads back as the same
# text, as it goes on from the text before shard; rows of experts make two
# exchanges forward and two backward where tokens and experts are split over the
# same devices; and a program for several devices is refused, not made for one.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
status=0

bad() { # NAME WHY
  echo "not ok $1: $2"
  [ -s "$d/err" ] && head -20 "$d/err" >&2
  status=1
}

check() { # MODEL MESH EXCHANGES
  local name="$1 on $2" n
  rm -rf "$d"/*
  "$MOEC" "$1" --mesh "$2" --dump=precision,shard --dump-dir="$d/dump" \
    --explain=shard >"$d/report" 2>"$d/err" ||
    { bad "$name" "is not placed"; return; }
  "$MOEC" "$d"/dump/*-shard.ir --dump=frontend >"$d/again" 2>"$d/err" ||
    { bad "$name" "cannot be read"; return; }
  cmp -s "$d"/dump/*-shard.ir "$d/again" ||
    { bad "$name" "prints otherwise once read"; return; }
  "$MOEC" "$d"/dump/*-precision.ir --from=shard --stop-after=shard \
    >"$d/again" 2>"$d/err" || { bad "$name" "cannot go on"; return; }
  cmp -s "$d"/dump/*-shard.ir "$d/again" ||
    { bad "$name" "goes on to other placements"; return; }
  n=$(awk '/^  in train/ { p = 1 } /^$/ { p = 0 } p && $1 == "all_to_all" {
           print $2 }' "$d/report")
  [ "${n:-0}" = "$3" ] || { bad "$name" "${n:-0} exchanges, not $3"; return; }
  "$MOEC" "$1" --mesh "$2" -o "$d/x.so" >"$d/out" 2>"$d/err" &&
    { bad "$name" "compiles"; return; }
  [ -e "$d/x.so" ] && { bad "$name" "leaves a library"; return; }
  grep -q "cannot make a program for" "$d/err" ||
    { bad "$name" "is refused for another reason"; return; }
  echo "ok $name"
}

for mesh in dev=2 dev=4 dev=8 data=2,expert=4 data=4,expert=2 expert=8; do
  check models/lm_moe.dsl "$mesh" 4
done
for mesh in data=8 dev=2,data=2; do
  check models/lm_4lstm.dsl "$mesh" 0
  check models/lm_wide.dsl "$mesh" 0
done
check models/lm_moe.dsl data=8 0
exit $status
