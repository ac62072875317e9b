/* lower_pull.c: a value of a fused body at an index, by pulling its operands at
 * the indices they are read at.
 *
 * Access ops cost index arithmetic and nothing else. Where a concat or a pad is
 * read at an index whose range lies in one part (see cut_at in lower.c), only
 * that part is pulled; otherwise all are, at clamped indices, and one is
 * selected. Ids are clamped to their table, as the interpreter does. */
#include "codegen.h"

#include <string.h>

enum {
  LARGE = 1 << 20, /* bytes of an argument that comes from memory, about */
  LARGE_ROW = 1 << 18, /* bytes of a row that is near until it is done with */
  AHEAD = 2048     /* bytes in front of a walk through it that are asked for */
};

/* Letters of the stored dims: without that of a ragged value's groups. */
static const char *stored(const Type *t, const char *letters) {
  return type_is_ragged(t) ? letters + 1 : letters;
}

/* A dim attribute among the stored dims. */
static int stored_dim(const Type *t, int64_t dim) {
  return (int)dim - (type_is_ragged(t) ? 1 : 0);
}

static const Value *in(const Node *n, uint32_t i) {
  return n->ins.data[i];
}

/* ---- access ops ---------------------------------------------------------- */

static KVal *pull_iota(Lower *l, const Node *n, const Ix *at) {
  const Type *t = &n->outs.data[0]->type;
  KVal *i = lw_i32(l, at[stored_dim(t, attr_int(n, "dim"))]);
  return t->dtype == DT_i32 ? i : kb_scalar(l->b, OP_cast, t->dtype, &i, 1);
}

/* broadcast and transpose: the operand's letters found among the result's. */
static KVal *pull_mapped(Lower *l, const Node *n, const Ix *at) {
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  const char *from = stored(&in(n, 0)->type, m.ins[0]);
  const char *to = stored(&n->outs.data[0]->type, m.out);
  Ix inner[MAX_RANK];
  for (int i = 0; from[i]; i++)
    inner[i] = at[strchr(to, from[i]) - to];
  return lw_pull(l, in(n, 0), inner);
}

/* Runs of dims with equal products are split and merged by themselves. */
static KVal *pull_reshape(Lower *l, const Node *n, const Ix *at) {
  const LwValue *to = lw_value(l, n->outs.data[0]);
  const LwValue *from = lw_value(l, in(n, 0));
  Ix inner[MAX_RANK];
  int i = 0, j = 0;
  while (i < from->rank || j < to->rank) {
    int i0 = i, j0 = j;
    int64_t p = 1, q = 1;
    if (i < from->rank) p = from->dims[i++];
    if (j < to->rank) q = to->dims[j++];
    while (p != q) {
      if (p < q)
        p *= from->dims[i++];
      else
        q *= to->dims[j++];
    }
    if (i - i0 == 1 && j - j0 == 1) {
      inner[i0] = at[j0];
    } else {
      Ix linear = lw_linear(l, to->dims + j0, j - j0, at + j0);
      lw_split(l, from->dims + i0, i - i0, linear, inner + i0);
    }
  }
  return lw_pull(l, in(n, 0), inner);
}

static KVal *pull_slice(Lower *l, const Node *n, const Ix *at) {
  Ix inner[MAX_RANK];
  memcpy(inner, at, sizeof inner);
  int d = stored_dim(&in(n, 0)->type, attr_int(n, "dim"));
  inner[d] = lw_add(l, inner[d], lw_ix_c(l, attr_int(n, "start")));
  return lw_pull(l, in(n, 0), inner);
}

/* lo <= x < hi, as known, or as a bool to test. */
typedef enum Within { NEVER, ALWAYS, SOMETIMES } Within;

static Within known_within(Lower *l, Ix x, int64_t lo, int64_t hi) {
  int64_t x_lo, x_hi;
  if (!lw_range(l, x, &x_lo, &x_hi)) return SOMETIMES;
  if (x_lo >= lo && x_hi < hi) return ALWAYS;
  return x_hi < lo || x_lo >= hi ? NEVER : SOMETIMES;
}

