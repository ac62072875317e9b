/* lower.c: fuse and the lowering of launches, without LLVM: random modules and
 * models are fused, the interpreter must see no difference, and each launch is
 * lowered and its kernel loops executed on poisoned results. */
#include "../../passes/pass.h"

#include "check.h"
#include "loops_eval.h"
#include "random_graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };

typedef struct Lowering {
  Ctx *cx;
  Buf why;
  int launches;
  int lanes;
} Lowering;

static bool has_sums(const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    LowerKind k = op_info[r->nodes.data[i]->op].lower;
    OpKind op = r->nodes.data[i]->op;
    if (k == LOWER_REDUCE || op == OP_cumsum || op == OP_put ||
        op == OP_rows_combine)
      return true;
  }
  return false;
}

static bool same(double x, double y) {
  return x == y ? signbit(x) == signbit(y) || x != 0 : isnan(x) && isnan(y);
}

/* By norm; elements that are not finite must agree in kind. */
static bool close_enough(const Tensor *x, const Tensor *y, double tol) {
  double diff = 0, size = 0;
  for (int64_t i = 0; i < type_elements(&x->type); i++) {
    double a = x->data[i], b = y->data[i];
    if (!isfinite(a) || !isfinite(b)) {
      if (isfinite(a) != isfinite(b)) return fabs(a) > 1e30 || fabs(b) > 1e30;
      continue;
    }
    diff += (a - b) * (a - b);
    size += a * a + 1e-6;
  }
  return diff <= tol * tol * size || diff == 0;
}

static void compare(Lowering *l, const Node *n, uint32_t out,
                    const Tensor *want, const Tensor *got) {
  bool exact = !has_sums(n->body) || dtype_info[want->type.dtype].tol == 0;
  if (!exact) {
    if (!close_enough(want, got, 50 * dtype_info[want->type.dtype].tol))
      buf_fmt(&l->why, "result %u differs beyond tolerance; ", out);
    return;
  }
  for (int64_t i = 0; i < type_elements(&want->type); i++)
    if (!same(want->data[i], got->data[i])) {
      buf_fmt(&l->why, "result %u, element %lld: %.9g instead of %.9g; ", out,
              (long long)i, got->data[i], want->data[i]);
      return;
    }
}

static LoopsArg arg_of(const Type *t) {
  LoopsArg arg = {.bytes = type_bytes(t)};
  arg.data = malloc((size_t)arg.bytes + 1);
  if (!arg.data) internal_error("out of memory");
  memset(arg.data, 0xff, (size_t)arg.bytes);
  return arg;
}

/* The hook of the interpreter: lowers and runs what it has just evaluated. */
static void check_node(void *user, const Node *n, const Tensor *const *ins,
                       Tensor *const *outs) {
  Lowering *l = user;
  if (n->op != OP_fused || l->why.len) return;
  l->launches++;
  Kernel *k = cg_lower(l->cx, n, l->lanes);
  LoopsArg args[512];
  uint32_t n_ins = n->ins.len;
  assert(n_ins + n->outs.len <= COUNT_OF(args));
  for (uint32_t i = 0; i < n_ins; i++) {
    args[i] = arg_of(&ins[i]->type);
    tensor_to_bytes(ins[i], args[i].data);
  }
  for (uint32_t i = 0; i < n->outs.len; i++)
    args[n_ins + i] = arg_of(&outs[i]->type);
  bool ok = loops_eval(l->cx, k, args, &l->why);
  Arena a = {0};
  for (uint32_t i = 0; ok && i < n->outs.len; i++) {
    Tensor *got = tensor_new(&a, outs[i]->type);
    tensor_from_bytes(got, args[n_ins + i].data);
    compare(l, n, i, outs[i], got);
  }
  if (l->why.len && getenv("SHOW")) {
    Buf text = {0};
    ir_print_node((Node *)n, &text);
    cg_print_kernel(k, &text);
    puts(text.data);
    buf_free(&text);
  }
  arena_reset(&a);
  for (uint32_t i = 0; i < n_ins + n->outs.len; i++)
    free(args[i].data);
}

