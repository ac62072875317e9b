#!/bin/bash
# The papers' findings at a size that a small machine trains, on text of one's own.
#
#   tests/bench/papers.sh DIR [PART...] [--dry] [--report]
#
#   DIR        has texts, *.txt; the last tenth of each is held out
#   experts    more experts at equal operations a token, against the three controls
#              (Shazeer et al. 2017, Table 7)
#   balance    weights of the balance losses (Table 6)
#   optimiser  experts by factored Adam, and all by full Adam (Appendix D)
#   gates      noisy top-2, GShard, Switch, expert choice, loss-free
#   --dry      tiny models and few steps, from the start, to see that it works
#   --report   no training: tables of what is there
#
# Tables with the papers' numbers and curves go to standard output, and to
# build/papers/PART.txt. A run that is finished is not done again, so that one may
# stop and go on. In the environment: SEEDS (default "1 2 3"), STEPS, EVERY (steps
# between evaluations), JOBS (runs at a time, of one thread each), D (model width;
# experts are twice as wide), LR, WARMUP.
set -euo pipefail
usage='usage: tests/bench/papers.sh DIR [PART...] [--dry] [--report]'
dir='' parts='' dry='' report=''
for word; do
  case $word in
  --dry) dry=1 ;;
  --report) report=1 ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  --*) echo "papers.sh: unknown option '$word'" >&2 && exit 2 ;;
  *) if [ ! "$dir" ]; then dir=$(realpath "$word"); else parts+=" $word"; fi ;;
  esac
done
[ "$dir" ] || { echo "$usage" >&2 && exit 2; }
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build} JOBS=${JOBS:-2}
if [ "$dry" ]; then
  SEEDS=${SEEDS:-1 2} STEPS=4 EVERY=2 D=8 batch='-D B=4 -D T=8' most=16 few=8 groups=4
  work=$BUILD/papers-dry
  [ "$report" ] || rm -rf "$work"
else
  SEEDS=${SEEDS:-1 2 3} STEPS=${STEPS:-2000} EVERY=${EVERY:-400} D=${D:-48}
  batch='-D B=32 -D T=32' most=256 few=32 groups=16
  work=$BUILD/papers
fi
LR=${LR:-5e-3} WARMUP=${WARMUP:-200}
H=$((2 * D))
mkdir -p "$work"

# ---- which models ----------------------------------------------------------------

