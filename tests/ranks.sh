#!/bin/bash
# Several ranks: a model of two-byte statistics whose gradients are summed over
# four processes, its exchanges written into the IR by hand, against one rank.
. "$(dirname "$0")/on_ranks.bash"

# has NAME FILE TEXT
has() {
  if grep -qF -- "$3" "$2"; then ok "$1"; else
    not_ok "$1" "no '$3' in: $(head -c 600 "$2" | tr '\n' '|')"
  fi
}

# once NAME FILE TEXT: in one line of it.
once() {
  if [ "$(grep -cF -- "$3" "$2")" = 1 ]; then ok "$1"; else
    not_ok "$1" "'$3', but once: $(head -c 600 "$2" | tr '\n' '|')"
  fi
}

# exits NAME STATUS COMMAND...: its streams go to $work/out and $work/err.
exits() {
  local name=$1 want=$2
  shift 2
  timeout 120 "$@" >"$work/out" 2>"$work/err"
  local got=$?
  if [ $got = "$want" ]; then ok "$name"; else
    not_ok "$name" "exit status $got: $(head -c 600 "$work/err" | tr '\n' '|')"
  fi
}

cat >"$work/pairs.dsl" <<'TEXT'
import "lib/nn.dsl"
import "lib/optim.dsl"

const B = 8
option lr = 2.0

entry train(x: i32[B, 8] from text, y: i32[B, 8] from text(shift = 1)) {
  let logits = linear(embed(x, 256, 8), 256)
  minimize cross_entropy(logits, y) with { "*": sgd(lr) }
}
TEXT

# What one of four ranks does: a quarter of the batch, sums over all of it.
share_out() {
  local sum='{axes="dev", op="sum"}' types='f32[256], f32[8, 256], f32[256, 8]'
  local nll='reduce_sum .* f32\[\] layer\("cross_entropy"\)'
  local here='%d_bias_here, %d_w_here, %d_table_here'
  sed -E -e '1a mesh {dev=4}' \
    -e 's/input "text"/input "text(share=dev)"/' \
    -e 's/input "text\(shift=1\)"/input "text(shift=1, share=dev)"/' \
    -e 's/\{value=16\}/{value=64}/; s/value=(-?)0\.0625/value=\10.015625/' \
    -e "s/^  (%[0-9]+) = ($nll)\$/  %here = \\2\\n  \\1 = ALL %here : f32[]/" \
    -e 's/^  %d_(bias|w|table) =/  %d_\1_here =/' \
    -e "/^  %d_table_here/a \  %d_bias, %d_w, %d_table = ALL $here : $types" |
    sed -E "s/= ALL ([^:]*) :/= all_reduce \\1 $sum :/"
}

data=$work/data
cat ir/*.c >"$data"
"$MOEC" --target=cpu "$work/pairs.dsl" -I models -o "$work/one.so" || exit 1
"$MOEC" --target=cpu \
  "$work/pairs.dsl" -I models -D B=2 --stop-after=simplify.2 |
  share_out >"$work/four.ir"
exits 'ranks: exchanges compile' 0 \
  "$MOEC" --target=cpu "$work/four.ir" --from=recompute -o "$work/four.so"

losses() { sed -E 's/.*"loss": ([^,]*),.*/\1/' "$1"; }

# same_losses NAME LOG LOG: within 1e-5, and they fall.
same_losses() {
  if paste <(losses "$2") <(losses "$3") | awk '
    { d = ($1 - $2) / $1; if (!(d <= 1e-5 && d >= -1e-5)) bad = NR
      if (NR == 1) first = $1; last = $1 }
    END { exit bad || NR != 30 || !(last <= first - 0.1) }'
  then ok "$1"; else
    not_ok "$1" "$(paste <(losses "$2") <(losses "$3") | head -3 | tr '\n' '|')"
  fi
}

train() { # MODEL LOG
  echo "train $1 --data $data --steps 30 --threads 1 --log $2 --quiet"
}

