/* shard_table.c: the report of --explain=shard: what each device has and sends,
 * then tensor by tensor where it lives, then every change of placement. */
#include "pass.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_WIDTH = 42, TYPE_WIDTH = 44 };

typedef struct Report {
  const Shard *s;
  Buf *out;
} Report;

/* ---- small parts --------------------------------------------------------- */

static void add_bytes(Report *r, int64_t bytes, int width) {
  char text[16];
  bytes_text(bytes, text);
  buf_fmt(r->out, "%*s", width, text);
}

static void add_type(Report *r, const Type *t, const Placement *p) {
  placement_text(r->s->m, t, p, r->out);
}

static int64_t device_bytes(Report *r, const Type *t, const Placement *p) {
  Type local = placement_local(r->s->m, t, p);
  return type_bytes(&local);
}

static Sym layer_of(const Node *n) {
  return n->layer ? n->layer : "";
}

static void title(Report *r, const char *text) {
  buf_fmt(r->out, "\n%s\n", text);
  for (size_t i = 0; i < strlen(text); i++)
    buf_add(r->out, "-");
  buf_add(r->out, "\n");
}

static const char legend[] =
    "\n"
    "Sent: bytes that each device sends; rows of experts as if each had as "
    "many. A tensor has an axis of\n"
    "the mesh on a dim for a reason, the first of these that holds:\n"
    "  said            the model says so, at that place\n"
    "  alike           an operand or user has it there, element by element, "
    "loops and slots included\n"
    "  batch letter    ... on a letter of all operands and the result, or on "
    "the tokens\n"
    "  kept letter     ... on a letter that the result keeps\n"
    "  summed letter   ... on a letter that is summed over: the result is a "
    "part of the sum\n"
    "  what is left    ... on the experts of a dispatch, on a small tensor "
    "that is repeated\n"
    "  cheapest letter of all letters that could have it, at the end\n"
    "Of kept and summed letters that could have the same axis, the one gets it "
    "that moves fewer bytes.\n";

/* ---- what each device has and sends -------------------------------------- */

static void memory_row(Report *r, const char *what, int64_t whole,
                       int64_t local) {
  if (!whole) return;
  buf_fmt(r->out, "  %-14s", what);
  add_bytes(r, local, 11);
  add_bytes(r, whole, 13);
  buf_fmt(r->out, "%9.0f %%\n", 100.0 * (double)local / (double)whole);
}

static void memory_table(Report *r, const Entry *e) {
  static const char *const names[] = {[SLOT_PARAM] = "parameters",
                                      [SLOT_OPTIM] = "optimiser",
                                      [SLOT_STATE] = "states"};
  int64_t whole[3] = {0}, local[3] = {0}, in_whole = 0, in_local = 0;
  const Module *m = r->s->m;
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *x = m->slots.data[i];
    whole[x->kind] += type_bytes(&x->type);
    local[x->kind] += device_bytes(r, &x->type, &x->placement);
  }
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Value *v = e->region->params.data[i];
    if (e->ins.data[i].kind != BIND_INPUT) continue;
    in_whole += type_bytes(&v->type);
    in_local += device_bytes(r, &v->type, &v->placement);
  }
  buf_fmt(r->out, "\n  %-14s%11s%13s%11s\n", "memory", "a device", "in all",
          "share");
  for (int k = 0; k < 3; k++)
    memory_row(r, names[k], whole[k], local[k]);
  memory_row(r, "inputs", in_whole, in_local);
  memory_row(r, "together", whole[0] + whole[1] + whole[2] + in_whole,
             local[0] + local[1] + local[2] + in_local);
}

static const Entry *entry_of(const ShardMove *m) {
  return m->to->region->entry;
}

static void traffic_table(Report *r, const Entry *e) {
  int64_t bytes[MOVE_COUNT] = {0}, times[MOVE_COUNT] = {0}, all = 0, n = 0;
  for (uint32_t i = 0; i < r->s->moves.len; i++) {
    const ShardMove *m = &r->s->moves.data[i];
    for (int k = 0; k < m->move.n && entry_of(m) == e; k++) {
      bytes[m->move.steps[k].kind] += m->move.steps[k].bytes * m->times;
      times[m->move.steps[k].kind] += m->times;
      all += m->move.steps[k].bytes * m->times;
      n += m->times;
    }
  }
  buf_fmt(r->out, "\n  %-14s%11s%13s\n",
          e ? sym_fmt(r->s->cx, "in %s", e->name) : "", "a step", "sent");
  for (int k = 0; k < MOVE_COUNT; k++) {
    if (!times[k]) continue;
    buf_fmt(r->out, "  %-14s%11lld", move_names[k], (long long)times[k]);
    add_bytes(r, bytes[k], 13);
    buf_add(r->out, "\n");
  }
  if (!n) buf_add(r->out, "  nothing moves\n");
  if (!n) return;
  buf_fmt(r->out, "  %-14s%11lld", "together", (long long)n);
  add_bytes(r, all, 13);
  buf_add(r->out, "\n");
}

