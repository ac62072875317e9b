/* verify.c: every invariant of the IR, one function a group.
 *
 * Runs after each pass, where a failure is the pass's mistake, and on text that
 * was read, where it is the user's; so it reports diagnostics and never asserts
 * what text could break. */
#include "ir.h"

#include <ctype.h>
#include <string.h>

typedef struct Verify {
  Ctx *cx;
  Module *m;
  Entry *e;
  bool expanded;
  Map defined; /* values of e seen so far */
  Map waits;   /* exchanges of e -> their waits */
  Map sources; /* ragged ones -> what tells whose their rows are */
  TypeVec types; /* of the node at hand, as inferred */
  const Node *loops[MAX_LOOPS + 1]; /* scans around, from the outermost */
  int depth;
  bool wholes, parts; /* slots are bound so, where that is not the same */
} Verify;

static bool fail(Verify *V, Span s, const char *fmt, ...) PRINTF_LIKE(3, 4);
static bool fail(Verify *V, Span s, const char *fmt, ...) {
  char text[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  if (V->e)
    diag_error(V->cx, s, "@%s: %s", V->e->name, text);
  else
    diag_error(V->cx, s, "%s", text);
  return false;
}

static const char *op_name(const Node *n) {
  return op_info[n->op].name;
}

/* ---- types by themselves ------------------------------------------------ */

bool ir_check_type(Ctx *cx, Span span, const char *what, const Type *t) {
  for (int i = 0; i < t->rank; i++) {
    if (t->dims[i].size < 1 || t->dims[i].size > MAX_DIM) {
      diag_error(cx, span, "%s: dim %d of %s is not in 1 to %lld", what, i,
                 type_text(cx, t), (long long)MAX_DIM);
      return false;
    }
    if (t->dims[i].ragged && i != 1) {
      diag_error(cx, span, "%s: dim %d of %s is ragged, only dim 1 may be",
                 what, i, type_text(cx, t));
      return false;
    }
  }
  int64_t elements = type_elements(t);
  if (elements >= 0 && elements <= MAX_ELEMENTS) return true;
  diag_error(cx, span, "%s: %s has more than %lld elements", what,
             type_text(cx, t), (long long)MAX_ELEMENTS);
  return false;
}

/* ---- names -------------------------------------------------------------- */

static bool is_name(const char *s) {
  if (!s || !(isalpha((unsigned char)*s) || *s == '_')) return false;
  for (; *s; s++)
    if (!isalnum((unsigned char)*s) && *s != '_' && *s != '.') return false;
  return true;
}

/* Marks `name` as used by a `what`; false when it was. */
static bool claim(Verify *V, Map *seen, Sym name, const char *what, Span s) {
  if (map_get(seen, name))
    return fail(V, s, "%s \"%s\" is given twice", what, name);
  map_put(&V->cx->scratch, seen, name, V);
  return true;
}

static bool check_module_names(Verify *V) {
  Map axes = {0}, options = {0}, slots = {0}, entries = {0};
  for (uint32_t i = 0; i < V->m->mesh.len; i++) {
    const MeshAxis *a = &V->m->mesh.data[i];
    if (!is_name(a->name) || a->size < 1 || a->size > MAX_DIM)
      return fail(V, a->span, "mesh axis %s=%lld is not a name and a size",
                  a->name, (long long)a->size);
    if (!claim(V, &axes, a->name, "mesh axis", a->span)) return false;
  }
  for (uint32_t i = 0; i < V->m->options.len; i++) {
    const Option *o = &V->m->options.data[i];
    if (!is_name(o->name))
      return fail(V, o->span, "option \"%s\" is not a name", o->name);
    if (!claim(V, &options, o->name, "option", o->span)) return false;
  }
  for (uint32_t i = 0; i < V->m->slots.len; i++) {
    const Slot *s = V->m->slots.data[i];
    if (!*s->path) return fail(V, s->span, "a slot's path is empty");
    if (!claim(V, &slots, s->path, "slot", s->span)) return false;
  }
  for (uint32_t i = 0; i < V->m->entries.len; i++) {
    const Entry *e = V->m->entries.data[i];
    if (!is_name(e->name))
      return fail(V, e->span, "entry \"%s\" is not a name", e->name);
    if (!claim(V, &entries, e->name, "entry", e->span)) return false;
  }
  return true;
}

static bool check_value_name(Verify *V, const Value *v, Span s) {
  return !v->name || is_name(v->name) ||
         fail(V, s, "value \"%%%s\" is not a name", v->name);
}

/* ---- placements --------------------------------------------------------- */

static bool check_placement(Verify *V, Span s, const char *what, const Type *t,
                            const Placement *p) {
  Sym why;
  return placement_check(V->m, t, p, &why) || fail(V, s, "%s: %s", what, why);
}

/* What a program is given, or its model says, is no part of a sum. */
static bool check_given(Verify *V, Span s, const char *what, const Type *t,
                        const Placement *p) {
  if (!check_placement(V, s, what, t, p)) return false;
  return !p->partial || fail(V, s, "%s: may not be partial", what);
}

/* ---- slots and bindings ------------------------------------------------- */

/* Bytes [offset, offset + bytes) lie in a slab of `size`. */
static bool fits(int64_t offset, int64_t bytes, int64_t size) {
  return offset >= 0 && bytes >= 0 && offset <= size && bytes <= size - offset;
}

static bool check_slots(Verify *V) {
  static const Slab slabs[] = {[SLOT_PARAM] = SLAB_PARAM,
                               [SLOT_OPTIM] = SLAB_OPTIM,
                               [SLOT_STATE] = SLAB_STATE};
  for (uint32_t i = 0; i < V->m->slots.len; i++) {
    const Slot *s = V->m->slots.data[i];
    if (!ir_check_type(V->cx, s->span, s->path, &s->type)) return false;
    if (type_is_ragged(&s->type))
      return fail(V, s->span, "slot \"%s\" may not be ragged", s->path);
    if (!check_given(V, s->span, s->path, &s->type, &s->placement))
      return false;
    if (s->place.slab == SLAB_NONE) continue;
    Type local = placement_local(V->m, &s->type, &s->placement);
    if (s->place.slab != slabs[s->kind] ||
        !fits(s->place.offset, type_bytes(&local),
              V->m->slab_bytes[s->place.slab]))
      return fail(V, s->span, "slot \"%s\" lies outside of its slab", s->path);
  }
  return true;
}

static const Option *find_option(const Module *m, Sym name) {
  for (uint32_t i = 0; i < m->options.len; i++)
    if (strcmp(m->options.data[i].name, name) == 0) return &m->options.data[i];
  return NULL;
}

static bool want_type(Verify *V, const char *what, Sym name, const Type *want,
                      const Type *got) {
  return type_equal(want, got) ||
         fail(V, V->e->span, "%s \"%s\" is %s, but bound to %s", what, name,
              type_text(V->cx, want), type_text(V->cx, got));
}

/* A slot is bound as the whole tensor up to `shard`, as one device's part from
 * `partition` on: all entries are at the same stage. */
static bool check_stage(Verify *V, Sym path, bool whole, bool part) {
  V->wholes |= whole && !part;
  V->parts |= part && !whole;
  return !(V->wholes && V->parts) ||
         fail(V, V->e->span, "slot \"%s\" is bound as %s, others are as %s",
              path, whole ? "a whole" : "one device's part",
              whole ? "one device's parts" : "wholes");
}

static bool check_slot_type(Verify *V, const Slot *s, const Type *t) {
  Type local = placement_local(V->m, &s->type, &s->placement);
  bool whole = type_equal(&s->type, t), part = type_equal(&local, t);
  if (whole || part) return check_stage(V, s->path, whole, part);
  if (type_equal(&s->type, &local))
    return want_type(V, "slot", s->path, &s->type, t);
  Buf all = {0};
  placement_text(V->m, &s->type, &s->placement, &all);
  fail(V, V->e->span, "slot \"%s\" is %s, %s on one device, but bound to %s",
       s->path, all.data, type_text(V->cx, &local), type_text(V->cx, t));
  buf_free(&all);
  return false;
}

/* A whole that an entry reads lives where the slot does; a part has no place
 * but its device. */
static bool check_slot_place(Verify *V, const Slot *s, const Value *v) {
  const Placement *p = &v->placement;
  Type local = placement_local(V->m, &s->type, &s->placement);
  bool whole = type_equal(&s->type, &v->type) &&
               placement_equal(&s->placement, p);
  bool part = type_equal(&local, &v->type) && placement_is_whole(p);
  if (whole || part) return check_stage(V, s->path, whole, part);
  return fail(V, V->e->span, "slot \"%s\" is placed elsewhere than the "
              "parameter that it is bound to", s->path);
}

static bool check_slot_binding(Verify *V, Sym path, const Value *v,
                               bool is_read) {
  const Slot *s = ir_slot(V->m, path);
  if (!s) return fail(V, V->e->span, "there is no slot \"%s\"", path);
  return check_slot_type(V, s, &v->type) &&
         (!is_read || check_slot_place(V, s, v));
}

static bool check_option_binding(Verify *V, Sym name, const Type *t) {
  if (!find_option(V->m, name))
    return fail(V, V->e->span, "there is no option \"%s\"", name);
  return (t->rank == 0 && dtype_info[t->dtype].kind == DK_FLOAT) ||
         fail(V, V->e->span, "option \"%s\" is a float[], but bound to %s",
              name, type_text(V->cx, t));
}

static bool check_parameter(Verify *V, const Binding *b, const Value *v) {
  Type i32 = type_scalar(DT_i32), u32 = type_scalar(DT_u32);
  const Type *t = &v->type;
  if (type_is_ragged(t))
    return fail(V, V->e->span, "a parameter may not be ragged: %s",
                type_text(V->cx, t));
  switch (b->kind) {
  case BIND_SLOT: return check_slot_binding(V, b->name, v, true);
  case BIND_OPTION: return check_option_binding(V, b->name, t);
  case BIND_STEP: return want_type(V, "value", "step", &i32, t);
  case BIND_SEED: return want_type(V, "value", "seed", &u32, t);
  case BIND_INPUT:
    return is_name(b->name) ||
           fail(V, V->e->span, "input \"%s\" is not a name", b->name);
  case BIND_REPORT:
  case BIND_PROBE: break;
  }
  return fail(V, V->e->span, "a parameter is bound to a report or probe");
}

static bool check_result(Verify *V, const Binding *b, const Value *v) {
  if (type_is_ragged(&v->type) && b->kind != BIND_PROBE)
    return fail(V, V->e->span, "result \"%s\" may not be ragged", b->name);
  if (b->kind == BIND_SLOT) return check_slot_binding(V, b->name, v, false);
  return b->kind == BIND_REPORT || b->kind == BIND_PROBE ||
         fail(V, V->e->span, "a result is bound to an input");
}

static bool check_bindings(Verify *V) {
  static const char *const what[] = {
      [BIND_SLOT] = "slot",  [BIND_INPUT] = "input", [BIND_OPTION] = "option",
      [BIND_STEP] = "step",  [BIND_SEED] = "seed",   [BIND_REPORT] = "report",
      [BIND_PROBE] = "probe"};
  Region *r = V->e->region;
  Map in[BIND_PROBE + 1] = {{0}}, out[BIND_PROBE + 1] = {{0}};
  if (V->e->ins.len != r->params.len || V->e->outs.len != r->results.len)
    return fail(V, V->e->span,
                "has %u bindings for %u parameters, %u for %u "
                "results",
                V->e->ins.len, r->params.len, V->e->outs.len, r->results.len);
  for (uint32_t i = 0; i < V->e->ins.len; i++) {
    const Binding *b = &V->e->ins.data[i];
    Sym name = b->name ? b->name : "";
    if (!claim(V, &in[b->kind], name, what[b->kind], V->e->span) ||
        !check_parameter(V, b, r->params.data[i]))
      return false;
  }
  for (uint32_t i = 0; i < V->e->outs.len; i++) {
    const Binding *b = &V->e->outs.data[i];
    if (!claim(V, &out[b->kind], b->name, what[b->kind], V->e->span) ||
        !check_result(V, b, r->results.data[i]))
      return false;
  }
  return true;
}

/* ---- order and ownership ------------------------------------------------ */

/* A value is defined once, by the node or region that it names. */
static bool define(Verify *V, Region *r, Value *v, const Node *def,
                   uint32_t index, Span s) {
  if (v->def != def || v->region != r || v->index != index)
    return fail(V, s, "a value does not know where it is defined");
  if (v->fwd) return fail(V, s, "a replaced value is defined; sweep first");
  if (map_get(&V->defined, v)) return fail(V, s, "a value is defined twice");
  map_put(&V->cx->scratch, &V->defined, v, v);
  return check_value_name(V, v, s);
}

/* `v` was defined before, in the same region. */
static bool check_use(Verify *V, const Region *r, const Value *v, Span s,
                      const char *by) {
  const char *name = v->name ? v->name : "?";
  if (v->fwd)
    return fail(V, s, "%s: uses %%%s, which was replaced; sweep first", by,
                name);
  if (v->region != r)
    return fail(V, s, "%s: uses %%%s of another region", by, name);
  return map_get(&V->defined, v) ||
         fail(V, s, "%s: uses %%%s before its definition", by, name);
}

/* ---- exchanges ---------------------------------------------------------- */

/* A wait takes all results of one exchange, in order. */
static bool check_wait(Verify *V, const Node *n) {
  const Node *x = n->ins.len ? n->ins.data[0]->def : NULL;
  if (!x || !ir_is_exchange(x))
    return fail(V, n->span, "wait: operand 0 is no result of an exchange");
  bool all = x->outs.len == n->ins.len;
  for (uint32_t i = 0; all && i < n->ins.len; i++)
    all = n->ins.data[i] == x->outs.data[i];
  return all || fail(V, n->span, "wait: operands are not all results of one "
                     "exchange in their order");
}

/* Notes the exchanges of a region that are waited for. */
static bool check_waits(Verify *V, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op != OP_wait) continue;
    if (!check_wait(V, n)) return false;
    if (map_get(&V->waits, ir_waited(n)))
      return fail(V, n->span, "wait: the exchange is waited for twice");
    map_put(&V->cx->scratch, &V->waits, ir_waited(n), (void *)n);
  }
  return true;
}

