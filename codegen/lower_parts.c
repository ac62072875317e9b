/* lower_parts.c: few rows, whose columns have nothing to do with each other,
 * for many warps.
 *
 * The cell of an LSTM has a row a sequence, and gates side by side in it: 16 of
 * them are work for 16 warps, which wait for memory, one behind the other, for
 * each part of a row. Where no value needs another column than its own, an item
 * is a part of a row:
 *
 *   stage %i in 16 {                   stage %i in 96 {
 *     for %c = 0 to 768 step 128         %c = mul (rem %i, 6), 128
 *       ... row %i, column %c              ... row (div %i, 6), column %c
 *
 * What a row keeps in scratch, too, is that of its part. */
#include "codegen.h"

#include <string.h>

enum { FEW = 512 }; /* rows, with fewer than which warps are left over */

static bool has_columns(const Lower *l, const Value *v, int64_t run) {
  const LwValue *lv = lw_value(l, v);
  return lv->rank && lv->dims[lv->rank - 1] == run;
}

static bool is_number(const Lower *l, const Value *v) {
  return lw_value(l, v)->rank == 0;
}

/* Whether column c of the result is of column c of the operand alone, or of
 * what is there for all of them. */
static bool repeats_columns(const Lower *l, const Node *n, int64_t run) {
  const Value *from = n->ins.data[0];
  Sym map = attr_sym(n, "map");
  const char *arrow = strstr(map, "->");
  if (is_number(l, from) || !from->def) return true;
  return has_columns(l, from, run) && arrow[-1] == map[strlen(map) - 1];
}

static bool keeps_columns(const Lower *l, const Node *n, int64_t run) {
  const Value *out = n->outs.data[0];
  if (!is_number(l, out) && !has_columns(l, out, run)) return false;
  switch ((int)n->op) {
  case OP_const:
  case OP_iota: return true;
  case OP_broadcast: return repeats_columns(l, n, run);
  case OP_reshape: return has_columns(l, n->ins.data[0], run);
  case OP_slice:
  case OP_concat: return attr_int(n, "dim") != lw_value(l, out)->rank - 1;
  }
  return op_info[n->op].lower == LOWER_SCALAR;
}

int64_t lw_part(const Lower *l, int rows) {
  const Region *body = l->n->body;
  const LwValue *first = lw_value(l, body->results.data[0]);
  int64_t run = first->rank ? first->dims[first->rank - 1] : 0, count = 1;
  if (!l->warps || run < 2 * l->lanes || rows >= first->rank) return 0;
  for (int i = 0; i < rows; i++)
    count *= first->dims[i];
  if (count >= FEW) return 0;
  for (uint32_t i = 0; i < body->results.len; i++) {
    const LwValue *v = lw_value(l, body->results.data[i]);
    if (v->rank <= rows || !has_columns(l, v->v, run)) return 0;
  }
  for (uint32_t i = 0; i < body->nodes.len; i++)
    if (!keeps_columns(l, body->nodes.data[i], run)) return 0;
  return l->lanes;
}
