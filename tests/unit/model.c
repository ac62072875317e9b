/* model.c: whole models at small size. The gradient of every parameter against
 * central differences in f64, per tensor by norm, with the same routing at both
 * points; then after each pass of the pipeline the same gradients again.
 * Run from the top of the project. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double STEP = 1e-5, LIMIT = 1e-6;
enum { MAX_TRIES = 10 };

static int failures;

static bool fail(const char *name, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool fail(const char *name, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  printf("not ok model %s: ", name);
  vprintf(fmt, args);
  printf("\n");
  va_end(args);
  failures++;
  return false;
}

static uint64_t state;

static uint64_t bits(void) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static double normal(void) {
  double u = (double)((bits() >> 11) + 1) * 0x1p-53;
  return sqrt(-2 * log(u)) * cos((double)(bits() >> 11) * 0x1p-53 * 6.2831853);
}

/* ---- a model's entry, reduced to its loss and gradients ---------------- */

typedef struct Model {
  Ctx cx;
  const char *path;
  Module *m;
  Entry *e; /* results: loss, then the gradient of each of wrt */
  uint32_t *wrt, n_wrt;
  Arena a;
  Tensor **ins, **outs;
  uint64_t choices;
} Model;

static Node *find_grad(const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_grad) return r->nodes.data[i];
  return NULL;
}

static void bind_result(Model *g, const char *name, uint32_t i, Value *v) {
  Binding b = {BIND_REPORT, sym_fmt(&g->cx, "%s%u", name, i), NULL};
  ir_bind_out(g->e, b, v);
}

static bool keep_gradients(Model *g) {
  Region *r = g->e->region;
  Node *grad = find_grad(r);
  if (!grad) return fail(g->path, "@train has no grad");
  g->n_wrt = grad->outs.len;
  g->wrt = NEW_ARRAY(&g->cx.perm, uint32_t, g->n_wrt);
  g->e->outs.len = r->results.len = 0;
  bind_result(g, "loss", 0, grad->ins.data[0]);
  for (uint32_t i = 0; i < g->n_wrt; i++) {
    g->wrt[i] = grad->ins.data[i + 1]->index;
    bind_result(g, "g", i, grad->outs.data[i]);
  }
  return true;
}

/* "train", or the smallest of "train.S2", "train.S4" ... */
static Entry *train_entry(Module *m) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Sym name = m->entries.data[i]->name;
    if (strncmp(name, "train", 5) == 0 && (!name[5] || name[5] == '.'))
      return m->entries.data[i];
  }
  return NULL;
}

static bool model_open(Model *g, const char *path, const char *const *defines,
                       uint32_t n_defines) {
  *g = (Model){.path = path};
  FeOptions o = {.path = path, .defines = defines, .n_defines = n_defines};
  g->m = fe_compile(&g->cx, &o);
  if (!g->m) {
    diag_print(&g->cx, stdout);
    return fail(path, "does not compile");
  }
  g->e = train_entry(g->m);
  for (uint32_t i = 0; i < g->m->entries.len; i++) /* the others go */
    if (g->m->entries.data[i] == g->e) g->m->entries.data[0] = g->e;
  g->m->entries.len = 1;
  return keep_gradients(g);
}

static void model_close(Model *g) {
  arena_reset(&g->a);
  ctx_free(&g->cx);
}

/* ---- inputs and runs --------------------------------------------------- */

static void draw(Model *g, int64_t vocabulary) {
  uint32_t n = g->e->region->params.len;
  g->ins = NEW_ARRAY(&g->a, Tensor *, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    Tensor *t = g->ins[i] =
        tensor_new(&g->a, g->e->region->params.data[i]->type);
    bool is_float = dtype_info[t->type.dtype].kind == DK_FLOAT;
    for (int64_t k = 0; k < type_elements(&t->type); k++)
      t->data[k] =
          is_float ? 0.4 * normal() : (double)(bits() % (uint64_t)vocabulary);
  }
}

static void note_choices(void *user, const Node *n, const Tensor *const *ins,
                         Tensor *const *outs) {
  Model *g = user;
  (void)ins;
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (dtype_info[outs[i]->type.dtype].kind != DK_FLOAT)
      g->choices =
          hash_bytes(g->choices, outs[i]->data,
                     sizeof(double) * (size_t)type_elements(&outs[i]->type));
}

static void run(Model *g) {
  Eval ev = {.cx = &g->cx, .mode = EVAL_F64, .hook = note_choices, .user = g};
  g->choices = 0;
  g->outs = NEW_ARRAY(&g->a, Tensor *, g->e->outs.len + 1);
  if (ir_eval(&ev, g->e, g->ins, g->outs, &g->a))
    internal_error("the model does not run");
}

