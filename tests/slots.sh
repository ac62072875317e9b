#!/bin/bash
# Slots that ranks have parts of: checkpoints of four ranks resumed by one and
# back, what `info` tells, and saving that fails. The two models are one
# program, its parts written into the IR by hand.
. "$(dirname "$0")/on_ranks.bash"

# exits NAME STATUS COMMAND...: its streams go to $work/out and $work/err.
exits() {
  local name=$1 want=$2
  shift 2
  "$@" >"$work/out" 2>"$work/err"
  local got=$?
  if [ $got = "$want" ]; then ok "$name"; else
    not_ok "$name" "exit status $got: $(head -c 600 "$work/err" | tr '\n' '|')"
  fi
}

# has NAME FILE TEXT
has() {
  if grep -qF -- "$3" "$2"; then ok "$1"; else
    not_ok "$1" "no '$3' in: $(head -c 600 "$2" | tr '\n' '|')"
  fi
}

# model MESH AXIS ROWS PART RANK SUM: rows of a batch, rows of "v" on one rank,
# the op that gives its number, and what sums over ranks.
model() {
  cat <<TEXT
moec-ir 1
$1
option lr = 0.5
slot "lm/v" param f32[5$2, 3]
slot "lm/w" param f32[8$2, 64]
slot "lm/b" param bf16[3]
slot "train/lm/w/m" optim f32[8$2, 64]
slot "train/h" state f32[8$2]
entry @init(%seed: u32[] = seed) {
  %p = $5
  %k = const {value=$4} : i32[]
  %start = mul %p, %k : i32[]
  %starts = broadcast %start {map="->ab"} : i32[$4, 3]
  %row = iota {dim=0} : i32[$4, 3]
  %i = add %starts, %row : i32[$4, 3]
  %v = cast %i : f32[$4, 3]
  %w = const {value=0} : f32[$3, 64]
  %b = const {value=1} : bf16[3]
  %h = const {value=0} : f32[$3]
  return slot "lm/v" = %v, slot "lm/w" = %w, slot "lm/b" = %b,
      slot "train/lm/w/m" = %w, slot "train/h" = %h
}
entry @reset() {
  %h = const {value=0} : f32[$3]
  return slot "train/h" = %h
}
entry @train(%x: i32[$3, 8] = input "text${2:+(share=dev)}",
    %lr: f32[] = option "lr", %v: f32[$4, 3] = slot "lm/v", %w: f32[$3, 64] = slot "lm/w",
    %b: bf16[3] = slot "lm/b",
    %m: f32[$3, 64] = slot "train/lm/w/m", %h: f32[$3] = slot "train/h") {
  %f = cast %x : f32[$3, 8]
  %s = reduce_sum %f {map="bt->b"} : f32[$3]
  %h1 = add %h, %s : f32[$3]
  %hw = broadcast %h1 {map="b->bn"} : f32[$3, 64]
  %lrw = broadcast %lr {map="->bn"} : f32[$3, 64]
  %m0 = mul %m, %lrw : f32[$3, 64]
  %m1 = add %m0, %hw : f32[$3, 64]
  %w1 = sub %w, %m1 : f32[$3, 64]
  %here = reduce_sum %s {map="b->"} : f32[]
  %sum = $6
  %sums = broadcast %sum {map="->vc"} : f32[$4, 3]
  %lrv = broadcast %lr {map="->vc"} : f32[$4, 3]
  %d = mul %v, %lrv : f32[$4, 3]
  %v1 = add %d, %sums : f32[$4, 3]
  %ok = const {value=1} : bool[]
  return slot "lm/v" = %v1, slot "lm/w" = %w1, slot "lm/b" = %b,
      slot "train/lm/w/m" = %m1, slot "train/h" = %h1,
      report "loss" = %sum, report "ok" = %ok
}
TEXT
}
model '' '' 8 5 'const {value=0} : i32[]' \
  'neg %here : f32[]' | sed 's/= neg %here/= add %here, %zero/' |
  sed '/%sum = /i \  %zero = const {value=0} : f32[]' >"$work/one.ir"
model 'mesh {dev=4}' ' @dev' 2 2 'rank {axes="dev"} : i32[]' \
  'all_reduce %here {axes="dev", op="sum"} : f32[]' >"$work/four.ir"
for m in one four; do
  exits "slots: $m compiles" 0 \
    "$MOEC" --target=cpu "$work/$m.ir" --from=recompute -o "$work/$m.so"
