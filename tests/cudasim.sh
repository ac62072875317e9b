#!/bin/bash
# The PTX of tests/cudasim is PTX: NVIDIA's assembler takes it, where there is
# one. Files that must not load are not for it.
set -u
ptxas=$(command -v ptxas || echo /usr/local/cuda/bin/ptxas)
[ -x "$ptxas" ] || {
  echo "skip cudasim ptxas: there is no ptxas here"
  exit 0
}
status=0
for f in tests/cudasim/*.ptx; do
  case $f in */bad_*) continue ;; esac
  arch=$(sed -n 's/^\.target //p' "$f")
  if why=$("$ptxas" -arch="$arch" -o /dev/null "$f" 2>&1); then
    echo "ok $f assembles"
  else
    echo "not ok $f assembles: $(head -1 <<<"$why")"
    status=1
  fi
done
exit $status
