#!/bin/bash
# The gate of lm_moe at full size, after fuse: forward it is at most one
# contraction and three launches. A launch over columns has two stages and
# counts as two. What counts is work on tokens: what comes after the sums over
# them, some numbers an expert, joins launches that other things need in train,
# and numbers of the backward pass join these.
# Cheap ops that the backward pass computes again are part of its launches. And
# every gate in bf16.
set -u
text=$(mktemp)
trap 'rm -f "$text"' EXIT
status=0

count() { # ENTRY: contractions and launches with gate work of theirs
  awk -v entry="@$1(" '
    function close_launch() {
      if (gate && !backward && fused) launches += stages
      if (gate && !backward && !fused) contractions++
      gate = backward = 0
    }
    /^entry / { close_launch(); inside = index($0, entry) > 0 }
    !inside { next }
    /^  %/ { close_launch(); fused = / = fused /; stages = /kind="cols"/ ? 2 : 1 }
    /\[64, 32[,\]].* backward/ { backward = 1 }
    /^ +%.*\[64, 32[,\]].* layer\("lm\/moe\/gate["\/]/ && !/remat\(/ { gate = 1 }
    END { print contractions + 0, launches + 0 }' "$text"
}

"$MOEC" models/lm_moe.dsl --stop-after=fuse -o - >"$text" || status=1
for entry in train eval; do
  read -r contractions launches < <(count $entry)
  name="the gate of $entry"
  if [ "$contractions" = 1 ] && [ "$launches" = 3 ]; then
    echo "ok $name: one contraction, three launches"
  else
    echo "not ok $name: $contractions contractions, $launches launches"
    status=1
  fi
done

# Gates choose in f32 where the model is in bf16: those of models/README.md, and
# of two levels.
small=(-D V=64 -D D=64 -D N=8 -D K=2 -D H=64 -D B=8 --precision=bf16)
gates=$(sed -n 's/^| `\([a-z_]*\)` | `[a-z_]*`.*/\1/p' models/README.md)
for gate in $gates two_levels; do
  consts=(-D "GATE=$gate")
  [ "$gate" = two_levels ] && consts=(-D A=4)
  "$MOEC" models/lm_moe.dsl "${small[@]}" "${consts[@]}" --dump=precision \
    >"$text" || status=1
  chosen=$(grep -c 'layer("lm/moe/gate["/]' "$text")
  narrow=$(grep 'layer("lm/moe/gate["/]' "$text" | grep -c bf16)
  if [ "$chosen" -gt 0 ] && [ "$narrow" = 0 ] && grep -q bf16 "$text"; then
    echo "ok the gate $gate chooses in f32"
  else
    echo "not ok the gate $gate chooses in f32: $narrow of $chosen in bf16"
    status=1
  fi
done
[ "$(wc -w <<<"$gates")" = 15 ] || { echo "not ok gates: $gates"; status=1; }
exit $status
