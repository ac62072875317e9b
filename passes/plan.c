/* plan.c: gives every value its place in memory.
 *
 * Slots, inputs and reports get offsets in their slabs. Everything else lives
 * in the entry's arena, in buffers that are as long-lived as the values in
 * them. First, values are sent home: what is returned into a slot is computed
 * right there if nothing reads the old content any more, what a scan stacks is
 * computed in its row of the stack, a carry's next value in the carry's
 * buffer. Where that cannot be, a copy is added: a reshape to the same type.
 * Then an elementwise node may write over an operand that dies there, and a
 * launch by rows, as a softmax's gradient over its logits, if no row is needed
 * any more when it is written; a reshape shares its operand's bytes, and the
 * rest gets buffers, which life spans and best fit turn into offsets.
 *
 * A carry that is stacked as well lives in the stack, which gets one row more:
 * the turn at row i reads row i and writes row i + 1, and no copy is needed. So
 * does one whose value before the turn is stacked: that is the same stack, a
 * row back, and a carry that is stacked both ways has one stack for both.
 *
 *   %h, %ys = scan %h0, %u {carries=1, ...} (%i, %hp, %uu) {
 *     %h1 = fused %hp, %uu ...
 *     yield %h1, %h1
 *   }
 * becomes
 *   %h0.1 = reshape %h0 : f32[64, 512] in arena[0]
 *   %h, %ys = scan %h0.1, ... (%hp in arena[0, 131072]) {
 *     %h1 = fused ... in arena[131072, 131072]
 *   } : f32[64, 512] in arena[4194304], f32[32, 64, 512] in arena[131072] */
#include "pass.h"

#include <string.h>

enum { ALIGN = 64 };

/* Bytes that some values share, one after the other. */
typedef struct Buffer {
  int64_t bytes;
  bool fixed;     /* at `base` from the start: slots, inputs, reports */
  bool pinned;    /* stack or carry: nothing else may be written over it */
  Region *region; /* whose nodes may write over what is in it */
  int start, end; /* positions */
  Place base;
} Buffer;
typedef VEC(Buffer *) BufferVec;

/* Where in its buffer a value is. */
typedef struct Home {
  Buffer *buffer;
  int64_t offset;
  int64_t stride[MAX_LOOPS];
} Home;

typedef struct Plan {
  Ctx *cx;
  Arena *a;
  Entry *e;
  Map homes;   /* Value -> Home */
  Map buffers; /* Sym of a slot -> Buffer */
  Map copies;  /* Nodes added here: reshapes with bytes of their own */
  BufferVec arena;
  Life life;
} Plan;

static int64_t align_up(int64_t x) {
  return (x + ALIGN - 1) / ALIGN * ALIGN;
}

static Home *home_of(const Plan *p, const Value *v) {
  return map_get(&p->homes, v);
}

static void set_home(Plan *p, Value *v, Home h) {
  Home *copy = arena_copy(p->a, &h, sizeof h);
  map_put(p->a, &p->homes, v, copy);
}

static Buffer *new_buffer(Plan *p, Region *r, int64_t bytes) {
  Buffer *b = NEW(p->a, Buffer);
  b->bytes = align_up(bytes);
  b->region = r;
  b->start = INT32_MAX;
  b->end = -1;
  vec_push(p->a, &p->arena, b);
  return b;
}

/* ---- what the text leaves out ------------------------------------------- */

/* A launch whose body is reshapes alone is a reshape. */
static void unwrap_reshape(Node *n) {
  if (n->op != OP_fused || n->ins.len != 1 || n->outs.len != 1) return;
  const Value *v = n->body->results.data[0];
  while (v->def && v->def->op == OP_reshape)
    v = v->def->ins.data[0];
  if (v->def) return;
  n->op = OP_reshape;
  n->body = NULL;
  memset(n->attrs, 0, sizeof n->attrs);
}

/* A value from outside of a region in it: as one operand more of the launch or
 * the loop around, and of those around that. */
