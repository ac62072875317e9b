#!/bin/bash
# not under the sanitizers: fuzzers and golden files read and print there
# Two laws for each model after each stage: its text, read and printed, is the
# same text; and the passes that remain, started from the text, end at the same
# plan, names of values apart. Models shrink to the sizes below.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
sizes='V=16 D=8 N=4 K=2 H=12 T=3 B=4 WARMUP=10 HEADS=2 F=12'
status=0

bad() { # NAME WHY [FILE]
  echo "not ok $1: $2"
  [ $# = 2 ] || head -20 "$3" >&2
  status=1
}

stages() { "$MOEC" --help | sed -n '/^Stages/,/^$/p' | tail -n +2 | tr -d ' \n' |
  tr ',' ' '; }

# Values by order of appearance: names that clash are numbered when they print, so
# they may come out otherwise once others are gone.
unnamed() {
  awk '/^entry / { split("", number); n = 0 }
       { line = ""
         while (match($0, /%[A-Za-z0-9_.]+/)) {
           name = substr($0, RSTART, RLENGTH)
           if (!(name in number)) number[name] = ++n
           line = line substr($0, 1, RSTART - 1) "%" number[name]
           $0 = substr($0, RSTART + RLENGTH) }
         print line $0 }' "$1"
}

check_stage() { # MODEL TEXT NEXT-STAGE
  local name text=$2 next=$3 flags=("${options[@]:1}")
  name="$1 after $(basename "$text" .ir | cut -d- -f2-)"
  "$MOEC" "$text" --dump=frontend >"$d/again" 2>"$d/err" ||
    { bad "$name" "cannot be read" "$d/err"; return; }
  diff "$text" "$d/again" >"$d/diff" ||
    { bad "$name" "prints otherwise once read" "$d/diff"; return; }
  case " ${rest[*]} " in *' precision '*) flags+=(--precision="$precision") ;; esac
  if [ "$next" != codegen ]; then
    "$MOEC" "$text" --from="$next" "${flags[@]}" --stop-after=plan >"$d/planned" 2>"$d/err" ||
      { bad "$name" "cannot go on with $next" "$d/err"; return; }
    diff <(unnamed "$d"/dump/*-plan.ir) <(unnamed "$d/planned") >"$d/diff" ||
      { bad "$name" "goes on to another plan" "$d/diff"; return; }
  fi
  echo "ok $name"
}

# MODEL:PRECISION:OPTIONS, the latter for all stages as well
for run in models/*.dsl models/lm_moe.dsl:bf16 \
  'models/lm_moe.dsl::--mesh=dev=2 --expert-rows=1'; do
  IFS=: read -r model precision options <<<"$run"
  precision=${precision:-f32}
  read -ra options <<<"$options"
  defines=()
  for size in $sizes; do
    grep -q "^const ${size%=*} *=" "$model" && defines+=(-D "$size")
  done
  rm -rf "$d/dump"
  if ! "$MOEC" "$model" "${defines[@]}" --precision=$precision \
    "${options[@]}" --dump=all --dump-dir="$d/dump" \
    2>"$d/err"; then
    bad "$model" "does not compile" "$d/err"
    continue
  fi
  read -ra rest < <(stages)
  for text in "$d"/dump/*.ir; do
    rest=("${rest[@]:1}")
    check_stage "$run" "$text" "${rest[0]}"
  done
done
exit $status
