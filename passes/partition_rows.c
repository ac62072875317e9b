/* partition_rows.c: rows of experts, for partition.c.
 *
 * A ragged value has the rows of some tokens for some experts: tokens split by
 * the axes of its dim 1, experts by those of its dim 0. On every rank its rows
 * stand in the order of the experts, in that of the tokens for each, as they do
 * on one rank; so what tells whose they are follows from the ids and both lists
 * of axes, and is made once for all values that have them: a PartRows.
 *
 * Where each rank has all experts, it routes its own tokens. Where ranks have
 * all tokens and some experts, each routes all of them and leaves out the rows
 * of others: what it makes of its own is a part of a sum. And where tokens that
 * are split go to experts that are, ranks first tell one another how many rows
 * there will be, then send them. Backward, rows go the other way:
 *
 *   before: %x = dispatch %t, %ids {experts=4} : f32[4, r<=64 @dev, 8]
 *           %y = reshard %x : f32[4 @dev, r<=64, 8]
 *   after:  %o, %slot, %src = route %ids {experts=4} : i32[5], ...
 *           %x = rows_gather %t, %src, %o {choices=2} : f32[4, r<=32, 8]
 *           %n = sub .., .. : i32[4]                  # rows of each expert
 *           %m = all_to_all %n {axes="dev", split=0, concat=0} : i32[4]
 *           %got = reshape %m : i32[2, 2]
 *           %theirs = ...                             # sums of %got : i32[3]
 *           %y = rows_send %x, %o, %got, %theirs {axes="dev", rows=64}
 *              : f32[2, r<=64, 8]
 *
 * A rank has to be ready for all rows of all tokens of its group: `rows` is as
 * many, and values where the experts are have that bound. */
#include "pass.h"

enum { GROUPS, ROWS }; /* dims of a ragged value */

struct PartRows {
  const Value *ids; /* as the model has them, in the region */
  int64_t groups;   /* experts in all */
  Axes experts, tokens;
  bool drops;       /* choices of expert `groups` have no row */
  int64_t most;     /* rows of an expert; 0: nothing says */
  Value *offsets; /* i32[experts here + 1] */
  Value *slot;    /* the row of each choice, and the choice of each row, of */
  Value *src;     /* all tokens here; NULL: rows that came from others only */
};

Type partition_rows_local(const Partition *p, const Type *t,
                          const Placement *at) {
  Type local = placement_local(p->m, t, at);
  int64_t parts = axes_parts(p->m, at->dims[ROWS]);
  local.dims[ROWS].size = (t->dims[ROWS].size + parts - 1) / parts;
  return local;
}

static int64_t local_groups(const Partition *p, const PartRows *r) {
  int64_t parts = axes_parts(p->m, r->experts);
  return (r->groups + parts - 1) / parts;
}

/* ---- whose rows they are ------------------------------------------------- */

static const Value *root_of(const Value *ids) {
  while (ids->def && ids->def->op == OP_reshard)
    ids = ids->def->ins.data[0];
  return ids;
}

static PartRows *find_rows(const Partition *p, PartRows like) {
  for (uint32_t i = 0; i < p->rows.len; i++) {
    PartRows *r = p->rows.data[i];
    if (r->ids == like.ids && r->groups == like.groups &&
        r->experts == like.experts && r->tokens == like.tokens &&
        r->drops == like.drops)
      return r;
  }
  return NULL;
}

static PartRows *new_rows(Partition *p, PartRows like) {
  PartRows *r = NEW(p->a, PartRows);
  *r = like;
  vec_push(p->a, &p->rows, r);
  return r;
}

/* Those that the rows of `v` are told by; NULL: nothing tells. */
static PartRows *rows_of(const Partition *p, const Value *v) {
  Value *source = ir_ragged_source(ir_now((Value *)v));
  for (uint32_t i = 0; i < p->rows.len; i++)
    if (source && p->rows.data[i]->offsets == source) return p->rows.data[i];
  return NULL;
}

/* Rows that are not sent may be all there are: of one token that all devices
 * have, to write text, those are few. */
