/* partition_rows.c: rows of experts, for partition.c.
 *
 * Where the tokens are split and each device has all experts, or none of both
 * is, each device routes its own tokens: the ops stay as they are. */
#include "pass.h"

Type partition_rows_local(const Partition *p, const Type *t,
                          const Placement *at) {
  return placement_local(p->m, t, at);
}

static bool splits_groups(const PartValue *v) {
  return type_is_ragged(&v->type) && v->place.dims[0];
}

static void refuse(Partition *p, const Node *n, const PartValue *v) {
  Buf text = {0};
  placement_text(p->m, &v->type, &v->place, &text);
  diag_error(p->cx, n->span,
             "%s: rows cannot be taken to or from the experts' devices yet: %s",
             op_info[n->op].name, text.data);
  buf_free(&text);
}

void partition_rows(Partition *p, Node *n) {
  vec_push(&p->cx->perm, p->b.out, n);
  const PartValue *x = partition_was(p, n->ins.data[0]);
  const PartValue *y = partition_was(p, n->outs.data[0]);
  if (n->op == OP_reshard || splits_groups(y))
    refuse(p, n, y);
  else if (splits_groups(x))
    refuse(p, n, x);
}
