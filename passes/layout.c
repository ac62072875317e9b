/* layout.c: contractions in the order of a matrix product.
 *
 * Goal: a library call takes a contraction whose letters fall into blocks: in
 * each tensor the batch letters (in both operands and the result) first, then
 * its two other roles (m: left and result; n: right and result; k: both
 * operands), each block in the same order wherever it occurs. Method: for every
 * dense contraction that is not so, choose an order for each role, among the
 * orders that its tensors have, such that the tensors to be transposed are the
 * smallest; a transposed operand is made once for all its users. `fuse` makes
 * the transposes part of the launches around them. Runs after the last
 * simplify, whose rules would take the transposes back into the map. Operands
 * that a loop's products read in every turn are packed: layout_scan.c.
 *
 *   %d = contract %z, %w {map="tbn,dn->btd"} : f32[64, 32, 512]
 *
 * becomes
 *
 *   %0 = contract %z, %w {map="tbn,dn->tbd"} : f32[32, 64, 512]
 *   %d = transpose %0 {map="tbd->btd"} : f32[64, 32, 512] */
#include "pass.h"

#include <string.h>

enum { LEFT, RIGHT, OUT, TENSORS };
enum { BATCH, ROLE_M, ROLE_N, ROLE_K, ROLES };

typedef char Letters[2 * MAX_RANK + 1];

typedef struct Product {
  Letters tensor[TENSORS]; /* letters in order, those of size 1 left out */
  int64_t bytes[TENSORS];
  Letters order[ROLES]; /* the chosen order of each role's letters */
} Product;

static int role_of(const Product *p, char c) {
  bool left = strchr(p->tensor[LEFT], c), right = strchr(p->tensor[RIGHT], c);
  if (left && right) return strchr(p->tensor[OUT], c) ? BATCH : ROLE_K;
  return left ? ROLE_M : ROLE_N;
}

static bool role_is_in(int role, int tensor) {
  static const bool is_in[ROLES][TENSORS] = {[BATCH] = {1, 1, 1},
                                             [ROLE_M] = {1, 0, 1},
                                             [ROLE_N] = {0, 1, 1},
                                             [ROLE_K] = {1, 1, 0}};
  return is_in[role][tensor];
}

/* The letters of one role in the order in which a tensor has them. */
static void order_in(const Product *p, int role, int tensor, char *out) {
  for (const char *c = p->tensor[tensor]; *c; c++)
    if (role_of(p, *c) == role) *out++ = *c;
  *out = 0;
}

/* A tensor's letters as a product takes them: batch, then the two roles, last
 * the one that holds the letter that is last now. */
static void wanted(const Product *p, int tensor, char *out) {
  const char *now = p->tensor[tensor];
  size_t n = strlen(now);
  int last = n ? role_of(p, now[n - 1]) : BATCH;
  strcpy(out, p->order[BATCH]);
  for (int role = ROLE_M; role < ROLES; role++)
    if (role != last && role_is_in(role, tensor)) strcat(out, p->order[role]);
  if (last != BATCH) strcat(out, p->order[last]);
}

static int64_t cost_of(const Product *p) {
  int64_t cost = 0;
  for (int t = 0; t < TENSORS; t++) {
    Letters w;
    wanted(p, t, w);
    if (strcmp(w, p->tensor[t]) != 0) cost += p->bytes[t];
  }
  return cost;
}

/* Tries, role by role from `role` on, the orders that tensors have. */
static void choose(Product *p, int role, Product *best, int64_t *best_cost) {
  if (role == ROLES) {
    int64_t cost = cost_of(p);
    if (cost >= *best_cost) return;
    *best = *p;
    *best_cost = cost;
    return;
  }
  for (int t = 0; t < TENSORS; t++) {
    if (!role_is_in(role, t)) continue;
    order_in(p, role, t, p->order[role]);
    choose(p, role + 1, best, best_cost);
  }
}