static void warn_of_room(Partition *p, Axes experts) {
  Buf axes = {0};
  if (p->b.region->entry != ir_main_entry(p->m)) return;
  axes_text(p->m, experts, &axes);
  diag_warning(p->cx, p->b.span,
               "--expert-rows does not bound these rows: each device along%s "
               "has all tokens, so none are sent",
               axes.data);
  buf_free(&axes);
}

/* Choices of experts that others have, or nobody has, have no row here. */
static void route(Partition *p, PartRows *r, Value *ids) {
  Builder *b = &p->b;
  int64_t groups = local_groups(p, r);
  if (r->experts && p->o->expert_rows) warn_of_room(p, r->experts);
  PartIds own = partition_ids(p, ids, r->experts, r->groups);
  Value *none = ir_const_like(b, ids, (double)groups);
  if (r->drops && !own.ours) own.ours = ir_binary(b, OP_lt, ids, none);
  if (own.ours) ids = ir_select(b, own.ours, own.ids, none);
  Routes rows = ir_route(b, ids, groups, own.ours);
  if (!r->offsets) r->offsets = rows.offsets;
  r->slot = rows.slot;
  r->src = rows.src;
}

/* The ids of `root` where the tokens are split by `tokens`. */
static Value *ids_at(Partition *p, const Value *root, Axes tokens) {
  const PartValue *was = partition_was(p, root);
  Placement to = {.dims = {tokens}};
  return partition_move(p, ir_now((Value *)root), &was->type, &was->place, &to);
}

/* The rows of all tokens here. `ids`: those, where they are at hand. */
static PartRows *routed(Partition *p, PartRows like, Value *ids) {
  PartRows *r = find_rows(p, like);
  if (!r) r = new_rows(p, like);
  uint32_t remat = p->b.remat;
  p->b.remat = 0; /* no backward pass may have rows told by others */
  if (!r->slot) route(p, r, ids ? ids : ids_at(p, r->ids, r->tokens));
  p->b.remat = remat;
  return r;
}

/* Of operand `ids` of a node whose ragged value has been `rows`. */
static PartRows *routed_by(Partition *p, const Node *n, uint32_t ids,
                           const PartValue *rows) {
  PartRows like = {.ids = root_of(n->ins.data[ids]),
                   .groups = rows->type.dims[GROUPS].size,
                   .experts = rows->place.dims[GROUPS],
                   .tokens = rows->place.dims[ROWS],
                   .drops = attr_bool(n, "drops")};
  return routed(p, like, ir_now(n->ins.data[ids]));
}

/* ---- rows that are nobody's ---------------------------------------------- */

static bool all_are_rows(const PartRows *r) {
  return r->experts == 0 && !r->drops;
}

Value *partition_rows_mask(Partition *p, Value *v, const PartValue *was,
                           Span at, double fill) {
  if (!was->place.dims[GROUPS]) return v;
  PartRows *r = rows_of(p, v);
  if (r) return ir_only_rows(&p->b, v, r->offsets, fill);
  diag_error(p->cx, at, "nothing says how many rows of this a device has");
  return v;
}

/* ---- dispatch, combine, row_dot ------------------------------------------ */

static void becomes(Node *n, Value *by) {
  by->name = n->outs.data[0]->name;
  ir_replace(n->outs.data[0], by);
}

static Value *gather_rows(Partition *p, Value *x, const PartRows *r,
                          Value *gates) {
  int64_t width = x->type.dims[x->type.rank - 1].size;
  int64_t tokens = type_elements(&x->type) / width;
  int64_t choices = type_elements(&r->slot->type) / tokens;
  Value *ins[] = {x, r->src, r->offsets, gates};
  return ir_node(&p->b, OP_rows_gather, NULL, ins, gates ? 4 : 3, "choices",
                 choices, NULL)
      ->outs.data[0];
}

static void dispatch(Partition *p, Node *n) {
  PartRows *r = routed_by(p, n, 1, partition_was(p, n->outs.data[0]));
  if (attr_ref(n, "most")->present) r->most = attr_int(n, "most");
  Value *gates = n->ins.len > 2 ? ir_now(n->ins.data[2]) : NULL;
  becomes(n, gather_rows(p, ir_now(n->ins.data[0]), r, gates));
}

