/* runtime_pairs.c: sentences and their translations as batches: each where it
 * belongs, in an order of its own each round, and files that will not do. */
#include "tiny.h"

enum { PAIRS = 40, WORD = 12 };

/* Pair i is told apart by its first letters; its sentences have other lengths.
 */
static int source_length(int i) {
  return 1 + i * 7 % 9;
}
static int target_length(int i) {
  return 1 + (i * 5 + 3) % 8;
}
static char source_at(int i, int k) {
  return (char)(k == 0 ? 'A' + i : 'a' + k);
}
static char target_at(int i, int k) {
  return (char)(k == 0 ? 'A' + i : 'n' + k);
}

static void write_pairs(int sources, int targets, bool last_end) {
  static char text[PAIRS * (WORD + 1)];
  size_t n = 0;
  for (int i = 0; i < sources; i++) {
    for (int k = 0; k < source_length(i); k++)
      text[n++] = source_at(i, k);
    text[n++] = '\n';
  }
  write_file(scratch("source"), text, n - !last_end);
  n = 0;
  for (int i = 0; i < targets; i++) {
    for (int k = 0; k < target_length(i); k++)
      text[n++] = target_at(i, k);
    text[n++] = '\n';
  }
  write_file(scratch("target"), text, n - !last_end);
}

static MoertText *open_pairs(Tiny t, const char *entry, MoertTextMode mode) {
  MoertText *x;
  CHECK_OK("open", moert_pairs_open(t.s, entry, scratch("source"),
                                    scratch("target"), mode, &x));
  return x;
}

static void *input(Tiny t, const char *entry, const char *name) {
  void *data;
  size_t bytes;
  return moert_input(t.s, entry, name, &data, &bytes) ? NULL : data;
}

/* Which pair row `b` holds, -1 for none; *right whether all of it is. */
static int pair_of(Tiny t, const char *entry, int width, int b, bool *right) {
  const int32_t *x = (int32_t *)input(t, entry, "x") + b * width;
  const int32_t *y = (int32_t *)input(t, entry, "y") + b * width;
  const int32_t *z = (int32_t *)input(t, entry, "labels") + b * width;
  const float *xt = (float *)input(t, entry, "x_there") + b * width;
  const float *yt = (float *)input(t, entry, "y_there") + b * width;
  int i = xt[0] != 0 ? x[0] - 'A' : -1;
  int n = i < 0 ? -1 : source_length(i), m = i < 0 ? -1 : target_length(i);
  for (int k = 0; k < width; k++) {
    int want_x = k < n ? source_at(i, k) : k == n ? '\n' : 0;
    int want_z = k < m ? target_at(i, k) : k == m ? '\n' : 0;
    int want_y = k > m ? 0 : k == 0 ? '\n' : target_at(i, k - 1);
    *right &= x[k] == want_x && y[k] == want_y && z[k] == want_z;
    *right &= (xt[k] != 0) == (k <= n) && (yt[k] != 0) == (k <= m);
  }
  return i;
}

static int width_of(const char *entry) {
  return atoi(strchr(entry, 'S') + 1);
}

/* A batch's pairs are counted; whether it is all right. */
static bool take_batch(Tiny t, MoertText *x, int *count, uint64_t *order) {
  MoertTextEvent event;
  bool right = moert_text_next(x, &event) == MOERT_OK;
  const char *entry = moert_text_entry(x);
  int width = width_of(entry);
  for (int b = 0; right && b < (width == 4 ? 3 : 2); b++) {
    int i = pair_of(t, entry, width, b, &right);
    if (i < 0) continue;
    int most = source_length(i) > target_length(i) ? source_length(i)
                                                   : target_length(i);
    right &= width == (most < 4 ? 4 : most < 8 ? 8 : 16);
    count[i]++;
    *order = *order * 31 + (uint64_t)i;
  }
  return right;
}

static void test_train(void) {
  Tiny t = tiny_open("pairs.so", (MoertSessionOptions){.seed = 3});
  write_pairs(PAIRS, PAIRS, true);
  MoertText *x = open_pairs(t, "train", MOERT_TEXT_TRAIN);
  int64_t batches = moert_text_batches(x);
  uint64_t order[3] = {0};
  bool right = true, once = true;
  for (int round = 0; round < 3; round++) {
    int count[PAIRS] = {0}, left = 0;
    for (int64_t i = 0; i < batches; i++)
      right &= take_batch(t, x, count, &order[round]);
    for (int i = 0; i < PAIRS; i++) {
      once &= count[i] <= 1;
      left += count[i] == 0;
    }
    once &= left <= 2 + 1 + 1; /* what does not fill a batch of its size */
  }
  CHECK("train: sentences", right, "they differ");
  CHECK("train: no pair twice in a round", once, "not so");
  CHECK("train: each round its own order",
        order[0] != order[1] && order[1] != order[2], "the same");
  CHECK("train: nothing is left out", moert_text_left_out(x) == 0, "%lld",
        (long long)moert_text_left_out(x));
  uint64_t again = 0;
  int count[PAIRS] = {0};
  moert_text_seek(x, batches);
  for (int64_t i = 0; i < batches; i++)
    right &= take_batch(t, x, count, &again);
  CHECK("train: a round begun again", again == order[1], "another order");
  moert_text_close(x);
  tiny_close(t);
  t = tiny_open("pairs.so", (MoertSessionOptions){.seed = 4});
  x = open_pairs(t, "train", MOERT_TEXT_TRAIN);
  for (int64_t i = again = 0; i < batches; i++)
    right &= take_batch(t, x, count, &again);
  CHECK("train: another seed", again != order[0], "the same order");
  moert_text_close(x);
  tiny_close(t);
}

