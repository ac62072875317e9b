#!/bin/bash
# Words as tokens: vocabularies, texts as numbers, training on either, text back
# from words, and what is refused.
source tests/checks.bash

# check NAME STATUS PATTERN ARGUMENTS...
check() { run "${@:1:3}" "$MOERUN" "${@:4}"; }

same() { # NAME FILE FILE
  if cmp -s "$2" "$3"; then
    echo "ok $1"
  else
    echo "not ok $1: $(diff "$2" "$3" | head -3)"
    status=1
  fi
}

# ---- vocabularies -----------------------------------------------------------------

printf 'b a  b\tc\n\nDon'"'"'t stop, b!\n(a) <unk> \xc3\xa9\xc3\xa9 a' >"$d/text"
check 'words' 0 '10 words' vocab "$d/text" -o "$d/words"
printf '%s\n' 'moert vocabulary: words' '<unk>' '<eos>' a b '(a)' "Don't" 'b!' c stop, 'éé' >"$d/want"
same 'words: the most frequent first' "$d/words" "$d/want"
check 'fewer' 0 '14 tokens, 50.00 % of them' vocab "$d/text" -o "$d/few" --size 4
head -5 "$d/want" >"$d/want4"
same 'fewer: of these the first' "$d/few" "$d/want4"
check 'punctuation' 0 'words' vocab "$d/text" -o "$d/marks" --split punctuation
printf '%s\n' 'moert vocabulary: words and punctuation' '<unk>' '<eos>' b a '(' '<' 'Don' c stop 'éé' \
  '￭!' '￭'"'" '￭)' '￭,' '￭>' '￭a' '￭t' '￭unk' >"$d/want"
same 'punctuation: joiners' "$d/marks" "$d/want"

: >"$d/empty"
printf ' \n \n' >"$d/blank"
check 'no words' 1 'no words in it' vocab "$d/blank" -o "$d/x"
check 'an empty text' 1 'no words in it' vocab "$d/empty" -o "$d/x"
check 'no text' 1 'No such file' vocab "$d/nowhere" -o "$d/x"
check 'no room' 1 'no room beside <unk> and <eos>' vocab "$d/text" -o "$d/x" --size 2
check 'no such split' 1 "'lines' is not space or punctuation" vocab "$d/text" -o "$d/x" --split lines
check 'nowhere to write' 1 'No such file' vocab "$d/text" -o "$d/none/x"
check 'which text' 2 'vocab: which text?' vocab -o "$d/x"
check 'no output' 2 'vocab: -o FILE is missing' vocab "$d/text"

# refused NAME PATTERN LINE...: a vocabulary of these lines.
refused() {
  local name=$1 pattern=$2
  shift 2
  printf '%s\n' "$@" >"$d/bad"
  check "bad vocabulary: $name" 1 "$pattern" encode "$d/text" --vocab "$d/bad" -o "$d/x"
}
head='moert vocabulary: words'
refused 'another file' "is no vocabulary: its first line" 'hello'
refused 'nothing in it' '<unk> and <eos> are missing' "$head"
refused 'no <eos>' "bad:3: 'a' where <eos> must be" "$head" '<unk>' a
refused 'twice' "bad:6: 'a' is also in line 4" "$head" '<unk>' '<eos>' a b a
refused 'an empty line' 'bad:4: an empty line' "$head" '<unk>' '<eos>' '' b
refused 'a space' 'bad:4: white space in a word' "$head" '<unk>' '<eos>' 'a b'

# ---- numbers ----------------------------------------------------------------------

numbers() { od -An -v -w2 -tu2 "$1" | tr -d ' ' | tr '\n' ' '; }
check 'numbers' 0 '14 tokens, u16; 50.00 % of them are words' encode "$d/text" --vocab "$d/few" -o "$d/u16"
numbers "$d/u16" >"$d/got"
printf '3 2 3 0 1 1 0 0 0 1 0 0 0 2 ' >"$d/want"
same 'numbers: as they stand in the text' "$d/got" "$d/want"
check 'numbers of 32 bits' 0 'u32' encode "$d/text" --vocab "$d/few" -o "$d/u32" --format u32
od -An -v -w4 -tu4 "$d/u32" | tr -d ' ' | tr '\n' ' ' >"$d/got"
same 'numbers of 32 bits: the same' "$d/got" "$d/want"
check 'numbers: no such format' 1 "'words' is not u16 or u32" encode "$d/text" --vocab "$d/few" -o "$d/x" --format words
check 'numbers: no vocabulary' 2 'encode: --vocab FILE is missing' encode "$d/text" -o "$d/x"

# ---- training ---------------------------------------------------------------------

# Sentences of a tiny grammar, which a model of words learns at once.
awk 'BEGIN { split("a the one", a); split("dog cat bird fish", n); split("sees likes eats", v); x = 1
  for (i = 0; i < 400; i++) { for (k = 1; k <= 3; k++) { x = x * 69069 % 4294967296; r[k] = int(x / 65536) }
    print a[r[1] % 3 + 1], n[r[2] % 4 + 1], v[r[3] % 3 + 1] ", " n[r[1] % 4 + 1] "." } }' >"$d/train"
