# For tests of programs: $d, a folder that goes away at the end; what to exit
# with, in $status; checks that print a line each.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
status=0

# field KEY FILE: the numbers behind a key of JSON lines, a line each.
field() { grep -o "\"$1\": [^,}]*" "$2" | sed 's/.*: //'; }
# near A B [MOST]: two files of numbers agree, line by line.
near() {
  awk -v other="$2" -v most="${3:-1e-4}" '{ if ((getline y < other) <= 0) bad = 1; n++
    e = $1 > y ? $1 - y : y - $1; if (!(e <= most * ($1 < 0 ? -$1 : $1))) bad = 1 }
    END { exit bad || !n || (getline y < other) > 0 }' "$1"
}

# dictionary SOURCE TARGET: 600 sentences of 12 words, and what they are word by
# word in another language.
dictionary() {
  awk -v s="$1" -v t="$2" 'BEGIN { x = 7
    for (i = 0; i < 600; i++) {
      a = b = ""; x = x * 69069 % 4294967296; n = 1 + int(x / 65536) % 6
      for (k = 0; k < n; k++) {
        x = x * 69069 % 4294967296; w = int(x / 65536) % 12
        a = a (k ? " " : "") sprintf("%c%c", 97 + w, 97 + w)
        b = b (k ? " " : "") sprintf("%c", 65 + w)
      }
      print a > s; print b > t
    } }'
}

expect() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$d/said" 2>&1; then
    echo "ok $name"
  else
    echo "not ok $name: $*: $(tail -3 "$d/said" | tr '\n' '|')"
    status=1
  fi
}

# run NAME STATUS PATTERN COMMAND...: the exit status, and a pattern in what it
# prints; that is left in $d/out and $d/err.
run() {
  local name=$1 want=$2 pattern=$3 got
  shift 3
  "$@" >"$d/out" 2>"$d/err"
  got=$?
  if [ $got != "$want" ]; then
    echo "not ok $name: exit status $got, not $want: $(tail -1 "$d/err")"
    status=1
  elif [ "$pattern" ] && ! cat "$d/out" "$d/err" | grep -q -e "$pattern"; then
    echo "not ok $name: '$(tail -1 "$d/err")' lacks '$pattern'"
    status=1
  else
    echo "ok $name"
  fi
}
