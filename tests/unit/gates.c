/* gates.c: gates and balance losses of models/lib against numbers worked out in
 * double precision from the formulas of Shazeer et al. 2017: Eq. 3 to 5 (G), 8
 * and 9 (P), CV squared of Eq. 7, Eq. 14, 18 and 20; of GShard (Algorithm 1),
 * Sinkhorn and the z-loss, and of a smoothed label; and what capacity leaves of
 * choices, counted by hand.
 * Evaluated as compiled, in doubles; then in f32 with `expand`ed functions. */
#include "../../passes/pass.h"
#include "check.h"
#include "model_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char model[] =
    "import \"lib/hierarchical.dsl\"\n"
    "import \"lib/balanced.dsl\"\n"
    "entry gate(clean: f32[1, 4] from text, raw: f32[1, 4] from text,\n"
    "           noise: f32[1, 4] from text) {\n"
    "  let g, i, dense, load = noisy_top_k_gates(clean, raw, noise, 2, true)\n"
    "  probe dense\n"
    "  probe load\n"
    "}\n"
    "entry gate2(clean: f32[1, 4] from text, raw: f32[1, 4] from text,\n"
    "            noise: f32[1, 4] from text) {\n"
    "  let g, i, dense, load = noisy_top_k_gates(clean, raw, noise, 2, true,\n"
    "                                            floor = 0.01)\n"
    "  probe dense\n"
    "  probe load\n"
    "}\n"
    "entry balance(v: f32[4] from text) {\n"
    "  let cv2 = cv_squared(v)\n"
    "  probe cv2\n"
    "}\n"
    "fn kept(a: f32[4], b: f32[4], factor, groups) {\n"
    "  let ids = i32(concat(expand(a), expand(b), dim = 1))\n"
    "  let left = f32(within_capacity(ids, 3, factor, groups))\n"
    "  return left[:, 0], left[:, 1]\n"
    "}\n"
    "entry capacity(a: f32[4] from text, b: f32[4] from text) {\n"
    "  let first, second = kept(a, b, 1.0, 1)\n"
    "  probe first\n"
    "  probe second\n"
    "}\n"
    "entry capacity2(a: f32[4] from text, b: f32[4] from text) {\n"
    "  let first, second = kept(a, b, 0.75, 2)\n"
    "  probe first\n"
    "  probe second\n"
    "}\n"
    "entry two_levels(first: f32[2] from text, tokens: f32[2] from text,\n"
    "                 own: f32[2, 2] from text) {\n"
    "  let load = two_level_load(first, tokens, own)\n"
    "  probe load\n"
    "}\n"
    "entry gshard(p: f32[4, 3] from text, draw: f32[4] from text) {\n"
    "  let gates, ids = gshard_choices(p, draw)\n"
    "  let none = within_capacity(ids, 3, 0.75, 1) == 3\n"
    "  let combined = put(select(none, 0.0, gates), ids, 3)\n"
    "  let first = put(ones_like(gates[:, 0:1]), ids[:, 0:1], 3)\n"
    "  let loss = gshard_loss(p, first, 1)\n"
    "  probe combined\n"
    "  probe loss\n"
    "}\n"
    "entry strict(p: f32[4, 2] from text, t: f32[2] from text) {\n"
    "  let mask = largest_in_batch(p, 1, 1)\n"
    "  let loss = threshold_loss(p, t, mask)\n"
    "  probe mask\n"
    "  probe loss\n"
    "}\n"
    "fn of_zeros(gate, there)(x, experts) {\n"
    "  let g, i, aux = gate(select(there > 0.0, x, 0.0), experts)\n"
    "  return g, i, aux\n"
    "}\n"
    "fn padded(x, gate, there) {\n"
    "  let y, _ = moe(x, experts = 4, hidden = 2, skip = true,\n"
    "                 gate = of_zeros(gate, there))\n"
    "  return y\n"
    "}\n"
    "entry padding(x: f32[3, 2] from text, mask: f32[3] from text) {\n"
    "  let there = expand(mask)\n"
    "  let one = padded(x, noisy_top_k(k = 2, there = there), there)\n"
    "  let two = padded(x, hierarchical(groups = 2, k = 2, there = there),\n"
    "                   there)\n"
    "  probe one\n"
    "  probe two\n"
    "}\n"
    "entry padding2(x: f32[3, 2] from text, mask: f32[3] from text) {\n"
    "  let there = expand(mask)\n"
    "  let even = padded(x, balanced_gate(2, most = 4, there = there), there)\n"
    "  probe even\n"
    "}\n"
    "entry even(z: f32[1, 4, 2] from text) {\n"
    "  let r = sinkhorn(z, 5)\n"
    "  probe r\n"
    "}\n"
    "entry words(weight: f32[8] from text) {\n"
    "  probe experts = f32(dealt(3)(i32(weight)))\n"
    "}\n"
    "entry smooth(z: f32[1, 3] from text, y: f32[1] from text) {\n"
    "  let loss = cross_entropy_each(z, i32(y), 0.3)\n"
    "  probe loss\n"
    "}\n"
    "entry small(z: f32[2, 3] from text) {\n"
    "  let loss = z_loss(z)\n"
    "  probe loss\n"
    "}\n";

