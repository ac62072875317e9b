#!/bin/bash
# Translation: a small model learns a dictionary from pairs of sentences and
# translates by beam search; BLEU is that of sacrebleu 2.6.0; what is refused.
source tests/checks.bash

# check NAME STATUS PATTERN ARGUMENTS...
check() { run "${@:1:3}" "$MOERUN" "${@:4}"; }

# ---- BLEU -------------------------------------------------------------------------

# Every rule of the words, and what has no match.
cat >"$d/x" <<'T'
The cat sat on the mat, didn't it?
It cost $1,000.50 (about 3.5%) -- on 5-6 May; U.S. dollars.
&quot;Yes&quot; &amp; no <b>: café… «oui»
x.y .. ,, 3- -3 a,b 1. a/b C++ well-known
wholly unlike
T
cat >"$d/y" <<'T'
The cat sat on a mat, did it not?
It cost $1,000.50 (around 3.5%) - on 5-7 May; US dollars.
"Yes" & no <b>: cafe… «oui» !
x.y .. , 3- -3 a,b 1. a/b C++ well known
that is something else
T
check 'BLEU' 0 'BLEU = 59.02 79.1/66.1/54.4/45.3 (BP = 0.985 ratio = 0.985 hyp_len = 67 ref_len = 68)' bleu "$d/x" "$d/y"
printf 'a b c d\nc e\n' >"$d/few"
printf 'a c b d f g\nc\n' >"$d/few2"
check 'BLEU: orders without a match' 0 'BLEU = 17.00 83.3/12.5/12.5/12.5 (BP = 0.846 ratio = 0.857 hyp_len = 6 ref_len = 7)' bleu "$d/few" "$d/few2"
check 'BLEU: of itself' 0 'BLEU = 100.00 100.0/100.0/100.0/100.0 (BP = 1.000' bleu "$d/x" "$d/x"
head -2 "$d/x" >"$d/short"
check 'BLEU: fewer lines' 1 'short ends after line 2, and ' bleu "$d/short" "$d/y"
: >"$d/empty"
check 'BLEU: nothing' 1 'empty is empty' bleu "$d/empty" "$d/empty"
check 'BLEU: no file' 1 'nowhere: cannot be read' bleu "$d/x" "$d/nowhere"
check 'BLEU: a directory' 1 "$d: cannot be read" bleu "$d/x" "$d"
check 'BLEU: of what' 2 'bleu: which two files?' bleu "$d/x"

# ---- a dictionary -----------------------------------------------------------------

dictionary "$d/source" "$d/target"
for i in {0..39}; do
  echo qq >>"$d/source"
  echo "Q$i" >>"$d/target"
done
# The model has more words than the vocabulary.
# Translations of qq are so many that none is in the vocabulary.
check 'vocabulary of both' 0 '27 words' vocab "$d/source" "$d/target" -o "$d/v" --size 27
model="models/mt_moe.dsl -D V=32 -D D=32 -D U=32 -D P=0.0 -D W=192 -D WARMUP=20 -D BEAM=3 -D SENTENCES=8 -D N=4 -D K=2 -D H=32"
"$MOEC" --target=cpu $model -o "$d/m.so" || exit 1
train() { # NAME STATUS PATTERN ARGUMENTS...
  local name=$1 want=$2 pattern=$3
  shift 3
  check "$name" "$want" "$pattern" train "$d/m.so" --threads 1 --steps 400 --set lr=1e-2 --quiet "$@"
}
train 'pairs are trained on' 0 '"step": 400' --data "$d/source" --target "$d/target" --vocab "$d/v" --ckpt "$d/ck" \
  --valid "$d/source" --valid-target "$d/target"
check 'evaluated' 0 '"tokens": 2803' eval "$d/m.so" --threads 1 --data "$d/source" --target "$d/target" --vocab "$d/v" --ckpt "$d/ck"
head -50 "$d/source" >"$d/s"
head -50 "$d/target" >"$d/t"
"$MOERUN" translate "$d/m.so" --threads 1 --data "$d/s" --vocab "$d/v" --ckpt "$d/ck" --quiet >"$d/got"
check 'translated' 0 'BLEU = \([89][0-9][.]\|100\)' bleu "$d/got" "$d/t"
"$MOERUN" translate "$d/m.so" --threads 1 --data "$d/s" --vocab "$d/v" --ckpt "$d/ck" --quiet >"$d/again"
if cmp -s "$d/got" "$d/again"; then
  echo 'ok the same twice'
