/* cuda.c: sessions on a GPU, with a program made by hand for both devices: the
 * same tables, bodies in C for the CPU, PTX for CUDA. All values are small
 * whole numbers, so both give the same bits. Where the machine has no driver,
 * the stand-ins of tests/cudasim take its place. */
#include "stand_ins.h"

#include <math.h>

enum { N = 64, SIDE = 8, TURNS = 3 };
enum { /* arena: bytes */
  AT_T = 0,
  AT_ROWS = AT_T + 4 * N,
  AT_ACC = AT_ROWS + 4 * N * TURNS,
  AT_C = AT_ACC + 4 * N,
  AT_D = AT_C + 4 * N,
  AT_INDEX = AT_D + 4 * N,
  ARENA = AT_INDEX + 64
};
enum { IN_X = 0, IN_LR = 4 * N, IN_STEP = IN_LR + 4, INPUTS = IN_STEP + 4 };
enum { /* reports */
  OUT_LOSS = 0,
  OUT_OK = 4,
  OUT_STEP = 8,
  OUT_ACC = 64,
  OUT_C = OUT_ACC + 4 * N,
  OUT_D = OUT_C + 4 * N,
  REPORTS = OUT_D + 4 * N
};

/* ---- kernels for the CPU ------------------------------------------------- */

#define BODY(name)                                                       \
  static void name(void *const *args, int64_t lo, int64_t hi, void *own, \
                   void *workspace)
#define F(i) ((float *)args[i])
#define EACH(...)                     \
  (void)own, (void)workspace;         \
  for (int64_t i = lo; i < hi; i++) { \
    __VA_ARGS__;                      \
  }

BODY(ramp) { EACH(F(0)[i] = (float)(i % 5)) }
BODY(zero) { EACH(F(0)[i] = 0) }
BODY(square) { EACH(((float *)workspace)[i] = F(0)[i] * F(0)[i]) }
BODY(add) { EACH(F(2)[i] = ((float *)workspace)[i] + F(1)[i]) }
BODY(spread) { EACH(F(1)[i] = F(0)[i % N] * (float)(i / N + 1)) }
BODY(gather) { EACH(F(2)[i] = F(2)[i] * 2 + F(0)[i] + (float)*(int *)args[1]) }
BODY(update) { EACH(if (F(0)[1] != 0) F(2)[i] -= *F(1) * F(3)[i]) }
BODY(tell) {
  EACH(float sum = 0; for (int k = 0; k < N; k++) sum += F(0)[k];
       F(3)[0] = sum; F(3)[1] = isfinite(sum) ? 1 : 0;
       F(3)[2] = (float)*(int *)args[1]; F(2)[0] += F(3)[1])
}

/* ---- and for GPUs: one thread an element --------------------------------- */

/* %r0 is the element, %rd0 four times that, %f0 for the result. */
#define PTX(name, n, params, ...)                                      \
  ".visible .entry " name "(" params ".param .u64 workspace)\n{\n"     \
  "  .reg .pred %p<3>;\n  .reg .b32 %r<8>;\n  .reg .b64 %rd<10>;\n"    \
  "  .reg .f32 %f<8>;\n"                                               \
  "  mov.u32 %r1, %ctaid.x;\n  mov.u32 %r2, %ntid.x;\n"                \
  "  mov.u32 %r3, %tid.x;\n  mad.lo.u32 %r0, %r1, %r2, %r3;\n"         \
  "  setp.ge.u32 %p0, %r0, " n ";\n  @%p0 bra done;\n"                 \
  "  mul.wide.u32 %rd0, %r0, 4;\n" __VA_ARGS__                         \
  "done:\n  ret;\n}\n"
#define P(name) ".param .u64 " name ", "
/* Where element %r0, and element 0, of a parameter is. */
#define ALL(to, param) "  ld.param.u64 " to ", [" param "];\n"
#define ITS(to, param) ALL(to, param) "  add.u64 " to ", " to ", %rd0;\n"
#define LOAD(to, at) "  ld.global.f32 " to ", [" at "];\n"
#define STORE(at, from) "  st.global.f32 [" at "], " from ";\n"
#define LOAD_INT(to, at) \
  "  ld.global.u32 %r7, [" at "];\n  cvt.rn.f32.s32 " to ", %r7;\n"

