/* finish.c: what becomes of a product's sums.
 *
 * A kernel of products leaves the sums of an item in scratch, by panels of
 * columns. Once their depth is complete they are taken from there row by row,
 * in the order in which results lie in memory: as they are, into the
 * contraction's result; or, in a fused node of kind `product`, as one operand
 * of the elementwise ops behind it, whose results alone are stored. What else
 * these read they read at the same place.
 *
 * Sums over the whole result are added up in the workspace, for each item a
 * vector and a scalar for ragged ends; a second stage adds the items in order,
 * or, where a vector is a warp, as many at a time as it has lanes.
 */
#include "codegen.h"

#include <string.h>

/* A result of the node: its elements are those of `v`, or it is the total of
 * them, from parts [items][lanes] and [items]. */
typedef struct Result {
  Value *v;
  KBase to;
  bool total;
  bool streams; /* too large for the caches, rows in whole vectors; not where
                   an operand is, whose lines are near */
  KBase vectors, scalars;
} Result;

enum {
  STREAMED = 1 << 23, /* bytes of a result that caches do not keep */
  LINE = 64,          /* bytes of the caches */
  AT_ONCE = 4         /* rows of a team's warp */
};

typedef struct CtFinish {
  Lower *l;
  const CtTask *task;
  Result *results;
  int n;
  bool flat; /* all is read where the sums are: seen as one long dim */
  int64_t items;
  KVal *item;
} CtFinish;

static Value *sums_of(const CtTask *task) {
  return task->contract->outs.data[0];
}

/* ---- where elements are -------------------------------------------------- */

/* Whether the node casts an operand of the contraction, which is read there. */
static bool is_operand(const CtTask *task, const Node *n) {
  const ValueVec *ins = &task->contract->ins;
  for (uint32_t i = 0; i < ins->len; i++)
    if (ins->data[i] == n->outs.data[0]) return true;
  return false;
}

/* Whether but for the contraction and its operands all is elementwise, or alike
 * everywhere. */
static bool is_flat(const CtTask *task) {
  const Region *body = task->n->body;
  for (uint32_t i = 0; body && i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    const Type *t = &n->outs.data[0]->type;
    bool spread = n->op == OP_broadcast && !n->ins.data[0]->type.rank;
    if (n == task->contract || is_operand(task, n) || !t->rank) continue;
    if (!op_is(n->op, TRAIT_EW) && n->op != OP_const && !spread) return false;
    if (!type_same_dims(t, &sums_of(task)->type)) return false;
  }
  return true;
}

static void flatten(CtFinish *f, const Value *v) {
  if (!type_same_dims(&v->type, &sums_of(f->task)->type)) return;
  LwValue *lv = lw_value(f->l, v);
  lv->dims[0] = type_elements(&v->type);
  lv->rank = 1;
}

static void flatten_all(CtFinish *f) {
  const Region *body = f->task->n->body;
  for (uint32_t i = 0; body && i < body->params.len; i++)
    flatten(f, body->params.data[i]);
  for (uint32_t i = 0; body && i < body->nodes.len; i++)
    flatten(f, body->nodes.data[i]->outs.data[0]);
}

/* An index as that of a role's dims of the result. */
static void split_role(CtFinish *f, CtRole role, Ix x, Ix *at) {
  const CtProduct *p = &f->task->p;
  int64_t dims[MAX_RANK], all[MAX_RANK];
  Ix parts[MAX_RANK];
  int n = 0;
  type_stored_dims(&sums_of(f->task)->type, all);
  for (int d = 0; d < p->rank; d++)
    if (p->roles[d] == role) dims[n++] = all[d];
  lw_split(f->l, dims, n, x, parts);
  n = 0;
  for (int d = 0; d < p->rank; d++)
    if (p->roles[d] == role) at[d] = parts[n++];
}

/* The index of the element at row, column n; returns where it is stored. */
static KVal *index_of(CtFinish *f, CtItem *t, KVal *row, Ix n, Ix *at) {
  KVal *to =
      ct_at(t->b, t->offset[CT_OUT], row, f->task->p.m.stride[CT_OUT]);
  to = kb_alu(t->b, A_ADD, to, n.base);
  if (f->flat) {
    at[0] = (Ix){to, n.stride, NULL};
    return to;
  }
  split_role(f, CT_ROLE_BATCH, lw_ix(t->number), at);
  split_role(f, CT_ROLE_M, lw_ix(row), at);
  split_role(f, CT_ROLE_N, n, at);
  return to;
}

/* ---- elements ------------------------------------------------------------ */

