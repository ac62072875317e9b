/* nest.c: contractions of any form, as one loop a letter.
 *
 * An item is an element of the result, or a row of them along its last letter
 * where that is contiguous in all that have it: then it is worked off in
 * vectors. The other letters are summed in loops, the rows of an expert from
 * its offset to the next. */
#include "codegen.h"

enum { OFFSETS_ARG = 2 };

/* ---- the plain nest ----------------------------------------------------- */

typedef struct Nest {
  KBuild *b;
  CtLetters ls;
  CtLetter *outer[CT_MAX_LETTERS]; /* of the result, less the vector's */
  CtLetter
      *sum[CT_MAX_LETTERS]; /* the others, the group in front of its rows */
  int n_outer, n_sum;
  CtLetter *vector;         /* contiguous in all that have it; NULL for none */
  KVal *iv[CT_MAX_LETTERS]; /* by place in ls */
  KBase base[CT_SIDES];
  Dtype acc; /* of sums, and of the result */
} Nest;

static KVal **iv_of(Nest *t, const CtLetter *l) {
  return &t->iv[l - t->ls.l];
}

static KVal *cast_to(KBuild *b, KVal *v, Dtype dtype) {
  return v->dtype == dtype ? v : kb_scalar(b, OP_cast, dtype, &v, 1);
}

static bool is_vector(const Nest *t, const CtLetter *l) {
  if (l->c == t->ls.group || l->c == t->ls.row) return false;
  return l->in[CT_OUT] && l->stride[CT_OUT] == 1 && l->stride[CT_LEFT] <= 1 &&
         l->stride[CT_RIGHT] <= 1;
}

/* The rows of an expert, or all of a letter. */
static void bounds(Nest *t, const CtLetter *l, KVal **lo, KVal **hi) {
  *lo = kb_index(t->b, 0);
  *hi = kb_index(t->b, l->size);
  if (l->c != t->ls.row) return;
  KVal *e = *iv_of(t, ir_letter(&t->ls, t->ls.group));
  *lo = ct_offset(t->b, OFFSETS_ARG, e);
  *hi = ct_offset(t->b, OFFSETS_ARG, kb_alu_c(t->b, A_ADD, e, 1));
}

static KVal *side_at(Nest *t, int side) {
  KVal *at = kb_index(t->b, 0);
  for (int i = 0; i < t->ls.n; i++)
    if (t->ls.l[i].stride[side])
      at = ct_at(t->b, at, t->iv[i], t->ls.l[i].stride[side]);
  return at;
}

static KVal *load_side(Nest *t, int side, int lanes) {
  bool spread = t->vector && t->vector->stride[side] == 0;
  KVal *v = kb_load(t->b, t->base[side], side_at(t, side), spread ? 1 : lanes);
  return kb_splat(t->b, cast_to(t->b, v, t->acc), lanes);
}

/* Sums the letters from number i on into `sum`. */
static KVal *sum_letters(Nest *t, int i, KVal *sum, int lanes) {
  if (i == t->n_sum) {
    KVal *left = load_side(t, CT_LEFT, lanes);
    return kb_fma(t->b, left, load_side(t, CT_RIGHT, lanes), sum);
  }
  KVal *lo, *hi;
  bounds(t, t->sum[i], &lo, &hi);
  KVal *loop = kb_for(t->b, lo, hi, 1);
  KVal *acc = kb_acc(t->b, loop, sum);
  *iv_of(t, t->sum[i]) = kb_iv(t->b, loop);
  kb_next(t->b, acc, sum_letters(t, i + 1, acc, lanes));
  kb_end(t->b);
  return kb_result(t->b, acc);
}

static void one_sum(Nest *t, int lanes) {
  KVal *zero = kb_splat(t->b, kb_const(t->b, t->acc, 0), lanes);
  KVal *sum = sum_letters(t, 0, zero, lanes);
  kb_store(t->b, t->base[CT_OUT], side_at(t, CT_OUT), sum);
}

