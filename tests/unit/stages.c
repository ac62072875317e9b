/* stages.c: every pass keeps what a module computes: after each one the
 * interpreter runs all entries on the same inputs and gives the same results.
 * For the models, in f64 (where routing does not flip) and in f32, and for
 * random graphs; then some steps of training, in the interpreter alone. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"
#include "random_graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- evaluating entries -------------------------------------------------- */

/* What an entry is given: slots by path, the rest by kind. */
typedef struct World {
  Ctx *cx;
  EvalMode mode;
  Arena arena;
  Map slots; /* path -> Tensor */
  int vocabulary;
  int32_t step;
} World;

/* The token at a place of the text, in which each decides the next. */
static double token_at(const World *w, int64_t i) {
  return (double)((i * 3 + w->step) % w->vocabulary);
}

static void fill_input(const World *w, Tensor *t, const Binding *b) {
  bool shifted = b->source && strstr(b->source, "shift=1");
  bool mask = b->source && strstr(b->source, "mask");
  for (int64_t i = 0; i < type_elements(&t->type); i++)
    t->data[i] = mask ? i % 3 != 0 : token_at(w, i + shifted);
}

static Tensor *make_input(World *w, const Module *m, const Binding *b, Type t) {
  Tensor *slot = b->kind == BIND_SLOT ? map_get(&w->slots, b->name) : NULL;
  Tensor *x = tensor_new(&w->arena, t);
  if (slot)
    memcpy(x->data, slot->data, sizeof(double) * (size_t)type_elements(&t));
  else if (b->kind == BIND_INPUT)
    fill_input(w, x, b);
  else if (b->kind == BIND_STEP)
    x->data[0] = w->step;
  else if (b->kind == BIND_SEED)
    x->data[0] = 12345;
  for (uint32_t i = 0; b->kind == BIND_OPTION && i < m->options.len; i++)
    if (m->options.data[i].name == b->name)
      x->data[0] = m->options.data[i].value;
  return x;
}

/* Runs an entry; the results are in the world's arena. */
static Tensor **run_entry(World *w, Module *m, Entry *e) {
  uint32_t n = e->ins.len;
  Tensor **ins = NEW_ARRAY(&w->arena, Tensor *, n + 1);
  Tensor **outs = NEW_ARRAY(&w->arena, Tensor *, e->outs.len + 1);
  for (uint32_t i = 0; i < n; i++)
    ins[i] = make_input(w, m, &e->ins.data[i], e->region->params.data[i]->type);
  Eval ev = {.cx = w->cx, .mode = w->mode};
  if (ir_eval(&ev, e, ins, outs, &w->arena) == EVAL_FAILED) {
    diag_print(w->cx, stdout);
    exit(1);
  }
  return outs;
}

static void keep_slots(World *w, const Entry *e, Tensor *const *outs) {
  for (uint32_t i = 0; i < e->outs.len; i++)
    if (e->outs.data[i].kind == BIND_SLOT)
      map_put(&w->arena, &w->slots, e->outs.data[i].name, outs[i]);
}

/* |x - y| / |x| over all elements; equal infinities and NaN do not count. */
static double distance(const Tensor *x, const Tensor *y) {
  double off = 0, size = 0;
  for (int64_t i = 0; i < type_elements(&x->type); i++) {
    double a = x->data[i], b = y->data[i];
    if (isfinite(a)) size += a * a;
    if (a == b || (isnan(a) && isnan(b))) continue;
    off += (a - b) * (a - b);
  }
  return off == 0 ? 0 : sqrt(off / (size > 1e-20 ? size : 1e-20));
}

/* ---- one module through the pipeline ------------------------------------- */

typedef struct Check {
  World w;
  Tensor ***before; /* by entry: results of the first stage that has them */
  double tolerance;
  Buf text; /* of the stage before */
  Buf why;  /* the first difference */
} Check;

static void compare_entry(Check *c, Module *m, uint32_t k, const char *pass) {
  Entry *e = m->entries.data[k];
  Tensor **outs = run_entry(&c->w, m, e);
  if (!c->before[k]) c->before[k] = outs;
  for (uint32_t i = 0; i < e->outs.len && !c->why.len; i++) {
    double d = distance(c->before[k][i], outs[i]);
    if (!(d <= c->tolerance))
      buf_fmt(&c->why, "after %s, entry %s, result %s: off by %.3g", pass,
              e->name, e->outs.data[i].name, d);
  }
}