/* The value of the sums at `at`, for all that pulls it there. */
static void set_sums(CtFinish *f, const Ix *at, KVal *sums) {
  LwValue *v = lw_value(f->l, sums_of(f->task));
  LwMemo *m = NEW(f->l->arena, LwMemo);
  memcpy(m->at, at, sizeof(Ix) * (size_t)v->rank);
  m->result = sums;
  m->next = v->memos;
  v->memos = m;
}

/* Some columns of a few rows, all at once: `lanes` columns from n on, their
 * sums from `from` on. */
typedef struct Patch {
  KVal *row, *n, *from;
  int rows, lanes;
} Patch;

/* Row i of it: all results; returns where they are stored. */
static KVal *pull_row(CtItem *t, const Patch *p, const CtSums *s, int i,
                      KVal **out) {
  CtFinish *f = t->sink;
  Ix at[MAX_RANK] = {{0}};
  KVal *row = kb_alu_c(t->b, A_ADD, p->row, i);
  KVal *to = index_of(f, t, row,
                      p->lanes > 1 ? lw_ix_lanes(p->n) : lw_ix(p->n), at);
  KVal *from = kb_alu_c(t->b, A_ADD, p->from, i * s->step);
  set_sums(f, at, kb_load(t->b, s->base, from, p->lanes));
  for (int k = 0; k < f->n; k++)
    out[k] = kb_splat(t->b, lw_pull(f->l, f->results[k].v, at), p->lanes);
  return to;
}

/* All results; what is loaded for them is on its way for all rows before any is
 * stored. Totals go on from `totals`. */
static void finish_at(CtItem *t, const Patch *p, const CtSums *s,
                      KVal **totals) {
  CtFinish *f = t->sink;
  KVal *to[AT_ONCE], **vals[AT_ONCE];
  for (int i = 0; i < p->rows; i++) {
    vals[i] = NEW_ARRAY(f->l->arena, KVal *, (size_t)f->n);
    to[i] = pull_row(t, p, s, i, vals[i]);
  }
  for (int i = 0; i < p->rows; i++)
    for (int k = 0; k < f->n; k++) {
      const Result *r = &f->results[k];
      if (r->total)
        totals[k] = kb_op2(t->b, OP_add, totals[k], vals[i][k]);
      else if (r->streams && p->lanes > 1)
        kb_stream(t->b, r->to, to[i], vals[i][k]);
      else
        kb_store(t->b, r->to, to[i], vals[i][k]);
    }
}

/* ---- totals -------------------------------------------------------------- */

static KBase part_of(const Result *r, int lanes) {
  return lanes > 1 ? r->vectors : r->scalars;
}

static KVal *part_at(const CtFinish *f, KBuild *b, int lanes) {
  return kb_alu_c(b, A_MUL, f->item, lanes);
}

/* The items' parts, one after the other, as vectors or scalars. */
static KVal *add_parts(CtFinish *f, KBuild *b, const Result *r, int lanes) {
  KBase from = part_of(r, lanes);
  KVal *zero = kb_splat(b, kb_const(b, from.dtype, 0), lanes);
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, f->items), 1);
  KVal *sum = kb_acc(b, loop, zero);
  KVal *at = kb_alu_c(b, A_MUL, kb_iv(b, loop), lanes);
  kb_next(b, sum, kb_op2(b, OP_add, sum, kb_load(b, from, at, lanes)));
  kb_end(b);
  return kb_fold(b, OP_add, kb_result(b, sum));
}

static bool has_totals(const CtFinish *f) {
  for (int i = 0; i < f->n; i++)
    if (f->results[i].total) return true;
  return false;
}

/* ---- the door ------------------------------------------------------------ */

static void start_item(CtItem *t, KVal *item, int64_t items) {
  CtFinish *f = t->sink;
  KBuild *b = t->b;
  f->item = item;
  f->items = items;
  for (int i = 0; i < f->n; i++) {
    Result *r = &f->results[i];
    if (!r->total) continue;
    r->vectors = kb_workspace(b, r->v->type.dtype, items * f->l->lanes);
    r->scalars = kb_workspace(b, r->v->type.dtype, items);
    for (int lanes = f->l->lanes; lanes; lanes = lanes > 1 ? 1 : 0) {
      KVal *zero = kb_const(b, r->v->type.dtype, 0);
      kb_store(b, part_of(r, lanes), part_at(f, b, lanes),
               kb_splat(b, zero, lanes));
    }
  }
}

/* Opens a loop that totals go through, or takes what they are behind it. */
static KVal *open_totals(CtItem *t, KVal *lo, KVal *hi, int64_t step,
                         KVal *const *from, KVal **in) {
  const CtFinish *f = t->sink;
  KVal *loop = kb_for(t->b, lo, hi, step);
  for (int i = 0; i < f->n; i++)
    if (f->results[i].total) in[i] = kb_acc(t->b, loop, from[i]);
  return kb_iv(t->b, loop);
}

