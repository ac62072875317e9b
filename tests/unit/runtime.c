/* runtime.c: opening models, sessions, steps, loops, profiles, steps that are
 * not finite; with the models of tiny_model.c. */
#include "tiny.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { B = 4, T = 8, V = 256 };

/* ---- opening ------------------------------------------------------------- */

static void open_other(const char *name, const void *data, size_t bytes,
                       MoertStatus status, const char *text) {
  MoertModel *m;
  const char *path = scratch("model.so");
  write_file(path, data, bytes);
  CHECK_FAILS(name, moert_open(path, &m), status, text);
}

static void test_open(void) {
  MoertModel *m;
  CHECK_FAILS("open: no file", moert_open("/nowhere/x.so", &m), MOERT_NOT_FOUND,
              "/nowhere/x.so: No such file");
  CHECK("open: nulls its result", !m, "not NULL");
  open_other("open: a text", "hello", 5, MOERT_BAD_DATA,
             "not a compiled model");
  open_other("open: an empty file", "", 0, MOERT_BAD_DATA,
             "not a compiled model");
  CHECK_FAILS("open: a directory", moert_open("/tmp", &m), MOERT_BAD_DATA,
              "not a file");
  CHECK_FAILS("open: another library", moert_open(beside("not_model.so"), &m),
              MOERT_BAD_DATA, "not a compiled model");
  CHECK_FAILS("open: another version", moert_open(beside("tiny_abi.so"), &m),
              MOERT_UNSUPPORTED, "version 99 of the runtime, this one is");
  CHECK_FAILS("open: a missing feature",
              moert_open(beside("tiny_feature.so"), &m), MOERT_UNSUPPORTED,
              "lacks: avx999;");
  const char *whole;
  size_t bytes;
  CHECK_OK("open: map", rt_map_file(beside("tiny.so"), &whole, &bytes));
  for (size_t part = 1; part < 4; part++)
    open_other("open: truncated", whole, bytes * part / 4, MOERT_BAD_DATA,
               "truncated");
  rt_unmap(whole, bytes);
}

static void test_features(void) {
  CHECK("cpuid: sse2 is there", rt_cpu_has("sse2"), "it is not");
  CHECK("cpuid: as the compiler sees it",
        rt_cpu_has("avx2") == !!__builtin_cpu_supports("avx2") &&
            rt_cpu_has("avx512f") == !!__builtin_cpu_supports("avx512f") &&
            rt_cpu_has("fma") == !!__builtin_cpu_supports("fma") &&
            rt_cpu_has("bmi2") == !!__builtin_cpu_supports("bmi2"),
        "it differs");
  CHECK("cpuid: unknown names", !rt_cpu_has("avx999"), "it is there");
}