static Value *in_reach(Plan *p, Region *r, Value *v) {
  Node *owner = r->owner;
  if (v->region == r) return v;
  if (!owner)
    internal_error("the offsets of a ragged contraction are out of its reach");
  Value *outer = in_reach(p, owner->region, v);
  if (owner->op == OP_scan) {
    Builder b = ir_builder(p->cx, owner->region);
    Loop l = loop_open(p->cx, owner);
    Value *in = loop_invariant(p->cx, &l, outer);
    loop_close(&b, &l);
    return in;
  }
  vec_push(&p->cx->perm, &owner->ins, outer);
  return ir_param(p->cx, r, v->name, v->type);
}

/* What multiplies ragged values reads the offsets of the rows. */
static void name_offsets(Plan *p, Node *n) {
  for (uint32_t i = 0; n->op == OP_fused && i < n->body->nodes.len; i++)
    name_offsets(p, n->body->nodes.data[i]);
  if (!op_is(n->op, TRAIT_OFFSETS) || n->ins.len == 3) return;
  Value *source = NULL;
  for (uint32_t i = 0; i < 2 && !source; i++)
    if (type_is_ragged(&n->ins.data[i]->type))
      source = ir_ragged_source(n->ins.data[i]);
  if (!source && type_is_ragged(&n->outs.data[0]->type))
    source = ir_ragged_source(n->outs.data[0]);
  if (!source) return;
  vec_push(&p->cx->perm, &n->ins, in_reach(p, n->region, source));
}

static void prepare(Plan *p, Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    unwrap_reshape(n);
    name_offsets(p, n);
    if (n->op == OP_scan) prepare(p, n->body);
  }
}

/* Whether a node's result is its operand's bytes, seen in another shape. */
static bool is_view(const Plan *p, const Node *n) {
  return n->op == OP_reshape && !map_get(&p->copies, n) &&
         !home_of(p, n->outs.data[0]);
}

/* The value whose bytes `v` is, NULL where it has its own: a wait gives what
 * its exchange has written. */
static Value *view_of(const Plan *p, const Value *v) {
  if (!v->def) return NULL;
  if (v->def->op == OP_wait) return v->def->ins.data[v->index];
  return is_view(p, v->def) ? v->def->ins.data[0] : NULL;
}

/* ---- who reads what ----------------------------------------------------- */

static bool in_vec(const ValueVec *v, const Value *x) {
  for (uint32_t i = 0; i < v->len; i++)
    if (v->data[i] == x) return true;
  return false;
}

/* Until a wait its exchange reads. */
static bool reads_any(const Node *n, const ValueVec *set) {
  if (n->op == OP_wait) n = ir_waited(n);
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (in_vec(set, n->ins.data[i])) return true;
  return false;
}

/* `old` and what reshapes make of it: all may share its bytes. */
static ValueVec views_of(Plan *p, const Region *r, Value *old) {
  ValueVec set = {0};
  vec_push(p->a, &set, old);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++) {
      const Value *from = view_of(p, n->outs.data[j]);
      if (from && in_vec(&set, from)) vec_push(p->a, &set, n->outs.data[j]);
    }
  }
  return set;
}

/* Whether a launch reads parameter `from` of its body only to compute, element
 * by element, what it writes to the same place: a loop over elements with no
 * order among them. */
static bool is_pointwise(const Region *body, const Value *from, Arena *a) {
  ValueVec depends = {0};
  vec_push(a, &depends, (Value *)from);
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    LowerKind k = op_info[n->op].lower;
    bool apart = k == LOWER_CONTRACT; /* it only gives what is not `from` */
    if (k != LOWER_SCALAR && k != LOWER_ACCESS && !apart) return false;
    if (!reads_any(n, &depends)) continue;
    if (k != LOWER_SCALAR) return false;
    vec_push(a, &depends, n->outs.data[0]);
  }
  return true;
}

