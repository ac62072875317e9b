#!/bin/bash
# The cost report against the tables of models/README.md, of which those of the
# 2017 paper are its Tables 7 and 8, counted to the digit: parameters and forward
# multiply-adds a token, without embedding, softmax and biases.
set -u
status=0

check() { # NAME PARAMETERS OPERATIONS moec's arguments...
  local name=$1 params=$2 ops=$3 got
  shift 3
  got=$("$MOEC" "$@" --report=cost |
    awk '/^without embedding and softmax/ { print $5, $6 }')
  if [ "$got" = "$params $ops" ]; then
    echo "ok cost of $name"
  else
    echo "not ok cost of $name: $got, not $params $ops"
    status=1
  fi
}

rows=0
while IFS='|' read -r _ name params ops command _; do
  read -ra args < <(tr -d '`' <<<"$command")
  params=$(tr -d ' .' <<<"$params")
  ops=$(tr -d ' .' <<<"$ops")
  check "${args[*]:1} ($(echo $name))" "$params" "$ops" "${args[@]:1}"
  rows=$((rows + 1))
done < <(grep '^| .* | `moec ' models/README.md)
if [ $rows = 25 ]; then
  echo "ok cost has a row for each model"
else
  echo "not ok cost has a row for each model: $rows"
  status=1
fi

check 'MoE-32 for other lengths and batches' 37781504 8421376 \
  models/lm_moe.dsl -D T=8 -D B=3 -D V=10000
biases=$("$MOEC" models/lm_moe.dsl --report=cost |
  awk '/^biases/ { print $NF }')
if [ "$biases" = $((2 * 4 * 512 + 256)) ]; then
  echo "ok biases have a line of their own"
else
  echo "not ok biases have a line of their own: '$biases'"
  status=1
fi
exit $status