# shellcheck disable=SC2046
{
  exits 'ranks: one' 0 "$MOERUN" $(train "$work/one.so" "$work/one.log")
  exits 'ranks: four' 0 \
    "$MOERUN" -n 4 $(train "$work/four.so" "$work/four.log")
}
same_losses 'ranks: four as one' "$work/one.log" "$work/four.log"
if [ "$(wc -l <"$work/out")" = 1 ] && [ ! -s "$work/err" ]; then
  ok 'ranks: the first alone speaks'
else
  not_ok 'ranks: the first alone speaks' "$(cat "$work/out" "$work/err")"
fi
exits 'ranks: bench' 0 "$MOERUN" -n 4 bench "$work/four.so" --steps 3 \
  --threads 1 --profile
for key in ranks exchange_ms exposed_ms exchange_bytes; do
  has "ranks: bench: $key" "$work/out" "\"$key\": "
done
has 'ranks: bench: exchanges' "$work/err" 'ms a step in exchanges'
if [ "$(grep -c 'ms waited' "$work/err")" = 1 ]; then
  ok 'ranks: the profile is told once'
else
  not_ok 'ranks: the profile is told once' "$(cat "$work/err")"
fi
# What comes in a step is what the report says is sent, as far as it tells.
small=(models/lm_4lstm.dsl -D V=256 -D D=24 -D B=8 -D T=4 --mesh dev=4)
sent=$("$MOEC" --target=cpu "${small[@]}" --explain=shard |
  awk '/ in train / { t = 1 } t && / together / { print $3, $4; exit }')
exits 'ranks: a model compiles' 0 "$MOEC" --target=cpu \
  "${small[@]}" -o "$work/small.so"
exits 'ranks: a model runs' 0 "$MOERUN" -n 4 bench "$work/small.so" --steps 2 \
  --threads 1
came=$(sed -E 's/.*"exchange_bytes": ([0-9.]+).*/\1/' "$work/out")
if awk -v sent="$sent" -v came="$came" 'BEGIN {
  split(sent, s); unit["B"] = 1; unit["KiB"] = 1024; unit["MiB"] = 1048576
  d = came / unit[s[2]] - s[1]; exit !(d >= -0.051 && d <= 0.051) }'
then ok 'ranks: bytes as explained'; else
  not_ok 'ranks: bytes as explained' "sent $sent, came $came"
fi
exits 'ranks: the end of training' 0 "$MOERUN" -n 4 train "$work/four.so" \
  --data "$data" --steps 3 --threads 1
has 'ranks: the end of training, exchanges' "$work/err" \
  'ms a step in exchanges'
has 'ranks: the end of training, exposed' "$work/out" '"exposed_ms": '
"$MOERUN" info "$work/four.so" >"$work/out"
has 'ranks: info tells the mesh' "$work/out" 'mesh       dev=4'

# ---- under MPI ----------------------------------------

mpi=
if [ -e "$BUILD/libmoert-mpi.so" ] && command -v mpirun >/dev/null &&
  ! grep -q __asan_init "$BUILD/moerun"; then
  mpi=yes
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  # shellcheck disable=SC2046
  exits 'ranks: mpirun' 0 mpirun --oversubscribe -n 4 \
    "$MOERUN" $(train "$work/four.so" "$work/mpi.log")
  if diff <(losses "$work/four.log") <(losses "$work/mpi.log") >"$work/diff"
  then ok 'ranks: MPI as shared memory, bit for bit'; else
    not_ok 'ranks: MPI as shared memory, bit for bit' "$(head -3 "$work/diff")"
  fi
  # shellcheck disable=SC2046
  exits 'ranks: mpirun, another number' 1 mpirun --oversubscribe -n 2 \
    "$MOERUN" $(train "$work/four.so" "$work/mpi.log")
  once 'ranks: mpirun, another number, said' "$work/err" \
    'compiled for 4 ranks, mesh {dev=4}, but 2 are running'

  # srun's environment on ranks that mpirun connects.
  cat >"$work/srun" <<'TEXT'
