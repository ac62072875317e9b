/* random.c: random programs through the passes.
 *
 * Programs of elementwise ops, moves of data, index maps and loops over random
 * small shapes. The gradient of each must equal a central difference along a
 * random direction, whether `simplify` and `hoist` come before autodiff or not,
 * and no later pass may change it. */
#include "../../passes/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROGRAMS = 400, NODES = 14, POOL = 64 };

static uint64_t state;

static uint64_t bits(void) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static int64_t below(int64_t n) {
  return (int64_t)(bits() % (uint64_t)n);
}
static double uniform(void) {
  return (double)(bits() >> 11) * 0x1p-53;
}

/* ---- making programs --------------------------------------------------- */

/* Values that nodes of one region may read. */
typedef struct Pool {
  Builder b;
  Value *v[POOL];
  int n;
  bool exact;
} Pool;

static void put(Pool *p, Value *v) {
  if (p->n < POOL && type_elements(&v->type) <= 200) p->v[p->n++] = v;
}

static Value *pick(Pool *p) {
  return p->v[below(p->n)];
}

static Type random_type(int max_rank) {
  int64_t sizes[MAX_RANK];
  int rank = (int)below(max_rank + 1);
  for (int i = 0; i < rank; i++)
    sizes[i] = 1 + below(3);
  return type_of(DT_f32, rank, sizes);
}

/* Letters of `v` in order, from `first`. */
static void letters(const Value *v, char first, char *out) {
  for (int i = 0; i <= v->type.rank; i++)
    out[i] = i < v->type.rank ? (char)(first + i) : '\0';
}

static void shuffle(char *s) {
  for (size_t i = strlen(s); i > 1; i--) {
    size_t j = (size_t)below((int64_t)i);
    char c = s[i - 1];
    s[i - 1] = s[j];
    s[j] = c;
  }
}

static void append(char *s, char c) {
  size_t n = strlen(s);
  s[n] = c;
  s[n + 1] = '\0';
}

static Sym text(Pool *p, const IndexMap *m) {
  return map_text(p->b.cx, m);
}

static Value *unary(Pool *p) {
  static const OpKind ops[] = {OP_tanh, OP_sigmoid, OP_neg, OP_erf, OP_abs};
  return ir_unary(&p->b, ops[below(COUNT_OF(ops))], pick(p));
}

static Value *binary(Pool *p) {
  static const OpKind ops[] = {OP_add, OP_sub, OP_mul, OP_max, OP_min};
  Value *a = pick(p), *c = pick(p);
  if (!type_equal(&a->type, &c->type))
    c = ir_const_like(&p->b, a, (double)below(3) - 1);
  return ir_binary(&p->b, ops[below(COUNT_OF(ops))], a, c);
}

static Value *choose(Pool *p) {
  Value *a = pick(p);
  Value *half = ir_const_like(&p->b, a, 0.5);
  Value *cond = ir_binary(&p->b, OP_lt, a, half);
  if (below(2)) cond = ir_unary(&p->b, OP_not, cond);
  return ir_select(&p->b, cond, ir_binary(&p->b, OP_mul, a, a),
                   below(2) ? half : a);
}

static Value *transpose(Pool *p) {
  Value *a = pick(p);
  IndexMap m = {.n_ins = 1};
  letters(a, 'a', m.ins[0]);
  letters(a, 'a', m.out);
  shuffle(m.out);
  return ir_transpose(&p->b, a, text(p, &m));
}

static Value *broadcast(Pool *p) {
  Value *a = pick(p);
  IndexMap m = {.n_ins = 1};
  letters(a, 'a', m.ins[0]);
  letters(a, 'a', m.out);
  if (a->type.rank < 4) append(m.out, 'x');
  shuffle(m.out);
  Type t = {.dtype = DT_f32, .rank = (uint8_t)strlen(m.out)};
  int64_t size = 1 + below(3);
  for (int i = 0; i < t.rank; i++)
    t.dims[i].size = m.out[i] == 'x' ? size : a->type.dims[m.out[i] - 'a'].size;
  return ir_broadcast(&p->b, a, text(p, &m), t);
}

