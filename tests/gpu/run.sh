#!/bin/bash
# Checks and measures models on the GPU of this machine, out of a bundle that
# tests/gpu/bundle.sh has made:
#
#   tar xzf BUNDLE.tar.gz && moec-gpu/run.sh [RESULTS.json]
#
# It takes less than ten minutes: what there is no time for is left out, and told.
# LIMIT=SECONDS asks for another time, PYTHON=PROGRAM for the Python that has
# PyTorch (default python3). Results go to standard output as text, and as lines
# of JSON to RESULTS.json (default results.json). Exit status 0: every check held.
# Measurements are only told.
set -u
results=$(realpath -m "${1:-results.json}")
cd "$(dirname "$0")" || exit 2
export LD_LIBRARY_PATH=$PWD/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
moerun=$PWD/bin/moerun
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
status=0
LIMIT=${LIMIT:-570}
: >"$results"

# time_for SECONDS: as many, or what is left.
time_for() {
  local left=$((LIMIT - SECONDS))
  echo $((left < $1 ? (left > 1 ? left : 1) : $1))
}

told() { # KIND NAME OK TEXT: a check
  printf '%-8s %-28s %s\n' "$3" "$2" "$4"
  printf '{"check": "%s", "model": "%s", "ok": %s}\n' "$1" "$2" \
    "$([ "$3" = ok ] && echo true || echo false)" >>"$results"
  [ "$3" = ok ] || status=1
}

# check KIND NAME COMMAND...: within its time, or it counts as failed.
check() {
  local kind=$1 name=$2
  shift 2
  if timeout "$(time_for 40)" "$@" >"$d/out" 2>"$d/err"; then
    told "$kind" "$name" ok "$kind"
  else
    told "$kind" "$name" 'not ok' "$kind: $(tail -1 "$d/err")"
  fi
}

# ---- the machine ---------------------------------------------------------------

date -u '+%Y-%m-%d %H:%M UTC'
"$moerun" doctor | tee "$d/doctor"
sed -n 's/^GPU  *\([^,]*\), .*/{"gpu": "\1"}/p' "$d/doctor" >>"$results"
arch=$(sed -n 's/^GPU  *[^,]*, \(sm_[0-9]*\), .*/\1/p' "$d/doctor" | head -1)
gpus=$(grep -c '^GPU  *[^,]*, sm_' "$d/doctor")
echo
# suits LIBRARY: whether this GPU can run it.
suits() { case $1 in *.sm_90a.so) [ "$arch" = sm_90 ] ;; esac; }
suits .sm_90a.so ||
  echo "skip     kernels for sm_90a: the GPU is ${arch:-not there}"

# ---- checks --------------------------------------------------------------------

# Losses step by step, each against the CPU's that made the bundle. Those of
# bf16 drift apart as sums are made in another order.
losses() { # NAME TOLERANCE [-n RANKS]
  local steps golden=golden/${1%%.*}.jsonl
  steps=$(wc -l <"$golden")
  "$moerun" "${@:3}" train "models/$1.so" --device=cuda --data text --steps "$steps" \
    --set lr=1e-3 --quiet --log "$d/$1.jsonl" || return 1
  grep -o '"loss": [^,}]*' "$golden" >"$d/want"
  grep -o '"loss": [^,}]*' "$d/$1.jsonl" | paste - "$d/want" |
    awk -v most="$2" -v steps="$steps" '{ e = $2 > $4 ? $2 - $4 : $4 - $2; n++
      if (!(e <= most * $4)) { bad = 1
        print "step " NR ": loss " $2 ", wanted " $4 >"/dev/stderr" } }
      END { exit bad || n != steps }'
}
export -f losses
export moerun d

for so in models/check-*.so; do
  suits "$so" || continue
  name=$(basename "$so" .so)
  case $name in *bf16*) losses=2e-2 grads=2e-2 ;; *) losses=1e-4 grads=1e-4 ;; esac
  check losses "$name" bash -c "losses $name $losses"
  check gradients "$name" "$moerun" verify "$so" "$so" --data text \
    --device=cpu,cuda --tolerance $grads
  check poisoned "$name" "$moerun" train "$so" --device=cuda --data text \
    --steps 2 --poison --quiet
  if command -v compute-sanitizer >"$d/out"; then
    check sanitizer "$name" compute-sanitizer --error-exitcode 1 "$moerun" \
      train "$so" --device=cuda --data text --steps 1 --quiet
  fi
done
command -v compute-sanitizer >"$d/out" ||
  echo 'skip     compute-sanitizer is not on this machine'

source ./ranks.sh
if [ "$gpus" -ge 2 ]; then each_of ranks ranks_agree; else
  echo "skip     several GPUs: there is $gpus"
fi

# ---- speed ---------------------------------------------------------------------

source ./speed.sh
[ "$gpus" -lt 2 ] || each_of lm-ranks ranks_measure
printf '\n%d seconds\n' $SECONDS
exit $status