static const char ptx[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    PTX("ramp", "64", P("w"),
        "  rem.u32 %r4, %r0, 5;\n  cvt.rn.f32.u32 %f0, %r4;\n"
        ITS("%rd1", "w") STORE("%rd1", "%f0"))
    PTX("zero", "64", P("x"),
        ITS("%rd1", "x") "  mov.f32 %f0, 0f00000000;\n" STORE("%rd1", "%f0"))
    PTX("square", "64", P("x") P("w") P("t"),
        ITS("%rd1", "x") ITS("%rd2", "workspace") LOAD("%f1", "%rd1")
        "  mul.rn.f32 %f0, %f1, %f1;\n" STORE("%rd2", "%f0"))
    PTX("add", "64", P("x") P("w") P("t"),
        ITS("%rd1", "w") ITS("%rd2", "workspace") ITS("%rd3", "t")
        LOAD("%f1", "%rd1") LOAD("%f2", "%rd2")
        "  add.rn.f32 %f0, %f1, %f2;\n" STORE("%rd3", "%f0"));

static const char wild_ptx[] =
    PTX("wild", "64", P("x") P("w") P("t"),
        "  mov.u64 %rd1, 16;\n  mov.f32 %f0, 0f00000000;\n"
        STORE("%rd1", "%f0"));

static const char more_ptx[] =
    PTX("spread", "192", P("t") P("rows"),
        "  rem.u32 %r4, %r0, 64;\n  div.u32 %r5, %r0, 64;\n"
        "  add.u32 %r5, %r5, 1;\n  cvt.rn.f32.u32 %f2, %r5;\n"
        "  mul.wide.u32 %rd2, %r4, 4;\n" ALL("%rd1", "t")
        "  add.u64 %rd1, %rd1, %rd2;\n" LOAD("%f1", "%rd1")
        "  mul.rn.f32 %f0, %f1, %f2;\n" ITS("%rd3", "rows")
        STORE("%rd3", "%f0"))
    PTX("gather", "64", P("rows") P("index") P("acc"),
        ITS("%rd1", "rows") ALL("%rd2", "index") ITS("%rd3", "acc")
        LOAD("%f1", "%rd1") LOAD_INT("%f2", "%rd2") LOAD("%f3", "%rd3")
        "  add.rn.f32 %f3, %f3, %f3;\n  add.rn.f32 %f3, %f3, %f1;\n"
        "  add.rn.f32 %f0, %f3, %f2;\n" STORE("%rd3", "%f0"));

static const char last_ptx[] =
    PTX("tell", "1", P("acc") P("step") P("seen") P("out"),
        ALL("%rd1", "acc") ALL("%rd2", "step") ALL("%rd3", "seen")
        ALL("%rd4", "out")
        "  mov.f32 %f0, 0f00000000;\n  mov.u32 %r4, 0;\n"
        "next:\n" LOAD("%f1", "%rd1")
        "  add.rn.f32 %f0, %f0, %f1;\n  add.u64 %rd1, %rd1, 4;\n"
        "  add.u32 %r4, %r4, 1;\n  setp.lt.u32 %p1, %r4, 64;\n"
        "  @%p1 bra next;\n" STORE("%rd4", "%f0")
        "  abs.f32 %f2, %f0;\n  setp.lt.f32 %p2, %f2, 0f7F800000;\n"
        "  selp.f32 %f3, 0f3F800000, 0f00000000, %p2;\n"
        STORE("%rd4+4", "%f3") LOAD_INT("%f4", "%rd2") STORE("%rd4+8", "%f4")
        LOAD("%f5", "%rd3") "  add.rn.f32 %f5, %f5, %f3;\n"
        STORE("%rd3", "%f5"))
    PTX("update", "64", P("stats") P("lr") P("w") P("t"),
        ALL("%rd1", "stats") ALL("%rd2", "lr") ITS("%rd3", "w")
        ITS("%rd4", "t") LOAD("%f1", "%rd1+4")
        "  setp.eq.f32 %p1, %f1, 0f00000000;\n  @%p1 bra done;\n"
        LOAD("%f2", "%rd2") LOAD("%f3", "%rd3") LOAD("%f4", "%rd4")
        "  mul.rn.f32 %f4, %f2, %f4;\n  sub.rn.f32 %f0, %f3, %f4;\n"
        STORE("%rd3", "%f0"));

/* ---- tables -------------------------------------------------------------- */

#define STAGE(f, n) {.body = f, .count = (n), .grain = 16, .blocks = \
                     ((n) + 31) / 32, .threads = 32, .symbol = #f}
#define KERNEL(name, ...)                                              \
  static const MoertStage name##_stages[] = {__VA_ARGS__};             \
  static const MoertKernel name##_kernel = {                           \
      #name, 4 * N, (int32_t)COUNT_OF(name##_stages), name##_stages}
KERNEL(ramp, STAGE(ramp, N));
KERNEL(zero, STAGE(zero, N));
KERNEL(square, STAGE(square, N), STAGE(add, N));
KERNEL(spread, STAGE(spread, N * TURNS));
KERNEL(gather, STAGE(gather, N));
KERNEL(tell, STAGE(tell, 1));
KERNEL(update, STAGE(update, N));

#define REF(s, t, n, at)                                                \
  {.slab = MOERT_SLAB_##s, .dtype = MOERT_##t, .elements = (n), .offset = (at)}
#define REF_BY(s, t, n, at, by)                                         \
  {.slab = MOERT_SLAB_##s, .dtype = MOERT_##t, .elements = (n),         \
   .offset = (at), .stride = {by}}
#define W REF(PARAM, f32, N, 0)
#define SEEN REF(STATE, f32, N, 0)
#define X REF(INPUT, f32, N, IN_X)
#define LR REF(INPUT, f32, 1, IN_LR)
#define STEP REF(INPUT, i32, 1, IN_STEP)
#define TT REF(ARENA, f32, N, AT_T)
#define ROWS REF(ARENA, f32, N *TURNS, AT_ROWS)
#define ACC REF(ARENA, f32, N, AT_ACC)
#define INDEX REF(ARENA, i32, 1, AT_INDEX)
#define STATS REF(REPORT, f32, 3, 0)
#define ARGS(name, ...) static const MoertRef name[] = {__VA_ARGS__}
ARGS(a_ramp, W);
ARGS(a_zero, SEEN);
ARGS(a_square, X, W, TT);
ARGS(a_spread, TT, ROWS);
ARGS(a_zero_acc, ACC);
ARGS(a_index, INDEX);
ARGS(a_gather, REF_BY(ARENA, f32, N, AT_ROWS, 4 * N), INDEX, ACC);
ARGS(a_c, TT, W, REF(ARENA, f32, N, AT_C));
ARGS(a_d, TT, W, REF(ARENA, f32, N, AT_D));
ARGS(a_copy_acc, ACC, REF(REPORT, f32, N, OUT_ACC));
ARGS(a_copy_c, REF(ARENA, f32, N, AT_C), REF(REPORT, f32, N, OUT_C));
ARGS(a_copy_d, REF(ARENA, f32, N, AT_D), REF(REPORT, f32, N, OUT_D));
ARGS(a_copy_t, TT, REF(ARENA, f32, N, AT_ROWS));
ARGS(a_tell, ACC, STEP, SEEN, STATS);
ARGS(a_update, STATS, LR, W, TT);

/* c = t w, and c' = t w + c' of every other element: strides that no library
 * has. */
static const MoertGemm dense = {1, SIDE, SIDE, SIDE, {0, SIDE, 1},
                                {0, SIDE, 1}, {0, SIDE, 1},
                                MOERT_f32, MOERT_f32, 0, 0};
static const MoertGemm strange = {2, 2, 3, 4, {32, 8, 2}, {0, 2, 8}, {6, 3, 1},
                                  MOERT_f32, MOERT_f32, 1, 0};

#define LAUNCH(k, a, outs)                                       \
  {.kind = MOERT_LAUNCH, .n_args = (int32_t)COUNT_OF(a),         \
   .n_outs = (outs), .name = "%" #k ": " #k,                     \
   .where = "hand.dsl:1:" #outs, .args = (a), .kernel = &k##_kernel}
#define GEMM(g, a)                                                        \
  {.kind = MOERT_GEMM, .n_args = 3, .n_outs = 1, .name = #g,              \
   .where = "hand.dsl:2:1", .args = (a), .gemm = &g, .dtype = MOERT_f32}
#define COPY(a) {.kind = MOERT_COPY, .n_args = 2, .n_outs = 1, \
                 .name = "copy", .where = "hand.dsl:3:1", .args = (a)}
static const MoertRecord init_records[] = {LAUNCH(ramp, a_ramp, 1),
                                           LAUNCH(zero, a_zero, 1)};
static const MoertRecord reset_records[] = {LAUNCH(zero, a_zero, 1)};
enum { AT_SQUARE = 0 };
static const MoertRecord train_records[] = {
    LAUNCH(square, a_square, 1),
    LAUNCH(spread, a_spread, 1),
    LAUNCH(zero, a_zero_acc, 1),
    {.kind = MOERT_LOOP, .n_args = 1, .n_outs = 1, .reverse = 1, .count = TURNS,
     .name = "loop", .where = "", .args = a_index},
    LAUNCH(gather, a_gather, 1),
    {.kind = MOERT_END, .name = "end", .where = ""},
    GEMM(dense, a_c),
    {.kind = MOERT_COPY, .n_args = 2, .n_outs = 1, .name = "copy",
     .where = "", .args = a_copy_t},
    {.kind = MOERT_LAUNCH, .n_args = 1, .n_outs = 1, .name = "zero",
     .where = "", .args = &a_d[2], .kernel = &zero_kernel},
    GEMM(strange, a_d),
    COPY(a_copy_acc),
    COPY(a_copy_c),
    COPY(a_copy_d),
    LAUNCH(tell, a_tell, 2),
    LAUNCH(update, a_update, 1)};

#define BIND(k, t, n, label, ...)                                       \
  {.kind = MOERT_BIND_##k, .dtype = MOERT_##t, .rank = (n) > 1,         \
   .dims = {(n)}, .name = (label), .source = "", .ref = __VA_ARGS__}
static const MoertBinding train_ins[] = {
    BIND(SLOT, f32, N, "w", W), BIND(INPUT, f32, N, "x", X),
    BIND(OPTION, f32, 1, "lr", LR), BIND(STEP, i32, 1, "", STEP)};
static const MoertBinding train_outs[] = {
    BIND(SLOT, f32, N, "w", W),
    BIND(REPORT, f32, 1, "loss", REF(REPORT, f32, 1, OUT_LOSS)),
    BIND(REPORT, f32, 1, "ok", REF(REPORT, f32, 1, OUT_OK)),
    BIND(REPORT, f32, 1, "step", REF(REPORT, f32, 1, OUT_STEP)),
    BIND(PROBE, f32, N, "acc", REF(REPORT, f32, N, OUT_ACC)),
    BIND(PROBE, f32, N, "c", REF(REPORT, f32, N, OUT_C)),
    BIND(PROBE, f32, N, "d", REF(REPORT, f32, N, OUT_D))};
static const MoertEntry entries[] = {
    {.name = "init", .n_records = COUNT_OF(init_records),
     .records = init_records},
    {.name = "reset", .n_records = COUNT_OF(reset_records),
     .records = reset_records},
    {.name = "train", .n_records = COUNT_OF(train_records), .trains = 1,
     .n_ins = COUNT_OF(train_ins), .n_outs = COUNT_OF(train_outs),
     .ins = train_ins, .outs = train_outs, .records = train_records,
     .input_bytes = INPUTS, .report_bytes = REPORTS, .arena_bytes = ARENA}};
static const MoertSlot slots[] = {
    {.path = "w", .kind = MOERT_SLOT_PARAM, .dtype = MOERT_f32, .rank = 1,
     .dims = {N}},
    {.path = "train/seen", .kind = MOERT_SLOT_STATE, .dtype = MOERT_f32,
     .rank = 1, .dims = {N}}};
static const MoertOption options[] = {{"lr", 1}};

static char all_ptx[sizeof ptx + sizeof wild_ptx + sizeof more_ptx +
                    sizeof last_ptx];
#define DESC                                                               \
  .magic = MOERT_MAGIC, .abi_version = MOERT_ABI_VERSION,                  \
  .compiler = "by hand", .source_hash = "0123456789abcdef", .flags = "",   \
  .n_slots = COUNT_OF(slots), .n_options = COUNT_OF(options),              \
  .n_entries = COUNT_OF(entries), .slots = slots, .options = options,      \
  .entries = entries, .slab_bytes = {4 * N, 0, 4 * N}
static const MoertDesc for_cuda = {DESC, .device = MOERT_CUDA, .ptx = all_ptx,
                                   .arch = "sm_80"};
static const MoertDesc for_both = {DESC, .next = &for_cuda};

/* ---- sessions ------------------------------------------------------------ */

static MoertStatus open_session(const MoertDesc *d, MoertSessionOptions o,
                                MoertSession **out) {
  static MoertModel model[4];
  static unsigned next;
  MoertModel *m = &model[next++ % 4];
  *m = (MoertModel){.desc = d};
  return moert_session(m, &o, out);
}

static void set_x(MoertSession *s, int step) {
  void *x;
  size_t bytes;
  if (moert_input(s, "train", "x", &x, &bytes)) return;
  for (int i = 0; i < N; i++)
    ((float *)x)[i] = (float)((i * 7 + step) % 3);
}

static int same_report(MoertSession *a, MoertSession *b, const char *name) {
  const void *x, *y;
  size_t n, m;
  return moert_report_data(a, "train", name, &x, &n) == MOERT_OK &&
         moert_report_data(b, "train", name, &y, &m) == MOERT_OK && n == m &&
         memcmp(x, y, n) == 0;
}

static int same_slot(MoertSession *a, MoertSession *b, const char *path) {
  float x[N], y[N];
  return moert_get(a, path, x, sizeof x) == MOERT_OK &&
         moert_get(b, path, y, sizeof y) == MOERT_OK &&
         memcmp(x, y, sizeof x) == 0;
}

/* Some steps on both; all that comes out is compared. */
static void compare(const char *name, MoertSession *cpu, MoertSession *gpu) {
  static const char *const reports[] = {"loss", "ok", "step", "acc", "c", "d"};
  for (int step = 0; step < 4; step++) {
    set_x(cpu, step);
    set_x(gpu, step);
    CHECK_OK(name, moert_step(cpu, "train"));
    CHECK_OK(name, moert_step(gpu, "train"));
    const char *wrong = "";
    for (size_t i = 0; i < COUNT_OF(reports); i++)
      if (!same_report(cpu, gpu, reports[i])) wrong = reports[i];
    if (!same_slot(cpu, gpu, "w")) wrong = "w";
    if (!same_slot(cpu, gpu, "train/seen")) wrong = "train/seen";
    CHECK(name, !wrong[0], "step %d: %s differs", step, wrong);
  }
}

static const MoertSessionOptions on_cpu = {.device = MOERT_USE_CPU},
                                 on_gpu = {.device = MOERT_USE_CUDA};

static void test_steps(void) {
  MoertSession *cpu, *gpu;
  MoertSessionOptions o = on_gpu;
  CHECK_OK("on the CPU", open_session(&for_both, on_cpu, &cpu));
  CHECK_OK("on a GPU", open_session(&for_both, o, &gpu));
  if (!cpu || !gpu) return;
  CHECK("device", strstr(moert_device(gpu), "(sm_"), "%s", moert_device(gpu));
  CHECK("device", strstr(moert_device(cpu), "threads"), "%s",
        moert_device(cpu));
  compare("steps", cpu, gpu);
  CHECK("memory", moert_gpu_bytes(gpu) >= moert_planned_bytes(gpu) &&
        moert_gpu_bytes(cpu) == 0, "%lld of %lld planned",
        (long long)moert_gpu_bytes(gpu),
        (long long)moert_planned_bytes(gpu));
  CHECK("steps are counted", moert_steps_done(gpu) == 4, "%lld",
        (long long)moert_steps_done(gpu));
  moert_session_free(cpu);
  moert_session_free(gpu);
}

/* A step in halves, with the next inputs filled in between: staged, staged and
 * then changed, or not staged. */
static void step_in_halves(MoertSession *s, int step) {
  CHECK_OK("halves", moert_start(s, "train"));
  CHECK_FAILS("halves: twice", moert_start(s, "train"), MOERT_INVALID,
              "a step of entry train is under way");
  set_x(s, step + 1);
  if (step != 2) CHECK_OK("halves", moert_stage(s, "train"));
  if (step == 1) {
    set_x(s, 7);
    CHECK_OK("halves", moert_stage(s, "train"));
    set_x(s, step + 1);
  }
  CHECK_OK("halves", moert_finish(s));
}

static void test_halves(const MoertSessionOptions *o) {
  MoertSession *whole, *halves;
  if (open_session(&for_both, on_cpu, &whole)) return;
  CHECK_OK("halves", open_session(&for_both, *o, &halves));
  CHECK_FAILS("halves: no step", moert_finish(halves), MOERT_INVALID,
              "no step is under way");
  CHECK_FAILS("halves: no entry", moert_stage(halves, "trian"),
              MOERT_NOT_FOUND, "did you mean 'train'");
  set_x(halves, 0);
  for (int step = 0; step < 5; step++) {
    set_x(whole, step);
    double lr = step < 3 ? 1 : 2;
    CHECK_OK("halves", moert_set_option(whole, "lr", lr));
    CHECK_OK("halves", moert_set_option(halves, "lr", lr));
    CHECK_OK("halves", moert_step(whole, "train"));
    step_in_halves(halves, step);
    CHECK("halves", same_report(whole, halves, "loss") &&
          same_report(whole, halves, "step") && same_slot(whole, halves, "w"),
          "step %d differs", step);
  }
  moert_session_free(whole);
  moert_session_free(halves);
}

/* What is told of a step is of its own inputs, not of the next ones. */
static void test_halves_not_finite(const MoertSessionOptions *o) {
  MoertSession *s;
  void *x;
  size_t bytes;
  if (open_session(&for_both, *o, &s)) return;
  set_x(s, 0);
  moert_input(s, "train", "x", &x, &bytes);
  ((float *)x)[5] = 1e30f;
  MoertStatus st = moert_start(s, "train");
  if (st == MOERT_OK) {
    set_x(s, 1);
    CHECK_OK("halves", moert_stage(s, "train"));
    st = moert_finish(s);
  }
  CHECK_FAILS("halves: not finite", st, MOERT_NOT_FINITE,
              "record 0 (%square: square) has 1 of 64 values");
  set_x(s, 1);
  CHECK_OK("halves: finite again", moert_step(s, "train"));
  CHECK("halves: steps", moert_steps_done(s) == 1, "%lld",
        (long long)moert_steps_done(s));
  moert_session_free(s);
}

/* As above, record by record, waiting for each; and with time taken. */
static void test_one_by_one(void) {
  for (int profile = 0; profile < 2; profile++) {
    MoertSession *cpu, *gpu;
    MoertSessionOptions o = on_gpu;
    const double *seconds;
    const int64_t *calls;
    o.poison = !profile;
    o.profile = profile;
    if (open_session(&for_both, on_cpu, &cpu)) return;
    CHECK_OK("one by one", open_session(&for_both, o, &gpu));
    compare(profile ? "profile" : "poison", cpu, gpu);
    CHECK_OK("profile", moert_profile(gpu, 2, &seconds, &calls));
    CHECK("profile: calls", calls[0] == 4 * profile &&
          calls[4] == 4 * TURNS * profile && calls[3] == 0, "%lld %lld %lld",
          (long long)calls[0], (long long)calls[4], (long long)calls[3]);
    CHECK("profile: time", seconds[0] >= 0 && seconds[0] < 10, "%g",
          seconds[0]);
    moert_session_free(cpu);
    moert_session_free(gpu);
  }
}

/* A checkpoint of the one device is taken up on the other. */
static void test_checkpoints(void) {
  MoertSession *from, *to;
  float w[N], seen[N];
  int64_t cursor;
  for (int i = 0; i < N; i++)
    w[i] = (float)i, seen[i] = 3;
  for (int back = 0; back < 2; back++) {
    const char *dir = scratch(back ? "back" : "there");
    if (open_session(&for_both, back ? on_gpu : on_cpu, &from) ||
        open_session(&for_both, back ? on_cpu : on_gpu, &to))
      return;
    CHECK_OK("put", moert_put(from, "w", w, sizeof w));
    set_x(from, 1);
    CHECK_OK("step", moert_step(from, "train"));
    CHECK_OK("put", moert_put(from, "train/seen", seen, sizeof seen));
    CHECK_OK("save", moert_save(from, dir, 7));
    CHECK_OK("load", moert_load(to, dir, NULL, &cursor));
    CHECK("load", cursor == 7 && same_slot(from, to, "w") &&
          same_slot(from, to, "train/seen"), "the slots differ");
    CHECK_OK("reset", moert_reset_state(to, "train"));
    CHECK_OK("reset", moert_get(to, "train/seen", seen, sizeof seen));
    CHECK("reset", seen[0] == 0 && seen[N - 1] == 0, "%g", (double)seen[0]);
    moert_session_free(from);
    moert_session_free(to);
  }
}

static void test_not_finite(void) {
  MoertSession *s;
  float before[N], after[N];
  void *x;
  size_t bytes;
  if (open_session(&for_both, on_gpu, &s)) return;
  set_x(s, 0);
  CHECK_OK("finite", moert_step(s, "train"));
  moert_get(s, "w", before, sizeof before);
  moert_input(s, "train", "x", &x, &bytes);
  ((float *)x)[5] = 1e30f;
  CHECK_FAILS("not finite", moert_step(s, "train"), MOERT_NOT_FINITE,
              "at hand.dsl:1:1: the result of record 0 (%square: square) has 1 "
              "of 64 values that are not finite, the first is inf at 5");
  moert_get(s, "w", after, sizeof after);
  CHECK("not finite: nothing changed", !memcmp(before, after, sizeof after),
        "w has");
  ((float *)x)[5] = NAN;
  CHECK_FAILS("not finite", moert_step(s, "train"), MOERT_NOT_FINITE,
              "input 'x' has 1 of 64");
  set_x(s, 0);
  CHECK_OK("finite again", moert_step(s, "train"));
  moert_session_free(s);
}

static void test_one_record(void) {
  MoertSession *s;
  float t[N];
  if (open_session(&for_both, on_gpu, &s)) return;
  set_x(s, 0);
  CHECK_OK("step", moert_step(s, "train"));
  memset(t, 0, sizeof t);
  CHECK_OK("put", moert_put(s, "w", t, sizeof t));
  CHECK_OK("one record", moert_run_record(s, 2, AT_SQUARE, NULL));
  CHECK_OK("read", moert_read(s, 2, &a_square[2], NULL, t));
  CHECK("one record", t[1] == 1 && t[2] == 4, "%g %g", (double)t[1],
        (double)t[2]);
  t[1] = 5;
  CHECK_OK("write", moert_write(s, 2, &a_square[2], NULL, t));
  t[1] = 0;
  CHECK_OK("read", moert_read(s, 2, &a_square[2], NULL, t));
  CHECK("write", t[1] == 5, "%g", (double)t[1]);
  moert_session_free(s);
}

/* ---- what cannot be ------------------------------------------------------ */

static void refused(const char *name, const MoertDesc *d, MoertStatus status,
                    const char *text) {
  MoertSession *s;
  CHECK_FAILS(name, open_session(d, on_gpu, &s), status, text);
  CHECK(name, !s, "there is a session");
}

static void test_refused(void) {
  static const MoertDesc for_cpu = {DESC};
  refused("no code for GPUs", &for_cpu, MOERT_UNSUPPORTED,
          "the model has no code for GPUs: compile it with --target=cpu,cuda");
  MoertSession *s;
  CHECK_FAILS("no code for the CPU", open_session(&for_cuda, on_cpu, &s),
              MOERT_UNSUPPORTED, "no code for the CPU");
  MoertDesc d = for_cuda;
  d.arch = "sm_999";
  refused("arch", &d, MOERT_UNSUPPORTED, "kernels are for sm_999, but ");
  d.arch = "sm_81a";
  refused("arch", &d, MOERT_UNSUPPORTED, "compile it again with --arch=sm_");
  d = for_cuda;
  d.ptx = "this is no PTX";
  refused("bad PTX", &d, MOERT_BAD_DATA, "cannot be loaded by the driver");

  MoertStage stage = train_records[AT_SQUARE].kernel->stages[0];
  MoertKernel kernel = {"square", 4 * N, 1, &stage};
  MoertRecord record = train_records[AT_SQUARE];
  MoertEntry changed[3] = {entries[0], entries[1], entries[2]};
  record.kernel = &kernel;
  changed[2].records = &record;
  changed[2].n_records = 1;
  d = for_cuda;
  d.entries = changed;
  stage.symbol = "nowhere";
  refused("no such kernel", &d, MOERT_INTERNAL,
          "hand.dsl:1:1: entry train: record 0 (%square: square), kernel "
          "square: CUDA: ");
  stage.symbol = "square";
  stage.threads = 2048;
  refused("too many threads", &d, MOERT_BAD_DATA, "2 blocks of 2048 threads");
  stage.threads = 32;
  stage.shared_bytes = 1 << 30;
  refused("too much shared memory", &d, MOERT_UNSUPPORTED,
          "square needs 1073741824 bytes of shared memory a block, ");
  MoertMap map = {.arg = record.n_args};
  stage.shared_bytes = 0;
  stage.n_maps = 1;
  stage.maps = &map;
  refused("a map of nothing", &d, MOERT_BAD_DATA, "a map of argument ");
  stage.n_maps = 99;
  refused("too many maps", &d, MOERT_BAD_DATA, "99 maps, a kernel has 4 at ");
  record.kind = MOERT_START;
  refused("no exchange", &d, MOERT_BAD_DATA,
          "entry train: record 0 is no exchange");
  d = for_cuda;
  changed[2] = entries[2];
  d.entries = changed;
  changed[2].arena_bytes = (int64_t)1 << 50;
  refused("too little memory", &d, MOERT_NO_MEMORY,
          "GB of GPU memory, and of the ");
}

/* A kernel that writes where nothing is. It takes the whole context with it:
 * the last test. */
static void test_wild(int poison, const char *text) {
  MoertStage stage = train_records[AT_SQUARE].kernel->stages[0];
  MoertKernel kernel = {"square", 4 * N, 1, &stage};
  MoertRecord record = train_records[AT_SQUARE];
  MoertEntry changed[3] = {entries[0], entries[1], entries[2]};
  MoertDesc d = for_cuda;
  MoertSession *s;
  stage.symbol = "wild";
  record.kernel = &kernel;
  changed[2].records = &record;
  changed[2].n_records = 1;
  d.entries = changed;
  MoertSessionOptions o = on_gpu;
  o.poison = poison;
  CHECK_OK("wild", open_session(&d, o, &s));
  if (!s) return;
  CHECK_FAILS("wild", moert_step(s, "train"), MOERT_INTERNAL, text);
  moert_session_free(s);
}

/* Where there is no driver: the CPU, and why; one line where it must be a
 * GPU. */
static void test_no_driver(void) {
  MoertSession *s;
  refused("no driver", &for_both, MOERT_UNSUPPORTED, "no CUDA driver: ");
  CHECK_FAILS("no driver, no code for the CPU",
              open_session(&for_cuda, (MoertSessionOptions){0}, &s),
              MOERT_UNSUPPORTED, "no CUDA driver: ");
  CHECK_OK("auto", open_session(&for_both, (MoertSessionOptions){0}, &s));
  CHECK("auto", s && strstr(moert_device(s), "threads (no CUDA driver)"),
        "%s", s ? moert_device(s) : "");
  moert_session_free(s);
}

int main(int argc, char **argv) {
  (void)argc;
  snprintf(all_ptx, sizeof all_ptx, "%s%s%s%s", ptx, wild_ptx, more_ptx,
           last_ptx);
  if (!has_driver()) {
    test_no_driver();
    if (failures == 0) use_stand_ins(argv);
    return no_stand_ins("cuda");
  }
  test_steps();
  for (int i = 0; i < 2; i++) {
    test_halves(i ? &on_gpu : &on_cpu);
    test_halves_not_finite(i ? &on_gpu : &on_cpu);
  }
  test_one_by_one();
  test_checkpoints();
  test_not_finite();
  test_one_record();
  test_refused();
  test_wild(0, "step 1 of entry train: CUDA: ");
  test_wild(1, "step 1 of entry train: hand.dsl:1:1: entry train: record 0 "
            "(%square: square), kernel square: CUDA: ");
  scratch_remove();
  return failures != 0;
}
