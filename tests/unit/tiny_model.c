/* tiny_model.c: a compiled model written by hand, to test the runtime without
 * the compiler: one logit a byte, trained by gradient descent with momentum on
 * the distribution of y; recurrent state that counts positions; a loop that
 * walks over x; a product; stages with workspace, scratch and uneven chunks.
 *
 * Built several times: TINY_ABI another version, TINY_FEATURE another required
 * CPU feature, TINY_ROWS the shape of the parameter, TINY_B another batch,
 * TINY_BELOW a bound on bytes. */
#include "../../runtime/moert.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#ifndef TINY_ABI
#define TINY_ABI MOERT_ABI_VERSION
#endif
#ifndef TINY_FEATURE
#define TINY_FEATURE "sse2"
#endif
#ifndef TINY_ROWS
#define TINY_ROWS 1
#endif
#ifndef TINY_BELOW
#define TINY_BELOW "256"
#endif
#ifndef TINY_B
#define TINY_B 4
#endif

enum { V = 256, B = TINY_B, T = 8, CHUNK = 32 };
enum { /* arena: bytes */
  AT_P = 0,
  AT_G = AT_P + 4 * V,
  AT_STATS = AT_G + 4 * V, /* loss, gradient norm, ok */
  AT_XS = AT_STATS + 64,
  AT_INDEX = AT_XS + 4 * T * B,
  ARENA = AT_INDEX + 64
};
enum { /* inputs */
  IN_X = 0,
  IN_Y = IN_X + 4 * B * T,
  IN_C = IN_Y + 4 * B * T,
  IN_LR = IN_C + 4 * B * T,
  IN_STEP = IN_LR + 4,
  IN_SEED = IN_STEP + 4,
  INPUTS = IN_SEED + 4
};
enum { /* reports */
  OUT_LOSS = 0,
  OUT_NORM = 4,
  OUT_OK = 8,
  OUT_LR = 12,
  OUT_CV = 16,
  OUT_DOT = 20,
  OUT_STEP = 24,
  OUT_ACC = 64,
  OUT_SEEN = OUT_ACC + 4 * B,
  OUT_P = OUT_SEEN + 4 * B,
  REPORTS = OUT_P + 4 * V
};

#define F(i) ((float *)args[i])
#define I(i) ((const int32_t *)args[i])

/* ---- kernels ------------------------------------------------------------- */

/* w, seed: small values that differ with the seed. */
static void init_w(void *const *args, int64_t lo, int64_t hi, void *scratch,
                   void *workspace) {
  (void)scratch, (void)workspace;
  uint32_t seed = *(const uint32_t *)args[0];
  for (int64_t i = lo; i < hi; i++) {
    uint32_t h = ((uint32_t)i * 2654435761u + seed * 40503u) >> 8;
    F(1)[i] = (float)(h % 1000) * 1e-4f;
  }
}

static void zero(void *const *args, int64_t lo, int64_t hi, void *scratch,
                 void *workspace) {
  (void)scratch, (void)workspace;
  for (int64_t i = lo; i < hi; i++) F(0)[i] = 0;
}

/* w -> p: exponentials through scratch, and a sum a chunk in the workspace. */
static void exps(void *const *args, int64_t lo, int64_t hi, void *scratch,
                 void *workspace) {
  float *e = scratch, sum = 0;
  for (int64_t i = lo; i < hi; i++) sum += e[i - lo] = expf(F(0)[i]);
  memcpy(F(1) + lo, e, sizeof *e * (size_t)(hi - lo));
  ((float *)workspace)[lo / CHUNK] = sum;
}
static void normalise(void *const *args, int64_t lo, int64_t hi, void *scratch,
                      void *workspace) {
  (void)scratch;
  float sum = 0;
  for (int i = 0; i < V / CHUNK; i++) sum += ((float *)workspace)[i];
  for (int64_t i = lo; i < hi; i++) F(1)[i] /= sum;
}

