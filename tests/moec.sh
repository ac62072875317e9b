#!/bin/bash
# The command line of moec: what it refuses, what it suggests, its exit statuses,
# and that a failed run writes nothing.
source tests/checks.bash

# check NAME STATUS PATTERN ARGUMENTS...
check() { run "${@:1:3}" "$MOEC" "${@:4}"; }

cat >"$d/good.ir" <<'TEXT'
moec-ir 1
mesh {dev=1}

entry @main(%x: f32[4] = input "text") {
  %y = add %x, %x : f32[4]
  return report "y" = %y
}
TEXT
sed 's/f32\[4\]$/f32[5]/' "$d/good.ir" >"$d/bad.ir"
echo 'fn f( { return 1 }' >"$d/bad.dsl"

check 'help' 0 '' --help
for option in -o -D -I -O --mcpu --precision --layer --mesh --dump --dump-dir \
  --stop-after --from --time-passes --report --emit --loc --ops --version \
  --plan-only --topology --grow --json --keep-grads; do
  expect "help tells $option" grep -q -e "^  $option" "$d/out"
done
# Stages but the last, codegen.
stages=$(sed -n '/^Stages/,/^$/p' "$d/out" | tail -n +2 | tr -cd ',' | wc -c)
check 'version' 0 '' --version
check 'ops' 0 '' --ops
expect 'ops tells contract' grep -q '^contract ' "$d/out"
check 'keep-grads: too late' 2 'the work of the stage autodiff' \
  "$d/good.ir" --from=expand --keep-grads
check 'keep-grads: nothing trains' 1 'there are no gradients to keep' \
  "$d/good.ir" --keep-grads -o "$d/x.so"
check 'no input' 2 'no input'
check 'unknown long option' 2 "unknown option '--dmup'; did you mean '--dump'" \
  --dmup=fuse "$d/good.ir"
check 'unknown option, nothing near' 2 "unknown option '--zzzzzzzz'; 'moec --help'" \
  --zzzzzzzz
check 'unknown stage' 2 "did you mean 'simplify'" --dump=simplfy "$d/good.ir"
check 'unknown report' 2 "did you mean 'cost'" --report=memory,costs "$d/good.ir"
check 'missing argument' 2 'needs an argument: FILE' "$d/good.ir" -o
check 'argument not wanted' 2 'takes no argument' --loc=1 "$d/good.ir"
check 'two inputs' 2 'one input at a time' "$d/good.ir" "$d/bad.ir"
check 'neither model nor text' 2 'neither a model' "$d/good"
check 'defines for text' 2 'not for IR text' -D N=1 "$d/good.ir"
check 'a folder for no dump' 2 '--dump-dir needs --dump' --dump-dir="$d/x" \
  "$d/good.ir"
check 'a define of nothing' 2 '-D N: must be NAME=VALUE' -D N "$d/none.dsl"
check 'a define without a name' 2 'must be NAME=VALUE' -D =3 "$d/none.dsl"
check 'a define without a value' 2 'must be NAME=VALUE' -D N= "$d/none.dsl"
check 'an axis without a size' 2 'must be AXIS=SIZE' --mesh dev "$d/none.dsl"
check 'a precision that comes too late' 2 'stage precision, which comes before' \
  --precision=f64 --from=fuse "$d/good.ir"
check 'resuming a model' 2 'for IR text' --from=fuse "$d/bad.dsl"
check 'library to standard output' 2 'cannot go to standard' -o - "$d/good.ir"
check 'dump that never comes' 2 'comes after' --dump=fuse --stop-after=hoist \
  "$d/good.ir"
check 'layers without bf16' 2 'for --precision=bf16' --layer a=f32 "$d/good.ir"
check 'a layer without a dtype' 2 'must be PATH=DTYPE' --precision=bf16 \
  --layer a "$d/good.ir"
check 'a layer in f64' 2 'PATH=f32 or PATH=bf16' --precision=bf16 \
  --layer a=f64 "$d/good.ir"
check 'a layer that is not there' 1 "in layer 'a'" --precision=bf16 \
  --layer a=f32 "$d/good.ir" -o "$d/out.so"
check 'a topology for nothing' 2 '--topology is for --plan-only' \
  --topology=cpu "$d/none.dsl"
check 'a plan of IR text' 2 'for models, not for IR text' --plan-only \
  "$d/good.ir"
check 'a plan and a library' 2 'makes nothing else' --plan-only "$d/none.dsl" \
  -o "$d/out.so"