typedef struct Golden {
  const char *name, *entry;
  double in[3][12];  /* the entry's inputs, in order */
  double out[2][12]; /* its probes; of choices that are left, 3 is none */
} Golden;

static const Golden goldens[] = {
    {"noisy top-2",
     "gate",
     {{1, 0.5, 0.2, -0.3}, {0, -1, 0.5, 1}, {0.3, -0.7, 1.1, 0.4}},
     {{0.484120, 0, 0.515880, 0}, {0.850297, 0.011913, 0.466979, 0.125434}}},
    {"initial state",
     "gate",
     {{0}, {0}, {0.3, -0.1, 0.8, -0.5}},
     {{0.414214, 0, 0.585786, 0}, {0.539828, 0.382089, 0.539828, 0.382089}}},
    {"noisy top-2, noise with a floor",
     "gate2",
     {{1, 0.5, 0.2, -0.3}, {0, -1, 0.5, 1}, {0.3, -0.7, 1.1, 0.4}},
     {{0.482122, 0, 0.517878, 0}, {0.849175, 0.013929, 0.470143, 0.126762}}},
    {"initial state, noise with a floor",
     "gate2",
     {{0}, {0}, {0.3, -0.1, 0.8, -0.5}},
     {{0.413001, 0, 0.586999, 0}, {0.539828, 0.382089, 0.539828, 0.382089}}},
    {"CV squared, uneven", "balance", {{1, 2, 3, 4}}, {{0.2}}},
    {"CV squared, all on one", "balance", {{4, 0, 0, 0}}, {{3}}},
    {"CV squared, half on two", "balance", {{2, 2, 0, 0}}, {{1}}},
    {"CV squared, nothing", "balance", {{0}}, {{0}}},
    {"capacity 3 of 8", "capacity", {{0, 0, 0, 0}, {1, 2, 1, 2}},
     {{0, 0, 0, 3}, {1, 2, 1, 2}}},
    {"capacity, first choices first", "capacity", {{1, 0, 1, 0}, {0, 1, 0, 1}},
     {{1, 0, 1, 0}, {0, 1, 3, 3}}},
    {"capacity 1 of 4, by group", "capacity2", {{0, 0, 1, 2}, {1, 2, 2, 0}},
     {{0, 3, 1, 2}, {1, 2, 3, 0}}},
    {"load of two levels",
     "two_levels",
     {{3.2, 2.8}, {3, 3}, {2.1, 1.1, 1.4, 1.5}},
     {{2.24, 1.173333, 1.306667, 1.4}}},
    {"load of a group that nobody chose",
     "two_levels",
     {{3.2, 0}, {3, 0}, {2.1, 1.1, 0, 0}},
     {{2.24, 1.173333, 0, 0}}},
    {"GShard, Algorithm 1",
     "gshard",
     {{.7, .2, .1, .6, .3, .1, .5, .1, .4, .2, .5, .3}, {.3, .9, .5, .2}},
     {{.777778, .222222, 0, .666667, 0, 0, 0, 0, .444444, 0, .625, .375},
      {1.331250}}},
    {"strictly balanced",
     "strict",
     {{.8, .2, .7, .3, .6, .4, .1, .9}, {.65, .5}},
     {{1, 0, 1, 0, 0, 1, 0, 1}, {0.1}}},
    {"strictly balanced, thresholds that agree",
     "strict",
     {{.8, .2, .7, .3, .6, .4, .1, .9}, {.65, .35}},
     {{1, 0, 1, 0, 0, 1, 0, 1}, {0}}},
    /* Where it did, its gate of 0 times infinity would be NaN. */
    {"padding reaches no expert",
     "padding",
     {{1, 2, INFINITY, INFINITY, 3, 4}, {1, 0, 1}},
     {{.09375, .09375, 0, 0, .21875, .21875},
      {.09375, .09375, 0, 0, .21875, .21875}}},
    {"padding reaches no expert, strictly balanced",
     "padding2",
     {{1, 2, INFINITY, INFINITY, 3, 4}, {1, 0, 1}},
     {{.09375, .09375, 0, 0, .21875, .21875}}},
    {"Sinkhorn",
     "even",
     {{2, 0, 1, 0, 1, .5, 0, 0}},
     {{.18937, .06063, .13367, .11633, .10268, .14732, .07428, .17572}}},
    {"words that are dealt: 1, 1/2, 1/3 ... to the least of three",
     "words",
     {{0}},
     {{0, 1, 2, 2, 1, 2, 1, 2}}},
    {"a smoothed label", "smooth", {{2, 1, 0}, {0}}, {{.7076060}}},
    {"z-loss", "small", {{2, 1, 0, 0, 0, 0}}, {{3.501758}}},
};

