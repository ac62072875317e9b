/* partition.c: partitioned programs by virtual ranks against the same programs
 * before they were partitioned: all results, which are the gradients and the
 * slots after a step. Padding starts as NaN: what reads it, shows.
 * Run from the top of the project. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"
#include "ranks_run.h"

#include <stdlib.h>
#include <string.h>

/* ---- both sides ---------------------------------------------------------- */

typedef struct Sides {
  Ctx cx;
  Module *whole, *part;
  Arena a;
} Sides;

/* The module as it is placed, and partitioned. */
static bool split(Sides *s, Module *m, const char *from, Dtype precision) {
  Pipeline p = {.options = {.opt_level = 2, .precision = precision},
                .from = from,
                .stop_after = "shard"};
  if (!m || !pass_run(&p, m)) return false;
  s->whole = ir_module_clone(m);
  p.from = p.stop_after = "partition";
  s->part = m;
  return pass_run(&p, m);
}

static void sides_free(Sides *s) {
  arena_reset(&s->a);
  ctx_free(&s->cx);
}

/* Runs an entry of both. */
static const char *step(Sides *s, const char *entry, RanksSlots *slots,
                        int64_t at, EvalMode mode, double tol, double *worst) {
  RanksRun r = {.cx = &s->cx,
                .whole = ir_entry(s->whole, entry),
                .part = ir_entry(s->part, entry),
                .mode = mode,
                .a = &s->a,
                .seed = 7 + (uint64_t)at,
                .below = 13};
  ranks_draw(&r, slots, at);
  const char *why = ranks_run(&r, tol);
  if (r.worst > *worst) *worst = r.worst;
  if (!why) ranks_keep(&r, slots);
  return why;
}

/* ---- pieces of programs -------------------------------------------------- */

/* An entry by its text behind "entry @f"; integers drawn are below 13. */
static const struct {
  const char *name, *mesh, *text;
} cases[] = {
#include "partition_cases.h"
};

static void test_case(size_t i) {
  Sides s = {0};
  Buf b = {0};
  const char *why = "cannot be partitioned";
  double worst = 0;
  RanksSlots slots = {0};
  buf_fmt(&b, "moec-ir 1\nmesh {%s}\n%s", cases[i].mesh, cases[i].text);
  uint32_t file = source_add(&s.cx, cases[i].name, b.data, b.len);
  buf_free(&b);
  if (split(&s, ir_read(&s.cx, file), "shard", DT_f32))
    why = step(&s, "f", &slots, 0, EVAL_F64, 1e-14, &worst);
  CHECK(cases[i].name, !why, "%s", why);
  if (why) diag_print(&s.cx, stdout);
  sides_free(&s);
}

/* ---- whole models -------------------------------------------------------- */

/* D and V of 8 and 16 divide by all of these meshes, 7 and 13 by none. */
static const struct {
  const char *model, *mesh;
  bool even;
} models[] = {
    {"models/lm_4lstm.dsl", "data=2", true},
    {"models/lm_4lstm.dsl", "model=2", true},
    {"models/lm_4lstm.dsl", "data=2,model=4", false},
    {"models/lm_wide.dsl", "dev=2,model=2", true},
    {"models/lm_wide.dsl", "dev=4,data=2", false},
    {"models/lm_wide.dsl", "expert=2,model=3", false},
    {"models/lm_wide.dsl", "model=8", false},
};

static const char *const even[] = {"V=16", "D=8", "B=8", "T=5", "P=0.25"};
static const char *const odd[] = {"V=13", "D=7", "B=8", "T=5", "P=0.25"};

static const char *run_model(Sides *s, double *worst) {
  RanksSlots slots = {0};
  const char *why = step(s, "init", &slots, 0, EVAL_TYPED, 0, worst);
  for (int i = 0; i < 2 && !why; i++)
    why = step(s, "train", &slots, i, EVAL_F64, 1e-12, worst);
  if (!why) why = step(s, "train", &slots, 2, EVAL_TYPED, 1e-5, worst);
  if (!why) why = step(s, "eval", &slots, 2, EVAL_F64, 1e-12, worst);
  if (!why) why = step(s, "decode", &slots, 2, EVAL_F64, 1e-12, worst);
  return why;
}

static void test_model(size_t i) {
  Sides s = {0};
  FeOptions fe = {.path = models[i].model,
                  .mesh = &models[i].mesh,
                  .n_mesh = 1,
                  .defines = models[i].even ? even : odd,
                  .n_defines = COUNT_OF(even)};
  Sym name = sym_fmt(&s.cx, "%s on %s%s", models[i].model, models[i].mesh,
                     models[i].even ? "" : ", padded");
  double worst = 0;
  const char *why = "cannot be partitioned";
  if (split(&s, fe_compile(&s.cx, &fe), NULL, DT_f32))
    why = run_model(&s, &worst);
  CHECK(name, !why, "%s", why);
  if (why) diag_print(&s.cx, stdout);
  if (getenv("VERBOSE")) printf("# %s: %g\n", name, worst);
  sides_free(&s);
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    test_case(i);
  for (size_t i = 0; i < COUNT_OF(models); i++)
    test_model(i);
  return failures != 0;
}
