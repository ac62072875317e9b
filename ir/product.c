/* product.c: what kind of product a contraction is.
 *
 * The letters of the map fall into roles, as in a matrix product: batch (in
 * both operands and the result), m (left and result), n (right and result), k
 * (both operands). Letters of one role that lie as one are merged. */
#include "ir.h"

#include <string.h>

/* ---- letters ------------------------------------------------------------ */

CtLetter *ir_letter(CtLetters *ls, char c) {
  for (int i = 0; i < ls->n; i++)
    if (ls->l[i].c == c) return &ls->l[i];
  return NULL;
}

static void add_side(CtLetters *ls, int side, const char *s, const Type *t) {
  int64_t stride = 1;
  bool ragged = type_is_ragged(t);
  for (int d = (int)strlen(s) - 1; d >= 0; d--) {
    CtLetter *l = ir_letter(ls, s[d]);
    if (!l) {
      l = &ls->l[ls->n++];
      *l = (CtLetter){.c = s[d], .size = t->dims[d].size};
    }
    l->in[side] = true;
    if (ragged && d == 0) continue; /* not stored: rows say it all */
    l->stride[side] = stride;
    stride *= t->dims[d].size;
  }
  if (ragged) {
    ls->group = s[0];
    ls->row = s[1];
  }
}

static void drop_letter(CtLetters *ls, CtLetter *l) {
  *l = ls->l[--ls->n];
}

CtLetters ir_letters(const Node *n) {
  IndexMap m = map_of(n);
  CtLetters ls = {0};
  add_side(&ls, CT_OUT, m.out, &n->outs.data[0]->type);
  add_side(&ls, CT_LEFT, m.ins[0], &n->ins.data[0]->type);
  add_side(&ls, CT_RIGHT, m.ins[1], &n->ins.data[1]->type);
  CtLetter *g = ls.group ? ir_letter(&ls, ls.group) : NULL;
  /* Experts that only ever come with their rows: all rows are one dim. */
  if (g && !g->stride[CT_LEFT] && !g->stride[CT_RIGHT] && !g->stride[CT_OUT]) {
    drop_letter(&ls, g);
    ls.group = ls.row = 0;
  }
  return ls;
}

static CtRole role_of(const CtLetter *l) {
  if (l->in[CT_LEFT] && l->in[CT_RIGHT])
    return l->in[CT_OUT] ? CT_ROLE_BATCH : CT_ROLE_K;
  return l->in[CT_LEFT] ? CT_ROLE_M : CT_ROLE_N;
}

/* Two letters of one role that lie as one: y runs within x. */
static bool merges(const CtLetter *x, const CtLetter *y) {
  for (int s = 0; s < CT_SIDES; s++)
    if (x->in[s] != y->in[s] || x->stride[s] != y->stride[s] * y->size)
      return false;
  return true;
}

static void merge_letters(CtLetters *ls) {
  for (int i = 0; i < ls->n; i++)
    for (int j = 0; j < ls->n; j++) {
      CtLetter *x = &ls->l[i], *y = &ls->l[j];
      bool ragged = x->c == ls->group || x->c == ls->row || y->c == ls->group ||
                    y->c == ls->row;
      if (i == j || ragged || !merges(x, y)) continue;
      y->size *= x->size;
      drop_letter(ls, x);
      i = j = -1; /* from the start again */
      break;
    }
}

static void swap_sides(CtLetters *ls) {
  for (int i = 0; i < ls->n; i++) {
    CtLetter *l = &ls->l[i];
    int64_t stride = l->stride[CT_LEFT];
    bool in = l->in[CT_LEFT];
    l->stride[CT_LEFT] = l->stride[CT_RIGHT];
    l->in[CT_LEFT] = l->in[CT_RIGHT];
    l->stride[CT_RIGHT] = stride;
    l->in[CT_RIGHT] = in;
  }
}

/* Where a product has the letters of a role. */
static CtLetter *place_of(CtProduct *p, CtRole r) {
  switch (r) {
  case CT_ROLE_BATCH: return &p->batch;
  case CT_ROLE_M: return &p->m;
  case CT_ROLE_N: return &p->n;
  case CT_ROLE_K: return &p->k;
  }
  return NULL;
}

