#!/bin/bash
# What the compiler writes: libraries that need nothing, and a clear word when
# the machine will not let it write them.
source tests/checks.bash

small=(-D V=19 -D D=24 -D N=5 -D K=2 -D H=40 -D T=3 -D B=5)
model=models/lm_moe.dsl
compile() { "$MOEC" --target=cpu "$model" "${small[@]}" "$@"; }

expect 'compiles' compile -o "$d/a.so"
expect 'for another machine' compile --mcpu=x86-64-v3 -o "$d/v3.so"
expect 'unfused' compile -O0 -o "$d/o0.so"
expect 'in f64' compile --precision=f64 -o "$d/f64.so"
expect 'in bf16' compile --precision=bf16 -o "$d/bf16.so"

exports() { [ "$(nm -D --defined-only "$1" | awk '{print $3}')" = moert_model ]; }
needs_nothing() { [ -z "$(nm -D --undefined-only "$1")" ]; }
no_libraries() { ! readelf -d "$1" | grep -q NEEDED; }
no_wide_vectors() { ! objdump -d "$1" | grep -q '%zmm'; }
for f in a v3 o0 f64 bf16; do
  expect "$f exports one symbol" exports "$d/$f.so"
  expect "$f needs no symbol" needs_nothing "$d/$f.so"
  expect "$f needs no library" no_libraries "$d/$f.so"
done
expect 'v3 is for machines without AVX-512' no_wide_vectors "$d/v3.so"

# ---- for which devices -------------------------------------------------------

devices() { "$MOERUN" info "$1" | grep -q "^devices    $2"; }
cat >"$d/all.ir" <<'IR'
moec-ir 1
entry @f(%x: f32[64] = input "x") {
  %y = add %x, %x : f32[64]
  return probe "y" = %y
}
IR
all() { "$MOEC" "$d/all.ir" "$@"; }
expect 'for all devices' all -o "$d/all.so"
expect 'all devices: both programs' devices "$d/all.so" 'cpu, cuda (sm_80, '
expect 'for another GPU' all --arch=sm_90 -o "$d/all.so"
expect 'for another GPU: both programs' devices "$d/all.so" 'cpu, cuda (sm_90, '
expect 'two programs export one symbol' exports "$d/all.so"

# What has no kernel for GPUs is a warning, unless one was asked for.
{
  echo 'moec-ir 1'
  echo 'entry @f(%x: f32[64, 64] = input "x") {'
  echo '  %s = square_sum %x, %x {map="mk,kn->mn"} : f32[]'
  echo '  return probe "s" = %s'
  echo '}'
} >"$d/lacks.ir"
lacks() { "$MOEC" "$d/lacks.ir" -o "$d/lacks.so" "$@"; }
run 'no kernel for GPUs' 0 'lacks.ir:3:8: warning: there is no kernel of square_sum for GPUs: the library holds the CPU.s program alone$' lacks
expect 'no kernel for GPUs: one warning' [ "$(grep -c warning "$d/err")" = 1 ]
expect 'no kernel for GPUs: a program for the CPU' devices "$d/lacks.so" 'cpu$'
run 'no kernel for GPUs, on request' 1 \
  'lacks.ir:3:8: error: there is no kernel of square_sum for GPUs$' \
  lacks --target=cpu,cuda
expect 'nothing is left of the other program' \
  [ "$(strings "$d/lacks.so" | grep -c sm_80)" = 0 ]
run 'what the CPU alone was asked for is no lack' 0 '' lacks --target=cpu
expect 'no word of it' [ ! -s "$d/err" ]

# ---- what goes wrong ---------------------------------------------------------

leaves_nothing() { [ -z "$(ls -A "$d/empty")" ]; }
mkdir "$d/empty"
run 'unknown cpu' 1 "unknown cpu 'z80'" compile --mcpu=z80 -o "$d/empty/x.so"
run 'missing folder' 1 'No such file or directory' \
  compile -o "$d/none/x.so"
run 'no linker' 1 "cannot run the linker 'ld'" \
  env PATH=/nonexistent "$MOEC" --target=cpu \
    "$model" "${small[@]}" -o "$d/empty/x.so"
mkdir "$d/bin"
printf '#!/bin/sh\necho "ld: no space left" >&2\nexit 1\n' >"$d/bin/ld"
chmod +x "$d/bin/ld"
run 'a linker that fails' 1 'ld: no space left' \
  env PATH="$d/bin:$PATH" "$MOEC" --target=cpu \
    "$model" "${small[@]}" -o "$d/empty/x.so"
mkdir "$d/empty/folder.so"
run 'a folder in its place' 1 'cannot write' \
  compile -o "$d/empty/folder.so"
rmdir "$d/empty/folder.so"
expect 'nothing is left behind' leaves_nothing
limited() { (ulimit -f 8; trap '' XFSZ; compile -o "$d/empty/x.so"); }
run 'no room' 1 'cannot write' limited
expect 'no room leaves nothing behind' leaves_nothing
exit $status