/* p, y -> gradient, stats. */
static void gradient(void *const *args, int64_t lo, int64_t hi, void *scratch,
                     void *workspace) {
  (void)lo, (void)hi, (void)scratch, (void)workspace;
  float loss = 0, norm = 0, *g = F(2), *stats = F(3);
  memcpy(g, F(0), sizeof *g * V);
  for (int i = 0; i < B * T; i++) {
    g[I(1)[i]] -= 1.0f / (B * T);
    loss -= logf(F(0)[I(1)[i]]) / (B * T);
  }
  for (int i = 0; i < V; i++) norm += g[i] * g[i];
  stats[0] = loss;
  stats[1] = sqrtf(norm);
  stats[2] = isfinite(stats[0]) && isfinite(stats[1]);
}

/* x[B, T] -> xs[T, B] as floats. */
static void turn_x(void *const *args, int64_t lo, int64_t hi, void *scratch,
                   void *workspace) {
  (void)scratch, (void)workspace;
  for (int64_t t = lo; t < hi; t++)
    for (int b = 0; b < B; b++) F(1)[t * B + b] = (float)I(0)[b * T + t];
}

/* One time step: acc = acc / 2 + xs[t] + index. */
static void accumulate(void *const *args, int64_t lo, int64_t hi, void *scratch,
                       void *workspace) {
  (void)scratch, (void)workspace;
  for (int64_t b = lo; b < hi; b++)
    F(2)[b] = F(2)[b] * 0.5f + F(0)[b] + (float)*I(1);
}

/* stats, gradient, lr, w, momentum. */
static void update(void *const *args, int64_t lo, int64_t hi, void *scratch,
                   void *workspace) {
  (void)scratch, (void)workspace;
  bool ok = F(0)[2] != 0;
  for (int64_t i = lo; i < hi; i++) {
    float m = 0.5f * F(4)[i] + F(1)[i];
    F(3)[i] = ok ? F(3)[i] - *F(2) * m : F(3)[i];
    F(4)[i] = ok ? m : F(4)[i];
  }
}

/* stats, lr, step -> seen; reports. */
static void tell(void *const *args, int64_t lo, int64_t hi, void *scratch,
                 void *workspace) {
  (void)lo, (void)hi, (void)scratch, (void)workspace;
  float *out = F(4);
  for (int i = 0; i < 3; i++) out[i] = F(0)[i];
  out[OUT_LR / 4] = *F(1);
  out[OUT_CV / 4] = 0.25f;
  ((int32_t *)out)[OUT_STEP / 4] = *I(2);
  for (int b = 0; b < B; b++)
    out[OUT_SEEN / 4 + b] = F(3)[b] += F(0)[2] != 0 ? T : 0;
}

/* p, y, counts, seen -> nll, tokens. */
static void judge(void *const *args, int64_t lo, int64_t hi, void *scratch,
                  void *workspace) {
  (void)lo, (void)hi, (void)scratch, (void)workspace;
  float nll = 0, tokens = 0;
  for (int i = 0; i < B * T; i++)
    if (F(2)[i] != 0) {
      nll -= logf(F(0)[I(1)[i]]) * F(2)[i];
      tokens += F(2)[i];
    }
  F(4)[0] = nll;
  F(4)[1] = tokens;
  for (int b = 0; b < B; b++) F(4)[OUT_SEEN / 4 + b] = F(3)[b] += T;
}

static void copy_w(void *const *args, int64_t lo, int64_t hi, void *scratch,
                   void *workspace) {
  (void)scratch, (void)workspace;
  for (int64_t i = lo; i < hi; i++) F(1)[i] = F(0)[i];
}

