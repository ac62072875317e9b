#!/bin/bash
# The driver on a model by hand: what each command does, what it refuses, exit
# statuses; stopping, killing and resuming; and the 30-line program.
source tests/checks.bash
tiny=$BUILD/unit/tiny.so

# check NAME STATUS PATTERN ARGUMENTS...
check() { run "${@:1:3}" "$MOERUN" "${@:4}"; }

# Some text: letters in an order that no one would guess.
awk 'BEGIN { x = 1; for (i = 0; i < 5000; i++) { x = x * 69069 % 4294967296
  printf "%c", 97 + int(x / 65536) % 7 } }' >"$d/text"
head -c 777 "$d/text" >"$d/valid"
train() { # NAME STATUS PATTERN ARGUMENTS...
  local name=$1 want=$2 pattern=$3
  shift 3
  check "$name" "$want" "$pattern" train "$tiny" --data "$d/text" "$@"
}

# ---- the command line -------------------------------------------------------------

check 'no command' 2 'no command given'
check 'unknown command' 2 "did you mean 'train'"  trian
check 'help' 0 '' --help
verbs='train eval sample bench info verify vocab encode doctor translate bleu experts'
expect 'help: every command' [ "$(sed -n 's/^  moerun \([a-z]*\) .*/\1/p' "$d/out" |
  xargs)" = "$verbs" ]
for verb in $verbs; do
  check "help: $verb" 0 '' $verb --help
  expect "help: $verb: its use" grep -qE "^moerun $verb (MODEL.so|A.so|TEXT|TRANSLATIONS|  *\[OPTION)" "$d/out"
  check "help: help $verb" 0 '' help $verb
done
check 'help: unknown command' 2 'unknown command' help frobnicate
check 'unknown option' 2 "unknown option '--stepz'; did you mean '--steps'" \
  train "$tiny" --stepz 3
check "nearest to another command's option" 2 "did you mean '--temperature'" \
  train "$tiny" --tempreature 1
check "another command's option" 2 "option '--prompt'; it is one of moerun sample" \
  train "$tiny" --prompt x
for what in ckpt valid probe; do
  check "every so often: $what" 2 "--$what-every needs --$what " \
    train "$tiny" --data "$d/text" --steps 3 --$what-every 2
done
check 'no model' 2 'which model' info
check 'two models' 2 'one model at a time' info a.so b.so
check 'verify: one model' 2 'which two models' verify a.so --data x
check 'verify: three models' 2 'one model at a time' verify a.so b.so c.so
check 'verify: no data' 2 '--data FILE is missing' verify a.so b.so
check 'verify: no steps' 2 'has no gradients' verify a.so b.so --data x --steps 0
check 'no data' 2 '--data FILE is missing' train "$tiny" --steps 3
check 'no steps' 2 '--steps N is missing' train "$tiny" --data "$d/text"
check 'no number' 2 "'many' is not a whole number" train "$tiny" --steps many
check 'negative' 2 "'-3' is not a whole number" train "$tiny" --steps=-3
check 'no value' 2 'N is missing' train "$tiny" --steps
check 'a flag with a value' 2 'takes no value' train "$tiny" --quiet=1
check 'no form' 2 'not of the form NAME=VALUE' train "$tiny" --set lr
check 'no checkpoint' 2 '--ckpt DIR is missing' sample "$tiny"
check 'auto needs a place' 2 '--ckpt DIR, which is missing' \
  train "$tiny" --data "$d/text" --steps 3 --resume auto

# ---- models and data that will not do ---------------------------------------------

check 'model: none' 1 'nowhere.so: No such file' info "$d/nowhere.so"
check 'model: a text' 1 'not a compiled model' info "$d/text"
check 'model: another version' 1 'compiled for version 99' \
  info "$BUILD/unit/tiny_abi.so"
check 'model: another machine' 1 'machine lacks: avx999' \
  info "$BUILD/unit/tiny_feature.so"
head -c 9000 "$tiny" >"$d/cut.so"
check 'model: truncated' 1 'truncated: 9000 of' info "$d/cut.so"
: >"$d/empty"
head -c 32 "$d/text" >"$d/short"
for file in nowhere empty; do
  check "data: $file" 1 "$d/$file: " train "$tiny" --data "$d/$file" --steps 1
done
check 'data: too short' 1 'fewer than a batch takes: 33' \
  train "$tiny" --data "$d/short" --steps 1
check 'data: out of bounds' 1 'the model takes bytes below 100' \
  train "$BUILD/unit/tiny_below.so" --data "$d/text" --steps 1