/* Elements of a row. */
static int64_t row_size(const Type *t, int rows) {
  int64_t dims[MAX_RANK], size = 1;
  for (int d = rows, rank = type_stored_dims(t, dims); d < rank; d++)
    size *= dims[d];
  return size;
}

/* How what a row's kernel computes depends on an operand `from`. */
typedef enum Way {
  WAY_NONE,
  WAY_OWN,    /* each element on its own of `from` and numbers of the row */
  WAY_NUMBER, /* one for all of the row: there before any loop that reads it */
  WAY_OTHER
} Way;

static Way way_through(const Node *n, uint32_t i, Way in, int rows) {
  LowerKind k = op_info[n->op].lower;
  bool number = row_size(&n->outs.data[0]->type, rows) == 1;
  if (number && (k == LOWER_REDUCE || in == WAY_NUMBER)) return WAY_NUMBER;
  if (k == LOWER_SCALAR && in != WAY_OTHER) return WAY_OWN;
  if (n->op == OP_broadcast && i == 0 && in == WAY_NUMBER) return WAY_OWN;
  return WAY_OTHER;
}

static Way way_of(Map *ways, const Value *v) {
  return (Way)(uintptr_t)map_get(ways, v);
}

/* How all that a launch by rows computes depends on operand `from`; false where
 * anything looks at another row of it. */
static bool find_ways(const Node *launch, const Value *from, Map *ways,
                      Arena *a) {
  const Region *body = launch->body;
  int rows = (int)attr_int(launch, "rows");
  map_put(a, ways, from, (void *)WAY_OWN);
  for (uint32_t i = 0; i < body->nodes.len; i++) {
    const Node *n = body->nodes.data[i];
    Way way = WAY_NONE;
    for (uint32_t k = 0; k < n->ins.len; k++) {
      Way in = way_of(ways, n->ins.data[k]);
      if (in == WAY_NONE) continue;
      if (ir_lead(n, k, rows) < rows) return false;
      Way through = way_through(n, k, in, rows);
      if (through > way) way = through;
    }
    for (uint32_t k = 0; way != WAY_NONE && k < n->outs.len; k++)
      map_put(a, ways, n->outs.data[k], (void *)way);
  }
  return true;
}

static bool same_start(const Home *a, const Home *b) {
  return a && b && a->buffer == b->buffer && a->offset == b->offset;
}

/* A row's results are written one after the other: those that take no operand's
 * place first, then the others; of both, those with more elements first. Those
 * of the same dims are written together. `late`: which come with the others. */
static bool *late_results(Plan *p, const Node *n, uint32_t j) {
  bool *late = NEW_ARRAY(p->a, bool, n->outs.len);
  for (uint32_t k = 0; k < n->outs.len; k++) {
    const Home *h = home_of(p, n->outs.data[k]);
    bool over = k == j;
    for (uint32_t i = 0; i < n->ins.len && !over; i++)
      over = same_start(home_of(p, n->ins.data[i]), h);
    for (uint32_t i = 0; i < n->outs.len && over; i++)
      late[i] |= type_same_dims(&n->outs.data[i]->type, &n->outs.data[k]->type);
  }
  return late;
}

/* Whether nothing needs row operand i any more once result j is there, but for
 * each element its own: that those written later have nothing of it, and those
 * written together what is known of the row before. */
static bool is_last_in_row(Plan *p, const Node *n, uint32_t i, uint32_t j,
                           const bool *late) {
  const Value *from = n->body->params.data[i];
  Map ways = {0};
  if (is_pointwise(n->body, from, p->a)) return true;
  if (!find_ways(n, from, &ways, p->a)) return false;
  int rows = (int)attr_int(n, "rows");
  const Type *to = &n->outs.data[j]->type;
  for (uint32_t k = 0; k < n->outs.len; k++) {
    const Type *t = &n->outs.data[k]->type;
    Way way = way_of(&ways, n->body->results.data[k]);
    if (!late[k] || row_size(t, rows) > row_size(to, rows)) continue;
    if (way == WAY_OTHER || (way != WAY_NONE && !type_same_dims(t, to)))
      return false;
  }
  return true;
}