static KVal *is_below(Lower *l, Ix x, int64_t hi) {
  return kb_op2(l->b, OP_lt, lw_i32(l, x), kb_const(l->b, DT_i32, (double)hi));
}

/* One part of a joined dim: `v` stands at [start, start + size) of it. */
static KVal *pull_part(Lower *l, const Value *v, const Ix *at, int d,
                       int64_t start, int64_t size) {
  Ix inner[MAX_RANK];
  memcpy(inner, at, sizeof inner);
  Ix shifted = lw_add(l, inner[d], lw_ix_c(l, -start));
  inner[d] = known_within(l, at[d], start, start + size) == ALWAYS
                 ? shifted
                 : lw_clamp(l, shifted, 0, size - 1);
  return lw_pull(l, v, inner);
}

static KVal *pull_concat(Lower *l, const Node *n, const Ix *at) {
  int d = stored_dim(&n->outs.data[0]->type, attr_int(n, "dim"));
  int64_t start = lw_value(l, n->outs.data[0])->dims[d];
  KVal *result = NULL;
  for (uint32_t i = n->ins.len; i-- > 0;) {
    int64_t size = lw_value(l, in(n, i))->dims[d];
    start -= size;
    Within w = known_within(l, at[d], start, start + size);
    if (w == NEVER) continue;
    KVal *part = pull_part(l, in(n, i), at, d, start, size);
    if (w == ALWAYS) return part;
    result =
        result ? kb_select(l->b, is_below(l, at[d], start + size), part, result)
               : part;
  }
  return result;
}

static KVal *pull_pad(Lower *l, const Node *n, const Ix *at) {
  const Value *v = in(n, 0);
  int d = stored_dim(&v->type, attr_int(n, "dim"));
  int64_t lo = attr_int(n, "lo"), hi = lo + lw_value(l, v)->dims[d];
  KVal *zero = kb_const(l->b, v->type.dtype, 0);
  Within w = known_within(l, at[d], lo, hi);
  if (w == NEVER) return zero;
  KVal *x = pull_part(l, v, at, d, lo, hi - lo);
  if (w == ALWAYS) return x;
  if (known_within(l, at[d], lo, INT64_MAX) != ALWAYS)
    x = kb_select(l->b, is_below(l, at[d], lo), zero, x);
  if (known_within(l, at[d], INT64_MIN, hi) != ALWAYS)
    x = kb_select(l->b, is_below(l, at[d], hi), x, zero);
  return x;
}

static Ix clamped_id(Lower *l, KVal *id, int64_t size) {
  return lw_clamp(l, lw_ix_from(l, id), 0, size - 1);
}

static KVal *pull_gather(Lower *l, const Node *n, const Ix *at) {
  const LwValue *table = lw_value(l, in(n, 0));
  int lead = lw_value(l, in(n, 1))->rank;
  Ix inner[MAX_RANK];
  inner[0] = clamped_id(l, lw_pull(l, in(n, 1), at), table->dims[0]);
  for (int i = 1; i < table->rank; i++)
    inner[i] = at[lead + i - 1];
  return lw_pull(l, in(n, 0), inner);
}

static KVal *pull_take(Lower *l, const Node *n, const Ix *at) {
  const LwValue *x = lw_value(l, in(n, 0));
  Ix inner[MAX_RANK];
  memcpy(inner, at, sizeof inner);
  inner[x->rank - 1] =
      clamped_id(l, lw_pull(l, in(n, 1), at), x->dims[x->rank - 1]);
  return lw_pull(l, in(n, 0), inner);
}

static KVal *pull_local_slice(Lower *l, const Node *n, const Ix *at) {
  Ix inner[MAX_RANK];
  memcpy(inner, at, sizeof inner);
  const Type *t = &n->outs.data[0]->type;
  int64_t dim = attr_int(n, "dim"), size = t->dims[dim].size;
  int d = stored_dim(t, dim);
  KVal *piece = lw_pull(l, in(n, 1), at);
  Ix start = clamped_id(l, piece, attr_int(n, "parts"));
  inner[d] = lw_add(l, inner[d], lw_mul_c(l, start, size));
  return lw_pull(l, in(n, 0), inner);
}

