/* lower.c: fuse and the lowering of launches: random modules and models are
 * fused, the interpreter must see no difference, and each launch is lowered and
 * executed on poisoned results: its kernel loops, without LLVM; or, built with
 * WARPS, those for GPUs as PTX. */
#include "../../passes/pass.h"

#include "attention_text.h"
#include "check.h"
#include "loops_eval.h"
#include "ragged_rest.h"
#include "random_graph.h"
#include "warps_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };

#ifdef WARPS
#define RUN warps_eval
enum { SEEDS = 30 };
static const Isa any_isas[] = {
    {.lanes = 128, .has = KN_MMA, .least = 32, .cores = 108}};
#else
#define RUN loops_eval
enum { SEEDS = 60 };
static const Isa any_isas[] = {{.lanes = LANES},
                               {.lanes = 4},
                               {.lanes = LANES, .has = KN_MMA, .least = 4}};
#endif

typedef struct Lowering {
  Ctx *cx;
  Buf why;
  int launches;
  Isa isa;
  RaggedRest rest;
} Lowering;

static bool has_sums(const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    LowerKind k = op_info[r->nodes.data[i]->op].lower;
    OpKind op = r->nodes.data[i]->op;
    if (k == LOWER_REDUCE || k == LOWER_CONTRACT || op == OP_cumsum ||
        op == OP_put || op == OP_rows_combine)
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
    if (isnan(a) != isnan(b)) return false;
    if (!isfinite(a) || !isfinite(b)) {
      if (isfinite(a) != isfinite(b) && fabs(a) < 1e30 && fabs(b) < 1e30)
        return false;
      continue;
    }
    diff += (a - b) * (a - b);
    size += a * a + 1e-6;
  }
  return diff <= tol * tol * size || diff == 0;
}

/* Weights of an attention are rounded to the dtype of its operands. */
static double tolerance(const Node *n, const Tensor *want) {
  bool narrow = n->op == OP_attention || n->op == OP_attention_grad;
  const Type *t = narrow ? &n->ins.data[0]->type : &want->type;
  return dtype_info[t->dtype].tol;
}