done
data=$work/data
cat ir/*.c >"$data"

train() { # RANKS MODEL CKPT STEPS [OPTION...]
  local n=$1 model=$2 ckpt=$3 steps=$4
  shift 4
  timeout 120 "$MOERUN" -n "$n" train "$work/$model.so" --data "$data" \
    --steps "$steps" --ckpt "$work/$ckpt" --threads 1 --quiet --poison "$@"
}

# same NAME CKPT CKPT STEP
same() {
  local f
  for f in params optim state; do
    cmp "$work/$2/step-0000000$4/$f.safetensors" \
      "$work/$3/step-0000000$4/$f.safetensors" >"$work/diff" 2>&1 || {
      not_ok "$1" "$(<"$work/diff")"
      return
    }
  done
  ok "$1"
}

exits 'slots: one' 0 train 1 one ck1 5 --keep 0
exits 'slots: four' 0 train 4 four ck4 5 --keep 0
has 'slots: one line tells of all ranks' "$work/out" '"ranks": 4'
if [ "$(wc -l <"$work/out")" = 1 ] && [ ! -s "$work/err" ]; then
  ok 'slots: the first rank alone prints'
else
  not_ok 'slots: the first rank alone prints' "$(cat "$work/out" "$work/err")"
fi
same 'slots: four save what one saves' ck1 ck4 5
if [ -e "$BUILD/libmoert-mpi.so" ] && command -v mpirun >/dev/null &&
  ! grep -q __asan_init "$BUILD/moerun"; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  exits 'slots: mpirun' 0 timeout 200 mpirun --oversubscribe -n 4 "$MOERUN" \
    train "$work/four.so" --data "$data" --steps 5 --ckpt "$work/ckm" \
    --threads 1 --quiet --poison
  same 'slots: MPI saves what one saves' ck1 ckm 5
else
  echo 'skip slots: mpirun: no MPI, or under the sanitizers'
fi
cp -r "$work/ck1" "$work/ck1to4"
cp -r "$work/ck4" "$work/ck4to1"
exits 'slots: one goes on' 0 train 1 one ck1 9 --resume auto
exits "slots: four go on from one's" 0 train 4 four ck1to4 9 --resume auto
exits "slots: one goes on from four's" 0 train 1 one ck4to1 9 --resume auto
same "slots: four from one's, bit for bit" ck1 ck1to4 9
same "slots: one from four's, bit for bit" ck1 ck4to1 9
exits 'slots: parameters alone' 0 train 4 four ckl 1 \
  --load "$work/ck1/step-00000009/params.safetensors"

"$MOERUN" info "$work/four.so" | tr -s ' ' >"$work/out"
has 'slots: info, memory' "$work/out" 'of each rank: parameters'
for line in \
  'lm/v f32[5 @dev, 3] 60 B 24 B' 'lm/b bf16[3] 6 B 6 B' \
  'all, elements 530 137'
do
  has "slots: info, ${line%% *}" "$work/out" "$line"
done

# ---- what goes wrong ----------------------------------------

exits 'slots: of another number of ranks' 1 train 2 four ck2 1
sed 's/f32\[5/f32[6/; s/value=5/value=6/; s/\[5, 3\]/[6, 3]/g' "$work/one.ir" \
  >"$work/six.ir"
"$MOEC" --target=cpu "$work/six.ir" --from=recompute -o "$work/six.so"
exits 'slots: of another shape' 1 train 1 six ck6 9 --resume "$work/ck4"
has 'slots: of another shape, said' "$work/err" \
  "tensor 'lm/v' is F32[5, 3] in the file, F32[6, 3] in the model"
cp -r "$work/ck4" "$work/cut"
truncate -s 300 "$work/cut/step-00000005/optim.safetensors"
exits 'slots: truncated' 1 train 4 four cut 9 --resume auto
if [ "$(grep -c 'optim.safetensors: truncated: 300 bytes' "$work/err")" = 1 ]
then ok 'slots: truncated, said once'; else
  not_ok 'slots: truncated, said once' "$(<"$work/err")"
fi

full() ( ulimit -f 1; train 4 four ck4 9 --resume auto )
exits 'slots: no space' 1 full
has 'slots: no space, said' "$work/err" 'checkpoint not saved: rank 0: '
if [ "$(wc -l <"$work/err")" = 1 ]; then ok 'slots: no space, said once'; else
  not_ok 'slots: no space, said once' "$(<"$work/err")"
fi
exits 'slots: no space, the old one is whole' 0 \
  train 4 four ck4 9 --resume auto
same 'slots: and goes on bit for bit' ck1 ck4 9

# Ranks are killed while they save after every step.
for turn in 1 2 3; do
  "$MOERUN" -n 4 train "$work/four.so" --data "$data" --steps 1000000 \
    --ckpt "$work/ck4" --ckpt-every 1 --keep 2 --threads 1 --quiet \
    --resume auto >"$work/out" 2>"$work/err" &
  pid=$!
  for _ in $(seq 200); do
    ranks=($(cat "/proc/$pid/task/$pid/children" 2>/dev/null))
    at=$(cat "$work/ck4/latest" 2>/dev/null)
    [ ${#ranks[@]} = 4 ] && [ "$at" != "${before:-step-00000009}" ] && break
    sleep 0.05
  done
  kill -9 "${ranks[$turn]}"
  wait $pid
  has "slots: rank $turn is killed while all save" "$work/err" "rank $turn was"
  before=$(cat "$work/ck4/latest")
  step=$((10#${before#step-} + 1))
  exits "slots: it goes on from the last one, $turn" 0 \
    train 4 four ck4 $step --resume auto
  before=$(cat "$work/ck4/latest")
done
exit $status