static Value *reduce(Pool *p) {
  static const OpKind ops[] = {OP_reduce_sum, OP_reduce_sum, OP_reduce_max,
                               OP_reduce_min};
  Value *a = pick(p);
  IndexMap m = {.n_ins = 1};
  letters(a, 'a', m.ins[0]);
  for (const char *c = m.ins[0]; *c; c++)
    if (below(2)) append(m.out, *c);
  return ir_reduce(&p->b, ops[below(COUNT_OF(ops))], a, text(p, &m));
}

static Value *cut(Pool *p) {
  Value *a = pick(p);
  if (!a->type.rank) return NULL;
  int dim = (int)below(a->type.rank);
  int64_t size = a->type.dims[dim].size, start = below(size);
  return ir_slice(&p->b, a, dim, start, 1 + below(size - start));
}

static Value *pad(Pool *p) {
  Value *a = pick(p);
  if (!a->type.rank) return NULL;
  int dim = (int)below(a->type.rank);
  return ir_pad(&p->b, a, dim, below(3), below(2));
}

/* pad(a) + pad(b) along one dim, apart or not. */
static Value *pads(Pool *p) {
  Value *a = pick(p);
  if (!a->type.rank) return NULL;
  int dim = (int)below(a->type.rank);
  int64_t size = a->type.dims[dim].size, room = size + below(2);
  Value *lo = ir_pad(&p->b, a, dim, 0, room);
  Value *hi = ir_pad(&p->b, ir_unary(&p->b, OP_tanh, a), dim, room, 0);
  return ir_binary(&p->b, OP_add, below(2) ? lo : hi, below(2) ? lo : hi);
}

static Value *concat(Pool *p) {
  Value *a = pick(p), *parts[3] = {a, pick(p), pick(p)};
  if (!a->type.rank) return NULL;
  for (int i = 1; i < 3; i++)
    if (!type_equal(&parts[i]->type, &a->type)) parts[i] = a;
  return ir_concat(&p->b, parts, 1 + (uint32_t)below(3),
                   (int)below(a->type.rank));
}

static Value *reshape(Pool *p) {
  Value *a = pick(p);
  int64_t n = type_elements(&a->type), sizes[] = {n, 1, 1};
  return ir_reshape(&p->b, a, type_of(DT_f32, 1 + (int)below(3), sizes));
}

/* Letters of equal size are shared at random; all that is left over is kept. */
static Value *contract(Pool *p) {
  Value *a = pick(p), *c = pick(p);
  IndexMap m = {.n_ins = 2};
  letters(a, 'a', m.ins[0]);
  letters(c, 'p', m.ins[1]);
  for (int i = 0; i < c->type.rank; i++)
    for (int k = 0; k < a->type.rank; k++)
      if (a->type.dims[k].size == c->type.dims[i].size && below(2) &&
          !strchr(m.ins[1], 'a' + k)) {
        m.ins[1][i] = (char)('a' + k);
        break;
      }
  for (int side = 0; side < 2; side++)
    for (const char *l = m.ins[side]; *l; l++) {
      bool shared = strchr(m.ins[1 - side], *l) != NULL;
      if (!strchr(m.out, *l) && (!shared || below(2)) &&
          (strlen(m.out) < 5 || !shared))
        append(m.out, *l);
    }
  if (strlen(m.out) > 5) return NULL;
  shuffle(m.out);
  return ir_contract(&p->b, a, c, text(p, &m));
}

static Value *rows(Pool *p) {
  Value *table = pick(p);
  if (!table->type.rank) return NULL;
  int64_t size = 2;
  Value *at = ir_iota(&p->b, type_of(DT_i32, 1, &size), 0);
  Value *last = ir_const_like(&p->b, at, (double)table->type.dims[0].size - 1);
  Value *ins[] = {table, ir_binary(&p->b, OP_min, at, last)};
  return ir_node(&p->b, OP_gather, NULL, ins, 2, NULL)->outs.data[0];
}