train 'option: unknown' 1 "no option 'lrr'; did you mean 'lr'" --steps 1 \
  --set lrr=1
train 'option: no number' 1 "'x' is not a number" --steps 1 --set lr=x
train 'entry: unknown' 1 "no entry 'trai'; did you mean 'train'" --steps 1 \
  --entry trai
train 'entry: does not train' 1 'entry eval does not train' --steps 1 \
  --entry eval
train 'threads: too many' 1 '5000 threads' --steps 1 --threads 5000
train 'log: no such place' 1 'nowhere/log: No such file' --steps 1 \
  --log "$d/nowhere/log"

train 'log: full disk' 1 '/dev/full: No space left' --steps 9 --quiet \
  --log /dev/full --ckpt "$d/logged"
expect 'log: full disk: saved' [ -e "$d/logged/step-00000001" ]
for verb in train eval bench; do
  case $verb in
  bench) arguments=(--steps 1) ;;
  train) arguments=(--data "$d/text" --steps 1) ;;
  eval) arguments=(--data "$d/text" --load "$d/logged") ;;
  esac
  "$MOERUN" $verb "$tiny" "${arguments[@]}" >/dev/full 2>"$d/err"
  expect "$verb: full standard output" [ $? = 1 ]
done

# ---- the commands ------------------------------------------------------------------

train 'train' 0 'perplexity' --steps 60 --ckpt "$d/once" --log "$d/once.log" \
  --valid "$d/valid" --valid-every 25 --ckpt-every 20 --keep 2 --threads 2
expect 'train: table' grep -qE '^ +60 +[0-9.]+ +[0-9.]+ +[0-9.]+ +5.00e-01' "$d/err"
expect 'train: curve' grep -q '(\* training, o validation)' "$d/err"
expect 'train: summary' grep -qE '"step": 60, "loss": [0-9.]+, "valid_loss"' "$d/out"
expect 'train: says where' grep -q "checkpoint: $d/once/step-00000060" "$d/err"
expect 'train: log lines' [ "$(wc -l <"$d/once.log")" = 60 ]
for key in step loss lr grad_norm tokens_per_s lm/moe/gate/cv_load cv_load; do
  expect "train: log has $key" [ "$(grep -c "\"$key\": [0-9]" "$d/once.log")" = 60 ]
done
expect 'train: evaluations in the log' \
  [ "$(grep -c '"valid_loss": .*"valid_tokens": 776}' "$d/once.log")" = 3 ]
expect 'train: two checkpoints are kept' \
  [ "$(echo $(ls "$d/once"))" = 'latest step-00000040 step-00000060' ]
train 'train: quiet' 0 '' --steps 3 --quiet
expect 'train: quiet says nothing' [ ! -s "$d/err" ]

check 'eval' 0 'perplexity' eval "$tiny" --data "$d/valid" --ckpt "$d/once"
expect 'eval: every token' grep -q '"tokens": 776}' "$d/out"
expect 'eval: as in training' [ "$(grep -o '"loss": [0-9.]*' "$d/out")" = \
  "$(tail -1 "$d/once.log" | grep -o '"valid_loss": [0-9.]*' | sed s/valid_//)" ]
check 'eval: an older one' 0 '' eval "$tiny" --data "$d/valid" \
  --load "$d/once/step-00000040:lm/*"
check 'eval: nothing there' 1 'no checkpoint there' eval "$tiny" \
  --data "$d/valid" --ckpt "$d"

check 'sample' 0 '' sample "$tiny" --ckpt "$d/once" --prompt abc --tokens 50 --seed 3
cp "$d/out" "$d/first"
expect 'sample: length' [ "$(wc -c <"$d/out")" = 54 ]
expect 'sample: the prompt' grep -q '^abc' "$d/out"
check 'sample: again' 0 '' sample "$tiny" --ckpt "$d/once" --prompt abc --tokens 50 --seed 3
expect 'sample: the same' cmp -s "$d/out" "$d/first"
check 'sample: greedy' 0 '' sample "$tiny" --ckpt "$d/once" --tokens 30 --temperature 0
expect 'sample: one letter' grep -qaE '(.)\1{29}' "$d/out"

check 'bench' 0 '' bench "$tiny" --steps 5
for key in tokens_per_s step_ms gflops peak_bytes_planned peak_bytes_measured; do
  expect "bench: $key" grep -q "\"$key\": [0-9]" "$d/out"