/* What is said to be the same has the same text. */
static void compare_text(Check *c, Module *m, const char *pass, bool same) {
  Buf text = {0};
  ir_print(m, (PrintOptions){0}, &text);
  if (same && c->text.data && strcmp(c->text.data, text.data))
    buf_fmt(&c->why, "%s changes what it says is the same", pass);
  buf_free(&c->text);
  c->text = text;
}

static void after_pass(void *user, int number, const char *name, Module *m,
                       bool same) {
  (void)number;
  Check *c = user;
  compare_text(c, m, name, same);
  if (same || pass_facts(m, FACT_GRADS) != FACT_GRADS || c->why.len) return;
  for (uint32_t k = 0; k < m->entries.len; k++)
    compare_entry(c, m, k, name);
}

static bool run_passes(Check *c, Module *m, Dtype precision, int opt_level) {
  c->before = NEW_ARRAY(&c->w.arena, Tensor **, m->entries.len);
  Pipeline p = {.options = {.opt_level = opt_level, .precision = precision},
                .after = after_pass,
                .user = c};
  return pass_run(&p, m);
}

/* ---- the model ----------------------------------------------------------- */

/* The models, at sizes that take no time. */
typedef struct Model {
  const char *name;
  const char *defines[9];
  bool deep; /* in bf16 some tokens choose other experts */
} Model;

static const Model models[] = {
    {"lm_moe",
     {"V=11", "D=6", "N=5", "K=2", "H=7", "T=3", "B=4", "WARMUP=5"},
     false},
    {"lm_wide", {"V=11", "D=6", "H=7", "T=3", "B=4", "WARMUP=5"}, false},
    {"lm_4lstm", {"V=11", "D=6", "L=3", "T=3", "B=4", "WARMUP=5"}, false},
    {"lm_transformer",
     {"V=11", "D=6", "HEADS=3", "L=2", "F=8", "N=5", "T=4", "B=8"},
     true},
};

static Module *compile_model(Ctx *cx, const Model *model) {
  FeOptions o = {.path = sym_fmt(cx, "models/%s.dsl", model->name),
                 .defines = model->defines};
  while (model->defines[o.n_defines])
    o.n_defines++;
  Module *m = fe_compile(cx, &o);
  if (!m) diag_print(cx, stdout), exit(1);
  return m;
}

/* Slots as `init` makes them, but for the gate's weights: those are 0, so that
 * all experts tie, and small differences would choose others. */
static void init_slots(World *w, Module *m) {
  Entry *e = ir_entry(m, "init");
  keep_slots(w, e, run_entry(w, m, e));
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    Tensor *t = map_get(&w->slots, s->path);
    for (int64_t k = 0; path_match("gate/w", s->path) && k < 60; k++)
      t->data[k] = (float)sin((double)(k * k + 1));
  }
}

static void check_model(const Model *model, Dtype precision, int opt_level,
                        double tolerance) {
  Ctx cx = {0};
  Module *m = compile_model(&cx, model);
  Check c = {.w = {.cx = &cx, .vocabulary = 11, .step = 2},
             .tolerance = tolerance};
  c.w.mode = precision == DT_f64 ? EVAL_F64 : EVAL_TYPED;
  init_slots(&c.w, m);
  bool ok = run_passes(&c, m, precision, opt_level);
  char name[64];
  snprintf(name, sizeof name, "every stage of %s, %s, -O%d", model->name,
           dtype_info[precision].name, opt_level);
  CHECK(name, ok && !c.why.len, "%s", c.why.len ? c.why.data : "a pass failed");
  buf_free(&c.text);
  buf_free(&c.why);
  arena_reset(&c.w.arena);
  ctx_free(&cx);
}

/* ---- random graphs ------------------------------------------------------- */