/* Rows of experts are all of m or of k, and the experts the only batch. */
static bool add_groups(CtProduct *p, const CtLetters *ls) {
  bool m = p->m.c == ls->row, k = p->k.c == ls->row;
  if ((!m && !k) || p->batch.c != ls->group) return false;
  p->ragged_k = k;
  p->groups = p->batch.size;
  p->rows = k ? p->k.size : p->m.size;
  return true;
}

/* The product of letters as they stand. False where it is none. */
static bool product_of(CtLetters *ls, CtProduct *p) {
  p->m = p->n = p->k = p->batch = (CtLetter){.size = 1};
  p->groups = 0;
  for (int i = 0; i < ls->n; i++) {
    const CtLetter *l = &ls->l[i];
    CtRole role = l->c == ls->group ? CT_ROLE_BATCH : role_of(l);
    CtLetter *place = place_of(p, role);
    if (place->size == 1)
      *place = *l;
    else if (l->size > 1)
      return false;
  }
  if (p->n.stride[CT_OUT] != 1) return false;
  return !ls->group || add_groups(p, ls);
}

/* The roles of the stored dims of the result; `ls`: with all their letters. */
static void add_roles(CtProduct *p, const Node *n, CtLetters ls) {
  IndexMap m = map_of(n);
  const Type *t = &n->outs.data[0]->type;
  if (p->arg[CT_LEFT]) swap_sides(&ls);
  for (const char *c = m.out + type_is_ragged(t); *c; c++)
    p->roles[p->rank++] =
        *c == ls.group ? CT_ROLE_BATCH : role_of(ir_letter(&ls, *c));
}

bool ir_product(const Node *n, CtProduct *p) {
  CtLetters all = ir_letters(n), ls = all;
  *p = (CtProduct){.dtype = n->ins.data[0]->type.dtype};
  merge_letters(&ls);
  p->arg[CT_RIGHT] = 1;
  if (!product_of(&ls, p)) {
    swap_sides(&ls);
    p->arg[CT_LEFT] = 1;
    p->arg[CT_RIGHT] = 0;
    if (!product_of(&ls, p)) return false;
  }
  add_roles(p, n, all);
  return true;
}

/* ---- sums of squares ----------------------------------------------------- */

Node *ir_squared(Ctx *cx, const Node *n) {
  Node *c = NEW(&cx->perm, Node);
  *c = *n;
  c->op = OP_contract;
  c->outs = (ValueVec){0};
  return ir_infer(cx, c) ? c : NULL;
}

bool infer_square_sum(Infer *I) {
  Node *c = ir_squared(I->cx, I->n);
  CtProduct p;
  if (!c) return false;
  if (!ir_product(c, &p))
    return infer_fail(I, "map \"%s\" is no product of matrices",
                      attr_sym(I->n, "map"));
  return infer_result(I, type_scalar(c->outs.data[0]->type.dtype));
}

static bool runs_along(const CtLetter *l, int side) {
  return l->size == 1 || l->stride[side] == 1;
}

int64_t ir_product_pairs(const CtProduct *p) {
  int64_t rows = p->groups ? p->rows : p->k.size;
  if ((p->groups && !p->ragged_k) || !runs_along(&p->m, CT_LEFT) ||
      !runs_along(&p->n, CT_RIGHT))
    return 0;
  int64_t most = p->m.size * p->n.size / (p->m.size + p->n.size);
  return most < rows ? most : rows;
}

/* ---- library calls ------------------------------------------------------ */

/* A matrix whose rows or columns are contiguous, with its batch stride outside
 * of it: what libraries are fast with. */
static bool is_plain(const CtLetter *rows, const CtLetter *cols,
                     const CtLetter *batch, int side) {
  int64_t r = rows->stride[side], c = cols->stride[side];
  int64_t b = batch->stride[side];
  bool matrix = (c == 1 && r >= cols->size) || (r == 1 && c >= rows->size) ||
                (rows->size == 1 && c == 1) || (cols->size == 1 && r == 1);
  return matrix && (batch->size == 1 || b == 0 || b >= rows->size * cols->size);
}

bool ir_product_is_plain(const CtProduct *p) {
  return dtype_info[p->dtype].sums == DT_f32 && !p->groups &&
         is_plain(&p->m, &p->k, &p->batch, CT_LEFT) &&
         is_plain(&p->k, &p->n, &p->batch, CT_RIGHT) &&
         is_plain(&p->m, &p->n, &p->batch, CT_OUT);
}