check 'grammar' 0 '14 words' vocab "$d/train" -o "$d/v" --split punctuation
cat >"$d/m.dsl" <<M
import "$PWD/models/lib/lm.dsl"
fn body(x: i32[b, t]) {
  let w, bias = classes(V, 16)
  return embed(x, V, 16), w, bias, 0.0
}
M
"$MOEC" --target=cpu \
  "$d/m.dsl" -D V=14 -D B=4 -D T=8 -D WARMUP=10 -o "$d/m.so" || exit 1

loss() { sed -n 's/^{"step.*"loss": \([0-9.]*\),.*/\1/p' "$d/out"; }
train() { # NAME STATUS PATTERN ARGUMENTS...
  local name=$1 want=$2 pattern=$3
  shift 3
  check "$name" "$want" "$pattern" train "$d/m.so" --steps 200 --set lr=0.05 --quiet "$@"
}
train 'words are trained on' 0 '"step": 200' --data "$d/train" --vocab "$d/v" --ckpt "$d/ck"
words=$(loss)
check 'encode' 0 'u16' encode "$d/train" --vocab "$d/v" -o "$d/train.u16"
check 'encode 32' 0 'u32' encode "$d/train" --vocab "$d/v" -o "$d/train.u32" --format u32
for kind in u16 u32; do
  train "numbers, $kind" 0 '"step": 200' --data "$d/train.$kind" --format $kind
  if [ "$(loss)" = "$words" ] && [ "$words" ]; then
    echo "ok numbers, $kind: the same loss"
  else
    echo "not ok numbers, $kind: the same loss: $(loss), words $words"
    status=1
  fi
done
# Words that never occur are there to be sampled; evaluated by all.
"$MOEC" --target=cpu "$d/m.dsl" -D V=3000 -D SAMPLES=64 -D B=4 -D T=8 \
  -D WARMUP=10 -o "$d/sampled.so" || exit 1
check 'sampled words: trained on' 0 '"step": 200' train "$d/sampled.so" --steps 200 --set lr=0.05 --quiet --data "$d/train" --vocab "$d/v" --ckpt "$d/sampled"
check 'sampled words: evaluated' 0 '"loss": 0.' eval "$d/sampled.so" --data "$d/train" --vocab "$d/v" --ckpt "$d/sampled"
check 'words: evaluated' 0 '"loss": 0.' eval "$d/m.so" --data "$d/train" --vocab "$d/v" --ckpt "$d/ck"
"$MOERUN" sample "$d/m.so" --vocab "$d/v" --ckpt "$d/ck" --prompt 'the dog' --tokens 40 --temperature 0.2 >"$d/out"
if head -1 "$d/out" | grep -q '^the dog' && [ "$(grep -cE '^(a|the|one) (dog|cat|bird|fish)( (sees|likes|eats), (dog|cat|bird|fish))?\.$' "$d/out")" -ge 4 ]; then
  echo 'ok words: written as text'
else
  echo "not ok words: written as text: $(cat "$d/out")"
  status=1
fi
train 'a larger vocabulary' 1 'the vocabulary has 18 words, the model takes tokens below 14' --data "$d/train" --vocab "$d/marks"
for i in 1 2 3 4; do cat "$d/text"; done >"$d/texts"
check 'larger numbers' 0 'u16' encode "$d/texts" --vocab "$d/marks" -o "$d/large.u16"
train 'a token out of bounds' 1 'the model takes tokens below 14' --data "$d/large.u16" --format u16
head -c 101 "$d/train.u16" >"$d/odd"
train 'half a token' 1 '101 bytes are no whole number of u16 tokens of 2' --data "$d/odd" --format u16
train 'too few tokens' 1 '14 words are fewer than a batch takes: 33' --data "$d/text" --vocab "$d/few"
train 'words of what' 1 '--format words takes --vocab FILE' --data "$d/train" --format words
train 'bytes of words' 1 '--format bytes takes no --vocab' --data "$d/train" --format bytes --vocab "$d/v"
train 'no such format' 1 "'u8' is not bytes, words, u16 or u32" --data "$d/train" --format u8
train 'resumed without' 1 'it was trained with a vocabulary of XXH64' --data "$d/train.u16" --format u16 --resume "$d/ck"
check 'evaluated with another' 1 'and this one has' eval "$d/m.so" --data "$d/train" --vocab "$d/few" --ckpt "$d/ck"
check 'without one' 1 'and here is none' eval "$d/m.so" --data "$d/train.u16" --format u16 --ckpt "$d/ck"
train 'numbers are saved' 0 '' --data "$d/train.u16" --format u16 --ckpt "$d/ck2"
check 'numbers: with one' 1 'it was trained without a vocabulary' eval "$d/m.so" --data "$d/train" --vocab "$d/v" --ckpt "$d/ck2"
check 'by a pattern' 0 '"loss"' eval "$d/m.so" --data "$d/train" --vocab "$d/v" --load "$d/ck2:lm/*"
check 'numbers are written' 0 ' ' sample "$d/m.so" --format u16 --ckpt "$d/ck2" --tokens 5
check 'numbers: no prompt' 1 'words of u16 tokens take --vocab FILE' sample "$d/m.so" --format u16 --ckpt "$d/ck2" --prompt a
exit $status
