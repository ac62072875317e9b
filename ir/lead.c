/* lead.c: which leading dims of its operands an op reads index by index.
 *
 * An op "keeps" its leading dims when element (i.., j..) of its result needs
 * only elements (i.., *) of an operand. Kernels that run over rows, and later
 * splits over ranks, stand on it: as many leading dims as all ops between two
 * values keep can be worked off one at a time. Dims are counted as stored. */
#include "ir.h"

#include <string.h>

static int min_int(int x, int y) {
  return x < y ? x : y;
}

static int stored_rank(const Value *v) {
  int64_t sizes[MAX_RANK];
  return type_stored_dims(&v->type, sizes);
}

/* Letters that start both sides. */
static int lead_of_map(const Node *n, int lead) {
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  const char *from = m.ins[0] + type_is_ragged(&n->ins.data[0]->type);
  const char *to = m.out + type_is_ragged(&n->outs.data[0]->type);
  int i = 0;
  while (i < lead && from[i] && from[i] == to[i])
    i++;
  return i;
}

static int lead_of_sizes(const Node *n, int lead) {
  int64_t from[MAX_RANK], to[MAX_RANK];
  int rank = type_stored_dims(&n->ins.data[0]->type, from);
  rank = min_int(rank, type_stored_dims(&n->outs.data[0]->type, to));
  int i = 0;
  while (i < lead && i < rank && from[i] == to[i])
    i++;
  return i;
}

static int lead_of_dim(const Node *n, int lead) {
  int dim = (int)attr_int(n, "dim");
  return min_int(lead, dim - type_is_ragged(&n->outs.data[0]->type));
}

/* Operands that stand under all dims of the tokens but the last. */
static int lead_of_last(const Node *n, uint32_t operand, int lead) {
  return min_int(lead, stored_rank(n->ins.data[operand]) - 1);
}

int ir_lead(const Node *n, uint32_t operand, int lead) {
  if (op_is(n->op, TRAIT_EW)) return lead;
  if (op_info[n->op].lower == LOWER_ROW) return lead_of_last(n, operand, lead);
  switch ((int)n->op) {
  case OP_broadcast:
  case OP_transpose:
  case OP_reduce_sum:
  case OP_reduce_max:
  case OP_reduce_min: return lead_of_map(n, lead);
  case OP_reshape: return lead_of_sizes(n, lead);
  case OP_slice:
  case OP_concat:
  case OP_pad: return lead_of_dim(n, lead);
  case OP_gather:
    return operand == 0 ? 0 : min_int(lead, stored_rank(n->ins.data[1]));
  case OP_take: return lead_of_last(n, operand, lead);
  case OP_local_slice: return operand == 0 ? lead_of_dim(n, lead) : 0;
  case OP_rows_gather: return operand == 1 ? min_int(lead, 1) : 0;
  case OP_rows_combine:
  case OP_rows_dot: return operand == 0 ? 0 : lead_of_last(n, operand, lead);
  }
  return 0;
}
