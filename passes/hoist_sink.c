/* hoist_sink.c: what leaves a loop at its end.
 *
 * Sums: a carry that starts anywhere and is only ever added to, `acc + term`,
 * is the start plus the sum of the terms over all iterations. The sum goes
 * through linear ops to contractions, which take the time letter as one more
 * summed letter, and to values that are stacked anyway. Terms for which
 * nothing of that holds stay.
 *
 * Outputs: contractions with invariants that only feed stacked results, and
 * what comes between those and the results, are done on stacked operands. */
#include "pass.h"

#include <string.h>

typedef struct Sink {
  Hoist *h;
  Map made; /* body value -> Over, behind the loop */
  Map kept; /* body values that will be stacked */
  Map sunk; /* nodes that go behind the loop */
} Sink;

static Arena *scratch(const Sink *s) {
  return &s->h->cx->scratch;
}

static uintptr_t uses(const Sink *s, const Value *v) {
  return (uintptr_t)map_get(&s->h->uses, v);
}

static LoopClass class_of(const Sink *s, const Value *v) {
  return hoist_class(s->h, v);
}

static bool can_stack(const Value *v) {
  return !type_is_ragged(&v->type) && v->type.rank < MAX_RANK;
}

static Over outside(Sink *s, Value *v) {
  return hoist_outside(s->h, &s->h->after, &s->made, v);
}

/* ---- sums -------------------------------------------------------------- */

/* Outside it exists for all iterations, or will. */
static bool is_kept(const Sink *s, const Value *v) {
  for (uint32_t i = 0; i < s->h->l.stacked.len; i++)
    if (s->h->l.stacked.data[i].value == v) return true;
  for (uint32_t i = 0; i < s->h->l.scanned.len; i++)
    if (s->h->l.scanned.data[i].param == v) return true;
  return map_get(&s->kept, v) != NULL;
}

/* Sums pass through it operand by operand. */
static bool is_linear(OpKind op) {
  return op == OP_add || op == OP_sub || op == OP_neg || op == OP_transpose ||
         op == OP_reshape || op == OP_slice || op == OP_pad ||
         op == OP_concat || op == OP_broadcast;
}

/* The factor of a product that is the same in all iterations: its position,
 * or -1. */
static int fixed_factor(const Sink *s, const Node *n) {
  if (n->op != OP_mul) return -1;
  for (int i = 0; i < 2; i++)
    if (class_of(s, n->ins.data[i]) == CLASS_FIXED) return i;
  return -1;
}

/* The sum of `v` over all iterations is better formed outside. */
static bool pays(const Sink *s, const Value *v) {
  const Node *n = v->def;
  if (!can_stack(v) || class_of(s, v) == CLASS_FIXED) return false;
  if (is_kept(s, v)) return true;
  if (!n || uses(s, v) != 1) return false;
  if (n->op == OP_contract)
    return can_stack(n->ins.data[0]) && can_stack(n->ins.data[1]);
  if (n->op == OP_reduce_sum) return is_kept(s, n->ins.data[0]);
  int fixed = fixed_factor(s, n);
  if (fixed >= 0) return pays(s, n->ins.data[1 - fixed]);
  if (!is_linear(n->op)) return false;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (!pays(s, n->ins.data[i])) return false;
  return true;
}

static char *prefix(char *letters, char first) {
  memmove(letters + 1, letters, strlen(letters) + 1);
  letters[0] = first;
  return letters;
}

/* Sums a stacked value over the iterations, and over what `m` sums. */
static Value *sum_stack(Sink *s, Value *stack, IndexMap m) {
  prefix(m.ins[0], map_free_letter(&m));
  return ir_reduce(&s->h->after, OP_reduce_sum, stack, map_text(s->h->cx, &m));
}

static IndexMap identity(const Value *v) {
  IndexMap m = {.n_ins = 1};
  for (int i = 0; i < v->type.rank; i++)
    m.ins[0][i] = (char)('a' + i);
  strcpy(m.out, m.ins[0]);
  return m;
}

static Value *sum_of_contract(Sink *s, const Node *n) {
  Builder *b = &s->h->after;
  IndexMap m = map_of(n);
  Over o[2] = {outside(s, n->ins.data[0]), outside(s, n->ins.data[1])};
  bool both = o[0].stacked && o[1].stacked;
  char letter = map_free_letter(&m);
  for (int i = 0; i < 2; i++) {
    if (both)
      prefix(m.ins[i], letter);
    else if (o[i].stacked) /* the other one is the same in all iterations */
      o[i].v = sum_stack(s, o[i].v, identity(n->ins.data[i]));
  }
  return ir_contract(b, o[0].v, o[1].v, map_text(s->h->cx, &m));
}