/* ---- launches of kind `product` ------------------------------------------ */

Node *ir_product_node(const Node *launch) {
  for (uint32_t i = 0; launch->body && i < launch->body->nodes.len; i++)
    if (launch->body->nodes.data[i]->op == OP_contract)
      return launch->body->nodes.data[i];
  return NULL;
}

Value *ir_product_operand(const Node *contract, int i) {
  Value *v = contract->ins.data[i];
  return v->def ? v->def->ins.data[0] : v;
}

/* Whether value `v` of the body is a cast of the launch's own, from the dtype
 * that `v` is summed in, and the contraction's right operand. */
static bool is_cast_operand(const Node *c, const Value *v) {
  CtProduct p;
  const Node *n = v->def;
  return n->op == OP_cast && ir_product(c, &p) &&
         c->ins.data[p.arg[CT_RIGHT]] == v &&
         c->ins.data[p.arg[CT_LEFT]] != v &&
         n->ins.data[0]->type.dtype == dtype_info[v->type.dtype].sums;
}

Node *ir_product_rows(const Node *contract, int i) {
  Node *n = contract->ins.data[i]->def;
  return n && n->op == OP_rows_gather ? n : NULL;
}

bool ir_product_takes_rows(const Node *c, const Node *n) {
  CtProduct p;
  if (n->op != OP_rows_gather || n->ins.len > 3) return false;
  if (c->ins.len > 2 && c->ins.data[2] != n->ins.data[2]) return false;
  return ir_product(c, &p) && p.groups;
}

/* Whether value `v` of the body is made of the launch's own operands as the
 * contraction loads them. */
static bool is_loaded(const Node *c, const Value *v) {
  for (uint32_t i = 0; i < v->def->ins.len; i++)
    if (v->def->ins.data[i]->def) return false;
  return is_cast_operand(c, v) || ir_product_takes_rows(c, v->def);
}

static bool in_vec(const ValueVec *v, const Value *x) {
  for (uint32_t i = 0; i < v->len; i++)
    if (v->data[i] == x) return true;
  return false;
}

static bool is_total(const Node *n, const Type *sums) {
  if (n->op != OP_reduce_sum) return false;
  const Type *from = &n->ins.data[0]->type;
  return n->outs.data[0]->type.rank == 0 && type_same_dims(from, sums) &&
         dtype_info[from->dtype].sums == from->dtype;
}

/* What is wrong with node `n` of the body; adds to `depends`, what follows from
 * the contraction. */
static const char *fault_of(const Node *launch, const Node *n, const Node *c,
                            ValueVec *depends, Arena *a) {
  bool follows = n == c;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Value *v = n->ins.data[i];
    follows |= in_vec(depends, v);
    if (n == c && v->def && !is_loaded(c, v))
      return "an operand of its contraction is none of its own";
    if (n != c && v->def && v->def->op == OP_rows_gather && in_vec(&c->ins, v))
      return "rows that its contraction gathers are read by others";
  }
  if (is_total(n, &c->outs.data[0]->type))
    return in_vec(&launch->body->results, n->outs.data[0])
               ? NULL
               : "a sum over all is not among its results";
  LowerKind k = op_info[n->op].lower;
  if (n != c && k != LOWER_SCALAR && k != LOWER_ACCESS)
    return "more than one contraction, elementwise ops and sums over all";
  if (follows && n != c && !op_is(n->op, TRAIT_EW))
    return "the contraction is read at another place than it is at";
  if (follows) vec_push(a, depends, n->outs.data[0]);
  return NULL;
}

const char *ir_product_fault(const Node *n) {
  const Node *c = ir_product_node(n);
  const char *fault = NULL;
  CtProduct p;
  ValueVec depends = {0};
  Arena a = {0};
  if (!c || !ir_product(c, &p)) return "no contraction that is a product";
  for (uint32_t i = 0; i < n->body->nodes.len && !fault; i++)
    fault = fault_of(n, n->body->nodes.data[i], c, &depends, &a);
  for (uint32_t i = 0; i < n->body->results.len && !fault; i++) {
    const Value *v = n->body->results.data[i];
    bool total = v->def && is_total(v->def, &c->outs.data[0]->type);
    if (!total && !type_same_dims(&v->type, &c->outs.data[0]->type))
      fault = "a result of another shape than its contraction";
  }
  arena_reset(&a);
  return fault;
}
