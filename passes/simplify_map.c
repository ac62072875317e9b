/* simplify_map.c: rewrite rules on contractions and reductions. Their index
 * maps take up the transposes and broadcasts around them: letters are renamed,
 * a letter along which an operand repeats is dropped from it. A contraction
 * that sums nothing is a product; a reduction over nothing is a transpose. */
#include "pass.h"

#include <math.h>
#include <string.h>

static Sym text(const Rewrite *w, const IndexMap *m) {
  return map_text(w->b->cx, m);
}

static bool any_ragged(const Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (type_is_ragged(&n->ins.data[i]->type)) return true;
  return type_is_ragged(&n->outs.data[0]->type);
}

/* The letters of the operand of move `d`, where `letters` name its result's. */
static void pull_back(const Node *d, const char *letters, char *out) {
  IndexMap m = map_of(d);
  out[0] = '\0';
  for (int i = 0; m.ins[0][i]; i++) {
    out[i] = letters[strchr(m.out, m.ins[0][i]) - m.out];
    out[i + 1] = '\0';
  }
}

/* Removes the letters of `s` that are not in `keep`. */
static void keep_letters(char *s, const char *keep) {
  char *to = s;
  for (; *s; s++)
    if (strchr(keep, *s)) *to++ = *s;
  *to = '\0';
}

static bool has_all(const char *letters, const char *of) {
  return strspn(of, letters) == strlen(of);
}

/* Size of the dim that `letter` names. */
static int64_t size_of(const Value *v, const char *letters, char letter) {
  return v->type.dims[strchr(letters, letter) - letters].size;
}

/* ---- contract ---------------------------------------------------------- */

static Value *contract_transposed(Rewrite *w) {
  IndexMap m = map_of(w->n);
  Value *ins[2];
  bool changed = false;
  for (int i = 0; i < 2; i++) {
    Node *d = rw_def(w, (uint32_t)i);
    ins[i] = rw_in(w, (uint32_t)i);
    if (!d || d->op != OP_transpose) continue;
    char letters[MAX_RANK + 1];
    pull_back(d, m.ins[i], letters);
    strcpy(m.ins[i], letters);
    ins[i] = d->ins.data[0];
    changed = true;
  }
  return changed ? ir_contract(w->b, ins[0], ins[1], text(w, &m)) : NULL;
}

/* Sums `x`, of `letters`, over those that are not in `keep`. */
static Value *sum_to(Rewrite *w, Value *x, char *letters, const char *keep) {
  IndexMap m = {.n_ins = 1};
  strcpy(m.ins[0], letters);
  keep_letters(letters, keep);
  strcpy(m.out, letters);
  if (strcmp(m.ins[0], m.out) == 0) return x;
  return ir_reduce(w->b, OP_reduce_sum, x, text(w, &m));
}

/* contract(broadcast x, y): a letter that only the broadcast gave to operand i
 * leaves it. If the other operand has it and the result not, it is summed
 * there; if only the result has it, the result is what repeats. */
static Value *drop_repeated(Rewrite *w, int i) {
  Node *d = rw_def(w, (uint32_t)i);
  IndexMap m = map_of(w->n);
  char all[MAX_RANK + 1], seen[4 * MAX_RANK];
  Value *ins[2] = {rw_in(w, 0), rw_in(w, 1)};
  char letters[MAX_RANK + 1];
  pull_back(d, m.ins[i], letters);
  strcpy(m.ins[i], letters);
  strcpy(all, m.out);
  ins[i] = d->ins.data[0];
  snprintf(seen, sizeof seen, "%s%s", m.ins[i], m.out);
  ins[1 - i] = sum_to(w, ins[1 - i], m.ins[1 - i], seen);
  snprintf(seen, sizeof seen, "%s%s", m.ins[0], m.ins[1]);
  keep_letters(m.out, seen);
  Value *v = ir_contract(w->b, ins[0], ins[1], text(w, &m));
  if (strcmp(m.out, all) == 0) return v;
  IndexMap repeat = {.n_ins = 1};
  strcpy(repeat.ins[0], m.out);
  strcpy(repeat.out, all);
  return ir_broadcast(w->b, v, text(w, &repeat), rw_result(w)->type);
}