static void grow(Pool *p, int nodes, int depth);

/* A loop with a carry, a scanned operand, two invariants, and stacked results
 * of random nodes. */
static Value *loop(Pool *p, int depth) {
  Value *init = pick(p), *fixed = pick(p), *other = pick(p);
  int64_t length = 1 + below(3);
  if (init->type.rank > 3 || depth == 0) return NULL;
  IndexMap m = {.n_ins = 1};
  letters(init, 'a', m.ins[0]);
  m.out[0] = 'x';
  letters(init, 'a', m.out + 1);
  Value *xs =
      ir_broadcast(&p->b, init, text(p, &m), loop_stacked(init->type, length));
  Value *at =
      ir_broadcast(&p->b, ir_iota(&p->b, type_of(DT_f32, 1, &length), 0),
                   sym_fmt(p->b.cx, "x->%s", m.out), xs->type);
  xs = ir_binary(&p->b, OP_mul, xs, ir_unary(&p->b, OP_sigmoid, at));
  Value *ins[] = {init, xs, fixed, other};
  Node *n =
      ir_node(&p->b, OP_scan, NULL, ins, 4, "carries", (int64_t)1, "scanned",
              (int64_t)1, "length", length, "reverse", below(2), NULL);
  Pool in = {.b = ir_builder(p->b.cx, n->body)};
  for (uint32_t i = 1; i < n->body->params.len; i++)
    put(&in, n->body->params.data[i]);
  grow(&in, 6, depth - 1);
  Value *h = n->body->params.data[1], *x = n->body->params.data[2];
  Value *next = ir_unary(&in.b, OP_tanh, ir_binary(&in.b, OP_add, h, x));
  for (int i = 0; i < in.n; i++)
    if (type_equal(&in.v[i]->type, &h->type) && below(2))
      next = below(2) ? ir_binary(&in.b, OP_mul, next, in.v[i])
                      : ir_binary(&in.b, OP_add, h, in.v[i]);
  ValueVec *results = &n->body->results;
  vec_push(&p->b.cx->perm, results, next);
  for (int i = 0; i < 3; i++) {
    Value *v = pick(&in);
    if (v->type.rank < 4) vec_push(&p->b.cx->perm, results, v);
  }
  ir_finish(&p->b, n);
  for (uint32_t i = 0; i < n->outs.len; i++)
    put(p, n->outs.data[i]);
  return NULL;
}

/* The first EXACT ones sum nothing: rewriting them must not change a bit. */
enum { EXACT = 12 };

static void grow(Pool *p, int nodes, int depth) {
  static Value *(*const makers[])(Pool *) = {
      unary,  binary, binary,   choose,  transpose, broadcast,
      cut,    pad,    concat,   reshape, rows,      unary,
      reduce, pads,   contract, contract};
  for (int i = 0; i < nodes; i++) {
    int64_t which = below(p->exact ? EXACT : (int64_t)COUNT_OF(makers) + 1);
    bool is_loop = which == COUNT_OF(makers);
    Value *v = is_loop ? loop(p, depth) : makers[which](p);
    if (v) put(p, v);
  }
}

/* ---- a program --------------------------------------------------------- */

enum { INPUTS = 3 };

typedef struct Program {
  Ctx cx;
  Module *m;
  Entry *e; /* results: loss and the gradient of each input */
  Arena a;
  Tensor *ins[INPUTS], *outs[INPUTS + 1];
  uint64_t choices;
} Program;

static Value *sum_up(Builder *b, const Pool *p) {
  Value *loss = ir_const(b, type_scalar(DT_f32), 0);
  for (int i = INPUTS; i < p->n; i++) {
    Value *v = ir_unary(b, OP_tanh, p->v[i]);
    int64_t n = type_elements(&v->type);
    v = ir_reshape(b, v, type_of(DT_f32, 1, &n));
    v = ir_reduce(b, OP_reduce_sum, v, "a->");
    loss = ir_binary(b, OP_add, loss, v);
  }
  return loss;
}

