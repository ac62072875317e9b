/* optim.c: the optimisers and schedules of models/lib/optim.dsl against their
 * formulas, written out in plain loops: several steps on two matrices side by
 * side and a vector, whose gradients are inputs. Evaluated in doubles. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"
#include "random_graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MATRICES = 2, ROWS = 3, COLUMNS = 4, VECTOR = 5, STEPS = 7 };
enum { MATRIX = ROWS * COLUMNS, MOST = MATRICES * MATRIX };

/* A parameter with what its optimiser keeps. */
typedef struct Param {
  int n, matrices; /* 0 matrices: a vector */
  double p[MOST], g[MOST], first[MOST], second[MOST], sum[MOST];
  double rows[MATRICES * ROWS], columns[MATRICES * COLUMNS];
} Param;

typedef struct Step {
  int t;       /* steps before */
  double norm; /* of all gradients */
} Step;

/* ---- what the papers say ------------------------------------------------- */

static void adam(Param *x, int t, double rate, double decay) {
  for (int i = 0; i < x->n; i++) {
    x->first[i] = 0.9 * x->first[i] + 0.1 * x->g[i];
    x->second[i] = 0.999 * x->second[i] + 0.001 * x->g[i] * x->g[i];
    double m = x->first[i] / (1 - pow(0.9, t + 1));
    double v = x->second[i] / (1 - pow(0.999, t + 1));
    x->p[i] -= rate * (m / (sqrt(v) + 1e-8) + decay * x->p[i]);
  }
}

/* Means of squares by rows and columns; then what they say of each element. */
static void factored(Param *x, double keep, double eps, double *v) {
  for (int i = 0; i < x->n && !x->matrices; i++)
    v[i] = x->second[i] =
        keep * x->second[i] + (1 - keep) * (x->g[i] * x->g[i] + eps);
  for (int m = 0; m < x->matrices; m++) {
    double *r = x->rows + m * ROWS, *c = x->columns + m * COLUMNS, mean = 0;
    const double *g = x->g + m * MATRIX;
    for (int i = 0; i < ROWS; i++) {
      double sum = 0;
      for (int j = 0; j < COLUMNS; j++)
        sum += g[i * COLUMNS + j] * g[i * COLUMNS + j] + eps;
      r[i] = keep * r[i] + (1 - keep) * sum / COLUMNS;
      mean += r[i] / ROWS;
    }
    for (int j = 0; j < COLUMNS; j++) {
      double sum = 0;
      for (int i = 0; i < ROWS; i++)
        sum += g[i * COLUMNS + j] * g[i * COLUMNS + j] + eps;
      c[j] = keep * c[j] + (1 - keep) * sum / ROWS;
    }
    for (int i = 0; i < MATRIX; i++)
      v[m * MATRIX + i] = r[i / COLUMNS] * c[i % COLUMNS] / mean;
  }
}

static double root_mean_square(const double *x, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++)
    sum += x[i] * x[i];
  return sqrt(sum / n);
}

static void by_adam(Param *x, Step s) {
  adam(x, s.t, 0.1, 0);
}

static void by_adamw(Param *x, Step s) {
  adam(x, s.t, 0.1, 0.3);
}

static void by_sgd(Param *x, double rate) {
  for (int i = 0; i < x->n; i++)
    x->p[i] -= rate * x->g[i];
}

static void by_momentum(Param *x, Step s) {
  (void)s;
  for (int i = 0; i < x->n; i++) {
    x->first[i] = 0.8 * x->first[i] + x->g[i];
    x->p[i] -= 0.1 * x->first[i];
  }
}

static void by_nesterov(Param *x, Step s) {
  (void)s;
  for (int i = 0; i < x->n; i++) {
    x->first[i] = 0.8 * x->first[i] + x->g[i];
    x->p[i] -= 0.1 * (x->g[i] + 0.8 * x->first[i]);
  }
}

static void by_factored_adam(Param *x, Step s) {
  double v[MOST];
  factored(x, 0.99, 0, v);
  for (int i = 0; i < x->n; i++)
    x->p[i] -=
        0.1 * x->g[i] / (sqrt(v[i] / (1 - pow(0.99, s.t + 1))) + 1e-8);
}

static void by_adafactor(Param *x, Step s) {
  double u[MOST], size = root_mean_square(x->p, x->n);
  factored(x, 1 - pow(s.t + 1, -0.8), 1e-30, u);
  for (int i = 0; i < x->n; i++)
    u[i] = x->g[i] / sqrt(u[i]);
  double over = root_mean_square(u, x->n) / 0.7;
  double rate = fmin(0.5, pow(s.t + 1, -0.5)) * fmax(size, 1e-3);
  for (int i = 0; i < x->n; i++)
    x->p[i] -= rate * u[i] / fmax(1, over);
}

