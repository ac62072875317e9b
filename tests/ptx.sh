#!/bin/bash
# not under the sanitizers: it is the text that counts
# Code for GPUs: what makes it, that it is the same each time, and that ptxas,
# where there is one, takes every kernel of every model.
source tests/checks.bash

# ---- what to make ------------------------------------------------------------

small=(-D V=19 -D D=24 -D N=5 -D K=2 -D H=40 -D T=3 -D B=5)
compile() { "$MOEC" models/lm_moe.dsl "${small[@]}" "$@"; }

expect 'two programs in a library' compile -o "$d/both.so"
expect 'again' compile -o "$d/again.so"
expect 'the same bytes' cmp "$d/both.so" "$d/again.so"
expect 'runs on the CPU' "$MOERUN" bench "$d/both.so" --device=cpu --steps 1
expect 'one program' compile --target=cuda -o "$d/cuda.so"
run 'none for the CPU' 1 'no code for the CPU' \
  "$MOERUN" bench "$d/cuda.so" --device=cpu --steps 1
run 'text of what is not made' 2 '--emit=ptx is for --target=cuda' \
  compile --target=cpu --emit=ptx -o -
run 'architecture of what is not made' 2 '--arch is for --target=cuda' \
  compile --target=cpu --arch=sm_90 -o "$d/x.so"
run 'rounding of what is not made' 2 '--tf32 is for --target=cuda' \
  compile --target=cpu --tf32 -o "$d/x.so"
run 'another target' 2 "did you mean 'cuda'?" compile --target=cude
run 'another architecture' 2 'sm_70' compile --target=cuda --arch=sm_70

# A launch of more than a GPU's kernel takes: so many results of one shape.
{
  echo 'moec-ir 1'
  echo 'entry @f(%x: f32[8] = input "x") {'
  for ((i = 0; i < 520; i++)); do
    echo "  %c$i = const {value=$i} : f32[8]"
    echo "  %y$i = add %x, %c$i : f32[8]"
  done
  printf '  return'
  for ((i = 0; i < 520; i++)); do
    printf '%s probe "y%d" = %%y%d' "${comma-}" $i $i
    comma=,
  done
  printf '\n}\n'
} >"$d/many.ir"
run 'more operands than a kernel takes' 1 'of which a GPU takes 511' \
  "$MOEC" --target=cuda --emit=ptx "$d/many.ir" -o -

# ---- what it computes --------------------------------------------------------

# agrees NAME MODEL OPTIONS...: each launch of each entry, executed by the
# stand-in for libcuda, does what the interpreter does.
agrees() {
  local name=$1 model=$2
  shift 2
  expect "$name for a GPU" "$MOEC" "models/$model.dsl" --target=cuda "$@" \
    --stop-after=plan -o "$d/$name.ir"
  expect "$name, launch by launch" "$BUILD/unit/lower_warps" "$d/$name.ir"
}
agrees lm_moe lm_moe "${small[@]}"
agrees lm_moe_bf16 lm_moe "${small[@]}" --precision=bf16
agrees lm_wide lm_wide -D V=19 -D D=24 -D T=3 -D B=5
agrees lm_4lstm lm_4lstm -D V=19 -D D=24 -D T=3 -D B=5 --precision=f64
agrees tiny tiny
agrees lm_transformer lm_transformer -D V=19 -D D=24 -D N=3 -D K=2 -D H=8 \
  -D F=8 -D T=5 -D B=2 -D L=2 -D HEADS=2 -D CONTEXT=6 --precision=bf16
pairs=(-D V=19 -D D=8 -D H=8 -D BEAM=2 -D SENTENCES=1 -D SHORT=1 -D MIDDLE=2
  -D LONG=4 -D W=8)
agrees mt_moe mt_moe "${pairs[@]}" -D U=8 -D N=4 -D K=2
agrees mt_transformer mt_transformer "${pairs[@]}" -D L=1 -D EVERY=1 \
  -D HEADS=2 -D F=8 -D N=2 -D GROUPS=2 --precision=bf16

# Products of warpgroups, which only large ones are, and the boxes of weights
# that the runtime describes to hardware.
expect 'products of warpgroups' "$MOEC" models/lm_moe.dsl --precision=bf16 \
  -D V=19 -D D=8 -D N=1 -D K=1 -D H=1024 -D T=2 -D B=536 --arch=sm_90a \
  -o "$d/groups.so"
