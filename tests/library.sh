#!/bin/bash
# What the compiler writes: libraries that need nothing, the same bytes each time,
# and a clear word when the machine will not let it write them.
source tests/checks.bash

small=(-D V=19 -D D=24 -D N=5 -D K=2 -D H=40 -D T=3 -D B=5)
model=models/lm_moe.dsl
compile() { "$MOEC" "$model" "${small[@]}" "$@"; }

expect 'compiles' compile -o "$d/a.so"
expect 'compiles again' compile -o "$d/b.so"
expect 'has the same bytes' cmp "$d/a.so" "$d/b.so"
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

leaves_nothing() { [ -z "$(ls -A "$d/empty")" ]; }
mkdir "$d/empty"
run 'unknown cpu' 1 "unknown cpu 'z80'" compile --mcpu=z80 -o "$d/empty/x.so"
run 'missing folder' 1 'No such file or directory' \
  compile -o "$d/none/x.so"
run 'no linker' 1 "cannot run the linker 'ld'" \
  env PATH=/nonexistent "$MOEC" "$model" "${small[@]}" -o "$d/empty/x.so"
mkdir "$d/bin"
printf '#!/bin/sh\necho "ld: no space left" >&2\nexit 1\n' >"$d/bin/ld"
chmod +x "$d/bin/ld"
run 'a linker that fails' 1 'ld: no space left' \
  env PATH="$d/bin:$PATH" "$MOEC" "$model" "${small[@]}" -o "$d/empty/x.so"
mkdir "$d/empty/folder.so"
run 'a folder in its place' 1 'cannot write' \
  compile -o "$d/empty/folder.so"
rmdir "$d/empty/folder.so"
expect 'nothing is left behind' leaves_nothing
limited() { (ulimit -f 8; trap '' XFSZ; compile -o "$d/empty/x.so"); }
run 'no room' 1 'cannot write' limited
expect 'no room leaves nothing behind' leaves_nothing
exit $status
