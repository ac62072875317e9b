/* runtime_ckpt.c: saving, loading in whole and in part, pruning, and
 * checkpoints that were cut, edited or are of another model. */
#include "tiny.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { V = 256 };
static char text[1000];

static void train(Tiny t, MoertText *x, int steps) {
  MoertTextEvent event;
  for (int i = 0; i < steps; i++)
    if (moert_text_next(x, &event) || moert_step(t.s, "train")) exit(1);
}

static MoertText *open_text(Tiny t) {
  MoertText *x;
  write_file(scratch("text"), text, sizeof text);
  if (moert_text_open(t.s, "train", scratch("text"), MOERT_TEXT_TRAIN, &x))
    exit(1);
  return x;
}

/* All slots, one after the other. */
static void snapshot(Tiny t, float out[3][V]) {
  memset(out, 0, sizeof(float[3][V]));
  moert_get(t.s, "lm/w", out[0], sizeof out[0]);
  moert_get(t.s, "train/lm/w/m", out[1], sizeof out[1]);
  moert_get(t.s, "train/seen", out[2], 16);
}

/* 7 steps at once, or 4, saved, loaded elsewhere, and 3. */
static void test_resume(void) {
  float want[3][V], got[3][V];
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.seed = 5});
  MoertText *x = open_text(t);
  moert_set_option(t.s, "lr", 0.75);
  train(t, x, 4);
  CHECK_OK("save", moert_save(t.s, scratch("a/b/ck"), moert_text_cursor(x)));
  train(t, x, 3);
  snapshot(t, want);
  moert_text_close(x);
  tiny_close(t);

  t = tiny_open("tiny.so", (MoertSessionOptions){.seed = 99});
  x = open_text(t);
  int64_t cursor;
  double lr;
  CHECK_OK("load", moert_load(t.s, scratch("a/b/ck"), NULL, &cursor));
  moert_text_seek(x, cursor);
  moert_get_option(t.s, "lr", &lr);
  CHECK("resume: where it was",
        cursor == 4 && moert_steps_done(t.s) == 4 && lr == 0.75 &&
            t.s->seed == 5,
        "cursor %lld, step %lld, lr %g, seed %u", (long long)cursor,
        (long long)moert_steps_done(t.s), lr, (unsigned)t.s->seed);
  train(t, x, 3);
  snapshot(t, got);
  CHECK("resume: bit for bit", memcmp(want, got, sizeof got) == 0,
        "they differ");
  moert_text_close(x);
  tiny_close(t);
}

static void test_partial(void) {
  float before[3][V], after[3][V];
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  const char *dir = scratch("a/b/ck");
  snapshot(t, before);
  CHECK_FAILS("part: no match", moert_load(t.s, dir, "lm/x*", NULL),
              MOERT_NOT_FOUND, "no parameter's path matches 'lm/x*'");
  CHECK_OK("part: load", moert_load(t.s, dir, "lm/*", NULL));
  snapshot(t, after);
  CHECK("part: parameters alone",
        memcmp(before[0], after[0], sizeof before[0]) != 0 &&
            memcmp(before[1], after[1], 2 * sizeof before[1]) == 0 &&
            moert_steps_done(t.s) == 0,
        "not so");
  MoertSession *s = t.s;
  float w[V], from_file[V];
  moert_get(s, "lm/w", w, sizeof w);
  memset(from_file, 0, sizeof from_file);
  moert_put(s, "lm/w", from_file, sizeof from_file);
  CHECK_OK("part: one file",
           moert_load(s, scratch("a/b/ck/step-00000004/params.safetensors"),
                      "*", NULL));
  moert_get(s, "lm/w", from_file, sizeof w);
  CHECK("part: the same", memcmp(w, from_file, sizeof w) == 0, "they differ");
  tiny_close(t);
}

static void test_other_model(void) {
  Tiny t = tiny_open("tiny_rows.so", (MoertSessionOptions){0});
  CHECK_FAILS("other model: shape",
              moert_load(t.s, scratch("a/b/ck"), "*", NULL), MOERT_BAD_DATA,
              "params.safetensors: tensor 'lm/w' is F32[256] in the file, "
              "F32[16, 16] in the model");
  tiny_close(t);
  t = tiny_open("tiny_b.so", (MoertSessionOptions){0});
  CHECK_OK("other batch: parameters",
           moert_load(t.s, scratch("a/b/ck"), "*", NULL));
  CHECK_FAILS("other batch: state",
              moert_load(t.s, scratch("a/b/ck"), NULL, NULL), MOERT_BAD_DATA,
              "tensor 'train/seen' is F32[4] in the file");
  tiny_close(t);
}