static void add_tensor(Product *p, int tensor, const char *letters,
                       const Value *v) {
  char *to = p->tensor[tensor];
  for (int d = 0; letters[d]; d++)
    if (v->type.dims[d].size != 1) *to++ = letters[d];
  p->bytes[tensor] = type_bytes(&v->type);
}

/* All letters of a tensor in the wanted order; those of size 1 in front. */
static void full_order(const Product *p, int tensor, const char *letters,
                       char *out) {
  for (const char *c = letters; *c; c++)
    if (!strchr(p->tensor[tensor], *c)) *out++ = *c;
  wanted(p, tensor, out);
}

/* ---- the rewrite -------------------------------------------------------- */

typedef struct Layout {
  Ctx *cx;
  const PassOptions *o;
  Map made; /* hash of value and map -> the transpose's Value */
  Builder b;
} Layout;

static Value *transposed(Layout *l, Value *v, const char *from,
                         const char *to) {
  if (strcmp(from, to) == 0) return v;
  pass_tally(l->o, "transpose for a product");
  /* Named by dims, not letters, so that other contractions find it. */
  char order[MAX_RANK + 1] = {0};
  for (int d = 0; to[d]; d++)
    order[d] = (char)('a' + (strchr(from, to[d]) - from));
  Sym map = sym_fmt(l->cx, "%.*s->%s", (int)strlen(from), "abcdefgh", order);
  Sym key = sym_fmt(l->cx, "%p %s", (void *)v, map);
  Value *made = map_get(&l->made, key);
  if (made) return made;
  made = ir_transpose(&l->b, v, map);
  map_put(&l->cx->scratch, &l->made, key, made);
  return made;
}

static bool is_dense(const Node *n) {
  return n->op == OP_contract && !type_is_ragged(&n->ins.data[0]->type) &&
         !type_is_ragged(&n->ins.data[1]->type) &&
         !type_is_ragged(&n->outs.data[0]->type);
}

/* False: the contraction is good as it is. */
static bool rewrite(Layout *l, Node *n) {
  IndexMap m, to = {.n_ins = 2};
  map_parse(attr_sym(n, "map"), &m);
  Product p = {0}, best = {0};
  Value *x = ir_now(n->ins.data[0]), *y = ir_now(n->ins.data[1]);
  add_tensor(&p, LEFT, m.ins[0], x);
  add_tensor(&p, RIGHT, m.ins[1], y);
  add_tensor(&p, OUT, m.out, n->outs.data[0]);
  int64_t cost = INT64_MAX;
  choose(&p, 0, &best, &cost);
  if (cost == 0) return false;
  const char *from[TENSORS] = {m.ins[0], m.ins[1], m.out};
  char *into[TENSORS] = {to.ins[0], to.ins[1], to.out};
  for (int t = 0; t < TENSORS; t++) {
    Letters w;
    wanted(&best, t, w);
    if (strcmp(w, best.tensor[t]) == 0) strcpy(into[t], from[t]);
    else full_order(&best, t, from[t], into[t]);
  }
  x = transposed(l, x, m.ins[0], to.ins[0]);
  y = transposed(l, y, m.ins[1], to.ins[1]);
  Value *v = ir_contract(&l->b, x, y, map_text(l->cx, &to));
  ir_replace(n->outs.data[0], transposed(l, v, to.out, m.out));
  return true;
}

static void layout_region(Ctx *cx, const PassOptions *o, Region *r) {
  NodeVec nodes = {0};
  Layout l = {.cx = cx, .o = o};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    l.b = ir_builder_like(cx, r, &nodes, n);
    if (n->op == OP_scan) {
      layout_region(cx, o, n->body);
      if (target_facts[o->target].packs) layout_scan(&l.b, n, o);
    }
    if (is_dense(n) && rewrite(&l, n)) continue;
    vec_push(&cx->perm, &nodes, n);
  }
  r->nodes = nodes;
}

bool pass_layout(Module *m, const PassOptions *o) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    layout_region(m->cx, o, m->entries.data[i]->region);
    ir_sweep(m->entries.data[i]);
  }
  return true;
}