done
expect 'bench: one line' [ "$(wc -l <"$d/out")" = 1 ]
expect 'bench: nothing but it' [ ! -s "$d/err" ]
expect 'bench: no peaks' [ "$(grep -c 'limit\|peak_g' "$d/out")" = 0 ]
check 'bench: roofline' 0 '' bench "$tiny" --steps 5 --roofline
for key in limit_ms limit_share products_ms memory_ms peak_gflops_f32 \
  peak_gbytes_per_s; do
  expect "bench: $key" grep -qE "\"$key\": [0-9.]*[1-9]" "$d/out"
done
expect 'bench: no dtype that it does not multiply' \
  [ "$(grep -c 'bf16\|f64' "$d/out")" = 0 ]
check 'bench: profile' 0 '' bench "$tiny" --steps 5 --profile
expect 'profile: peaks' grep -qE \
  '^kept up by [0-9]+ threads: f32 products [0-9]+ GFLOP/s, a copy [0-9.]+ GB/s$' "$d/err"
expect 'profile: the step' grep -qE \
  '^a step: [0-9.]+ ms, limit [0-9.]+ ms \(products [0-9.]+, memory [0-9.]+\): [0-9]+ %$' "$d/err"
expect 'profile: titles' grep -qE \
  '^ms a step +% +calls +GFLOP/s +GB/s +% limit  where, and the longest there$' "$d/err"
expect 'profile: a line' grep -qE \
  '^ +[0-9.]+ +[0-9.]+ +1 +[0-9.]+ +[0-9.]+ +[0-9]+  tiny.dsl:2  dot$' "$d/err"
expect 'profile: no rates where nothing is counted' grep -qE \
  '^ +[0-9.]+ +[0-9.]+ +1 +tiny.dsl:3  copy$' "$d/err"
expect 'profile: in columns' [ "$(grep ' tiny.dsl:' "$d/err" |
  awk '{ print index($0, "tiny.dsl") }' | sort -u)" = \
  "$(awk '/^ms a step/ { print index($0, "where") }' "$d/err")" ]

check 'info' 0 '' info "$tiny"
expect 'info: parameters' grep -q 'lm/w  *f32\[256\]' "$d/out"
expect 'info: inputs' grep -q 'counts .*f32\[4, 8\] .*from text(mask, shift=1)' "$d/out"
expect 'info: no spaces at the ends of lines' [ "$(grep -c ' $' "$d/out")" = 0 ]
expect 'info: no zeros' [ "$(grep -cE ' 0 B| 0[.0]* [GMk]*FLOP' "$d/out")" = 0 ]
check 'info: ir' 0 '' info "$tiny" --ir plan
expect 'info: the text' [ "$(tail -1 "$d/out")" = '# last' ]
check 'info: unknown stage' 1 "did you mean 'plan'" info "$tiny" --ir plam

# ---- not finite --------------------------------------------------------------------

train 'not finite' 1 \
  'step 2 of entry train: not finite: at tiny.dsl:1:1: the result of record 0' \
  --steps 9 --set lr=1e30 --ckpt "$d/nan" --ckpt-every 1
expect 'not finite: what is left' \
  grep -q "the last good checkpoint is $d/nan/step-00000001" "$d/err"
check 'not finite: it loads' 0 '' sample "$tiny" --ckpt "$d/nan" --tokens 1

# ---- stopping and resuming ----------------------------------------------------------

numbers() { sed 's/"tokens_per_s": [0-9.e+]*//' "$1"; }
train 'resume: from nothing' 0 'no checkpoint under' --steps 25 --resume auto \
  --ckpt "$d/two" --log "$d/two.log" --threads 2
echo '{"step": 26, "loss": 0' >>"$d/two.log" # as a killed run leaves it
train 'resume' 0 'resumed after step 25' --steps 60 --resume auto \
  --ckpt "$d/two" --log "$d/two.log" --threads 2
numbers "$d/once.log" | sed 's/, "valid_loss.*/}/' >"$d/a"
numbers "$d/two.log" >"$d/b"
expect 'resume: the same numbers' cmp -s "$d/a" "$d/b"
expect 'resume: the same bytes' cmp -s "$d/once/step-00000060/params.safetensors" \
  "$d/two/step-00000060/params.safetensors"
train 'resume: a directory' 0 'resumed after step 60' --steps 61 \
  --resume "$d/once/step-00000060"
train 'resume: none there' 1 'No such file' --steps 61 --resume "$d/nowhere"