/* ---- damage -------------------------------------------------------------- */

/* Copies the checkpoint to `bad`, for a test to spoil. */
static void copy_checkpoint(void) {
  char command[600];
  snprintf(command, sizeof command, "rm -rf %s; cp -r %s %s", scratch("bad"),
           scratch("a/b/ck"), scratch("bad"));
  if (system(command)) exit(1);
}

static void flip_byte(const char *path, long at) {
  int fd = open(path, O_RDWR);
  char c = 0;
  if (at < 0) at += (long)lseek(fd, 0, SEEK_END);
  /* White space in JSON means nothing. */
  while (pread(fd, &c, 1, at) == 1 && (c == '\t' || c == '\n'))
    at++;
  c ^= 4;
  if (pwrite(fd, &c, 1, at) != 1) exit(1);
  close(fd);
}

/* What is loaded is `bad`; nothing may change. */
static void rejects(const char *name, MoertStatus status, const char *why) {
  float before[3][V], after[3][V];
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  snapshot(t, before);
  CHECK_FAILS(name, moert_load(t.s, scratch("bad"), NULL, NULL), status, why);
  snapshot(t, after);
  CHECK("damage: nothing changed", memcmp(before, after, sizeof after) == 0,
        "%s: it changed", name);
  tiny_close(t);
}

static void test_damage(void) {
  static const char *const files[] = {"params.safetensors", "optim.safetensors",
                                      "state.safetensors"};
  char path[64];
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "bad/step-00000004/%s", files[i]);
    copy_checkpoint();
    flip_byte(scratch(path), -1);
    rejects("damage: edited", MOERT_BAD_DATA, "changed after it was saved");
    copy_checkpoint();
    if (truncate(scratch(path), 100)) exit(1);
    rejects("damage: truncated", MOERT_BAD_DATA, "truncated: 100 bytes");
    copy_checkpoint();
    if (truncate(scratch(path), 0)) exit(1);
    rejects("damage: emptied", MOERT_BAD_DATA, "truncated: 0 bytes");
    copy_checkpoint();
    unlink(scratch(path));
    rejects("damage: removed", MOERT_BAD_DATA, files[i]);
  }
  for (long at = 20; at < 200; at += 45) {
    copy_checkpoint();
    flip_byte(scratch("bad/step-00000004/meta.json"), at);
    Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
    MoertStatus st = moert_load(t.s, scratch("bad"), NULL, NULL);
    CHECK("damage: meta.json", st == MOERT_BAD_DATA || st == MOERT_UNSUPPORTED,
          "%s: %s", moert_status_name(st), moert_error());
    tiny_close(t);
  }
  copy_checkpoint();
  write_file(scratch("bad/latest"), "../../etc", 9);
  rejects("damage: latest", MOERT_BAD_DATA, "does not name a checkpoint");
  copy_checkpoint();
  write_file(scratch("bad/latest"), "step-00000009", 13);
  rejects("damage: latest names none", MOERT_BAD_DATA, "step-00000009");
  unlink(scratch("bad/latest"));
  rename(scratch("bad/step-00000004"), scratch("bad/other"));
  rejects("damage: no checkpoint", MOERT_NOT_FOUND, "no checkpoint there");
  rename(scratch("bad/other"), scratch("bad/step-00000004"));
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  CHECK_OK("no latest: the newest",
           moert_load(t.s, scratch("bad"), NULL, NULL));
  CHECK("no latest: its step", moert_steps_done(t.s) == 4, "%lld steps",
        (long long)moert_steps_done(t.s));
  tiny_close(t);
}

