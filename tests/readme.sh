#!/bin/bash
# What README.md shows is what comes out: each "$ moec ..." block's lines occur in
# the output of its command, in that order. "..." stands for lines left out; the
# numbers of unnamed values and offsets may differ.
set -u
status=0
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT

plain() { sed -E -e 's/^ +//' -e 's/%[0-9]+/%_/g' -e 's/arena\[[0-9]+/arena[_/g' "$1"; }

check() { # COMMAND; the lines are in $d/lines
  local command=${1#moec }
  # shellcheck disable=SC2086
  "$MOEC" $command --mcpu=x86-64-v4 >"$d/out" 2>"$d/err"
  plain "$d/out" >"$d/have"
  if missing=$(plain "$d/lines" | awk '
    NR == FNR { have[++n] = $0; next }
    $0 == "..." { next }
    { while (at < n && have[++at] != $0) ;
      if (have[at] != $0) { print; exit 1 } }' "$d/have" -); then
    echo "ok README: $1"
  else
    echo "not ok README: $1: this line does not come: $missing"
    status=1
  fi
}

command=
: >"$d/lines"
while IFS= read -r line; do
  case $line in
  '    $ moec '*) command=${line#*$ } ;;
  '    '*) [ "$command" ] && printf '%s\n' "$line" >>"$d/lines" ;;
  *) [ "$command" ] && [ -s "$d/lines" ] && check "$command"
    command=
    : >"$d/lines" ;;
  esac
done <README.md
exit $status
