/* simplify.c: canonical forms, constants folded, equal values merged, dead code
 * dropped. This file holds the pass and the rules on scalar bodies; those on
 * moves of data are in simplify_move.c, on index maps in simplify_map.c, on
 * scans in simplify_scan.c. It runs after the frontend, after autodiff and
 * after expand, each of which leaves such forms behind.
 *
 * Method: rule rows, see rewrite.c. Rules on scalar bodies are exact: they give
 * the same bits, signs of zero included (so `x + 0` stays, but `x - 0` and
 * `x + -0` go; NaN payloads do not count). Rules on maps may change the order
 * of a sum; a sum of pads that becomes a concat may keep a -0.
 * Reference: Cytron et al. 1991 for the form; the rules are folklore.
 *
 *   %one = const {value=1} : f32[64, 512]
 *   %a = mul %x, %one : f32[64, 512]
 *   %t = transpose %w {map="dn->nd"} : f32[8, 512]
 *   %y = contract %a, %t {map="bd,nd->bn"} : f32[64, 8]
 *
 * becomes
 *
 *   %y = contract %x, %w {map="bd,dn->bn"} : f32[64, 8]
 */
#include "pass.h"

#include <math.h>

static bool is_float(const Value *v) {
  return dtype_info[v->type.dtype].kind == DK_FLOAT;
}

/* Operand k of the node that makes operand i. */
static Value *inner(const Rewrite *w, uint32_t i, uint32_t k) {
  return rw_in(w, i)->def->ins.data[k];
}

/* ---- folding ----------------------------------------------------------- */

/* The elementwise op on single elements, by the interpreter. */
static bool fold_element(const Rewrite *w, double *out) {
  Ctx *cx = w->b->cx;
  Eval ev = {.cx = cx};
  ev.mode = w->options->precision == DT_f64 ? EVAL_F64 : EVAL_TYPED;
  NodeVec aside = {0};
  Builder b = ir_builder_like(cx, w->n->region, &aside, w->n);
  Value *ins[8];
  Tensor *in[8], *res;
  assert(w->n->ins.len <= COUNT_OF(ins));
  for (uint32_t i = 0; i < w->n->ins.len; i++) {
    double c;
    if (!rw_is_const(rw_in(w, i), &c)) return false;
    ins[i] = ir_const(&b, type_scalar(rw_in(w, i)->type.dtype), c);
    if (ir_eval_node(&ev, ins[i]->def, NULL, &in[i], &cx->scratch))
      return false;
  }
  Type t = type_scalar(rw_result(w)->type.dtype);
  Node *one = ir_node_raw(&b, w->n->op, ins, w->n->ins.len, w->n->attrs, &t, 1);
  if (ir_eval_node(&ev, one, in, &res, &cx->scratch)) return false;
  *out = res->data[0];
  return !isnan(*out);
}

static Value *fold(Rewrite *w) {
  double c;
  if (!op_is(w->n->op, TRAIT_EW) || !fold_element(w, &c)) return NULL;
  return ir_const_like(w->b, rw_result(w), c);
}

/* f(broadcast x, broadcast y, const) = broadcast f(x, y, const). */
static Value *spread(Rewrite *w) {
  const Node *n = w->n, *like = NULL;
  if (!op_is(n->op, TRAIT_EW)) return NULL;
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Node *d = rw_in(w, i)->def;
    if (!d || (d->op != OP_broadcast && d->op != OP_const)) return NULL;
    if (d->op == OP_const) continue;
    if (like &&
        (attr_sym(like, "map") != attr_sym(d, "map") ||
         !type_same_dims(&like->ins.data[0]->type, &d->ins.data[0]->type)))
      return NULL;
    like = d;
  }
  if (!like || type_is_ragged(&rw_result(w)->type)) return NULL;
  Type small = like->ins.data[0]->type;
  Value *ins[8];
  assert(n->ins.len <= COUNT_OF(ins));
  for (uint32_t i = 0; i < n->ins.len; i++) {
    double c;
    Dtype dtype = rw_in(w, i)->type.dtype;
    ins[i] = rw_is_const(rw_in(w, i), &c)
                 ? ir_const(w->b, type_with_dtype(small, dtype), c)
                 : inner(w, i, 0);
  }
  Type t = type_with_dtype(small, rw_result(w)->type.dtype);
  Node *f = ir_node_raw(w->b, n->op, ins, n->ins.len, n->attrs, &t, 1);
  return ir_broadcast(w->b, f->outs.data[0], attr_sym(like, "map"),
                      rw_result(w)->type);
}

