/* contract.c: how a contraction is computed.
 *
 * A product of plain matrices is a library call, unless it is a large one in
 * bf16 and the target has tiles; one with a packed operand has a kernel for
 * that (panels.c); other products run on the register-blocked kernel of
 * blocked.c, or in pairs where the target has instructions for them, or on that
 * of warps.c, team.c or group.c where a vector is a warp; what is no product at
 * all goes through the loops of nest.c. A launch that gathers the rows of an
 * operand has a table of them, which kernels look into for each row that they
 * load. */
#include "group.h"

static void set_strides(int64_t *to, const CtLetter *batch, const CtLetter *x,
                        const CtLetter *y, int side) {
  to[0] = batch->stride[side];
  to[1] = x->stride[side];
  to[2] = y->stride[side];
}

bool cg_gemm(const Node *n, const Isa *isa, MoertGemm *out,
             bool *out_swapped) {
  CtProduct p;
  if (!ir_product(n, &p) || !ir_product_is_plain(&p) ||
      ct_beats_library(&p, isa))
    return false;
  *out = (MoertGemm){.batch = p.batch.size,
                     .m = p.m.size,
                     .n = p.n.size,
                     .k = p.k.size,
                     .dtype = (int32_t)p.dtype,
                     .c_dtype = (int32_t)dtype_info[p.dtype].sums,
                     .tf32 = p.dtype == DT_f32 && isa->has & KN_TF32};
  set_strides(out->a_stride, &p.batch, &p.m, &p.k, CT_LEFT);
  set_strides(out->b_stride, &p.batch, &p.k, &p.n, CT_RIGHT);
  set_strides(out->c_stride, &p.batch, &p.m, &p.n, CT_OUT);
  *out_swapped = p.arg[CT_LEFT] == 1;
  return true;
}

/* The operand of the launch that operand `i` of the contraction is. */
static int operand_of(const CtTask *t, int i) {
  if (t->n == t->contract) return i;
  return (int)ir_product_operand(t->contract, i)->index;
}

KBase ct_operand(const CtTask *task, int side) {
  if (task->held[side]) return task->at[side];
  int arg = task->p.arg[side];
  return kb_arg(arg, task->n->ins.data[arg]->type.dtype);
}

KBase ct_rows_table(const CtTask *task, int side) {
  return kb_arg((int)task->rows[side]->ins.data[1]->index, DT_i32);
}

KVal *ct_row(KBuild *b, const CtTask *task, int side, KVal *row) {
  const Node *rows = task->rows[side];
  if (!rows) return row;
  KVal *from = kb_load(b, ct_rows_table(task, side), row, 1);
  return kb_alu_c(b, A_DIV, kb_from_i32(b, from), attr_int(rows, "choices"));
}

bool ct_picks_depth(const CtTask *task, int side) {
  return task->p.ragged_k && task->rows[side];
}

CtItem *ct_product_item(Ctx *cx, KBuild *b, const CtTask *task,
                        const Isa *isa) {
  if (isa->least) return ct_warps_item(cx, b, task, isa);
  return ct_in_pairs(&task->p, isa) ? ct_pairs_item(cx, b, task, isa)
                                    : ct_blocked_item(cx, b, task, isa->lanes);
}

Kernel *cg_contract(Ctx *cx, const Node *n, const Isa *isa) {
  CtTask t = {.n = n, .contract = n->body ? ir_product_node(n) : n};
  CtLetters ls = ir_letters(t.contract);
  if (!isa->least && ct_is_panels(&ls, t.contract->ins.data[0]->type.dtype))
    return ct_panels(cx, n, &ls, isa);
  if (!ir_product(t.contract, &t.p)) return ct_nest(cx, n, ls, isa);
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    if (n->body) t.rows[side] = ir_product_rows(t.contract, t.p.arg[side]);
    t.p.arg[side] = operand_of(&t, t.p.arg[side]);
  }
  if (t.contract->ins.len > 2) t.offsets = operand_of(&t, 2);
  if (ct_in_groups(&t, isa)) return ct_groups(cx, &t, isa);
  if (isa->least)
    return ct_in_teams(&t, isa) ? ct_teams(cx, &t, isa)
                                : ct_warps(cx, &t, isa);
  return ct_in_pairs(&t.p, isa) ? ct_pairs(cx, &t, isa)
                                : ct_blocked(cx, &t, isa->lanes);
}