/* Whether result j of a launch by rows may be written over operand i, and those
 * that are written over others still may. */
static bool keeps_rows(Plan *p, const Node *n, uint32_t i, uint32_t j) {
  const bool *late = late_results(p, n, j);
  if (!is_last_in_row(p, n, i, j, late)) return false;
  for (uint32_t k = 0; k < n->outs.len; k++) {
    const Home *h = home_of(p, n->outs.data[k]);
    for (uint32_t q = 0; q < n->ins.len && k != j; q++)
      if (same_start(home_of(p, n->ins.data[q]), h) &&
          !is_last_in_row(p, n, q, k, late))
        return false;
  }
  return true;
}

/* Whether result j of `n` may be written over its operand i: each element is
 * read for the last time when the same element is written. */
static bool may_write_over(Plan *p, const Node *n, uint32_t i, uint32_t j) {
  const Type *from = &n->ins.data[i]->type, *to = &n->outs.data[j]->type;
  if (dtype_info[from->dtype].bytes != dtype_info[to->dtype].bytes ||
      !type_same_dims(from, to))
    return false;
  if (op_is(n->op, TRAIT_EW)) return true;
  if (n->op == OP_all_reduce) return i == j;
  if (n->op == OP_rows_return) return i == ROWS_OTHERS;
  if (n->op != OP_fused) return false;
  return strcmp(attr_sym(n, "kind"), "row") == 0
             ? keeps_rows(p, n, i, j)
             : is_pointwise(n->body, n->body->params.data[i], p->a);
}

/* Whether result `v` of a node of `r` may be written to where `old` has been:
 * nothing reads it later, and the node itself only pointwise. */
static bool may_replace(Plan *p, const Region *r, Value *old, const Value *v) {
  ValueVec views = views_of(p, r, old);
  const Node *n = v->def;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (in_vec(&views, n->ins.data[i]) && !may_write_over(p, n, i, v->index))
      return false;
  bool after = false;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *later = r->nodes.data[i];
    bool own = later->op == OP_wait && ir_waited(later) == n;
    if (after && !own && !is_view(p, later) && reads_any(later, &views))
      return false;
    after = after || later == n;
  }
  for (uint32_t i = 0; i < views.len; i++)
    if (in_vec(&r->results, views.data[i])) return false;
  return true;
}

/* ---- copies ------------------------------------------------------------- */

/* A copy of `v` in front of node number `at`. */
static Value *add_copy(Plan *p, Region *r, Value *v, uint32_t at) {
  NodeVec tail = {0};
  Builder b = ir_builder(p->cx, r);
  b.out = &tail;
  if (v->def) b = ir_builder_like(p->cx, r, &tail, v->def);
  Value *copy = ir_reshape(&b, v, v->type);
  copy->name = v->name;
  vec_push(&p->cx->perm, &r->nodes, NULL);
  Node **nodes = r->nodes.data;
  memmove(nodes + at + 1, nodes + at, (r->nodes.len - 1 - at) * sizeof *nodes);
  nodes[at] = copy->def;
  map_put(p->a, &p->copies, copy->def, copy);
  return copy;
}

static uint32_t node_position(const Region *r, const Node *n) {
  uint32_t i = 0;
  while (r->nodes.data[i] != n)
    i++;
  return i;
}

/* Whose bytes `v` is. */
static Value *viewed(const Plan *p, Value *v) {
  for (Value *from; (from = view_of(p, v)); v = from)
    ;
  return v;
}

/* `v` where it owns its bytes; a copy, made as early as can be, where it is a
 * parameter of the region or a view of one. */
static Value *owned(Plan *p, Region *r, Value *v) {
  if (viewed(p, v)->def) return v;
  uint32_t at = v->def ? node_position(r, v->def) + 1 : 0;
  return add_copy(p, r, v, at);
}

