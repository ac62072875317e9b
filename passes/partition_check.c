/* partition_check.c: whether every value is where its node wants it.
 *
 * `shard` promises it; text that was edited may say anything. Each unit of
 * shard_rules.c is looked at with the placements that are written: dims of one
 * factor have the same axes, all else is whole, and what is summed over split
 * dims is a part of a sum. Only a reshard has its result elsewhere. */
#include "pass.h"

#include <string.h>

typedef struct Check {
  Module *m;
} Check;

static bool fail(const Check *c, const ShardUnit *u, Span at, const char *what,
                 uint32_t i, const Value *v, const Placement *want) {
  Buf now = {0}, then = {0};
  placement_text(c->m, &v->type, &v->placement, &now);
  placement_text(c->m, &v->type, want, &then);
  if (u->slot)
    diag_error(c->m->cx, at, "slot \"%s\": its next value is %s, not %s",
               u->slot->path, now.data, then.data);
  else
    diag_error(c->m->cx, at, "%s: %s %u is %s, not %s", u->what, what, i,
               now.data, then.data);
  diag_note(c->m->cx, (Span){0},
            "a reshard takes a value from one placement to another");
  buf_free(&now);
  buf_free(&then);
  return false;
}

/* Where the model says it, or the entry. */
static Span said_at(const Value *v) {
  return v->said.hi ? v->said : v->region->entry->span;
}

static Span span_of(const ShardUnit *u) {
  if (u->n) return u->n->span;
  if (u->slot) return u->slot->span;
  return said_at(u->outs.len ? u->outs.data[0].v : u->ins.data[0].v);
}

/* ---- what a unit has ----------------------------------------------------- */

/* The axes of each factor are those of the first dim that has it. */
static void take_axes(ShardUnit *u, const ShardEnd *e, const Placement *at,
                      bool *seen) {
  for (int d = 0; d < e->v->type.rank; d++) {
    int f = e->factor[d];
    if (f < 0 || seen[f]) continue;
    u->factors[f].axes = at->dims[d];
    seen[f] = true;
  }
}

static void read_unit(ShardUnit *u) {
  bool seen[MAX_FACTORS] = {false};
  for (int f = 0; f < u->n_factors; f++)
    seen[f] = u->slot != NULL; /* said by the slot itself */
  for (uint32_t i = 0; i < u->ins.len; i++)
    take_axes(u, &u->ins.data[i], &u->ins.data[i].v->placement, seen);
  for (uint32_t i = 0; i < u->outs.len; i++)
    take_axes(u, &u->outs.data[i], &u->outs.data[i].v->placement, seen);
  if (u->linear && u->ins.len)
    u->partial = u->ins.data[0].v->placement.partial;
}

/* ---- against what it should have ----------------------------------------- */

static unsigned axes_set(Axes a) {
  unsigned set = 0;
  for (; a; a >>= 4)
    set |= 1u << axes_at(a, 0);
  return set;
}

static bool is_there(const Value *v, const Placement *want) {
  const Placement *p = &v->placement;
  return memcmp(p->dims, want->dims, sizeof p->dims) == 0 &&
         axes_set(p->partial) == axes_set(want->partial) &&
         (!p->partial || p->kind == want->kind);
}

static bool check_even(const Check *c, const ShardUnit *u) {
  for (int i = 0; i < u->n_factors; i++) {
    const ShardFactor *f = &u->factors[i];
    int64_t parts = axes_parts(c->m, f->axes);
    if (!f->even || f->size % parts == 0) continue;
    diag_error(c->m->cx, span_of(u),
               "%s: dims that do not divide by %lld devices are split",
               u->what, (long long)parts);
    return false;
  }
  return true;
}

static bool check_unit(const Check *c, ShardUnit *u) {
  read_unit(u);
  for (uint32_t i = 0; i < u->ins.len; i++) {
    Placement want = shard_wanted(u, i);
    if (!is_there(u->ins.data[i].v, &want))
      return fail(c, u, span_of(u), "operand", i, u->ins.data[i].v, &want);
  }
  for (uint32_t i = 0; i < u->outs.len; i++) {
    Placement want = shard_made(u, i);
    if (!is_there(u->outs.data[i].v, &want))
      return fail(c, u, span_of(u), "result", i, u->outs.data[i].v, &want);
  }
  return check_even(c, u);
}

/* Sums can be finished, not taken apart again. */
static bool check_reshard(const Check *c, const Node *n) {
  const Value *x = n->ins.data[0], *y = n->outs.data[0];
  const Placement *from = &x->placement, *to = &y->placement;
  if (!(axes_set(to->partial) & ~axes_set(from->partial)) &&
      (!to->partial || to->kind == from->kind))
    return true;
  Buf text = {0};
  placement_text(c->m, &y->type, to, &text);
  diag_error(c->m->cx, n->span, "reshard: nothing makes %s of its operand",
             text.data);
  buf_free(&text);
  return false;
}

/* Parts that are put together again, padding included, are in bounds. */
static bool check_size(const Check *c, Span at, const char *what,
                       const Value *v) {
  Type padded = placement_local(c->m, &v->type, &v->placement);
  for (int d = 0; d < padded.rank; d++)
    padded.dims[d].size *= axes_parts(c->m, v->placement.dims[d]);
  return placement_is_whole(&v->placement) ||
         ir_check_type(c->m->cx, at, what, &padded);
}

