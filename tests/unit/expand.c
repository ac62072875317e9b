/* expand.c: what `expand` makes of each function, against libm over dense
 * sweeps and specials; of random bits and routing, against the interpreter. */
#include "../../passes/pass.h"

#include "check.h"
#include "random_graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- functions of one operand -------------------------------------------- */

enum { BLOCK = 4096 };

/* A module of one entry that applies `op` to BLOCK elements, expanded. */
typedef struct Unary {
  Ctx cx;
  Module *m;
  Entry *e;
  Type in, out;
} Unary;

static void unary_new(Unary *u, OpKind op, Dtype in, Dtype out) {
  int64_t size = BLOCK;
  *u = (Unary){.in = type_of(in, 1, &size), .out = type_of(out, 1, &size)};
  u->m = ir_module_new(&u->cx);
  u->e = NEW(&u->cx.perm, Entry);
  u->e->name = sym(&u->cx, "f");
  u->e->module = u->m;
  u->e->region = ir_region(&u->cx, u->e, NULL);
  vec_push(&u->cx.perm, &u->m->entries, u->e);
  Value *x = ir_param(&u->cx, u->e->region, sym(&u->cx, "x"), u->in);
  Builder b = ir_builder(&u->cx, u->e->region);
  Node *n =
      ir_node(&b, op, op_is(op, TRAIT_TYPED) ? &u->out : NULL, &x, 1, NULL);
  vec_push(&u->cx.perm, &u->e->region->results, n->outs.data[0]);
  pass_expand(u->m, &(PassOptions){0});
  if (pass_facts(u->m, FACT_EXPANDED) != FACT_EXPANDED)
    internal_error("%s is not expanded", op_info[op].name);
}

static void unary_run(Unary *u, const double *x, double *y) {
  Eval ev = {.cx = &u->cx, .mode = EVAL_TYPED};
  Arena a = {0};
  Tensor *in = tensor_new(&a, u->in), *out;
  memcpy(in->data, x, sizeof(double) * BLOCK);
  ir_eval(&ev, u->e, &in, &out, &a);
  memcpy(y, out->data, sizeof(double) * BLOCK);
  arena_reset(&a);
}

static float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* Operands of a sweep: every 9973th f32; or as many f64, with all exponents. */
static double sweep_value(Dtype dtype, uint64_t i) {
  if (dtype == DT_f32) return float_of((uint32_t)(i * 9973));
  uint64_t bits = i * 0x9e3779b97f4a7c15u;
  double x;
  memcpy(&x, &bits, sizeof x);
  return i % 2 ? x : remainder(x, 50); /* half of them where functions bend */
}

/* The worst errors of a function: relative to its result, and absolute. */
typedef struct Worst {
  double relative, absolute, at;
  double mismatch; /* an operand where one is finite and the other is not */
  bool mismatched;
} Worst;

static void compare(Worst *w, double x, double y, double exact, Dtype dtype) {
  double tiny = dtype == DT_f32 ? 0x1p-126 : 0x1p-1022;
  double huge = dtype == DT_f32 ? 0x1.ffffffp127 : INFINITY;
  if (fabs(exact) >= huge) exact = copysign(INFINITY, exact);
  if (!isfinite(exact) || !isfinite(y)) {
    bool same = isnan(exact) ? isnan(y) : y == exact;
    if (!same) w->mismatched = true, w->mismatch = x;
    return;
  }
  double error = fabs(y - exact);
  w->absolute = worse(w->absolute, error);
  if (fabs(exact) < tiny) { /* may be flushed: half a unit of the smallest */
    if (error > tiny) w->mismatched = true, w->mismatch = x;
    return;
  }
  if (error <= w->relative * fabs(exact)) return;
  w->relative = error / fabs(exact);
  w->at = x;
}

