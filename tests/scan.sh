#!/bin/bash
# Loops on a GPU as one kernel each, whose blocks stay and keep weights on the
# chip: the same as launch by launch, forward and backward; one launch a loop;
# which loops that are, and what becomes of them where there is no room.
source tests/checks.bash
sim=$BUILD/tests/cudasim
cat models/lib/*.dsl >"$d/text"

train() { # NAME ARGUMENTS...
  LD_LIBRARY_PATH=$sim CUDASIM_COUNTERS=$d/$1.counters "$MOERUN" train \
    "$d/$1.so" --data "$d/text" --device=cuda --steps 3 --quiet \
    --log "$d/$1.log" "${@:2}"
}
kernels() { awk '$1 == "kernels" { print $2 }' "$d/$1.counters"; }

# the_same NAME FEWER MODEL OPTIONS...: in 3 steps of it FEWER kernels.
the_same() {
  local name=$1 fewer=$2 model=$3
  shift 3
  for how in graph persistent; do
    run "$name: $how" 0 '' "$MOEC" "$model" "$@" --scan=$how --target=cuda \
      -o "$d/$how.so"
    run "$name: 3 steps, $how" 0 '' train $how
  done
  for what in loss grad_norm; do
    field $what "$d/graph.log" >"$d/a"
    field $what "$d/persistent.log" >"$d/b"
    expect "$name: the same $what" near "$d/a" "$d/b"
  done
  expect "$name: $fewer launches less" \
    [ $(($(kernels graph) - $(kernels persistent))) = "$fewer" ]
}

# Two layers: a product of cuBLASLt aside, each turn has one launch each way, and
# a loop then is one.
cat >"$d/two.dsl" <<'DSL'
import "lib/lstm.dsl"
import "lib/optim.dsl"
const T = 5
entry train(tokens: i32[1, 3] from text) {
  param x: f32[3, T, 7] = normal_init(1.0)
  param d: f32[3, T, 20] = normal_init(1.0)
  let loss = sum(lstm(lstm(x, 20) as "one", 20) as "two" * stop_gradient(d))
  minimize loss with { "d": freeze, "*": sgd(1e-3) }
  report loss = loss
  report first = f32(tokens[0, 0])
}
DSL
the_same 'odd sizes' 48 "$d/two.dsl" -I models
the_same 'one turn' 0 "$d/two.dsl" -I models -D T=1
# A layer that also reads the other way, whose output is narrower than its
# state: two products a turn; and more rows than are summed at once.
cat >"$d/both.dsl" <<'DSL'
import "lib/lstm.dsl"
import "lib/optim.dsl"
entry train(tokens: i32[40, 3] from text) {
  param x: f32[40, 3, 12] = normal_init(1.0)
  param d: f32[40, 3, 24] = normal_init(1.0)
  param there: f32[40, 3] = normal_init(1.0)
  let loss = sum(lstm_both(x, there, 40, 24) * stop_gradient(d))
  minimize loss with { "d": freeze, "there": freeze, "*": sgd(1e-3) }
  report loss = loss
  report first = f32(tokens[0, 0])
}
DSL
CUDASIM_ORDER=reverse the_same 'both ways' 60 "$d/both.dsl" -I models \
  --precision=bf16

# ---- which ---------------------------------------------------------------------

run 'a report' 0 'turns by one kernel, k[0-9]*_turns_0, of 5 blocks that keep' \
  "$MOEC" "$d/both.dsl" -I models --target=cuda --scan=persistent \
  --report=kernels
expect 'a report: a launch a loop' [ "$(grep -c '^k[0-9]*_turns_0 .* scan  *1 ' \
  "$d/out")" = 4 ]
run 'a report of others' 0 'turns in a graph: [0-9]* us, by one kernel [0-9]' \
  "$MOEC" "$d/both.dsl" -I models --target=cuda --scan=graph --report=kernels
run 'information' 0 '^devices .* 4 of 4 loops as one kernel each)$' \
  "$MOERUN" info "$d/persistent.so"
run 'what cannot be one kernel' 0 \
  'warning: this loop is not one kernel: its body reads the number of a turn' \
  "$MOEC" tests/models/nested_scans.dsl --target=cuda --scan=persistent \
  -o "$d/x.so"
run 'another way' 2 "did you mean 'graph'?" "$MOEC" models/tiny.dsl \
  --scan=graf
run 'for the CPU alone' 2 '^moec: --scan is for --target=cuda' "$MOEC" \
  models/tiny.dsl --target=cpu --scan=graph

# ---- where there is no room ------------------------------------------------------

cat >"$d/wide.dsl" <<'DSL'
import "lib/lstm.dsl"
import "lib/optim.dsl"
entry train(tokens: i32[1, 2] from text) {
  param x: f32[1, 2, 4] = normal_init(1.0)
  let loss = sum(lstm(x, 264))
  minimize loss with { "*": sgd(1e-3) }
  report loss = loss
  report first = f32(tokens[0, 0])
}
DSL
run 'many blocks' 0 '' "$MOEC" "$d/wide.dsl" -I models --target=cuda \
  --scan=persistent -o "$d/wide.so"
LD_LIBRARY_PATH=$sim run 'launch by launch' 0 \
  '1 of 2 loops launch by launch: k[0-9]*_turns_0 needs 33 blocks of [0-9]* bytes of shared memory at once, and there is room for 20' \
  "$MOERUN" bench "$d/wide.so" --device=cuda --steps 1
exit $status