check 'sizes of no mesh' 2 'needs --mesh' --plan-only=2,4 "$d/none.dsl"
check 'growth without sizes' 2 'needs sizes' --plan-only --grow=B "$d/none.dsl"
check 'growth beyond bounds' 2 'says what it is at first' --plan-only=2,4 \
  --mesh dev=2 --grow=B -D B=99999999999 "$d/none.dsl"
check 'an axis beyond bounds' 1 'are not a multiple of' --plan-only=2,4 \
  --mesh dev=2,data=99999999999 models/lm_wide.dsl
check 'growth of nothing' 2 'says what it is at first' --plan-only=2,4 \
  --mesh dev=2 --grow=B "$d/none.dsl"
check 'missing file' 1 "cannot read '$d/none.ir': No such file" "$d/none.ir"
check 'missing model' 1 'none.dsl' "$d/none.dsl"
check 'bad text' 1 'bad.ir:5' "$d/bad.ir" --dump=all --dump-dir="$d/dumps" \
  -o "$d/out.so"
expect 'nothing written for bad text' [ ! -e "$d/dumps" -a ! -e "$d/out.so" ]
check 'bad model' 1 'bad.dsl:1' "$d/bad.dsl" --dump=all --dump-dir="$d/dumps" \
  -o "$d/out.so"
expect 'nothing written for a bad model' [ ! -e "$d/dumps" -a ! -e "$d/out.so" ]
check 'text as it was read' 0 '' --dump=frontend "$d/good.ir"
expect 'the same text' cmp -s "$d/out" "$d/good.ir"
check 'text to a file' 0 '' --stop-after=frontend "$d/good.ir" -o "$d/copy.ir"
expect 'the same text in the file' cmp -s "$d/copy.ir" "$d/good.ir"
check 'file that cannot be written' 1 "cannot write '$d/none/copy.ir'" \
  --stop-after=frontend "$d/good.ir" -o "$d/none/copy.ir"
mkfifo "$d/pipe"
for place in pipe ''; do
  check "a library for what is no file: ${place:-folder}" 1 'not a file' \
    "$d/good.ir" -o "$d/$place"
done
expect 'the pipe is still one' [ -p "$d/pipe" ]
check 'dumps of all stages' 0 '' --dump=all --dump-dir="$d/dumps" "$d/good.ir"
expect 'a file a stage' [ "$(ls "$d/dumps" | wc -l)" = "$stages" -a \
  -e "$d/dumps/00-frontend.ir" -a -e "$d/dumps/$((stages - 1))-plan.ir" ]
check 'starting where facts are lacking' 1 'cannot start from codegen' \
  --from=codegen "$d/good.ir" -o "$d/out.so"
check 'times' 0 'simplify .*ms' --time-passes --stop-after=simplify "$d/good.ir"
# ---- random draws share code ---------------------------------------------------

# Lines of exclusive ors, in the LLVM code of entries that draw so often.
draws() {
  {
    echo 'moec-ir 1'
    for ((i = 1; i <= $1; i++)); do
      cat <<TEXT

entry @f$i(%s: u32[] = seed) {
  %n = iota {dim=0} : u32[4000]
  %k = broadcast %s {map="->a"} : u32[4000]
  %o = const {value=0} : u32[4000]
  %r = threefry %k, %n, %o, %o {site=$((i * 77777))} : u32[4000]
  %u = uniform %r : f32[4000]
  return probe "u" = %u
}
TEXT
    done
  } >"$d/draws.ir"
  "$MOEC" "$d/draws.ir" --emit=llvm -o - | grep -c ' = xor '
}
one=$(draws 1)
expect 'a draw has exclusive ors' [ "$one" -gt 0 ]
expect 'draws with other keys share code' [ "$(draws 3)" = "$one" ]
"$MOEC" "$d/draws.ir" --emit=llvm -o "$d/draws.ll"
expect 'each has its keys' [ "$(grep -c '^@keys' "$d/draws.ll")" = 3 ]
# ---- layers that repeat share code ---------------------------------------------

# Functions for a model of $1 layers, but for those that only bring keys, and
# lines of all functions.
functions() {
  "$MOEC" models/lm_4lstm.dsl -D L="$1" --emit=llvm -o - | awk '
    /^define/ { inside = 1; n += !/\.keyed/ }
    inside { lines++ }
    /^}/ { inside = 0 }
    END { print n + 0, lines + 0 }'
}
read -r few short < <(functions 4)
read -r many long < <(functions 8)
expect 'layers have functions' [ "$few" -gt 0 ]
expect 'layers that repeat share them' [ "$many" -le "$few" ]
expect 'no function grows with layers' [ $((long * 50)) -le $((short * 51)) ]
exit $status
