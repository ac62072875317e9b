#!/bin/bash
# moec and its peers on this machine's cores, in one run.
#
#   tests/bench/cpu.sh [--only CASE,...] [--peers torch,jax|none] [--quick]
#                      [--threads N] [--rounds N] [--python PATH] [--report]
#                      [--dry]
#
# Cases: moe-8 moe-32 moe-256 (lm_moe.dsl with so many experts), 4lstm, wide;
# all at V=10000, D=512, H=1024 (wide: 4096), K=4, T=32, B=64, in f32 and bf16.
# Every engine trains: forward, backward, gradient norm, Adam. They take turns,
# a few steps each, round by round; what counts is the median over the rounds.
# A variant of a peer that is 1.3 times slower than the best of its precision
# in the first round is left out of the others.
#
# One line of JSON a result goes to standard output, tables to standard error.
# Samples stay in build/bench/: --report tells them again without measuring, and
# a run of one case leaves those of the others. --dry takes tiny models, one
# step and no peers, to see that the script works.
#
# The limit of a step (runtime/moerun_profile.c) is the larger of
#   products  all FLOPs of the step table, forward and backward, each product
#             once, each dtype at the rate that products of that dtype keep up
#   memory    at the rate of a large copy: 12 bytes a parameter read and 12
#             written (parameter and both moments of Adam), and each weight once
#             more for the forward pass, 4 bytes in f32 and 2 in bf16
# with both rates (runtime/peaks.c) measured in every round; medians count, as
# of the steps.
#
# Peers need a Python that has them. This makes one, with the network:
#   python3 -m venv build/peers/venv
#   build/peers/venv/bin/pip install numpy jax torch
# and torch.compile needs a C++ compiler: apt-get install g++
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
work=$BUILD/bench
all_cases='moe-8 moe-32 moe-256 4lstm wide'
cases=$all_cases peers='torch jax' rounds=3 steps=6 peer_steps=3
threads=$(nproc) python=$BUILD/peers/venv/bin/python measure=yes sizes=

usage() {
  echo "cpu.sh: $1" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
  --only | --peers | --threads | --rounds | --python)
    [ $# -gt 1 ] || usage "$1 needs a value" ;;&
  --only) cases=${2//,/ } && shift ;;
  --peers) peers=${2//,/ } && shift ;;
  --threads) threads=$2 && shift ;;
  --rounds) rounds=$2 && shift ;;
  --python) python=$2 && shift ;;
  --quick) rounds=1 steps=3 peer_steps=2 ;;
  --report) measure= ;;
  --dry) peers=none rounds=1 steps=1 work=$BUILD/bench-dry
    sizes='-D V=32 -D D=16 -D T=4 -D B=4' ;;
  --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit ;;
  *) usage "unknown argument '$1'; --help tells more" ;;
  esac
  shift
done
[ "$peers" != none ] || peers=
for c in $cases; do
  [[ " $all_cases " == *" $c "* ]] || usage "no case '$c': $all_cases"
done
for p in $peers; do
  [ -e "tests/bench/peers/lm_$p.py" ] || usage "no peer '$p': torch, jax"
done

say() { printf '%s\n' "$*" >&2; }
mkdir -p "$work"

# ---- what a case is ---------------------------------------------------------

model_of() { # CASE: the model's file and moec's options
  case $1 in
  moe-*) echo "models/lm_moe.dsl -D V=10000 -D N=${1#moe-}" ;;
  4lstm) echo "models/lm_4lstm.dsl -D V=10000" ;;
  wide) echo "models/lm_wide.dsl -D V=10000" ;;
  esac
}

peer_model_of() { # CASE: the same in a peer's options
  case $1 in
  moe-*) echo "--model moe --experts ${1#moe-}" ;;
  4lstm) echo "--model lstm --layers 4" ;;
  wide) echo "--model wide --hidden 4096" ;;
  esac
}

# ---- samples ----------------------------------------------------------------

# A line of $work/CASE.samples: precision, engine, variant, ms a step, and of
# moec the limit in ms, products and memory. Blanks in names are '-'.
field() { # KEY JSON
  sed -nE "s/.*\"$1\": ([0-9.e+-]+).*/\1/p" <<<"$2"
}

sample_moec() { # CASE PRECISION
  local json
  json=$("$BUILD/moerun" bench "$work/$1-$2.so" --steps "$steps" \
    --threads "$threads" --roofline)
  echo "$2 moec - $(field step_ms "$json") $(field limit_ms "$json")" \
    "$(field products_ms "$json") $(field memory_ms "$json")" \
    >>"$work/$1.samples"
}