static Pool inputs(Program *g, uint64_t seed) {
  *g = (Program){0};
  state = seed;
  g->m = ir_module_new(&g->cx);
  g->e = ir_entry_new(g->m, sym(&g->cx, "f"), (Span){0});
  Pool p = {.b = ir_builder(&g->cx, g->e->region)};
  for (int i = 0; i < INPUTS; i++) {
    Sym name = sym_fmt(&g->cx, "x%d", i);
    Binding in = {BIND_INPUT, name, sym(&g->cx, "any")};
    put(&p, ir_bind_in(g->e, in, name, random_type(3)));
  }
  return p;
}

static void draw(Program *g, const Pool *p) {
  for (int i = 0; i < INPUTS; i++) {
    g->ins[i] = tensor_new(&g->a, p->v[i]->type);
    for (int64_t k = 0; k < type_elements(&p->v[i]->type); k++)
      g->ins[i]->data[k] = (float)(2 * uniform() - 1);
  }
}

static void program_new(Program *g, uint64_t seed) {
  Pool p = inputs(g, seed);
  grow(&p, NODES, 2);
  Value *ins[INPUTS + 1] = {sum_up(&p.b, &p), p.v[0], p.v[1], p.v[2]};
  Node *n = ir_node(&p.b, OP_grad, NULL, ins, INPUTS + 1, NULL);
  for (int i = 0; i <= INPUTS; i++) {
    Binding out = {BIND_REPORT, sym_fmt(&g->cx, "r%d", i), NULL};
    ir_bind_out(g->e, out, i ? n->outs.data[i - 1] : ins[0]);
  }
  draw(g, &p);
}

static void program_free(Program *g) {
  arena_reset(&g->a);
  ctx_free(&g->cx);
}

/* Booleans only: ids do not depend on the inputs. */
static void note_choices(void *user, const Node *n, const Tensor *const *ins,
                         Tensor *const *outs) {
  Program *g = user;
  (void)ins;
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (outs[i]->type.dtype == DT_bool)
      g->choices =
          hash_bytes(g->choices, outs[i]->data,
                     sizeof(double) * (size_t)type_elements(&outs[i]->type));
}

static void run(Program *g) {
  Eval ev = {.cx = &g->cx, .mode = EVAL_F64, .hook = note_choices, .user = g};
  g->choices = 0;
  if (ir_eval(&ev, g->e, g->ins, g->outs, &g->a))
    internal_error("a random program does not run");
}

/* ---- checks ------------------------------------------------------------ */

static int failures, checked, corners;