/* Nothing reads what is still on its way: `by` may be the wait itself. */
static bool check_here(Verify *V, const Value *v, const Node *by, Span s) {
  const Node *wait = v->def ? map_get(&V->waits, v->def) : NULL;
  return !wait || wait == by ||
         fail(V, s, "%s: reads a result of %s that is waited for elsewhere",
              by ? op_name(by) : "result", op_info[v->def->op].name);
}

static bool check_operands(Verify *V, const Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (!check_use(V, n->region, n->ins.data[i], n->span, op_name(n)) ||
        !check_here(V, n->ins.data[i], n, n->span))
      return false;
  return true;
}

static bool check_owner(Verify *V, const Region *r, const Node *n) {
  if (n->region != r)
    return fail(V, n->span, "%s: stands in a region that it does not name",
                op_name(n));
  if (op_is(n->op, TRAIT_REGION) != (n->body != NULL))
    return fail(V, n->span, "%s: %s", op_name(n),
                n->body ? "has a body" : "has no body");
  if (n->body && (n->body->owner != n || n->body->entry != V->e))
    return fail(V, n->span, "%s: the body names another owner", op_name(n));
  return true;
}

/* ---- types -------------------------------------------------------------- */

static bool check_types(Verify *V, const Node *n) {
  TypeVec *types = &V->types;
  uint32_t errors = V->cx->errors;
  types->len = 0;
  if (!ir_infer_types(V->cx, n, types)) {
    assert(V->cx->errors > errors);
    return false;
  }
  if (types->len != n->outs.len)
    return fail(V, n->span, "%s: has %u results, not %u", op_name(n),
                types->len, n->outs.len);
  for (uint32_t i = 0; i < types->len; i++)
    if (!type_equal(&types->data[i], &n->outs.data[i]->type))
      return fail(V, n->span, "%s: result %u is %s, not %s", op_name(n), i,
                  type_text(V->cx, &types->data[i]),
                  type_text(V->cx, &n->outs.data[i]->type));
  return true;
}