static void summary(Report *r, const Entry *e) {
  const Module *m = r->s->m;
  buf_fmt(r->out, "%lld devices:", (long long)mesh_devices(m));
  for (uint32_t i = 0; i < m->mesh.len; i++)
    buf_fmt(r->out, " %s=%lld", m->mesh.data[i].name,
            (long long)m->mesh.data[i].size);
  buf_add(r->out, "\n");
  memory_table(r, e);
  traffic_table(r, e);
  for (uint32_t i = 0; i < m->entries.len; i++)
    if (m->entries.data[i] != e && strcmp(m->entries.data[i]->name, "init") &&
        strcmp(m->entries.data[i]->name, "reset"))
      traffic_table(r, m->entries.data[i]);
  buf_add(r->out, legend);
}

/* ---- tensors ------------------------------------------------------------- */

static void tensor(Report *r, const char *name, const Type *t,
                   const Placement *p, const Value *v) {
  Type local = placement_local(r->s->m, t, p);
  Placement whole = {0};
  Buf type = {0};
  placement_text(r->s->m, t, p, &type);
  buf_fmt(r->out, "%-*s %-*s", NAME_WIDTH, name, TYPE_WIDTH, type.data);
  buf_free(&type);
  add_bytes(r, type_bytes(&local), 11);
  buf_add(r->out, "\n");
  if (!placement_is_whole(p)) {
    buf_add(r->out, "    each has ");
    add_type(r, &local, &whole);
    buf_add(r->out, "\n");
  }
  if (v) shard_why_text(r->s, v, "    ", r->out);
}

/* A value of some entry that is bound to the slot. */
static const Value *slot_value(Report *r, const Slot *slot) {
  const Module *m = r->s->m;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    const Entry *e = m->entries.data[i];
    for (uint32_t k = 0; k < e->ins.len; k++)
      if (e->ins.data[k].kind == BIND_SLOT &&
          ir_slot(r->s->m, e->ins.data[k].name) == slot)
        return e->region->params.data[k];
  }
  return NULL;
}

/* Whether the slot has the placement of a parameter whose path its own goes on
 * from: "train/lm/w/adam/m" of "lm/w". */
static bool follows_param(Report *r, const Slot *slot) {
  for (uint32_t i = 0; i < r->s->m->slots.len; i++) {
    const Slot *p = r->s->m->slots.data[i];
    const char *at = p->kind == SLOT_PARAM ? strstr(slot->path, p->path) : NULL;
    if (at && at > slot->path && at[strlen(p->path)] == '/' &&
        placement_equal(&p->placement, &slot->placement))
      return true;
  }
  return false;
}

static void slots(Report *r, SlotKind kind, const char *text) {
  int n = 0, alike = 0;
  int64_t bytes = 0;
  for (uint32_t i = 0; i < r->s->m->slots.len; i++) {
    const Slot *x = r->s->m->slots.data[i];
    if (x->kind != kind) continue;
    if (!n++) title(r, sym_fmt(r->s->cx, "%s, and bytes a device", text));
    if (kind == SLOT_OPTIM && follows_param(r, x) && !r->s->o->explain_all) {
      alike++;
      bytes += device_bytes(r, &x->type, &x->placement);
      continue;
    }
    tensor(r, x->path, &x->type, &x->placement, slot_value(r, x));
  }
  if (!alike) return;
  buf_fmt(r->out, "%d that live where their parameters do: ", alike);
  add_bytes(r, bytes, 0);
  buf_add(r->out, " a device\n");
}

static void inputs(Report *r, const Entry *e) {
  title(r, "Inputs, and bytes a device");
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Value *v = e->region->params.data[i];
    if (e->ins.data[i].kind == BIND_INPUT)
      tensor(r, e->ins.data[i].name, &v->type, &v->placement, v);
  }
}