static void compare(Lowering *l, const Node *n, uint32_t out,
                    const Tensor *want, const Tensor *got) {
  bool exact = (n->op == OP_fused && !has_sums(n->body)) ||
               dtype_info[want->type.dtype].tol == 0;
  if (!exact) {
    double tol = tolerance(n, want);
    tol *= tol < 1e-3 ? 50 : 1;
    if (!close_enough(want, got, tol))
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

/* To within 2^-10 of its norm a product of operands rounded to tf32; and not
 * one of operands as they were. */
static void compare_rounded(Lowering *l, uint32_t out, const Tensor *want,
                            const Tensor *got) {
  if (!close_enough(want, got, 0x1p-10))
    buf_fmt(&l->why, "result %u differs beyond what rounding does; ", out);
  if (close_enough(want, got, 0x1p-16))
    buf_fmt(&l->why, "result %u is of operands that were not rounded; ", out);
}

static double norm_squared(const Tensor *t) {
  double sum = 0;
  for (int64_t i = 0; i < type_elements(&t->type); i++)
    sum += t->data[i] * t->data[i];
  return sum;
}

/* Where the products of rows cancel, what is left is right to within rounding
 * of what they were; never below 0. */
static void compare_squares(Lowering *l, const Tensor *const *ins,
                            const Tensor *want, const Tensor *got) {
  double most = norm_squared(ins[0]) * norm_squared(ins[1]);
  double x = want->data[0], y = got->data[0];
  double tol = 50 * dtype_info[want->type.dtype].tol * x + 1e-7 * most;
  if (isfinite(x) && (y < 0 || !(fabs(x - y) <= tol)))
    buf_fmt(&l->why, "%.9g instead of %.9g, of %.9g; ", y, x, most);
  if (!isfinite(x) && isfinite(y)) buf_fmt(&l->why, "%.9g is finite; ", y);
}

static LoopsArg arg_of(const Type *t) {
  LoopsArg arg = {.bytes = type_bytes(t)};
  arg.data = malloc((size_t)arg.bytes + 1);
  if (!arg.data) internal_error("out of memory");
  memset(arg.data, 0xff, (size_t)arg.bytes);
  return arg;
}

/* A contraction over rows whose offsets `plan` has yet to name. */
static bool lacks_offsets(const Node *n) {
  const Node *c = n->op == OP_fused ? ir_product_node(n) : n;
  return c && c->op == OP_contract && c->ins.len < 3 &&
         type_is_ragged(&c->ins.data[0]->type);
}

/* The hook of the interpreter: lowers and runs what it has just evaluated. */
static void check_node(void *user, const Node *n, const Tensor *const *ins,
                       Tensor *const *outs) {
  Lowering *l = user;
  bool contracts = (n->op == OP_contract && (l->isa.has || l->isa.least)) ||
                   n->op == OP_square_sum || n->op == OP_attention ||
                   n->op == OP_attention_grad || n->op == OP_route ||
                   n->op == OP_scatter_add;
  rest_note(&l->rest, n, outs);
  if ((n->op != OP_fused && !contracts) || l->why.len || lacks_offsets(n))
    return;
  l->launches++;
  Kernel *k = cg_lower(l->cx, n, &l->isa);
  bool rounds = k && k->stages.data[0].needs & KN_TF32;
  static uint8_t aligned[512]; /* as memory is that the interpreter has not */
  memset(aligned, 16, sizeof aligned);
  bool attends = n->op == OP_attention || n->op == OP_attention_grad;
  if (k && attends) k->aligned = aligned;
  LoopsArg args[512];
  uint32_t n_ins = n->ins.len;
  assert(n_ins + n->outs.len <= COUNT_OF(args));
  for (uint32_t i = 0; i < n_ins; i++) {
    args[i] = arg_of(&ins[i]->type);
    tensor_to_bytes(ins[i], args[i].data);
  }
  for (uint32_t i = 0; i < n->outs.len; i++)
    args[n_ins + i] = arg_of(&outs[i]->type);
  bool ok = RUN(l->cx, k, args, &l->why);
  Arena a = {0};
  for (uint32_t i = 0; ok && i < n->outs.len; i++) {
    Tensor *got = tensor_new(&a, outs[i]->type);
    tensor_from_bytes(got, args[n_ins + i].data);
    rest_forget(&l->rest, n->outs.data[i], got, outs[i]);
    if (n->op == OP_square_sum)
      compare_squares(l, ins, outs[i], got);
    else if (rounds)
      compare_rounded(l, i, outs[i], got);
    else
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

static void random_case(uint64_t seed, int nodes, int opt_level, Isa isa) {
  char name[64];
  snprintf(name, sizeof name, "random graph %llu, %d nodes, O%d, %d lanes%s",
           (unsigned long long)seed, nodes, opt_level, isa.lanes,
           isa.least ? " of warps" : "");
  Ctx cx = {0};
  RandomGraph g = {.seed = seed,
                   .nodes = nodes,
                   .scans = seed % 3 == 0,
                   .high = seed % 2 == 0,
                   .routing = seed % 2 == 0};
  Module *m = random_graph(&cx, &g);
  PassOptions o = {.opt_level = opt_level,
                   .precision = seed % 7 == 0 ? DT_f64 : DT_f32};
  pass_precision(m, &o);
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
  Lowering l = {.cx = &cx, .isa = isa, .rest.a = &a};
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

/* ---- IR texts and files ------------------------------------------------- */

/* Every entry of a module, fused unless it is, on random inputs. */
static void module_case(Ctx *cx, const char *name, uint32_t file, Isa isa) {
  Module *m = ir_read(cx, file);
  if (!m) diag_print(cx, stderr);
  CHECK(name, m, "the text does not read");
  PassOptions o = {.opt_level = 2, .precision = DT_f32};
  if (m && !(pass_facts(m, FACT_FUSED) & FACT_FUSED)) pass_fuse(m, &o);
  for (uint32_t i = 0; m && i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    Arena a = {0};
    Tensor **ins = NEW_ARRAY(&a, Tensor *, e->ins.len + 1);
    Tensor **outs = NEW_ARRAY(&a, Tensor *, e->outs.len + 1);
    random_inputs(e, i + 1, &a, ins);
    Lowering l = {.cx = cx, .isa = isa, .rest.a = &a};
    Eval ev = {.cx = cx, .mode = EVAL_TYPED, .hook = check_node, .user = &l};
    ir_eval(&ev, e, ins, outs, &a);
    char text[256];
    snprintf(text, sizeof text, "%s @%s, %d lanes%s, %d launches", name,
             e->name, isa.lanes, isa.least ? " of warps" : "", l.launches);
    CHECK(text, !l.why.len, "%s", l.why.data);
    buf_free(&l.why);
    arena_reset(&a);
  }
}

static void file_case(const char *path) {
  Ctx cx = {0};
  uint32_t file;
  bool there = source_read(&cx, path, &file);
  CHECK(path, there, "cannot be read");
  if (there) module_case(&cx, path, file, any_isas[0]);
  ctx_free(&cx);
}

/* `fmt` is the body of an entry with inputs %x f32[A, B, C] and
 * %k i32[A, B, 3]; in it, A, B and C stand for the sizes, D for 2 A, E for 3 B,
 * F for C + 8. */
static void shape_case(const char *name, const char *fmt, const int *sizes) {
  Buf text = {0};
  buf_add(&text, "moec-ir 1\nentry @f(%x: f32[A, B, C] = input \"x\", "
                 "%k: i32[A, B, 3] = input \"k\") {\n");
  buf_add(&text, fmt);
  buf_add(&text, "}\n");
  Buf filled = {0};
  int all[6] = {sizes[0],     sizes[1],     sizes[2],
                2 * sizes[0], 3 * sizes[1], sizes[2] + 8};
  for (size_t i = 0; i < text.len; i++) {
    char c = text.data[i];
    if (c >= 'A' && c <= 'F')
      buf_fmt(&filled, "%d", all[c - 'A']);
    else
      buf_add_n(&filled, &c, 1);
  }
  char full[128];
  snprintf(full, sizeof full, "%s %dx%dx%d", name, sizes[0], sizes[1],
           sizes[2]);
  for (size_t i = 0; i < COUNT_OF(any_isas); i++) {
    Ctx cx = {0};
    uint32_t file = source_add(&cx, "text", filled.data, filled.len);
    module_case(&cx, full, file, any_isas[i]);
    ctx_free(&cx);
  }
  buf_free(&text);
  buf_free(&filled);
}

/* Products of bf16 by instructions for pairs, rows in groups and plain ones: T
 * tokens with K choices of N experts, D to H wide; R = T K, O = N + 1. */
static const char pairs_text[] =
    "moec-ir 1\n"
    "entry @f(%x: bf16[$T, $D] = input \"x\", %y: bf16[$T, $H] = input \"y\", "
    "%w: bf16[$N, $D, $H] = input \"w\", %u: u32[$T, $K] = input \"u\", "
    "%f: f32[$N, $D, $H] = input \"f\") {\n"
    "%n = const {value=$N} : u32[$T, $K]\n"
    "%v = rem %u, %n : u32[$T, $K]\n"
    "%ids = cast %v : i32[$T, $K]\n"
    "%o, %slot, %src = route %ids {experts=$N} : i32[$O], i32[$T, $K], "
    "i32[$R]\n"
    "%r = rows_gather %x, %src, %o {choices=$K} : bf16[$N, r<=$R, $D]\n"
    "%q = rows_gather %y, %src, %o {choices=$K} : bf16[$N, r<=$R, $H]\n"
    "%h = contract %r, %w, %o {map=\"nrd,ndh->nrh\"} : f32[$N, r<=$R, $H]\n"
    "%dr = contract %q, %w, %o {map=\"nrh,ndh->nrd\"} : f32[$N, r<=$R, $D]\n"
    "%dw = contract %r, %q, %o {map=\"nrd,nrh->ndh\"} : f32[$N, $D, $H]\n"
    "%a = contract %w, %y {map=\"ndh,th->ndt\"} : f32[$N, $D, $T]\n"
    "%b = contract %x, %w {map=\"td,ndh->nth\"} : f32[$N, $T, $H]\n"
    "%hs = reduce_sum %h {map=\"nrh->h\"} : f32[$H]\n"
    "%ds = reduce_sum %dr {map=\"nrd->d\"} : f32[$D]\n"
    "%fn = cast %f : bf16[$N, $D, $H]\n"
    "%hf = contract %r, %fn, %o {map=\"nrd,ndh->nrh\"} : f32[$N, r<=$R, $H]\n"
    "%df = contract %q, %fn, %o {map=\"nrh,ndh->nrd\"} : f32[$N, r<=$R, $D]\n"
    "%hfs = reduce_sum %hf {map=\"nrh->h\"} : f32[$H]\n"
    "%dfs = reduce_sum %df {map=\"nrd->d\"} : f32[$D]\n"
    "return probe \"h\" = %hs, probe \"d\" = %ds, probe \"w\" = %dw, "
    "probe \"hf\" = %hfs, probe \"df\" = %dfs, "
    "probe \"a\" = %a, probe \"b\" = %b\n"
    "}\n";

/* The text with sizes for letters behind a $. */
static void text_case(const char *name, const char *fmt, const char *letters,
                      const int *sizes, Isa isa) {
  Buf text = {0};
  for (const char *c = fmt; *c; c++) {
    if (*c == '$')
      buf_fmt(&text, "%d", sizes[strchr(letters, *++c) - letters]);
    else
      buf_add_n(&text, c, 1);
  }
  Ctx cx = {0};
  uint32_t file = source_add(&cx, "text", text.data, text.len);
  module_case(&cx, name, file, isa);
  ctx_free(&cx);
  buf_free(&text);
}

static void pairs_case(const int *sizes, const char *kernel, Isa isa) {
  int all[] = {sizes[0],    sizes[1], sizes[2],
               sizes[3],    sizes[4], sizes[0] * sizes[1],
               sizes[3] + 1};
  char name[128];
  snprintf(name, sizeof name, "%s %d choices of %d, %d of %d to %d",
           kernel, sizes[1], sizes[3], sizes[0],
           sizes[2], sizes[4]);
  text_case(name, pairs_text, "TKDNHRO", all, isa);
}

#ifdef WARPS
/* Blocks of teams: as they are chosen for so many multiprocessors. Sizes that
 * are multiples of eight are copied ahead. */
static void team_cases(void) {
  static const struct {
    int sizes[5], cores;
  } cases[] = {{{40, 2, 24, 2, 136}, 1},
               {{70, 2, 136, 1, 40}, 1},
               {{9, 3, 200, 5, 72}, 108},
               {{150, 1, 8, 2, 152}, 1}};
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Isa isa = any_isas[0];
    isa.cores = cases[i].cores;
    pairs_case(cases[i].sizes, "teams", isa);
  }
}
#endif

static void pairs_cases(void) {
  static const int shapes[][5] = {{1, 1, 1, 1, 1},    {5, 2, 7, 4, 5},
                                  {20, 1, 33, 2, 16}, {30, 2, 5, 9, 40},
                                  {17, 2, 16, 1, 65}, {290, 1, 3, 1, 2},
                                  {3, 1, 270, 1, 4},  {2, 1, 2, 2, 530}};
  for (size_t i = 0; i < COUNT_OF(shapes); i++) {
#ifdef WARPS
    pairs_case(shapes[i], "warps", any_isas[0]);
#else
    pairs_case(shapes[i], "tiles", (Isa){.lanes = LANES, .has = KN_TILES});
    pairs_case(shapes[i], "pairs",
               (Isa){.lanes = LANES, .has = KN_DOT | KN_NARROW});
    pairs_case(shapes[i], "warps", (Isa){.lanes = LANES, .least = 4});
    pairs_case(shapes[i], "mma",
               (Isa){.lanes = LANES, .has = KN_MMA, .least = 4});
#endif
  }
}

/* Products that gather the rows of one operand or of both, as rows and as
 * depth; F is a dtype, S that of its sums. */
static const char gather_text[] =
    "moec-ir 1\n"
    "entry @f(%x: $F[$T, $D] = input \"x\", %y: $F[$T, $H] = input \"y\", "
    "%w: $F[$N, $D, $H] = input \"w\", %u: u32[$T, $K] = input \"u\") {\n"
    "%n = const {value=$N} : u32[$T, $K]\n"
    "%v = rem %u, %n : u32[$T, $K]\n"
    "%ids = cast %v : i32[$T, $K]\n"
    "%o, %slot, %src = route %ids {experts=$N} : i32[$O], i32[$T, $K], "
    "i32[$R]\n"
    "%h = fused %x, %src, %o, %w {kind=\"product\", rows=2} (%xh: $F[$T, $D], "
    "%sh: i32[$R], %oh: i32[$O], %wh: $F[$N, $D, $H]) {\n"
    "%rh = rows_gather %xh, %sh, %oh {choices=$K} : $F[$N, r<=$R, $D]\n"
    "%ch = contract %rh, %wh, %oh {map=\"nrd,ndh->nrh\"} : "
    "$S[$N, r<=$R, $H]\n"
    "yield %ch\n"
    "} : $S[$N, r<=$R, $H]\n"
    "%d = fused %x, %y, %src, %o {kind=\"product\", rows=3} (%xd: $F[$T, $D], "
    "%yd: $F[$T, $H], %sd: i32[$R], %od: i32[$O]) {\n"
    "%rd = rows_gather %xd, %sd, %od {choices=$K} : $F[$N, r<=$R, $D]\n"
    "%qd = rows_gather %yd, %sd, %od {choices=$K} : $F[$N, r<=$R, $H]\n"
    "%cd = contract %rd, %qd, %od {map=\"nrd,nrh->ndh\"} : $S[$N, $D, $H]\n"
    "yield %cd\n"
    "} : $S[$N, $D, $H]\n"
    "%q = rows_gather %y, %src, %o {choices=$K} : $F[$N, r<=$R, $H]\n"
    "%a = fused %x, %src, %o, %q {kind=\"product\", rows=3} (%xa: $F[$T, $D], "
    "%sa: i32[$R], %oa: i32[$O], %qa: $F[$N, r<=$R, $H]) {\n"
    "%ra = rows_gather %xa, %sa, %oa {choices=$K} : $F[$N, r<=$R, $D]\n"
    "%ca = contract %qa, %ra, %oa {map=\"nrh,nrd->nhd\"} : $S[$N, $H, $D]\n"
    "yield %ca\n"
    "} : $S[$N, $H, $D]\n"
    "%hs = reduce_sum %h {map=\"nrh->h\"} : $S[$H]\n"
    "return probe \"h\" = %hs, probe \"d\" = %d, probe \"a\" = %a\n"
    "}\n";

/* T, K, D, N, H; `dtypes`: F and S. */
static void gather_case(const int *s, const char *const *dtypes,
                        const char *kernel, Isa isa) {
  int all[] = {s[0], s[1], s[2], s[3], s[4], s[0] * s[1], s[3] + 1};
  char name[128];
  Buf text = {0};
  for (const char *c = gather_text; *c; c++)
    if (c[0] == '$' && (c[1] == 'F' || c[1] == 'S'))
      buf_add(&text, dtypes[*++c == 'S']);
    else
      buf_add_n(&text, c, 1);
  snprintf(name, sizeof name, "%s gathers %d choices of %d, %d of %d to %d, %s",
           kernel, s[1], s[3], s[0], s[2], s[4], dtypes[0]);
  text_case(name, text.data, "TKDNHRO", all, isa);
  buf_free(&text);
}

static void gather_cases(void) {
  static const char *const dtypes[][2] = {
      {"bf16", "f32"}, {"f32", "f32"}, {"f64", "f64"}};
  static const int odd[] = {5, 2, 7, 4, 5};
  static const int narrow[][5] = {{30, 2, 1, 3, 4}, {30, 2, 6, 3, 1}};
#ifdef WARPS
  static const int team[] = {70, 2, 136, 2, 40};
  for (size_t i = 0; i < COUNT_OF(dtypes); i++)
    gather_case(odd, dtypes[i], "warps", any_isas[0]);
  for (size_t i = 0; i < COUNT_OF(dtypes); i++)
    gather_case(narrow[i % 2], dtypes[i], "warps", any_isas[0]);
  for (size_t i = 0; i < 2; i++)
    gather_case(team, dtypes[i], "teams", any_isas[0]);
#else
  static const int more[] = {30, 2, 33, 3, 40};
  for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
    gather_case(odd, dtypes[i], "vectors", (Isa){.lanes = LANES});
    gather_case(more, dtypes[i], "vectors", (Isa){.lanes = LANES});
    for (int k = 0; k < 2; k++)
      gather_case(narrow[k], dtypes[i], "vectors", (Isa){.lanes = LANES});
  }
  for (int k = 0; k < 2; k++)
    gather_case(narrow[k], dtypes[0], "tiles",
                (Isa){.lanes = LANES, .has = KN_TILES});
  gather_case(more, dtypes[0], "tiles",
              (Isa){.lanes = LANES, .has = KN_TILES});
  gather_case(more, dtypes[0], "pairs",
              (Isa){.lanes = LANES, .has = KN_DOT | KN_NARROW});
  gather_case(more, dtypes[0], "mma",
              (Isa){.lanes = LANES, .has = KN_MMA, .least = 4});
#endif
}

#ifdef WARPS
/* What no model has: the left operand across its depth, the right one along. */
static const char across_text[] =
    "moec-ir 1\n"
    "entry @f(%x: bf16[$B, $K, $M] = input \"x\", "
    "%w: bf16[$B, $N, $K] = input \"w\") {\n"
    "%h = contract %x, %w {map=\"bkm,bnk->bmn\"} : f32[$B, $M, $N]\n"
    "return probe \"h\" = %h\n"
    "}\n";

/* Warpgroups: each of their blocks, with one step or more than
 * there are places, and ends of rows, columns and depth. */
static void group_cases(void) {
  static const int cases[][5] = {{150, 1, 136, 2, 264}, {60, 1, 328, 1, 256}};
  static const int dense[] = {2, 144, 72, 136}, rows[] = {220, 2, 72, 1, 136};
  static const char *const dtypes[] = {"bf16", "f32"};
  Isa isa = any_isas[0];
  isa.has |= KN_GROUPS;
  isa.cores = 1;
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    pairs_case(cases[i], "groups", isa);
  gather_case(rows, dtypes, "groups", isa);
  text_case("groups, the left operand across", across_text, "BKMN", dense, isa);
}
#endif

#ifdef WARPS
/* Products of f32 whose operands lie in all ways. */
static const char lies_text[] =
    "moec-ir 1\n"
    "entry @f(%x: f32[$B, $M, $K] = input \"x\", "
    "%y: f32[$B, $K, $M] = input \"y\", %v: f32[$B, $K, $N] = input \"v\", "
    "%w: f32[$B, $N, $K] = input \"w\") {\n"
    "%a = contract %x, %v {map=\"bmk,bkn->bmn\"} : f32[$B, $M, $N]\n"
    "%b = contract %x, %w {map=\"bmk,bnk->bmn\"} : f32[$B, $M, $N]\n"
    "%c = contract %y, %v {map=\"bkm,bkn->bmn\"} : f32[$B, $M, $N]\n"
    "%d = contract %y, %w {map=\"bkm,bnk->bmn\"} : f32[$B, $M, $N]\n"
    "return probe \"a\" = %a, probe \"b\" = %b, probe \"c\" = %c, "
    "probe \"d\" = %d\n"
    "}\n";

/* As they are and rounded to tf32, also with rows that are gathered. One
 * multiprocessor gets the largest blocks, whose panels across the depth have
 * rows of 512 bytes. */
static void lies_cases(void) {
  static const int large[] = {2, 72, 40, 52}, odd[] = {1, 13, 147, 37};
  static const int rows[] = {50, 2, 72, 2, 40};
  static const char *const dtypes[] = {"f32", "f32"};
  Isa isa = any_isas[0];
  isa.cores = 1;
  text_case("teams, rows of 512 bytes", lies_text, "BMNK", large, isa);
  isa.has |= KN_TF32;
  text_case("tf32", lies_text, "BMNK", large, isa);
  gather_case(rows, dtypes, "tf32", isa);
  isa.cores = any_isas[0].cores;
  text_case("tf32, odd", lies_text, "BMNK", odd, isa);
}
#endif

/* Large products without experts, whose operands are packed once or not at all:
 * T tokens, D to H wide. */
static const char dense_text[] =
    "moec-ir 1\n"
    "entry @f(%x: bf16[$T, $D] = input \"x\", %y: bf16[$T, $H] = input \"y\", "
    "%w: bf16[$D, $H] = input \"w\") {\n"
    "%h = contract %x, %w {map=\"td,dh->th\"} : f32[$T, $H]\n"
    "%dx = contract %y, %w {map=\"th,dh->td\"} : f32[$T, $D]\n"
    "%dw = contract %x, %y {map=\"td,th->dh\"} : f32[$D, $H]\n"
    "return probe \"h\" = %h, probe \"x\" = %dx, probe \"w\" = %dw\n"
    "}\n";

static void dense_cases(void) {
  static const int shapes[][3] = {{528, 40, 520}, {530, 33, 520}, {40, 530, 9}};
  for (size_t i = 0; i < COUNT_OF(shapes); i++) {
    const int *s = shapes[i];
    char name[128];
    snprintf(name, sizeof name, "tiles, %d rows of %d to %d", s[0], s[1], s[2]);
    text_case(name, dense_text, "TDH", s,
              (Isa){.lanes = LANES, .has = KN_TILES});
  }
}

/* Sums of squares of products, by pairs of rows where groups have few: of T
 * tokens, D and H wide, for which N experts of K choices are drawn, each the
 * expert 0 but for every $E-th; of all rows; of N numbers of a batch; and of
 * one with the rows in its result. F is f32 or bf16. */
static const char squares_text[] =
    "moec-ir 1\n"
    "entry @f(%x0: f32[$T, $D] = input \"x\", %y0: f32[$T, $H] = input \"y\", "
    "%v0: f32[$N, $T, $D] = input \"v\", %w0: f32[$N, $T, $H] = input \"w\", "
    "%u: u32[$T, $K] = input \"u\") {\n"
    "%x = cast %x0 : $F[$T, $D]\n"
    "%y = cast %y0 : $F[$T, $H]\n"
    "%v = cast %v0 : $F[$N, $T, $D]\n"
    "%w = cast %w0 : $F[$N, $T, $H]\n"
    "%n = const {value=$N} : u32[$T, $K]\n"
    "%e = const {value=$E} : u32[$T, $K]\n"
    "%one = rem %u, %n : u32[$T, $K]\n"
    "%other = rem %u, %e : u32[$T, $K]\n"
    "%zero = const {value=0} : u32[$T, $K]\n"
    "%is = eq %other, %zero : bool[$T, $K]\n"
    "%id = select %is, %one, %zero : u32[$T, $K]\n"
    "%ids = cast %id : i32[$T, $K]\n"
    "%o, %slot, %src = route %ids {experts=$N} : i32[$O], i32[$T, $K], "
    "i32[$R]\n"
    "%r = rows_gather %x, %src, %o {choices=$K} : $F[$N, r<=$R, $D]\n"
    "%q = rows_gather %y, %src, %o {choices=$K} : $F[$N, r<=$R, $H]\n"
    "%a = square_sum %r, %q, %o {map=\"nrd,nrh->ndh\"} : f32[]\n"
    "%b = square_sum %x, %y {map=\"td,th->dh\"} : f32[]\n"
    "%c = square_sum %v, %w {map=\"ntd,nth->nhd\"} : f32[]\n"
    "%d = square_sum %r, %v, %o {map=\"nrd,ntd->nrt\"} : f32[]\n"
    "return probe \"a\" = %a, probe \"b\" = %b, probe \"c\" = %c, "
    "probe \"d\" = %d\n"
    "}\n";

/* T, K, D, N, H, E. */
static void squares_case(const int *s, const char *dtype, Isa isa) {
  int all[] = {s[0], s[1], s[2], s[3], s[4], s[5], s[0] * s[1], s[3] + 1};
  char name[128];
  Buf text = {0};
  for (const char *c = squares_text; *c; c++)
    if (c[0] == '$' && c[1] == 'F')
      buf_add(&text, dtype), c++;
    else
      buf_add_n(&text, c, 1);
  snprintf(name, sizeof name, "squares of %s, %u, %d choices of %d, %d of %d "
           "to %d, every %d", dtype, isa.has, s[1], s[3], s[0], s[2], s[4],
           s[5]);
  text_case(name, text.data, "TKDNHERO", all, isa);
  buf_free(&text);
}

static void squares_cases(void) {
  static const int shapes[][6] = {
      {1, 1, 1, 1, 1, 1},    {5, 2, 7, 4, 5, 1},   {40, 2, 33, 3, 36, 1},
      {70, 1, 90, 2, 80, 4}, {70, 2, 20, 5, 30, 3}, {3, 1, 300, 4, 270, 1},
      {250, 1, 300, 1, 1100, 1}};
  for (size_t i = 0; i < COUNT_OF(shapes); i++) {
    squares_case(shapes[i], "f32", (Isa){.lanes = LANES});
    squares_case(shapes[i], "f32", (Isa){.lanes = 8});
    squares_case(shapes[i], "bf16", (Isa){.lanes = LANES, .has = KN_TILES});
    squares_case(shapes[i], "bf16",
                 (Isa){.lanes = LANES, .has = KN_DOT | KN_NARROW});
    squares_case(shapes[i], "bf16", (Isa){.lanes = LANES});
  }
}

/* Rows that come twice, the second time against a side that is the opposite but
 * for rounding; alone, and as two experts. */
static const char cancel_text[] =
    "moec-ir 1\n"
    "entry @f(%x: f32[$T, $D] = input \"x\", %y: f32[$T, $H] = input \"y\") {\n"
    "%c = const {value=-1.0000001} : f32[$T, $H]\n"
    "%z = mul %y, %c : f32[$T, $H]\n"
    "%xx = concat %x, %x {dim=0} : f32[$R, $D]\n"
    "%yz = concat %y, %z {dim=0} : f32[$R, $H]\n"
    "%two = const {value=2} : i32[$R, 1]\n"
    "%i = iota {dim=0} : i32[$R, 1]\n"
    "%ids = rem %i, %two : i32[$R, 1]\n"
    "%o, %slot, %src = route %ids {experts=2} : i32[3], i32[$R, 1], i32[$R]\n"
    "%r = rows_gather %xx, %src, %o {choices=1} : f32[2, r<=$R, $D]\n"
    "%q = rows_gather %yz, %src, %o {choices=1} : f32[2, r<=$R, $H]\n"
    "%a = square_sum %xx, %yz {map=\"td,th->dh\"} : f32[]\n"
    "%b = square_sum %r, %q, %o {map=\"nrd,nrh->ndh\"} : f32[]\n"
    "return probe \"a\" = %a, probe \"b\" = %b\n"
    "}\n";

static void cancel_cases(void) {
  static const int shapes[][3] = {
      {2, 40, 50}, {6, 64, 64}, {8, 33, 70}, {18, 90, 100}};
  for (size_t i = 0; i < COUNT_OF(shapes); i++) {
    const int *s = shapes[i];
    int all[] = {s[0], s[1], s[2], 2 * s[0]};
    char name[128];
    snprintf(name, sizeof name, "squares that cancel, %d rows of %d to %d",
             s[0], s[1], s[2]);
    text_case(name, cancel_text, "TDHR", all, (Isa){.lanes = LANES});
  }
}

/* Products of M rows, K deep, with P panels of columns that were packed from
 * matrices that lie either way; N = 32 P, H = K / 2. */
static const char panels_text[] =
    "moec-ir 1\n"
    "entry @f(%x: f32[$M, $K] = input \"x\", %w: f32[$K, $N] = input \"w\", "
    "%v: f32[$N, $K] = input \"v\") {\n"
    "%wp = pack %w {group=1, turned=false} : f32[$P, $K, 32, 1]\n"
    "%vp = pack %v {group=1, turned=true} : f32[$P, $K, 32, 1]\n"
    "%x1 = reshape %x : f32[$M, $K, 1]\n"
    "%a = contract %x1, %wp {map=\"mkg,pkcg->mpc\"} : f32[$M, $P, 32]\n"
    "%b = contract %x1, %vp {map=\"mkg,pkcg->mpc\"} : f32[$M, $P, 32]\n"
    "%xb = cast %x : bf16[$M, $K]\n"
    "%wb = cast %w : bf16[$K, $N]\n"
    "%vb = cast %v : bf16[$N, $K]\n"
    "%wq = pack %wb {group=2, turned=false} : bf16[$P, $H, 32, 2]\n"
    "%vq = pack %vb {group=2, turned=true} : bf16[$P, $H, 32, 2]\n"
    "%x2 = reshape %xb : bf16[$M, $H, 2]\n"
    "%c = contract %x2, %wq {map=\"mkg,pkcg->mpc\"} : f32[$M, $P, 32]\n"
    "%d = contract %x2, %vq {map=\"mkg,pkcg->mpc\"} : f32[$M, $P, 32]\n"
    "return probe \"a\" = %a, probe \"b\" = %b, probe \"c\" = %c, "
    "probe \"d\" = %d\n"
    "}\n";

static void panels_case(const int *sizes, Isa isa) {
  int all[] = {sizes[0], sizes[1], sizes[2], PANEL * sizes[2], sizes[1] / 2};
  char name[128];
  snprintf(name, sizeof name, "panels %d x %d x %d, %d lanes, %u", all[0],
           all[3], all[1], isa.lanes, isa.has);
  text_case(name, panels_text, "MKPNH", all, isa);
}

static void panels_cases(void) {
  static const int shapes[][3] = {{1, 32, 2},  {7, 64, 3},  {16, 34, 1},
                                  {20, 96, 2}, {33, 32, 4}, {48, 320, 2},
                                  {65, 64, 1}, {64, 288, 17}};
  for (size_t i = 0; i < COUNT_OF(shapes); i++) {
    panels_case(shapes[i], (Isa){.lanes = LANES, .has = KN_TILES});
    panels_case(shapes[i], (Isa){.lanes = LANES, .has = KN_DOT});
    panels_case(shapes[i], (Isa){.lanes = LANES});
    panels_case(shapes[i], (Isa){.lanes = 8});
  }
}

/* What each test computes. Floor makes ties, the root of what is negative NaN,
 * and a quotient by zero an infinity. */
static const struct {
  const char *name, *text;
} bodies[] = {
    {"columns",
     "%s = reduce_sum %x {map=\"abc->c\"} : f32[C]\n"
     "%m = reduce_max %x {map=\"abc->c\"} : f32[C]\n"
     "%n = reduce_min %x {map=\"abc->\"} : f32[]\n"
     "%y = mul %x, %x : f32[A, B, C]\n"
     "%t = reduce_sum %y {map=\"abc->\"} : f32[]\n"
     "%d = mul %s, %m : f32[C]\n"
     "%u = reduce_sum %d {map=\"c->\"} : f32[]\n"
     "%v = add %u, %t : f32[]\n"
     "return probe \"v\" = %v, probe \"n\" = %n, probe \"s\" = %s\n"},
    {"part columns", "%s = reduce_sum %x {map=\"abc->b\"} : f32[B]\n"
                     "%t = reduce_sum %x {map=\"abc->bc\"} : f32[B, C]\n"
                     "return probe \"s\" = %s, probe \"t\" = %t\n"},
    {"middle", "%s = reduce_sum %x {map=\"abc->ac\"} : f32[A, C]\n"
               "%m = reduce_max %x {map=\"abc->a\"} : f32[A]\n"
               "%b = broadcast %m {map=\"a->ac\"} : f32[A, C]\n"
               "%t = div %s, %b : f32[A, C]\n"
               "return probe \"t\" = %t\n"},
    {"softmax", "%m = reduce_max %x {map=\"abc->ab\"} : f32[A, B]\n"
                "%mb = broadcast %m {map=\"ab->abc\"} : f32[A, B, C]\n"
                "%d = sub %x, %mb : f32[A, B, C]\n"
                "%d2 = mul %d, %d : f32[A, B, C]\n"
                "%d3 = sqrt %d2 : f32[A, B, C]\n"
                "%d4 = sqrt %d3 : f32[A, B, C]\n"
                "%e = div %d2, %d4 : f32[A, B, C]\n"
                "%s = reduce_sum %d4 {map=\"abc->ab\"} : f32[A, B]\n"
                "%sb = broadcast %s {map=\"ab->abc\"} : f32[A, B, C]\n"
                "%q = div %d4, %sb : f32[A, B, C]\n"
                "return probe \"q\" = %q, probe \"e\" = %e\n"},
    {"orders", "%f = floor %x : f32[A, B, C]\n"
               "%r = sqrt %x : f32[A, B, C]\n"
               "%q = div %x, %f : f32[A, B, C]\n"
               "%v, %i = sort %f : f32[A, B, C], i32[A, B, C]\n"
               "%w, %j = sort %r : f32[A, B, C], i32[A, B, C]\n"
               "%t, %h = top_k %q {k=1} : f32[A, B, 1], i32[A, B, 1]\n"
               "%vi, %ii = top_k %i {k=1} : i32[A, B, 1], i32[A, B, 1]\n"
               "return probe \"v\" = %v, probe \"i\" = %i, probe \"w\" = %w, "
               "probe \"j\" = %j, probe \"h\" = %h, probe \"t\" = %t, "
               "probe \"ii\" = %ii\n"},
    {"rows", "%g = take %x, %k : f32[A, B, 3]\n"
             "%p = put %g, %k {size=C} : f32[A, B, C]\n"
             "%c = cumsum %x {exclusive=true, reverse=true} : f32[A, B, C]\n"
             "%s = add %p, %c : f32[A, B, C]\n"
             "return probe \"s\" = %s, probe \"g\" = %g\n"},
    {"parts", "%a = pad %x {dim=2, lo=5, hi=3} : f32[A, B, F]\n"
              "%a2 = mul %a, %a : f32[A, B, F]\n"
              "%s = reduce_sum %a {map=\"abc->a\"} : f32[A]\n"
              "%b = concat %x, %x, %x {dim=1} : f32[A, E, C]\n"
              "%c = concat %x, %x {dim=0} : f32[D, B, C]\n"
              "%d = slice %a {dim=2, start=3, size=C} : f32[A, B, C]\n"
              "return probe \"b\" = %b, probe \"c\" = %c, probe \"d\" = %d, "
              "probe \"a\" = %a2, probe \"s\" = %s\n"},
    {"moves", "%t = transpose %x {map=\"abc->cab\"} : f32[C, A, B]\n"
              "%r = reshape %t : f32[C, A, 1, B]\n"
              "%i = iota {dim=2} : i32[A, B, C]\n"
              "%f = cast %i : f32[A, B, C]\n"
              "%y = add %x, %f : f32[A, B, C]\n"
              "%z = transpose %y {map=\"abc->acb\"} : f32[A, C, B]\n"
              "return probe \"r\" = %r, probe \"z\" = %z\n"},
};

static void shape_cases(void) {
  static const int shapes[][3] = {{1, 1, 1},   {3, 5, 7},    {2, 1, 33},
                                  {17, 9, 16}, {41, 13, 21}, {64, 3, 70},
                                  {5, 700, 4}};
  for (size_t i = 0; i < COUNT_OF(bodies); i++)
    for (size_t j = 0; j < COUNT_OF(shapes); j++)
      shape_case(bodies[i].name, bodies[i].text, shapes[j]);
}

static void attention_case(const int *sizes, const char *dtype, Isa isa) {
  char name[160];
  Buf text = {0};
  attention_text(sizes, dtype, "abcd", &text);
  attention_name(name, "loops", sizes, dtype);
  Ctx cx = {0};
  module_case(&cx, name, source_add(&cx, "text", text.data, text.len), isa);
  ctx_free(&cx);
  buf_free(&text);
}

static void attention_cases(void) {
#ifdef WARPS
  static const struct {
    int sizes[7];
    const char *dtype;
  } cases[] = {
      {{1, 1, 1, 1, 1, 1, 1}, "f32"},     {{2, 5, 7, 2, 1, 3, 4}, "bf16"},
      {{1, 7, 5, 4, 2, 8, 5}, "f64"},     {{1, 37, 33, 1, 1, 33, 16}, "f32"},
      {{1, 9, 20, 4, 2, 8, 5}, "bf16"},   {{1, 50, 70, 1, 1, 16, 1}, "bf16"},
      {{1, 32, 64, 2, 1, 64, 40}, "bf16"}, {{1, 64, 32, 1, 1, 24, 144}, "bf16"},
      {{1, 40, 20, 1, 1, 5, 257}, "bf16"}};
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    attention_case(cases[i].sizes, cases[i].dtype, any_isas[0]);
#else
  static const int shapes[][7] = {
      {1, 1, 1, 1, 1, 1, 1},     {2, 5, 7, 2, 1, 3, 4},
      {1, 7, 5, 4, 2, 8, 5},     {1, 37, 33, 1, 1, 33, 16},
      {1, 70, 150, 1, 1, 16, 1}, {1, 150, 70, 1, 1, 5, 40}};
  static const unsigned has[] = {KN_TILES | KN_NARROW, KN_DOT | KN_NARROW, 0};
  for (size_t i = 0; i < COUNT_OF(shapes); i++) {
    attention_case(shapes[i], "f32",
                   (Isa){.lanes = LANES, .least = LANES / 4});
    attention_case(shapes[i], "f32", (Isa){.lanes = LANES});
    attention_case(shapes[i], "f32", (Isa){.lanes = 4});
    attention_case(shapes[i], "f64", (Isa){.lanes = LANES});
    for (size_t k = 0; k < COUNT_OF(has); k++)
      attention_case(shapes[i], "bf16",
                     (Isa){.lanes = LANES, .has = has[k]});
  }
#endif
}

/* Of kernels for vectors of one thread. */
static void (*const host_cases[])(void) = {dense_cases, panels_cases,
                                           squares_cases, cancel_cases};

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    file_case(argv[i]);
  if (argc > 1) return failures != 0;
  shape_cases();
  pairs_cases();
  gather_cases();
  attention_cases();
#ifdef WARPS
  team_cases();
  group_cases();
  lies_cases();
#endif
  for (size_t i = 0; !any_isas[0].least && i < COUNT_OF(host_cases); i++)
    host_cases[i]();
  uint64_t many = getenv("SEEDS") ? strtoull(getenv("SEEDS"), NULL, 10) : SEEDS;
  for (uint64_t seed = 1; seed <= many; seed++) {
    Isa isa = any_isas[seed % COUNT_OF(any_isas)];
    random_case(seed, seed % 7 == 0 ? 120 : 25, 2, isa);
    if (seed % 4 == 0) random_case(seed, 25, 0, isa);
  }
  return failures != 0;
}
