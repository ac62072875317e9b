#!/bin/bash
# Every model in every layout, as far as a stage: the text of shard, and of that
# stage, reads back as the same text, as it goes on from the text before; rows
# of experts make two exchanges forward and two backward where tokens and
# experts are split over the same devices.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
status=0

bad() { # NAME WHY
  echo "not ok $1: $2"
  [ -s "$d/err" ] && head -20 "$d/err" >&2
  status=1
}

# same NAME FILE OPTION...: reads back, and comes out of the text before too.
same() {
  local name=$1 file=$2
  shift 2
  "$MOEC" "$file" --dump=frontend >"$d/again" 2>"$d/err" ||
    { bad "$name" "cannot be read"; return 1; }
  cmp -s "$file" "$d/again" ||
    { bad "$name" "prints otherwise once read"; return 1; }
  "$MOEC" "$@" >"$d/again" 2>"$d/err" ||
    { bad "$name" "cannot go on"; return 1; }
  cmp -s "$file" "$d/again" ||
    { bad "$name" "goes on to other text"; return 1; }
}

check() { # MODEL MESH EXCHANGES STAGE
  local name="$1 on $2" n stages=precision,shard
  [ "$4" = shard ] || stages+=,$4
  rm -rf "$d"/*
  "$MOEC" "$1" --mesh "$2" --dump=$stages --dump-dir="$d/dump" \
    --explain=shard >"$d/report" 2>"$d/err" ||
    { bad "$name" "is not placed"; return; }
  same "$name" "$d"/dump/*-shard.ir "$d"/dump/*-precision.ir \
    --from=shard --stop-after=shard || return
  n=$(awk '/^  in train/ { p = 1 } /^$/ { p = 0 } p && $1 == "all_to_all" {
           print $2 }' "$d/report")
  [ "${n:-0}" = "$3" ] || { bad "$name" "${n:-0} exchanges, not $3"; return; }
  [ "$4" = shard ] || same "$name" "$d"/dump/*-"$4".ir "$d"/dump/*-shard.ir \
    --from=partition --stop-after="$4" || return
  echo "ok $name"
}

for mesh in dev=2 dev=4 dev=8 data=2,expert=4 data=4,expert=2 expert=8; do
  check models/lm_moe.dsl "$mesh" 4 shard
done
for mesh in data=8 dev=2,data=2; do
  check models/lm_4lstm.dsl "$mesh" 0 partition
  check models/lm_wide.dsl "$mesh" 0 partition
done
check models/lm_moe.dsl data=8 0 partition
check models/lm_transformer.dsl data=2,model=2 0 partition
exit $status