static void close_totals(CtItem *t, KVal *const *in, KVal *const *next,
                         KVal **out) {
  const CtFinish *f = t->sink;
  for (int i = 0; i < f->n; i++)
    if (f->results[i].total) kb_next(t->b, in[i], next[i]);
  kb_end(t->b);
  for (int i = 0; i < f->n; i++)
    if (f->results[i].total) out[i] = kb_result(t->b, in[i]);
}

/* Where the sums of column n of the row at `row` are. */
static KVal *column_at(CtItem *t, const CtSums *s, KVal *row, KVal *n) {
  KBuild *b = t->b;
  KVal *c = kb_alu(b, A_SUB, n, t->n_lo);
  KVal *at = ct_at(b, row, kb_alu_c(b, A_DIV, c, s->width), s->panel);
  return kb_alu(b, A_ADD, at, kb_alu_c(b, A_REM, c, s->width));
}

/* Columns [lo, hi) in steps of `lanes`, rows [m_lo, m_end) in steps. */
static void finish_band(CtItem *t, const CtSums *s, KVal *m_lo, KVal *m_end,
                        int step, KVal *lo, KVal *hi, int lanes) {
  CtFinish *f = t->sink;
  KBuild *b = t->b;
  size_t room = (size_t)f->n;
  KVal **start = NEW_ARRAY(f->l->arena, KVal *, room);
  KVal **rows = NEW_ARRAY(f->l->arena, KVal *, room);
  KVal **cols = NEW_ARRAY(f->l->arena, KVal *, room);
  KVal **now = NEW_ARRAY(f->l->arena, KVal *, room);
  for (int i = 0; i < f->n; i++)
    if (f->results[i].total)
      start[i] = kb_load(b, part_of(&f->results[i], lanes),
                         part_at(f, b, lanes), lanes);
  KVal *row = open_totals(t, m_lo, m_end, step, start, rows);
  KVal *from = ct_at(b, s->at, kb_alu(b, A_SUB, row, t->m_lo), s->step);
  KVal *n = open_totals(t, lo, hi, lanes, rows, cols);
  memcpy(now, cols, sizeof *now * room);
  Patch p = {row, n, column_at(t, s, from, n), step, lanes};
  finish_at(t, &p, s, now);
  close_totals(t, cols, now, now);
  close_totals(t, rows, now, now);
  for (int i = 0; i < f->n; i++)
    if (f->results[i].total)
      kb_store(b, part_of(&f->results[i], lanes), part_at(f, b, lanes), now[i]);
}

/* The same for all rows of the item: by teams as many at a time as may be, for
 * a warp waits for what it loads. */
static void finish_part(CtItem *t, const CtSums *s, KVal *lo, KVal *hi,
                        int lanes) {
  KBuild *b = t->b;
  KVal *m = t->m_lo;
  if (t->team && lanes > 1) {
    KVal *size = kb_alu(b, A_SUB, t->m_end, m);
    size = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, size, AT_ONCE), AT_ONCE);
    KVal *end = kb_alu(b, A_ADD, m, size);
    finish_band(t, s, m, end, AT_ONCE, lo, hi, lanes);
    m = end;
  }
  finish_band(t, s, m, t->m_end, 1, lo, hi, lanes);
}

static void finish_item(CtItem *t, const CtSums *s) {
  KBuild *b = t->b;
  const CtFinish *f = t->sink;
  int lanes = f->l->lanes;
  int64_t size = t->p->n.size, whole = size / lanes * lanes;
  if (t->last) kb_if(b, t->last);
  if (whole)
    finish_part(t, s, t->n_lo, kb_alu_c(b, A_MIN, t->n_end, whole), lanes);
  if (whole < size)
    finish_part(t, s, kb_alu_c(b, A_MAX, t->n_lo, whole), t->n_end, 1);
  if (t->last) kb_end(b);
}

/* Where a vector is a warp, each item's part becomes a scalar first. */
static void fold_items(CtFinish *f, KBuild *b) {
  KVal *item = kb_stage(b, f->items, 1);
  for (int i = 0; i < f->n; i++) {
    const Result *r = &f->results[i];
    if (!r->total) continue;
    KVal *at = kb_alu_c(b, A_MUL, item, f->l->lanes);
    KVal *sum = kb_load(b, r->vectors, at, f->l->lanes);
    sum = kb_fold(b, OP_add, sum);
    sum = kb_op2(b, OP_add, sum, kb_load(b, r->scalars, item, 1));
    kb_store(b, r->scalars, item, sum);
  }
  kb_end(b);
}