/* From here on the system refuses arch_prctl. */
static bool refuse(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog program = {COUNT_OF(code), code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Tiles need leave; other features do not. In a process of its own. */
static void test_permit(void) {
  enum { CANNOT = 2 };
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (!refuse()) _exit(CANNOT);
    bool ok = rt_cpu_permit("avx2") == MOERT_OK &&
              rt_cpu_permit("amx-tile") == MOERT_UNSUPPORTED &&
              strstr(moert_error(), "--mcpu=x86-64-v4");
    _exit(!ok);
  }
  int status = -1;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
    printf("skip cpuid: tiles refused: no seccomp\n");
  else
    CHECK("cpuid: tiles refused", status == 0, "status %d", status);
  CHECK("cpuid: tiles allowed",
        !rt_cpu_has("amx-tile") || rt_cpu_permit("amx-tile") == MOERT_OK, "%s",
        moert_error());
}

static void test_hash(void) {
  CHECK("hash: empty", rt_hash("", 0) == 0xEF46DB3751D8E999, "%llx",
        (unsigned long long)rt_hash("", 0));
  CHECK("hash: abc", rt_hash("abc", 3) == 0x44BC2CF5AD770999, "%llx",
        (unsigned long long)rt_hash("abc", 3));
  const char *long_text = "Nobody inspects the spammish repetition";
  CHECK("hash: 39 bytes", rt_hash(long_text, 39) == 0xFBCEA83C8A378BF1, "%llx",
        (unsigned long long)rt_hash(long_text, 39));
}

/* In pieces of any size, the same. */
static void test_hash_pieces(void) {
  char text[500];
  some_text(text, sizeof text);
  bool same = true;
  for (size_t n = 0; n < sizeof text; n += 7)
    for (size_t piece = 1; piece < 80; piece += 3) {
      RtHash h;
      rt_hash_start(&h);
      for (size_t at = 0; at < n; at += piece)
        rt_hash_add(&h, text + at, n - at < piece ? n - at : piece);
      same &= rt_hash_end(&h) == rt_hash(text, n);
    }
  CHECK("hash: in pieces", same, "another");
}

static void test_words(void) {
  static const char *const words[] = {"train", "eval", "sample"};
  const char *w = rt_nearest("trian", words, 3, sizeof words[0]);
  CHECK("word: a near one", w && strcmp(w, "train") == 0, "%s", w ? w : "none");
  w = rt_nearest("zebra-crossing", words, 3, sizeof words[0]);
  CHECK("word: none is near", !w, "%s", w);
}

/* ---- sessions and steps -------------------------------------------------- */

static void fill(MoertSession *s, const char *entry, int from) {
  void *x, *y;
  size_t bytes;
  CHECK_OK("input x", moert_input(s, entry, "x", &x, &bytes));
  CHECK_OK("input y", moert_input(s, entry, "y", &y, &bytes));
  for (int i = 0; i < B * T; i++) {
    ((int32_t *)x)[i] = (from + i) % V;
    ((int32_t *)y)[i] = (from + i + 1) % V;
  }
}

static double report(MoertSession *s, const char *name) {
  double x;
  return moert_report(s, "train", name, &x) == MOERT_OK ? x : NAN;
}

static const float *probe(MoertSession *s, const char *name) {
  const void *data;
  size_t bytes;
  return moert_report_data(s, "train", name, &data, &bytes) == MOERT_OK ? data
                                                                        : NULL;
}

/* The probe `acc` of a loop backwards over time. */
static bool loop_is_right(const float *acc, int from) {
  for (int b = 0; b < B; b++) {
    float want = 0;
    for (int t = T - 1; t >= 0; t--)
      want = want * 0.5f + (float)((from + b * T + t) % V) + (float)t;
    if (acc[b] != want) return false;
  }
  return true;
}

static void test_step(int threads, int poison) {
  Tiny t = tiny_open(
      "tiny.so",
      (MoertSessionOptions){.threads = threads, .seed = 7, .poison = poison});
  MoertSession *s = t.s;
  fill(s, "train", 3);
  CHECK_OK("step", moert_step(s, "train"));
  double loss = report(s, "loss"), sum = 0, dot = 0;
  const float *p = probe(s, "p");
  for (int i = 0; i < V; i++) {
    sum += (double)p[i];
    dot += (double)p[i] * (double)p[i];
  }
  CHECK("step: loss", fabs(loss - log(V)) < 0.1, "%g", loss);
  CHECK("step: stages", fabs(sum - 1) < 1e-6, "sum %g", sum);
  CHECK("step: product", fabs(report(s, "dot") - dot) < 1e-6, "%g, not %g",
        report(s, "dot"), dot);
  CHECK("step: loop", loop_is_right(probe(s, "acc"), 3), "it differs");
  CHECK("step: state", probe(s, "seen")[1] == T, "%g",
        (double)probe(s, "seen")[1]);
  CHECK("step: counted", moert_steps_done(s) == 1, "%lld",
        (long long)moert_steps_done(s));
  for (int i = 0; i < 30; i++)
    moert_step(s, "train");
  CHECK("step: learns", report(s, "loss") < loss - 0.5, "%g",
        report(s, "loss"));
  CHECK("step: number", report(s, "step_in") == 30, "%g", report(s, "step_in"));
  CHECK("session: threads", moert_threads(s) == threads, "%d",
        moert_threads(s));
  tiny_close(t);
}

static void test_same_for_threads(void) {
  float w[2][V];
  for (int k = 0; k < 2; k++) {
    Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.threads = 1 + 3 * k});
    fill(t.s, "train", 0);
    for (int i = 0; i < 10; i++)
      moert_step(t.s, "train");
    CHECK_OK("get", moert_get(t.s, "lm/w", w[k], sizeof w[k]));
    tiny_close(t);
  }
  CHECK("threads: same numbers", memcmp(w[0], w[1], sizeof w[0]) == 0,
        "they differ");
}

static void test_seed(void) {
  float w[2][V];
  for (int k = 0; k < 2; k++) {
    Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.seed = (uint32_t)k});
    moert_get(t.s, "lm/w", w[k], sizeof w[k]);
    tiny_close(t);
  }
  CHECK("seed: other values", memcmp(w[0], w[1], sizeof w[0]) != 0, "the same");
}

