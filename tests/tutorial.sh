#!/bin/bash
# not under the sanitizers: it takes long, and models like it are tested
# The commands of models/TUTORIAL.md run, in order, beside the file that it shows;
# those that are said to fail do, with the message that follows them.
set -u
status=0
root=$PWD
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
awk '/^```dsl$/ { on = 1; next } /^```$/ { on = 0 } on' models/TUTORIAL.md \
  >"$d/relu_lm.dsl"
ln -s "$root/models" "$d/models"
cp README.md "$d"
export OMP_NUM_THREADS=2
moec() { "$MOEC" --target=cpu "$@"; }
moerun() { "$MOERUN" "$@"; }

run() { # COMMAND [MESSAGE]: fails with the message, or not at all
  local got want=0
  [ $# = 2 ] && want=1
  (cd "$d" && eval "$1") >"$d/out" 2>&1
  got=$?
  if [ $got = $want ] && { [ $# = 1 ] || grep -qF "$2" "$d/out"; }; then
    echo "ok tutorial: $1"
  else
    echo "not ok tutorial: $1: status $got, $(tail -2 "$d/out" | tr '\n' '|')"
    status=1
  fi
}

n=0
command=
while IFS= read -r line; do
  case $line in
  '    $ '*'# fails') command=${line#*$ } ;;
  '    $ '*) run "${line#*$ }" ;;
  '    '*) [ "$command" ] && run "$command" "${line#    }"
    command= ;;
  esac
  case $line in '    $ '*) n=$((n + 1)) ;; esac
done <models/TUTORIAL.md
if [ $n -ge 9 ]; then echo "ok tutorial has its commands"; else
  echo "not ok tutorial has its commands: $n"
  status=1
fi
exit $status
