/* partition_mutation.c: every exchange of a partitioned training step matters:
 * left out, or with its result rescaled, the ranks no longer agree with one
 * rank. Run from the top of the project. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"
#include "ranks_run.h"

#include <string.h>

static const double GRADIENTS = 1e-5; /* what still counts as equal */

static const char *const sizes[] = {"V=7", "D=4", "B=4", "T=2", "P=0.25",
                                    "H=6", "N=4", "K=2"};

static const struct {
  const char *model, *mesh;
  uint32_t n_sizes; /* the first of those above, that it has */
  double room;      /* for rows, times the mean; 0: for all */
} models[] = {
    {"models/lm_4lstm.dsl", "data=2,model=2", 5, 0},
    {"models/lm_wide.dsl", "dev=2,model=2", 6, 0},
    {"models/lm_wide.dsl", "model=3", 6, 0},
    {"models/lm_moe.dsl", "dev=2", 8, 0},
    {"models/lm_moe.dsl", "data=2,expert=2", 8, 0},
    {"models/lm_moe.dsl", "dev=2", 8, 1},
};

/* ---- exchanges ----------------------------------------------------------- */

/* Number `*left` of the region's exchanges, counting down. */
static Node *find_exchange(const Region *r, int *left) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (ir_is_exchange(n) && (*left)-- == 0) return n;
    Node *inner = n->body ? find_exchange(n->body, left) : NULL;
    if (inner) return inner;
  }
  return NULL;
}

/* A largest number may be a larger one: sums of exponentials that are shifted
 * by it do not change. */
static bool can_rescale(const Node *n) {
  const AttrSpec *specs;
  int count = op_attrs(n->op, &specs);
  if (dtype_info[n->outs.data[0]->type.dtype].kind != DK_FLOAT) return false;
  for (int i = 0; i < count; i++)
    if (!strcmp(specs[i].name, "op")) return !strcmp(attr_sym(n, "op"), "sum");
  return true;
}

static Value *repeated(Builder *b, Value *v, int dim, int64_t times) {
  Value *parts[16];
  for (int64_t i = 0; i < times; i++)
    parts[i] = v;
  return ir_concat(b, parts, (uint32_t)times, dim);
}

/* What result i would be if the others did not exist. */
static Value *alone(Builder *b, const Node *n, uint32_t i) {
  Value *x = n->ins.data[i];
  int64_t p = node_group(n);
  const Type *t = &n->outs.data[i]->type;
  switch ((int)n->op) {
  case OP_rows_send:
  case OP_rows_return: return ir_const(b, *t, 0);
  case OP_all_gather: return repeated(b, x, (int)attr_int(n, "dim"), p);
  case OP_reduce_scatter: {
    int d = (int)attr_int(n, "dim");
    return ir_slice(b, x, d, 0, t->dims[d].size);
  }
  case OP_all_to_all: {
    int s = (int)attr_int(n, "split"), c = (int)attr_int(n, "concat");
    x = ir_slice(b, x, s, 0, x->type.dims[s].size / p);
    return repeated(b, x, c, p);
  }
  }
  return x; /* all_reduce, permute */
}

/* All but what is first along dim 0: some results, such as how uneven a load
 * is, are the same for numbers that are all larger. */
static Value *rescaled(Builder *b, Value *v) {
  Value *scale = ir_const_like(b, v, 1.5);
  if (v->type.rank && v->type.dims[0].size > 1 && !type_is_ragged(&v->type)) {
    Value *i = ir_iota(b, v->type, 0), *half = ir_const_like(b, v, 0.5);
    Value *first = ir_binary(b, OP_lt, i, half);
    scale = ir_select(b, first, ir_const_like(b, v, 1), scale);
  }
  return ir_binary(b, OP_mul, v, scale);
}

/* Puts what the exchange becomes in its place. */
static void mutate(Ctx *cx, Node *n, bool rescale) {
  Region *r = n->region;
  NodeVec nodes = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *at = r->nodes.data[i];
    if (at != n || rescale) vec_push(&cx->perm, &nodes, at);
    if (at != n) continue;
    Builder b = ir_builder_like(cx, r, &nodes, n);
    for (uint32_t k = 0; k < n->outs.len; k++) {
      Value *old = n->outs.data[k], *by;
      if (rescale) { /* of a copy, as its readers read another value */
        Map map = {0};
        by = rescaled(&b, ir_clone(&b, n, &map)->outs.data[k]);
      } else {
        by = alone(&b, n, k);
      }
      ir_replace(old, by);
    }
  }
  r->nodes = nodes;
}

/* ---- one mutation -------------------------------------------------------- */

static bool split(Sides *s, size_t i) {
  FeOptions fe = {.path = models[i].model,
                  .mesh = &models[i].mesh,
                  .n_mesh = 1,
                  .defines = sizes,
                  .n_defines = models[i].n_sizes};
  s->expert_rows = models[i].room;
  return sides_split(s, fe_compile(&s->cx, &fe), NULL);
}

/* NULL: the ranks agree. */
static const char *run(Sides *s, Module *part) {
  Arena a = {0};
  RanksRun r = {.cx = &s->cx,
                .whole = ir_entry(s->whole, "train"),
                .part = ir_entry(part, "train"),
                .mode = EVAL_F64,
                .a = &a,
                .seed = 6, /* one by which rows need rounds where they may */
                .below = 7};
  ranks_draw(&r, NULL, 1);
  const char *why = ranks_run(&r, GRADIENTS);
  arena_reset(&a);
  return why;
}

static void test_mutation(Sides *s, const char *name, int which, bool rescale) {
  Module *m = ir_module_clone(s->part);
  int left = which;
  Node *n = find_exchange(ir_entry(m, "train")->region, &left);
  if (rescale && !can_rescale(n)) return;
  Buf text = {0};
  ir_print_node(n, &text);
  mutate(&s->cx, n, rescale);
  ir_sweep(ir_entry(m, "train"));
  const char *why = run(s, m);
  if (!why)
    CHECK(name, false, "nothing changes when it is %s: %s",
          rescale ? "rescaled" : "left out", text.data);
  buf_free(&text);
}

static void test_model(size_t i) {
  Sides s = {0};
  Sym name = sym_fmt(&s.cx, "%s on %s%s", models[i].model, models[i].mesh,
                     models[i].room > 0 ? ", in rounds" : "");
  const char *why = split(&s, i) ? run(&s, s.part) : "cannot be partitioned";
  int before = failures, n = 0, left = 0;
  CHECK(name, !why, "%s", why);
  for (; !why; n++, left = n) {
    if (!find_exchange(ir_entry(s.part, "train")->region, &left)) break;
    test_mutation(&s, name, n, false);
    test_mutation(&s, name, n, true);
  }
  name = sym_fmt(&s.cx, "%s: all of %d exchanges matter", name, n);
  CHECK(name, n > 0 && failures == before, "see above");
  sides_free(&s);
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(models); i++)
    test_model(i);
  return failures != 0;
}
