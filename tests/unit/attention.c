/* attention.c: attention compiled, against the interpreter launch by launch;
 * what it takes of memory; and a model that is given a sequence token by token
 * against the same model that sees all of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "../../runtime/rt.h"
#include "attention_text.h"
#include "check.h"
#include "launches.h"

/* ---- compiled ------------------------------------------------------------ */

static Module *read_case(Ctx *cx, const int *sizes, const char *dtype,
                         const char *kinds) {
  Buf text = {0};
  attention_text(sizes, dtype, kinds, &text);
  Module *m = ir_read(cx, source_add(cx, "test.ir", text.data, text.len));
  buf_free(&text);
  Pipeline p = {.options = {.opt_level = 2}, .from = "fuse"};
  return m && pass_run(&p, m) ? m : NULL;
}

static void compiled(const int *sizes, const char *dtype, const char *kinds,
                     const char *cpu) {
  Ctx cx = {0};
  char name[160], how[64];
  snprintf(how, sizeof how, "for %s", cpu);
  attention_name(name, how, sizes, dtype);
  Buf why = {0};
  Module *m = read_case(&cx, sizes, dtype, kinds);
  CHECK(name, m && launches_agree(m, cpu, 3, 0, &why), "%s",
        why.data ? why.data : "it is no module");
  buf_free(&why);
  ctx_free(&cx);
}

/* Blocks of queries and keys that are whole, cut and single; odd widths. */
static const struct {
  int sizes[ATTENTION_SIZES];
  const char *kinds;
} shapes[] = {
    {{1, 1, 1, 1, 1, 1, 1}, "a"},       {{2, 65, 33, 2, 1, 8, 24}, "c"},
    {{1, 192, 256, 2, 2, 64, 64}, "b"}, {{1, 300, 131, 1, 1, 33, 128}, "d"},
    {{1, 16, 40, 1, 1, 300, 270}, "a"},
};

/* Which of these for which machine: a bit a shape. */
static const struct {
  const char *cpu, *feature, *dtype;
  unsigned shapes;
} cases[] = {
    {"x86-64-v3", "avx2", "f32", 0x0a},
    {"x86-64-v4", "avx512f", "f32", 0x1d},
    {"x86-64-v4", "avx512f", "f64", 0x02},
    {"x86-64-v4", "avx512f", "bf16", 0x02},
    {"x86-64-v4-bf16", "avx512bf16", "bf16", 0x0a},
    {"x86-64-v4-amx", "amx-bf16", "bf16", 0x1f},
};

static void all_compiled(void) {
  for (size_t c = 0; c < COUNT_OF(cases); c++)
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
      if (cases[c].shapes >> i & 1 && rt_cpu_has(cases[c].feature))
        compiled(shapes[i].sizes, cases[c].dtype, shapes[i].kinds,
                 cases[c].cpu);
}

/* ---- memory -------------------------------------------------------------- */

static int64_t workspaces;

static void add_workspace(void *user, const Kernel *k) {
  (void)user;
  workspaces += k->workspace_bytes;
  for (uint32_t i = 0; i < k->stages.len; i++)
    workspaces += k->stages.data[i].scratch_bytes;
}

/* Bytes of the arena, and of what kernels need besides. */
static int64_t bytes_for(int time) {
  Ctx cx = {0};
  int sizes[ATTENTION_SIZES] = {1, time, time, 2, 2, 16, 16};
  Module *m = read_case(&cx, sizes, "f32", "b");
  workspaces = 0;
  if (m) cg_kernels(m, &(Isa){.lanes = 16}, add_workspace, NULL);
  int64_t bytes = m ? m->entries.data[0]->arena_bytes + workspaces : 0;
  ctx_free(&cx);
  return bytes;
}

/* Nothing is of the size of the scores: all grows no faster than time. */
static void memory(void) {
  int64_t before = bytes_for(1024), scores = INT64_C(4) * 8192 * 8192;
  int64_t after = bytes_for(8192);
  CHECK("the memory of attention grows with time alone",
        before > 0 && after <= 8 * before && after < scores / 4,
        "%lld bytes, then %lld", (long long)before, (long long)after);
}

/* ---- token by token ------------------------------------------------------ */

enum { TOKENS = 5 };

/* What slots hold: Slot -> Tensor. */
typedef struct Steps {
  Ctx cx;
  Arena a;
  Module *m;
  Map slots;
} Steps;

/* Runs an entry on `tokens`; returns its report, if it has one. */
static Tensor *run(Steps *r, const char *name, const double *tokens) {
  Entry *e = ir_entry(r->m, name);
  Tensor **ins = NEW_ARRAY(&r->a, Tensor *, e->ins.len + 1);
  Tensor **outs = NEW_ARRAY(&r->a, Tensor *, e->outs.len + 1);
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Binding *b = &e->ins.data[i];
    ins[i] = tensor_new(&r->a, e->region->params.data[i]->type);
    if (b->kind == BIND_SLOT)
      ins[i] = map_get(&r->slots, ir_slot(r->m, b->name));
    if (b->kind == BIND_INPUT)
      memcpy(ins[i]->data, tokens,
             sizeof(double) * (size_t)type_elements(&ins[i]->type));
  }
  Eval ev = {.cx = &r->cx, .mode = EVAL_F64};
  ir_eval(&ev, e, ins, outs, &r->a);
  Tensor *report = NULL;
  for (uint32_t i = 0; i < e->outs.len; i++) {
    if (e->outs.data[i].kind == BIND_SLOT)
      map_put(&r->a, &r->slots, ir_slot(r->m, e->outs.data[i].name), outs[i]);
    else
      report = outs[i];
  }
  return report;
}

static double worst_of(Steps *r) {
  const double tokens[TOKENS] = {3, 1, 4, 1, 5};
  double worst = 0;
  run(r, "init", NULL);
  run(r, "reset", NULL);
  const Tensor *all = run(r, "whole", tokens);
  for (int t = 0; t < TOKENS; t++) {
    const Tensor *one = run(r, "steps", tokens + t);
    int64_t n = type_elements(&one->type);
    for (int64_t i = 0; i < n; i++)
      worst = worse(worst, fabs(one->data[i] - all->data[t * n + i]));
  }
  return worst;
}

static void token_by_token(void) {
  static const char *const defines[] = {"V=16"};
  Steps r = {0};
  FeOptions fe = {.path = "tests/models/attention.dsl",
                  .defines = defines,
                  .n_defines = 1};
  r.m = fe_compile(&r.cx, &fe);
  double worst = r.m ? worst_of(&r) : INFINITY;
  if (!r.m) diag_print(&r.cx, stdout);
  CHECK("a sequence token by token is the sequence", worst < 1e-12, "off by %g",
        worst);
  arena_reset(&r.a);
  ctx_free(&r.cx);
}

int main(void) {
  all_compiled();
  memory();
  token_by_token();
  return failures != 0;
}