# A line a row of a table: label|entry|model and options|numbers of the paper
rows_experts() {
  cat <<END
4xLSTM|train|models/lm_4lstm.dsl|46.0
MoE-1-Wide|train|models/lm_wide.dsl -D H=$((4 * H))|46.1
MoE-1-Deep|train|models/lm_wide.dsl -D LAYERS=4 -D H=$H|45.7
MoE-4|train|models/lm_moe.dsl -D N=4|45.0
MoE-$few|train|models/lm_moe.dsl -D N=$few|39.7
MoE-$most|train|models/lm_moe.dsl -D N=$most|35.7
MoE-$most-h|train|models/lm_moe.dsl -D N=$most -D A=$groups -D K=2|36.0
END
}
rows_balance() {
  local weights='-D W_IMPORTANCE' model="models/lm_moe.dsl -D N=$few"
  cat <<END
0.0, 0.0|train|$model $weights=0.0 -D W_LOAD=0.0|39.8, 3.04, 3.01, 17.80
0.2, 0.0|train|$model $weights=0.2 -D W_LOAD=0.0|35.6, 0.06, 0.17, 1.47
0.0, 0.2|train|$model $weights=0.0 -D W_LOAD=0.2|35.7, 0.22, 0.04, 1.15
0.1, 0.1|train|$model|35.6, 0.06, 0.05, 1.14
0.01, 0.01|train|$model $weights=0.01 -D W_LOAD=0.01|35.7, 0.48, 0.11, 1.37
1.0, 1.0|train|$model $weights=1.0 -D W_LOAD=1.0|35.7, 0.03, 0.02, 1.07
END
}
rows_optimiser() {
  cat <<END
Adam|train|models/lm_moe.dsl -D N=$most|
factored Adam|factored|tests/bench/factored.dsl -D N=$most|
END
}
rows_gates() {
  local model="models/lm_moe.dsl -D N=$few"
  cat <<END
noisy top-2|train|$model -D K=2|2
GShard top-2|train|$model -D GATE=gshard|2
Switch|train|$model -D GATE=switch|1
Switch, experts twice as wide|train|$model -D GATE=switch -D H=$((2 * H))|1
loss-free|train|$model -D GATE=loss_free -D K=2|2
expert choice|train|$model -D GATE=expert_choice|2 in the mean
END
}
name_of() { # MODEL AND OPTIONS: that of its files
  local name=${1//-D /}
  name=${name##*/}
  echo "${name// /-}"
}

# ---- training -----------------------------------------------------------------------

# Runs of other settings are not mixed with these.
settings="$STEPS steps, evaluated every $EVERY, D=$D, lr $LR, warm-up $WARMUP, $dir"
begin() {
  if [ "$(cat "$work/settings" 2>/dev/null)" = "$settings" ]; then return; fi
  if [ -e "$work/settings" ]; then
    printf 'papers.sh: %s has runs of other settings:\n  %s\nremove it, or set them so\n' \
      "$work" "$(cat "$work/settings")" >&2
    exit 1
  fi
  local f bytes
  : >"$work/train.text"
  : >"$work/valid.text"
  for f in "$dir"/*.txt; do
    [ -e "$f" ] || { echo "papers.sh: $dir has no *.txt" >&2 && exit 1; }
    bytes=$(stat -Lc %s "$f")
    head -c $((bytes * 9 / 10)) "$f" >>"$work/train.text"
    tail -c +$((bytes * 9 / 10 + 1)) "$f" >>"$work/valid.text"
  done
  echo "$settings" >"$work/settings"
}

compile() { # MODEL AND OPTIONS
  local so
  so=$work/$(name_of "$1").so
  [ -e "$so" ] && return
  # shellcheck disable=SC2086
  set -- $batch -D D="$D" -D WARMUP="$WARMUP" $1
  [[ " $* " == *' H='* ]] || [[ $* == *4lstm* ]] || set -- -D H="$H" "$@"
  "$BUILD/moec" --target=cpu "$@" --report=cost -o "$so" >"${so%.so}.cost"
}

run() { # ENTRY SEED MODEL AND OPTIONS
  local name log start=$SECONDS
  name=$(name_of "$3")
  log=$work/$name.$2
  [ -e "$log.jsonl" ] && return
  "$BUILD/moerun" train "$work/$name.so" --entry "$1" --seed "$2" --threads 1 \
    --data "$work/train.text" --valid "$work/valid.text" --steps "$STEPS" \
    --valid-every "$EVERY" --set lr="$LR" --log "$log.part" --quiet \
    >/dev/null 2>"$log.err" ||
    { echo "$name, seed $2: $(tail -1 "$log.err")" >&2 && return 1; }
  mv "$log.part" "$log.jsonl"
  rm "$log.err"
  printf '%s, seed %s: %s, %d s\n' "$name" "$2" \
    "$(tail -1 "$log.jsonl" | grep -o '"valid_loss": [0-9.]*')" \
    $((SECONDS - start)) >&2
}

# Seeds by turns, so that what is there early has all models.
train() { # PART...
  local part seed model entry
  rm -f "$work/failed"
  declare -A begun
  for part; do
    while IFS='|' read -r _ _ model _; do
      compile "$model" || return
    done < <("rows_$part")
  done
  for seed in $SEEDS; do
    for part; do
      while IFS='|' read -r _ entry model _; do
        [ "${begun[$entry $seed $model]:-}" ] && continue
        begun[$entry $seed $model]=1
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || :; done
        run "$entry" "$seed" "$model" || : >"$work/failed" &
      done < <("rows_$part")
    done
  done
  wait
  [ ! -e "$work/failed" ]
}

# ---- tables --------------------------------------------------------------------------

logs() { # MODEL AND OPTIONS: of all its seeds
  local seed name
  name=$(name_of "$1")
  for seed in $SEEDS; do
    [ -e "$work/$name.$seed.jsonl" ] && echo "$work/$name.$seed.jsonl"
  done
  return 0
}

# Of all seeds: nats at the end, mean, least and most; how many; means of what the
# gate reports over the last tenth of the steps.
numbers() { # MODEL AND OPTIONS
  local files
  mapfile -t files < <(logs "$1")
  [ ${#files[@]} -gt 0 ] || return 0
  awk -v from=$((STEPS - STEPS / 10)) '
    function field(name,   at) {
      at = index($0, "\"" name "\": ")
      return at ? substr($0, at + length(name) + 4) + 0 : ""
    }
    FNR == 1 && NR > 1 { end() }
    function end() {
      n++; sum += last
      if (n == 1 || last < least) least = last
      if (n == 1 || last > most) most = last
    }
    field("valid_loss") != "" { last = field("valid_loss") }
    field("step") >= from && field("cv_load") != "" {
      steps++; cv += field("cv_load"); over += field("max_over_mean_load")
      if (field("cv_importance") != "") importance += field("cv_importance")
    }
    END { end(); if (!steps) steps = 1
      print sum / n, least, most, n, importance / steps, cv / steps, over / steps
    }' "${files[@]}"
}

size_of() { # COLUMN MODEL AND OPTIONS: without embedding and softmax
  awk -v i="$1" '/^without embedding and softmax/ { print $i }' \
    "$work/$(name_of "$2").cost"
}

# Perplexities of a byte, and in a hundred of MoE-4's; the same of the paper's, of
# a word.
table_experts() {
  local label model paper n base
  echo "| model | parameters | operations | nats | least, most | perplexity | of MoE-4 | paper | of MoE-4 |"
  echo "|---|---|---|---|---|---|---|---|---|"
  base=$(numbers "models/lm_moe.dsl -D N=4")
  while IFS='|' read -r label _ model paper; do
    n=$(numbers "$model")
    [ "$n" ] || continue
    awk -v n="$n" -v base="$base" -v label="$label" -v p="$(size_of 5 "$model")" \
      -v o="$(size_of 6 "$model")" -v paper="$paper" 'BEGIN {
      split(n, x); split(base, b)
      printf "| %s | %d | %d | %.3f | %.3f, %.3f | %.3f | %s | %.1f | %.1f %% |\n",
        label, p, o, x[1], x[2], x[3], exp(x[1]),
        base ? sprintf("%.1f %%", 100 * exp(x[1] - b[1])) : "-", paper,
        100 * paper / 45.0 }'
  done < <(rows_experts)
}

table_balance() {
  local label model paper n
  echo "| w_importance, w_load | nats | least, most | perplexity | CV importance | CV load | max / mean | paper's four |"
  echo "|---|---|---|---|---|---|---|---|"
  while IFS='|' read -r label _ model paper; do
    n=$(numbers "$model")
    [ "$n" ] || continue
    awk -v n="$n" -v label="$label" -v paper="$paper" 'BEGIN { split(n, x)
      printf "| %s | %.3f | %.3f, %.3f | %.3f | %.2f | %.2f | %.2f | %s |\n", label,
        x[1], x[2], x[3], exp(x[1]), x[5], x[6], x[7], paper }'
  done < <(rows_balance)
}

# Elements of optimiser state, four bytes each, that an entry has.
state_of() { # ENTRY MODEL AND OPTIONS
  "$BUILD/moerun" info "$work/$(name_of "$2").so" |
    awk -v entry="$1/" -v of="${3:-}" '
      /^optimiser state/ { on = 1 } /^recurrent state/ { on = 0 }
      on && index($1, entry) == 1 && (of == "" || index($1, of)) {
        match($0, /\[[^]]*\]/)
        k = split(substr($0, RSTART + 1, RLENGTH - 2), dim, ", ")
        n = 1
        for (i = 1; i <= k; i++) n *= dim[i]
        all += n
      } END { print 4 * all }'
}

table_optimiser() {
  local label entry model n
  echo "| experts by | nats | least, most | perplexity | state of experts, kB | all state, kB |"
  echo "|---|---|---|---|---|---|"
  while IFS='|' read -r label entry model _; do
    n=$(numbers "$model")
    [ "$n" ] || continue
    awk -v n="$n" -v label="$label" -v experts="$(state_of "$entry" "$model" /experts/)" \
      -v all="$(state_of "$entry" "$model")" 'BEGIN { split(n, x)
      printf "| %s | %.3f | %.3f, %.3f | %.3f | %.1f | %.1f |\n", label,
        x[1], x[2], x[3], exp(x[1]), experts / 1e3, all / 1e3 }'
  done < <(rows_optimiser)
}

table_gates() {
  local label model each n
  echo "| gate | experts a token | nats | least, most | perplexity | CV load | max / mean load |"
  echo "|---|---|---|---|---|---|---|"
  while IFS='|' read -r label _ model each; do
    n=$(numbers "$model")
    [ "$n" ] || continue
    awk -v n="$n" -v label="$label" -v each="$each" 'BEGIN { split(n, x)
      printf "| %s | %s | %.3f | %.3f, %.3f | %.3f | %.2f | %.2f |\n", label, each,
        x[1], x[2], x[3], exp(x[1]), x[6], x[7] }'
  done < <(rows_gates)
}

# ---- curves --------------------------------------------------------------------------

# Held-out nats by training step, means of seeds: a line of numbers a row, and a
# picture with a letter for each.
curves() { # PART
  local label model file
  while IFS='|' read -r label _ model _; do
    while read -r file; do
      sed -nE "s/.*\"step\": ([0-9]+),.*\"valid_loss\": ([0-9.]+).*/\1 \2 $label/p" "$file"
    done < <(logs "$model")
  done < <("rows_$1") | awk '
    { name = $3; for (i = 4; i <= NF; i++) name = name " " $i
      if (!(name in row)) { row[name] = ++rows; names[rows] = name }
      if (!($1 in column)) { column[$1] = ++columns; steps[columns] = $1 }
      r = row[name]; c = column[$1]
      sum[r, c] += $2; n[r, c]++ }
    END {
      if (!rows) exit
      head = sprintf("%-36s", "    held-out nats at step")
      for (c = 1; c <= columns; c++) head = head sprintf("%8d", steps[c])
      print head
      low = 1e9
      for (r = 1; r <= rows; r++) {
        line = sprintf("    %s %-30s", substr("abcdefghij", r, 1), names[r])
        for (c = 1; c <= columns; c++) {
          if (!n[r, c]) { line = line sprintf("%8s", "-"); continue }
          y = sum[r, c] / n[r, c]
          if (y < low) low = y
          if (y > high) high = y
          line = line sprintf("%8.3f", y)
        }
        print line
      }
      print ""
      lines = 16
      width = rows + 2 < 8 ? 8 : rows + 2
      if (high <= low) high = low + 1e-3
      for (r = 1; r <= rows; r++)
        for (c = 1; c <= columns; c++)
          if (n[r, c]) {
            at = int((high - sum[r, c] / n[r, c]) / (high - low) * (lines - 1) + 0.5)
            cell[at, c] = cell[at, c] substr("abcdefghij", r, 1)
          }
      for (l = 0; l < lines; l++) {
        line = sprintf("    %6.3f |", high - (high - low) * l / (lines - 1))
        for (c = 1; c <= columns; c++) line = line sprintf("%-*s", width, cell[l, c])
        sub(/ +$/, "", line)
        print line
      }
      line = "            "
      for (c = 1; c <= columns; c++) line = line sprintf("%-*d", width, steps[c])
      sub(/ +$/, "", line)
      print line
    }'
}

tell() { # PART
  printf '## %s\n\n%s; seeds %s\n\n' "$1" "${settings%,*}" "$SEEDS"
  "table_$1"
  echo
  curves "$1"
  echo
}

for part in ${parts:=experts balance optimiser gates}; do
  declare -F "rows_$part" >/dev/null ||
    { echo "papers.sh: there is no part '$part'; --help lists them" >&2 && exit 2; }
done
begin
status=0
# shellcheck disable=SC2086
[ "$report" ] || train $parts || status=1
for part in $parts; do
  tell "$part" | tee "$work/$part.txt"
done
exit $status