/* ---- random graphs ------------------------------------------------------- */

static void random_case(uint64_t seed, int nodes, int opt_level, int lanes) {
  char name[64];
  snprintf(name, sizeof name, "random graph %llu, %d nodes, O%d, %d lanes",
           (unsigned long long)seed, nodes, opt_level, lanes);
  Ctx cx = {0};
  RandomGraph g = {.seed = seed,
                   .nodes = nodes,
                   .scans = seed % 3 == 0,
                   .high = seed % 2 == 0};
  Module *m = random_graph(&cx, &g);
  PassOptions o = {.opt_level = opt_level, .precision = DT_f32};
  pass_expand(m, &o);
  Entry *e = m->entries.data[0];
  Arena a = {0};
  Tensor **ins = NEW_ARRAY(&a, Tensor *, e->ins.len + 1);
  Tensor **before = NEW_ARRAY(&a, Tensor *, e->outs.len + 1);
  Tensor **after = NEW_ARRAY(&a, Tensor *, e->outs.len + 1);
  random_inputs(e, seed, &a, ins);
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  ir_eval(&ev, e, ins, before, &a);
  pass_fuse(m, &o);
  Lowering l = {.cx = &cx, .lanes = lanes};
  if (!ir_verify(m, true) || pass_facts(m, FACT_FUSED | FACT_EXPANDED) !=
                                 (FACT_FUSED | FACT_EXPANDED)) {
    diag_print(&cx, stderr);
    buf_add(&l.why, "the fused module fails the verifier; ");
  }
  ev.hook = check_node;
  ev.user = &l;
  if (!l.why.len) ir_eval(&ev, e, ins, after, &a);
  for (uint32_t i = 0; !l.why.len && i < e->outs.len; i++)
    for (int64_t j = 0; j < type_elements(&before[i]->type); j++)
      if (!same(before[i]->data[j], after[i]->data[j]))
        buf_fmt(&l.why, "result %u of the module changed; ", i);
  CHECK(name, !l.why.len, "%s", l.why.data);
  buf_free(&l.why);
  arena_reset(&a);
  ctx_free(&cx);
}

/* ---- IR files ------------------------------------------------------------ */

/* Every entry of the text, fused unless it is, on random inputs. */
static void file_case(const char *path) {
  Ctx cx = {0};
  uint32_t file;
  if (!source_read(&cx, path, &file)) {
    CHECK(path, false, "cannot be read");
    return;
  }
  Module *m = ir_read(&cx, file);
  if (!m) diag_print(&cx, stderr);
  PassOptions o = {.opt_level = 2, .precision = DT_f32};
  if (m && !(pass_facts(m, FACT_FUSED) & FACT_FUSED)) pass_fuse(m, &o);
  for (uint32_t i = 0; m && i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    Arena a = {0};
    Tensor **ins = NEW_ARRAY(&a, Tensor *, e->ins.len + 1);
    Tensor **outs = NEW_ARRAY(&a, Tensor *, e->outs.len + 1);
    random_inputs(e, i + 1, &a, ins);
    Lowering l = {.cx = &cx, .lanes = LANES};
    Eval ev = {.cx = &cx, .mode = EVAL_TYPED, .hook = check_node, .user = &l};
    ir_eval(&ev, e, ins, outs, &a);
    char name[256];
    snprintf(name, sizeof name, "%s @%s, %d launches", path, e->name,
             l.launches);
    CHECK(name, !l.why.len, "%s", l.why.data);
    buf_free(&l.why);
    arena_reset(&a);
  }
  ctx_free(&cx);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    file_case(argv[i]);
  if (argc > 1) return failures != 0;
  uint64_t many = getenv("SEEDS") ? strtoull(getenv("SEEDS"), NULL, 10) : 60;
  for (uint64_t seed = 1; seed <= many; seed++) {
    int lanes = seed % 4 == 1 ? 4 : seed % 4 == 2 ? 8 : LANES;
    random_case(seed, seed % 5 == 0 ? 120 : 25, 2, lanes);
    if (seed % 4 == 0) random_case(seed, 25, 0, lanes);
  }
  return failures != 0;
}
