#!/bin/bash
# Collects what tests/gpu/run.sh needs on a machine with a GPU, which needs no
# compiler and no build there: the runtime with its libraries, models compiled
# for CPUs and GPUs, a text, and the losses that the CPU has got with them.
#
#   tests/gpu/bundle.sh OUT.tar.gz [--dry]
#
# --dry takes one tiny model, to see that the scripts work. The bundle must stay
# under 60 MB. BUILD=DIR is the build folder (default build).
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
LIMIT=60000000
[ $# -ge 1 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1 dry=${2:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
to=$dir/moec-gpu
mkdir -p "$to/bin" "$to/models" "$to/golden"

# ---- the runtime ---------------------------------------------------------------

# All libraries but those of the C library's own package.
cp "$BUILD/moerun" "$to/bin/"
ldd "$BUILD/moerun" | awk '$3 ~ /^\// { print $1, $3 }' |
  grep -vE '^(libc|libm|libdl|libpthread|librt)\.so' |
  while read -r name path; do cp -L "$path" "$to/bin/$name"; done
if [ ! "$dry" ]; then strip --strip-debug "$to"/bin/*; fi
cp tests/gpu/run.sh "$to/"
find models -name '*.dsl' | sort | xargs cat >"$to/text"

# ---- models --------------------------------------------------------------------

# model NAME FILE ARGUMENTS...: for any CPU with AVX2, and any GPU from sm_80 on.
model() {
  local name=$1 file=$2
  shift 2
  "$BUILD/moec" "$file" --mcpu=x86-64-v3 --target=cpu,cuda --arch=sm_80 "$@" \
    -o "$to/models/$name.so"
}

# Small ones, to be checked: gradients against the CPU there, losses against
# those of the CPU here.
checked() { # NAME FILE ARGUMENTS...
  local name=$1
  model "$@" --keep-grads
  "$to/bin/moerun" train "$to/models/$name.so" --device=cpu --threads 2 \
    --data "$to/text" --steps "$steps" --set lr=1e-3 --quiet \
    --log "$to/golden/$name.jsonl" >"$dir/line"
}
if [ "$dry" ]; then steps=3; else steps=20; fi
checked check-tiny models/tiny.dsl

# And large ones, to be measured.
for precision in f32 bf16; do
  [ ! "$dry" ] || break
  checked check-moe-$precision models/lm_moe.dsl -D V=256 -D D=32 -D N=8 -D K=2 \
    -D T=8 -D B=4 -D H=48 --precision=$precision
  for n in 32 256; do
    model bench-moe-$n-$precision models/lm_moe.dsl -D V=10000 -D N=$n \
      --precision=$precision
  done
done

# ---- one file ------------------------------------------------------------------

tar -C "$dir" -c moec-gpu | gzip ${dry:+-1} >"$out"
bytes=$(stat -c %s "$out")
echo "$out: $bytes bytes"
if [ "$bytes" -gt $LIMIT ]; then
  echo "bundle.sh: more than $LIMIT bytes" >&2
  exit 1
fi
