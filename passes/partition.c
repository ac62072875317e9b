/* partition.c: from tensors on a mesh to one rank's program.
 *
 * Goal: after `shard` every value has a placement, and where one changes there
 * is a `reshard`. Here each value becomes what one rank has of it, and each
 * reshard the exchanges that it stands for. Nothing has to be decided: whether
 * all is where it must be is checked first (partition_check.c).
 *
 * Method: all values get the type of their part (a slot keeps its own: that of
 * the whole tensor). Most ops then compute parts from parts as they are. Those
 * that know of positions, sizes, or what is behind the end of a dim that does
 * not divide, have a rule in partition_ops.c; rows of experts are in
 * partition_rows.c. A reshard goes step by step as reshard.c says, each step
 * over one axis of the mesh.
 *
 * A dim of n that P ranks share is cut in parts of ceil(n / P), and the last
 * ones are padded to that size. A dim split by two axes is cut by the first,
 * and the parts are cut by the second. What lies in the padding is anything:
 * whoever sums over such a dim leaves it out.
 *
 *   before: entry @f(%x: f32[8 @dev, 4] = input "x") {
 *             %s = reduce_sum %x {map="bn->n"} : f32[4; sum @dev]
 *             %0 = reshard %s : f32[4]
 *   after:    entry @f(%x: f32[2, 4] = input "x") { ...
 *             %s = reduce_sum %x {map="bn->n"} : f32[4]
 *             %0 = all_reduce %s {axes="dev", op="sum"} : f32[4] */
#include "pass.h"

#include <string.h>

/* ---- what values were ---------------------------------------------------- */

const PartValue *partition_was(const Partition *p, const Value *v) {
  return map_get(&p->values, v);
}

Type partition_local(const Partition *p, const Type *t, const Placement *at) {
  return type_is_ragged(t) ? partition_rows_local(p, t, at)
                           : placement_local(p->m, t, at);
}

/* Axes of one device split nothing. */
static Axes without_ones(const Module *m, Axes a) {
  Axes left = 0;
  for (; a; a >>= 4)
    if (m->mesh.data[axes_at(a, 0)].size > 1)
      left = axes_add(left, axes_at(a, 0));
  return left;
}

static Placement that_split(const Module *m, const Placement *at) {
  Placement p = {.partial = without_ones(m, at->partial), .kind = at->kind};
  for (int d = 0; d < MAX_RANK; d++)
    p.dims[d] = without_ones(m, at->dims[d]);
  return p;
}

static void localise(Partition *p, Value *v) {
  PartValue *was = NEW(p->a, PartValue);
  *was = (PartValue){v->type, that_split(p->m, &v->placement)};
  map_put(p->a, &p->values, v, was);
  v->type = partition_local(p, &was->type, &was->place);
  v->placement = (Placement){0};
}

static void localise_region(Partition *p, const Region *r) {
  for (uint32_t i = 0; i < r->params.len; i++)
    localise(p, r->params.data[i]);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t k = 0; k < n->outs.len; k++)
      localise(p, n->outs.data[k]);
    if (n->body) localise_region(p, n->body);
  }
}

/* ---- ranks --------------------------------------------------------------- */

Sym partition_axes(const Partition *p, Axes a) {
  Sym text = NULL;
  for (; a; a >>= 4) {
    Sym name = p->m->mesh.data[axes_at(a, 0)].name;
    text = text ? sym_fmt(p->cx, "%s,%s", text, name) : name;
  }
  return text;
}

Value *partition_rank(Partition *p, Axes a) {
  return ir_node(&p->b, OP_rank, NULL, NULL, 0, "axes", partition_axes(p, a),
                 NULL)
      ->outs.data[0];
}

static Value *binary_const(Builder *b, OpKind op, Value *x, int64_t c) {
  return ir_binary(b, op, x, ir_const_like(b, x, (double)c));
}

/* Parts of one axis after the other: `start` moves on by what the ranks before
 * have, and what counts of a part is what counts of the one that it is cut
 * from, behind there. */
