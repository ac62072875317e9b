#!/bin/bash
# Few rows an expert: what asks for the next weights is worked out before a
# kernel's loop, which asks for a line in each row of depth and only steps.
source tests/checks.bash

# A layer of 4 experts and back, WIDTH to HIDDEN.
layer() { # WIDTH HIDDEN
  sed "s/WIDTH/$1/g; s/HIDDEN/$2/g" <<'END'
moec-ir 1

entry @f(%x: f32[8, WIDTH] = input "x", %w: f32[4, WIDTH, HIDDEN] = input "w",
    %ids: i32[8, 1] = input "ids") {
  %o, %slot, %src = route %ids {experts=4} : i32[5], i32[8, 1], i32[8]
  %r = rows_gather %x, %src, %o {choices=1} : f32[4, r<=8, WIDTH]
  %h = contract %r, %w, %o {map="nrd,ndh->nrh"} : f32[4, r<=8, HIDDEN]
  %d = contract %h, %w, %o {map="nrh,ndh->nrd"} : f32[4, r<=8, WIDTH]
  %ds = reduce_sum %d {map="nrd->d"} : f32[WIDTH]
  return probe "d" = %ds
}
END
}
loops() { # NAME WIDTH HIDDEN
  layer "$2" "$3" >"$d/$1.ir"
  "$MOEC" --from=simplify "$d/$1.ir" --target=cpu --mcpu=x86-64-v4 \
    --emit=loops -o "$d/$1"
}
# work NAME NUMBER...: how much more than steps each loop that asks has in it.
work() {
  local name=$1
  shift
  awk '/ for / { n = 0 }
    / = (div|rem|min|max|select) [^ ]+, [^ ]+ : index/ { n++ }
    / fetch far / { print n }' "$d/$name" | tr '\n' ' ' | grep -x "$* "
}

expect 'rows one behind the other' loops near 64 96
expect 'there loops only step' work near 0 0 0 0 0 0
expect 'rows longer than a part' loops far 64 1200
expect 'in place loops only step, in a panel from row to row' \
  work far 0 0 0 1 1 1
exit $status