static Worst sweep(OpKind op, Dtype dtype, double (*exact)(double)) {
  Unary u;
  unary_new(&u, op, dtype, dtype);
  static const double specials[] = {
      0.0,       -0.0,  INFINITY,        -INFINITY, NAN,
      1.0,       -1.0,  88.722831726074, 88.722839, -87.33654,
      -87.33655, -104,  709.7,           710,       -745,
      -746,      1e-40, -1e-40,          1e-310};
  Worst w = {0};
  double x[BLOCK], y[BLOCK];
  uint64_t n = dtype == DT_f32 ? (1ull << 32) / 9973 : 200000;
  for (uint64_t i = 0; i < n; i += BLOCK) {
    for (uint64_t k = 0; k < BLOCK; k++)
      x[k] = sweep_value(dtype, i + k);
    if (i == 0)
      for (size_t k = 0; k < COUNT_OF(specials); k++)
        x[k] = dtype == DT_f32 ? (float)specials[k] : specials[k];
    unary_run(&u, x, y);
    for (int k = 0; k < BLOCK; k++)
      compare(&w, x[k], y[k], exact(x[k]), dtype);
  }
  ctx_free(&u.cx);
  return w;
}

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

static const struct {
  OpKind op;
  double (*exact)(double);
  double f32, f64; /* limits of the relative error */
} functions[] = {
    {OP_exp, exp, 1.0e-7, 1e-15},     {OP_log, log, 1.3e-7, 2e-15},
    {OP_log1p, log1p, 1.8e-7, 2e-15}, {OP_tanh, tanh, 2.9e-7, 1e-15},
    {OP_erf, erf, 3.2e-7, 1e-15},     {OP_sigmoid, sigmoid, 2.0e-7, 2e-15},
};

static void test_functions(void) {
  for (size_t i = 0; i < COUNT_OF(functions); i++)
    for (int twice = 0; twice < 2; twice++) {
      Dtype dtype = twice ? DT_f64 : DT_f32;
      double limit = twice ? functions[i].f64 : functions[i].f32;
      Worst w = sweep(functions[i].op, dtype, functions[i].exact);
      char name[64];
      snprintf(name, sizeof name, "expand %s %s", op_info[functions[i].op].name,
               dtype_info[dtype].name);
      if (getenv("VERBOSE"))
        printf("# %s: relative %.3g at %.9g, absolute %.3g\n", name, w.relative,
               w.at, w.absolute);
      CHECK(name, !w.mismatched && w.relative <= limit,
            "relative %.3g at %.17g; limit %.3g; %s %.17g", w.relative, w.at,
            limit, w.mismatched ? "mismatch at" : "none", w.mismatch);
    }
}

/* ---- samples ------------------------------------------------------------- */

static void bits_block(double *x, uint32_t seed) {
  static const double ends[] = {0,
                                255,
                                256,
                                4294967295.0,
                                4294967040.0,
                                2147483648.0,
                                2147483647.0,
                                324269056,
                                322961664};
  for (int i = 0; i < BLOCK; i++)
    x[i] = (uint32_t)((i + seed) * 2654435761u);
  memcpy(x, ends, sizeof ends);
}

/* The distribution function gives back what the sample was made from. */
static double round_trip_error(double z, uint32_t bits) {
  double k = bits >> 8, p = ldexp(k + 0.5, -24);
  double tail = p < 0.5 ? p : 1 - p;
  return fabs(erfc(fabs(z) / sqrt(2)) / 2 - tail) / tail;
}

static void test_samples(Dtype dtype, double limit) {
  Unary normal, uniform;
  unary_new(&normal, OP_normal, DT_u32, dtype);
  unary_new(&uniform, OP_uniform, DT_u32, dtype);
  double x[BLOCK], z[BLOCK], u[BLOCK], worst = 0, sum = 0;
  bool sides = true, exact = true;
  for (uint32_t block = 0; block < 64; block++) {
    bits_block(x, block * BLOCK);
    unary_run(&normal, x, z);
    unary_run(&uniform, x, u);
    for (int i = 0; i < BLOCK; i++) {
      worst = worse(worst, round_trip_error(z[i], (uint32_t)x[i]));
      sides = sides && (z[i] > 0) == (x[i] >= 2147483648.0);
      exact = exact && u[i] == ldexp((uint32_t)x[i] >> 8, -24);
      sum += z[i] * z[i];
    }
  }
  if (getenv("VERBOSE"))
    printf("# normal: %.3g, variance %.4f\n", worst, sum / (64 * BLOCK));
  char name[64];
  snprintf(name, sizeof name, "expand normal %s", dtype_info[dtype].name);
  CHECK(name, worst < limit && sides, "probability off by %.3g", worst);
  snprintf(name, sizeof name, "expand uniform %s", dtype_info[dtype].name);
  CHECK(name, exact, "not the upper 24 bits");
  ctx_free(&normal.cx);
  ctx_free(&uniform.cx);
}

