/* precision.c: chooses the dtype that floats are computed in.
 *
 * What bf16 does is in precision_bf16.c. `--precision=f64` computes what the
 * model says in double precision, for checking: every f32 and bf16 becomes f64,
 * slots, inputs and options included, so that parameters and checkpoints of
 * such a program are f64 too. With f32 there is nothing to do. Method: types
 * are rewritten in place; casts that now go from f64 to f64 are left to
 * `simplify`. Runs before `expand`, whose bit patterns depend on the dtype.
 *
 *   %y = tanh %x : f32[4]
 *
 * becomes
 *
 *   %y = tanh %x : f64[4]
 */
#include "pass.h"

static void widen_type(Type *t) {
  if (dtype_info[t->dtype].kind == DK_FLOAT) t->dtype = DT_f64;
}

static void widen_all(const ValueVec *values) {
  for (uint32_t i = 0; i < values->len; i++)
    widen_type(&values->data[i]->type);
}

static void widen_region(const Region *r) {
  widen_all(&r->params);
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    widen_all(&r->nodes.data[i]->outs);
    if (r->nodes.data[i]->body) widen_region(r->nodes.data[i]->body);
  }
}

/* Only bits of f32 can be looked at: user code that does is not widened. */
static void reject_bitcasts(Ctx *cx, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op == OP_bitcast && (n->ins.data[0]->type.dtype == DT_f32 ||
                                n->outs.data[0]->type.dtype == DT_f32))
      diag_error(cx, n->span, "bitcast of f32 cannot be computed in f64");
    if (n->body) reject_bitcasts(cx, n->body);
  }
}

bool pass_precision(Module *m, const PassOptions *o) {
  if (o->precision == DT_bf16) return precision_bf16(m, o);
  if (o->precision != DT_f64) return pass_same(o);
  uint32_t errors = m->cx->errors;
  for (uint32_t i = 0; i < m->entries.len; i++)
    reject_bitcasts(m->cx, m->entries.data[i]->region);
  if (m->cx->errors != errors) return false;
  for (uint32_t i = 0; i < m->slots.len; i++)
    widen_type(&m->slots.data[i]->type);
  for (uint32_t i = 0; i < m->entries.len; i++)
    widen_region(m->entries.data[i]->region);
  return true;
}