#!/bin/bash
export SLURM_PROCID=$((OMPI_COMM_WORLD_RANK ${SHIFT:-+ 0}))
export SLURM_NTASKS=$OMPI_COMM_WORLD_SIZE
export SLURM_NTASKS_PER_NODE=$OMPI_COMM_WORLD_LOCAL_SIZE
unset OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_LOCAL_SIZE
exec "$@"
TEXT
  chmod +x "$work/srun"
  # shellcheck disable=SC2046
  exits 'ranks: srun' 0 mpirun --oversubscribe -n 4 "$work/srun" \
    "$MOERUN" $(train "$work/four.so" "$work/srun.log")
  if diff <(losses "$work/four.log") <(losses "$work/srun.log") >"$work/diff"
  then ok 'ranks: srun as mpirun'; else
    not_ok 'ranks: srun as mpirun' "$(head -3 "$work/diff")"
  fi
  # shellcheck disable=SC2046
  exits 'ranks: srun, ranks in another order' 1 env SHIFT='^ 1' \
    mpirun --oversubscribe -n 4 "$work/srun" \
    "$MOERUN" $(train "$work/four.so" "$work/srun.log")
  has 'ranks: srun, ranks in another order, said' "$work/err" \
    'were two launchers used?'
  exits 'ranks: srun without its MPI' 1 env SLURM_PROCID=0 SLURM_NTASKS=4 \
    "$MOERUN" train "$work/four.so" --data "$data" --steps 2 --quiet
  has 'ranks: srun without its MPI, said' "$work/err" \
    '4 ranks were started, but MPI connects 1'
else
  echo 'skip ranks: mpirun: no MPI, or under the sanitizers'
fi

# ---- wrong numbers ----------------------------------------

try=(train "$work/four.so" --data "$data" --steps 2 --quiet)
exits 'ranks: one where four belong' 1 "$MOERUN" "${try[@]}"
has 'ranks: one where four belong, said' "$work/err" \
  'compiled for 4 ranks, mesh {dev=4}, but 1 is running'
exits 'ranks: three where four belong' 1 "$MOERUN" -n 3 "${try[@]}"
once 'ranks: what all say is said once' "$work/err" 'but 3 are running'
exits 'ranks: four where one belongs' 1 "$MOERUN" -n 4 train "$work/one.so" \
  --data "$data" --steps 2 --quiet
has 'ranks: four where one belongs, said' "$work/err" \
  'compiled for 1 rank, mesh {}, but 4 are running'
for n in 0 x 1000 ''; do
  exits "ranks: -n '$n'" 2 "$MOERUN" -n "$n" "${try[@]}"
done
has 'ranks: -n, said' "$work/err" '-n takes a number of ranks, 1 to 256'

environment() { # NAME TEXT ASSIGNMENT...
  local name=$1 text=$2
  shift 2
  exits "ranks: $name" 1 env "$@" "$MOERUN" "${try[@]}"
  has "ranks: $name, said" "$work/err" "$text"
}
environment 'a rank too high' 'OMPI_COMM_WORLD_RANK=4 is not a rank' \
  OMPI_COMM_WORLD_RANK=4 OMPI_COMM_WORLD_SIZE=4
environment 'no number of ranks' 'PMI_SIZE=many is not a number of ranks' \
  PMI_RANK=0 PMI_SIZE=many
environment 'srun, a rank too high' 'SLURM_PROCID=4 is not a rank' \
  SLURM_PROCID=4 SLURM_NTASKS=4
environment 'srun, no rank' 'SLURM_PROCID=-1 is not a rank' \
  SLURM_PROCID=-1 SLURM_NTASKS=4
environment 'srun, no number of ranks' \
  'SLURM_NTASKS=0 is not a number of ranks' SLURM_PROCID=0 SLURM_NTASKS=0
environment 'a launcher without MPI' 'start them by moerun -n 4' \
  RANK=1 WORLD_SIZE=4
exits 'ranks: -n under mpirun' 2 env OMPI_COMM_WORLD_RANK=0 \
  OMPI_COMM_WORLD_SIZE=4 "$MOERUN" -n 4 "${try[@]}"
has 'ranks: -n under mpirun, said' "$work/err" 'one of them is enough'
exits 'ranks: -n in a job of srun' 0 env SLURM_PROCID=0 SLURM_NTASKS=4 \
  "$MOERUN" -n 4 "${try[@]}"
