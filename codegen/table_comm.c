/* table_comm.c: exchanges between ranks as records. */
#include "table.h"

#include <llvm-c/Core.h>

static MoertCollectiveKind collective_kind(OpKind op) {
  switch ((int)op) {
  case OP_all_reduce: return MOERT_ALL_REDUCE;
  case OP_all_gather: return MOERT_ALL_GATHER;
  case OP_reduce_scatter: return MOERT_REDUCE_SCATTER;
  case OP_all_to_all: return MOERT_ALL_TO_ALL;
  case OP_permute: return MOERT_PERMUTE;
  case OP_rows_send: return MOERT_ROWS_SEND;
  case OP_rows_return: return MOERT_ROWS_RETURN;
  case OP_rank: return MOERT_PLACE;
  }
  internal_error("%s is no exchange", op_info[op].name);
}

static Pieces dim_pieces(const Node *n, const Value *v, const char *attr) {
  return pieces_of(&v->type, (int)attr_int(n, attr), node_group(n));
}

/* How the operand and the result are cut into pieces, where they are. */
static void set_pieces(const Node *n, MoertCollective *k) {
  Pieces in = {0, 0}, out = {0, 0};
  if (n->op == OP_all_gather) out = dim_pieces(n, n->outs.data[0], "dim");
  if (n->op == OP_reduce_scatter) in = dim_pieces(n, n->ins.data[0], "dim");
  if (n->op == OP_all_to_all) {
    in = dim_pieces(n, n->ins.data[0], "split");
    out = dim_pieces(n, n->outs.data[0], "concat");
  }
  if (n->op == OP_rows_send || n->op == OP_rows_return) {
    const Type *t = &n->ins.data[0]->type;
    in.run = type_elements(t) / t->dims[1].size;
  }
  k->in_rows = in.rows;
  k->in_run = in.run;
  k->out_rows = out.rows;
  k->out_run = out.run;
}

static LLVMValueRef tb_i32s(Table *t, const int32_t *x, int n) {
  LLVMValueRef *all = NEW_ARRAY(t->a, LLVMValueRef, (size_t)n);
  for (int i = 0; i < n; i++)
    all[i] = tb_i32(t, x[i]);
  return LLVMConstArray2(t->i32, all, (uint64_t)n);
}

static LLVMValueRef permutation(Table *t, Node *n) {
  const Attr *to = attr_ref(n, "to");
  int32_t *places = NEW_ARRAY(t->a, int32_t, to->list_len);
  for (uint32_t i = 0; i < to->list_len; i++)
    places[i] = (int32_t)to->list[i];
  return tb_place(t, tb_i32s(t, places, (int)to->list_len));
}

static LLVMValueRef c_collective(Table *t, Node *n) {
  static_assert((int)MAX_AXES == (int)MOERT_MAX_MESH, "meshes");
  static_assert((int)COMBINE_MIN == (int)MOERT_MIN, "ORDER COMBINE");
  MoertCollective k = {.kind = (int32_t)collective_kind(n->op)};
  Axes a = node_axes(n);
  CombineOp op = COMBINE_SUM;
  if (n->op == OP_all_reduce || n->op == OP_reduce_scatter)
    combine_find(attr_sym(n, "op"), &op);
  k.n_axes = axes_count(a);
  for (int i = 0; i < k.n_axes; i++)
    k.axes[i] = axes_at(a, i);
  set_pieces(n, &k);
  LLVMValueRef f[] = {tb_i32(t, k.kind),
                      tb_i32(t, op),
                      tb_i32(t, k.n_axes),
                      tb_i32s(t, k.axes, MOERT_MAX_MESH),
                      tb_i64(t, k.in_rows),
                      tb_i64(t, k.in_run),
                      tb_i64(t, k.out_rows),
                      tb_i64(t, k.out_run),
                      n->op == OP_permute ? permutation(t, n) : tb_null(t)};
  return tb_place(t, TB_STRUCT(t, MoertCollective, f));
}

/* Ends an exchange, for people by its own name. */
void tb_wait_for(Table *t, Node *n) {
  Record r = tb_record_of(t, MOERT_WAIT, n);
  tb_add_args(t, &r, n, 0);
  r.count = (int64_t)(intptr_t)map_get(&t->started, n) - 1;
  tb_add_record(t, &r);
}

/* One's place in a group needs no waiting; all else is begun, and waited for at
 * once where no `wait` stands. */
void tb_exchange(Table *t, Node *n) {
  Record r = tb_record_of(t, MOERT_START, n);
  tb_add_args(t, &r, n, n->ins.len);
  r.collective = c_collective(t, n);
  if (n->op != OP_rank) r.n_outs = 0; /* not written yet */
  tb_add_record(t, &r);
  map_put(t->a, &t->started, n, (void *)(intptr_t)t->records.len);
  if (n->op != OP_rank && !ir_wait_of(n)) tb_wait_for(t, n);
}