/* Rows as operand 0, zeros for choices of others. */
static Value *own_rows(Partition *p, Node *n, const PartRows *r) {
  Value *y = ir_now(n->ins.data[0]);
  return all_are_rows(r) ? y : ir_only_rows(&p->b, y, r->offsets, 0);
}

static void combine(Partition *p, Node *n) {
  const PartRows *r = routed_by(p, n, 1, partition_was(p, n->ins.data[0]));
  Value *ins[] = {own_rows(p, n, r), r->slot,
                  n->ins.len > 2 ? ir_now(n->ins.data[2]) : NULL};
  becomes(n, ir_node(&p->b, OP_rows_combine, NULL, ins, n->ins.len, NULL)
                 ->outs.data[0]);
}

/* Over a width that is padded, products of what counts. */
static void row_dot(Partition *p, Node *n) {
  const PartValue *y = partition_was(p, n->ins.data[0]);
  const PartValue *d = partition_was(p, n->ins.data[1]);
  const PartRows *r = routed_by(p, n, 2, y);
  Value *rows = own_rows(p, n, r), *other = ir_now(n->ins.data[1]);
  rows = partition_mask(p, rows, y, 1u << 2, 0);
  other = partition_mask(p, other, d, 1u << (d->type.rank - 1), 0);
  Value *ins[] = {rows, other, r->slot};
  becomes(n, ir_node(&p->b, OP_rows_dot, NULL, ins, 3, NULL)->outs.data[0]);
}

/* ---- rows that move ------------------------------------------------------ */

/* One rank's offsets as numbers of rows, i32[P * M], where the group's experts
 * are: those that are not there have none. */
static Value *counts(Partition *p, Value *offsets, Axes axes) {
  Builder *b = &p->b;
  int64_t ranks = 1, each = offsets->type.dims[0].size - 1;
  Value *start = ir_slice(b, offsets, 0, 0, each);
  Value *end = ir_slice(b, offsets, 0, 1, each);
  Value *n = ir_binary(b, OP_sub, end, start);
  for (Axes rest = axes; rest; rest >>= 4) {
    int64_t parts = axes_parts(p->m, axes_add(0, axes_at(rest, 0)));
    int64_t part = (each + parts - 1) / parts;
    if (part * parts > each) {
      n = ir_reshape(b, n, type_of(DT_i32, 2, (int64_t[]){ranks, each}));
      n = ir_pad(b, n, 1, 0, part * parts - each);
      n = ir_reshape(b, n, type_of(DT_i32, 1,
                                   (int64_t[]){ranks * parts * part}));
    }
    ranks *= parts;
    each = part;
  }
  return n;
}

/* Each rank tells the others how many rows it has for each of their experts. */
static Value *exchange_counts(Partition *p, const PartRows *from, PartRows *to,
                              Axes axes) {
  Builder *b = &p->b;
  int64_t m = local_groups(p, to), ranks = axes_parts(p->m, axes);
  Value *n = counts(p, from->offsets, axes);
  Value *came = ir_node(b, OP_all_to_all, NULL, &n, 1, "axes",
                        partition_axes(p, axes), "split", (int64_t)0, "concat",
                        (int64_t)0, NULL)
                    ->outs.data[0];
  Value *got = ir_reshape(b, came, type_of(DT_i32, 2, (int64_t[]){ranks, m}));
  pass_tally(p->o, "counts");
  if (to->offsets) return got;
  Value *each = ir_reduce(b, OP_reduce_sum, got, "pm->m");
  Node *sums = ir_node(b, OP_cumsum, NULL, &each, 1, "exclusive", (int64_t)0,
                       "reverse", (int64_t)0, NULL);
  to->offsets = ir_pad(b, sums->outs.data[0], 0, 1, 0);
  return got;
}