/* ---- bits and routing: equal bit for bit --------------------------------- */

/* Random bits and a MoE layer of 4 experts in the body of a scan: forward, and
 * the ops of its gradient, all on one `ids`. */
static const char routing[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @f(%x: f32[3, 5, 2] = input \"x\", %ids: i32[3, 5, 2] = input "
    "\"i\",\n"
    "    %gates: f32[3, 5, 2] = input \"g\", %w: f32[4, 2, 3] = input \"w\",\n"
    "    %seed: u32[] = seed) {\n"
    "  %h0 = const {value=0} : f32[5, 3]\n"
    "  %h, %dg, %dx, %bits = scan %h0, %x, %ids, %gates, %w, %seed {carries=1,"
    " scanned=3, length=3, reverse=false} (%t: i32[], %c: f32[5, 3], "
    "%xt: f32[5, 2], %it: i32[5, 2], %gt: f32[5, 2], %wt: f32[4, 2, 3], "
    "%s: u32[]) {\n"
    "    %d = dispatch %xt, %it {experts=4} : f32[4, r<=10, 2]\n"
    "    %y = contract %d, %wt {map=\"nrd,ndh->nrh\"} : f32[4, r<=10, 3]\n"
    "    %m = combine %y, %it, %gt : f32[5, 3]\n"
    "    %next = add %c, %m : f32[5, 3]\n"
    "    %stop = stop_gradient %next : f32[5, 3]\n"
    "    %dgt = row_dot %y, %stop, %it : f32[5, 2]\n"
    "    %dy = dispatch %next, %it, %gt {experts=4} : f32[4, r<=10, 3]\n"
    "    %dd = contract %dy, %wt {map=\"nrh,ndh->nrd\"} : f32[4, r<=10, 2]\n"
    "    %dxt = combine %dd, %it : f32[5, 2]\n"
    "    %tu = cast %t : u32[]\n"
    "    %z = const {value=0} : u32[]\n"
    "    %r = threefry %s, %tu, %z, %tu {site=7} : u32[]\n"
    "    yield %next, %dgt, %dxt, %r\n"
    "  } : f32[5, 3], f32[3, 5, 2], f32[3, 5, 2], u32[3]\n"
    "  return report \"h\" = %h, report \"dg\" = %dg, report \"dx\" = %dx, "
    "report \"bits\" = %bits\n"
    "}\n";

static int count_op(const Region *r, OpKind op) {
  int count = 0;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    count += n->op == op;
    if (n->body) count += count_op(n->body, op);
  }
  return count;
}

static bool same_data(const Tensor *x, const Tensor *y) {
  size_t bytes = sizeof(double) * (size_t)type_elements(&x->type);
  return memcmp(x->data, y->data, bytes) == 0;
}

static void test_routing(void) {
  Ctx cx = {0};
  Module *m =
      ir_read(&cx, source_add(&cx, "routing.ir", routing, sizeof routing - 1));
  if (!m) diag_print(&cx, stdout), exit(1);
  Entry *e = m->entries.data[0];
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  Tensor *ins[5], *before[8][4], *after[4];
  bool same = true;
  for (uint64_t seed = 0; seed < 16; seed++) { /* twice the same inputs */
    random_inputs(e, seed % 8, &cx.perm, ins);
    for (int i = 0; i < 30; i++) /* all to one, some to none, any */
      ins[1]->data[i] = seed % 8 < 4 ? (double)(seed % 8)
                                     : (double)((i * 7 + i / 3) % 4 & seed);
    if (seed == 8) pass_expand(m, &(PassOptions){0});
    Tensor **outs = seed < 8 ? before[seed] : after;
    ir_eval(&ev, e, ins, outs, &cx.perm);
    for (int i = 0; i < 4 && seed >= 8; i++)
      same = same && same_data(before[seed - 8][i], after[i]);
  }
  CHECK("expand routing and threefry", same, "results differ");
  CHECK("expand routes once", count_op(e->region, OP_route) == 1, "%d routes",
        count_op(e->region, OP_route));
  CHECK("expand leaves nothing", ir_verify(m, true), "not valid");
  ctx_free(&cx);
}

/* ---- random graphs ------------------------------------------------------- */

static bool near(const Tensor *x, const Tensor *y, double tolerance) {
  for (int64_t i = 0; i < type_elements(&x->type); i++) {
    double a = x->data[i], b = y->data[i];
    if (isnan(a) != isnan(b) || fabs(a - b) > tolerance * (1 + fabs(a)))
      return false;
  }
  return true;
}

/* The text of a module, read and printed again, is the same text. */
static bool text_round_trips(Module *m) {
  Buf text = {0}, again = {0};
  ir_print(m, (PrintOptions){0}, &text);
  Module *back =
      ir_read(m->cx, source_add(m->cx, "expanded.ir", text.data, text.len));
  if (back) ir_print(back, (PrintOptions){0}, &again);
  bool same = back && strcmp(text.data, again.data) == 0;
  buf_free(&text);
  buf_free(&again);
  return same;
}

/* Whether a random graph has the same results once expanded, as far as what it
 * computes by way of f32 allows: under f64 that is bitcasts. A last bit may
 * turn a comparison over, so one graph in ten may differ. */
static bool agrees(uint64_t seed, Dtype precision, bool *valid) {
  Ctx cx = {0};
  RandomGraph g = {.seed = seed,
                   .nodes = 60,
                   .high = true,
                   .routing = true,
                   .scans = true};
  Module *m = random_graph(&cx, &g);
  PassOptions o = {.precision = precision};
  pass_precision(m, &o);
  Entry *e = m->entries.data[0];
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  uint32_t n = e->region->results.len;
  Tensor **ins = NEW_ARRAY(&cx.perm, Tensor *, e->region->params.len);
  Tensor **before = NEW_ARRAY(&cx.perm, Tensor *, n);
  Tensor **after = NEW_ARRAY(&cx.perm, Tensor *, n);
  random_inputs(e, seed, &cx.perm, ins);
  ir_eval(&ev, e, ins, before, &cx.perm);
  pass_expand(m, &o);
  *valid = *valid && ir_verify(m, true) && text_round_trips(m);
  ir_eval(&ev, e, ins, after, &cx.perm);
  bool same = true;
  for (uint32_t i = 0; i < n; i++)
    same =
        same && near(before[i], after[i], precision == DT_f64 ? 1e-6 : 1e-3);
  ctx_free(&cx);
  return same;
}

static void test_random_graphs(Dtype precision) {
  enum { GRAPHS = 200 };
  int agreed = 0;
  bool valid = true;
  for (uint64_t seed = 1; seed <= GRAPHS; seed++)
    agreed += agrees(seed, precision, &valid);
  char name[64];
  snprintf(name, sizeof name, "expand random graphs, %s",
           dtype_info[precision].name);
  if (getenv("VERBOSE")) printf("# %s: %d agree\n", name, agreed);
  CHECK(name, valid && agreed >= GRAPHS * 9 / 10, "%d of %d agree; %s", agreed,
        GRAPHS, valid ? "valid" : "not valid");
}

int main(void) {
  test_functions();
  test_samples(DT_f32, 4e-6);
  test_samples(DT_f64, 1e-13);
  test_routing();
  test_random_graphs(DT_f32);
  test_random_graphs(DT_f64);
  return failures != 0;
}