static bool check_flags(Verify *V, const Node *n) {
  if (n->backward && n->remat)
    return fail(V, n->span, "%s: a gradient is in recompute group %u",
                op_name(n), n->remat);
  return !V->expanded || !op_is(n->op, TRAIT_HIGH) ||
         fail(V, n->span, "%s: must be gone after expand", op_name(n));
}

/* ---- ragged values ------------------------------------------------------ */

/* What tells whose the rows of `v` are, as ir_outermost; NULL: any, or plain.
 * The same as ir_ragged_source gives, found without a search. */
static Value *source_of(const Verify *V, const Value *v) {
  return map_get(&V->sources, v);
}

static void set_source(Verify *V, const Value *v, Value *source) {
  if (source && type_is_ragged(&v->type))
    map_put(&V->cx->scratch, &V->sources, v, source);
}

/* What it is outside of bodies, and before it went to another place. */
static Value *told_by(Value *v) {
  v = ir_outermost(v);
  while (v->def && v->def->op == OP_reshard)
    v = ir_outermost(v->def->ins.data[0]);
  return v;
}

static Value *result_source(const Verify *V, const Node *n, uint32_t index) {
  int told = ir_rows_operand(n->op);
  if (told >= 0) return told_by(n->ins.data[told]);
  if (n->op == OP_fused) return source_of(V, n->body->results.data[index]);
  if (n->op == OP_scan)
    return index < attr_int(n, "carries") ? source_of(V, n->ins.data[index])
                                          : NULL;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (source_of(V, n->ins.data[i])) return source_of(V, n->ins.data[i]);
  return NULL;
}

