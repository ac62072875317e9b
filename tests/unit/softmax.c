/* softmax.c: the sampled softmax of models/lib against plain loops: its loss
 * for given samples (Jean et al. 2015), the distribution that samples are drawn
 * by, and that many samples give the loss of all classes. */
#include "../../passes/pass.h"
#include "check.h"
#include "model_text.h"
#include "random_graph.h"

#include <math.h>
#include <string.h>

enum { T = 6, D = 3, N = 7, S = 5, DRAWS = 4096 };

static const char model[] =
    "import \"lib/softmax.dsl\"\n"
    "entry given(s: i32[5] from text, x: f32[2, 3, 3] from text,\n"
    "            w: f32[7, 3] from text, bias: f32[7] from text,\n"
    "            y: i32[2, 3] from text) {\n"
    "  probe loss = losses_among(s, x, w, bias, y)\n"
    "}\n"
    "entry drawn(x: f32[2, 3, 3] from text, w: f32[7, 3] from text,\n"
    "            bias: f32[7] from text, y: i32[2, 3] from text) {\n"
    "  let s = log_uniform(random_bits(zeros(f32[4096])), 7)\n"
    "  probe loss = losses_among(s, x, w, bias, y)\n"
    "  probe samples = s\n"
    "  probe all = losses(x, w, bias, y)\n"
    "}\n";

static Random drawn;

typedef struct Run {
  Entry *e;
  Arena a;
  Tensor *ins[16], *outs[16];
} Run;

static double *find(const BindingVec *names, Tensor **of,
                    const char *name) {
  for (uint32_t i = 0; i < names->len; i++)
    if (strcmp(names->data[i].name, name) == 0) return of[i]->data;
  internal_error("no %s", name);
}

static double *input(Run *r, const char *name) {
  return find(&r->e->ins, r->ins, name);
}

static const double *output(Run *r, const char *name) {
  return find(&r->e->outs, r->outs, name);
}

/* Classes for integers, small numbers for floats. */
static void run(Run *r, Module *m, const char *entry, EvalMode mode) {
  Eval ev = {.cx = m->cx, .mode = mode};
  *r = (Run){.e = ir_entry(m, entry)};
  for (uint32_t i = 0; i < r->e->ins.len; i++) {
    Tensor *t = r->ins[i] =
        tensor_new(&r->a, r->e->region->params.data[i]->type);
    bool is_float = dtype_info[t->type.dtype].kind == DK_FLOAT;
    for (int64_t k = 0; k < type_elements(&t->type); k++) {
      double x = random_unit(&drawn);
      t->data[k] = is_float ? 2 * x - 1 : floor(x * N);
    }
  }
  if (ir_eval(&ev, r->e, r->ins, r->outs, &r->a))
    internal_error("%s does not run", entry);
}

/* How likely a draw is class c. */
static double likely(int c) {
  return log((c + 2.0) / (c + 1.0)) / log(N + 1.0);
}

/* Of token t: the logit of class c, less the logarithm of how likely it is
 * among the samples. */
static double logit(Run *r, int t, int c) {
  double z = input(r, "bias")[c] - log(1 - pow(1 - likely(c), S));
  for (int d = 0; d < D; d++)
    z += input(r, "x")[t * D + d] * input(r, "w")[c * D + d];
  return z;
}

static double loss_of(Run *r, int t) {
  int y = (int)input(r, "y")[t];
  double sum = exp(logit(r, t, y));
  for (int c = 0; c < N; c++) {
    bool there = false;
    for (int i = 0; i < S; i++)
      there = there || input(r, "s")[i] == c;
    if (there && c != y) sum += exp(logit(r, t, c));
  }
  return log(sum) - logit(r, t, y);
}

static void check_given(Module *m, EvalMode mode, const char *name) {
  double worst = 0;
  int hits = 0;
  Run r;
  for (uint64_t seed = 1; seed < 8; seed++) {
    drawn = (Random){seed};
    run(&r, m, "given", mode);
    for (int t = 0; t < T; t++) {
      worst = worse(worst, fabs(output(&r, "loss")[t] - loss_of(&r, t)));
      for (int i = 0; i < S; i++)
        hits += input(&r, "s")[i] == input(&r, "y")[t];
    }
    arena_reset(&r.a);
  }
  double limit = mode == EVAL_F64 ? 1e-9 : 2e-6;
  CHECK(name, worst < limit && hits > 0, "off by %.3g, %d hits", worst, hits);
}

static void check_drawn(Module *m) {
  double counts[N] = {0}, far = 0, off = 0;
  Run r;
  drawn = (Random){3};
  run(&r, m, "drawn", EVAL_TYPED);
  for (int i = 0; i < DRAWS; i++) {
    int c = (int)output(&r, "samples")[i];
    if (c < 0 || c >= N) internal_error("class %d of %d", c, N);
    counts[c]++;
  }
  for (int c = 0; c < N; c++) /* by its standard deviation */
    far = worse(far, fabs(counts[c] - DRAWS * likely(c)) /
                         sqrt(DRAWS * likely(c) * (1 - likely(c))));
  for (int t = 0; t < T; t++)
    off = worse(off, fabs(output(&r, "loss")[t] - output(&r, "all")[t]));
  CHECK("samples are distributed as they are counted", far < 4, "%.3g", far);
  CHECK("many samples have the loss of all", off < 1e-5, "off by %.3g", off);
  arena_reset(&r.a);
}

int main(void) {
  Ctx cx = {0};
  Module *m = compile_text(&cx, "softmax.dsl", model);
  if (!m) {
    diag_print(&cx, stdout);
    return 1;
  }
  check_given(m, EVAL_F64, "given samples, in f64");
  check_given(m, EVAL_TYPED, "given samples, in f32");
  check_drawn(m);
  CHECK("expanded", pass_expand(m, &(PassOptions){0}), "the pass failed");
  check_given(m, EVAL_TYPED, "given samples, in f32, expanded");
  ctx_free(&cx);
  return failures != 0;
}