expect 'that they are' grep -q '_contract_wgmma_128x128_1' "$d/groups.so"
cat models/lib/*.dsl | tr 'A-z' '\000-\022' | tr -cd '\000-\022' >"$d/text"
for device in cpu cuda; do
  LD_LIBRARY_PATH=$BUILD/tests/cudasim expect "a step of them: $device" \
    "$MOERUN" train "$d/groups.so" --data "$d/text" --device=$device \
    --steps 1 --log "$d/$device.log"
  for what in loss grad_norm; do
    field $what "$d/$device.log" >"$d/$device.$what"
  done
done
for what in loss grad_norm; do
  expect "the same $what" near "$d/cpu.$what" "$d/cuda.$what" 1e-4
done

# Products of f32 rounded to tf32, by teams and by the library: near to what the
# CPU, which rounds nothing, makes of the same library, and not the same as what
# a GPU makes without.
expect 'products in tf32' compile --tf32 -o "$d/tf32.so"
LD_LIBRARY_PATH=$BUILD/tests/cudasim expect 'a step of them' \
  "$MOERUN" train "$d/tf32.so" --data "$d/text" --device=cuda --steps 1 \
  --log "$d/tf32.log"
LD_LIBRARY_PATH=$BUILD/tests/cudasim expect 'a step without' \
  "$MOERUN" train "$d/both.so" --data "$d/text" --device=cuda --steps 1 \
  --log "$d/exact.log"
expect 'a step on the CPU' "$MOERUN" train "$d/tf32.so" --data "$d/text" \
  --device=cpu --steps 1 --log "$d/cpu.log"
for log in tf32 exact cpu; do
  field grad_norm "$d/$log.log" >"$d/$log.grad_norm"
done
expect 'exact without' near "$d/cpu.grad_norm" "$d/exact.grad_norm" 1e-5
expect 'near with' near "$d/cpu.grad_norm" "$d/tf32.grad_norm" 1e-2
expect 'rounded with' [ \
  "$(cat "$d/tf32.grad_norm")" != "$(cat "$d/exact.grad_norm")" ]

# ---- ptxas -------------------------------------------------------------------

PTXAS=$(command -v ptxas || echo /usr/local/cuda/bin/ptxas)
if [ ! -x "$PTXAS" ]; then
  echo "skip ptx assembles: there is no ptxas here"
  exit $status
fi

# Every kernel has registers enough to keep all that it computes, and products
# of warpgroups go on while others begin.
assembles() {
  "$PTXAS" -v -arch="$1" "$2" -o "$d/cubin" >"$d/ptxas" 2>&1 || {
    cat "$d/ptxas"
    return 1
  }
  ! grep -E '[1-9][0-9]* bytes spill|wgmma.* serialized|warpgroup.* injected' "$d/ptxas"
}

for model in models/*.dsl tests/models/*.dsl; do
  name=$(basename "$model" .dsl)
  [ "$name" != mt_transformer ] || continue # layers of lm_transformer and mt_moe
  expect "of $name" "$MOEC" "$model" --target=cuda --emit=ptx -o "$d/$name.ptx"
  expect "$name assembles for sm_80 without spills" \
    assembles sm_80 "$d/$name.ptx"
done
expect 'lm_moe in tf32' "$MOEC" models/lm_moe.dsl --target=cuda --tf32 \
  --emit=ptx -o "$d/tf32.ptx"
expect 'that it is' grep -q 'mma.*tf32.tf32' "$d/tf32.ptx"
expect 'lm_moe in tf32 without spills' assembles sm_80 "$d/tf32.ptx"
for precision in f32 bf16; do
  for e in 64 128; do
    name="attention $e wide in $precision"
    expect "$name" "$MOEC" tests/bench/attention.dsl -D E=$e --target=cuda \
      --precision=$precision --emit=ptx -o "$d/attention.ptx"
    for arch in sm_80 sm_90; do
      expect "$name without spills, $arch" assembles $arch \
        "$d/attention.ptx"
    done
  done
done
for precision in f32 bf16; do
  expect "a loop as one kernel in $precision" "$MOEC" tests/gpu/lstm_layer.dsl \
    --scan=persistent --target=cuda --arch=sm_90 --precision=$precision \
    --emit=ptx -o "$d/loop.ptx"
  expect "a loop in $precision without spills" assembles sm_90 "$d/loop.ptx"
done
for model in lm_moe lm_transformer; do
  for arch in sm_90 sm_90a; do
    expect "$model for $arch in bf16" "$MOEC" models/$model.dsl --target=cuda \
      --arch=$arch --precision=bf16 --emit=ptx -o "$d/$arch.ptx"
    expect "$model in bf16 assembles for $arch" assembles $arch "$d/$arch.ptx"
  done
  # Forward, data gradient and weight gradient: operands lie differently.
  expect "$model has products of warpgroups" [ "$(grep -oE '1, 1, 1, ., .;' \
    "$d/sm_90a.ptx" | sort -u | wc -l)" = 3 ]
done
exit $status
