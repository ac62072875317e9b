#!/bin/bash
# --report=kernels: a line a kernel, with what ptxas says of it where there is
# one, and without where there is none.
source tests/checks.bash

report() { "$MOEC" tests/models/experts.dsl --report=kernels "$@"; }
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
expect 'no ptxas: a line a kernel' grep -qE \
  '^k[0-9]+_route_0  .*\.dsl:[0-9]+ +route +1 +[0-9]+ x 128 +\? +\? +0 +\? +0 +[0-9]+ +[0-9.]+  memory$' \
  "$d/out"
expect 'no ptxas: all kernels of the step, once' [ \
  -z "$(grep -oE '^k[0-9a-z_]+' "$d/out" | sort | uniq -d)" ]
expect 'no ptxas: the sum' grep -qE '^a step: [0-9]+ launches, [0-9.]+ us' \
  "$d/out"
cp "$d/out" "$d/first"
none >"$d/again"
expect 'the same each time' cmp "$d/first" "$d/again"
run 'another GPU' 0 'H100 SXM, by its data sheet: 989 TFLOP/s in bf16' \
  none --arch=sm_90 --precision=bf16

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

run 'beside other reports' 0 '^kernels of train for sm_80' none \
  --report=memory,kernels
run 'for a CPU' 2 '--report=kernels is for --target=cuda$' none --target=cpu
run 'not all passes' 2 '--report=kernels needs every pass' none \
  --stop-after=fuse
exit $status