/* The expert of a row: how many end at or before it. */
static KVal *expert_of(Nest *t, KVal *row) {
  KBuild *b = t->b;
  int64_t experts = ir_letter(&t->ls, t->ls.group)->size;
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, experts), 1);
  KVal *acc = kb_acc(b, loop, kb_index(b, 0));
  KVal *next = kb_alu_c(b, A_ADD, kb_iv(b, loop), 1);
  KVal *end = ct_offset(b, OFFSETS_ARG, next);
  KVal *over = cast_to(b, kb_alu(b, A_LE, end, row), DT_i32);
  kb_next(b, acc, kb_alu(b, A_ADD, acc, kb_from_i32(b, over)));
  kb_end(b);
  return kb_result(b, acc);
}

static void split_item(Nest *t, KVal *item) {
  for (int i = t->n_outer - 1; i >= 0; i--) {
    CtLetter *l = t->outer[i];
    *iv_of(t, l) = i ? kb_alu_c(t->b, A_REM, item, l->size) : item;
    item = kb_alu_c(t->b, A_DIV, item, l->size);
  }
}

/* Sorts the letters into those of items, of the vector and of sums. */
static int64_t sort_letters(Nest *t) {
  CtLetters *ls = &t->ls;
  CtLetter *group = ls->group ? ir_letter(ls, ls->group) : NULL;
  CtLetter *row = ls->row ? ir_letter(ls, ls->row) : NULL;
  int64_t items = 1;
  for (int i = 0; i < ls->n; i++)
    if (is_vector(t, &ls->l[i])) t->vector = &ls->l[i];
  if (group && !group->in[CT_OUT]) t->sum[t->n_sum++] = group;
  for (int i = 0; i < ls->n; i++) {
    CtLetter *l = &ls->l[i];
    if (l == t->vector || (l == group && (row->in[CT_OUT] || !l->in[CT_OUT])))
      continue;
    if (!l->in[CT_OUT]) {
      t->sum[t->n_sum++] = l;
    } else {
      t->outer[t->n_outer++] = l;
      items *= l->size;
    }
  }
  return items;
}

Kernel *ct_nest(Ctx *cx, const Node *n, CtLetters ls, const Isa *isa) {
  Nest t = {.b = kb_new(cx, "contract", (int)n->ins.len + 1, 1), .ls = ls};
  Dtype dtype = n->ins.data[0]->type.dtype;
  t.acc = dtype_info[dtype].sums;
  t.base[CT_LEFT] = kb_arg(0, dtype);
  t.base[CT_RIGHT] = kb_arg(1, dtype);
  t.base[CT_OUT] = kb_arg((int)n->ins.len, t.acc);
  int64_t items = sort_letters(&t);
  int64_t run = t.vector ? t.vector->size : 1;
  int lanes = cg_lanes(isa, run, t.acc == DT_f64) * 4 /
              (int)dtype_info[t.acc].bytes;
  split_item(&t, kb_stage(t.b, items, items / 256 + 1));
  const CtLetter *row = ls.row ? ir_letter(&t.ls, ls.row) : NULL;
  if (row && row->in[CT_OUT])
    *iv_of(&t, ir_letter(&t.ls, ls.group)) = expert_of(&t, *iv_of(&t, row));
  if (!t.vector) {
    one_sum(&t, 1);
  } else {
    int64_t size = t.vector->size, whole = size / lanes * lanes;
    int64_t steps[2] = {lanes, 1}, lo[2] = {0, whole}, hi[2] = {whole, size};
    for (int part = 0; part < 2; part++) {
      if (lo[part] == hi[part]) continue;
      KVal *loop = kb_for(t.b, kb_index(t.b, lo[part]), kb_index(t.b, hi[part]),
                          steps[part]);
      *iv_of(&t, t.vector) = kb_iv(t.b, loop);
      one_sum(&t, (int)steps[part]);
      kb_end(t.b);
    }
  }
  kb_end(t.b);
  return kb_finish(t.b);
}