#define STAGE(f, n, g) {.body = f, .count = (n), .grain = (g)}
#define KERNEL(name, ...)                                                      \
  static const MoertStage name##_stages[] = {__VA_ARGS__};                     \
  static const MoertKernel name##_kernel = {                                   \
      #name, 4 * V / CHUNK,                                                    \
      (int32_t)(sizeof name##_stages / sizeof name##_stages[0]),               \
      name##_stages}
KERNEL(init_w, STAGE(init_w, V, CHUNK));
KERNEL(zero_v, STAGE(zero, V, V));
KERNEL(zero_b, STAGE(zero, B, B));
KERNEL(softmax,
       {.body = exps, .count = V, .grain = CHUNK, .scratch_bytes = 4 * CHUNK,
        .uneven = 1},
       STAGE(normalise, V, 7));
KERNEL(gradient, STAGE(gradient, 1, 1));
KERNEL(turn_x, STAGE(turn_x, T, 3));
KERNEL(accumulate, STAGE(accumulate, B, 1));
KERNEL(update, STAGE(update, V, 100));
KERNEL(tell, STAGE(tell, 1, 1));
KERNEL(judge, STAGE(judge, 1, 1));
KERNEL(copy_w, STAGE(copy_w, V, V));

/* ---- tables -------------------------------------------------------------- */

#define REF(s, t, n, at)                                                       \
  {.slab = MOERT_SLAB_##s, .dtype = MOERT_##t, .elements = (n), .offset = (at)}
#define REF_LOOP(s, t, n, at, by)                                              \
  {.slab = MOERT_SLAB_##s, .dtype = MOERT_##t, .elements = (n),                \
   .offset = (at), .stride = {by}}
#define REF_W REF(PARAM, f32, V, 0)
#define REF_M REF(OPTIM, f32, V, 0)
#define REF_SEEN REF(STATE, f32, B, 0)
#define REF_SEEN_EVAL REF(STATE, f32, B, 4 * B)
#define REF_P REF(ARENA, f32, V, AT_P)
#define REF_G REF(ARENA, f32, V, AT_G)
#define REF_STATS REF(ARENA, f32, 3, AT_STATS)
#define REF_X REF(INPUT, i32, B *T, IN_X)
#define REF_Y REF(INPUT, i32, B *T, IN_Y)
#define REF_ACC REF(REPORT, f32, B, OUT_ACC)

#define ARGS(name, ...) static const MoertRef name[] = {__VA_ARGS__}
ARGS(a_init, REF(INPUT, u32, 1, IN_SEED), REF_W);
ARGS(a_zero_m, REF_M);
ARGS(a_zero_seen, REF_SEEN);
ARGS(a_zero_seen_eval, REF_SEEN_EVAL);
ARGS(a_softmax, REF_W, REF_P);
ARGS(a_gradient, REF_P, REF_Y, REF_G, REF_STATS);
ARGS(a_turn, REF_X, REF(ARENA, f32, T *B, AT_XS));
ARGS(a_zero_acc, REF_ACC);
ARGS(a_index, REF(ARENA, i32, 1, AT_INDEX));
ARGS(a_accumulate, REF_LOOP(ARENA, f32, B, AT_XS, 4 * B),
     REF(ARENA, i32, 1, AT_INDEX), REF_ACC);
ARGS(a_dot, REF_P, REF_P, REF(REPORT, f32, 1, OUT_DOT));
ARGS(a_copy, REF_P, REF(REPORT, f32, V, OUT_P));
ARGS(a_update, REF_STATS, REF_G, REF(INPUT, f32, 1, IN_LR), REF_W, REF_M);
ARGS(a_tell, REF_STATS, REF(INPUT, f32, 1, IN_LR), REF(INPUT, i32, 1, IN_STEP),
     REF_SEEN, REF(REPORT, f32, REPORTS / 4, 0));
ARGS(a_judge, REF_P, REF_Y, REF(INPUT, f32, B *T, IN_C), REF_SEEN_EVAL,
     REF(REPORT, f32, 2, 0));
ARGS(a_logits, REF_W, REF(REPORT, f32, V, OUT_P));

static const MoertGemm dot = {1, 1, 1, V, {0, V, 1}, {0, 1, 1}, {0, 1, 1},
                              MOERT_f32, MOERT_f32, 0, 0};

#define LAUNCH(k, a, outs)                                                     \
  {.kind = MOERT_LAUNCH, .n_args = (int32_t)(sizeof(a) / sizeof *(a)),         \
   .n_outs = (outs), .name = #k, .where = "tiny.dsl:1:" #outs, .args = (a),    \
   .kernel = &k##_kernel}
static const MoertRecord init_records[] = {
    LAUNCH(init_w, a_init, 1), LAUNCH(zero_v, a_zero_m, 1),
    LAUNCH(zero_b, a_zero_seen, 1), LAUNCH(zero_b, a_zero_seen_eval, 1)};
static const MoertRecord reset_records[] = {
    LAUNCH(zero_b, a_zero_seen, 1), LAUNCH(zero_b, a_zero_seen_eval, 1)};
static const MoertRecord train_records[] = {
    LAUNCH(softmax, a_softmax, 1),
    LAUNCH(gradient, a_gradient, 2),
    LAUNCH(turn_x, a_turn, 1),
    LAUNCH(zero_b, a_zero_acc, 1),
    {.kind = MOERT_LOOP, .n_args = 1, .n_outs = 1, .reverse = 1, .count = T,
     .name = "loop", .where = "", .args = a_index},
    LAUNCH(accumulate, a_accumulate, 1),
    {.kind = MOERT_END, .name = "end", .where = ""},
    {.kind = MOERT_GEMM, .n_args = 3, .n_outs = 1, .name = "dot",
     .where = "tiny.dsl:2:1", .args = a_dot, .gemm = &dot, .flops = 2 * V,
     .needed = 2 * V, .bytes = 8 * V + 4, .dtype = MOERT_f32},
    {.kind = MOERT_COPY, .n_args = 2, .n_outs = 1, .name = "copy",
     .where = "tiny.dsl:3:1", .args = a_copy},
    LAUNCH(update, a_update, 2),
    LAUNCH(tell, a_tell, 2)};
static const MoertRecord eval_records[] = {LAUNCH(softmax, a_softmax, 1),
                                           LAUNCH(judge, a_judge, 2)};
static const MoertRecord decode_records[] = {LAUNCH(copy_w, a_logits, 1)};

#define BIND(k, t, r, d, n, s, ...)                                            \
  {.kind = MOERT_BIND_##k, .dtype = MOERT_##t, .rank = (r), .dims = d,         \
   .name = (n), .source = (s), .ref = __VA_ARGS__}
#define NONE {0}
#define BT {B, T}
#define SOURCE_X "text( below = " TINY_BELOW " )"
#define BIND_X BIND(INPUT, i32, 2, BT, "x", SOURCE_X, REF_X)
#define BIND_Y BIND(INPUT, i32, 2, BT, "y", "text(shift=1)", REF_Y)
#define SCALAR(n, t, at) BIND(REPORT, t, 0, NONE, n, "", REF(REPORT, t, 1, at))
static const MoertBinding init_ins[] = {
    BIND(SEED, u32, 0, NONE, "", "", REF(INPUT, u32, 1, IN_SEED))};
static const MoertBinding train_ins[] = {
    BIND(SLOT, f32, 1, {V}, "lm/w", "", REF_W),
    BIND_X,
    BIND_Y,
    BIND(OPTION, f32, 0, NONE, "lr", "", REF(INPUT, f32, 1, IN_LR)),
    BIND(STEP, i32, 0, NONE, "", "", REF(INPUT, i32, 1, IN_STEP))};
static const MoertBinding train_outs[] = {
    BIND(SLOT, f32, 1, {V}, "lm/w", "", REF_W),
    SCALAR("loss", f32, OUT_LOSS),
    SCALAR("grad_norm", f32, OUT_NORM),
    SCALAR("ok", f32, OUT_OK),
    SCALAR("lr", f32, OUT_LR),
    SCALAR("lm/moe/gate/cv_load", f32, OUT_CV),
    SCALAR("dot", f32, OUT_DOT),
    SCALAR("step_in", i32, OUT_STEP),
    BIND(PROBE, f32, 1, {B}, "acc", "", REF_ACC),
    BIND(PROBE, f32, 1, {B}, "seen", "", REF(REPORT, f32, B, OUT_SEEN)),
    BIND(PROBE, f32, 1, {V}, "p", "", REF(REPORT, f32, V, OUT_P))};
static const MoertBinding eval_ins[] = {
    BIND_X, BIND_Y,
    BIND(INPUT, f32, 2, BT, "counts", "text(mask, shift=1)",
         REF(INPUT, f32, B *T, IN_C))};
static const MoertBinding eval_outs[] = {
    SCALAR("nll", f32, 0), SCALAR("tokens", f32, 4),
    BIND(PROBE, f32, 1, {B}, "seen", "", REF(REPORT, f32, B, OUT_SEEN))};
#define ONE_ONE {1, 1}
static const MoertBinding decode_ins[] = {
    BIND(INPUT, i32, 2, ONE_ONE, "x", "tokens", REF(INPUT, i32, 1, IN_X))};
static const MoertBinding decode_outs[] = {
    BIND(REPORT, f32, 1, {V}, "logits", "", REF(REPORT, f32, V, OUT_P))};

#define COUNT(a) ((int32_t)(sizeof(a) / sizeof *(a)))
#define ENTRY(n, in, out, rec, learns, ops)                                    \
  {.name = (n), .n_ins = COUNT(in), .n_outs = COUNT(out),                      \
   .n_records = COUNT(rec), .trains = (learns), .ins = (in), .outs = (out),    \
   .records = (rec), .input_bytes = INPUTS, .report_bytes = REPORTS,           \
   .arena_bytes = ARENA, .flops = (ops)}
static const MoertEntry entries[] = {
    ENTRY("init", init_ins, init_ins, init_records, 0, 0),
    ENTRY("reset", init_ins, init_ins, reset_records, 0, 0),
    ENTRY("train", train_ins, train_outs, train_records, 1, 10000),
    ENTRY("eval", eval_ins, eval_outs, eval_records, 0, 1000),
    ENTRY("decode", decode_ins, decode_outs, decode_records, 0, 0)};

#define SLOT(p, k, n, at, ...)                                                 \
  {.path = (p), .kind = MOERT_SLOT_##k, .dtype = MOERT_f32, .rank = (n),       \
   .dims = {__VA_ARGS__}, .offset = (at)}
static const MoertSlot slots[] = {
#if TINY_ROWS == 1
    SLOT("lm/w", PARAM, 1, 0, V),
#else
    SLOT("lm/w", PARAM, 2, 0, TINY_ROWS, V / TINY_ROWS),
#endif
    SLOT("train/lm/w/m", OPTIM, 1, 0, V), SLOT("train/seen", STATE, 1, 0, B),
    SLOT("eval/seen", STATE, 1, 4 * B, B)};
static const MoertOption options[] = {{"lr", 0.5}};
static const MoertStageText texts[] = {{"frontend", "moec-ir 1\n# first\n"},
                                       {"plan", "moec-ir 1\n# last\n"}};
static const char *const features[] = {"sse2", TINY_FEATURE};

extern const MoertDesc moert_model;
MOERT_API const MoertDesc moert_model = {
    .magic = MOERT_MAGIC,
    .abi_version = TINY_ABI,
    .compiler = "by hand",
    .source_hash = "0123456789abcdef",
    .flags = "-O2",
    .n_features = 2,
    .n_slots = COUNT(slots),
    .n_options = COUNT(options),
    .n_entries = COUNT(entries),
    .n_texts = COUNT(texts),
    .features = features,
    .slots = slots,
    .options = options,
    .entries = entries,
    .texts = texts,
    .slab_bytes = {4 * V, 4 * V, 8 * B}};