/* x[S.., K] at flat index `i` of its leading `lead` dims. */
static KVal *pull_flat(Lower *l, const Value *v, int lead, Ix i, Ix last) {
  const LwValue *lv = lw_value(l, v);
  Ix at[MAX_RANK];
  lw_split(l, lv->dims, lead, i, at);
  if (lead < lv->rank) at[lead] = last;
  return lw_pull(l, v, at);
}

static KVal *pull_rows_gather(Lower *l, const Node *n, const Ix *at) {
  int64_t choices = attr_int(n, "choices");
  Ix flat = lw_ix_from(l, lw_pull(l, in(n, 1), at));
  int lead = lw_value(l, in(n, 0))->rank - 1;
  KVal *x = pull_flat(l, in(n, 0), lead, lw_div_c(l, flat, choices), at[1]);
  if (n->ins.len < 4) return x;
  KVal *gate = pull_flat(l, in(n, 3), lead + 1, flat, at[1]);
  return kb_op2(l->b, OP_mul, x, gate);
}

/* Choice k of token at[0..lead): the row it went to, times its gate. */
static KVal *pull_choice(Lower *l, const Node *n, Ix *at, int lead, Ix k) {
  Ix row[2] = {{0}, at[lead]};
  Ix which[MAX_RANK];
  memcpy(which, at, sizeof which);
  which[lead] = k;
  row[0] = lw_ix_from(l, lw_pull(l, in(n, 1), which));
  KVal *y = lw_pull(l, in(n, 0), row);
  if (n->ins.len < 3) return y;
  return kb_op2(l->b, OP_mul, y, lw_pull(l, in(n, 2), which));
}

static KVal *pull_rows_combine(Lower *l, const Node *n, const Ix *index) {
  const LwValue *slot = lw_value(l, in(n, 1));
  int lead = slot->rank - 1;
  Ix at[MAX_RANK];
  memcpy(at, index, sizeof at);
  KVal *sum = NULL;
  for (int64_t k = 0; k < slot->dims[lead]; k++) {
    KVal *y = pull_choice(l, n, at, lead, lw_ix_c(l, k));
    sum = sum ? kb_op2(l->b, OP_add, sum, y) : y;
  }
  return sum;
}

static KVal *pull_access(Lower *l, const Node *n, const Ix *at) {
  switch ((int)n->op) {
  case OP_const:
    return kb_const(l->b, n->outs.data[0]->type.dtype, attr_float(n, "value"));
  case OP_iota: return pull_iota(l, n, at);
  case OP_broadcast:
  case OP_transpose: return pull_mapped(l, n, at);
  case OP_reshape: return pull_reshape(l, n, at);
  case OP_slice: return pull_slice(l, n, at);
  case OP_concat: return pull_concat(l, n, at);
  case OP_pad: return pull_pad(l, n, at);
  case OP_gather: return pull_gather(l, n, at);
  case OP_take: return pull_take(l, n, at);
  case OP_local_slice: return pull_local_slice(l, n, at);
  case OP_rows_gather: return pull_rows_gather(l, n, at);
  case OP_rows_combine: return pull_rows_combine(l, n, at);
  }
  internal_error("%s has no index map to lower", op_info[n->op].name);
}

/* ---- values -------------------------------------------------------------- */

static KVal *pull_scalar(Lower *l, const Node *n, const Ix *at) {
  KVal *a[5];
  for (uint32_t i = 0; i < n->ins.len; i++)
    a[i] = lw_pull(l, in(n, i), at);
  return kb_scalar(l->b, n->op, n->outs.data[0]->type.dtype, a,
                   (int)n->ins.len);
}

