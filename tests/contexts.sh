#!/bin/bash
# Which contexts each expert takes: moerun experts, of a model that tells it by
# itself and of one with a layer of models/lib, over bytes and words; the picture;
# and what cannot be told.
source tests/checks.bash

# check NAME STATUS PATTERN ARGUMENTS...
check() { run "${@:1:3}" "$MOERUN" "${@:4}"; }

# trained NAME DATA MODEL OPTIONS...: $d/NAME.so and, after a step, $d/NAME.ck
trained() {
  local name=$1 data=$2
  shift 2
  expect "$name compiles" "$MOEC" --target=cpu "$@" -o "$d/$name.so"
  expect "$name trains" "$MOERUN" train "$d/$name.so" --data "$data" \
    ${vocab:+--vocab "$vocab"} --steps 1 --threads 1 --quiet --ckpt "$d/$name.ck"
}

# told NAME OPTIONS...: what is told of $d/own.so is what stands on standard input.
told() {
  local name=$1
  shift
  cat >"$d/want"
  check "$name" 0 '' experts "$d/own.so" --ckpt "$d/own.ck" --threads 1 "$@"
  if ! cmp -s "$d/want" "$d/out"; then
    echo "not ok $name: $(diff "$d/want" "$d/out" | head -5 | tr '\n' '|')"
    status=1
  fi
}

printf 'the cat, the "hat" & <one>\n' >"$d/text"
vocab=
trained own "$d/text" tests/models/contexts.dsl

told 'bytes' --data "$d/text" --top 2 --around 6 <<'END'
m/first: 47 choices of 4 experts, for 27 tokens

  expert 0: 6.38 % of the choices, mean gate 0.703
    takes '<' 33 %, 'c' 33 %, 'o' 33 %
    0.867  t" & <[o]ne>\n
    0.773  the [c]at, th

  expert 1: 10.64 % of the choices, mean gate 0.425
    takes '"' 40 %, 'a' 40 %, '\n' 20 %
    0.758  the c[a]t, the
    0.758  the "h[a]t" & <

  expert 2: 40.43 % of the choices, mean gate 0.614
    takes ' ' 26 %, 't' 21 %, 'e' 16 %, 'h' 16 %, '&' 5 %, ',' 5 %, '>' 5 %, 'n' 5 %
    0.906  [t]he cat
    0.906  the ca[t], the 

  expert 3: 42.55 % of the choices, mean gate 0.259
    takes ' ' 25 %, 't' 20 %, 'h' 15 %, '"' 10 %, '\n' 5 %, '&' 5 %, ',' 5 %, '<' 5 %
    0.453  [t]he cat
    0.453  the ca[t], the 

m/second: 27 choices of 1 experts, for 27 tokens

  expert 7: 100.00 % of the choices, mean gate 1.000
    takes ' ' 19 %, 't' 15 %, 'e' 11 %, 'h' 11 %, '"' 7 %, 'a' 7 %, '\n' 4 %, '&' 4 %
    1.000  [t]he cat
    1.000  t[h]e cat,
END
printf 'a\xc3\xa9b\xff\t<z' >"$d/odd"
told 'what does not show, and characters of several bytes' --data "$d/odd" \
  --top 9 --around 3 --expert 7 <<'END'
m/second: 8 choices of 1 experts, for 8 tokens

  expert 7: 100.00 % of the choices, mean gate 1.000
    takes '\x09' 12 %, '<' 12 %, 'a' 12 %, 'b' 12 %, 'z' 12 %, '\xa9' 12 %, '\xc3' 12 %, '\xff' 12 %
    1.000  [a]éb
    1.000  a[\xc3]\xa9b\xff
    1.000  a\xc3[\xa9]b\xff\x09
    1.000  aé[b]\xff\x09<
    1.000  éb[\xff]\x09<z
    1.000  b\xff[\x09]<z
    1.000  b\xff\x09[<]z
    1.000  \xff\x09<[z]
END
check 'an expert that takes nothing' 1 '--expert 5: no token of .* goes to it' \
  experts "$d/own.so" --data "$d/text" --ckpt "$d/own.ck" --expert 5

expect 'words' "$MOERUN" vocab "$d/text" -o "$d/words" --split punctuation
vocab=$d/words
trained own "$d/text" tests/models/contexts.dsl
told 'words' --data "$d/text" --vocab "$d/words" --top 1 --around 2 --expert 2 <<'END'
m/first: 18 choices of 4 experts, for 12 tokens

  expert 2: 27.78 % of the choices, mean gate 0.044
    takes 'the' 40 %, '<' 20 %, ',' 20 %, 'one' 20 %
    0.086  & < [one] > \n
END

# ---- the picture -------------------------------------------------------------------

check 'a picture' 0 '' experts "$d/own.so" --data "$d/text" --ckpt "$d/own.ck" \
  --vocab "$d/words" -o "$d/heat.svg"
squares='<title>(the: 50.0 % to expert 2|&lt;: 100.0 % to expert 2|one: 100.0 % to expert 7)<'
if [ "$(grep -cE "$squares" "$d/heat.svg")" = 3 ] &&
  [ "$(tail -1 "$d/heat.svg")" = '</svg>' ]; then
  echo "ok the picture's squares"
else
  echo "not ok the picture's squares: $(head -c 300 "$d/heat.svg" | tr '\n' '|')"
  status=1
fi
check 'nowhere to draw' 1 'No such file' experts "$d/own.so" --data "$d/text" \
  --ckpt "$d/own.ck" --vocab "$d/words" -o "$d/none/heat.svg"

# ---- a layer of models/lib, and models that tell nothing ---------------------------

vocab=
small='-D V=256 -D D=16 -D B=2 -D T=4'
trained lm "$d/text" models/lm_moe.dsl $small -D N=4 -D H=8 -D K=2
check 'a layer of the library' 0 '^lm/moe: [0-9]* choices of [1-4] experts' \
  experts "$d/lm.so" --data "$d/text" --ckpt "$d/lm.ck"
printf 123456789 >"$d/nine"
check 'other entries' 1 'entry train does not report who goes' \
  experts "$d/lm.so" --data "$d/nine" --ckpt "$d/lm.ck" --entry train
trained dense "$d/text" models/lm_wide.dsl $small -D H=8
check 'no experts' 1 'entry eval does not report who goes to which expert: PATH/chosen' \
  experts "$d/dense.so" --data "$d/text" --ckpt "$d/dense.ck"
check 'no text' 2 'experts: --data FILE is missing' experts "$d/lm.so" --ckpt "$d/lm.ck"
check 'no checkpoint' 2 'experts: --ckpt DIR is missing' experts "$d/lm.so" --data "$d/text"
check 'a count' 2 "'-1' is not a whole number" experts "$d/lm.so" --data "$d/text" \
  --ckpt "$d/lm.ck" --top -1
exit $status