/* How many rows go between the two; the ranks tell one another once. */
static Value *got_of(Partition *p, const PartRows *from, PartRows *to,
                     Axes axes) {
  for (uint32_t i = 0; i < p->sent.len; i++)
    if (p->sent.data[i].from == from && p->sent.data[i].to == to)
      return p->sent.data[i].got;
  uint32_t remat = p->b.remat;
  p->b.remat = 0;
  PartSent s = {from, to, exchange_counts(p, from, to, axes)};
  p->b.remat = remat;
  vec_push(p->a, &p->sent, s);
  return s.got;
}

static bool is_exchange(const MoveStep *s) {
  return s->kind == MOVE_ALL_TO_ALL && s->from >= 0 && s->from <= ROWS &&
         s->to >= 0 && s->to <= ROWS;
}

/* To the experts, or back. `t` is the type there. */
static Value *send(Partition *p, Value *v, PartRows *at, const MoveStep *s,
                   const Type *t) {
  PartRows like = {.ids = at->ids,
                   .groups = at->groups,
                   .experts = s->after.dims[GROUPS],
                   .tokens = s->after.dims[ROWS],
                   .drops = at->drops};
  bool back = s->from == GROUPS;
  PartRows *tokens = at, *experts = find_rows(p, like);
  if (back) {
    tokens = routed(p, like, NULL);
    experts = at;
  } else if (!experts) {
    experts = new_rows(p, like);
  }
  Value *got = got_of(p, tokens, experts, s->axes);
  Value *ins[] = {v, tokens->offsets, got, experts->offsets};
  pass_tally(p->o, back ? "rows_return" : "rows_send");
  Node *n = ir_node(&p->b, back ? OP_rows_return : OP_rows_send, NULL, ins, 4,
                    "axes", partition_axes(p, s->axes), "rows",
                    t->dims[ROWS].size, NULL);
  if (!back && at->most)
    *attr_ref(n, "most") = (Attr){.i = at->most, .present = true};
  return n->outs.data[0];
}

/* Whether no row leaves its token and its expert both: the width of rows that
 * stay, or rows on their way between the two. */
static bool keeps_rows(const MoveStep *s) {
  bool along = s->from > ROWS || s->from == PLACED_NOWHERE;
  bool to_width = s->to > ROWS || s->to == PLACED_NOWHERE;
  return (along && to_width) || is_exchange(s);
}

static bool all_keep_rows(const Move *m) {
  bool all = true;
  for (int i = 0; i < m->n; i++)
    all = all && keeps_rows(&m->steps[i]);
  return all;
}

static Value *step_by_step(Partition *p, Value *v, const PartValue *from,
                           const Move *m) {
  Placement now = from->place;
  for (int i = 0; i < m->n; i++) {
    const MoveStep *s = &m->steps[i];
    Type t = partition_rows_local(p, &from->type, &s->after);
    if (is_exchange(s))
      v = send(p, v, rows_of(p, v), s, &t);
    else
      v = partition_move(p, v, &from->type, &now, &s->after);
    now = s->after;
  }
  return v;
}

/* A tensor of all choices, x[S.., K, D], placed as rows are. */
static Placement choices_at(const PartValue *rows, const Type *all) {
  Placement at = {.dims = {rows->place.dims[ROWS]},
                  .partial = rows->place.partial,
                  .kind = rows->place.kind};
  at.dims[all->rank - 1] = rows->place.dims[2];
  return at;
}

/* Any other way, such as to all experts and tokens on every rank: each row goes
 * to its place in a tensor of all choices, that one moves as plain tensors do,
 * and rows are made of it. Choices that have their row elsewhere are 0. */
static Value *through_choices(Partition *p, Value *v, PartRows *r,
                              const PartValue *from, const PartValue *to) {
  Builder *b = &p->b;
  PartRows there = {.ids = r->ids,
                    .groups = r->groups,
                    .experts = to->place.dims[GROUPS],
                    .tokens = to->place.dims[ROWS],
                    .drops = r->drops};
  Type all = partition_was(p, r->ids)->type;
  routed(p, *r, NULL);
  Type slots = r->slot->type;
  slots.dims[slots.rank++] = (Dim){.size = 1};
  all.dtype = v->type.dtype;
  all.dims[all.rank++] = from->type.dims[2];
  if (!all_are_rows(r)) v = ir_only_rows(b, v, r->offsets, 0);
  Value *ins[] = {v, ir_reshape(b, r->slot, slots)};
  v = ir_node(b, OP_rows_combine, NULL, ins, 2, NULL)->outs.data[0];
  Placement now = choices_at(from, &all), then = choices_at(to, &all);
  for (Axes a = r->experts; a; a >>= 4)
    now.partial = axes_add(now.partial, axes_at(a, 0));
  v = partition_move(p, v, &all, &now, &then);
  return gather_rows(p, v, routed(p, there, NULL), NULL);
}

