# Sourced by run.sh: models on several GPUs, as many as a machine has, a rank each.
# A library ranks-WAY.P.so is a small lm_moe for P ranks, which must have the losses
# of one rank; lm-ranks-WAY.P.so is a large one, to be measured.

# each_of KIND COMMAND...: the libraries for which there are GPUs, each with the
# number of its ranks.
each_of() {
  local kind=$1 so name ranks
  shift
  for so in models/"$kind"-*.[0-9]*.so; do
    name=$(basename "$so" .so)
    ranks=${name##*.}
    if [ "$ranks" -le "$gpus" ]; then
      "$@" "$name" "$ranks"
    else
      echo "skip     $name: it needs $ranks GPUs"
    fi
  done
}

ranks_agree() { # NAME RANKS
  check losses "$1" bash -c "losses $1 1e-4 -n $2"
}

ranks_measure() { # NAME RANKS
  if [ $((LIMIT - SECONDS)) -lt 15 ]; then
    echo "$1: left out, no time"
    printf '{"case": "%s", "left_out": true}\n' "$1" >>"$results"
  elif timeout "$(time_for 60)" "$moerun" -n "$2" bench "models/$1.so" \
    --device=cuda --steps "$STEPS" >"$d/bench" 2>"$d/err"; then
    printf '%-28s %10.3f ms, %d ranks\n' "$1" \
      "$(number step_ms "$d/bench")" "$2"
    sed "s/^{/{\"bench\": \"$1\", /" "$d/bench" >>"$results"
  else
    echo "$1: failed: $(tail -1 "$d/err")"
    status=1
  fi
}
