#!/bin/bash
# not under the sanitizers: unit/ranks_build has every exchange there
# Several ranks on GPUs, one each, through the programs, with the stand-ins of
# tests/cudasim for NVIDIA's libraries, NCCL among them: the same as one rank on
# the CPU; what a step does, by the counters of the stand-ins; ranks that end or
# hang, and GPUs that are not there.
source tests/checks.bash
sim=$BUILD/tests/cudasim
export CUDASIM_DEVICES=4
unset CUDA_VISIBLE_DEVICES RANK WORLD_SIZE SLURM_PROCID SLURM_NTASKS


cat models/lib/*.dsl >"$d/text"
size=(-D V=128 -D D=32 -D N=4 -D K=2 -D H=16 -D T=2 -D B=8 -D WARMUP=20)
compile() { # NAME OPTION...
  run "compile $1" 0 '' "$MOEC" models/lm_moe.dsl "${size[@]}" "${@:2}" \
    -o "$d/$1.so"
}
ranks=("$MOERUN" -n 4)
train() { # NAME OPTION...: on four GPUs
  LD_LIBRARY_PATH=$sim timeout 120 "${ranks[@]}" train "$d/$1.so" \
    --data "$d/text" --threads 1 --device=cuda --quiet --timeout 60 "${@:2}"
}
same() { # NAME STEPS OTHER: as one rank on the CPU
  local what
  for what in loss grad_norm; do
    field $what "$d/$1.log" >"$d/a"
    field $what "$d/$3.log" | head -n "$2" >"$d/b"
    expect "$1: the same $what" near "$d/a" "$d/b"
  done
  expect "$1: $2 steps" [ "$(wc -l <"$d/a")" = "$2" ]
}

# ---- the same as one rank on the CPU -------------------------------------

compile one --target=cpu
run 'one rank' 0 '' "$MOERUN" train "$d/one.so" --data "$d/text" --threads 1 \
  --quiet --steps 20 --log "$d/one.log"
compile dev --target=cuda --mesh dev=4
CUDASIM_COUNTERS=$d/dev.20.% CUDASIM_RACES=0 run 'dev=4' 0 \
  '"graphs": 2, "row_counts": 1' train dev --steps 20 --log "$d/dev.log"
same dev 20 one
compile both --target=cuda --mesh data=2,expert=2
expect 'dev=4: one communicator' \
  grep -qx 'communicators 1' "$d/dev.20.0"
CUDASIM_COUNTERS=$d/both.2.% run 'data=2, expert=2' 0 '' train both --steps 2 --log "$d/both.log"
same both 2 one
expect 'data=2, expert=2: one of each group' \
  grep -qx 'communicators 3' "$d/both.2.0"
run 'poisoned memory, one by one' 0 '"graphs": 0' train dev --steps 1 --poison \
  --log "$d/poison.log"
same poison 1 one

# So much room that no row is left out.
compile room --target=cuda --mesh dev=4 -D CAPACITY=2.0
CUDASIM_COUNTERS=$d/room.4.% run 'a capacity' 0 '"graphs": 1, "row_counts": 0' \
  train room --steps 4 --log "$d/room.log"
same room 4 one

# ---- attention -----------------------------------------------------------

# The gradients of the second step, which has seen an update.
transformer() { # NAME RANKS MESH EXPERTS-EVERY
  local size=(-D V=128 -D D=32 -D L=1 -D HEADS=4 -D F=48 -D N=4 -D H=16
    -D T=8 -D B=8 -D EVERY="$4" --keep-grads)
  run "compile $1" 0 '' "$MOEC" models/lm_transformer.dsl "${size[@]}" -O0 \
    --target=cpu -o "$d/one.$1.so"
  run "compile $1, $3" 0 '' "$MOEC" models/lm_transformer.dsl "${size[@]}" \
    --target=cuda --mesh "$3" -o "$d/$1.so"
  LD_LIBRARY_PATH=$sim run "$1, $3: the gradients of one rank" 0 \
    'lm/0/attention/q/w' "$MOERUN" -n "$2" verify "$d/one.$1.so" "$d/$1.so" \
    --data "$d/text" --threads 1 --device=cpu,cuda --steps 2
}
transformer attention 2 dev=2 0
transformer attention-experts 4 data=2,expert=2 1

# ---- a step: launches and copies -----------------------------------------

CUDASIM_COUNTERS=$d/dev.2.% run 'dev=4, 2 steps' 0 '' train dev --steps 2
CUDASIM_COUNTERS=$d/room.2.% run 'a capacity, 2 steps' 0 '' train room --steps 2
by() { # NAME STEPS RANK COUNTER: by how much more steps than 2 change it
  echo $(($(awk -v c="$4" '$1 == c { print $2 }' "$d/$1.$2.$3") -
    $(awk -v c="$4" '$1 == c { print $2 }' "$d/$1.2.$3")))
}
for row in 'dev 20 graph_launches 36' 'dev 20 dtoh 18' 'dev 20 dtoh_bytes 72' \
  'dev 20 htod 18' 'dev 20 kernel_launches 0' 'dev 20 allocations 0' \
  'room 4 graph_launches 2' 'room 4 dtoh 0' 'room 4 htod 2' \
  'room 4 kernel_launches 0' 'room 4 allocations 0'; do
  # shellcheck disable=SC2086
  set -- $row
  for rank in 0 3; do
    expect "$1, rank $rank: $3 by $4" [ "$(by "$1" "$2" $rank "$3")" = "$4" ]
  done
done

# ---- ranks that end or hang ----------------------------------------------

# stops NAME PATTERN SIGNAL RANK OPTION...: a rank gets the signal while it
# trains; the others end, and say so in one line.
stops() {
  local name=$1 pattern=$2 pid kids=()
  rm -f "$d/steps"
  LD_LIBRARY_PATH=$sim "${ranks[@]}" train "$d/dev.so" --data "$d/text" \
    --threads 1 --device=cuda --quiet --steps 1000000 --log "$d/steps" \
    "${@:5}" >"$d/out" 2>"$d/err" &
  pid=$!
  for _ in $(seq 600); do
    [ -s "$d/steps" ] && break
    sleep 0.1
  done
  read -r -a kids <"/proc/$pid/task/$pid/children"
  kill "-$3" "${kids[$4]}"
  for _ in $(seq 600); do
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
  done
  kill -9 $pid 2>/dev/null
  wait $pid
  expect "$name" [ $? = 1 ]
  expect "$name: said" grep -q -e "$pattern" "$d/err"
  expect "$name: in one line" [ "$(wc -l <"$d/err")" = 1 ]
}
stops 'a rank is killed' ': rank 2 was killed by signal 9' KILL 2
stops 'a rank hangs' ': rank 1 has not \(come\|answered\) for 2 s' STOP 1 \
  --timeout 2

# ---- what cannot be ------------------------------------------------------

no() { # NAME PATTERN [VARIABLE=VALUE]...: one line, and exit status 1
  run "$1" 1 "$2" env LD_LIBRARY_PATH="$sim" "${@:3}" "${ranks[@]}" train \
    "$d/dev.so" --data "$d/text" --threads 1 --device=cuda --steps 1
  expect "$1: one line" [ "$(cat "$d/out" "$d/err" | wc -l)" = 1 ]
}
each='each rank needs one of its own$'
no 'fewer GPUs than ranks' ": 4 ranks run on a machine with 3 GPUs: $each" \
  CUDASIM_DEVICES=3
no 'two ranks on one GPU' \
  ": ranks 0 and 1 would share one GPU, cudasim sm_90: $each" \
  CUDA_VISIBLE_DEVICES=2
mkdir "$d/broken"
: >"$d/broken/libnccl.so.2"
no 'no NCCL' ': no NCCL, which ranks on GPUs need: ' \
  LD_LIBRARY_PATH="$d/broken:$sim"
no 'little memory' ': the model needs .* of GPU memory' CUDASIM_MEMORY=1000000
LD_LIBRARY_PATH=$sim run 'doctor' 0 '^NCCL  *version 2.28.9$' "$MOERUN" doctor
exit $status