/* Slabs as in tiny_model.c; the state slab is there twice. */
static void test_bytes(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.threads = 2});
  const MoertDesc *d = moert_desc(t.model);
  int64_t want = 2 * d->slab_bytes[2] + d->slab_bytes[0] + d->slab_bytes[1];
  for (int i = 0; i < d->n_entries; i++)
    want += d->entries[i].input_bytes + d->entries[i].report_bytes;
  want += d->entries[2].arena_bytes + 4 * V / 32 + 2 * 128;
  want += t.s->gemms.scratchpad_bytes;
  CHECK("memory: planned exactly", moert_planned_bytes(t.s) == want,
        "%lld, not %lld", (long long)moert_planned_bytes(t.s), (long long)want);
  tiny_close(t);
}

static void test_names(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  double x;
  void *data;
  size_t bytes;
  float w[V];
  CHECK_FAILS("names: entry", moert_step(t.s, "trian"), MOERT_NOT_FOUND,
              "no entry 'trian'; did you mean 'train'?");
  CHECK_FAILS("names: option", moert_set_option(t.s, "lrr", 1), MOERT_NOT_FOUND,
              "did you mean 'lr'?");
  CHECK_FAILS("names: an option that is no number",
              moert_set_option(t.s, "lr", NAN), MOERT_INVALID, "finite");
  CHECK_FAILS("names: slot", moert_get(t.s, "lm/ww", w, sizeof w),
              MOERT_NOT_FOUND, "did you mean 'lm/w'?");
  CHECK_FAILS("names: size", moert_put(t.s, "lm/w", w, 4), MOERT_INVALID,
              "has 1024 bytes, not 4");
  CHECK_FAILS("names: input", moert_input(t.s, "train", "z", &data, &bytes),
              MOERT_NOT_FOUND, "no input 'z'");
  CHECK_FAILS("names: report", moert_report(t.s, "train", "z", &x),
              MOERT_NOT_FOUND, "no report 'z'");
  CHECK_FAILS("names: not a scalar", moert_report(t.s, "train", "p", &x),
              MOERT_INVALID, "not a scalar");
  tiny_close(t);
}

static void test_reset(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  float seen[B], other[B];
  fill(t.s, "train", 0);
  moert_step(t.s, "train");
  fill(t.s, "eval", 0);
  moert_step(t.s, "eval");
  CHECK_OK("reset: one entry", moert_reset_state(t.s, "eval"));
  moert_get(t.s, "train/seen", seen, sizeof seen);
  moert_get(t.s, "eval/seen", other, sizeof other);
  CHECK("reset: only that one", seen[0] == T && other[0] == 0, "%g %g",
        (double)seen[0], (double)other[0]);
  CHECK_OK("reset: all", moert_reset_state(t.s, NULL));
  moert_get(t.s, "train/seen", seen, sizeof seen);
  CHECK("reset: all of them", seen[0] == 0, "%g", (double)seen[0]);
  CHECK_FAILS("reset: unknown", moert_reset_state(t.s, "x"), MOERT_NOT_FOUND,
              "no entry 'x'");
  tiny_close(t);
}

/* ---- not finite ---------------------------------------------------------- */

static void test_not_finite(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){0});
  float before[V], after[V], w[V];
  fill(t.s, "train", 0);
  moert_step(t.s, "train");
  moert_get(t.s, "lm/w", w, sizeof w);
  w[9] = 200; /* its exponential overflows */
  moert_put(t.s, "lm/w", w, sizeof w);
  moert_get(t.s, "train/lm/w/m", before, sizeof before);
  CHECK_FAILS("not finite: the operation", moert_step(t.s, "train"),
              MOERT_NOT_FINITE,
              "step 2 of entry train: not finite: at tiny.dsl:1:1: the result "
              "of record 0 (softmax) has 1 of 256 values that are not finite, "
              "the first is nan at 9");
  moert_get(t.s, "train/lm/w/m", after, sizeof after);
  CHECK("not finite: nothing changed", memcmp(before, after, sizeof after) == 0,
        "it changed");
  CHECK("not finite: not counted", moert_steps_done(t.s) == 1, "%lld",
        (long long)moert_steps_done(t.s));
  w[9] = INFINITY;
  moert_put(t.s, "lm/w", w, sizeof w);
  CHECK_FAILS("not finite: before anything", moert_step(t.s, "train"),
              MOERT_NOT_FINITE, "slot 'lm/w' has 1 of 256 values");
  tiny_close(t);
}