/* ---- sending values home ------------------------------------------------ */

/* Whether the node that makes `v` can be told where to write it. */
static bool can_send(const Plan *p, const Value *v) {
  return v->def && v->def->op != OP_scan && v->def->op != OP_wait &&
         !home_of(p, v);
}

/* Makes result number i of region `r` be at `h` at its end. `old`: what was
 * there before, NULL for nothing. A copy is added where the value cannot be
 * computed there. */
static void send_result(Plan *p, Region *r, uint32_t i, Home h, Value *old) {
  Value *v = r->results.data[i];
  if (v == old) return;
  v = r->results.data[i] = owned(p, r, v);
  /* What it is a view of is better sent: a reshape with a home is a copy. */
  Value *best = NULL;
  for (Value *from = v; from; from = view_of(p, from))
    if (can_send(p, from) && (!old || may_replace(p, r, old, from)))
      best = from;
  if (best) {
    set_home(p, best, h);
    return;
  }
  v = r->results.data[i] = add_copy(p, r, v, r->nodes.len);
  set_home(p, v, h);
}

static void send_scan(Plan *p, Region *r, Node *n, int depth);

static void send_scans(Plan *p, Region *r, int depth) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->op != OP_scan) continue;
    if (depth >= MAX_LOOPS)
      internal_error("more than %d scans inside one another", MAX_LOOPS);
    send_scan(p, r, n, depth);
    i = node_position(r, n); /* copies may have gone in before it */
  }
}

/* The initial value of carry c is to be at `h` when the scan starts: what an
 * exchange has written, where it has been waited for. */
static void send_init(Plan *p, Region *r, Node *n, uint32_t c, Home h) {
  Value *v = n->ins.data[c], *made = v;
  if (v->def && v->def->op == OP_wait) made = v->def->ins.data[v->index];
  ValueVec views = views_of(p, r, made);
  bool mine = can_send(p, made) && !is_view(p, made->def) &&
              views.len == 1 + (made != v) && !in_vec(&r->results, v);
  for (uint32_t i = 0; i < n->ins.len && mine; i++)
    mine = i == c || n->ins.data[i] != v;
  for (uint32_t i = node_position(r, n) + 1; i < r->nodes.len && mine; i++)
    mine = !reads_any(r->nodes.data[i], &views);
  if (!mine) n->ins.data[c] = made = add_copy(p, r, v, node_position(r, n));
  set_home(p, made, h);
}

/* Whether result i stacks carry c: what it becomes, or what it was. */
static bool stacks(const Node *n, uint32_t i, uint32_t c) {
  const Region *body = n->body;
  return body->results.data[i] == body->results.data[c] ||
         body->results.data[i] == body->params.data[1 + c];
}

/* Whether carry c changes each turn and some result stacks it. */
static bool is_stacked(const Plan *p, const Node *n, uint32_t c) {
  const Region *body = n->body;
  if (!can_send(p, body->results.data[c])) return false;
  for (uint32_t i = (uint32_t)attr_int(n, "carries"); i < n->outs.len; i++)
    if (stacks(n, i, c) && !home_of(p, n->outs.data[i])) return true;
  return false;
}

/* Carry c in a stack, one row apart; so are all results that stack it. */
static void send_in_stack(Plan *p, Region *r, Node *n, uint32_t c, int depth) {
  int64_t length = attr_int(n, "length");
  bool reverse = attr_bool(n, "reverse");
  int64_t row = type_bytes(&n->outs.data[c]->type);
  Value *param = n->body->params.data[1 + c];
  Buffer *b = new_buffer(p, r, row * (length + 1));
  b->pinned = true;
  Home before = {b, reverse ? row : 0, {0}};
  Home after = {b, reverse ? 0 : row, {0}};
  for (uint32_t i = (uint32_t)attr_int(n, "carries"); i < n->outs.len; i++)
    if (stacks(n, i, c) && !home_of(p, n->outs.data[i]))
      set_home(p, n->outs.data[i],
               n->body->results.data[i] == param ? before : after);
  Home last = {b, reverse ? 0 : row * length, {0}};
  set_home(p, n->outs.data[c], last);
  Home first = {b, reverse ? row * length : 0, {0}};
  before.stride[depth] = after.stride[depth] = row;
  set_home(p, param, before);
  set_home(p, n->body->results.data[c], after);
  send_init(p, r, n, c, first);
}