cp -r "$d/once" "$d/part"
rm "$d/part/step-00000060/optim.safetensors"
train 'resume: a file is missing' 1 'optim.safetensors: No such file' \
  --steps 61 --resume auto --ckpt "$d/part"
rm -r "$d/part/step-00000060"
train 'resume: the newest is missing' 1 'step-00000060/meta.json: No such' \
  --steps 61 --resume auto --ckpt "$d/part"
rm "$d/part/latest"
train 'resume: nothing points at it' 0 'resumed after step 40' \
  --steps 41 --resume auto --ckpt "$d/part"

"$MOERUN" train "$tiny" --data "$d/text" --steps 100000000 --quiet \
  --ckpt "$d/term" >"$d/out" 2>"$d/err" &
sleep 0.5
kill -TERM $!
wait $!
expect 'a signal: exit status' [ $? = 0 ]
expect 'a signal: saved' [ -e "$d/term/latest" ]
train 'a signal: resume' 0 'resumed' --steps 1 --resume auto --ckpt "$d/term"

# Killed wherever it happens to be; there is always a whole checkpoint.
whole=yes
for i in 1 2 3 4 5 6 7 8; do
  "$MOERUN" train "$tiny" --data "$d/text" --steps 100000000 --quiet \
    --ckpt "$d/kill" --ckpt-every 1 --resume auto >"$d/out" 2>"$d/err" &
  sleep "0.$((i * 7 % 5 + 2))"
  kill -KILL $! 2>"$d/out" || whole="it ended: $(cat "$d/err")"
  wait $! 2>"$d/out"
  "$MOERUN" eval "$tiny" --data "$d/valid" --ckpt "$d/kill" >"$d/out" \
    2>"$d/err" || whole=$(cat "$d/err")
done
expect 'killed while saving' [ "$whole" = yes ]
last=$(sed 's/step-0*//' "$d/kill/latest")
train 'killed: resume' 0 "resumed after step" --steps $((last + 1)) \
  --resume auto --ckpt "$d/kill"
expect 'killed: leftovers are gone' [ "$(ls -A "$d/kill" | grep -c '^\.')" = 0 ]

# ---- no space -------------------------------------------------------------------------

printf '#!/bin/bash\nulimit -f 1\nexec "%s" "$@"\n' "$MOERUN" >"$d/limited"
chmod +x "$d/limited"
MOERUN=$d/limited train 'full disk' 1 \
  'checkpoint not saved: .*params.safetensors: File too large' \
  --steps 2 --ckpt "$d/full" --quiet
expect 'full disk: nothing is left' [ -z "$(ls -A "$d/full")" ]
mkdir "$d/disk"
if mount -t tmpfs -o size=12k none "$d/disk" 2>/dev/null; then
  train 'full tmpfs' 1 'checkpoint not saved: .*No space left on device' \
    --steps 9 --ckpt "$d/disk/ck" --ckpt-every 1 --keep 0 --quiet
  left=$(cat "$d/disk/ck/latest" 2>/dev/null)
  if [ "$left" ]; then
    check 'full tmpfs: the last one is whole' 0 '' eval "$tiny" \
      --data "$d/valid" --ckpt "$d/disk/ck"
  fi
  umount "$d/disk"
else
  echo 'skip full tmpfs: mounting is not allowed here'
fi

# ---- devices -------------------------------------------------------------------------

check 'doctor' 0 '' doctor
for what in cores memory avx2 'CUDA driver' GPU cuBLASLt NCCL MPI; do
  expect "doctor: $what" grep -q "^$what  *[^ ]" "$d/out"
done
check 'doctor: a word' 2 "looks at this machine, not at 'x'" doctor x
train 'device: the CPU' 0 'of memory, 2 threads$' --steps 2 --device=cpu \
  --threads 2
train 'device: a GPU' 1 '^moerun: the model has no code for GPUs: compile it' \
  --steps 2 --device=cuda
train 'device: a word' 2 "'gpu' is none of auto, cpu and cuda" --steps 2 \
  --device=gpu

# ---- the 30-line program -----------------------------------------------------------------

"$BUILD/unit/train30" "$tiny" "$d/text" 60 >"$d/out"
expect '30 lines: runs' [ "$(wc -l <"$d/out")" = 60 ]
numbers "$d/once.log" | sed -E 's/.*"loss": ([0-9.]+),.*/\1/' >"$d/a"
expect '30 lines: the same losses' awk -v log_file="$d/a" '
  { getline want < log_file; if ($2 - want > 1e-5 || want - $2 > 1e-5) exit 1 }' "$d/out"
exit $status
