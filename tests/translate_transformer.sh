#!/bin/bash
# not under the sanitizers: translate.sh has another model of the same form
# mt_transformer.dsl: a small one learns a dictionary from pairs of sentences
# and translates by beam search, where each step sees what those before it kept;
# its gradients on four ranks are those of one.
source tests/checks.bash

# check NAME STATUS PATTERN ARGUMENTS...
check() { run "${@:1:3}" "$MOERUN" "${@:4}"; }

dictionary "$d/source" "$d/target"
head -50 "$d/source" >"$d/s"
head -50 "$d/target" >"$d/t"
check 'transformer: vocabulary' 0 '26 words' \
  vocab "$d/source" "$d/target" -o "$d/v"
pairs=(--data "$d/source" --target "$d/target" --vocab "$d/v" --quiet)

small="models/mt_transformer.dsl --keep-grads -D V=32 -D D=32 -D L=1 -D EVERY=1
  -D HEADS=2 -D P=0.0 -D W=192 -D WARMUP=20 -D BEAM=3 -D SENTENCES=8 -D N=4
  -D H=32 -D SHORT=8 -D MIDDLE=12 -D LONG=16"
"$MOEC" --target=cpu $small -o "$d/m.so" || exit 1
check 'transformer: pairs are trained on' 0 '"step": 1200' train "$d/m.so" \
  --threads 1 --steps 1200 --set lr=5e-3 "${pairs[@]}" --ckpt "$d/ck"
"$MOERUN" translate "$d/m.so" --threads 1 --data "$d/s" --vocab "$d/v" \
  --ckpt "$d/ck" --quiet >"$d/got"
check 'transformer: translated' 0 'BLEU = \(9[0-9]\|100\)' bleu "$d/got" "$d/t"

"$MOEC" --target=cpu $small --mesh data=2,expert=2 -o "$d/four.so" || exit 1
check 'transformer: gradients on four ranks' 0 '' verify "$d/m.so" \
  "$d/four.so" --threads 1 --timeout 120 "${pairs[@]}"
exit $status