/* Parameters have the sources of the operands that they stand for. */
static void set_param_sources(Verify *V, const Node *n) {
  uint32_t first = n->op == OP_scan; /* the index has no operand */
  for (uint32_t i = 0; i < n->ins.len && first + i < n->body->params.len; i++)
    set_source(V, n->body->params.data[first + i],
               source_of(V, n->ins.data[i]));
}

/* The operand by which `n` finds the rows of its ragged operands: ids, offsets,
 * or the offsets of the route that made its slots. NULL: it has none. */
static Value *rows_by(const Node *n) {
  bool first = n->op == OP_combine || n->op == OP_rows_combine ||
               n->op == OP_rows_send;
  uint32_t at = first ? 1 : n->op == OP_rows_return ? ROWS_THEIRS : 2;
  bool slots = n->op == OP_rows_combine || n->op == OP_rows_dot;
  bool direct = n->op == OP_combine || n->op == OP_row_dot ||
                n->op == OP_rows_send || n->op == OP_rows_return ||
                (op_is(n->op, TRAIT_OFFSETS) && n->ins.len > 2);
  if (!slots && !direct) return NULL;
  Value *by = told_by(n->ins.data[at]);
  if (direct) return by;
  return by->def && by->def->op == OP_route ? by->def->outs.data[0] : NULL;
}

