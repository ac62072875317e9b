#!/bin/bash
# Every model in every layout on 2, 4 and 8 real ranks against one rank.
#
#   tests/bench/layouts.sh [--only WORD] [--no-mpi] [--dry]
#
# Sizes are small and do not divide everywhere. A row says: the largest
# difference of a parameter's gradient in the first step, by norm, in f32 and in
# f64, gate weights drawn at random (moerun verify); that of 50 losses of plain
# descent, and how far the loss falls; in how many steps of these an expert was
# chosen that one rank does not choose; and the same under mpirun, where losses
# have to be those of `moerun -n`, bit for bit. Above 1e-5, 1e-12 and 1e-5, or
# where the loss falls by less than a tenth, the row ends in FAILS, and so does
# the script. --only takes rows that have the word in them, --dry a few in f32
# that cover all models, kinds of layouts and transports. Virtual ranks run the
# same programs in tests/unit/partition.c and partition_rows.c.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} only= mpi=yes dry=
while [ $# -gt 0 ]; do
  case $1 in
  --only) only=${2:?--only needs a word} && shift ;;
  --no-mpi) mpi= ;;
  --dry) dry=yes ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  *) echo "layouts.sh: unknown argument '$1'; see --help" >&2 && exit 2 ;;
  esac
  shift
done
[ -e "$BUILD/libmoert-mpi.so" ] && command -v mpirun >/dev/null || mpi=
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export GOMP_SPINCOUNT=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat ir/*.c >"$work/data"
failed=0

# Models that descend plainly, and tell of the experts that they choose.
cp -r models "$work/models"
sed -i -E 's/adam\((rate|lr)\)/sgd(lr)/' "$work"/models/*.dsl \
  "$work/models/lib/lm.dsl"
sed -i 's/gate = jittered(named, JITTER)/gate = told(named)/' \
  "$work/models/lib/sparse.dsl"
sed -i 's/gate = noisy_top_k(k = 2)/gate = told(noisy_top_k(k = 2))/' \
  "$work/models/tiny.dsl"
cat >"$work/told.dsl" <<'TEXT'
fn told(gate)(x: f32[.., d], experts) {
  let gates, ids, aux = gate(x, experts) as ""
  let place = iota(ids, dim = 0) * 31 + iota(ids, dim = 1)
  report routes = sum((ids + 1) * (place % 97 + 1))
  return gates, ids, aux
}
TEXT
for m in lib/sparse tiny; do cat "$work/told.dsl" >>"$work/models/$m.dsl"; done
grep -q 'gate = told(named)' "$work/models/lib/sparse.dsl"

lm=(-D D=16 -D T=8 -D B=16)
moe=("${lm[@]}" -D K=2 -D H=24)

field() { sed -nE "s/.*\"$1\": ([^,}]*).*/\1/p" "$2"; }

compile() { # NAME MODEL OPTION...
  "$BUILD/moec" --target=cpu \
    "$work/models/$2.dsl" --keep-grads "${@:3}" -o "$work/$1.so" \
    2>"$work/err" || { cat "$work/err" >&2; return 1; }
}

# The largest difference of a gradient; nothing where there is none to tell.
verify() { # ONE MANY LAUNCHER...
  "${@:3}" verify "$work/$1.so" "$work/$2.so" \
    --data "$work/data" --threads 1 --quiet --timeout 120 --tolerance 1 \
    >"$work/grads" 2>"$work/err" || cat "$work/err" >&2
  sed -n '2s/^ *\([^ ]*\) .*/\1/p' "$work/grads"
}

train() { # LOG MODEL LAUNCHER...
  "${@:3}" train "$work/$2.so" --data "$work/data" --steps 50 --threads 1 \
    --set lr=0.5 --timeout 120 --quiet --log "$work/$1" >"$work/out" 2>&1 ||
    cat "$work/out" >&2
}