static void by_clip(Param *x, Step s) {
  by_sgd(x, s.norm > 2.4 ? 0.1 * 2.4 / s.norm : 0.1);
}

/* One update of Adam for every three steps, by the mean. */
static void by_accumulate(Param *x, Step s) {
  for (int i = 0; i < x->n; i++)
    x->sum[i] += x->g[i];
  if (s.t % 3 != 2) return;
  for (int i = 0; i < x->n; i++) {
    x->g[i] = x->sum[i] / 3;
    x->sum[i] = 0;
  }
  adam(x, s.t / 3, 0.1, 0);
}

static void by_warmup(Param *x, Step s) {
  by_sgd(x, 0.1 * fmin((s.t + 1) / 3.0, 1));
}

static void by_rsqrt(Param *x, Step s) {
  by_sgd(x, 0.1 * fmin((s.t + 1) / 3.0, sqrt(3.0 / (s.t + 1))));
}

static void by_flat(Param *x, Step s) {
  by_sgd(x, 0.1 * fmin(fmin((s.t + 1) / 2.0, 1), sqrt(5.0 / (s.t + 1))));
}

static void by_cosine(Param *x, Step s) {
  double t = s.t + 1, part = fmin(fmax(t - 2, 0) / 3, 1);
  double cosine = 0.2 + 0.8 * 0.5 * (1 + cos(acos(-1) * part));
  by_sgd(x, 0.1 * fmin(t / 2, cosine));
}

static const struct {
  const char *name, *text;
  void (*run)(Param *x, Step s);
} optimisers[] = {
    {"adam", "adam(0.1)", by_adam},
    {"adamw", "adamw(0.1, decay = 0.3)", by_adamw},
    {"momentum", "momentum(0.1, keep = 0.8)", by_momentum},
    {"nesterov", "momentum(0.1, keep = 0.8, nesterov = true)", by_nesterov},
    {"factored_adam", "factored_adam(0.1, b2 = 0.99)", by_factored_adam},
    {"adafactor", "adafactor(0.5, clip = 0.7)", by_adafactor},
    {"clip", "clip(sgd(0.1), 2.4)", by_clip},
    {"accumulate", "accumulate(adam(0.1, updates = step / 3), 3)",
     by_accumulate},
    {"warmup_constant", "sgd(warmup_constant(0.1, 3))", by_warmup},
    {"warmup_rsqrt", "sgd(warmup_rsqrt(0.1, 3))", by_rsqrt},
    {"warmup_flat_rsqrt", "sgd(warmup_flat_rsqrt(0.1, 2, 3))", by_flat},
    {"warmup_cosine", "sgd(warmup_cosine(0.1, 2, 5, floor = 0.2))", by_cosine},
};

/* ---- the same, compiled -------------------------------------------------- */

/* An entry an optimiser; all train the same two parameters. */
static void write_model(Buf *out) {
  buf_add(out, "import \"lib/optim.dsl\"\n"
               "fn loss(gw, gb) {\n"
               "  param w: f32[2, 3, 4] = 0.0\n"
               "  param b: f32[5] = 0.0\n"
               "  return sum(w * gw) + sum(b * gb)\n"
               "}\n"
               "entry moments(v: f32[2, 2] from text) {\n"
               "  probe v_hat = factored_moment(v, 0.0)\n"
               "}\n");
  for (size_t i = 0; i < COUNT_OF(optimisers); i++)
    buf_fmt(out,
            "entry %s(gw: f32[2, 3, 4] from text, gb: f32[5] from text) {\n"
            "  minimize loss(gw, gb) as \"\" with { \"*\": %s }\n"
            "}\n",
            optimisers[i].name, optimisers[i].text);
}

/* From -1 to 1. */
static double draw(Random *r) {
  return 2 * random_unit(r) - 1;
}

/* The parameter that an operand is, or whose gradient it is; NULL. */
static Param *param_of(const Binding *b, Param *w, Param *v,
                       bool *is_gradient) {
  static const char *const names[] = {"w", "b", "gw", "gb"};
  for (int i = 0; b->name && i < 4; i++)
    if (strcmp(b->name, names[i]) == 0) {
      *is_gradient = i >= 2;
      return i % 2 == 0 ? w : v;
    }
  return NULL;
}

static void give(Tensor *t, const double *from) {
  memcpy(t->data, from, sizeof *from * (size_t)type_elements(&t->type));
}