static bool check_ragged(Verify *V, const Node *n) {
  Value *all = rows_by(n);
  /* A body's own nodes are looked at one by one: it may work on several. */
  for (uint32_t i = 0; i < n->ins.len && !n->body; i++) {
    Value *source = source_of(V, n->ins.data[i]);
    bool back = n->op == OP_rows_return && i == ROWS_OTHERS;
    if (back && source && source != told_by(n->ins.data[ROWS_MINE]))
      return fail(V, n->span, "%s: rows of operand %u are not the result's",
                  op_name(n), i);
    if (back) continue;
    if (source && all && source != all)
      return fail(V, n->span, "%s: rows of operand %u are grouped by other ids",
                  op_name(n), i);
    if (source) all = source;
  }
  if (n->op != OP_scan) return true;
  for (uint32_t i = 0; i < (uint32_t)attr_int(n, "carries"); i++) {
    Value *start = source_of(V, n->ins.data[i]);
    Value *end = source_of(V, n->body->results.data[i]);
    if (start && end && start != end)
      return fail(V, n->span, "scan: carry %u ends grouped by other ids", i);
  }
  return true;
}

/* ---- places ------------------------------------------------------------- */

static int64_t slab_size(const Verify *V, Slab slab) {
  switch (slab) {
  case SLAB_PARAM:
  case SLAB_OPTIM:
  case SLAB_STATE: return V->m->slab_bytes[slab];
  case SLAB_INPUT: return V->e->input_bytes;
  case SLAB_REPORT: return V->e->report_bytes;
  case SLAB_ARENA: return V->e->arena_bytes;
  case SLAB_NONE:
  case SLAB_COUNT: break;
  }
  return 0;
}

