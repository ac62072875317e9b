#!/bin/bash
# Runs the tests of a build: golden files, unit programs, shell tests.
#
#   tests/run.sh [WORD...]     all tests, or those whose path has one of the words
#
#   BUILD=DIR    the build folder (default build)
#   BLESS=1      rewrite the expectations of golden files to what comes out
#   JOBS=N       how many at a time (default: the processors)
#
# A golden file is a .ir or .dsl file under tests/ whose first line is
#   # test: <arguments of moec>           %s is the file, %t a scratch path
# It may say what to expect of the IR that comes out, by op:
#   # count: contract 3, scan 1
# and it ends with the expected text, each line behind "# ":
#   # >>> out       (standard output; not compared when there is no such block)
#   # >>> err       (standard error; nothing is expected when there is none)
#   # <<<           (ends each of the two)
#   # >>> exit 1    (exit status, 0 when not given)
# Unit programs (tests/unit/*.c) and shell tests (tests/*.sh) print a line a case:
# "ok NAME", "not ok NAME: why" or "skip NAME: why"; they see MOEC, MOERUN, BUILD.
# A shell test with a line "# not under the sanitizers: WHY" is skipped there.
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
export BUILD MOEC=$BUILD/moec MOERUN=$BUILD/moerun BLESS=${BLESS:-}
export LC_ALL=C TEST_TIMEOUT=${TEST_TIMEOUT:-600}
# Idle threads leave the cores to the tests beside them.
export OMP_WAIT_POLICY=passive
# What is freed is kept for a while, to find who reads it after; more than this
# costs a fifth of the time, for pages that are new to the caches.
export ASAN_OPTIONS=quarantine_size_mb=16${ASAN_OPTIONS:+:$ASAN_OPTIONS}

# ---- one test; its lines go to standard output -------------------------------

# Splits a golden file's expectations into $2/want.{out,err,exit,counts}.
expectations() {
  awk -v d="$2" '
    /^# count: / { print substr($0, 10) > (d "/want.counts") }
    /^# >>> exit / { print $4 > (d "/want.exit"); next }
    /^# >>> (out|err)$/ { to = d "/want." $3; printf "" > to; next }
    /^# <<<$/ { to = ""; next }
    to { print substr($0, 3) > to }' "$1"
}

# Rewrites the expectations of $1 from what is in $2.
bless() {
  awk '/^# >>> exit / { next } /^# >>> (out|err)$/ { skip = 1 }
       !skip { print } /^# <<<$/ { skip = 0 }' "$1" |
    sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$2/new"
  local out='' err=''
  if [ -e "$2/want.out" ] || { [ ! -e "$2/want.counts" ] && [ -s "$2/out" ]; }
  then out=1; fi
  if [ -s "$2/err" ]; then err=1; fi
  if [ "$out$err" ] || [ "$3" != 0 ]; then echo >>"$2/new"; fi
  for stream in ${out:+out} ${err:+err}; do
    { echo "# >>> $stream"; sed -e 's/^/# /' -e 's/ $//' "$2/$stream"
      echo "# <<<"; } >>"$2/new"
  done
  if [ "$3" != 0 ]; then echo "# >>> exit $3" >>"$2/new"; fi
  cmp -s "$1" "$2/new" || cp "$2/new" "$1"
}

# Compares a stream with its block; blank lines may have lost a trailing space.
differs() {
  diff -u --label expected --label got <(sed 's/ $//' "$1") \
    <(sed 's/ $//' "$2")
}

