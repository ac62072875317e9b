/* contract.c: what kind of product a contraction is.
 *
 * The letters of the map fall into roles, as in a matrix product: batch (in
 * both operands and the result), m (left and result), n (right and result), k
 * (both operands). Letters of one role that lie as one are merged. A product
 * with a packed operand has a kernel for that (panels.c); one of plain matrices
 * is a library call; other products run on the
 * register-blocked kernel of blocked.c; what is no product at all goes through
 * the loops of nest.c. */
#include "codegen.h"

#include <string.h>

typedef enum Role { ROLE_BATCH, ROLE_M, ROLE_N, ROLE_K } Role;

/* ---- letters ------------------------------------------------------------ */

CtLetter *ct_find(CtLetters *ls, char c) {
  for (int i = 0; i < ls->n; i++)
    if (ls->l[i].c == c) return &ls->l[i];
  return NULL;
}

static void add_side(CtLetters *ls, int side, const char *s, const Type *t) {
  int64_t stride = 1;
  bool ragged = type_is_ragged(t);
  for (int d = (int)strlen(s) - 1; d >= 0; d--) {
    CtLetter *l = ct_find(ls, s[d]);
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

static CtLetters letters_of(const Node *n) {
  IndexMap m;
  CtLetters ls = {0};
  bool parsed = map_parse(attr_sym(n, "map"), &m);
  assert(parsed);
  (void)parsed;
  add_side(&ls, CT_OUT, m.out, &n->outs.data[0]->type);
  add_side(&ls, CT_LEFT, m.ins[0], &n->ins.data[0]->type);
  add_side(&ls, CT_RIGHT, m.ins[1], &n->ins.data[1]->type);
  CtLetter *g = ls.group ? ct_find(&ls, ls.group) : NULL;
  /* Experts that only ever come with their rows: all rows are one dim. */
  if (g && !g->stride[CT_LEFT] && !g->stride[CT_RIGHT] && !g->stride[CT_OUT]) {
    drop_letter(&ls, g);
    ls.group = ls.row = 0;
  }
  return ls;
}

static Role role_of(const CtLetter *l) {
  if (l->in[CT_LEFT] && l->in[CT_RIGHT])
    return l->in[CT_OUT] ? ROLE_BATCH : ROLE_K;
  return l->in[CT_LEFT] ? ROLE_M : ROLE_N;
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
static CtLetter *place_of(CtProduct *p, Role r) {
  switch (r) {
  case ROLE_BATCH: return &p->batch;
  case ROLE_M: return &p->m;
  case ROLE_N: return &p->n;
  case ROLE_K: return &p->k;
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
    CtLetter *place = place_of(p, l->c == ls->group ? ROLE_BATCH : role_of(l));
    if (place->size == 1)
      *place = *l;
    else if (l->size > 1)
      return false;
  }
  if (p->n.stride[CT_OUT] != 1) return false;
  return !ls->group || add_groups(p, ls);
}

static bool find_product(CtLetters ls, CtProduct *p) {
  merge_letters(&ls);
  p->arg[CT_LEFT] = 0;
  p->arg[CT_RIGHT] = 1;
  if (product_of(&ls, p)) return true;
  swap_sides(&ls);
  p->arg[CT_LEFT] = 1;
  p->arg[CT_RIGHT] = 0;
  return product_of(&ls, p);
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

static void set_strides(int64_t *to, const CtLetter *batch, const CtLetter *x,
                        const CtLetter *y, int side) {
  to[0] = batch->stride[side];
  to[1] = x->stride[side];
  to[2] = y->stride[side];
}

bool cg_gemm(const Node *n, MoertGemm *out, bool *out_swapped) {
  CtProduct p = {.dtype = n->ins.data[0]->type.dtype};
  Dtype sums = dtype_info[p.dtype].sums;
  CtLetters ls = letters_of(n);
  if (sums != DT_f32 || ct_is_panels(&ls, p.dtype) || !find_product(ls, &p) ||
      p.groups)
    return false;
  if (!is_plain(&p.m, &p.k, &p.batch, CT_LEFT) ||
      !is_plain(&p.k, &p.n, &p.batch, CT_RIGHT) ||
      !is_plain(&p.m, &p.n, &p.batch, CT_OUT))
    return false;
  *out = (MoertGemm){.batch = p.batch.size,
                     .m = p.m.size,
                     .n = p.n.size,
                     .k = p.k.size,
                     .dtype = (int32_t)p.dtype,
                     .c_dtype = (int32_t)sums};
  set_strides(out->a_stride, &p.batch, &p.m, &p.k, CT_LEFT);
  set_strides(out->b_stride, &p.batch, &p.k, &p.n, CT_RIGHT);
  set_strides(out->c_stride, &p.batch, &p.m, &p.n, CT_OUT);
  *out_swapped = p.arg[CT_LEFT] == 1;
  return true;
}

Kernel *cg_contract(Ctx *cx, const Node *n, const Isa *isa) {
  CtLetters ls = letters_of(n);
  CtProduct p = {.dtype = n->ins.data[0]->type.dtype};
  if (ct_is_panels(&ls, p.dtype)) return ct_panels(cx, n, &ls, isa);
  if (!find_product(ls, &p)) return ct_nest(cx, n, ls, isa->lanes);
  return ct_in_pairs(&p, isa) ? ct_pairs(cx, n, &p, isa)
                              : ct_blocked(cx, n, &p, isa->lanes);
}