/* Files of other programs, with anything in their header. */
static void test_headers(void) {
  static const struct {
    const char *name, *header, *why;
  } bad[] = {
      {"header: no JSON", "hello", "bad header"},
      {"header: a list", "[]", "bad header"},
      {"header: no dtype", "{\"lm/w\": {\"shape\": [1]}}", "'lm/w'"},
      {"header: outside",
       "{\"lm/"
       "w\":{\"dtype\":\"F32\",\"shape\":[256],\"data_offsets\":[0,1024]}}",
       "'lm/w'"},
      {"header: backwards",
       "{\"lm/w\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,4]}}",
       "'lm/w'"},
      {"header: negative",
       "{\"lm/w\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[-4,-4]}}",
       "'lm/w'"},
      {"header: size",
       "{\"lm/w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
       "'lm/w'"},
      {"header: huge shape",
       "{\"lm/w\":{\"dtype\":\"F32\",\"shape\":[9e15,9e15,9e15],"
       "\"data_offsets\":[0,8]}}",
       "'lm/w'"},
      {"header: too many dims",
       "{\"lm/w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],"
       "\"data_offsets\":[0,4]}}",
       "'lm/w'"},
      {"header: another tensor", "{}", "tensor 'lm/w' is missing"},
  };
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  for (size_t i = 0; i < COUNT_OF(bad); i++) {
    char file[512] = {0};
    uint64_t n = strlen(bad[i].header);
    memcpy(file, &n, 8);
    memcpy(file + 8, bad[i].header, n);
    write_file(scratch("x.safetensors"), file, 8 + n + 16);
    CHECK_FAILS(bad[i].name,
                moert_load(t.s, scratch("x.safetensors"), "*", NULL),
                MOERT_BAD_DATA, bad[i].why);
  }
  write_file(scratch("x.safetensors"), "\xff\xff\xff\xff\xff\xff\xff\x7f{}",
             10);
  CHECK_FAILS("header: too long",
              moert_load(t.s, scratch("x.safetensors"), "*", NULL),
              MOERT_BAD_DATA, "not a whole safetensors file");
  tiny_close(t);
}

/* ---- saving again, and failing to ---------------------------------------- */

static bool exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

static void test_prune(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  const char *dir = "many";
  for (int64_t step = 1; step <= 5; step++) {
    moert_set_steps_done(t.s, step);
    CHECK_OK("prune: save", moert_save(t.s, scratch(dir), 0));
  }
  CHECK_OK("prune", moert_prune(scratch(dir), 2));
  CHECK("prune: the newest stay",
        !exists(scratch("many/step-00000003")) &&
            exists(scratch("many/step-00000004")) &&
            exists(scratch("many/step-00000005")),
        "not so");
  moert_set_steps_done(t.s, 4); /* as after going back */
  CHECK_OK("save: over an older one", moert_save(t.s, scratch(dir), 77));
  int64_t cursor;
  CHECK_OK("save: newest", moert_load(t.s, scratch(dir), NULL, &cursor));
  CHECK("save: it is the one", cursor == 77, "%lld", (long long)cursor);
  CHECK_OK("prune: latest stays", moert_prune(scratch(dir), 1));
  CHECK("prune: not the latest", exists(scratch("many/step-00000004")),
        "it is gone");
  tiny_close(t);
}

/* No more than `bytes` may be written to any file. */
static void test_full_disk(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  moert_set_steps_done(t.s, 1);
  CHECK_OK("full disk: before", moert_save(t.s, scratch("full"), 11));
  signal(SIGXFSZ, SIG_IGN);
  for (rlim_t bytes = 0; bytes < 1100; bytes += 100) {
    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
    moert_set_steps_done(t.s, 2);
    MoertStatus st = moert_save(t.s, scratch("full"), 22);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK("full disk: said",
          st == MOERT_IO && strstr(moert_error(), "checkpoint not saved: ") &&
              strstr(moert_error(), "File too large"),
          "%s: %s", moert_status_name(st), moert_error());
  }
  int64_t cursor;
  CHECK_OK("full disk: the old one is whole",
           moert_load(t.s, scratch("full"), NULL, &cursor));
  CHECK("full disk: it is the old one", cursor == 11, "%lld",
        (long long)cursor);
  char command[300];
  snprintf(command, sizeof command, "test $(ls -A %s | wc -l) = 2",
           scratch("full"));
  CHECK("full disk: nothing is left over", system(command) == 0, "something");
  CHECK_FAILS("save: below a file", moert_save(t.s, scratch("text/x"), 0),
              MOERT_IO, "Not a directory");
  tiny_close(t);
}

int main(void) {
  some_text(text, sizeof text);
  test_resume();
  test_partial();
  test_other_model();
  test_damage();
  test_headers();
  test_prune();
  test_full_disk();
  return scratch_remove() || failures != 0;
}
