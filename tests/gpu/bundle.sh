#!/bin/bash
# Collects what tests/gpu/run.sh needs on a machine with a GPU, which needs no
# compiler and no build there: the runtime with its libraries, models compiled
# for CPUs and GPUs, a text, the losses that the CPU has got with them, and the
# same layers and models in PyTorch.
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
mkdir -p "$to/bin" "$to/models" "$to/golden" "$to/peers"

# ---- the runtime ---------------------------------------------------------------

# All libraries but those of the C library's own package.
cp "$BUILD/moerun" "$to/bin/"
ldd "$BUILD/moerun" | awk '$3 ~ /^\// { print $1, $3 }' |
  grep -vE '^(libc|libm|libdl|libpthread|librt)\.so' |
  while read -r name path; do cp -L "$path" "$to/bin/$name"; done
if [ ! "$dry" ]; then strip --strip-debug "$to"/bin/*; fi
cp tests/gpu/run.sh tests/gpu/ranks.sh tests/gpu/speed.sh "$to/"
cp tests/gpu/peers.py tests/bench/peers/lm_torch.py \
  tests/bench/peers/lm_moe_torch.py "$to/peers/"
find models -name '*.dsl' | sort | xargs cat >"$to/text"

# ---- models --------------------------------------------------------------------

# A model is NAME.so, for any GPU from sm_80 on. NAME.VARIANT.so is the same
# compiled in another way: sm_90a, for that GPU alone.

# model NAME FILE ARGUMENTS...
model() {
  local name=$1 file=$2
  shift 2
  "$BUILD/moec" "$file" "$@" --arch=sm_80 -o "$to/models/$name.so"
  case " $* " in *' --precision=bf16 '*)
    "$BUILD/moec" "$file" "$@" --arch=sm_90a -o "$to/models/$name.sm_90a.so" ;;
  esac
}

# golden NAME LIBRARY: the losses that the CPU here gets.
golden() {
  "$to/bin/moerun" train "$2" --device=cpu --threads 2 --data "$to/text" \
    --steps "$steps" --set lr=1e-3 --quiet --log "$to/golden/$1.jsonl" \
    >"$dir/line"
}

# Small ones, to be checked: gradients against the CPU there, whichever has
# AVX2, losses against those of the CPU here.
checked() { # NAME FILE ARGUMENTS...
  local name=$1
  model "$@" --keep-grads --mcpu=x86-64-v3 --target=cpu,cuda
  golden "$name" "$to/models/$name.so"
}
if [ "$dry" ]; then steps=3; else steps=20; fi
checked check-tiny models/tiny.dsl

for precision in f32 bf16; do
  [ ! "$dry" ] || break
  checked check-moe-$precision models/lm_moe.dsl -D V=256 -D D=32 -D N=8 -D K=2 \
    -D T=8 -D B=4 -D H=48 --precision=$precision
  checked check-loops-$precision models/lm_moe.dsl -D V=256 -D D=80 -D N=8 \
    -D K=2 -D T=24 -D B=20 -D H=48 --precision=$precision --scan=persistent
  checked check-transformer-$precision models/lm_transformer.dsl -D V=256 \
    -D D=128 -D HEADS=2 -D L=2 -D N=4 -D H=48 -D F=96 -D T=40 -D B=2 \
    --precision=$precision
done
# Of sizes at which products are made by warpgroups where there are any.
[ "$dry" ] || checked check-large-bf16 models/lm_moe.dsl -D V=256 -D D=512 \
  -D N=8 -D K=2 -D T=16 -D B=64 -D H=1024 --precision=bf16

# For several GPUs, a rank each: all rows that come, or a capacity, which has room
# for all where losses are compared.
ways() { # NAME RANKS CAPACITY ARGUMENTS...
  "$BUILD/moec" models/lm_moe.dsl "${@:4}" --target=cuda --arch=sm_80 \
    --mesh dev="$2" -o "$to/models/$1-dropless.$2.so"
  "$BUILD/moec" models/lm_moe.dsl "${@:4}" -D CAPACITY="$3" --target=cuda \
    --arch=sm_80 --mesh dev="$2" -o "$to/models/$1-capacity.$2.so"
}
small=(-D V=256 -D D=32 -D N=8 -D K=2 -D H=32 -D T=2 -D B=8)
if [ "$dry" ]; then counts=2; else counts='2 4 8'; fi
"$BUILD/moec" models/lm_moe.dsl "${small[@]}" --mcpu=x86-64-v3 --target=cpu \
  -o "$dir/one.so"
golden ranks-dropless "$dir/one.so"
cp "$to/golden/ranks-dropless.jsonl" "$to/golden/ranks-capacity.jsonl"
for count in $counts; do
  ways ranks "$count" 4.0 "${small[@]}"
  [ "$dry" ] || ways lm-ranks "$count" 1.25 -D N=32 -D V=10000 -D B=256 \
    --precision=bf16
done
[ ! "$dry" ] ||
  cp "$to/models/ranks-dropless.2.so" "$to/models/lm-ranks-dropless.2.so"

# ---- what is measured ----------------------------------------------------------

# Libraries and `cases`, see speed.sh, what is worth most first. The layers of
# experts are of the sizes that SonicMoE, ScatterMoE, MegaBlocks and others have
# been compared at, the LSTM is FlashRNN's, attention FlashAttention-3's.
measured() { # NAME FILE ARGUMENTS...
  model "$@" --target=cuda --precision=bf16
}
# KIND NAME MODEL ARGUMENTS PEERS FLOP
case_of() { (IFS='|'; echo "$*") >>"$to/cases"; }

moe() { # T D H E K ROUTINGS...
  local so=moe-$1-$2-$3-$4-$5 number
  local name="MoE layer, T=$1 d=$2 n=$3 E=$4 K=$5" flop=$((18 * $1 * $2 * $3 * $5))
  local sizes="--tokens $1 --width $2 --hidden $3 --experts $4 --k $5"
  measured "$so" tests/gpu/moe_layer.dsl -D T="$1" -D D="$2" -D H="$3" \
    -D E="$4" -D K="$5"
  for routing in "${@:6}"; do
    case $routing in router) number=0 ;; zipf) number=1 ;; one) number=2 ;; esac
    case_of moe "$name, $routing" "$so" "--set skew=$number" \
      "$sizes --routing $routing" "$flop"
  done
}
lstm() { # B T D: loops as one kernel each, and launch by launch
  local how
  for how in persistent graph; do
    measured lstm-$how tests/gpu/lstm_layer.dsl -D B="$1" -D T="$2" -D D="$3" \
      --scan=$how
    case_of lstm "LSTM, B=$1 T=$2 d=$3, $how" lstm-$how '' \
      "--batch $1 --tokens $2 --width $3" $((48 * $1 * $2 * $3 * $3))
  done
}
attention() { # B H T E CAUSAL
  local so=attention-$3-$5
  measured "$so" tests/bench/attention.dsl -D B="$1" -D H="$2" -D T="$3" \
    -D E="$4" -D CAUSAL="$5"
  case_of attention "attention, B=$1 H=$2 T=$3 e=$4 causal=$5" "$so" '' \
    "--batch $1 --heads $2 --tokens $3 --width $4 --causal $5" \
    $((14 * $1 * $2 * $3 * $3 * $4 / (1 + $5)))
}
lm() { # N D H V T B
  measured "lm-$1" models/lm_moe.dsl -D N="$1" -D D="$2" -D H="$3" -D V="$4" \
    -D T="$5" -D B="$6"
  case_of lm "lm_moe, N=$1" "lm-$1" '' "--experts $1 --k 4 --width $2 \
--hidden $3 --vocabulary $4 --tokens $5 --batch $6" 0
}

: >"$to/cases"
if [ "$dry" ]; then
  moe 32 16 16 4 2 zipf
  lstm 2 4 16
  lm 4 16 16 256 2 2
  attention 1 2 32 16 1
else
  moe 32768 4096 1024 64 4 router
  lm 32 512 1024 10000 32 64
  lm 256 512 1024 10000 32 64
  lstm 16 1024 768
  attention 1 16 16384 128 1
  attention 1 16 16384 128 0
  moe 24576 1536 1024 32 2 router zipf one
  moe 40960 768 256 128 8 router
  moe 24576 1536 256 128 8 router
  moe 32768 4096 256 256 16 router
  moe 32768 4096 2048 64 4 router
fi

# ---- one file ------------------------------------------------------------------

tar -C "$dir" -c moec-gpu | gzip ${dry:+-1} >"$out"
bytes=$(stat -c %s "$out")
echo "$out: $bytes bytes"
if [ "$bytes" -gt $LIMIT ]; then
  echo "bundle.sh: more than $LIMIT bytes" >&2
  exit 1
fi