/* The sum of `v`, for which `pays` holds, over all iterations. */
static Value *sum_of(Sink *s, Value *v) {
  Node *n = v->def;
  if (is_kept(s, v)) return sum_stack(s, outside(s, v).v, identity(v));
  if (n->op == OP_contract) return sum_of_contract(s, n);
  if (n->op == OP_reduce_sum)
    return sum_stack(s, outside(s, n->ins.data[0]).v, map_of(n));
  Map map = {0};
  int fixed = fixed_factor(s, n);
  for (uint32_t i = 0; i < n->ins.len; i++) {
    Value *in = n->ins.data[i];
    Value *to = (int)i == fixed ? outside(s, in).v : sum_of(s, in);
    map_put(scratch(s), &map, in, to);
  }
  return ir_clone(&s->h->after, n, &map)->outs.data[0];
}

/* Terms of `acc + ...`, whose sums leave the loop or stay in it. */
typedef struct Terms {
  ValueVec leaving, staying;
} Terms;

static void split(const Sink *s, Value *v, Terms *t) {
  const Node *n = v->def;
  if (pays(s, v)) {
    vec_push(scratch(s), &t->leaving, v);
  } else if (n && n->op == OP_add && uses(s, v) == 1) {
    split(s, n->ins.data[0], t);
    split(s, n->ins.data[1], t);
  } else {
    vec_push(scratch(s), &t->staying, v);
  }
}

/* What a carry grows by: `next` is param + term, and nothing else reads the
 * one or the other. */
static Value *growth(const Sink *s, const LoopCarry *c) {
  const Node *n = c->next->def;
  if (!n || n->op != OP_add || uses(s, c->next) != 1 ||
      uses(s, c->param) != 1 || !can_stack(c->param))
    return NULL;
  if (n->ins.data[0] == c->param) return n->ins.data[1];
  return n->ins.data[1] == c->param ? n->ins.data[0] : NULL;
}

/* Contractions among the terms have their operands stacked: other sums may
 * count on that. */
static void note_kept(Sink *s, const Value *term) {
  const Node *n = term->def;
  if (is_kept(s, term) || !n) return;
  if (n->op == OP_contract) {
    for (uint32_t i = 0; i < 2; i++)
      if (class_of(s, n->ins.data[i]) != CLASS_FIXED)
        map_put(scratch(s), &s->kept, n->ins.data[i], s);
    return;
  }
  for (uint32_t i = 0; is_linear(n->op) && i < n->ins.len; i++)
    note_kept(s, n->ins.data[i]);
}

static Value *add_all(Builder *b, Value *sum, const ValueVec *terms) {
  for (uint32_t i = 0; i < terms->len; i++)
    sum = ir_binary(b, OP_add, sum, terms->data[i]);
  return sum;
}

static bool is_zero(const Value *v) {
  double c;
  return rw_is_const(v, &c) && c == 0;
}

static Value *total(Sink *s, Value *start, const ValueVec *terms) {
  ValueVec sums = {0};
  for (uint32_t i = 0; i < terms->len; i++)
    vec_push(scratch(s), &sums, sum_of(s, terms->data[i]));
  if (!is_zero(start)) return add_all(&s->h->after, start, &sums);
  Value *first = sums.data[0];
  sums.data++;
  sums.len--;
  return add_all(&s->h->after, first, &sums);
}

/* The loop keeps summing what stays; its result is where the rest starts. */
static void keep_summing(Sink *s, LoopCarry *c, const Terms *t) {
  Loop *l = &s->h->l;
  Builder b =
      ir_builder_like(s->h->cx, s->h->body, &s->h->body->nodes, c->next->def);
  uint32_t at = loop_carry(s->h->cx, l, c->init);
  l->carries.data[at].next =
      add_all(&b, l->carries.data[at].param, &t->staying);
  ir_replace(c->out, total(s, l->carries.data[at].out, &t->leaving));
}

static void sink_sums(Sink *s) {
  Loop *l = &s->h->l;
  uint32_t n = l->carries.len, kept = 0;
  Terms *terms = NEW_ARRAY(scratch(s), Terms, n + 1);
  for (int round = 0; round < 2; round++) /* the second knows what is kept */
    for (uint32_t i = 0; i < n; i++) {
      Value *term = growth(s, &l->carries.data[i]);
      terms[i] = (Terms){0};
      if (term) split(s, term, &terms[i]);
      for (uint32_t k = 0; k < terms[i].leaving.len; k++)
        note_kept(s, terms[i].leaving.data[k]);
    }
  for (uint32_t i = 0; i < n; i++) {
    LoopCarry c = l->carries.data[i];
    if (!terms[i].leaving.len) continue;
    s->h->after.span = c.next->def->span;
    s->h->after.loc = c.next->def->loc;
    s->h->after.layer = c.next->def->layer;
    if (terms[i].staying.len)
      keep_summing(s, &c, &terms[i]);
    else
      ir_replace(c.out, total(s, c.init, &terms[i].leaving));
    pass_tally(s->h->options, "sum behind the loop");
    s->h->changed = true;
  }
  for (uint32_t i = 0; i < l->carries.len; i++)
    if (i >= n || !terms[i].leaving.len)
      l->carries.data[kept++] = l->carries.data[i];
  l->carries.len = kept;
}