static void send_carry(Plan *p, Region *r, Node *n, uint32_t c) {
  Buffer *b = new_buffer(p, r, type_bytes(&n->outs.data[c]->type));
  b->pinned = true;
  Home h = {b, 0, {0}};
  Value *param = n->body->params.data[1 + c];
  set_home(p, param, h);
  set_home(p, n->outs.data[c], h);
  send_result(p, n->body, c, h, param);
  send_init(p, r, n, c, h);
}

static void send_stack(Plan *p, Region *r, Node *n, uint32_t i, int depth) {
  Value *out = n->outs.data[i];
  if (home_of(p, out)) return; /* with its carry */
  Buffer *b = new_buffer(p, r, type_bytes(&out->type));
  b->pinned = true;
  Home h = {b, 0, {0}};
  set_home(p, out, h);
  h.stride[depth] = type_bytes(&n->body->results.data[i]->type);
  send_result(p, n->body, i, h, NULL);
}

/* What a turn hands on unchanged is copied before anything is overwritten, but
 * for a carry that stays where it is, in its buffer or in a stack. */
static void own_results(Plan *p, Node *n) {
  uint32_t carries = (uint32_t)attr_int(n, "carries");
  Region *body = n->body;
  for (uint32_t i = 0; i < body->results.len; i++) {
    const Value *v = body->results.data[i];
    bool stays = i < carries && v == body->params.data[1 + i];
    for (uint32_t c = 0; c < carries && i >= carries && !stays; c++)
      stays = stacks(n, i, c) && is_stacked(p, n, c);
    if (!stays) body->results.data[i] = owned(p, body, body->results.data[i]);
  }
}

static void send_scan(Plan *p, Region *r, Node *n, int depth) {
  uint32_t carries = (uint32_t)attr_int(n, "carries");
  own_results(p, n);
  for (uint32_t c = 0; c < carries; c++) {
    if (is_stacked(p, n, c))
      send_in_stack(p, r, n, c, depth);
    else
      send_carry(p, r, n, c);
  }
  for (uint32_t i = carries; i < n->outs.len; i++)
    send_stack(p, r, n, i, depth);
  send_scans(p, n->body, depth + 1);
}

/* ---- entries: parameters and results ------------------------------------ */

static Buffer *fixed_buffer(Plan *p, Slab slab, int64_t offset) {
  Buffer *b = NEW(p->a, Buffer);
  b->fixed = b->pinned = true;
  b->base = (Place){.slab = slab, .offset = offset};
  return b;
}

static int64_t take(int64_t *slab_bytes, const Type *t) {
  int64_t at = *slab_bytes;
  *slab_bytes = align_up(at + type_bytes(t));
  return at;
}

static Buffer *slot_buffer(Plan *p, Sym path) {
  Buffer *b = map_get(&p->buffers, path);
  if (b) return b;
  const Slot *s = ir_slot(p->e->module, path);
  b = fixed_buffer(p, s->place.slab, s->place.offset);
  map_put(p->a, &p->buffers, path, b);
  return b;
}

static void place_params(Plan *p) {
  Entry *e = p->e;
  e->input_bytes = 0;
  for (uint32_t i = 0; i < e->ins.len; i++) {
    Value *v = e->region->params.data[i];
    Home h = {0};
    if (e->ins.data[i].kind == BIND_SLOT)
      h.buffer = slot_buffer(p, e->ins.data[i].name);
    else
      h.buffer = fixed_buffer(p, SLAB_INPUT, take(&e->input_bytes, &v->type));
    set_home(p, v, h);
  }
}

