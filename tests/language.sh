#!/bin/bash
# Every ```dsl example of the language's page compiles to IR that verifies.
set -u
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
awk -v d="$d" '/^```dsl$/ { n++; f = sprintf("%s/%02d.dsl", d, n); at = FNR; next }
               /^```$/ { f = ""; next }
               f { if (!(f in seen)) { seen[f] = 1; print at > (f ".line") }
                   print > f }' frontend/LANGUAGE.md
status=0
for f in "$d"/*.dsl; do
  name="example at LANGUAGE.md:$(cat "$f.line")"
  if "$MOEC" "$f" --stop-after=frontend >"$d/out" 2>"$d/err" && [ ! -s "$d/err" ]
  then
    echo "ok $name"
  else
    echo "not ok $name: $(head -1 "$d/err")"
    status=1
  fi
done
exit $status