PartRange partition_range(Partition *p, Axes a, int64_t size) {
  PartRange r = {.local = size};
  Builder *b = &p->b;
  for (; a; a >>= 4) {
    int64_t parts = p->m->mesh.data[axes_at(a, 0)].size, whole = r.local;
    if (parts == 1) continue;
    r.local = (whole + parts - 1) / parts;
    Value *place = partition_rank(p, axes_add(0, axes_at(a, 0)));
    Value *before = binary_const(b, OP_mul, place, r.local);
    r.start = r.start ? ir_binary(b, OP_add, r.start, before) : before;
    if (!r.count && whole % parts == 0) continue;
    Value *from = r.count ? r.count : ir_const_like(b, before, (double)whole);
    r.count = ir_binary(b, OP_sub, from, before);
    r.count = binary_const(b, OP_max, r.count, 0);
    r.count = binary_const(b, OP_min, r.count, r.local);
  }
  return r;
}

/* ---- one step of a reshard ----------------------------------------------- */

/* `v` with so many indices along `dim`, zeros behind its own. */
static Value *resize(Partition *p, Value *v, int dim, int64_t size) {
  int64_t now = v->type.dims[dim].size;
  if (now < size) return ir_pad(&p->b, v, dim, 0, size - now);
  return now > size ? ir_slice(&p->b, v, dim, 0, size) : v;
}

static Value *resize_to(Partition *p, Value *v, const Type *t) {
  for (int d = 0; d < t->rank; d++)
    v = resize(p, v, d, t->dims[d].size);
  return v;
}

/* Parts go on to other ranks of the group. */
static Node *permute(Partition *p, Value *v, const MoveStep *s,
                     const Placement *before) {
  int64_t n = axes_parts(p->m, s->axes);
  int64_t *to = NEW_ARRAY(p->a, int64_t, (size_t)n);
  reshard_permutation(p->m, s, before, p->a, to);
  return ir_node(&p->b, OP_permute, NULL, &v, 1, "axes",
                 partition_axes(p, s->axes), "to", n, to, NULL);
}

static Value *do_step(Partition *p, Value *v, const MoveStep *s,
                      const Placement *before, const Type *after) {
  Sym axes = partition_axes(p, s->axes);
  int64_t parts = axes_parts(p->m, s->axes), to = s->to, from = s->from;
  Builder *b = &p->b;
  if (parts == 1) return v;
  if (to >= 0 && to < MAX_RANK)
    v = resize(p, v, s->to, after->dims[to].size * parts);
  Node *n = NULL;
  switch (s->kind) {
  case MOVE_SLICE: {
    Value *ins[] = {v, partition_rank(p, s->axes)};
    n = ir_node(b, OP_local_slice, NULL, ins, 2, "dim", to, "parts", parts,
                NULL);
    break;
  }
  case MOVE_REDUCE_SCATTER:
    n = ir_node(b, OP_reduce_scatter, NULL, &v, 1, "axes", axes, "dim", to,
                "op", partial_names[before->kind], NULL);
    break;
  case MOVE_ALL_TO_ALL:
    n = ir_node(b, OP_all_to_all, NULL, &v, 1, "axes", axes, "split", to,
                "concat", from, NULL);
    break;
  case MOVE_ALL_REDUCE:
    n = ir_node(b, OP_all_reduce, NULL, &v, 1, "axes", axes, "op",
                partial_names[before->kind], NULL);
    break;
  case MOVE_PERMUTE: n = permute(p, v, s, before); break;
  case MOVE_ALL_GATHER:
    n = ir_node(b, OP_all_gather, NULL, &v, 1, "axes", axes, "dim", from,
                NULL);
    break;
  case MOVE_COUNT: break;
  }
  return resize_to(p, n->outs.data[0], after);
}

Value *partition_move(Partition *p, Value *v, const Type *t,
                      const Placement *from, const Placement *to) {
  Move move = reshard_move(p->m, t, from, to);
  for (int i = 0; i < move.n; i++) {
    const MoveStep *s = &move.steps[i];
    Type after = partition_local(p, t, &s->after);
    v = do_step(p, v, s, i ? &s[-1].after : from, &after);
    pass_tally(p->o, move_names[s->kind]);
  }
  return v;
}

static void reshard(Partition *p, Node *n) {
  Value *x = n->ins.data[0], *y = n->outs.data[0];
  const PartValue *to = partition_was(p, y);
  const PartValue *from = partition_was(p, n->ins.data[0]);
  Value *by = partition_move(p, ir_now(x), &to->type, &from->place, &to->place);
  if (by != ir_now(x)) by->name = y->name;
  ir_replace(y, by);
}

/* ---- regions ------------------------------------------------------------- */

