#!/bin/bash
# The FLOPs of a step: each product counts once, however often passes have it
# computed, for the number that is told and for the limit of a step.
set -u
status=0
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT

check() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then
    echo "ok flops: $1"
  else
    echo "not ok flops: $1: $3, not $2"
    status=1
  fi
}

flops() { # FILE.ir STAGE: of its entry, and contractions of the plan
  "$MOEC" --target=cpu \
    --from="$2" "$1" -o "$d/x.so" && "$MOERUN" info "$d/x.so" |
    sed -n 's/^entry .*, \(.*FLOP\) a step.*/\1/p'
  "$MOERUN" info "$d/x.so" --ir plan | grep -c ' contract '
}

# A gradient for the sum of its elements' sizes, and again for the update.
check 'computed again for an update' '524.3 kFLOP 2' \
  "$(echo $(flops tests/pass/remake/scaled.ir remake))"

cat >"$d/remat.ir" <<'EOF'
moec-ir 1
entry @train(%x: f32[40, 32] = input "x", %w: f32[32, 64] = input "w") {
  %h = contract %x, %w {map="td,dh->th"} : f32[40, 64] remat(1)
  %a = mul %h, %h : f32[40, 64] remat(1)
  %s = reduce_sum %a {map="th->"} : f32[]
  %g = contract %a, %w {map="th,dh->td"} : f32[40, 32] backward
  %m = contract %x, %g {map="td,te->de"} : f32[32, 32] backward
  return report "s" = %s, probe "g" = %g, probe "m" = %m
}
EOF
check 'computed again for the backward part' '409.6 kFLOP 4' \
  "$(echo $(flops "$d/remat.ir" recompute))"

# Products at the measured rate, and that rate, give the FLOPs of the limit. Of
# this model -O2 sums the squares of gradients without them.
for level in 0 2; do
  "$MOEC" --target=cpu \
    models/lm_moe.dsl -D N=64 -D D=32 -D H=128 -D T=4 -D B=8 -D V=300 \
    -O$level -o "$d/lm.so" || status=1
  "$MOERUN" bench "$d/lm.so" --steps 1 --roofline >"$d/$level.json" || status=1
  tr -d '{}",:' <"$d/$level.json" | tr ' ' '\n' |
    awk 'last == "products_ms" { ms = $1 }
      last == "peak_gflops_f32" { rate = $1 }
      { last = $1 } END { printf "%.2f\n", ms * rate }' >"$d/$level"
done
check 'of the limit, fused or not' 12.07 "$(cat "$d/0")"
check 'of the limit at -O2' 12.07 "$(cat "$d/2")"
check 'squares without gradients' 2 \
  "$("$MOERUN" info "$d/lm.so" --ir plan | grep -c ' square_sum ')"
exit $status