/* The items' scalars, many at a time. */
static KVal *add_scalars(CtFinish *f, KBuild *b, const Result *r) {
  int lanes = f->l->lanes;
  KVal *zero = kb_splat(b, kb_const(b, r->scalars.dtype, 0), lanes);
  KVal *end = kb_index(b, f->items);
  KVal *loop = kb_for(b, kb_index(b, 0), end, lanes), *at = kb_iv(b, loop);
  KVal *sum = kb_acc(b, loop, zero);
  KVal *x = kb_load_some(b, r->scalars, at, ct_count(b, at, end, lanes), lanes);
  kb_next(b, sum, kb_op2(b, OP_add, sum, x));
  kb_end(b);
  return kb_fold(b, OP_add, kb_result(b, sum));
}

static void add_items(CtItem *t) {
  CtFinish *f = t->sink;
  KBuild *b = t->b;
  if (!has_totals(f)) return;
  if (t->warps) fold_items(f, b);
  kb_stage(b, 1, 1);
  for (int i = 0; i < f->n; i++) {
    const Result *r = &f->results[i];
    if (!r->total) continue;
    KVal *sum = t->warps ? add_scalars(f, b, r)
                         : add_parts(f, b, r, f->l->lanes);
    if (!t->warps) sum = kb_op2(b, OP_add, sum, add_parts(f, b, r, 1));
    kb_store(b, r->to, kb_index(b, 0), sum);
  }
  kb_end(b);
}

/* Whether all vectors of result number i start at a multiple of their size. */
static bool is_aligned(const CtFinish *f, uint32_t i, const Type *t) {
  const CtProduct *p = &f->task->p;
  const Place *at = &f->task->n->outs.data[i]->place;
  int64_t lanes = f->l->lanes, bytes = lanes * dtype_info[t->dtype].bytes;
  return cg_place_alignment(at, bytes) == bytes && p->n.size % lanes == 0 &&
         p->m.stride[CT_OUT] % lanes == 0 &&
         p->batch.stride[CT_OUT] % lanes == 0;
}

static CtFinish *finish_new(Ctx *cx, KBuild *b, const CtTask *task,
                            int lanes) {
  const Node *n = task->n;
  CtFinish *f = NEW(&cx->scratch, CtFinish);
  const ValueVec *results = n->body ? &n->body->results : &n->outs;
  f->l = lw_new(cx, b, n, lanes);
  f->task = task;
  f->n = (int)results->len;
  f->results = NEW_ARRAY(&cx->scratch, Result, results->len);
  for (uint32_t i = 0; i < results->len; i++) {
    Value *v = results->data[i];
    bool total = v->def && v->def->op == OP_reduce_sum;
    f->results[i] = (Result){
        .v = total ? v->def->ins.data[0] : v,
        .to = kb_arg((int)(n->ins.len + i), v->type.dtype),
        .total = total,
        .streams = type_bytes(&v->type) >= STREAMED &&
                   is_aligned(f, i, &v->type) && !cg_is_in_place(n, i)};
  }
  f->flat = is_flat(task);
  f->l->flat = f->flat;
  if (f->flat) flatten_all(f);
  return f;
}

/* Whether all that is stored goes past the caches, in whole lines: then it
 * does not matter in which order, and memory is busy while sums are made. */
static bool is_soon(const CtFinish *f) {
  for (int i = 0; i < f->n; i++) {
    const Result *r = &f->results[i];
    int64_t bytes = f->l->lanes * dtype_info[r->v->type.dtype].bytes;
    if (!r->total && !(r->streams && bytes % LINE == 0)) return false;
  }
  return true;
}

/* Notes the operands that are read where the sums are and no cache keeps. */
static void note_with(CtItem *t, const CtFinish *f) {
  const Node *n = f->task->n;
  for (uint32_t i = 0; f->flat && n->body && i < n->body->params.len; i++) {
    const Value *v = n->body->params.data[i];
    bool of_product = false;
    for (uint32_t k = 0; k < f->task->contract->ins.len; k++)
      of_product |= ir_product_operand(f->task->contract, (int)k) == v;
    if (!of_product && type_same_dims(&v->type, &sums_of(f->task)->type) &&
        type_bytes(&v->type) >= STREAMED && t->n_with < CT_MOST_WITH)
      t->with[t->n_with++] = kb_arg((int)i, v->type.dtype);
  }
}

void ct_finish_of(Ctx *cx, CtItem *t, int lanes) {
  static const CtDone whole = {start_item, finish_item, add_items, false};
  static const CtDone soon = {start_item, finish_item, add_items, true};
  CtFinish *f = finish_new(cx, t->b, t->task, lanes);
  t->sink = f;
  note_with(t, f);
  t->done = is_soon(f) ? &soon : &whole;
}
