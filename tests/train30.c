/* train30.c: trains a compiled model on a text file, through moert.h alone.
 *   train30 MODEL.so FILE STEPS */
#include "../runtime/moert.h"

#include <stdio.h>
#include <stdlib.h>

static int failed(void) {
  fprintf(stderr, "train30: %s\n", moert_error());
  return 1;
}

int main(int argc, char **argv) {
  MoertModel *model;
  MoertSession *s;
  MoertText *text;
  MoertTextEvent event;
  double loss = 0;
  if (argc != 4) return 2;
  if (moert_open(argv[1], &model)) return failed();
  if (moert_session(model, NULL, &s)) return failed();
  if (moert_text_open(s, "train", argv[2], MOERT_TEXT_TRAIN, &text))
    return failed();
  for (int step = 1; step <= atoi(argv[3]); step++) {
    if (moert_text_next(text, &event) || moert_step(s, "train") ||
        moert_report(s, "train", "loss", &loss))
      return failed();
    printf("%d %.6f\n", step, loss);
  }
  moert_text_close(text);
  moert_session_free(s);
  moert_close(model);
  return 0;
}