/* ---- text of one rank's part --------------------------------------------- */

static bool is_part(const Module *m, const Entry *e, const Binding *b,
                    const Value *v, bool given) {
  if (b->kind != BIND_SLOT) return false;
  const Slot *s = ir_slot((Module *)m, b->name);
  bool whole = type_equal(&s->type, &v->type) &&
               (!given || placement_equal(&s->placement, &v->placement));
  if (!whole)
    diag_error(m->cx, e->span,
               "@%s has one rank's part of slot \"%s\" already; "
               "--from=recompute goes on from there", e->name, s->path);
  return !whole;
}

static bool has_exchange(const Module *m, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body && has_exchange(m, n->body)) return true;
    if (op_info[n->op].lower != LOWER_COMM && n->op != OP_local_slice) continue;
    diag_error(m->cx, n->span,
               "%s: speaks of one rank's part already; --from=recompute goes "
               "on from there", op_info[n->op].name);
    return true;
  }
  return false;
}

bool partition_is_done(const Module *m) {
  for (uint32_t i = 0; i < m->entries.len; i++) {
    const Entry *e = m->entries.data[i];
    const Region *r = e->region;
    for (uint32_t k = 0; k < e->ins.len; k++)
      if (is_part(m, e, &e->ins.data[k], r->params.data[k], true)) return true;
    for (uint32_t k = 0; k < e->outs.len; k++)
      if (is_part(m, e, &e->outs.data[k], r->results.data[k], false))
        return true;
    if (has_exchange(m, r)) return true;
  }
  return false;
}

/* ---- the module ---------------------------------------------------------- */

/* How many rows a rank has is known in the region that they start in. */
static bool check_rows(const Check *c, const Node *n) {
  bool by_ids = n->op == OP_combine || n->op == OP_row_dot;
  if (!by_ids && n->op != OP_reshard) return true;
  const Node *owner = ir_ragged_owner(n->ins.data[0]);
  if (!owner || owner->region == n->region) return true;
  diag_error(c->m->cx, n->span,
             "%s: on several devices a loop's body cannot have rows that were "
             "dispatched outside of it",
             op_info[n->op].name);
  return false;
}

static bool check_node(const Check *c, const Node *n) {
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (!check_size(c, n->span, op_info[n->op].name, n->outs.data[i]))
      return false;
  if (!check_rows(c, n)) return false;
  if (n->op == OP_reshard) return check_reshard(c, n);
  if (n->op != OP_annotate) return true;
  diag_error(c->m->cx, n->span, "annotate: is what `shard` replaces");
  return false;
}

static bool check_nodes(const Check *c, const Region *r) {
  bool ok = true;
  for (uint32_t i = 0; i < r->nodes.len && ok; i++) {
    const Node *n = r->nodes.data[i];
    ok = check_node(c, n) && (!n->body || check_nodes(c, n->body));
  }
  return ok;
}

/* The nearest sizes that divide are told, as the model gives them. */
static bool check_input(const Check *c, const Binding *b, const Value *v) {
  for (int d = 0; d < v->type.rank; d++) {
    int64_t size = v->type.dims[d].size;
    int64_t parts = axes_parts(c->m, v->placement.dims[d]);
    int64_t less = size / parts * parts;
    if (size % parts == 0) continue;
    Buf text = {0};
    placement_text(c->m, &v->type, &v->placement, &text);
    diag_error(c->m->cx, said_at(v),
               "input '%s' is %s: %lld does not divide by %lld devices",
               b->name, text.data, (long long)size, (long long)parts);
    buf_free(&text);
    if (less)
      diag_note(c->m->cx, (Span){0}, "the nearest sizes that do: %lld and %lld",
                (long long)less, (long long)(less + parts));
    else
      diag_note(c->m->cx, (Span){0}, "the nearest size that does: %lld",
                (long long)parts);
    return false;
  }
  return true;
}

static bool check_entry(const Check *c, const Entry *e) {
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Value *v = e->region->params.data[i];
    if (!check_size(c, said_at(v), "parameter", v) ||
        (e->ins.data[i].kind == BIND_INPUT &&
         !check_input(c, &e->ins.data[i], v)))
      return false;
  }
  return check_nodes(c, e->region);
}

bool partition_check(Module *m) {
  Check c = {.m = m};
  if (mesh_devices(m) > MAX_RANKS) {
    diag_error(m->cx, m->mesh.data[0].span,
               "the mesh has more than %lld ranks", (long long)MAX_RANKS);
    return false;
  }
  Shard s = {.cx = m->cx, .m = m, .a = &m->cx->scratch};
  if (partition_is_done(m)) return false;
  bool ok = true;
  for (uint32_t i = 0; i < m->entries.len; i++)
    if (!check_entry(&c, m->entries.data[i])) ok = false;
  if (!ok) return false;
  shard_units(&s);
  for (uint32_t i = 0; i < s.units.len; i++) {
    ShardUnit *u = s.units.data[i];
    if ((!u->n || u->n->op != OP_reshard) && !check_unit(&c, u)) ok = false;
  }
  return ok;
}