static Value *contract_broadcast(Rewrite *w) {
  if (any_ragged(w->n)) return NULL;
  for (int i = 0; i < 2; i++)
    if (rw_def(w, (uint32_t)i) && rw_def(w, (uint32_t)i)->op == OP_broadcast)
      return drop_repeated(w, i);
  return NULL;
}

static Value *spread_to(Rewrite *w, uint32_t i, const IndexMap *m) {
  IndexMap s = {.n_ins = 1};
  strcpy(s.ins[0], m->ins[i]);
  strcpy(s.out, m->out);
  Value *x = ir_cast_to(w->b, rw_in(w, i), rw_result(w)->type.dtype);
  return ir_broadcast(w->b, x, text(w, &s), rw_result(w)->type);
}

static Value *contract_product(Rewrite *w) { /* no letter is summed */
  IndexMap m = map_of(w->n);
  if (any_ragged(w->n) || !has_all(m.out, m.ins[0]) ||
      !has_all(m.out, m.ins[1]))
    return NULL;
  Value *a = spread_to(w, 0, &m), *b = spread_to(w, 1, &m);
  return ir_binary(w->b, OP_mul, a, b);
}

/* ---- reductions -------------------------------------------------------- */

static Value *reduce_nothing(Rewrite *w) {
  IndexMap m = map_of(w->n);
  if (strlen(m.ins[0]) != strlen(m.out)) return NULL;
  return ir_transpose(w->b, rw_in(w, 0), text(w, &m));
}

/* Only dims of size 1, order kept: the same elements. */
static Value *reduce_ones(Rewrite *w) {
  IndexMap m = map_of(w->n);
  char kept[MAX_RANK + 1];
  if (any_ragged(w->n)) return NULL;
  for (const char *c = m.ins[0]; *c; c++)
    if (!strchr(m.out, *c) && size_of(rw_in(w, 0), m.ins[0], *c) != 1)
      return NULL;
  strcpy(kept, m.ins[0]);
  keep_letters(kept, m.out);
  if (strcmp(kept, m.out) != 0) return NULL;
  return ir_reshape(w->b, rw_in(w, 0), rw_result(w)->type);
}

static Value *reduce_transposed(Rewrite *w) {
  IndexMap m = map_of(w->n);
  char letters[MAX_RANK + 1];
  pull_back(rw_def(w, 0), m.ins[0], letters);
  strcpy(m.ins[0], letters);
  return ir_reduce(w->b, w->n->op, rw_def(w, 0)->ins.data[0], text(w, &m));
}

/* A reduction of one of its kind that nothing else reads: letters that are
 * summed there get names of their own. */
static Value *reduce_twice(Rewrite *w) {
  if (rw_uses(w, rw_in(w, 0)) != 1) return NULL;
  IndexMap outer = map_of(w->n), in = map_of(rw_def(w, 0)), m = outer;
  m.ins[0][0] = '\0';
  for (int i = 0; in.ins[0][i]; i++) {
    const char *at = strchr(in.out, in.ins[0][i]);
    IndexMap used = {.n_ins = 2};
    strcpy(used.ins[0], outer.ins[0]);
    strcpy(used.ins[1], m.ins[0]);
    m.ins[0][i] = at ? outer.ins[0][at - in.out] : map_free_letter(&used);
    m.ins[0][i + 1] = '\0';
  }
  return ir_reduce(w->b, w->n->op, rw_def(w, 0)->ins.data[0], text(w, &m));
}

/* Over letters along which the operand repeats: the sum is a multiple, the
 * largest and smallest are what they were. */