static bool fail(uint64_t seed, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool fail(uint64_t seed, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  printf("not ok random %llu: ", (unsigned long long)seed);
  vprintf(fmt, args);
  printf("\n");
  va_end(args);
  failures++;
  return false;
}

/* Gradient along a direction, by g's results; *differences by central ones,
 * NaN where a choice differs between the points. */
static double along(Program *g, Program *f, double *differences) {
  const double step = 1e-6;
  double dot = 0, value[2];
  uint64_t choices[2];
  state = 99;
  Tensor *at[INPUTS];
  memcpy(at, f->ins, sizeof at);
  double *way[INPUTS];
  for (int i = 0; i < INPUTS; i++) {
    int64_t n = type_elements(&at[i]->type);
    way[i] = NEW_ARRAY(&f->a, double, (size_t)n + 1);
    for (int64_t k = 0; k < n; k++) {
      way[i][k] = 2 * uniform() - 1;
      dot += way[i][k] * g->outs[i + 1]->data[k];
    }
  }
  for (int side = 0; side < 2; side++) {
    for (int i = 0; i < INPUTS; i++) {
      f->ins[i] = tensor_copy(&f->a, at[i]);
      for (int64_t k = 0; k < type_elements(&at[i]->type); k++)
        f->ins[i]->data[k] += (side ? -step : step) * way[i][k];
    }
    run(f);
    value[side] = f->outs[0]->data[0];
    choices[side] = f->choices;
  }
  memcpy(f->ins, at, sizeof at);
  *differences = choices[0] == choices[1] ? (value[0] - value[1]) / (2 * step)
                                          : (double)NAN;
  return dot;
}

static bool same_after(uint64_t seed, Program *g, const char *pass) {
  Tensor *before[INPUTS + 1];
  memcpy(before, g->outs, sizeof before);
  if (!pass_info[pass_find(pass)].run(g->m,
                                      &(PassOptions){.precision = DT_f64}) ||
      !ir_verify(g->m, false)) {
    diag_print(&g->cx, stdout);
    return fail(seed, "%s breaks the program", pass);
  }
  run(g);
  for (int i = 0; i <= INPUTS; i++) {
    double diff = 0, size = 0;
    for (int64_t k = 0; k < type_elements(&before[i]->type); k++) {
      diff += fabs(before[i]->data[k] - g->outs[i]->data[k]);
      size += fabs(before[i]->data[k]);
    }
    if (!(diff <= 1e-10 * (1 + size)))
      return fail(seed, "result %d differs by %g after %s", i, diff, pass);
  }
  return true;
}

static bool derive(uint64_t seed, Program *g, bool early) {
  PassOptions o = {.precision = DT_f64};
  if (early && pass_simplify(g->m, &o)) pass_hoist(g->m, &o);
  if (pass_autodiff(g->m, &o) && ir_verify(g->m, false)) return true;
  diag_print(&g->cx, stdout);
  return fail(seed, "autodiff fails");
}

/* max, min and abs have their choices made comparable: what they picked is
 * seen in the gradient's comparisons, so those of `g` are looked at too. */
static bool check(uint64_t seed, bool early) {
  Program f, g;
  program_new(&f, seed);
  program_new(&g, seed);
  f.e->region->results.len = f.e->outs.len = 1;
  ir_sweep(f.e);
  double numeric, exact;
  bool ok = derive(seed, &g, early);
  if (ok) {
    run(&g);
    exact = along(&g, &f, &numeric);
    checked++;
    if (isnan(numeric))
      corners++;
    else if (!(fabs(exact - numeric) <= 2e-6 * (1 + fabs(exact))))
      ok = fail(seed, "gradient %.9g, differences %.9g", exact, numeric);
  }
  ok = ok && same_after(seed, &g, "simplify") &&
       same_after(seed, &g, "hoist") && same_after(seed, &g, "simplify") &&
       same_after(seed, &g, "recompute") && same_after(seed, &g, "simplify");
  program_free(&g);
  program_free(&f);
  return ok;
}

/* Without sums, `simplify` keeps every bit of f32 results. */
static void check_bits(uint64_t seed) {
  Program g;
  Pool p = inputs(&g, seed);
  p.exact = true;
  grow(&p, 2 * NODES, 0);
  for (int i = INPUTS; i < p.n; i++) {
    Binding out = {BIND_REPORT, sym_fmt(&g.cx, "r%d", i), NULL};
    ir_bind_out(g.e, out, p.v[i]);
  }
  draw(&g, &p);
  Eval ev = {.cx = &g.cx, .mode = EVAL_TYPED};
  Tensor *before[POOL], *after[POOL];
  ir_eval(&ev, g.e, g.ins, before, &g.a);
  pass_simplify(g.m, &(PassOptions){.precision = DT_f32});
  ir_eval(&ev, g.e, g.ins, after, &g.a);
  for (uint32_t i = 0; i < g.e->outs.len; i++)
    if (memcmp(before[i]->data, after[i]->data,
               sizeof(double) * (size_t)type_elements(&before[i]->type))) {
      fail(seed, "simplify changes bits of result %u", i);
      break;
    }
  program_free(&g);
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
  uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : PROGRAMS;
  for (uint64_t seed = first; seed < first + n; seed++)
    if (check(seed, false) && check(seed, true)) check_bits(seed);
  if (corners * 5 > checked) fail(first, "%d draws at corners", corners);
  if (!failures) printf("ok random programs\n");
  return failures != 0;
}