/* `layer`: of the value told of last. */
static void values_of(Report *r, const Region *region, Sym *layer) {
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = region->nodes.data[i];
    if (n->body) values_of(r, n->body, layer);
    for (uint32_t k = 0; k < n->outs.len; k++) {
      const Value *v = n->outs.data[k];
      bool wanted = v->name && !n->backward && v->type.rank > 0;
      if (n->op == OP_reshard || (!wanted && !r->s->o->explain_all)) continue;
      Buf name = {0};
      if (!*layer || strcmp(layer_of(n), *layer) != 0)
        buf_fmt(r->out, "in %s\n", *layer_of(n) ? layer_of(n) : "the entry");
      *layer = layer_of(n);
      buf_add(&name, "  ");
      shard_value_text(r->s, v, &name);
      tensor(r, name.data, &v->type, &v->placement, v);
      buf_free(&name);
    }
  }
}

/* ---- moves --------------------------------------------------------------- */

static int by_bytes(const void *x, const void *y) {
  const ShardMove *a = *(const ShardMove *const *)x;
  const ShardMove *b = *(const ShardMove *const *)y;
  int64_t p = a->move.bytes * a->times, q = b->move.bytes * b->times;
  if (p != q) return p < q ? 1 : -1;
  return (a > b) - (a < b);
}

/* How many of the rows that go to experts there is room for. */
static void room_for_rows(Report *r, const ShardMove *m) {
  const Type *t = &m->to->type;
  Axes before = m->from->placement.dims[0], after = m->to->placement.dims[0];
  double factor = r->s->o->expert_rows;
  if (!factor || !type_is_ragged(t) || before == after) return;
  if (axes_parts(r->s->m, after) <= axes_parts(r->s->m, before)) return;
  int64_t parts = axes_parts(r->s->m, m->to->placement.dims[1]);
  int64_t rows = (t->dims[1].size + parts - 1) / parts;
  Type from = placement_local(r->s->m, t, &m->from->placement);
  Type to = placement_local(r->s->m, t, &m->to->placement);
  int64_t bound =
      rounds_bound(rows, to.dims[0].size, from.dims[0].size, factor);
  if (bound < rows)
    buf_fmt(r->out,
            "    each has room for %lld of %lld rows (--expert-rows=%g), more "
            "go in rounds\n",
            (long long)bound, (long long)rows, factor);
}

static void one_move(Report *r, const ShardMove *m) {
  Buf name = {0};
  for (int k = 0; k < m->move.n; k++) {
    buf_fmt(&name, "%s%s", k ? ", " : "", move_names[m->move.steps[k].kind]);
    axes_text(r->s->m, m->move.steps[k].axes, &name);
  }
  buf_fmt(r->out, "%-*s ", NAME_WIDTH, name.data);
  buf_free(&name);
  add_bytes(r, m->move.bytes * m->times, 10);
  if (m->times > 1) {
    char each[16];
    bytes_text(m->move.bytes, each);
    buf_fmt(r->out, "  %lld times %s", (long long)m->times, each);
  }
  buf_add(r->out, "\n    ");
  shard_value_text(r->s, m->from, r->out);
  Sym loc = m->from->def && m->from->name ? node_loc(r->s->cx, m->from->def)
                                          : "";
  if (*loc) buf_fmt(r->out, " at %s", loc);
  if (m->from->def && *layer_of(m->from->def))
    buf_fmt(r->out, " in %s", layer_of(m->from->def));
  buf_add(r->out, "\n    ");
  add_type(r, &m->from->type, &m->from->placement);
  buf_add(r->out, "  to  ");
  add_type(r, &m->to->type, &m->to->placement);
  buf_add(r->out, "\n");
  room_for_rows(r, m);
  shard_move_text(r->s, m, "    ", r->out);
}

static void moves(Report *r, const Entry *e) {
  uint32_t n = 0;
  const ShardMove **all =
      NEW_ARRAY(r->s->a, const ShardMove *, r->s->moves.len + 1);
  for (uint32_t i = 0; i < r->s->moves.len; i++)
    if (entry_of(&r->s->moves.data[i]) == e) all[n++] = &r->s->moves.data[i];
  title(r, sym_fmt(r->s->cx, "What moves in %s, most first", e->name));
  qsort(all, n, sizeof *all, by_bytes);
  for (uint32_t i = 0; i < n; i++)
    one_move(r, all[i]);
}

void shard_explain(Shard *s, Buf *out) {
  Report r = {s, out};
  const Entry *e = ir_main_entry(s->m);
  if (!e) {
    buf_add(out, "the model has no entry to tell of\n");
    return;
  }
  summary(&r, e);
  moves(&r, e);
  slots(&r, SLOT_PARAM, "Parameters");
  slots(&r, SLOT_OPTIM, "Optimiser states");
  slots(&r, SLOT_STATE, "States");
  inputs(&r, e);
  title(&r, sym_fmt(s->cx, "Values of %s, and bytes a device", e->name));
  Sym layer = NULL;
  values_of(&r, e->region, &layer);
}