/* In the last iteration of the loops around, too, the value is in its slab. */
static bool check_place(Verify *V, const Value *v, Span s) {
  const Place *p = &v->place;
  if (p->slab == SLAB_NONE) return true;
  if (V->e->arena_bytes < 0)
    return fail(V, s, "a value has a place, but the entry has no plan");
  int64_t bytes = type_bytes(&v->type), reach;
  bool ok = true;
  for (int i = 0; i < MAX_LOOPS; i++) {
    if (!p->stride[i]) continue;
    if (p->stride[i] < 0 || i >= V->depth)
      return fail(V, s, "stride %lld for loop %d of %d",
                  (long long)p->stride[i], i + 1, V->depth);
    int64_t last = attr_int(V->loops[i], "length") - 1;
    ok = ok && !__builtin_mul_overflow(p->stride[i], last, &reach) &&
         !__builtin_add_overflow(bytes, reach, &bytes);
  }
  return (ok && fits(p->offset, bytes, slab_size(V, p->slab))) ||
         fail(V, s, "a value of %lld bytes at %lld lies outside of its slab",
              (long long)bytes, (long long)p->offset);
}

/* ---- regions ------------------------------------------------------------ */

static bool check_region(Verify *V, Region *r, Span s);

static bool check_body(Verify *V, const Node *n) {
  bool loop = n->op == OP_scan;
  if (loop && V->depth == MAX_LOOPS)
    return fail(V, n->span, "scans nested deeper than %d", MAX_LOOPS);
  if (loop) V->loops[V->depth++] = n;
  set_param_sources(V, n);
  bool ok = check_region(V, n->body, n->span);
  V->depth -= loop;
  return ok;
}

static bool check_product(Verify *V, const Node *n) {
  if (n->op != OP_fused || strcmp(attr_sym(n, "kind"), "product")) return true;
  const char *fault = ir_product_fault(n);
  return !fault || fail(V, n->span, "fused product: %s", fault);
}

/* Owner and operands first: the rest relies on them. */
static bool check_inside(Verify *V, Region *r, const Node *n) {
  return check_owner(V, r, n) && check_operands(V, n) &&
         (!n->body || check_body(V, n)) && check_types(V, n) &&
         check_flags(V, n) && check_ragged(V, n) && check_product(V, n);
}

static bool check_node(Verify *V, Region *r, const Node *n) {
  bool right = check_inside(V, r, n), ok = right;
  for (uint32_t i = 0; i < n->outs.len; i++) {
    Value *v = n->outs.data[i]; /* defined even so: its uses are not wrong */
    if (!define(V, r, v, n, i, n->span)) return false;
    if (!right) continue;
    set_source(V, v, result_source(V, n, i));
    if (!check_place(V, v, n->span) ||
        !(n->op == OP_annotate ? check_given : check_placement)(
            V, n->span, op_name(n), &v->type, &v->placement))
      ok = false;
  }
  return ok;
}

static bool check_region(Verify *V, Region *r, Span s) {
  for (uint32_t i = 0; i < r->params.len; i++)
    if (!define(V, r, r->params.data[i], NULL, i, s) ||
        !ir_check_type(V->cx, s, "parameter", &r->params.data[i]->type) ||
        !check_place(V, r->params.data[i], s) ||
        !(r->owner ? check_placement : check_given)(
            V, s, "parameter", &r->params.data[i]->type,
            &r->params.data[i]->placement))
      return false;
  bool ok = check_waits(V, r);
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (!check_node(V, r, r->nodes.data[i])) ok = false;
  for (uint32_t i = 0; ok && i < r->results.len; i++)
    ok = check_use(V, r, r->results.data[i], s, "result") &&
         check_here(V, r->results.data[i], NULL, s);
  return ok;
}

static bool check_entry(Verify *V) {
  Region *r = V->e->region;
  if (V->e->module != V->m || r->entry != V->e || r->owner)
    return fail(V, V->e->span, "the entry's region names another owner");
  V->defined = V->sources = V->waits = (Map){0};
  return check_region(V, r, V->e->span) && check_bindings(V);
}

bool ir_verify(Module *m, bool expanded) {
  Verify V = {.cx = m->cx, .m = m, .expanded = expanded};
  bool ok = check_module_names(&V) && check_slots(&V);
  for (uint32_t i = 0; i < m->entries.len; i++) {
    V.e = m->entries.data[i];
    if (!check_entry(&V)) ok = false;
  }
  return ok;
}
