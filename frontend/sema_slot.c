/* sema_slot.c: what outlives a step: param, state, set. The initial value of a
 * slot is worked out at its declaration, but built into the entries `init` (all
 * slots) and `reset` (states). */
#include "sema.h"

#include <string.h>

/* ---- initial values ------------------------------------------------------ */

/* A function is given zeros of the type, and returns the values. */
static Val apply_init(Sema *S, const Stmt *s, Item init, Type t) {
  if (init.val.kind != VAL_FN) return init.val;
  const Fn *fn = init.val.fn;
  ItemVec args = {0};
  Item zeros = {.val = val_int(0), .span = init.span};
  zeros.val = val_tensor(fe_const(S, zeros, t));
  vec_push(&S->cx->perm, &args, zeros);
  Sym name = fn->decl ? fn->decl->name.text : sym(S->cx, "");
  return fe_invoke(S, fn, &args, init.span,
                   path_join(S, s->slot.name.text, name));
}

/* The value of a slot of type `t`; NULL: reported. */
static Value *init_value(Sema *S, const Stmt *s, Type t) {
  Item it = {.val = val_int(0), .span = s->span};
  if (dtype_info[t.dtype].kind == DK_BOOL) it.val = val_bool(false);
  if (s->slot.init) it = fe_item(S, s->slot.init);
  it.val = apply_init(S, s, it, t);
  if (it.val.kind == VAL_ERROR) return NULL;
  if (val_is_number(it.val) || it.val.kind == VAL_BOOL)
    return fe_const(S, it, t);
  Value *v = fe_tensor(S, it);
  if (!v) return NULL;
  if (v->type.rank == 0 && v->type.dtype == t.dtype)
    return fe_broadcast(S, it.span, v, &t);
  if (type_equal(&v->type, &t)) return v;
  fe_error(S, it.span, "'%s' is %s, but its initial value is %s",
           s->slot.name.text, type_text(S->cx, &t), val_text(S, it.val));
  fe_note(S, s->slot.type->span, "the type is written here");
  return NULL;
}

/* Builds a slot's initial value into entry init or reset. */
static void build_init(Sema *S, Build *into, const Stmt *s, const Slot *slot) {
  Builder b = S->b;
  Build *build = S->build;
  ScanState *scan = S->scan;
  Value *where = S->where;
  bool in_optimiser = S->in_optimiser;
  S->build = into;
  S->scan = NULL;
  S->where = NULL;
  S->in_optimiser = false;
  S->b = ir_builder(S->cx, into->entry->region);
  S->b.layer = S->frame->path;
  Value *v = init_value(S, s, slot->type);
  if (v) {
    Binding to = {.kind = BIND_SLOT, .name = slot->path};
    ir_bind_out(into->entry, to, v);
  }
  S->b = b;
  S->build = build;
  S->scan = scan;
  S->where = where;
  S->in_optimiser = in_optimiser;
}

/* ---- declarations -------------------------------------------------------- */

static bool may_declare(Sema *S, const Stmt *s, const char *what) {
  if (S->build && !S->build->starting) return true;
  fe_error(S, s->span, "an initial value cannot have %s of its own", what);
  return false;
}

/* The same slot twice in one entry: two calls need two names. */
static bool check_once(Sema *S, const Stmt *s, Sym path) {
  for (uint32_t i = 0; i < S->build->slots.len; i++) {
    SlotUse *use = S->build->slots.data[i];
    if (use->slot->path != path) continue;
    fe_error(S, S->frame->up ? S->frame->call : s->span,
             "'%s' is declared twice in this entry; give one of the calls a "
             "name of its own: as \"name\"",
             path);
    if (use->call.file) fe_note(S, use->call, "the first comes from here");
    fe_note(S, use->span, "it is declared here");
    return false;
  }
  return true;
}

/* The slot that another entry has declared under this path. */
static bool check_same(Sema *S, const Stmt *s, const SlotUse *other,
                       SlotKind kind, Type t, const Placement *p) {
  const Slot *slot = other->slot;
  if (type_equal(&slot->type, &t) && slot->kind == kind)
    return place_agree(S, s->slot.type, &t, p, &slot->placement, other->span);
  fe_error(S, s->span, "'%s' is %s here, but %s elsewhere", slot->path,
           type_text(S->cx, &t), type_text(S->cx, &slot->type));
  fe_note(S, other->call.file ? other->call : other->span, "it became %s here",
          type_text(S->cx, &slot->type));
  return false;
}

static Slot *new_slot(Sema *S, const Stmt *s, SlotKind kind, Sym path, Type t,
                      const Placement *p) {
  Slot *slot = NEW(&S->cx->perm, Slot);
  *slot = (Slot){.kind = kind,
                 .path = path,
                 .type = t,
                 .placement = *p,
                 .span = s->span};
  vec_push(&S->cx->perm, &S->m->slots, slot);
  build_init(S, S->init, s, slot);
  if (kind == SLOT_STATE) build_init(S, S->reset, s, slot);
  return slot;
}

