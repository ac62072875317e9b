#!/bin/bash
# Runs one fuzzer: tests/fuzz/run.sh BUILD dsl|ir [libFuzzer's arguments...]
#
# It starts from tests/fuzz/corpus and from the golden tests; what it discovers
# stays in BUILD/found-*, inputs that fail in BUILD/failing-*.
set -u
cd "$(dirname "$0")/../.." || exit 2
build=$1 target=$2
shift 2
found=$build/found-$target seeds=$build/seeds-$target
mkdir -p "$found" "$seeds"
cp tests/fuzz/corpus/"$target"/* "$seeds"/
case $target in
ir) find tests -name '*.ir' ;;
dsl) find tests -name '*.dsl' ;;
esac | grep -v '^tests/fuzz/' | while read -r f; do
  cp "$f" "$seeds/$(echo "$f" | tr / -)"
done
# A model that stands alone: the libraries and a small model in one text.
if [ "$target" = dsl ]; then
  cat models/lib/*.dsl models/lm_moe.dsl |
    sed -E -e '/^import/d' -e 's/^const (V|D|N|H|T|B) *=.*/const \1 = 4/' \
      -e 's/^const K *=.*/const K = 2/' >"$seeds/lm_moe"
fi
# Words that mutations may put in.
case $target in
ir) sed -nE 's/^OP\(([a-z0-9_]+),.*/\1/p' ir/ops.def ;;
dsl) grep -ohE '[a-z_]{2,}' models/*.dsl models/lib/*.dsl ;;
esac | sort -u | sed 's/.*/"&"/' >"$build/$target.dict"
exec "$build/fuzz_$target" -timeout=20 -rss_limit_mb=4096 -max_len=16384 \
  -dict="$build/$target.dict" -artifact_prefix="$build/failing-$target-" "$@" "$found" "$seeds"
