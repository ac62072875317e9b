/* runtime_data.c: text as batches: every position where it belongs, the end of
 * a file, and files that will not do. */
#include "tiny.h"

enum { B = 4, T = 8 };
static char text[1000];

static MoertText *open_text(Tiny t, const char *entry, size_t n,
                            MoertTextMode mode) {
  MoertText *x;
  write_file(scratch("text"), text, n);
  CHECK_OK("open", moert_text_open(t.s, entry, scratch("text"), mode, &x));
  return x;
}

static void *input(Tiny t, const char *entry, const char *name) {
  void *data;
  size_t bytes;
  return moert_input(t.s, entry, name, &data, &bytes) ? NULL : data;
}

/* Three rounds over 331 bytes: streams of 82, of which 80 are used. */
static void test_train(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  MoertText *x = open_text(t, "train", 331, MOERT_TEXT_TRAIN);
  const int32_t *xs = input(t, "train", "x"), *ys = input(t, "train", "y");
  bool right = true, starts = true;
  float seen[B];
  for (int i = 0; i < 30; i++) {
    MoertTextEvent event;
    moert_text_next(x, &event);
    starts &= (event == MOERT_TEXT_START) == (i % 10 == 0);
    for (int b = 0; b < B; b++)
      for (int k = 0; k < T; k++) {
        int at = b * 82 + i % 10 * T + k;
        right &= moert_text_at(x, b * T + k) == at;
        right &= moert_text_token(x, at) == text[at];
        right &= xs[b * T + k] == text[at] && ys[b * T + k] == text[at + 1];
      }
    moert_step(t.s, "train");
  }
  moert_get(t.s, "train/seen", seen, sizeof seen);
  CHECK("train: bytes", right, "they differ");
  CHECK("train: rounds", starts, "wrong events");
  CHECK("train: state is reset", seen[0] == 10 * T, "%g", (double)seen[0]);
  CHECK("train: cursor", moert_text_cursor(x) == 30, "%lld",
        (long long)moert_text_cursor(x));
  CHECK("train: sizes",
        moert_text_batches(x) == 10 && moert_text_batch_tokens(x) == B * T,
        "%lld, %lld", (long long)moert_text_batches(x),
        (long long)moert_text_batch_tokens(x));
  moert_text_seek(x, 13);
  MoertTextEvent event;
  moert_text_next(x, &event);
  CHECK("train: seek", xs[0] == text[3 * T] && event == MOERT_TEXT_BATCH,
        "another batch");
  moert_text_close(x);
  tiny_close(t);
}

/* Every prediction of a file of n bytes, once. */
static bool covers(Tiny t, size_t n) {
  static int count[sizeof text];
  MoertText *x = open_text(t, "eval", n, MOERT_TEXT_COVER);
  const int32_t *xs = input(t, "eval", "x"), *ys = input(t, "eval", "y");
  const float *mask = input(t, "eval", "counts");
  const int64_t stream = ((int64_t)n - 1 + B - 1) / B;
  bool right = true;
  memset(count, 0, sizeof count);
  for (int i = 0;; i++) {
    MoertTextEvent event;
    moert_text_next(x, &event);
    if (event == MOERT_TEXT_END) break;
    for (int k = 0; k < B * T; k++) {
      int64_t at = k / T * stream + i * T + k % T;
      if (mask[k] == 0) continue;
      right &= mask[k] == 1 && at + 1 < (int64_t)n && xs[k] == text[at] &&
               ys[k] == text[at + 1];
      count[at]++;
    }
  }
  for (size_t i = 0; i < sizeof text; i++)
    right &= count[i] == (i + 1 < n);
  moert_text_close(x);
  return right;
}

static void test_cover(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  bool right = true;
  for (size_t n = 2; n < 300; n += n < 80 ? 1 : 13)
    right &= covers(t, n);
  CHECK("cover: every prediction once", right, "not so");
  tiny_close(t);
}

static void fails(Tiny t, const char *name, const char *entry, size_t n,
                  MoertTextMode mode, const char *want) {
  MoertText *x;
  write_file(scratch("text"), text, n);
  CHECK_FAILS(name, moert_text_open(t.s, entry, scratch("text"), mode, &x),
              entry[0] == 'd' ? MOERT_INVALID : MOERT_BAD_DATA, want);
  CHECK("nothing comes out", !x, "not NULL");
}

static void test_bad(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  MoertText *x;
  CHECK_FAILS("bad: no file", moert_text_open(t.s, "train", "/nowhere", 0, &x),
              MOERT_NOT_FOUND, "/nowhere: No such file");
  CHECK_FAILS("bad: a directory", moert_text_open(t.s, "train", "/tmp", 0, &x),
              MOERT_INVALID, "not a file");
  fails(t, "bad: empty", "train", 0, MOERT_TEXT_TRAIN, "the file is empty");
  fails(
      t, "bad: short", "train", 32, MOERT_TEXT_TRAIN,
      "32 bytes are fewer than a batch takes: 33, for 4 sequences of 8 and 1");
  fails(t, "bad: one byte", "eval", 1, MOERT_TEXT_COVER, "it takes 2");
  fails(t, "bad: takes no text", "decode", 100, MOERT_TEXT_TRAIN,
        "takes no text");
  CHECK_OK("just enough",
           (write_file(scratch("text"), text, 33),
            moert_text_open(t.s, "train", scratch("text"), 0, &x)));
  moert_text_close(x);
  tiny_close(t);
  t = tiny_open("tiny_below.so", (MoertSessionOptions){0});
  fails(t, "bad: out of bounds", "train", 100, MOERT_TEXT_TRAIN,
        "the model takes bytes below 100");
  CHECK_OK("random data", moert_text_open(t.s, "train", NULL, 0, &x));
  const int32_t *xs = input(t, "train", "x");
  MoertTextEvent event;
  bool right = moert_text_next(x, &event) == MOERT_OK;
  for (int i = 0; i < B * T; i++)
    right &= xs[i] >= 0 && xs[i] < 100;
  CHECK("random data: in bounds", right, "not so");
  moert_text_close(x);
  tiny_close(t);
}

int main(void) {
  some_text(text, sizeof text);
  test_train();
  test_cover();
  test_bad();
  return scratch_remove() || failures != 0;
}