/* The parameter that holds a slot's content before the step. */
static Value *old_content(const Entry *e, Sym path) {
  for (uint32_t i = 0; i < e->ins.len; i++)
    if (e->ins.data[i].kind == BIND_SLOT && e->ins.data[i].name == path)
      return e->region->params.data[i];
  return NULL;
}

static void place_results(Plan *p) {
  Entry *e = p->e;
  Region *r = e->region;
  e->report_bytes = 0;
  /* Old contents that are handed on are copied before they are overwritten. */
  for (uint32_t i = 0; i < e->outs.len; i++) {
    const Binding *b = &e->outs.data[i];
    Value *v = r->results.data[i];
    if (b->kind != BIND_SLOT || v != old_content(e, b->name))
      r->results.data[i] = owned(p, r, v);
  }
  for (uint32_t i = 0; i < e->outs.len; i++) {
    const Binding *b = &e->outs.data[i];
    Home h = {0};
    Value *old = NULL;
    if (b->kind == BIND_SLOT) {
      h.buffer = slot_buffer(p, b->name);
      old = old_content(e, b->name);
    } else {
      int64_t at = take(&e->report_bytes, &r->results.data[i]->type);
      h.buffer = fixed_buffer(p, SLAB_REPORT, at);
    }
    send_result(p, r, i, h, old);
  }
}

/* ---- the rest ----------------------------------------------------------- */

/* Keeps the buffer for as long as `v` is needed. */
static void extend(Plan *p, const Value *v, int start) {
  Buffer *b = home_of(p, v)->buffer;
  int last = life_last(&p->life, v);
  if (start < b->start) b->start = start;
  if (last > b->end) b->end = last;
}

/* Whether a node between an exchange and its wait reads from a buffer. */
static bool read_meanwhile(const Plan *p, const Region *r, const Node *n,
                           const Node *wait, const Buffer *b) {
  uint32_t i = node_position(r, n) + 1;
  for (const Node *at; (at = r->nodes.data[i]) != wait; i++)
    for (uint32_t k = 0; k < at->ins.len; k++)
      if (home_of(p, at->ins.data[k]) &&
          home_of(p, at->ins.data[k])->buffer == b)
        return true;
  return false;
}

/* A buffer of an operand that ends its life at node `n`, with its wait where it
 * is an exchange, to write result j to: NULL where there is none. */
static Home *dying_operand(Plan *p, const Region *r, const Node *n,
                           uint32_t j) {
  bool comm = op_info[n->op].lower == LOWER_COMM;
  const Node *wait = comm ? ir_wait_of(n) : NULL;
  int now = life_start(&p->life, wait ? wait : n);
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Home *h = home_of(p, n->ins.data[i]);
    if (h->buffer->pinned || h->buffer->region != r || h->buffer->end != now)
      continue;
    bool all = true, taken = false;
    for (uint32_t k = 0; k < n->ins.len && all; k++)
      if (home_of(p, n->ins.data[k])->buffer == h->buffer)
        all = may_write_over(p, n, k, j);
    for (uint32_t k = 0; k < n->outs.len && all; k++) {
      Home *other = home_of(p, n->outs.data[k]);
      taken = taken || (other && other->buffer == h->buffer);
    }
    if (wait) all = all && !read_meanwhile(p, r, n, wait, h->buffer);
    if (all && !taken) return h;
  }
  return NULL;
}

static void place_outs(Plan *p, Region *r, Node *n) {
  for (uint32_t j = 0; j < n->outs.len; j++) {
    Value *v = n->outs.data[j];
    if (home_of(p, v)) continue;
    Home *over = dying_operand(p, r, n, j);
    Home h = over ? *over : (Home){0};
    if (view_of(p, v)) h = *home_of(p, view_of(p, v));
    if (!h.buffer) h.buffer = new_buffer(p, r, type_bytes(&v->type));
    set_home(p, v, h);
  }
  for (uint32_t j = 0; j < n->outs.len; j++)
    extend(p, n->outs.data[j], life_start(&p->life, n));
}

