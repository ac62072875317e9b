/* batch.c: an op of a loop's body, for all iterations at once.
 *
 * The iterations become a new dim 0 of operands and results: a new first
 * letter of an index map, a shift of a `dim` attribute, one more leading dim of
 * ops that work on the last one. Operands that are the same in all iterations
 * stay as they are where the op allows it, and are repeated where not. */
#include "pass.h"

#include <string.h>

static bool can_stack(const Value *v) {
  return v->type.rank < MAX_RANK && !type_is_ragged(&v->type);
}

bool batch_can(const Node *n, const bool *stacked) {
  BatchKind kind = op_info[n->op].batch;
  if (kind == BATCH_NONE) return false;
  if (kind == BATCH_GATHER && stacked[0]) return false;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (!can_stack(n->ins.data[i])) return false;
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (!can_stack(n->outs.data[i])) return false;
  return true;
}

/* ---- operands ---------------------------------------------------------- */

static Value *repeat(Builder *b, Value *v, int64_t length) {
  IndexMap m = {.n_ins = 1};
  for (int i = 0; i < v->type.rank; i++)
    m.ins[0][i] = (char)('a' + i);
  m.out[0] = map_free_letter(&m);
  strcpy(m.out + 1, m.ins[0]);
  return ir_broadcast(b, v, map_text(b->cx, &m), loop_stacked(v->type, length));
}

static Value *stack_of(Builder *b, Over o, int64_t length) {
  return o.stacked ? o.v : repeat(b, o.v, length);
}

static Sym stacked_map(Ctx *cx, const Node *n, const Over *ins) {
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  char letter = map_free_letter(&m);
  for (uint32_t i = 0; i < n->ins.len; i++) {
    if (!ins[i].stacked) continue;
    memmove(m.ins[i] + 1, m.ins[i], strlen(m.ins[i]) + 1);
    m.ins[i][0] = letter;
  }
  memmove(m.out + 1, m.out, strlen(m.out) + 1);
  m.out[0] = letter;
  return map_text(cx, &m);
}

/* ---- nodes ------------------------------------------------------------- */

/* One iteration's placement, in all of them; nothing is said of the new dim. */
static void place_stacked(Value *stacked, const Value *one) {
  Placement p = one->placement;
  for (int d = one->type.rank; d > 0; d--)
    p.dims[d] = p.dims[d - 1];
  p.dims[0] = 0;
  p.closed = (uint8_t)(p.closed << 1);
  stacked->placement = p;
}

/* No operand differs between iterations. */
static void clone_plain(Builder *b, const Node *n, const Over *ins,
                        Over *outs) {
  Map map = {0};
  for (uint32_t i = 0; i < n->ins.len; i++)
    map_put(&b->cx->scratch, &map, ir_now(n->ins.data[i]), ins[i].v);
  Node *copy = ir_clone(b, n, &map);
  for (uint32_t i = 0; i < n->outs.len; i++)
    outs[i] = (Over){copy->outs.data[i], false};
}

void batch_node(Builder *b, const Node *n, const Over *ins, int64_t length,
                Over *outs) {
  BatchKind kind = op_info[n->op].batch;
  Arena *a = &b->cx->scratch;
  bool any = false;
  for (uint32_t i = 0; i < n->ins.len; i++)
    any |= ins[i].stacked;
  if (!any) {
    clone_plain(b, n, ins, outs);
    return;
  }
  Value **values = NEW_ARRAY(a, Value *, n->ins.len + 1);
  Type *types = NEW_ARRAY(a, Type, n->outs.len + 1);
  bool alike = kind == BATCH_ALIKE || kind == BATCH_DIM || kind == BATCH_PLACED;
  for (uint32_t i = 0; i < n->ins.len; i++)
    values[i] = alike ? stack_of(b, ins[i], length) : ins[i].v;
  for (uint32_t i = 0; i < n->outs.len; i++)
    types[i] = loop_stacked(n->outs.data[i]->type, length);
  Builder like = ir_builder_like(b->cx, b->region, b->out, n);
  Node *copy = ir_node_raw(&like, n->op, values, n->ins.len, n->attrs, types,
                           n->outs.len);
  if (kind == BATCH_MAP) attr_ref(copy, "map")->s = stacked_map(b->cx, n, ins);
  if (kind == BATCH_DIM) attr_ref(copy, "dim")->i++;
  if (kind == BATCH_PLACED) place_stacked(copy->outs.data[0], n->outs.data[0]);
  for (uint32_t i = 0; i < n->outs.len; i++)
    outs[i] = (Over){copy->outs.data[i], true};
}