# ---- peers: one process each, asked through pipes ---------------------------

declare -A to from pid engine live

start_peer() { # PEER CASE
  local p=$1 reply
  rm -f "$work/$p.in" "$work/$p.out"
  mkfifo "$work/$p.in" "$work/$p.out"
  # Large blocks are kept and lie on huge pages: the peers allocate anew in
  # every step, and are up to a third faster so.
  # shellcheck disable=SC2046
  MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    TORCHINDUCTOR_CACHE_DIR=$PWD/$work/inductor \
    "$python" "tests/bench/peers/lm_$p.py" $(peer_model_of "$2") \
    --threads "$threads" <"$work/$p.in" >"$work/$p.out" 2>"$work/$p.log" &
  pid[$p]=$!
  exec {fd}>"$work/$p.in"
  to[$p]=$fd
  exec {fd}<"$work/$p.out"
  from[$p]=$fd
  reply=$(ask "$p" list)
  engine[$p]=$(sed -nE 's/.*"engine": "([^"]*)".*/\1/p' <<<"$reply" | tr ' ' -)
  live[$p]=$(sed -E 's/.*\[(.*)\].*/\1/; s/[",]/ /g' <<<"$reply")
}

ask() { # PEER REQUEST
  local reply
  echo "$2" >&"${to[$1]}"
  if ! read -r reply <&"${from[$1]}"; then
    say "$1 has ended: $(tail -1 "$work/$1.log")"
    exit 1
  fi
  echo "$reply"
}

stop_peer() {
  local in=${to[$1]} out=${from[$1]}
  kill "${pid[$1]}" 2>/dev/null || true
  wait "${pid[$1]}" || true
  exec {in}>&- {out}<&-
  unset "pid[$1]"
}
stop_all() {
  local p
  for p in "${!pid[@]}"; do stop_peer "$p"; done
}
trap stop_all EXIT

sample_peer() { # CASE PEER: every variant that is still in
  local v reply ms left=
  for v in ${live[$2]}; do
    reply=$(ask "$2" "$v $peer_steps")
    ms=$(awk -F'[][,]' '/seconds/ {
      for (i = 2; $i ~ /^ *[0-9]/; i++) sum += $i
      print 1e3 * sum / (i - 2) }' <<<"$reply")
    if [ "$ms" ]; then
      echo "${v##*-} ${engine[$2]} ${v%-*} $ms" >>"$work/$1.samples"
      left+=" $v"
    else
      say "$1: ${engine[$2]}, $v: $(sed -E 's/.*"error": "(.*)".*/\1/' <<<"$reply")"
    fi
  done
  live[$2]=$left
}

# The variants of a peer that may still become the best of their precision.
keep_fast() { # CASE PEER
  local v left=
  for v in ${live[$2]}; do
    awk -v engine="${engine[$2]}" -v variant="${v%-*}" -v precision="${v##*-}" '
      $1 != precision || $2 == "moec" { next }
      !best || $4 < best { best = $4 }
      $2 == engine && $3 == variant { own = $4 }
      END { exit own > 1.3 * best }' "$work/$1.samples" && left+=" $v"
  done
  live[$2]=$left
}

# ---- measuring --------------------------------------------------------------

run_case() {
  local p precision round
  for precision in f32 bf16; do
    # shellcheck disable=SC2046
    "$BUILD/moec" --target=cpu $(model_of "$1") $sizes --precision=$precision \
      -o "$work/$1-$precision.so"
  done
  : >"$work/$1.samples"
  for p in $peers; do start_peer "$p" "$1"; done
  for ((round = 1; round <= rounds; round++)); do
    say "$1: round $round of $rounds"
    for precision in f32 bf16; do sample_moec "$1" $precision; done
    for p in $peers; do sample_peer "$1" "$p"; done
    [ $round != 1 ] || for p in $peers; do keep_fast "$1" "$p"; done
  done
  stop_all
  say "$1: done, $SECONDS seconds since the start"
}

# ---- telling ----------------------------------------------------------------

# Reads samples, writes a line a result: case, precision, engine, variant, ms,
# limit, products, memory, number of samples; all of them medians.
medians() { # CASE
  awk -v name="$1" '
    function add(key, x) { at[key, ++n[key]] = x }
    { add($1 " " $2 " " $3, $4); engines[$1 " " $2 " " $3] }
    $5 { for (i = 5; i <= 7; i++) add($1 " " i, $i) }
    function median(key,   i, j, x) {
      for (i = 2; i <= n[key]; i++) {
        x = at[key, i]
        for (j = i - 1; j && at[key, j] > x; j--) at[key, j + 1] = at[key, j]
        at[key, j + 1] = x
      }
      i = int((n[key] + 1) / 2)
      return n[key] % 2 ? at[key, i] : (at[key, i] + at[key, i + 1]) / 2
    }
    END { for (key in engines) { split(key, k, " ")
      print name, key, median(key), median(k[1] " 5"), median(k[1] " 6"),
        median(k[1] " 7"), n[key] } }' "$work/$1.samples" | sort -k2,2r -k5,5n
}

