#!/bin/bash
# Models on a GPU, through the programs, with the stand-ins of tests/cudasim for
# NVIDIA's libraries: the same as on the CPU; what a step does, by the counters
# of the stand-ins; what users get where the GPU or its driver will not do.
source tests/checks.bash
sim=$BUILD/tests/cudasim


cat models/lib/*.dsl >"$d/text"
train() { # ARGUMENTS...: on the stand-ins
  LD_LIBRARY_PATH=$sim "$MOERUN" train "$d/lm.so" --data "$d/text" \
    --threads 2 "$@"
}

run 'compile' 0 '' "$MOEC" models/lm_moe.dsl -D D=32 -D N=4 -D K=2 -D H=16 \
  -D T=4 -D B=2 -D WARMUP=20 -o "$d/lm.so"

# ---- the same as on the CPU --------------------------------------------------------

run 'the CPU' 0 ', 2 threads$' train --device=cpu --steps 20 \
  --log "$d/cpu.log" --ckpt "$d/cpu"
CUDASIM_COUNTERS=$d/of20 run 'a GPU' 0 ', cudasim sm_90 (sm_90)$' train \
  --device=cuda --steps 20 --log "$d/gpu.log" --ckpt "$d/gpu"
for what in loss grad_norm; do
  field $what "$d/cpu.log" >"$d/a"
  field $what "$d/gpu.log" >"$d/b"
  expect "20 steps: the same $what" near "$d/a" "$d/b"
done
run 'auto is a GPU' 0 ', cudasim sm_90 (sm_90)$' train --steps 1
run 'poisoned memory, one by one' 0 '' train --device=cuda --steps 1 --poison \
  --log "$d/one.log"
expect 'poisoned memory: the same bits' cmp \
  <(field loss "$d/gpu.log" | head -1) <(field loss "$d/one.log")

# The same with attention; bf16 rounds what is summed in another order.
for precision in f32 bf16; do
  case $precision in f32) most=1e-4 ;; *) most=1e-3 ;; esac
  run "attention in $precision" 0 '' "$MOEC" models/lm_transformer.dsl \
    -D D=16 -D N=3 -D K=2 -D H=16 -D F=16 -D T=12 -D B=2 -D L=2 -D HEADS=2 \
    -D WARMUP=20 -D CONTEXT=8 --precision=$precision --target=cpu,cuda \
    -o "$d/attends.so"
  for device in cpu cuda; do
    LD_LIBRARY_PATH=$sim run "attention in $precision: $device" 0 '' \
      "$MOERUN" train "$d/attends.so" --data "$d/text" --threads 2 \
      --device=$device --steps 20 --quiet --log "$d/$device.attends"
    field loss "$d/$device.attends" >"$d/$device.losses"
  done
  expect "attention in $precision, 20 steps: the same loss" near \
    "$d/cpu.losses" "$d/cuda.losses" $most
done

# ---- a step: one copy there while another runs, one launch, nothing back -----------

CUDASIM_COUNTERS=$d/of2 run '2 steps' 0 '' train --device=cuda --steps 2 \
  --ckpt "$d/two" --quiet
by() { # COUNTER: by how much 18 steps more change it
  echo $(($(awk -v c="$1" '$1 == c { print $2 }' "$d/of20") -
    $(awk -v c="$1" '$1 == c { print $2 }' "$d/of2")))
}
for row in 'graph_launches 18' 'htod 18' 'htod_ahead 18' 'dtoh 0' 'dtoh_bytes 0' \
  'kernel_launches 0' 'allocations 0' 'synchronizations 18'; do
  # shellcheck disable=SC2086
  set -- $row
  expect "18 steps: $1 by $2" [ "$(by "$1")" = "$2" ]
done

# ---- checkpoints know no device -----------------------------------------------------

cp -r "$d/gpu" "$d/moved"
run 'from a GPU to the CPU' 0 '' train --device=cpu --steps 22 --resume auto \
  --ckpt "$d/moved" --log "$d/moved.log" --quiet
run 'on the GPU' 0 '' train --device=cuda --steps 22 --resume auto \
  --ckpt "$d/gpu" --log "$d/stayed.log" --quiet
expect 'from a GPU to the CPU: the same' near <(field loss "$d/moved.log") \
  <(field loss "$d/stayed.log" | tee "$d/b")
run 'from the CPU to a GPU' 0 '' train --device=cuda --steps 22 --resume auto \
  --ckpt "$d/cpu" --log "$d/back.log" --quiet
expect 'from the CPU to a GPU: the same' near <(field loss "$d/back.log") "$d/b"

run 'compile with gradients' 0 '' "$MOEC" models/tiny.dsl --keep-grads \
  --target=cpu,cuda -o "$d/tiny.so"
LD_LIBRARY_PATH=$sim run 'gradients of both' 0 '' "$MOERUN" verify \
  "$d/tiny.so" "$d/tiny.so" --data "$d/text" --device=cpu,cuda

# ---- what cannot be -----------------------------------------------------------------

no() { # NAME PATTERN [VARIABLE=VALUE]...: one line, and exit status 1
  local name=$1 pattern=$2
  shift 2
  run "$name" 1 "^moerun: $pattern" env LD_LIBRARY_PATH="$sim" "$@" "$MOERUN" \
    train "$d/lm.so" --data "$d/text" --device=cuda --steps 1
  expect "$name: one line" [ "$(cat "$d/out" "$d/err" | wc -l)" = 1 ]
}
no 'no GPU' 'no GPU: the CUDA driver finds none$' CUDASIM_DEVICES=0
no 'an old driver' 'the CUDA driver is too old: it is for CUDA 11.0, 11.4 is' \
  CUDASIM_DRIVER=11000
no 'an old GPU' 'cudasim sm_75 is an sm_75: models run on GPUs from sm_80 on$' \
  CUDASIM_ARCH=75
no 'a GPU that is hidden' \
  "no GPU: the CUDA driver finds none; CUDA_VISIBLE_DEVICES is '7'$" \
  CUDA_VISIBLE_DEVICES=7
run 'compile for a newer GPU' 0 '' "$MOEC" models/tiny.dsl --target=cuda \
  --arch=sm_90 -o "$d/newer.so"
newer() { # NAME PATTERN VARIABLE=VALUE
  run "$1" 1 "^moerun: $2" env LD_LIBRARY_PATH="$sim" "$3" "$MOERUN" bench \
    "$d/newer.so" --device=cuda
}
newer 'kernels for a newer GPU' "the model's kernels are for sm_90, but cudasim \
sm_86 is an sm_86: compile it again with --arch=sm_80$" CUDASIM_ARCH=86
newer 'kernels for a newer driver' "the model's kernels are for CUDA 11.8 and \
later (PTX 7.8), and the driver is for CUDA 11.4: " CUDASIM_DRIVER=11040
run 'auto, and no code for the CPU' 1 'no GPU: .*; and the model has no code' \
  env LD_LIBRARY_PATH="$sim" CUDASIM_DEVICES=0 "$MOERUN" bench "$d/newer.so"
no 'little memory' 'the model needs .* of GPU memory, and of the 1.00 MB' \
  CUDASIM_MEMORY=1000000
run 'auto: why not a GPU' 0 ', 2 threads (no GPU)$' \
  env CUDASIM_DEVICES=0 LD_LIBRARY_PATH="$sim" "$MOERUN" train "$d/lm.so" \
  --data "$d/text" --threads 2 --steps 1
LD_LIBRARY_PATH=$sim CUDASIM_DEVICES=2 run 'doctor' 0 \
  '^CUDA driver  for CUDA 13.0$' "$MOERUN" doctor
expect 'doctor: GPUs' [ "$(grep -c '^GPU  *cudasim sm_90' "$d/out")" = 2 ]
LD_LIBRARY_PATH=$sim CUDASIM_ARCH=75 run 'doctor: an old GPU' 0 \
  '^GPU .*; too old: models run on GPUs from sm_80 on$' "$MOERUN" doctor
LD_LIBRARY_PATH=$sim CUDASIM_DEVICES=0 run 'doctor: no GPU' 0 \
  '^GPU  *missing: the CUDA driver finds none; ' "$MOERUN" doctor
expect 'doctor: the driver all the same' grep -q '^CUDA driver  for' "$d/out"

# ---- what is taken to a machine with a GPU -------------------------------------------

# Sanitized libraries do not run without the rest of their build.
if grep -q __asan_init "$MOERUN"; then
  echo 'skip the bundle: under the sanitizers'
else
  run 'bundle' 0 'b.tar.gz: [0-9]* bytes$' tests/gpu/bundle.sh "$d/b.tar.gz" \
    --dry
  tar -C "$d" -xzf "$d/b.tar.gz"
  LD_LIBRARY_PATH=$sim CUDASIM_DEVICES=2 STEPS=1 ROOFLINE='' PYTHON=none \
    run 'bundle: its checks' 0 \
    '^skip     PyTorch is not on this machine (none)$' \
    "$d/moec-gpu/run.sh" "$d/results.json"
  for kind in losses gradients poisoned; do
    expect "bundle: $kind" grep -q -x \
      "{\"check\": \"$kind\", \"model\": \"check-tiny\", \"ok\": true}" \
      "$d/results.json"
  done
  for way in dropless capacity; do
    expect "bundle: two GPUs, $way" grep -q -x \
      "{\"check\": \"losses\", \"model\": \"ranks-$way.2\", \"ok\": true}" \
      "$d/results.json"
  done
  expect 'bundle: two GPUs are measured' grep -q \
    '"bench": "lm-ranks-dropless.2", .*"ranks": 2' "$d/results.json"
  for case in 'MoE layer, T=32 d=16 n=16 E=4 K=2, zipf' 'lm_moe, N=4' \
    'LSTM, B=2 T=4 d=16, persistent' 'LSTM, B=2 T=4 d=16, graph'; do
    expect "bundle: $case" grep -q "{\"case\": \"$case\", \"who\": \"moec\", " \
      "$d/results.json"
  done
  expect 'bundle: sm_90a' grep -q '"who": "moec sm_90a", "ms"' "$d/results.json"
  LD_LIBRARY_PATH=$sim LIMIT=0 PYTHON=none "$d/moec-gpu/run.sh" \
    "$d/results.json" >"$d/out" 2>&1
  expect 'bundle: one GPU' grep -q -x 'skip     several GPUs: there is 1' \
    "$d/out"
  expect 'bundle: no time' grep -q '^lm_moe, N=4: left out, no time$' "$d/out"
fi
exit $status
