#!/bin/bash
# Models over real ranks in every dense layout: data-parallel, tensor-parallel
# and both, sizes that divide and sizes that are padded, f32 and f64. Losses of
# 50 steps of plain descent are those of one rank, and the loss falls by a tenth.
. "$(dirname "$0")/on_ranks.bash"

cat >"$work/lstm.dsl" <<'TEXT'
import "lib/lstm.dsl"
import "lib/nn.dsl"
import "lib/optim.dsl"

const B = 8
const T = 8
const D = 16
const H = 40
option rate = 0.25

entry train(x: i32[B @dev @data @expert, T] from text,
            y: i32[B @dev @data @expert, T] from text(shift = 1)) {
  let e = dropout(embed(x, 256, D), 0.1)
  let a = e + lstm(e, D)
  let m = dropout(ffn(a, H), 0.1)
  let nll = cross_entropy(linear(a + m, 256), y)
  minimize nll with { "*": sgd(rate) }
  report loss = nll
}
TEXT

data=$work/data
cat ir/*.c >"$data"

losses() { sed -E 's/.*"loss": ([^,]*),.*/\1/' "$1"; }

# train RANKS NAME
train() {
  local n=()
  [ "$1" = 1 ] || n=(-n "$1")
  timeout 120 "$MOERUN" "${n[@]}" train "$work/$2.so" --data "$data" \
    --steps 50 --threads 1 --log "$work/$2.log" --quiet >"$work/out" 2>&1
}

# one NAME OPTION...: the run that others are compared with.
one() {
  local name=$1
  shift
  "$MOEC" --target=cpu "$work/lstm.dsl" -I models "$@" -o "$work/$name.so" &&
    train 1 "$name" || { not_ok "layouts: $name" "$(head -3 "$work/out")"; }
}

# compare NAME LOG LOG TOLERANCE
compare() {
  if paste <(losses "$2") <(losses "$3") | awk -v tol="$4" '
      { d = ($1 - $2) / $1; if (d < 0) d = -d; if (!(d <= most)) most = d
        if (NR == 1) first = $1; last = $1 }
      END { printf "# differ by %g, loss %g to %g\n", most, first, last
            exit !(most <= tol) || NR != 50 || !(last <= 0.9 * first) }'
  then ok "$1"; else not_ok "$1" 'losses differ, or do not fall'; fi
}

# many NAME RANKS MESH TOLERANCE OPTION...
many() {
  local of=$1 ranks=$2 mesh=$3 tol=$4 name="layouts: $1 on $3"
  shift 4
  "$MOEC" --target=cpu \
    "$work/lstm.dsl" -I models --mesh "$mesh" "$@" -o "$work/many.so" \
    2>"$work/out" && train "$ranks" many ||
    { not_ok "$name" "$(head -5 "$work/out" | tr '\n' '|')"; return; }
  compare "$name" "$work/$of.log" "$work/many.log" "$tol"
}

# The program that `many` made last, under MPI.
under_mpi() { # NAME RANKS
  if [ ! -e "$BUILD/libmoert-mpi.so" ] || ! command -v mpirun >/dev/null ||
    grep -q __asan_init "$BUILD/moerun"; then
    echo 'skip layouts: mpirun: no MPI, or under the sanitizers'
    return
  fi
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  timeout 120 mpirun --oversubscribe -n "$2" "$MOERUN" train "$work/many.so" \
    --data "$data" --steps 50 --threads 1 --log "$work/mpi.log" --quiet \
    >"$work/out" 2>&1 ||
    { not_ok "layouts: $1 by mpirun" "$(head -3 "$work/out")"; return; }
  compare "layouts: $1 by mpirun" "$work/many.log" "$work/mpi.log" 0
}

one f32
many f32 2 data=2 1e-5
under_mpi f32 2
many f32 2 model=2 1e-5
many f32 4 data=2,model=2 1e-5
many f32 4 model=4 1e-5
one odd -D D=15 -D H=37
many odd 2 model=2 1e-5 -D D=15 -D H=37
many odd 8 dev=2,model=4 1e-5 -D D=15 -D H=37
one f64 --precision=f64
many f64 4 data=2,model=2 1e-12 --precision=f64
exit $status
