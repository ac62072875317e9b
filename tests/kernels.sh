#!/bin/bash
# --report=kernels: a line a kernel, with what ptxas says of it where there is
# one, and without where there is none.
source tests/checks.bash

# Two launches of one kernel, one in three stages, and a product.
cat >"$d/model.ir" <<'IR'
moec-ir 1

entry @step(%x: f32[512] = input "x", %ids: i32[64] = input "ids", %w: f32[256, 256] = input "w") {
  %y = fused %x {kind="map", rows=1} (%x.1: f32[512]) {
    %y.1 = add %x.1, %x.1 : f32[512]
    yield %y.1
  } : f32[512] loc("model.dsl:7:3")
  %r, %s, %t = route %ids {experts=4} : i32[5], i32[64], i32[64] loc("model.dsl:8:3")
  %z = fused %y {kind="map", rows=1} (%y.2: f32[512]) {
    %z.1 = add %y.2, %y.2 : f32[512]
    yield %z.1
  } : f32[512] loc("model.dsl:9:3")
  %p = contract %w, %w {map="mk,kn->mn"} : f32[256, 256] loc("model.dsl:10:3")
  return probe "z" = %z, probe "r" = %r, probe "p" = %p
}
IR
report() { "$MOEC" "$d/model.ir" --from=plan --report=kernels "$@"; }
# ptxas_says TEXT STATUS: a ptxas of our own, in front of all others.
ptxas_says() {
  mkdir -p "$d/bin"
  printf '#!/bin/sh\ncat <<"END"\n%s\nEND\nexit %s\n' "$1" "$2" >"$d/bin/ptxas"
  chmod +x "$d/bin/ptxas"
}
with() { PATH=$d/bin:$PATH report "$@"; }
none() { PATH=$d/none report "$@"; }

# ---- without ptxas ---------------------------------------------------------------

run 'no ptxas' 0 'spills are unknown: there is no ptxas in PATH$' none
expect 'no ptxas: a launch of stages' grep -qE \
  '^k[0-9]+_route_0  model.dsl:8 +route +1 +1 x 128 +[?] +[?] +0 +[?] +0 +[0-9]+ +[0-9.]+  memory$' \
  "$d/out"
expect 'no ptxas: all stages' [ "$(grep -c '^k[0-9]*_route_[012] ' "$d/out")" = 3 ]
expect 'no ptxas: a kernel once, with its launches' grep -qE \
  '^k[0-9]+_map_0 +model.dsl:7 +fused map +2 ' "$d/out"
expect 'no ptxas: a product' grep -qE \
  '^.cuBLASLt. +model.dsl:10 +contract +1 +33554432 +786432 +1.72  compute$' "$d/out"
expect 'no ptxas: each kernel once' [ \
  -z "$(grep -oE '^k[0-9a-z_]+' "$d/out" | sort | uniq -d)" ]
expect 'no ptxas: the sum' grep -qE '^a step: 6 launches, [0-9.]+ us' \
  "$d/out"
cp "$d/out" "$d/first"
none >"$d/again"
expect 'the same each time' cmp "$d/first" "$d/again"
run 'products in tf32' 0 '312 TFLOP/s in bf16, 156 in tf32' none --tf32
expect 'a product in tf32' grep -qE \
  '^.cuBLASLt tf32. +model.dsl:10 .* +33554432 +786432 +0.39  memory$' "$d/out"
run 'another GPU' 0 'H100 SXM, by its data sheet: 989 TFLOP/s in bf16' \
  none --arch=sm_90

# ---- what ptxas says -------------------------------------------------------------

kernel=$(grep -oE '^k[0-9]+_route_0' "$d/first")
ptxas_says "ptxas info    : Compiling entry function '${kernel%0}1' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 0 barriers, 392 bytes cmem[0]
ptxas info    : Compiling entry function '$kernel' for 'sm_80'
ptxas info    : Function properties for $kernel
    24 bytes stack frame, 20 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 77 registers, used 1 barriers, 640 bytes smem" 0
run 'ptxas' 0 '' with
expect 'ptxas: registers, static, shared and spills' grep -qE \
  "^$kernel .* x 128 +77 +640 +0 +48 " "$d/out"
expect 'ptxas: the next kernel' grep -qE \
  "^${kernel%0}1 .* x 128 +16 +0 +0 +0$" "$d/out"
expect 'ptxas: nothing unknown' [ -z "$(grep 'are unknown' "$d/out")" ]
ptxas_says 'ptxas fatal   : no such architecture' 255
run 'a ptxas that fails' 0 \
  'unknown: ptxas failed: ptxas fatal   : no such architecture$' with
if command -v ptxas >"$d/said"; then
  report >"$d/out"
  expect 'a real ptxas' grep -qE \
    "^$kernel .* x 128 +[1-9][0-9]* +[0-9]+ +[0-9]+ +[0-9]+ " "$d/out"
else
  echo 'skip a real ptxas: there is none in PATH'
fi

# ---- on the command line ---------------------------------------------------------

run 'beside other reports' 0 '^kernels of step for sm_80' none \
  --report=memory,kernels
run 'for a CPU' 2 '--report=kernels is for --target=cuda$' none --target=cpu
run 'not all passes' 2 '--report=kernels needs every pass' \
  "$MOEC" models/tiny.dsl --report=kernels --stop-after=fuse
exit $status