static double worst_error(const Tensor *t, const double *want) {
  double worst = 0;
  for (int64_t i = 0; i < type_elements(&t->type); i++)
    worst = worse(worst, fabs(t->data[i] - want[i]));
  return worst;
}

/* Of all probes, in the order in which the model has them. */
static double worst_of(Entry *e, Tensor *const *outs, const Golden *g) {
  double worst = 0;
  int n = 0;
  for (uint32_t i = 0; i < e->outs.len; i++)
    if (e->outs.data[i].kind == BIND_PROBE)
      worst = worse(worst, worst_error(outs[i], g->out[n++]));
  return n ? worst : INFINITY;
}

static void fill_slot(Tensor *t) {
  for (int64_t i = 0; i < type_elements(&t->type); i++)
    t->data[i] = 0.125;
}

static void run_goldens(Module *m, EvalMode mode, const char *how) {
  for (size_t k = 0; k < COUNT_OF(goldens); k++) {
    const Golden *g = &goldens[k];
    Entry *e = ir_entry(m, g->entry);
    Eval ev = {.cx = m->cx, .mode = mode};
    Arena a = {0};
    Tensor *ins[16], *outs[16];
    for (uint32_t i = 0, n = 0; i < e->ins.len; i++) {
      ins[i] = tensor_new(&a, e->region->params.data[i]->type);
      if (e->ins.data[i].kind == BIND_INPUT)
        memcpy(ins[i]->data, g->in[n++],
               sizeof(double) * (size_t)type_elements(&ins[i]->type));
      if (e->ins.data[i].kind == BIND_SLOT) fill_slot(ins[i]);
    }
    ir_eval(&ev, e, ins, outs, &a);
    double worst = worst_of(e, outs, g);
    char name[80];
    snprintf(name, sizeof name, "%s, %s", g->name, how);
    double limit = strcmp(g->entry, "even") == 0 ? 6e-6 : 6e-7; /* digits */
    CHECK(name, worst <= (mode == EVAL_F64 ? limit : limit + 6e-7),
          "off by %.3g", worst);
    arena_reset(&a);
  }
}

int main(void) {
  Ctx cx = {0};
  Module *m = compile_text(&cx, "gates.dsl", model);
  if (!m) {
    diag_print(&cx, stdout);
    return 1;
  }
  run_goldens(m, EVAL_F64, "in f64");
  run_goldens(m, EVAL_TYPED, "in f32");
  CHECK("expanded", pass_expand(m, &(PassOptions){0}), "the pass failed");
  run_goldens(m, EVAL_TYPED, "in f32, expanded");
  ctx_free(&cx);
  return failures != 0;
}