tell() { # results of all cases on standard input
  awk -v tokens=2048 -v threads="$threads" '
    { for (i = 1; i <= 9; i++) r[NR, i] = $i; key = $1 " " $2 }
    $3 == "moec" { own[key] = $5 }
    $3 != "moec" && !(key in best) { best[key] = $5; who[key] = $3 " " $4 }
    function ratio(of, case_precision) {
      if (!(case_precision in best)) return "-"
      return sprintf("%.2f", best[case_precision] / of)
    }
    function text(s) { gsub("-", " ", s); return s == " " ? "" : s }
    END {
      for (i = 1; i <= NR; i++) {
        moec = r[i, 3] == "moec"
        printf "{\"case\": \"%s\", \"precision\": \"%s\", \"engine\": \"%s\", ",
          r[i, 1], r[i, 2], text(r[i, 3])
        if (r[i, 4] != "-") printf "\"variant\": \"%s\", ", text(r[i, 4])
        printf "\"tokens_per_s\": %.1f, \"step_ms\": %.2f, \"limit_ms\": %.2f, ",
          1e3 * tokens / r[i, 5], r[i, 5], r[i, 6]
        printf "\"limit_share\": %.3f, ", r[i, 6] / r[i, 5]
        if (moec && (r[i, 1] " " r[i, 2]) in best)
          printf "\"to_best_peer\": %s, ", ratio(r[i, 5], r[i, 1] " " r[i, 2])
        if (moec && (r[i, 1] " f32") in best)
          printf "\"to_best_f32_peer\": %s, ", ratio(r[i, 5], r[i, 1] " f32")
        printf "\"threads\": %d, \"samples\": %d}\n", threads, r[i, 9]
      }
      err = "/dev/stderr"
      print "\n| case | precision | tokens/s | ms a step | limit, ms " \
        "(products, memory) | share | best peer | its tokens/s | moec to it " \
        "| to the best f32 peer |\n|---|---|---|---|---|---|---|---|---|---|" >err
      for (i = 1; i <= NR; i++) {
        if (r[i, 3] != "moec") continue
        key = r[i, 1] " " r[i, 2]
        printf "| %s | %s | %.0f | %.1f | %.1f (%.1f, %.1f) | %.0f %% | %s | " \
          "%s | %s | %s |\n", r[i, 1], r[i, 2], 1e3 * tokens / r[i, 5], r[i, 5],
          r[i, 6], r[i, 7], r[i, 8], 100 * r[i, 6] / r[i, 5],
          key in best ? text(who[key]) : "-",
          key in best ? sprintf("%.0f", 1e3 * tokens / best[key]) : "-",
          ratio(r[i, 5], key), ratio(r[i, 5], r[i, 1] " f32") >err
      }
      for (key in best) peers++
      if (!peers) exit
      print "\n| case | precision | peer | tokens/s | ms a step | share of the " \
        "limit |\n|---|---|---|---|---|---|" >err
      for (i = 1; i <= NR; i++)
        if (r[i, 3] != "moec")
          printf "| %s | %s | %s | %.0f | %.1f | %.0f %% |\n", r[i, 1], r[i, 2],
            text(r[i, 3] " " r[i, 4]), 1e3 * tokens / r[i, 5], r[i, 5],
            100 * r[i, 6] / r[i, 5] >err
    }'
}

check_peers() {
  [ "$peers" ] || return 0
  [ -x "$(command -v "$python")" ] || {
    say "no Python at $python: --python PATH, --peers none, or make one:"
    sed -n 's/^# \(  python3 -m venv.*\|  build.*install.*\)/\1/p' "$0" >&2
    exit 2
  }
  for p in $peers; do
    "$python" -c "import $p" 2>/dev/null ||
      usage "$python has no $p; --peers takes others, or none"
  done
  case $peers in *torch*) command -v g++ >/dev/null ||
    say "no g++, so torch.compile will fail: apt-get install g++" ;; esac
}

if [ $measure ]; then
  check_peers
  for c in $cases; do run_case "$c"; done
fi
for c in $cases; do
  [ ! -s "$work/$c.samples" ] || medians "$c"
done | tell