/* ---- arithmetic -------------------------------------------------------- */

static Value *drop_one(Rewrite *w) { /* x * 1, x / 1 */
  return rw_is_value(rw_in(w, 1), 1.0) ? rw_in(w, 0) : NULL;
}

static Value *drop_zero(Rewrite *w) { /* x + -0, x - 0, integers + 0 */
  bool minus = w->n->op == OP_add && is_float(rw_in(w, 0));
  return rw_is_value(rw_in(w, 1), minus ? -0.0 : 0.0) ? rw_in(w, 0) : NULL;
}

static Value *zero_product(Rewrite *w) { /* integers * 0 */
  if (is_float(rw_in(w, 0)) || !rw_is_value(rw_in(w, 1), 0.0)) return NULL;
  return rw_in(w, 1);
}

static Value *negate(Rewrite *w) { /* x * -1 */
  if (!rw_is_value(rw_in(w, 1), -1.0)) return NULL;
  return ir_unary(w->b, OP_neg, rw_in(w, 0));
}

static Value *undo(Rewrite *w) {
  return inner(w, 0, 0);
} /* --x, !!x */

static Value *sub_neg(Rewrite *w) { /* a - -b */
  return ir_binary(w->b, OP_add, rw_in(w, 0), inner(w, 1, 0));
}

static Value *add_neg(Rewrite *w) { /* a + -b */
  return ir_binary(w->b, OP_sub, rw_in(w, 0), inner(w, 1, 0));
}

static Value *neg_add(Rewrite *w) { /* -a + b */
  return ir_binary(w->b, OP_sub, rw_in(w, 1), inner(w, 0, 0));
}

static Value *both_neg(Rewrite *w) { /* -a * -b, -a / -b */
  return ir_binary(w->b, w->n->op, inner(w, 0, 0), inner(w, 1, 0));
}

static Value *same_operands(Rewrite *w) { /* x | x, max(x, x) */
  return rw_in(w, 0) == rw_in(w, 1) ? rw_in(w, 0) : NULL;
}

/* With all bits (or true), with none (or false). */
static Value *and_const(Rewrite *w) {
  if (rw_is_value(rw_in(w, 1), 0.0)) return rw_in(w, 1);
  bool all = rw_in(w, 1)->type.dtype == DT_bool;
  return all && rw_is_value(rw_in(w, 1), 1.0) ? rw_in(w, 0) : NULL;
}

static Value *or_const(Rewrite *w) {
  if (rw_is_value(rw_in(w, 1), 0.0)) return rw_in(w, 0);
  bool all = rw_in(w, 1)->type.dtype == DT_bool;
  return all && rw_is_value(rw_in(w, 1), 1.0) ? rw_in(w, 1) : NULL;
}

static Value *fma_const(Rewrite *w) { /* a * 1 + c */
  if (!rw_is_value(rw_in(w, 1), 1.0)) return NULL;
  return ir_binary(w->b, OP_add, rw_in(w, 0), rw_in(w, 2));
}

/* ---- choices ----------------------------------------------------------- */

static Value *known_choice(Rewrite *w) {
  double c;
  if (rw_in(w, 1) == rw_in(w, 2)) return rw_in(w, 1);
  return rw_is_const(rw_in(w, 0), &c) ? rw_in(w, c != 0 ? 1 : 2) : NULL;
}

static Value *flip_choice(Rewrite *w) { /* !c ? a : b */
  return ir_select(w->b, inner(w, 0, 0), rw_in(w, 2), rw_in(w, 1));
}

/* c ? (c ? a : _) : b, and the same on the other side. */
static Value *same_choice(Rewrite *w) {
  Value *arm[2];
  bool changed = false;
  for (uint32_t i = 0; i < 2; i++) {
    arm[i] = rw_in(w, i + 1);
    const Node *d = arm[i]->def;
    if (!d || d->op != OP_select || d->ins.data[0] != rw_in(w, 0)) continue;
    arm[i] = d->ins.data[i + 1];
    changed = true;
  }
  return changed ? ir_select(w->b, rw_in(w, 0), arm[0], arm[1]) : NULL;
}

