#!/bin/bash
# not under the sanitizers: partition_rows and rounds are as good
# Experts on ranks that are processes: losses of a small language model on
# several meshes against those of one rank, by plain descent while the loss
# falls; gradients of lm_moe, and lm_moe with its own optimiser.
. "$(dirname "$0")/on_ranks.bash"

data=$work/data
cat ir/*.c >"$data"

# learn NAME RANKS STEPS MODEL.so: losses and choices of experts, $work/NAME
learn() {
  local ranks=() name=$1 n=$2 steps=$3 so=$4
  [ "$n" -gt 1 ] && ranks=(-n "$n")
  if ! "$MOERUN" "${ranks[@]}" train "$so" --data "$data" --steps "$steps" \
    --threads 1 --quiet --poison --timeout 120 --log "$work/log" \
    >"$work/out" 2>"$work/err"
  then
    not_ok "experts: $name" "$(head -c 600 "$work/err" | tr '\n' '|')"
    return 1
  fi
  sed -E 's/.*"loss": ([^,]*),.*"routes": ([^,}]*).*/\1 \2/' "$work/log" \
    >"$work/$name"
}

compile() { "$MOEC" --target=cpu "$@" 2>"$work/err"; }

# on NAME MESH RANKS DEFINE...: 50 losses on the mesh and on one rank, of which
# the last is a tenth below the first. Those of one rank are made once.
on() {
  local name=$1 mesh=$2 n=$3 defines=() so=$work/model.so why one
  shift 3
  one=one-${*// /_}
  for d in "$@"; do defines+=(-D "$d"); done
  if ! compile tests/models/experts.dsl "${defines[@]}" --mesh "$mesh" \
    -o "$so" || { [ ! -e "$work/$one" ] &&
    ! compile tests/models/experts.dsl "${defines[@]}" -o "$work/one.so"; }
  then
    not_ok "experts: $name" "$(head -c 600 "$work/err" | tr '\n' '|')"
    return
  fi
  [ -e "$work/$one" ] || learn "$one" 1 50 "$work/one.so" || return
  learn "$name" "$n" 50 "$so" || return
  why=$(paste "$work/$one" "$work/$name" | awk '
    { d = ($1 - $3) / $1; if (d < 0) d = -d
      if (!(d <= 1e-5)) bad = bad " step " NR ": " $1 " and " $3
      if (NR == 1) first = $1; last = $1; if (d > most) most = d
      if ($2 != $4) flips++ }
    END { if (bad) print bad
          else if (NR != 50 || last > 0.9 * first) print NR " steps to " last
          printf "# losses within %.1e; other experts in %d steps of %d\n",
                 most, flips, NR >"/dev/stderr" }')
  if [ -z "$why" ]; then ok "experts: $name"; else
    not_ok "experts: $name" "${why:0:300}"
  fi
}

on 'split over two ranks' dev=2 2
on 'split over four ranks, uneven' dev=4 4
on 'more ranks than experts' dev=8 8 N=3
on 'data and experts' data=2,expert=2 4
on 'experts in halves' dev=2,model=2 4
on 'one sequence a rank' dev=4 4 B=4 N=4
on 'all rows to one expert' dev=4 4 SKEW=1
on 'capacity' dev=4 4 CAPACITY=0.9 GROUPS=4
on 'capacity, data and experts' data=2,expert=2 4 CAPACITY=0.7 GROUPS=2 N=5
on 'dropout inside of experts' dev=4 4 P=0.3 CAPACITY=0.8 GROUPS=2
on 'dropout inside, data and experts' data=2,expert=2 4 P=0.3

# ---- gradients of lm_moe in the first step ---------------

tiny=(-D D=16 -D K=2 -D H=24 -D T=4 -D B=8 --keep-grads)

# gradients MESH EXPERTS OPTION...: those of one rank, within 1e-5 in f32, 1e-12
# in f64
gradients() {
  local p mesh=$1 n=$2 model one
  shift 2
  for p in f32 f64; do
    model=(models/lm_moe.dsl "${tiny[@]}" -D "N=$n" "$@" --precision=$p)
    one=$work/$p-$n${*// /_}.so
    if { [ -e "$one" ] || compile "${model[@]}" -o "$one"; } &&
      compile "${model[@]}" --mesh "$mesh" -o "$work/model.so" &&
      "$MOERUN" verify "$one" "$work/model.so" --data "$data" \
        --threads 1 --poison --quiet --timeout 120 >"$work/out" 2>"$work/err"
    then ok "experts: gradients in $p on $mesh, $n experts${*:+, $*}"; else
      not_ok "experts: gradients in $p on $mesh, $n experts${*:+, $*}" \
        "$(head -c 600 "$work/err" | tr '\n' '|')"
    fi
  done
}

gradients dev=2 6
gradients dev=4 6
gradients dev=8 3
gradients data=2,expert=2 5
gradients data=2,dev=2,model=2 4
gradients data=2,expert=2 5 -D CAPACITY=0.7 -D GROUPS=4

# ---- lm_moe, trained on four ranks and on one, read by either ----------------

small=(-D N=6 -D D=32 -D H=64 -D B=8 -D T=8 -D WARMUP=10)
head -c 3000 "$data" >"$work/valid"

# run NAME COMMAND...: its last line goes to $work/out
run() {
  local name=$1
  shift
  if "$@" >"$work/out" 2>"$work/err"; then ok "experts: lm_moe, $name"; else
    not_ok "experts: lm_moe, $name" "$(head -c 600 "$work/err" | tr '\n' '|')"
  fi
}

number() { sed -E "s/.*\"$1\": ([^,}]*).*/\\1/" "$work/out"; }

run 'one rank compiles' "$MOEC" --target=cpu models/lm_moe.dsl "${small[@]}" \
  -o "$work/lm1.so"
run 'four ranks compile' "$MOEC" --target=cpu models/lm_moe.dsl "${small[@]}" \
  --mesh dev=4 -o "$work/lm4.so"
run 'four ranks train' "$MOERUN" -n 4 train "$work/lm4.so" --data "$data" \
  --steps 20 --ckpt "$work/ckpt" --valid "$work/valid" --threads 1
trained=$(number valid_loss)
run 'four ranks evaluate' "$MOERUN" -n 4 eval "$work/lm4.so" \
  --data "$work/valid" --ckpt "$work/ckpt" --threads 1
four=$(number loss)
run 'one rank evaluates' "$MOERUN" eval "$work/lm1.so" \
  --data "$work/valid" --ckpt "$work/ckpt" --threads 1
if awk -v a="$trained" -v b="$four" -v c="$(number loss)" 'BEGIN {
  d = (b - c) / c; exit !(a == b && d < 1e-6 && d > -1e-6) }'
then ok 'experts: lm_moe, one loss'; else
  not_ok 'experts: lm_moe, one loss' "$trained, $four and $(number loss)"
fi
run 'four ranks write' "$MOERUN" -n 4 sample "$work/lm4.so" \
  --ckpt "$work/ckpt" --tokens 20 --threads 1
cp "$work/out" "$work/written"
run 'one rank writes' "$MOERUN" sample "$work/lm1.so" --ckpt "$work/ckpt" \
  --tokens 20 --threads 1
if cmp -s "$work/out" "$work/written"; then ok 'experts: lm_moe, one text'; else
  not_ok 'experts: lm_moe, one text' 'they differ'
fi

exit $status