# The row of a mesh: what comes of both, judged.
judge() { # MODEL MESH RANKS F32 F64 MPI
  paste <(field loss "$work/one.log") <(field loss "$work/many.log") \
    <(field routes "$work/one.log" | grep . || yes 0 | head -50) \
    <(field routes "$work/many.log" | grep . || yes 0 | head -50) |
    awk -v name="$1 | $2 | $3" -v f="$4" -v d="$5" -v mpi="$6" '
      { x = ($1 - $2) / $1; if (x < 0) x = -x; if (x > most) most = x
        if (NR == 1) first = $1; last = $1; flips += $3 != $4 }
      END {
        bad = f == "" || d == "" || f > 1e-5 || d > 1e-12 || NR != 50 ||
          most > 1e-5 || last > 0.9 * first || mpi ~ /differ/ ||
          (mpi + 0 > 1e-5)
        printf "| %s | %s | %s | %.1e | %.2f to %.2f | %d | %s | %s |\n", name,
          f, d, most, first, last, flips, mpi, bad ? "FAILS" : "ok"
        exit bad }' || failed=1
}

by_mpi() { # ONE MANY RANKS: difference of gradients; losses as `many` has them
  [ "$mpi" ] || { echo '-'; return; }
  local run=(timeout 200 mpirun --oversubscribe -n "$3" "$BUILD/moerun") worst
  worst=$(verify "$1" "$2" "${run[@]}")
  train mpi.log "$2" "${run[@]}"
  cmp -s <(field loss "$work/many.log") <(field loss "$work/mpi.log") ||
    worst="losses differ"
  echo "${worst:-gradients differ}"
}

row() { # MODEL "DEFINES" MESH
  local name="$1${2:+ $2}" mesh=$3 n sizes=("${lm[@]}") more=() f d
  n=$(($(sed 's/[^0-9]\+/*/g; s/^\*//' <<<"$mesh")))
  [[ "$name $mesh $n" == *"$only"* ]] || return 0
  case $1 in
  tiny) sizes=() ;;
  lm_moe | lm_transformer) sizes=("${moe[@]}") ;;
  esac
  for d in $2; do more+=(-D "$d"); done
  if [ "${made:-}" != "$name" ]; then
    compile one "$1" "${sizes[@]}" "${more[@]}"
    [ "$dry" ] ||
      compile one64 "$1" "${sizes[@]}" "${more[@]}" --precision=f64
    train one.log one "$BUILD/moerun"
    made=$name
  fi
  compile many "$1" "${sizes[@]}" "${more[@]}" --mesh "$mesh"
  train many.log many "$BUILD/moerun" -n "$n"
  f=$(verify one many "$BUILD/moerun")
  d=0
  if [ ! "$dry" ]; then
    compile many64 "$1" "${sizes[@]}" "${more[@]}" --mesh "$mesh" \
      --precision=f64
    d=$(verify one64 many64 "$BUILD/moerun")
  fi
  judge "$name" "$mesh" "$n" "$f" "$d" "$(by_mpi one many "$n")"
}

cat <<'TEXT'
| model | mesh | ranks | f32 | f64 | losses | from, to | experts | by MPI | |
|---|---|---|---|---|---|---|---|---|---|
TEXT
if [ "$dry" ]; then
  row lm_moe N=6 data=2,expert=2
  row lm_wide H=40 data=2,model=2
  row lm_4lstm L=2 model=2
  row tiny '' dev=2
  exit $failed
fi
for sizes in N=6 'N=6 A=2' 'N=5 CAPACITY=0.8 GROUPS=4'; do
  for mesh in dev=2 dev=4 dev=8 data=2,expert=2 data=2,expert=4 \
    data=4,expert=2 model=2 data=2,model=2 dev=2,model=4 data=2,dev=2,model=2
  do row lm_moe "$sizes" $mesh; done
done
row lm_moe N=3 dev=8
for mesh in data=2 dev=4 data=8 model=2 model=4 data=2,model=2 data=2,model=4
do
  row lm_wide H=40 $mesh
  row lm_4lstm L=2 $mesh
done
for mesh in data=2 model=2 model=4 data=2,model=2 dev=4; do
  row lm_transformer 'HEADS=4 L=2 F=24 N=6' $mesh
done
for mesh in dev=2 dev=4 dev=8 expert=2,model=2; do row tiny '' $mesh; done
exit $failed
