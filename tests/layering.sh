#!/bin/bash
# Each room includes only what the table of rooms allows: what stands before it.
set -u

allowed() { # FILE: patterns of what it may include, by path from the top
  case $1 in
  ir/*) echo 'ir/* runtime/dtypes.def' ;;
  frontend/main.c | frontend/plan_only.*) echo '*' ;;
  frontend/*) echo 'frontend/* ir/*' ;;
  passes/*) echo 'passes/* ir/*' ;;
  codegen/*) echo 'codegen/* ir/* runtime/moert.h runtime/dtypes.def' ;;
  runtime/*) echo 'runtime/*' ;;
  esac
}

# Headers of libraries belong to one room each.
library_room() {
  case $1 in
  llvm-c/*) echo codegen ;;
  *dnnl* | *cJSON* | omp.h) echo runtime ;;
  *) echo any ;;
  esac
}

room_ok() { # ROOM; prints what is wrong
  local f kind name path ok pattern
  while IFS=: read -r f kind name; do
    if [ "$kind" = system ]; then
      case $(library_room "$name") in
      any | "$1") ;;
      *) echo "$f includes <$name>" ;;
      esac
      continue
    fi
    path=$(realpath -m --relative-to=. "$(dirname "$f")/$name")
    ok=
    set -f
    for pattern in $(allowed "$f"); do
      # shellcheck disable=SC2254
      case $path in $pattern) ok=1 ;; esac
    done
    set +f
    [ "$ok" ] || echo "$f includes $path"
  done < <(grep -rHE '^ *# *include' "$1" --include=*.[chly] \
    --include=*.def |
    sed -E -e 's/: *# *include *"([^"]*)".*/:own:\1/' \
      -e 's/: *# *include *<([^>]*)>.*/:system:\1/')
}

status=0
for room in ir frontend passes codegen runtime; do
  wrong=$(room_ok $room | sort -u | paste -sd';')
  if [ "$wrong" ]; then
    echo "not ok layering of $room: $wrong"
    status=1
  else
    echo "ok layering of $room"
  fi
done
exit $status