static double loss_at(Model *f, double *x, double to) {
  double was = *x;
  *x = to;
  run(f);
  *x = was;
  return f->outs[0]->data[0];
}

static double distance(const double *a, const double *b, int64_t n) {
  double diff = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    diff += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  return sqrt(diff) / (sqrt(size) + 1e-12);
}

/* ---- checks ------------------------------------------------------------ */

/* Relative error of one gradient; -1 when routing differs between points. */
static double error_of(Model *f, const Model *g, uint32_t k) {
  Tensor *x = f->ins[f->wrt[k]];
  int64_t n = type_elements(&x->type);
  double *numeric = malloc(sizeof *numeric * (size_t)n);
  if (!numeric) internal_error("out of memory");
  run(f);
  uint64_t choices = f->choices;
  bool same = true;
  for (int64_t i = 0; i < n && same; i++) {
    double up = loss_at(f, &x->data[i], x->data[i] + STEP);
    same = f->choices == choices;
    double down = loss_at(f, &x->data[i], x->data[i] - STEP);
    same &= f->choices == choices;
    numeric[i] = (up - down) / (2 * STEP);
  }
  double e = distance(numeric, g->outs[k + 1]->data, n);
  free(numeric);
  return same ? e : -1;
}

static const char *name_of(const Model *g, uint32_t k) {
  return g->e->ins.data[g->wrt[k]].name;
}

/* 1: agrees, 0: does not, -1: drawn too near to another routing. */
static int check_differences(Model *f, Model *g) {
  for (uint32_t k = 0; k < f->n_wrt; k++) {
    double e = error_of(f, g, k);
    if (e < 0) return -1;
    if (!(e < LIMIT))
      return fail(g->path, "gradient of %s is off by %g", name_of(g, k), e);
  }
  return 1;
}

/* What the pipeline's callback compares with. */
typedef struct Reference {
  Model *g;
  Tensor **outs;
  bool ok;
} Reference;

static void compare(void *user, int number, const char *pass, Module *m,
                    bool same) {
  Reference *r = user;
  Model *g = r->g;
  (void)number;
  if (same || pass_facts(m, FACT_GRADS) != FACT_GRADS || !r->ok) return;
  for (uint32_t i = 0; i < g->e->region->params.len; i++)
    g->ins[i]->type = g->e->region->params.data[i]->type;
  run(g);
  for (uint32_t k = 0; k <= g->n_wrt; k++) {
    double e = distance(r->outs[k]->data, g->outs[k]->data,
                        type_elements(&r->outs[k]->type));
    if (!(e < 1e-9))
      r->ok = fail(g->path, "%s changes %s by %g", pass,
                   k ? name_of(g, k - 1) : "the loss", e);
  }
}

static bool check_pipeline(Model *g, Tensor **outs) {
  Reference r = {g, outs, true};
  Pipeline p = {.options = {.opt_level = 2, .precision = DT_f64},
                .after = compare,
                .user = &r};
  if (!pass_run(&p, g->m)) {
    diag_print(&g->cx, stdout);
    return fail(g->path, "the pipeline stops");
  }
  return r.ok;
}

static int check_once(const char *path, const char *const *defines,
                      uint32_t n_defines) {
  Model f, g, all;
  if (!model_open(&f, path, defines, n_defines) ||
      !model_open(&g, path, defines, n_defines) ||
      !model_open(&all, path, defines, n_defines))
    return 0;
  f.e->outs.len = f.e->region->results.len = 1;
  ir_sweep(f.e);
  if (!pass_autodiff(g.m, &(PassOptions){.precision = DT_f64}))
    return fail(path, "autodiff fails");
  draw(&f, 11);
  g.ins = all.ins = f.ins;
  run(&g);
  int ok = check_differences(&f, &g);
  if (ok > 0) ok = check_pipeline(&all, g.outs);
  model_close(&all);
  model_close(&g);
  model_close(&f);
  return ok;
}

static void check_model(const char *path, const char *const *defines) {
  uint32_t n = 0;
  while (defines[n])
    n++;
  int ok = -1;
  for (int try = 0; try < MAX_TRIES && ok < 0; try++) {
    state = (uint64_t)try;
    ok = check_once(path, defines, n);
  }
  if (ok < 0) fail(path, "every draw is near to another routing");
  if (ok <= 0) return;
  printf("ok model %s", path);
  for (uint32_t i = 0; i < n; i++)
    printf(" %s", defines[i]);
  printf("\n");
}

