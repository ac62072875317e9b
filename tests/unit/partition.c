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

enum { BELOW = 13 }; /* integers drawn */

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
  RanksSlots slots = {0};
  buf_fmt(&b, "moec-ir 1\nmesh {%s}\n%s", cases[i].mesh, cases[i].text);
  uint32_t file = source_add(&s.cx, cases[i].name, b.data, b.len);
  buf_free(&b);
  if (sides_split(&s, ir_read(&s.cx, file), "shard"))
    why = sides_step(&s, "f", &slots, 0, EVAL_F64, BELOW, 1e-14);
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
    {"tests/models/attention.dsl", "data=2,model=2", true},
    {"tests/models/attention.dsl", "model=4", false},
    {"tests/models/attention.dsl", "dev=4", false},
};

static const char *const even[] = {"V=16", "D=8", "B=8", "T=5", "P=0.25"};
static const char *const odd[] = {"V=13", "D=7", "B=8", "T=5", "P=0.25"};

static const char *run_model(Sides *s) {
  RanksSlots slots = {0};
  const char *why = sides_step(s, "init", &slots, 0, EVAL_TYPED, BELOW, 0);
  for (int i = 0; i < 2 && !why; i++)
    why = sides_step(s, "train", &slots, i, EVAL_F64, BELOW, 1e-12);
  if (!why) why = sides_step(s, "train", &slots, 2, EVAL_TYPED, BELOW, 1e-5);
  if (!why) why = sides_step(s, "eval", &slots, 2, EVAL_F64, BELOW, 1e-12);
  if (!why) why = sides_step(s, "decode", &slots, 2, EVAL_F64, BELOW, 1e-12);
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
  const char *why = "cannot be partitioned";
  if (sides_split(&s, fe_compile(&s.cx, &fe), NULL))
    why = run_model(&s);
  CHECK(name, !why, "%s", why);
  if (why) diag_print(&s.cx, stdout);
  if (getenv("VERBOSE")) printf("# %s: %g\n", name, s.worst);
  sides_free(&s);
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    test_case(i);
  for (size_t i = 0; i < COUNT_OF(models); i++)
    test_model(i);
  return failures != 0;
}
