# Sourced by run.sh: what is measured, case by case, each on moec and on PyTorch on
# the same device, as long as there is time. A line of `cases` is
#
#   KIND|NAME|MODEL|ARGUMENTS OF THE MODEL|ARGUMENTS OF PEERS|FLOP OF A STEP
#
# with what is worth most first; FLOP 0: what the compiler counts. All variants of
# the model that there are get a row each, "moec" and "moec VARIANT". The shares are
# of a large product in bf16, which moerun measures there each time, unless
# ROOFLINE is set to nothing.
PYTHON=${PYTHON:-python3}
STEPS=${STEPS:-20}
ROOFLINE=${ROOFLINE---roofline}
has_torch() { "$PYTHON" -c 'import torch' >"$d/out" 2>"$d/err"; }
number() { sed -n "s/.*\"$1\": \"\{0,1\}\([^,}\"]*\).*/\1/p" "$2"; }

# row WHO MILLISECONDS [SHARE]: of the case at hand.
row() {
  printf '%s\t%s\t%s\n' "$1" "$2" "${3:-0}" >>"$d/rows"
}

# A variant of the model; the device's peak and what the compiler counts are kept.
ours() { # LIBRARY
  local who=moec variant=${1#models/"$model"}
  variant=${variant%.so}
  who+=${variant:+ ${variant#.}}
  # shellcheck disable=SC2086
  timeout "$(time_for 60)" "$moerun" bench "$1" --device=cuda \
    $ROOFLINE --steps "$STEPS" $arguments >"$d/bench" 2>"$d/err"
  case $? in
  0) ;;
  124)
    echo "  $who: no time"
    printf '{"case": "%s", "left_out": true}\n' "$name" >>"$results"
    return ;;
  *)
    echo "  $who: failed: $(tail -1 "$d/err")"
    status=1
    return ;;
  esac
  row "$who" "$(number step_ms "$d/bench")" "$(number limit_share "$d/bench")"
  sed "s/^{/{\"bench\": \"$name\", \"who\": \"$who\", /" "$d/bench" >>"$results"
  peak=$(number peak_gflops_bf16 "$d/bench")
  [ "$flop" != 0 ] || flop=$(awk -v g="$(number gflops "$d/bench")" \
    -v ms="$(number step_ms "$d/bench")" 'BEGIN { print g * ms * 1e6 }')
}

# PyTorch's: as many variants as there is time for.
theirs() {
  # shellcheck disable=SC2086
  timeout "$(time_for "$1")" "$PYTHON" peers/peers.py "$kind" $peers \
    --steps "$STEPS" >"$d/peers" 2>"$d/err"
  case $? in
  0) ;;
  124) echo '  PyTorch: no time for all variants' ;;
  *) echo "  PyTorch: failed: $(tail -1 "$d/err")" ;;
  esac
  while read -r line; do
    echo "$line" >"$d/line"
    if grep -q '"ms"' "$d/line"; then
      row "$(number who "$d/line")" "$(number ms "$d/line")"
    else
      printf '  %-28s %s\n' "$(number who "$d/line")" "$(number error "$d/line")"
    fi
  done <"$d/peers"
}

# The case's rows as text and JSON. The ratio is of our fastest to the fastest of
# PyTorch's, of which not all have the update.
show() {
  awk -F '\t' -v name="$name" -v flop="$flop" -v peak="${peak:-0}" \
    -v json="$results" '
    { who[NR] = $1; ms[NR] = $2; share[NR] = $3
      if ($1 ~ /^moec/) { if (!own || $2 < own) own = $2 }
      else if (!best || $2 < best) { best = $2; peer = $1 } }
    END {
      for (i = 1; i <= NR; i++) {
        rate = flop / ms[i] / 1e9
        printf "  %-28s %10.3f ms", who[i], ms[i]
        if (flop > 0) printf " %8.1f TFLOP/s", rate
        if (flop > 0 && peak > 0) printf " %5.1f %% of a large product", 1e5 * rate / peak
        if (peak > 0 && share[i] > 0)
          printf ", %.0f %% of its limit", 100 * share[i]
        print ""
        printf "{\"case\": \"%s\", \"who\": \"%s\", \"ms\": %s, \"tflops\": %.3f}\n", \
          name, who[i], ms[i], rate >>json
      }
      if (own && best) {
        printf "  %.2f times the speed of %s\n", best / own, peer
        printf "{\"case\": \"%s\", \"ratio\": %.4f, \"to\": \"%s\"}\n", \
          name, best / own, peer >>json
      }
    }' "$d/rows"
}

echo
if has_torch; then torch=1; else
  torch=
  echo "skip     PyTorch is not on this machine ($PYTHON)"
fi
while IFS='|' read -r kind name model arguments peers flop <&3; do
  if [ $((LIMIT - SECONDS)) -lt 15 ]; then
    echo "$name: left out, no time"
    printf '{"case": "%s", "left_out": true}\n' "$name" >>"$results"
    continue
  fi
  echo "$name"
  : >"$d/rows"
  peak=''
  for library in models/"$model".so models/"$model".*.so; do
    if [ -e "$library" ] && suits "$library"; then ours "$library"; fi
  done
  [ ! "$torch" ] || theirs 45
  show
done 3<cases