golden() {
  local f=$1 d line status want why='' name n got
  d=$(mktemp -d "$SCRATCH/golden.XXXXXX")
  IFS= read -r line <"$f"
  line=${line#\# test: }
  line=${line//%s/$f}
  line=${line//%t/$d/t}
  eval "timeout $TEST_TIMEOUT \"\$MOEC\" $line" >"$d/out" 2>"$d/err" </dev/null
  status=$?
  expectations "$f" "$d"
  if [ "$BLESS" ]; then
    bless "$f" "$d" $status
    echo "ok $f"
    return
  fi
  [ -e "$d/want.exit" ] && want=$(<"$d/want.exit") || want=0
  [ "$status" = "$want" ] || why+=" exit status $status, not $want;"
  [ -e "$d/want.err" ] || : >"$d/want.err"
  differs "$d/want.err" "$d/err" >"$d/diff" || why+=" standard error differs;"
  if [ -e "$d/want.out" ]; then
    differs "$d/want.out" "$d/out" >>"$d/diff" || why+=" output differs;"
  fi
  if [ -e "$d/want.counts" ]; then
    while read -r name n; do
      got=$(grep -cE "= $name( |\$)" "$d/out")
      [ "$got" = "$n" ] || why+=" $name occurs $got times, not $n;"
    done < <(tr ',' '\n' <"$d/want.counts")
  fi
  if [ "$why" ]; then
    echo "not ok $f:${why%;}"
    sed 's/^/    /' "$d/diff" | head -60
  else
    echo "ok $f"
  fi
}

# Whether a shell test says that it takes too long under the sanitizers.
left_out() {
  local why
  why=$(sed -n 's/^# not under the sanitizers: //p' "$1" 2>/dev/null)
  [ "$why" ] && grep -q __asan_init "$MOERUN" &&
    echo "skip $1: under the sanitizers, $why"
}

# A program or a shell test: its own lines, and one more when it ends badly.
program() {
  local status name=${*: -1}
  name=${name#"$BUILD/"}
  if left_out "$name"; then return; fi
  timeout "$TEST_TIMEOUT" "$@" >"$SCRATCH/$$.lines" 2>"$SCRATCH/$$.err" \
    </dev/null
  status=$?
  cat "$SCRATCH/$$.lines"
  grep -q '^not ok' "$SCRATCH/$$.lines"
  case $status,$? in
  0,1) grep -qE '^(ok|skip) ' "$SCRATCH/$$.lines" ||
    echo "not ok $name: it tested nothing" ;;
  124,*) echo "not ok $name: still running after $TEST_TIMEOUT s" ;;
  0,0) ;;
  *,0) sed 's/^/    /' "$SCRATCH/$$.err" | tail -20 ;;
  *) echo "not ok $name: exit status $status"
    sed 's/^/    /' "$SCRATCH/$$.err" | tail -20 ;;
  esac
}

one() {
  case $1 in
  *.ir | *.dsl) golden "$1" ;;
  *.sh) program bash "$1" ;;
  *) program "$BUILD/unit/$(basename "$1" .c)" ;;
  esac
}

if [ "${1:-}" = --one ]; then
  one "$2" >"$SCRATCH/result.$$"
  mv "$SCRATCH/result.$$" "$SCRATCH/done.$$"
  exit 0
fi

# ---- all of them ----------------------------------------------------------------

SCRATCH=$(mktemp -d)
export SCRATCH
trap 'rm -rf "$SCRATCH"' EXIT

# Long ones first, so that they do not run alone at the end.
list() {
  tac "$BUILD/unit/LIST" | sed -n 's|..*|tests/unit/&.c|p'
  for t in tests/*.sh; do
    [ "$t" = tests/run.sh ] || echo "$t"
  done
  find tests -name '*.ir' -o -name '*.dsl' | sort |
    xargs -r awk 'FNR == 1 && /^# test: / { print FILENAME }'
}

chosen() {
  while read -r t; do
    [ $# = 0 ] && echo "$t"
    for word; do
      case $t in *"$word"*) echo "$t"; break ;; esac
    done
  done
}

list | chosen "$@" |
  xargs -r -P "${JOBS:-$(nproc)}" -n 1 bash tests/run.sh --one

cat "$SCRATCH"/done.* >"$SCRATCH/all" 2>/dev/null
grep -A60 '^not ok' "$SCRATCH/all" | grep -E '^(not ok|    )'
grep '^skip ' "$SCRATCH/all"
passed=$(grep -c '^ok ' "$SCRATCH/all")
failed=$(grep -c '^not ok ' "$SCRATCH/all")
skipped=$(grep -c '^skip ' "$SCRATCH/all")
echo
echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped")"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