/* ---- casts ------------------------------------------------------------- */

static Value *cast_same(Rewrite *w) {
  return rw_in(w, 0)->type.dtype == rw_result(w)->type.dtype
             ? rw_in(w, 0)
             : NULL;
}

/* Every value of `from` is one of `to`. */
static bool is_widening(Dtype from, Dtype to) {
  const DtypeInfo *f = &dtype_info[from], *t = &dtype_info[to];
  if (from == DT_bool || from == to) return true;
  if (t->kind != DK_FLOAT) return false;
  return f->bytes < t->bytes;
}

static Value *cast_cast(Rewrite *w) {
  Value *x = inner(w, 0, 0);
  if (!is_widening(x->type.dtype, rw_in(w, 0)->type.dtype)) return NULL;
  return ir_cast(w->b, x, rw_result(w)->type.dtype);
}

static Value *bitcast_bitcast(Rewrite *w) {
  return ir_bitcast(w->b, inner(w, 0, 0), rw_result(w)->type.dtype);
}

/* ---- gradients are there ----------------------------------------------- */

static Value *stopped(Rewrite *w) {
  return w->has_grads ? NULL : rw_in(w, 0);
}

/* ---- the pass ---------------------------------------------------------- */

#define ANY ANY_OP
const Rule scalar_rules[] = {
    {"fold", ANY, {ANY, ANY}, fold},
    {"spread", ANY, {ANY, ANY}, spread},
    {"stop_gradient", OP_stop_gradient, {ANY, ANY}, stopped},
    {"x * 1", OP_mul, {ANY, OP_const}, drop_one},
    {"x / 1", OP_div, {ANY, OP_const}, drop_one},
    {"x * 0", OP_mul, {ANY, OP_const}, zero_product},
    {"x * -1", OP_mul, {ANY, OP_const}, negate},
    {"x + 0", OP_add, {ANY, OP_const}, drop_zero},
    {"x - 0", OP_sub, {ANY, OP_const}, drop_zero},
    {"x xor 0", OP_xor, {ANY, OP_const}, drop_zero},
    {"x << 0", OP_shl, {ANY, OP_const}, drop_zero},
    {"x >> 0", OP_shr, {ANY, OP_const}, drop_zero},
    {"mulhi 0", OP_mulhi, {ANY, OP_const}, zero_product},
    {"-(-x)", OP_neg, {OP_neg, ANY}, undo},
    {"!!x", OP_not, {OP_not, ANY}, undo},
    {"a - -b", OP_sub, {ANY, OP_neg}, sub_neg},
    {"a + -b", OP_add, {ANY, OP_neg}, add_neg},
    {"-a + b", OP_add, {OP_neg, ANY}, neg_add},
    {"-a * -b", OP_mul, {OP_neg, OP_neg}, both_neg},
    {"-a / -b", OP_div, {OP_neg, OP_neg}, both_neg},
    {"max x, x", OP_max, {ANY, ANY}, same_operands},
    {"min x, x", OP_min, {ANY, ANY}, same_operands},
    {"x and x", OP_and, {ANY, ANY}, same_operands},
    {"x or x", OP_or, {ANY, ANY}, same_operands},
    {"and const", OP_and, {ANY, OP_const}, and_const},
    {"or const", OP_or, {ANY, OP_const}, or_const},
    {"fma by 1", OP_fma, {ANY, OP_const}, fma_const},
    {"known choice", OP_select, {ANY, ANY}, known_choice},
    {"!c ? a : b", OP_select, {OP_not, ANY}, flip_choice},
    {"choice in choice", OP_select, {ANY, ANY}, same_choice},
    {"cast to same", OP_cast, {ANY, ANY}, cast_same},
    {"bitcast to same", OP_bitcast, {ANY, ANY}, cast_same},
    {"cast of cast", OP_cast, {OP_cast, ANY}, cast_cast},
    {"bitcast of bitcast", OP_bitcast, {OP_bitcast, ANY}, bitcast_bitcast},
    {.name = NULL},
};
#undef ANY

bool pass_simplify(Module *m, const PassOptions *o) {
  static const Rule *const families[] = {scalar_rules, move_rules, map_rules,
                                         NULL};
  for (uint32_t i = 0; i < m->entries.len; i++)
    rewrite_entry(m->entries.data[i], families, o);
  return true;
}
