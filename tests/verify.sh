#!/bin/bash
# moerun verify: one program compiled in several ways has the same gradients, a
# wrong one is found by the name of its parameter; and what cannot be compared.
# Also: initial values and checkpoints of a model are the same on any mesh.
. "$(dirname "$0")/on_ranks.bash"

# exits NAME STATUS TEXT COMMAND...: with TEXT in what it says.
exits() {
  local name=$1 want=$2 text=$3 got
  shift 3
  timeout 200 "$@" >"$work/out" 2>"$work/err"
  got=$?
  if [ $got != "$want" ]; then
    not_ok "$name" "exit status $got: $(head -c 600 "$work/err" | tr '\n' '|')"
  elif ! cat "$work/out" "$work/err" | grep -qF -- "$text"; then
    not_ok "$name" "no '$text' in: $(head -c 600 "$work/err" | tr '\n' '|')"
  else ok "$name"; fi
}

is() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$work/is" 2>&1; then ok "$name"; else
    not_ok "$name" "$* $(head -c 300 "$work/is")"
  fi
}

small=(-D D=16 -D N=6 -D K=2 -D H=24 -D T=8 -D B=4 -D WARMUP=20)
cat models/lib/*.dsl models/*.dsl >"$work/text"

build() { # NAME ARGUMENT...
  local name=$1
  shift
  "$MOEC" --target=cpu models/lm_moe.dsl "${small[@]}" --keep-grads "$@" \
    -o "$work/$name.so" 2>"$work/err" && return
  not_ok "verify: $name is compiled" "$(head -3 "$work/err" | tr '\n' '|')"
}
verify() { "$MOERUN" verify "$work/$1.so" "$work/$2.so" --data "$work/text" \
  "${@:3}"; }

build one
build plain -O0
build four --mesh dev=4
build one_f64 --precision=f64
build four_f64 --mesh dev=4 --precision=f64
build bf16 --precision=bf16
"$MOEC" --target=cpu models/lm_moe.dsl "${small[@]}" -o "$work/silent.so"
"$MOEC" --target=cpu \
  models/lm_moe.dsl "${small[@]}" -D N=8 --keep-grads -o "$work/eight.so"

# ---- the same ----------------------------------------

same() { # NAME A B [OPTION...]
  local name=$1
  shift
  verify "$@" >"$work/out" 2>"$work/err" || {
    not_ok "$name" "$(cat "$work/err" "$work/out" | head -4 | tr '\n' '|')"
    return
  }
  local n
  n=$(grep -c ' lm/' "$work/out")
  if [ "$n" = 12 ]; then ok "$name"; else not_ok "$name" "$n parameters"; fi
}
same 'verify: with and without fusion' one plain
same 'verify: four ranks, f32' one four
same 'verify: four ranks, f64' one_f64 four_f64
same 'verify: four ranks first' four_f64 one_f64
drawn_alike() {
  for _ in $(seq 20); do
    verify four_f64 one_f64 --quiet || return
  done
}
is 'verify: ranks draw the same, whoever is first' drawn_alike
same 'verify: the third step' one_f64 four_f64 --steps 3 --set lr=1e-4 \
  --tolerance 1e-9
is 'verify: worst first' sort -s -c -g -r -k1,1 <(tail -n +2 "$work/out")
exits 'verify: by ranks that are there' 0 'lm/moe/gate/w' \
  "$MOERUN" -n 4 verify "$work/one.so" "$work/four.so" --data "$work/text"
if [ -e "$BUILD/libmoert-mpi.so" ] && command -v mpirun >/dev/null &&
  ! grep -q __asan_init "$BUILD/moerun"; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  exits 'verify: by ranks of MPI' 0 'lm/moe/gate/w' \
    mpirun --oversubscribe -n 4 "$MOERUN" verify "$work/one.so" \
    "$work/four.so" --data "$work/text"
  is 'verify: MPI, told once' [ "$(grep -c ' lm/' "$work/out")" = 12 ]
else
  echo 'skip verify: mpirun: no MPI, or under the sanitizers'
fi

# ---- not the same ----------------------------------------

exits 'verify: of less precision' 1 'more than 1e-05' "$MOERUN" verify \
  "$work/one.so" "$work/bf16.so" --data "$work/text"
exits 'verify: and that is allowed' 0 'lm/lstm1/w' "$MOERUN" verify \
  "$work/one.so" "$work/bf16.so" --data "$work/text" --tolerance 1

# Of the exchanges that make sums, one after the other is left out.
"$MOEC" --target=cpu models/lm_moe.dsl "${small[@]}" --keep-grads --mesh dev=4 \
  --stop-after=partition -o "$work/parts.ir"
awk '/^entry/ { train = /@train/ } train && / = all_reduce .*op="sum"/ {
  print NR }' "$work/parts.ir" >"$work/sums"
is 'verify: there are sums' test -s "$work/sums"
for line in $(sed -n '1p;$p' "$work/sums"); do
  sed "${line}s/op=\"sum\"/op=\"max\"/" "$work/parts.ir" >"$work/wrong.ir"
  "$MOEC" --target=cpu "$work/wrong.ir" --from=recompute -o "$work/wrong.so"
  exits "verify: a wrong exchange in line $line" 1 'the gradient of' \
    "$MOERUN" verify "$work/one.so" "$work/wrong.so" --data "$work/text"
done

# Gate weights are 0 at first: drawn at random unless told otherwise.
verify one plain >"$work/drawn" 2>/dev/null
verify one plain --randomize '' >"$work/zero" 2>/dev/null
verify one plain --randomize 'lm/moe/gate/*' >"$work/gate" 2>/dev/null
gate() { awk '/gate/ { print $2 }' "$1"; }
is 'verify: what is 0 is drawn' [ "$(gate "$work/drawn")" != \
  "$(gate "$work/zero")" ]
is 'verify: what matches is drawn' [ "$(gate "$work/gate")" != \
  "$(gate "$work/zero")" ]

# ---- what cannot be ----------------------------------------

compare() { # NAME STATUS TEXT A B [OPTION...]
  exits "verify: $1" "$2" "$3" "$MOERUN" verify "$work/$4.so" "$work/$5.so" \
    --data "${data:-$work/text}" "${@:6}"
}
compare 'no gradients' 1 'compile it with moec --keep-grads' one silent
compare 'other sizes' 1 \
  "parameter 'lm/moe/gate/w' is of another dtype or shape" one eight
compare 'other dtype' 1 'is of another dtype or shape' one one_f64
compare 'no such entry' 1 "no entry 'trian'" one plain --entry trian
compare 'no such model' 1 'nowhere.so' one nowhere
data=$work/nowhere compare 'no such data' 1 'four.so could not do its steps' \
  four one
exits 'verify: by too few ranks' 1 'compiled for 4 ranks, but 3 are running' \
  "$MOERUN" -n 3 verify "$work/one.so" "$work/four.so" --data "$work/text"

# ---- initial values and checkpoints ----------------------------------------

train() { # RANKS MODEL CKPT STEPS [OPTION...]
  "$MOERUN" -n "$1" train "$work/$2.so" --data "$work/text" --ckpt "$work/$3" \
    --steps "$4" --seed 5 --quiet "${@:5}" >"$work/out" 2>"$work/err" ||
    not_ok "train $2 $3 $4" "$(<"$work/err")"
}
train 1 one ck1 0
train 4 four ck4 0
for f in params optim state; do
  is "meshes: the same $f at first" cmp \
    "$work/ck1/step-00000000/$f.safetensors" \
    "$work/ck4/step-00000000/$f.safetensors"
done
# Four save after step 4; one goes on from there as four do.
train 4 four ck4 4 --resume auto
cp -r "$work/ck4" "$work/ck41"
train 4 four ck4 8 --resume auto --log "$work/4.log"
train 1 one ck41 8 --resume auto --log "$work/1.log"
near() { # NAME FILE FILE KEY: within 1e-5
  paste <(grep -o "\"$4\": [^,}]*" "$2") <(grep -o "\"$4\": [^,}]*" "$3") |
    awk '{ d = ($2 - $4) / $2; if (d > 1e-5 || d < -1e-5) bad = 1 }
      END { exit bad || !NR }' && ok "$1" ||
    not_ok "$1" "$(head -2 "$2" "$3" | tr '\n' '|')"
}
near 'meshes: one goes on from what four have saved' "$work/1.log" \
  "$work/4.log" loss
evaluate() { # RANKS MODEL
  "$MOERUN" -n "$1" eval "$work/$2.so" --data "$work/valid" --ckpt "$work/ck4" \
    --quiet
}
head -c 1500 "$work/text" >"$work/valid"
evaluate 1 one >"$work/1.eval"
evaluate 4 four >"$work/4.eval"
near 'meshes: the same evaluation' "$work/1.eval" "$work/4.eval" loss
sample() { # RANKS MODEL
  "$MOERUN" -n "$1" sample "$work/$2.so" --ckpt "$work/ck4" --seed 3 \
    --tokens 60 --prompt entry
}
sample 1 one >"$work/1.text"
sample 4 four >"$work/4.text"
is 'meshes: the same text is written' cmp "$work/1.text" "$work/4.text"
is 'meshes: by the first rank' test -s "$work/4.text"
exit $status