KVal *lw_compute(Lower *l, const Value *v, const Ix *at) {
  const Node *n = v->def;
  LwValue *lv = lw_value(l, v);
  if (lv->column) return lw_column(l, lv, at);
  switch (op_info[n->op].lower) {
  case LOWER_SCALAR: return pull_scalar(l, n, at);
  case LOWER_ACCESS: return pull_access(l, n, at);
  case LOWER_REDUCE: return lw_reduce(l, v, at);
  case LOWER_ROW:
  case LOWER_CONTRACT:
  case LOWER_LAUNCH:
  case LOWER_LOOP:
  case LOWER_COMM:
  case LOWER_WAIT:
  case LOWER_EXPAND:
  case LOWER_NONE: break;
  }
  internal_error("%s cannot be computed element by element",
                 op_info[n->op].name);
}

static LwRow *find_row(const Lower *l, const LwValue *lv, const Ix *at) {
  for (LwRow *r = lv->rows; r; r = r->next)
    if (kb_scope(l->b, r->level) == r->scope && r->level <= kb_depth(l->b) &&
        lw_same(r->lead, at, r->n_lead))
      return r;
  return NULL;
}

static LwRow *row_for(Lower *l, LwValue *lv, const Ix *at) {
  LwRow *row = find_row(l, lv, at);
  if (row) return row;
  const Node *n = lv->v->def;
  if (op_info[n->op].lower == LOWER_ROW) {
    return lw_uniform(at, lv->rank - 1)
               ? lw_row_op(l, n, lv->v->index, at)
               : lw_keep(l, lv, at, 0); /* all its rows */
  }
  if (lv->keep && lw_uniform(at, lv->lead)) return lw_keep(l, lv, at, lv->lead);
  return NULL;
}

static KVal *load_row(Lower *l, const LwValue *lv, const LwRow *row,
                      const Ix *at) {
  int n = row->n_lead;
  Ix inner = lw_linear(l, lv->dims + n, lv->rank - n, at + n);
  return lw_load(l, row->base, inner, row->level);
}

/* Asks for memory ahead of a walk through it: for what comes next; or, where
 * several loops walk through a row, for the next row in one that does more than
 * a fold, while memory has nothing else to do. */
static void fetch_ahead(Lower *l, const LwValue *lv, KBase base, Ix from) {
  int64_t bytes = dtype_info[base.dtype].bytes, row = 1;
  if (!from.stride || type_bytes(&lv->v->type) < LARGE) return;
  if (l->flat) {
    kb_fetch(l->b, base, kb_alu_c(l->b, A_ADD, from.base, AHEAD / bytes));
    return;
  }
  for (int d = l->rows; d < lv->rank; d++)
    row *= lv->dims[d];
  if (from.stride == 1 && row * bytes <= LARGE_ROW && !l->folds &&
      (lv->loops & (lv->loops - 1)))
    kb_fetch_far(l->b, base, kb_alu_c(l->b, A_ADD, from.base, row));
}

static KVal *pull_argument(Lower *l, const LwValue *lv, const Ix *at) {
  KBase base = kb_arg(lv->arg, lv->v->type.dtype);
  Ix from = lw_linear(l, lv->dims, lv->rank, at);
  fetch_ahead(l, lv, base, from);
  return lw_load(l, base, from, 0);
}

static KVal *pull_new(Lower *l, LwValue *lv, const Ix *at) {
  if (lv->arg >= 0) return pull_argument(l, lv, at);
  LwRow *row = row_for(l, lv, at);
  return row ? load_row(l, lv, row, at) : lw_compute(l, lv->v, at);
}

KVal *lw_known(const Lower *l, const LwValue *v, const Ix *at) {
  for (LwMemo *m = v->memos; m; m = m->next)
    if (kb_known(l->b, m->result) && lw_same(m->at, at, v->rank))
      return m->result;
  return NULL;
}

void lw_remember(Lower *l, LwValue *v, const Ix *at, KVal *result) {
  LwMemo *m = NEW(l->arena, LwMemo);
  for (int i = 0; i < v->rank; i++)
    m->at[i] = at[i];
  m->result = result;
  m->next = v->memos;
  v->memos = m;
}

KVal *lw_pull(Lower *l, const Value *v, const Ix *at) {
  LwValue *lv = lw_value(l, v);
  KVal *known = lw_known(l, lv, at);
  if (known) return known;
  KVal *result = pull_new(l, lv, at);
  lw_remember(l, lv, at, result);
  return result;
}
