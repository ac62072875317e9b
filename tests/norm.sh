#!/bin/bash
# The norm of all gradients where experts have few rows: summed by pairs of them
# it is that of the gradients themselves, and a run of training is the same.
set -u
status=0
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT

expect() { # NAME COMMAND...
  local name=$1
  shift
  if "$@"; then
    echo "ok norm: $name"
  else
    echo "not ok norm: $name"
    status=1
  fi
}

train() { # NAME: of model $d/NAME.so, what each step reports
  "$MOERUN" train "$d/$1.so" --data "$d/text" --steps 8 --threads 2 \
    --log "$d/$1.jsonl" >"$d/out" 2>&1 || cat "$d/out"
  tr -d '{}",:' <"$d/$1.jsonl" | tr ' ' '\n' |
    awk 'last == "loss" || last == "grad_norm" { print last, $1 } { last = $1 }'
}

# Whether the losses are the same and the norms within rounding.
alike() { # FILE FILE
  paste "$1" "$2" | awk '
    { n++; far = $2 - $4; far = (far < 0 ? -far : far) / ($2 + 1e-30) }
    $1 == "loss" && $2 != $4 || far > 2e-6 || $2 <= 0 { bad = 1 }
    END { exit bad || n != 16 }'
}

head -c 60000 models/lib/*.dsl | tr -d '\0' >"$d/text"
for precision in f32 bf16; do
  "$MOEC" --target=cpu \
    models/lm_moe.dsl -D N=64 -D K=2 -D D=32 -D H=128 -D T=8 -D B=8 \
    --precision=$precision --stop-after=layout -o "$d/lm.ir" || status=1
  for from in remake fuse; do # without the pass all gradients are stored
    "$MOEC" --target=cpu --from=$from "$d/lm.ir" -o "$d/$from.so" || status=1
  done
  squares=$("$MOERUN" info "$d/remake.so" --ir plan | grep -c ' square_sum ')
  expect "$precision: by rows" [ "$squares" = 2 ]
  train remake >"$d/by-rows"
  train fuse >"$d/stored"
  expect "$precision: as of stored gradients" alike "$d/stored" "$d/by-rows"
  train remake >"$d/again"
  expect "$precision: run to run" cmp -s "$d/by-rows" "$d/again"
done
exit $status