static void place_region(Plan *p, Region *r, int depth);

static void place_scan(Plan *p, Region *r, Node *n, int depth) {
  uint32_t carries = (uint32_t)attr_int(n, "carries");
  uint32_t scanned = (uint32_t)attr_int(n, "scanned");
  ValueVec *params = &n->body->params;
  int start = life_start(&p->life, n);
  Buffer *index = new_buffer(p, r, type_bytes(&params->data[0]->type));
  index->pinned = true;
  set_home(p, params->data[0], (Home){.buffer = index});
  index->start = start;
  index->end = life_end(&p->life, n);
  for (uint32_t i = carries; i < n->ins.len; i++) {
    Home h = *home_of(p, n->ins.data[i]);
    Value *param = params->data[1 + i];
    if (i < carries + scanned) h.stride[depth] += type_bytes(&param->type);
    set_home(p, param, h);
  }
  for (uint32_t i = 0; i < n->outs.len; i++)
    extend(p, n->outs.data[i], start);
  place_region(p, n->body, depth + 1);
}

static void place_region(Plan *p, Region *r, int depth) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->op == OP_scan)
      place_scan(p, r, n, depth);
    else
      place_outs(p, r, n);
  }
}

/* ---- offsets ------------------------------------------------------------ */

/* Places the buffers of the arena; returns its size. */
static int64_t place_buffers(Plan *p) {
  uint32_t n = p->arena.len;
  PackItem *items = NEW_ARRAY(p->a, PackItem, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    const Buffer *b = p->arena.data[i];
    items[i] = (PackItem){b->bytes, b->start, b->end, 0};
  }
  int64_t total = pack_offsets(items, n, p->a);
  for (uint32_t i = 0; i < n; i++)
    p->arena.data[i]->base =
        (Place){.slab = SLAB_ARENA, .offset = items[i].offset};
  return total;
}

static void write_place(const Plan *p, Value *v) {
  const Home *h = home_of(p, v);
  v->place = h->buffer->base;
  v->place.offset += h->offset;
  for (int i = 0; i < MAX_LOOPS; i++)
    v->place.stride[i] += h->stride[i];
}

static void write_places(const Plan *p, const Region *r) {
  for (uint32_t i = 0; i < r->params.len; i++)
    write_place(p, r->params.data[i]);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++)
      write_place(p, n->outs.data[j]);
    if (n->op == OP_scan) write_places(p, n->body);
  }
}

/* ---- the pass ----------------------------------------------------------- */

static void place_slots(Module *m) {
  static const Slab slab_of[] = {[SLOT_PARAM] = SLAB_PARAM,
                                 [SLOT_OPTIM] = SLAB_OPTIM,
                                 [SLOT_STATE] = SLAB_STATE};
  memset(m->slab_bytes, 0, sizeof m->slab_bytes);
  for (uint32_t i = 0; i < m->slots.len; i++) {
    Slot *s = m->slots.data[i];
    Slab slab = slab_of[s->kind];
    s->place = (Place){.slab = slab};
    Type local = placement_local(m, &s->type, &s->placement);
    s->place.offset = take(&m->slab_bytes[slab], &local);
  }
}

static void plan_entry(Ctx *cx, Entry *e) {
  Plan p = {.cx = cx, .a = &cx->scratch, .e = e};
  prepare(&p, e->region);
  place_params(&p);
  place_results(&p);
  send_scans(&p, e->region, 0);
  life_of(e, p.a, &p.life);
  place_region(&p, e->region, 0);
  e->arena_bytes = place_buffers(&p);
  write_places(&p, e->region);
}

bool pass_plan(Module *m, const PassOptions *o) {
  (void)o;
  place_slots(m);
  for (uint32_t i = 0; i < m->entries.len; i++)
    plan_entry(m->cx, m->entries.data[i]);
  return true;
}