/* A state goes along with the batch. */
static bool slot_place(Sema *S, const Stmt *s, SlotKind kind, const Type *t,
                       Placement *out) {
  Sym what = sym_fmt(S->cx, "state '%s'", s->slot.name.text);
  return kind == SLOT_STATE ? place_even(S, s->slot.type, t, what, out)
                            : place_eval(S, s->slot.type, t, out);
}

/* The slot as a parameter of the entry being built. */
static SlotUse *declare(Sema *S, const Stmt *s, SlotKind kind, Sym path) {
  Type t;
  Placement p;
  SlotUse *other = map_get(&S->slots, path);
  if (!type_eval(S, s->slot.type, &t) || !check_once(S, s, path) ||
      !slot_place(S, s, kind, &t, &p) ||
      (other && !check_same(S, s, other, kind, t, &p)))
    return NULL;
  SlotUse *use = NEW(&S->cx->perm, SlotUse);
  *use = (SlotUse){.span = s->span, .layer = S->b.layer};
  use->slot = other ? other->slot : new_slot(S, s, kind, path, t, &p);
  if (S->frame->up) use->call = S->frame->call;
  Binding from = {.kind = BIND_SLOT, .name = path};
  use->before = ir_bind_in(S->build->entry, from, s->slot.name.text, t);
  place_set(S, use->before, &use->slot->placement, s->slot.type->span);
  vec_push(&S->cx->perm, &S->build->slots, use);
  if (!other) map_put(&S->cx->perm, &S->slots, path, use);
  return use;
}

void fe_param(Sema *S, const Stmt *s) {
  Val v = val_error;
  SlotUse *use = NULL;
  if (S->in_optimiser) {
    fe_error(S, s->span, "an optimiser has states, not parameters");
  } else if (may_declare(S, s, "parameters")) {
    Sym path = path_join(S, S->frame->path, s->slot.name.text);
    use = declare(S, s, SLOT_PARAM, path);
    if (use) v = val_tensor(use->before);
  }
  scope_add(S, s->slot.name, v)->slot = use;
}

/* A state is read without a gradient: it came from the step before. */
void fe_state(Sema *S, const Stmt *s) {
  Val v = val_error;
  SlotUse *use = NULL;
  if (may_declare(S, s, "states")) {
    SlotKind kind = S->in_optimiser ? SLOT_OPTIM : SLOT_STATE;
    Sym root = S->in_optimiser ? S->build->base : S->build->entry->name;
    Sym path =
        path_join(S, path_join(S, root, S->frame->path), s->slot.name.text);
    use = declare(S, s, kind, path);
  }
  if (use && S->in_optimiser) v = val_tensor(use->before);
  if (use && !S->in_optimiser)
    v = val_tensor(fe_unary_op(S, s->span, OP_stop_gradient,
                               value_here(S, use->before, s->span)));
  scope_add(S, s->slot.name, v)->slot = use;
}

/* ---- set ----------------------------------------------------------------- */

/* Whether `set` may change what `l` names, here. */
static bool may_set(Sema *S, const Name *name, const Local *l) {
  const SlotUse *use = l->slot;
  if (!use) {
    fe_error(S, name->span, "'%s' is no state and no parameter", name->text);
    fe_note(S, l->span, "it is declared here");
    return false;
  }
  bool is_param = use->slot->kind == SLOT_PARAM;
  if (S->scan) {
    fe_error(S, name->span,
             "a %s cannot be set inside of a scan; "
             "carry '%s' and set it after",
             is_param ? "parameter" : "state", name->text);
    return false;
  }
  if (!is_param || S->build->training) return true;
  fe_error(S, name->span,
           "a parameter is set where the model trains; "
           "write: if training { set %s = ... }",
           name->text);
  fe_note(S, S->build->entry->span, "this entry does not minimize");
  return false;
}

static void set_one(Sema *S, const Named *n, Span at) {
  Item it = fe_item(S, n->value);
  Local *l = scope_find(S, n->name.text);
  if (!l) {
    name_unknown(S, n->name, "state");
    return;
  }
  SlotUse *use = l->slot;
  if (it.val.kind == VAL_ERROR || l->val.kind == VAL_ERROR ||
      !may_set(S, &n->name, l))
    return;
  if (use->after) {
    fe_error(S, n->name.span, "'%s' is set already", n->name.text);
    fe_note(S, use->set_at, "it is set here");
    return;
  }
  Type t = use->slot->type;
  Value *v = it.val.kind == VAL_TENSOR ? it.val.tensor : fe_const(S, it, t);
  if (v && !type_equal(&v->type, &t)) {
    fe_error(S, it.span, "'%s' is %s, but is set to %s", n->name.text,
             type_text(S->cx, &t), type_text(S->cx, &v->type));
    fe_note(S, use->span, "it is declared here");
    return;
  }
  if (v && S->where) v = fe_choose(S, at, S->where, v, use->before);
  use->after = v;
  use->set_at = at;
}

void fe_set(Sema *S, const Stmt *s) {
  for (uint32_t i = 0; i < s->named.len; i++)
    set_one(S, &s->named.data[i], s->span);
}
