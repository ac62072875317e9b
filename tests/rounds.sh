#!/bin/bash
# Rows of experts in rounds, on ranks that are processes: with room for F times
# the mean, losses and gradients are those of one rank however the rows are
# spread, and memory is less; what is said of it, and what goes wrong.
. "$(dirname "$0")/on_ranks.bash"

data=$work/data
cat ir/*.c >"$data"

fails() { not_ok "rounds: $1" "$(head -c 600 "$work/err" | tr '\n' '|')"; }

# ---- losses, all rows being one expert's ---------------------------

model() { "$MOEC" --target=cpu \
  tests/models/experts.dsl -D SKEW=1 -D B=8 -D T=8 "$@" \
  2>"$work/err"; }

train() {
  "$MOERUN" "$@" --data "$data" --steps 6 --threads 1 --poison --timeout 60 \
    --log "$work/log" --print-every 6 >"$work/out" 2>"$work/err"
}

model -o "$work/one.so" && train train "$work/one.so" || fails 'one rank'
cp "$work/log" "$work/want"

# losses MESH RANKS F ROUNDS: as on one rank, in so many rounds.
losses() {
  local name="rows in $4 rounds on $1, room for $3 times the mean" why
  if ! model --mesh "$1" --expert-rows="$3" -o "$work/model.so" ||
    ! train -n "$2" train "$work/model.so"
  then
    fails "$name"
    return
  fi
  why=$(paste "$work/want" "$work/log" | awk -v want="$4" '
    { if (split($0, part, /"loss": /) != 3) { print "no losses"; exit }
      d = (part[2] + 0) / (part[3] + 0) - 1
      if (!(d <= 1e-5 && d >= -1e-5)) print "step " NR " is off by " d
      rounds = 1
      if (match($0, /"rounds": [0-9]+/))
        rounds = substr($0, RSTART + 10, RLENGTH - 10)
      if (rounds != want) print "step " NR " in " rounds " rounds" }
    END { if (NR != 6) print NR " steps" }' 2>&1)
  if [ -z "$why" ]; then ok "rounds: $name"; else
    not_ok "rounds: $name" "${why:0:300}"
  fi
}

losses dev=4 4 1 3
told="more rows for a rank's experts than it has room for at once: up to 3"
if grep -q "$told rounds a step" "$work/err" &&
  grep -q '"rounds": 3' "$work/out"
then ok 'rounds: moerun says how many'; else fails 'moerun says how many'; fi
"$MOERUN" -n 4 train "$work/model.so" --data "$data" --steps 1000000 --quiet \
  --threads 1 --timeout 5 >"$work/out" 2>"$work/err" &
pid=$!
for _ in $(seq 100); do
  ranks=($(cat "/proc/$pid/task/$pid/children" 2>/dev/null))
  [ ${#ranks[@]} = 4 ] && break
  sleep 0.1
done
sleep 0.5
kill -9 "${ranks[1]}"
wait "$pid"
if [ $? = 1 ] && grep -q ': rank 1 was killed' "$work/err"; then
  ok 'rounds: a rank is killed'
else
  fails 'a rank is killed'
fi

losses dev=8 8 1 6

# ---- gradients of lm_moe in the first step --------------------------

tiny=(-D D=16 -D K=2 -D H=24 -D T=4 -D B=8 -D N=6 --keep-grads)

if "$MOEC" --target=cpu \
  models/lm_moe.dsl "${tiny[@]}" -o "$work/grads1.so" 2>"$work/err" &&
  "$MOEC" --target=cpu \
    models/lm_moe.dsl "${tiny[@]}" --mesh dev=4 --expert-rows=1 \
    -o "$work/grads.so" 2>"$work/err" &&
  "$MOERUN" verify "$work/grads1.so" "$work/grads.so" --data "$data" \
    --threads 1 --poison --quiet --timeout 60 >"$work/out" 2>"$work/err"
then ok 'rounds: gradients of lm_moe'; else fails 'gradients of lm_moe'; fi

# ---- memory ------------------------------------------------------

# arena F OPTION...: bytes of the arena of lm_moe with wide experts on 8 ranks
arena() {
  "$MOEC" --target=cpu \
    models/lm_moe.dsl -D D=16 -D H=256 -D N=8 -D B=32 -D T=16 -D V=64 \
    --mesh dev=8 --report=memory ${1:+--expert-rows="$1"} "${@:2}" \
    >"$work/out" 2>"$work/err"
  awk '/^  arena, of the largest/ { print $6 }' "$work/out"
}

bounded=$(arena '' -D CAPACITY=1.0)
all=$(arena '') twice=$(arena 2) mean=$(arena 1)
if awk -v a="$all" -v b="$twice" -v c="$mean" \
  'BEGIN { exit !(c > 0 && c < b && b < a / 2) }'
then ok 'rounds: they take less memory'; else
  not_ok 'rounds: they take less memory' "$all, for twice $twice, $mean"
fi
if awk -v a="$all" -v b="$bounded" 'BEGIN { exit !(b > 0 && b < 0.8 * a) }'
then ok 'rounds: so does a capacity'; else
  not_ok 'rounds: so does a capacity' "$all, with one $bounded"
fi
if grep -q 'rows that go to experts in rounds' "$work/out" &&
  grep -q 'room for 256 of 2048 rows' "$work/out" && [ ! -s "$work/err" ]
then ok 'rounds: the report of memory tells'; else
  fails 'the report of memory tells'
fi
"$MOEC" --target=cpu \
  models/lm_moe.dsl --mesh dev=4 --expert-rows=1.25 --explain=shard \
  >"$work/out" 2>"$work/err"
told='each has room for 2560 of 8192 rows (--expert-rows=1.25), more go in rounds'
if grep -qF -- "$told" "$work/out"
then ok 'rounds: the report of placements tells'; else
  fails 'the report of placements tells'
fi

# ---- wrong numbers -----------------------------------------------

for wrong in 0 0.99 -2 nan inf many 2x ''; do
  "$MOEC" --target=cpu \
    models/lm_moe.dsl --mesh dev=2 --expert-rows="$wrong" -o "$work/x" \
    >"$work/out" 2>"$work/err"
  if [ $? = 2 ] && grep -q -- '--expert-rows' "$work/err"; then
    ok "rounds: --expert-rows='$wrong'"
  else
    fails "--expert-rows='$wrong'"
  fi
done

exit $status