static Value *refuse(Partition *p, const Node *n, const char *why) {
  Buf from = {0}, to = {0};
  const PartValue *x = partition_was(p, n->ins.data[0]);
  const PartValue *y = partition_was(p, n->outs.data[0]);
  placement_text(p->m, &x->type, &x->place, &from);
  placement_text(p->m, &y->type, &y->place, &to);
  diag_error(p->cx, n->span, "rows cannot be moved from %s to %s: %s",
             from.data, to.data, why);
  buf_free(&from);
  buf_free(&to);
  return ir_const(&p->b, n->outs.data[0]->type, 0);
}

/* Rows that are numbers go as rows of one. */
static Value *through_columns(Partition *p, Value *v, PartRows *r,
                              PartValue from, PartValue to) {
  Builder *b = &p->b;
  Type t = v->type;
  if (from.type.rank == 3) return through_choices(p, v, r, &from, &to);
  t.dims[t.rank++] = (Dim){.size = 1};
  from.type.dims[from.type.rank++] = (Dim){.size = 1};
  v = ir_broadcast(b, v, "nr->nrd", t);
  v = through_choices(p, v, r, &from, &to);
  return ir_reduce(b, OP_reduce_sum, v, "nrd->nr");
}

static Value *move_rows(Partition *p, Node *n, Value *v) {
  const PartValue *from = partition_was(p, n->ins.data[0]);
  const PartValue *to = partition_was(p, n->outs.data[0]);
  Move move = reshard_move(p->m, &from->type, &from->place, &to->place);
  PartRows *r = rows_of(p, v);
  if (!r) return refuse(p, n, "nothing says whose rows they are");
  if (all_keep_rows(&move)) return step_by_step(p, v, from, &move);
  if (from->type.rank > 3 || partition_was(p, r->ids)->type.rank == MAX_RANK)
    return refuse(p, n, "only [N, r] and [N, r, D] change hands like this");
  if (from->place.partial && from->place.kind != PARTIAL_SUM)
    return refuse(p, n, "they are parts of a maximum or minimum");
  return through_columns(p, v, r, *from, *to);
}

/* A constant has its value in all rows, whoever has them. Truths go as
 * numbers. */
static void reshard(Partition *p, Node *n) {
  Value *v = ir_now(n->ins.data[0]);
  Dtype dtype = v->type.dtype;
  if (v->def && v->def->op == OP_const) {
    becomes(n, ir_const(&p->b, n->outs.data[0]->type,
                        attr_float(v->def, "value")));
    return;
  }
  if (dtype == DT_bool) v = ir_cast(&p->b, v, DT_i32);
  becomes(n, ir_cast_to(&p->b, move_rows(p, n, v), dtype));
}

/* ---- positions ----------------------------------------------------------- */

/* Rows are counted in the order of all tokens, and a rank knows its own. */
static void positions(Partition *p, Node *n) {
  const PartValue *was = partition_was(p, n->outs.data[0]);
  Buf text = {0};
  placement_text(p->m, &was->type, &was->place, &text);
  diag_error(p->cx, n->span, "iota: rows of %s cannot be counted", text.data);
  buf_free(&text);
  vec_push(&p->cx->perm, p->b.out, n);
}

/* ---- any of them --------------------------------------------------------- */

void partition_rows(Partition *p, Node *n) {
  switch ((int)n->op) {
  case OP_dispatch: dispatch(p, n); break;
  case OP_combine: combine(p, n); break;
  case OP_row_dot: row_dot(p, n); break;
  case OP_reshard: reshard(p, n); break;
  case OP_iota: positions(p, n); break;
  }
}