static void test_cover(void) {
  Tiny t = tiny_open("pairs.so", (MoertSessionOptions){0});
  for (int end = 0; end < 2; end++) {
    int count[PAIRS] = {0};
    uint64_t order = 0;
    bool right = true;
    MoertTextEvent event;
    write_pairs(PAIRS - 1, PAIRS - 1, end);
    MoertText *x = open_pairs(t, "eval", MOERT_TEXT_COVER);
    for (int64_t i = 0; i < moert_text_batches(x); i++)
      right &= take_batch(t, x, count, &order);
    for (int i = 0; i < PAIRS; i++)
      right &= count[i] == (i < PAIRS - 1);
    right &= moert_text_next(x, &event) == MOERT_OK && event == MOERT_TEXT_END;
    CHECK(end ? "cover: every pair once" : "cover: a last line without an end",
          right, "not so");
    moert_text_close(x);
  }
  tiny_close(t);
}

static void test_sizes(void) {
  Tiny t = tiny_open("pairs.so", (MoertSessionOptions){0});
  write_pairs(PAIRS, PAIRS, true);
  MoertText *x = open_pairs(t, "eval.S8", MOERT_TEXT_COVER);
  int64_t wanted = 0, tokens = 0, kept = 0;
  for (int i = 0; i < PAIRS; i++) {
    bool fits = source_length(i) < 8 && target_length(i) < 8;
    wanted += !fits;
    kept += fits;
    tokens += fits ? target_length(i) + 1 : 0;
  }
  CHECK("one size: what is too long", moert_text_left_out(x) == wanted,
        "%lld, not %lld", (long long)moert_text_left_out(x), (long long)wanted);
  CHECK("one size: batches", moert_text_batches(x) == (kept + 1) / 2, "%lld",
        (long long)moert_text_batches(x));
  CHECK("one size: tokens",
        moert_text_batch_tokens(x) == tokens / ((kept + 1) / 2), "%lld",
        (long long)moert_text_batch_tokens(x));
  moert_text_close(x);
  tiny_close(t);
}

static void fails(Tiny t, const char *name, const char *entry,
                  MoertStatus status, const char *want) {
  MoertText *x;
  CHECK_FAILS(name,
              moert_pairs_open(t.s, entry, scratch("source"),
                               scratch("target"), MOERT_TEXT_TRAIN, &x),
              status, want);
  CHECK("nothing comes out", !x, "not NULL");
}

static void test_bad(void) {
  Tiny t = tiny_open("pairs.so", (MoertSessionOptions){0});
  write_pairs(PAIRS, PAIRS - 2, true);
  fails(t, "bad: fewer targets", "train", MOERT_BAD_DATA,
        "target ends after line 38");
  write_pairs(PAIRS - 3, PAIRS, true);
  fails(t, "bad: fewer sources", "train", MOERT_BAD_DATA,
        "source ends after line 37");
  write_pairs(1, 1, true);
  fails(t, "bad: no batch", "train", MOERT_BAD_DATA, "no batch can be filled");
  fails(t, "bad: no such entry", "learn", MOERT_INVALID,
        "entry learn takes no pairs");
  write_file(scratch("source"), "ab\nc\xff\n", 6);
  write_file(scratch("target"), "ab\nc\n", 5);
  fails(t, "bad: out of bounds", "train", MOERT_BAD_DATA,
        "source:2: byte 1 is 255, the model takes bytes below 200");
  write_file(scratch("source"), "", 0);
  fails(t, "bad: empty", "train", MOERT_BAD_DATA, "the file is empty");
  tiny_close(t);
  t = tiny_open("pairs_shift.so", (MoertSessionOptions){0});
  write_pairs(PAIRS, PAIRS, true);
  fails(t, "bad: shift", "train", MOERT_INVALID, "a target has no shift of 2");
  tiny_close(t);
}

int main(void) {
  test_train();
  test_cover();
  test_sizes();
  test_bad();
  return scratch_remove() || failures != 0;
}