static bool agrees(uint64_t seed, int opt_level, bool show) {
  Ctx cx = {0};
  RandomGraph o = {.seed = seed,
                   .nodes = 50,
                   .high = true,
                   .routing = true,
                   .scans = true};
  Module *m = random_graph(&cx, &o);
  Check c = {.w = {.cx = &cx, .mode = EVAL_TYPED, .vocabulary = 3},
             .tolerance = 1e-3};
  for (uint32_t i = 0; i < m->slots.len; i++) {
    Tensor *t = tensor_new(&c.w.arena, m->slots.data[i]->type);
    for (int64_t k = 0; k < type_elements(&t->type); k++)
      t->data[k] = (double)(k * 7 % 5) / 4 - 0.5;
    map_put(&c.w.arena, &c.w.slots, m->slots.data[i]->path, t);
  }
  bool ok = run_passes(&c, m, DT_f32, opt_level) && !c.why.len;
  if (!ok && show) {
    printf("# seed %d: %s\n", (int)seed, c.why.len ? c.why.data : "");
    diag_print(&cx, stdout);
  }
  buf_free(&c.text);
  buf_free(&c.why);
  arena_reset(&c.w.arena);
  ctx_free(&cx);
  return ok;
}

/* A last bit may turn a comparison over, so a few may differ. */
static void check_random_graphs(int opt_level) {
  enum { GRAPHS = 150 };
  int agreed = 0;
  for (uint64_t seed = 1; seed <= GRAPHS; seed++)
    agreed += agrees(seed, opt_level, getenv("VERBOSE") != NULL);
  char name[64];
  snprintf(name, sizeof name, "every stage of random graphs, -O%d", opt_level);
  CHECK(name, agreed >= GRAPHS * 95 / 100, "%d of %d agree", agreed, GRAPHS);
}

/* ---- training ------------------------------------------------------------ */

static double report_of(const Entry *e, Tensor *const *outs,
                        const char *report) {
  for (uint32_t i = 0; i < e->outs.len; i++)
    if (e->outs.data[i].kind == BIND_REPORT &&
        strcmp(e->outs.data[i].name, report) == 0)
      return outs[i]->data[0];
  internal_error("no report %s", report);
}

/* Returns the loss at last. */
static double check_training(Dtype precision) {
  enum { STEPS = 150 };
  Ctx cx = {0};
  Module *m = compile_model(&cx, &models[0]);
  Pipeline p = {.options = {.precision = precision}, .stop_after = "precision"};
  bool ok = pass_run(&p, m);
  World w = {.cx = &cx, .mode = EVAL_TYPED, .vocabulary = 11};
  Entry *init = ir_entry(m, "init"), *train = ir_entry(m, "train");
  for (uint32_t i = 0; i < m->options.len; i++)
    m->options.data[i].value *= 10; /* its only option is the learning rate */
  keep_slots(&w, init, run_entry(&w, m, init));
  double first = 0, last = 0;
  for (int step = 0; step < STEPS; step++) {
    w.step = step;
    Tensor **outs = run_entry(&w, m, train);
    keep_slots(&w, train, outs);
    double loss = report_of(train, outs, "loss");
    if (step < 10) first += loss / 10;
    if (step >= STEPS - 10) last += loss / 10;
  }
  char name[64];
  snprintf(name, sizeof name, "lm_moe learns in the interpreter, %s",
           dtype_info[precision].name);
  CHECK(name, ok && last < 0.6 * first, "loss %.3f at first, %.3f at last",
        first, last);
  if (getenv("VERBOSE")) printf("# loss %.3f, then %.3f\n", first, last);
  arena_reset(&w.arena);
  ctx_free(&cx);
  return last;
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(models); i++) {
    check_model(&models[i], DT_f64, 2, 1e-9);
    check_model(&models[i], DT_f64, 0, 1e-9);
    check_model(&models[i], DT_f32, 2, 1e-4);
    if (!models[i].deep) check_model(&models[i], DT_bf16, 2, 3e-2);
  }
  check_random_graphs(2);
  check_random_graphs(0);
  double f32 = check_training(DT_f32), bf16 = check_training(DT_bf16);
  CHECK("lm_moe learns in bf16 as in f32", fabs(bf16 - f32) < 0.05 * f32,
        "loss %.4f in bf16, %.4f in f32", bf16, f32);
  return failures != 0;
}