static Value *reduce_broadcast(Rewrite *w) {
  IndexMap m = map_of(w->n), spread = {.n_ins = 1};
  Node *d = rw_def(w, 0);
  if (any_ragged(w->n)) return NULL;
  pull_back(d, m.ins[0], spread.ins[0]);
  double times = 1;
  Type t = {.dtype = rw_result(w)->type.dtype};
  for (const char *c = m.ins[0]; *c; c++) {
    int64_t size = size_of(rw_in(w, 0), m.ins[0], *c);
    if (!strchr(spread.ins[0], *c) && !strchr(m.out, *c)) {
      times *= (double)size;
      continue;
    }
    spread.out[t.rank] = *c;
    t.dims[t.rank++].size = size;
  }
  if (strcmp(spread.out, m.ins[0]) == 0) return NULL;
  bool wraps = dtype_info[t.dtype].kind != DK_FLOAT;
  if (wraps && times > 1 << 24) return NULL;
  Value *x = ir_broadcast(w->b, d->ins.data[0], text(w, &spread), t);
  strcpy(m.ins[0], spread.out);
  Value *v = ir_reduce(w->b, w->n->op, x, text(w, &m));
  if (w->n->op != OP_reduce_sum) return v;
  return ir_binary(w->b, OP_mul, v, ir_const_like(w->b, v, times));
}

/* A sum of one constant, as long as the product is exact in every dtype. */
static Value *sum_const(Rewrite *w) {
  double c = attr_float(rw_def(w, 0), "value");
  IndexMap m = map_of(w->n);
  if (any_ragged(w->n)) return NULL;
  for (const char *l = m.ins[0]; *l; l++)
    if (!strchr(m.out, *l)) c *= (double)size_of(rw_in(w, 0), m.ins[0], *l);
  if (c != trunc(c) || fabs(c) > 1 << 24) return NULL;
  return ir_const_like(w->b, rw_result(w), c);
}

#define ANY ANY_OP
const Rule map_rules[] = {
    {"contract of transpose", OP_contract, {ANY, ANY}, contract_transposed},
    {"contract of broadcast", OP_contract, {ANY, ANY}, contract_broadcast},
    {"contract of nothing", OP_contract, {ANY, ANY}, contract_product},
    {"sum over nothing", OP_reduce_sum, {ANY, ANY}, reduce_nothing},
    {"max over nothing", OP_reduce_max, {ANY, ANY}, reduce_nothing},
    {"min over nothing", OP_reduce_min, {ANY, ANY}, reduce_nothing},
    {"sum over ones", OP_reduce_sum, {ANY, ANY}, reduce_ones},
    {"max over ones", OP_reduce_max, {ANY, ANY}, reduce_ones},
    {"min over ones", OP_reduce_min, {ANY, ANY}, reduce_ones},
    {"sum of transpose", OP_reduce_sum, {OP_transpose, ANY}, reduce_transposed},
    {"max of transpose", OP_reduce_max, {OP_transpose, ANY}, reduce_transposed},
    {"min of transpose", OP_reduce_min, {OP_transpose, ANY}, reduce_transposed},
    {"sum of sum", OP_reduce_sum, {OP_reduce_sum, ANY}, reduce_twice},
    {"max of max", OP_reduce_max, {OP_reduce_max, ANY}, reduce_twice},
    {"min of min", OP_reduce_min, {OP_reduce_min, ANY}, reduce_twice},
    {"sum of broadcast", OP_reduce_sum, {OP_broadcast, ANY}, reduce_broadcast},
    {"max of broadcast", OP_reduce_max, {OP_broadcast, ANY}, reduce_broadcast},
    {"min of broadcast", OP_reduce_min, {OP_broadcast, ANY}, reduce_broadcast},
    {"sum of const", OP_reduce_sum, {OP_const, ANY}, sum_const},
    {.name = NULL},
};
#undef ANY