/* Operands are still those of before where rules ask what they were, and read
 * as what they are now. */
static void partition_region(Partition *p, Region *r, NodeVec nodes) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->body) partition_region(p, n->body, (NodeVec){0});
    p->b = ir_builder_like(p->cx, r, &nodes, n);
    bool ragged = type_is_ragged(&n->outs.data[0]->type);
    if (n->op == OP_reshard && !ragged)
      reshard(p, n);
    else if (n->op == OP_reshard)
      partition_rows(p, n);
    else
      partition_op(p, n);
  }
  r->nodes = nodes;
}

/* ---- inputs -------------------------------------------------------------- */

/* Whether the runtime reads it from files, and can share it out over ranks. */
static bool is_text(const Binding *b) {
  static const char *const sources[] = {"text", "pairs.source", "pairs.target"};
  for (size_t i = 0; b->kind == BIND_INPUT && i < COUNT_OF(sources); i++) {
    size_t n = strlen(sources[i]);
    if (strncmp(b->source, sources[i], n) == 0 &&
        (!b->source[n] || b->source[n] == '('))
      return true;
  }
  return false;
}

/* The axes over which the text inputs of an entry share out their rows, dim 0;
 * none where they do not agree, or the model says itself what is shared. */
static Axes shared_axes(const Entry *e) {
  const Value *first = NULL;
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Value *v = e->region->params.data[i];
    if (!is_text(&e->ins.data[i])) continue;
    if (!first) first = v;
    if (!v->type.rank || v->placement.dims[0] != first->placement.dims[0] ||
        strstr(e->ins.data[i].source, "share"))
      return 0;
  }
  return first ? first->placement.dims[0] : 0;
}

/* "text(shift=1)" and axes data, expert: "text(shift=1, share=data*expert)" */
static Sym share_source(Partition *p, Sym source, Axes a) {
  Buf b = {0};
  size_t len = strlen(source);
  bool args = source[len - 1] == ')';
  buf_fmt(&b, "%.*s%sshare=", (int)(args ? len - 1 : len), source,
          args ? ", " : "(");
  for (int i = 0; i < axes_count(a); i++)
    buf_fmt(&b, "%s%s", i ? "*" : "", p->m->mesh.data[axes_at(a, i)].name);
  buf_add(&b, ")");
  Sym text = sym(p->cx, b.data);
  buf_free(&b);
  return text;
}

/* An input is read by every rank as the text shares it out; the rest of its
 * placement is cut from that here. */
static void partition_input(Partition *p, Entry *e, uint32_t i, Axes shared,
                            NodeVec *nodes) {
  Region *r = e->region;
  Value *old = r->params.data[i];
  const PartValue *was = partition_was(p, old);
  Placement given = {0}, to = was->place;
  if (shared && is_text(&e->ins.data[i])) given.dims[0] = shared;
  if (given.dims[0])
    e->ins.data[i].source = share_source(p, e->ins.data[i].source, shared);
  if (placement_equal(&given, &to)) return;
  Value *v = NEW(&p->cx->perm, Value);
  *v = *old;
  v->type = placement_local(p->m, &was->type, &given);
  r->params.data[i] = v;
  p->b = ir_builder(p->cx, r);
  p->b.out = nodes;
  p->b.span = e->span;
  ir_replace(old, partition_move(p, v, &was->type, &given, &to));
}

static void partition_entry(Partition *p, Entry *e) {
  NodeVec nodes = {0};
  Axes shared = without_ones(p->m, shared_axes(e));
  localise_region(p, e->region);
  for (uint32_t i = 0; i < e->ins.len; i++)
    if (e->ins.data[i].kind == BIND_INPUT)
      partition_input(p, e, i, shared, &nodes);
  partition_region(p, e->region, nodes);
  ir_sweep(e);
}

/* ---- the pass ------------------------------------------------------------ */

bool pass_partition(Module *m, const PassOptions *o) {
  uint32_t errors = m->cx->errors;
  if (mesh_devices(m) == 1) return pass_same(o);
  if (!partition_check(m)) return false;
  Partition p = {.cx = m->cx, .m = m, .o = o, .a = &m->cx->scratch};
  for (uint32_t i = 0; i < m->entries.len && m->cx->errors == errors; i++)
    partition_entry(&p, m->entries.data[i]);
  return m->cx->errors == errors;
}