/* ---- peaks --------------------------------------------------------------- */

static void test_peaks(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.threads = 2});
  double rate;
  for (int i = 0; i < MOERT_DTYPE_COUNT; i++) {
    if (rt_dtype[i].kind == RT_FLOAT) {
      CHECK_OK("peaks: products", moert_peak_flops(t.s, i, &rate));
      CHECK("peaks: of products", rate > 1e6 && rate < 1e18, "%g", rate);
    } else {
      CHECK_FAILS("peaks: no float", moert_peak_flops(t.s, i, &rate),
                  MOERT_INVALID, "no products of dtype");
    }
  }
  CHECK_OK("peaks: copy", moert_peak_copy(t.s, &rate));
  CHECK("peaks: of a copy", rate > 1e6 && rate < 1e18, "%g", rate);
  tiny_close(t);
}

/* ---- tools --------------------------------------------------------------- */

static void test_tools(void) {
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.profile = 1});
  const double *seconds;
  const int64_t *calls;
  const MoertEntry *e = &moert_desc(t.model)->entries[2];
  fill(t.s, "train", 0);
  moert_step(t.s, "train");
  CHECK_OK("profile", moert_profile(t.s, 2, &seconds, &calls));
  CHECK("profile: calls", calls[0] == 1 && calls[5] == T && calls[6] == 0,
        "%lld %lld %lld", (long long)calls[0], (long long)calls[5],
        (long long)calls[6]);
  CHECK("profile: seconds", seconds[0] > 0 && seconds[0] < 10, "%g",
        seconds[0]);
  int64_t loop[MOERT_MAX_LOOPS] = {2};
  float *p = moert_address(t.s, 2, &e->records[0].args[1], NULL);
  memset(p, 0, 4 * V);
  CHECK_OK("one record", moert_run_record(t.s, 2, 0, NULL));
  CHECK("one record: ran", p[0] > 0, "%g", (double)p[0]);
  char *xs = moert_address(t.s, 2, &e->records[5].args[0], NULL);
  CHECK("address: loop index",
        (char *)moert_address(t.s, 2, &e->records[5].args[0], loop) - xs ==
            2 * 4 * B,
        "it differs");
  CHECK_FAILS("one record: no loops", moert_run_record(t.s, 2, 4, NULL),
              MOERT_INVALID, "no record 4 to run");
  tiny_close(t);
}

/* The host program's settings of OpenMP stay. */
static void test_team(void) {
  omp_set_num_threads(3);
  Tiny t = tiny_open("tiny.so", (MoertSessionOptions){.threads = 2});
  fill(t.s, "train", 0);
  moert_step(t.s, "train");
  CHECK("team: the caller's size", omp_get_max_threads() == 3, "%d",
        omp_get_max_threads());
  tiny_close(t);
  MoertSession *s;
  MoertModel *m;
  moert_open(beside("tiny.so"), &m);
  CHECK_FAILS("team: a silly size",
              moert_session(m, &(MoertSessionOptions){.threads = -1}, &s),
              MOERT_INVALID, "-1 threads");
  moert_close(m);
}

static void test_dtypes(void) {
  unsigned char bytes[8];
  static const double values[] = {0, 1, 255, 100};
  bool ok = true;
  for (int d = 0; d < MOERT_DTYPE_COUNT; d++)
    for (int i = 0; i < (rt_dtype[d].kind == RT_BOOL ? 2 : 4); i++) {
      rt_store(d, bytes, values[i]);
      ok = ok && rt_load(d, bytes) == values[i];
    }
  CHECK("dtypes: store and load", ok, "they differ");
  rt_store(MOERT_bf16, bytes, 1.00390625); /* half way: to even */
  CHECK("dtypes: bf16 rounds", rt_load(MOERT_bf16, bytes) == 1, "%g",
        rt_load(MOERT_bf16, bytes));
  rt_store(MOERT_i32, bytes, -5);
  CHECK("dtypes: negative", rt_load(MOERT_i32, bytes) == -5, "%g",
        rt_load(MOERT_i32, bytes));
}

int main(void) {
  test_open();
  test_features();
  test_permit();
  test_hash();
  test_hash_pieces();
  test_words();
  test_dtypes();
  test_step(1, 0);
  test_step(4, 1);
  test_step(9, 1);
  test_same_for_threads();
  test_seed();
  test_bytes();
  test_names();
  test_reset();
  test_not_finite();
  test_peaks();
  test_tools();
  test_team();
  return scratch_remove() || failures != 0;
}