/* ---- outputs ----------------------------------------------------------- */

/* Reads of `v` by stacked results and by nodes that go behind the loop. */
static void count_outside(Sink *s, Map *counts, const Value *v) {
  uintptr_t n = (uintptr_t)map_get(counts, v);
  map_put(scratch(s), counts, v, (void *)(n + 1));
}

static bool only_outside(const Sink *s, const Map *counts, const Node *n) {
  for (uint32_t i = 0; i < n->outs.len; i++)
    if ((uintptr_t)map_get(counts, n->outs.data[i]) != uses(s, n->outs.data[i]))
      return false;
  return true;
}

static bool is_batchable(const Sink *s, const Node *n) {
  bool *stacked = NEW_ARRAY(scratch(s), bool, n->ins.len + 1);
  for (uint32_t i = 0; i < n->ins.len; i++)
    stacked[i] = class_of(s, n->ins.data[i]) != CLASS_FIXED;
  return batch_can(n, stacked);
}

static bool is_weighted(const Sink *s, const Node *n) {
  return n->op == OP_contract && class_of(s, n->outs.data[0]) == CLASS_CARRY &&
         (class_of(s, n->ins.data[0]) == CLASS_FIXED ||
          class_of(s, n->ins.data[1]) == CLASS_FIXED);
}

/* Nodes that only stacked results depend on, in `able`. */
static Map find_able(Sink *s) {
  Map able = {0}, counts = {0};
  for (uint32_t i = 0; i < s->h->l.stacked.len; i++)
    count_outside(s, &counts, s->h->l.stacked.data[i].value);
  for (uint32_t i = s->h->body->nodes.len; i-- > 0;) {
    Node *n = s->h->body->nodes.data[i];
    if (!is_batchable(s, n) || !only_outside(s, &counts, n)) continue;
    map_put(scratch(s), &able, n, n);
    for (uint32_t k = 0; k < n->ins.len; k++)
      count_outside(s, &counts, n->ins.data[k]);
  }
  return able;
}

/* Of those: contractions by weights, and what uses their results. */
static bool sinks(Sink *s, const Map *able, Node *n) {
  if (!map_get(able, n)) return false;
  bool go = is_weighted(s, n);
  for (uint32_t k = 0; k < n->ins.len; k++)
    go |= n->ins.data[k]->def && map_get(&s->sunk, n->ins.data[k]->def);
  return go;
}

static void sink_node(Sink *s, Node *n) {
  Over *ins = NEW_ARRAY(scratch(s), Over, n->ins.len + 1);
  Over *outs = NEW_ARRAY(scratch(s), Over, n->outs.len);
  for (uint32_t i = 0; i < n->ins.len; i++)
    ins[i] = outside(s, n->ins.data[i]);
  batch_node(&s->h->after, n, ins, s->h->l.length, outs);
  for (uint32_t i = 0; i < n->outs.len; i++)
    map_put(scratch(s), &s->made, n->outs.data[i],
            arena_copy(scratch(s), &outs[i], sizeof outs[i]));
  map_put(scratch(s), &s->sunk, n, n);
  pass_tally(s->h->options, "behind the loop");
  s->h->changed = true;
}

static void sink_outputs(Sink *s) {
  Map able = find_able(s);
  Loop *l = &s->h->l;
  uint32_t n = l->stacked.len, kept = 0;
  for (uint32_t i = 0; i < s->h->body->nodes.len; i++)
    if (sinks(s, &able, s->h->body->nodes.data[i]))
      sink_node(s, s->h->body->nodes.data[i]);
  for (uint32_t i = 0; i < l->stacked.len; i++) {
    LoopOutput o = l->stacked.data[i];
    bool gone = i < n && o.value->def && map_get(&s->sunk, o.value->def);
    if (gone)
      ir_replace(o.out, ((Over *)map_get(&s->made, o.value))->v);
    else
      l->stacked.data[kept++] = o;
  }
  l->stacked.len = kept;
}

void hoist_sink(Hoist *h) {
  Sink s = {.h = h};
  sink_outputs(&s);
  sink_sums(&s);
}