exits 'ranks: srun of one rank' 1 env SLURM_PROCID=0 SLURM_NTASKS=1 \
  "$MOERUN" "${try[@]}"
has 'ranks: srun of one rank, said' "$work/err" \
  'compiled for 4 ranks, mesh {dev=4}, but 1 is running'
exits 'ranks: a launcher of one rank' 0 env RANK=0 WORLD_SIZE=1 \
  "$MOERUN" -n 4 "${try[@]}"

# ---- ranks that end or hang ----------------------------------------

endless=(train "$work/four.so" --data "$data" --steps 1000000 --quiet
  --threads 1)

# start [OPTION...]: the launcher's pid in $pid, its ranks' in $ranks.
launcher=("$MOERUN" -n 4)
start() {
  "${launcher[@]}" "${endless[@]}" "$@" >"$work/out" 2>"$work/err" &
  pid=$!
  for _ in $(seq 100); do
    sleep 0.1
    ranks=($(cat "/proc/$pid/task/$pid/children" 2>/dev/null))
    [ ${#ranks[@]} = 4 ] && break
  done
  sleep 0.5
}

# ends NAME STATUS SECONDS: the launcher does, so soon, and no rank is left.
ends() {
  local since=$EPOCHREALTIME got
  for _ in $(seq $((10 * $3))); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null
  wait "$pid"
  got=$?
  local left='' r
  for r in "${ranks[@]}"; do
    grep -sq '^State:[^Z]*$' "/proc/$r/status" && left+=" $r"
  done
  if [ $got = "$2" ] && [ ! "$left" ] &&
    awk -v a="$since" -v b="$EPOCHREALTIME" -v m="$3" \
      'BEGIN { exit b - a > m }'
  then ok "$1"; else
    not_ok "$1" "status $got, left:$left, $(head -c 600 "$work/err")"
  fi
}

start
kill -9 "${ranks[2]}"
ends 'ranks: one is killed' 1 20
once 'ranks: one is killed, said' "$work/err" 'rank 2 was killed by signal 9'
has 'ranks: one is killed, where' "$work/err" ': rank 2 was killed'

start --timeout 2
while kill -STOP "${ranks[1]}" 2>/dev/null; do sleep 0.1; done &
ends 'ranks: one hangs' 1 60
once 'ranks: one hangs, said' "$work/err" 'rank 1 has not'
has 'ranks: one hangs, where' "$work/err" ': rank 1 has not'

if [ "$mpi" ]; then
  launcher=(mpirun --oversubscribe -n 4 "$MOERUN")
  start --timeout 2 --log "$work/steps"
  for _ in $(seq 300); do # none notices one that never comes to MPI
    [ -s "$work/steps" ] && break
    sleep 0.1
  done
  kill -STOP "${ranks[1]}"
  ends 'ranks: one hangs under mpirun' 1 60
  once 'ranks: one hangs under mpirun, said' "$work/err" \
    'has not answered for 2 s'
  launcher=("$MOERUN" -n 4)
fi

start --ckpt "$work/ckpt"
kill -TERM "$pid"
ends 'ranks: a signal stops all after the same step' 0 30
if [ -e "$work/ckpt/latest/meta.json" ] || [ -e "$work/ckpt/latest" ]; then
  ok 'ranks: and it is saved'
else
  not_ok 'ranks: and it is saved' "$(ls -R "$work/ckpt" 2>&1)"
fi

start
kill -9 "$pid"
wait "$pid" 2>/dev/null
for _ in $(seq 50); do
  left=''
  for r in "${ranks[@]}"; do
    [ -d "/proc/$r" ] && ! grep -q '^State:.Z' "/proc/$r/status" && left+=" $r"
  done
  [ "$left" ] || break
  sleep 0.1
done
if [ "$left" ]; then not_ok 'ranks: none outlives the launcher' "$left"; else
  ok 'ranks: none outlives the launcher'
fi

exits 'ranks: no such file' 1 "$MOERUN" -n 4 train "$work/four.so" \
  --data /nowhere/x --steps 2 --quiet
once 'ranks: a missing file is missed once' "$work/err" 'nowhere'
exit $status