else
  echo 'not ok the same twice'
  status=1
fi

echo qq >"$d/q"
check 'a word that is not in the vocabulary' 0 '' translate "$d/m.so" --threads 1 --data "$d/q" --vocab "$d/v" --ckpt "$d/ck" --quiet
expect 'is in no translation' awk '/<unk>/ { bad = 1 } END { exit bad || NR != 1 }' "$d/out"

# Lines keep their places, and one that is too long is empty and told of.
{ head -2 "$d/s"; for i in $(seq 60); do printf 'aa '; done; echo; sed -n 3p "$d/s"; } >"$d/long"
check 'too long' 0 '1 sentences are too long for the model' translate "$d/m.so" --threads 1 --data "$d/long" --vocab "$d/v" --ckpt "$d/ck"
"$MOERUN" translate "$d/m.so" --threads 1 --data "$d/long" --vocab "$d/v" --ckpt "$d/ck" 2>/dev/null >"$d/out"
{ head -2 "$d/got"; echo; sed -n 3p "$d/got"; } >"$d/want"
if cmp -s "$d/out" "$d/want"; then
  echo 'ok lines in place'
else
  echo "not ok lines in place: $(diff "$d/out" "$d/want" | head -3)"
  status=1
fi

# Shorter rows of padding behind the same sentences, all in the smallest size.
"$MOEC" --target=cpu $model -D SHORT=8 -o "$d/less.so" || exit 1
for m in m less; do
  "$MOERUN" eval "$d/$m.so" --threads 1 --data "$d/s" --target "$d/t" --vocab "$d/v" --ckpt "$d/ck" |
    grep -o '"loss": [0-9.]*' >"$d/$m.loss"
done
if paste "$d/m.loss" "$d/less.loss" | awk '{ same = $2 > 0 && ($2 - $4) ^ 2 < 1e-10 * $2 ^ 2 } END { exit !same }'; then
  echo 'ok padding changes nothing'
else
  echo "not ok padding changes nothing: $(paste "$d/m.loss" "$d/less.loss")"
  status=1
fi
run 'strictly balanced' 0 '^  parameters  ' "$MOEC" $model -D GATE=balanced -D MOST=3 --plan-only
run 'two levels' 0 '^  parameters  ' "$MOEC" $model -D A=2 -D K=1 --plan-only
run 'no halves of an odd number' 1 'an even number of units and an even width: 33, 32' "$MOEC" $model -D U=33 --plan-only
run 'smoothed to nothing' 1 'smoothing must be from 0 to below 1: 1' "$MOEC" $model -D SMOOTH=1.0 --plan-only
run 'no such gate' 1 'there is no gate of this name for translation: best' "$MOEC" $model -D GATE=best --plan-only

# ---- what is refused --------------------------------------------------------------

head -599 "$d/target" >"$d/fewer"
train 'fewer translations' 1 'fewer ends after line 599, ' --data "$d/source" --target "$d/fewer" --vocab "$d/v"
train 'no translations' 1 'entry train.S16 takes pairs of sentences' --data "$d/source" --vocab "$d/v"
train 'of one file only' 2 'of --data and --valid one has translations' --data "$d/source" --target "$d/target" --valid "$d/source" --vocab "$d/v"
check 'another vocabulary' 1 'trained with a vocabulary of XXH64' translate "$d/m.so" --data "$d/s" --ckpt "$d/ck"
check 'no entry to choose' 2 "unknown option '--entry'" translate "$d/m.so" --entry encode
check 'no checkpoint' 2 'translate: --ckpt DIR is missing' translate "$d/m.so" --data "$d/s" --vocab "$d/v"
"$MOEC" --target=cpu models/tiny.dsl -o "$d/tiny.so" || exit 1
check 'a model of texts' 0 '"step": 1' train "$d/tiny.so" --threads 1 --data "$d/source" --steps 1 --ckpt "$d/text" --quiet
check 'no entry' 1 'entry encode takes no pairs' translate "$d/tiny.so" --data "$d/s" --ckpt "$d/text"
exit $status