/* Operands of step t: slots as the last step has left them. */
static void give_all(Entry *e, Tensor **ins, Param *w, Param *v, int t) {
  for (uint32_t i = 0; i < e->ins.len; i++) {
    bool is_gradient;
    const Binding *b = &e->ins.data[i];
    Param *x = param_of(b, w, v, &is_gradient);
    if (b->kind == BIND_STEP) ins[i]->data[0] = t;
    if (x && is_gradient) give(ins[i], x->g);
    if (x && !is_gradient && t == 0) give(ins[i], x->p);
  }
}

static void keep_slots(Entry *e, Tensor **ins, Tensor *const *outs) {
  for (uint32_t k = 0; k < e->outs.len; k++)
    for (uint32_t i = 0; i < e->ins.len; i++)
      if (e->outs.data[k].kind == BIND_SLOT &&
          e->ins.data[i].kind == BIND_SLOT &&
          e->ins.data[i].name == e->outs.data[k].name)
        give(ins[i], outs[k]->data);
}

static double worst_of(Entry *e, Tensor *const *ins, Param *w, Param *v) {
  double worst = 0;
  int seen = 0;
  for (uint32_t i = 0; i < e->ins.len; i++) {
    bool is_gradient;
    Param *x = param_of(&e->ins.data[i], w, v, &is_gradient);
    if (!x || is_gradient) continue;
    seen++;
    for (int k = 0; k < x->n; k++)
      worst = worse(worst, fabs(ins[i]->data[k] - x->p[k]));
  }
  return seen == 2 ? worst : INFINITY;
}

static void run_one(Module *m, size_t number) {
  Entry *e = ir_entry(m, optimisers[number].name);
  Eval ev = {.cx = m->cx, .mode = EVAL_F64};
  Arena a = {0};
  Tensor *ins[16], *outs[24];
  Param w = {.n = MOST, .matrices = MATRICES}, v = {.n = VECTOR};
  Param *all[] = {&w, &v};
  Random random = {number};
  double worst = 0;
  for (uint32_t i = 0; i < e->ins.len; i++)
    ins[i] = tensor_new(&a, e->region->params.data[i]->type);
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < all[k]->n; i++)
      all[k]->p[i] = draw(&random);
  for (int t = 0; t < STEPS; t++) {
    double squares = 0;
    for (int k = 0; k < 2; k++)
      for (int i = 0; i < all[k]->n; i++) {
        all[k]->g[i] = draw(&random);
        squares += all[k]->g[i] * all[k]->g[i];
      }
    give_all(e, ins, &w, &v, t);
    ir_eval(&ev, e, ins, outs, &a);
    keep_slots(e, ins, outs);
    for (int k = 0; k < 2; k++)
      optimisers[number].run(all[k], (Step){t, sqrt(squares)});
    worst = worse(worst, worst_of(e, ins, &w, &v));
  }
  CHECK(optimisers[number].name, worst <= 2e-7, "off by %.3g", worst);
  arena_reset(&a);
}

/* Rows and columns of [[1, 4], [9, 16]]: the paper's factored moment. */
static void run_golden(Module *m) {
  static const double v[] = {1, 4, 9, 16};
  static const double want[] = {5 / 3., 10 / 3., 25 / 3., 50 / 3.};
  Entry *e = ir_entry(m, "moments");
  Eval ev = {.cx = m->cx, .mode = EVAL_F64};
  Arena a = {0};
  Tensor *ins[4], *outs[4];
  double worst = 1;
  for (uint32_t i = 0; i < e->ins.len; i++) {
    ins[i] = tensor_new(&a, e->region->params.data[i]->type);
    if (e->ins.data[i].kind == BIND_INPUT) give(ins[i], v);
  }
  ir_eval(&ev, e, ins, outs, &a);
  for (uint32_t k = 0; k < e->outs.len; k++)
    if (e->outs.data[k].kind == BIND_PROBE) {
      worst = 0;
      for (int i = 0; i < 4; i++)
        worst = worse(worst, fabs(outs[k]->data[i] - want[i]));
    }
  CHECK("factored moment", worst <= 1e-12, "off by %.3g", worst);
  arena_reset(&a);
}

int main(void) {
  Ctx cx = {0};
  Buf text = {0};
  static const char *const includes[] = {"models"};
  write_model(&text);
  Module *m = fe_compile(
      &cx, &(FeOptions){.path = "optim.dsl",
                        .file = source_add(&cx, "optim.dsl", text.data,
                                           text.len),
                        .includes = includes,
                        .n_includes = 1});
  if (!m) {
    diag_print(&cx, stdout);
    return 1;
  }
  pass_autodiff(m, &(PassOptions){0});
  for (size_t i = 0; i < COUNT_OF(optimisers); i++)
    run_one(m, i);
  run_golden(m);
  buf_free(&text);
  ctx_free(&cx);
  return failures != 0;
}