int main(void) {
  static const struct {
    const char *path, *defines[13];
  } models[] = {
      {"models/lm_moe.dsl", {"V=11", "D=6", "N=4", "K=2", "H=5", "T=3", "B=2"}},
      {"models/lm_moe.dsl", /* every expert */
       {"V=11", "D=4", "N=3", "K=3", "H=3", "T=2", "B=1"}},
      {"models/lm_moe.dsl", /* one expert, one step */
       {"V=11", "D=3", "N=1", "K=1", "H=2", "T=1", "B=3", "P=0.0"}},
      {"models/lm_moe.dsl", /* a third of the choices dropped */
       {"V=11", "D=6", "N=4", "K=2", "H=5", "T=4", "CAPACITY=0.7", "GROUPS=2",
        "B=2"}},
      {"models/lm_moe.dsl", /* two levels, projected LSTMs */
       {"V=11", "D=4", "U=6", "N=6", "A=3", "K=2", "H=3", "T=3", "B=2"}},
      {"models/lm_moe.dsl", /* every expert of every group */
       {"V=11", "D=4", "N=4", "A=2", "K=2", "H=3", "T=2", "B=2"}},
      {"models/lm_wide.dsl", {"V=11", "D=5", "H=7", "T=3", "B=2"}},
      {"models/lm_wide.dsl", /* a sampled softmax */
       {"V=11", "D=4", "H=3", "T=2", "B=2", "SAMPLES=5"}},
      {"models/lm_wide.dsl", {"V=11", "D=4", "H=5", "LAYERS=3", "T=2", "B=2"}},
      {"models/lm_4lstm.dsl", {"V=11", "D=4", "T=2", "B=2"}},
      {"models/lm_transformer.dsl",
       {"V=11", "D=4", "HEADS=2", "L=2", "F=5", "H=3", "N=3", "T=3", "B=2"}},
      {"models/lm_transformer.dsl", /* trained positions */
       {"V=11", "D=4", "HEADS=1", "L=1", "F=3", "T=4", "B=1", "ROTARY=0",
        "CONTEXT=3"}},
      {"models/lm_transformer.dsl", /* DeepSeekMoE */
       {"V=11", "D=4", "HEADS=2", "L=1", "EVERY=1", "H=2", "N=5", "T=2", "B=2",
        "GATE=deepseek", "SHARED=2"}},
      {"models/lm_transformer.dsl", /* Switch; sampled, of one table */
       {"V=11", "D=4", "HEADS=2", "L=1", "EVERY=1", "H=2", "T=2", "B=2",
        "GATE=switch", "CAPACITY=2.0", "SAMPLES=4", "AGAIN=1"}},
      {"models/mt_moe.dsl",
       {"V=11", "D=4", "U=6", "N=3", "K=2", "H=3", "W=12", "SHORT=3",
        "MIDDLE=4", "LONG=6"}},
      {"models/mt_moe.dsl",
       {"V=11", "D=4", "U=4", "N=0", "P=0.0", "W=12", "SHORT=3", "MIDDLE=4",
        "LONG=6", "SMOOTH=0.2", "STEPS=9", "WARMUP=4"}},
      {"models/mt_moe.dsl", /* two levels */
       {"V=11", "D=4", "U=4", "N=4", "A=2", "K=1", "H=3", "W=12", "SHORT=3",
        "MIDDLE=4", "LONG=6"}},
      {"models/mt_transformer.dsl", /* GShard: half of the choices dropped */
       {"V=11", "D=4", "HEADS=2", "L=1", "EVERY=1", "N=3", "H=4", "W=12",
        "SHORT=3", "MIDDLE=4", "LONG=6"}},
      {"tests/models/attention.dsl", {"V=11", "T=3", "B=2"}},
      {"tests/models/blocks.dsl", {0}},
      {"tests/models/moe_recompute.dsl", {0}},
      {"tests/models/moe_scan.dsl", {0}},
      {"tests/models/hierarchical.dsl", {0}},
      {"tests/models/nested_scans.dsl", {0}},
      {"tests/models/expert_dropout.dsl", {0}},
  };
  /* balanced: its loss teaches thresholds alone, tests/unit/gates.c has it */
  static const char *const gates[] = {
      "switch",        "gshard",   "deepseek", "deepseek_sigmoid",
      "loss_free",     "hash",     "top_p",    "cosine",    "multi_hash",
      "expert_choice", "sinkhorn", "base"};
  for (size_t i = 0; i < COUNT_OF(models); i++)
    check_model(models[i].path, models[i].defines);
  for (size_t i = 0; i < COUNT_OF(gates); i++) {
    char gate[32];
    const char *defines[] = {"V=11",     "D=2",          "N=4", "K=2", "H=2",
                             "SHARED=1", "EXPERT_P=0.3", "T=2", "B=2", gate,
                             NULL};
    snprintf(gate, sizeof gate, "GATE=%s", gates[i]);
    check_model("models/lm_moe.dsl", defines);
  }
  return failures != 0;
}
