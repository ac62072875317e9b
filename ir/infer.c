/* infer.c: result types, one rule a family of ops; infer_comm.c has those that
 * are about ranks.
 *
 * A rule is named by the `infer` column of ops.def. It checks the operands'
 * types, the attributes' values and the body against each other and appends
 * the result types. IR text comes from users, so a rule assumes nothing but
 * what `ir_infer_types` has checked before: the number of operands, and that
 * attributes are there. */
#include "ir.h"

#include <math.h>
#include <string.h>

typedef bool InferFn(Infer *I);

/* ---- shared by the rules ------------------------------------------------ */

#define fail infer_fail /* its short name, in this file */

bool infer_fail(Infer *I, const char *fmt, ...) {
  char text[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  diag_error(I->cx, I->n->span, "%s: %s", op_info[I->n->op].name, text);
  return false;
}

static Type in(const Infer *I, uint32_t i) {
  return ir_now(I->n->ins.data[i])->type;
}

static Sym text(const Infer *I, Type t) {
  return type_text(I->cx, &t);
}

static bool result(Infer *I, Type t) {
  char what[64];
  snprintf(what, sizeof what, "%s: result", op_info[I->n->op].name);
  if (!ir_check_type(I->cx, I->n->span, what, &t)) return false;
  vec_push(&I->cx->perm, I->out, t);
  return true;
}

bool infer_result(Infer *I, Type t) {
  return result(I, t);
}

/* The type written on a TYPED op. */
static Type given(const Infer *I) {
  return I->n->outs.data[0]->type;
}

static bool is_float(Type t) {
  return dtype_info[t.dtype].kind == DK_FLOAT;
}
static bool is_bool(Type t) {
  return dtype_info[t.dtype].kind == DK_BOOL;
}

static bool want_float(Infer *I, uint32_t i) {
  return is_float(in(I, i)) ||
         fail(I, "operand %u must be a float, but is %s", i, text(I, in(I, i)));
}

static bool want_number(Infer *I, uint32_t i) {
  return !is_bool(in(I, i)) || fail(I, "operand %u must be a number, but is %s",
                                    i, text(I, in(I, i)));
}

static bool want_dtype(Infer *I, uint32_t i, Dtype d) {
  return in(I, i).dtype == d || fail(I, "operand %u must be %s, but is %s", i,
                                     dtype_info[d].name, text(I, in(I, i)));
}

/* Operands from `first` on have one type. */
static bool want_same(Infer *I, uint32_t first) {
  Type a = in(I, first);
  for (uint32_t i = first + 1; i < I->n->ins.len; i++) {
    Type b = in(I, i);
    if (!type_equal(&a, &b))
      return fail(I, "operands differ: %s vs %s", text(I, a), text(I, b));
  }
  return true;
}

static bool want_plain(Infer *I, uint32_t i) {
  Type t = in(I, i);
  return !type_is_ragged(&t) ||
         fail(I, "operand %u may not be ragged, but is %s", i, text(I, t));
}

static bool want_rank(Infer *I, uint32_t i, int least) {
  return in(I, i).rank >= least ||
         fail(I, "operand %u needs %d dim%s at least, but is %s", i, least,
              least == 1 ? "" : "s", text(I, in(I, i)));
}

/* Attribute `name` lies in [lo, hi]. */
static bool want_range(Infer *I, const char *name, int64_t lo, int64_t hi) {
  int64_t v = attr_int(I->n, name);
  return (v >= lo && v <= hi) ||
         fail(I, "%s=%lld is not in %lld to %lld", name, (long long)v,
              (long long)lo, (long long)hi);
}

/* Attribute `dim` names a dim of `t` that an op may cut or extend: of a ragged
 * value one behind its rows. */
static bool want_dim(Infer *I, Type t) {
  if (t.rank == 0) return fail(I, "%s has no dims", text(I, t));
  if (!want_range(I, "dim", 0, t.rank - 1)) return false;
  if (type_is_ragged(&t) && attr_int(I->n, "dim") < 2)
    return fail(I, "dim=%lld is one of the rows of %s",
                (long long)attr_int(I->n, "dim"), text(I, t));
  return true;
}

/* The last dim of operand i is worked on as a whole. */
static bool want_last_dim(Infer *I, uint32_t i) {
  Type t = in(I, i);
  return want_rank(I, i, type_is_ragged(&t) ? 3 : 1);
}

/* `t` without its last dim. */
static Type leading(Type t) {
  t.rank--;
  return t;
}

/* Operands a and b agree in all dims but the last. */
static bool want_same_leading(Infer *I, uint32_t a, uint32_t b) {
  Type x = in(I, a), y = in(I, b), lx = leading(x), ly = leading(y);
  return type_same_dims(&lx, &ly) ||
         fail(I, "leading dims of operands %u and %u differ: %s vs %s", a, b,
              text(I, x), text(I, y));
}

/* ---- elementwise -------------------------------------------------------- */

static bool infer_same(Infer *I) {
  if (!want_same(I, 0)) return false;
  if (I->n->op == OP_fma && !want_float(I, 0)) return false;
  if (I->n->op == OP_rem && is_float(in(I, 0)))
    return fail(I, "operands must be integers, but are %s", text(I, in(I, 0)));
  if (I->n->op == OP_cumsum && !want_last_dim(I, 0)) return false;
  if (!want_number(I, 0)) return false;
  return result(I, in(I, 0));
}

static bool infer_copy(Infer *I) {
  return result(I, in(I, 0));
}

static bool infer_float(Infer *I) {
  return want_float(I, 0) && result(I, in(I, 0));
}

static bool infer_compare(Infer *I) {
  if (!want_same(I, 0)) return false;
  bool ordered = I->n->op == OP_lt || I->n->op == OP_le;
  if (ordered && !want_number(I, 0)) return false;
  return result(I, type_with_dtype(in(I, 0), DT_bool));
}

static bool infer_bits(Infer *I) {
  if (!want_same(I, 0)) return false;
  bool shift = I->n->op == OP_shl || I->n->op == OP_shr;
  if (is_float(in(I, 0)) || (shift && is_bool(in(I, 0))))
    return fail(I, "operands must be integers%s, but are %s",
                shift ? "" : " or bool", text(I, in(I, 0)));
  return result(I, in(I, 0));
}

static bool infer_is_finite(Infer *I) {
  return want_float(I, 0) && result(I, type_with_dtype(in(I, 0), DT_bool));
}

static bool infer_select(Infer *I) {
  Type cond = in(I, 0), yes = in(I, 1);
  if (!want_dtype(I, 0, DT_bool) || !want_same(I, 1)) return false;
  if (!type_same_dims(&cond, &yes))
    return fail(I, "dims differ: condition %s vs %s", text(I, cond),
                text(I, yes));
  return result(I, yes);
}

/* The written type has the operand's dims. */
static bool want_given_dims(Infer *I) {
  Type a = in(I, 0), t = given(I);
  return type_same_dims(&a, &t) ||
         fail(I, "dims differ: operand %s vs result %s", text(I, a),
              text(I, t));
}

static bool infer_cast(Infer *I) {
  return want_given_dims(I) && result(I, given(I));
}

static bool infer_bitcast(Infer *I) {
  Type a = in(I, 0), t = given(I);
  if (!want_given_dims(I)) return false;
  if (is_bool(a) || is_bool(t) ||
      dtype_info[a.dtype].bytes != dtype_info[t.dtype].bytes)
    return fail(I, "sizes of elements differ: %s vs %s", text(I, a),
                text(I, t));
  return result(I, t);
}

static bool infer_from_bits(Infer *I) {
  if (!want_dtype(I, 0, DT_u32) || !want_given_dims(I)) return false;
  if (!is_float(given(I)))
    return fail(I, "the result must be a float, but is %s", text(I, given(I)));
  return result(I, given(I));
}

static bool infer_u32(Infer *I) {
  if (I->n->op == OP_threefry && !want_range(I, "site", 0, UINT32_MAX))
    return false;
  return want_dtype(I, 0, DT_u32) && want_same(I, 0) && result(I, in(I, 0));
}

/* ---- making data -------------------------------------------------------- */

/* An integer constant is exactly what is written. */
static bool is_representable(double v, Dtype d) {
  switch (dtype_info[d].kind) {
  case DK_BOOL: return v == 0 || v == 1;
  case DK_INT: return v == trunc(v) && v >= INT32_MIN && v <= INT32_MAX;
  case DK_UINT: return v == trunc(v) && v >= 0 && v <= UINT32_MAX;
  case DK_FLOAT: return true;
  }
  return false;
}

static bool infer_given(Infer *I) {
  Type t = given(I);
  if (I->n->op == OP_const) {
    char number[32];
    double v = attr_float(I->n, "value");
    format_double(v, number);
    if (!is_representable(v, t.dtype))
      return fail(I, "value=%s is no %s", number, dtype_info[t.dtype].name);
    return result(I, t);
  }
  if (is_bool(t)) return fail(I, "the result may not be %s", text(I, t));
  if (t.rank == 0) return fail(I, "%s has no dims", text(I, t));
  if (!want_range(I, "dim", 0, t.rank - 1)) return false;
  if (type_is_ragged(&t) && attr_int(I->n, "dim") == 0)
    return fail(I, "dim=0 of ragged %s is not stored", text(I, t));
  return result(I, t);
}

/* ---- index maps --------------------------------------------------------- */

typedef struct Letters {
  IndexMap map;
  Dim dims[128];   /* by letter; size 0: not bound */
  char group, row; /* letters of the ragged operands, or 0 */
} Letters;

static bool bind_operand(Infer *I, Letters *l, uint32_t i) {
  Type t = in(I, i);
  const char *s = l->map.ins[i];
  if (strlen(s) != t.rank)
    return fail(I, "map \"%s\" gives operand %u %zu dims, but it is %s",
                attr_sym(I->n, "map"), i, strlen(s), text(I, t));
  for (int d = 0; d < t.rank; d++) {
    Dim *bound = &l->dims[(int)s[d]];
    if (bound->size && bound->ragged != t.dims[d].ragged)
      return fail(I, "'%c' is ragged in one operand only: %s vs %s", s[d],
                  text(I, in(I, 0)), text(I, t));
    if (bound->size && bound->size != t.dims[d].size)
      return fail(I, "'%c' is %lld in one operand, %lld in the other: %s vs %s",
                  s[d], (long long)bound->size, (long long)t.dims[d].size,
                  text(I, in(I, 0)), text(I, t));
    *bound = t.dims[d];
  }
  if (!type_is_ragged(&t)) return true;
  if (l->row && (l->row != s[1] || l->group != s[0]))
    return fail(I, "map \"%s\" must name the rows of both operands alike",
                attr_sym(I->n, "map"));
  l->group = s[0];
  l->row = s[1];
  return true;
}

/* Rows stay rows: where the row letter stands, it is letter 1 behind the group
 * letter. */
static bool want_rows_kept(Infer *I, const Letters *l, const char *s) {
  if (!l->row || !strchr(s, l->row)) return true;
  return (s[0] == l->group && s[1] == l->row) ||
         fail(I, "map \"%s\" must keep the rows '%c%c' at the front",
              attr_sym(I->n, "map"), l->group, l->row);
}

/* Parses the map and binds its letters to the operands' dims. */
static bool bind_map(Infer *I, Letters *l) {
  *l = (Letters){0};
  const char *map = attr_sym(I->n, "map");
  if (!map_parse(map, &l->map))
    return fail(I, "map \"%s\" is not of the form \"ab,bc->ac\"", map);
  uint32_t n_ins = (uint32_t)l->map.n_ins;
  bool offsets = I->n->op == OP_contract && I->n->ins.len == 3;
  if (n_ins != I->n->ins.len - offsets)
    return fail(I, "map \"%s\" has %d operand%s, the op %u", map, l->map.n_ins,
                l->map.n_ins == 1 ? "" : "s", I->n->ins.len);
  for (uint32_t i = 0; i < n_ins; i++)
    if (!bind_operand(I, l, i)) return false;
  for (uint32_t i = 0; i < n_ins; i++)
    if (!want_rows_kept(I, l, l->map.ins[i])) return false;
  return want_rows_kept(I, l, l->map.out);
}

/* The result type by the map; all its letters are bound. */
static bool map_result(Infer *I, const Letters *l, Dtype dtype) {
  Type t = {.dtype = dtype, .rank = (uint8_t)strlen(l->map.out)};
  for (int d = 0; d < t.rank; d++) {
    t.dims[d] = l->dims[(int)l->map.out[d]];
    if (!t.dims[d].size)
      return fail(I, "'%c' of the result is in no operand: map \"%s\"",
                  l->map.out[d], attr_sym(I->n, "map"));
  }
  return result(I, t);
}

static bool infer_transpose(Infer *I) {
  Letters l;
  if (!bind_map(I, &l)) return false;
  if (strlen(l.map.out) != strlen(l.map.ins[0]))
    return fail(I, "map \"%s\" must keep every dim", attr_sym(I->n, "map"));
  return map_result(I, &l, in(I, 0).dtype);
}

/* The rows of each group may be summed to one, as a product with ones is. */
static bool want_row_sum(Infer *I, const Letters *l) {
  if (!l->row || strchr(l->map.out, l->row) || !strchr(l->map.out, l->group))
    return true;
  return (I->n->op == OP_reduce_sum && is_float(in(I, 0))) ||
         fail(I, "over the rows of each group only floats are summed: %s",
              text(I, in(I, 0)));
}

static bool infer_reduce(Infer *I) {
  Letters l;
  return want_number(I, 0) && bind_map(I, &l) && want_row_sum(I, &l) &&
         map_result(I, &l, in(I, 0).dtype);
}

/* Offsets i32[N + 1] of a ragged operand's rows, where there are any. */
static bool want_offsets(Infer *I, const Letters *l) {
  if (I->n->ins.len < 3) return true;
  Type t = in(I, 2);
  if (!l->row) return fail(I, "offsets, but no operand is ragged");
  int64_t groups = l->dims[(int)l->group].size;
  return (t.dtype == DT_i32 && t.rank == 1 && t.dims[0].size == groups + 1) ||
         fail(I, "offsets must be i32[%lld], but are %s",
              (long long)groups + 1, text(I, t));
}

static bool infer_contract(Infer *I) {
  Letters l;
  if (!want_float(I, 0) || !want_float(I, 1)) return false;
  if (in(I, 0).dtype != in(I, 1).dtype)
    return fail(I, "operands differ: %s vs %s", text(I, in(I, 0)),
                text(I, in(I, 1)));
  if (!bind_map(I, &l) || !want_offsets(I, &l)) return false;
  for (int i = 0; i < 2; i++)
    for (const char *c = l.map.ins[i]; *c; c++)
      if (!strchr(l.map.ins[1 - i], *c) && !strchr(l.map.out, *c))
        return fail(I, "'%c' is in operand %d only: map \"%s\"", *c, i,
                    attr_sym(I->n, "map"));
  return map_result(I, &l, dtype_info[in(I, 0).dtype].sums);
}

/* A plain operand may spread over new rows, but not name their groups: who owns
 * a row is not known here. */
static bool want_new_rows(Infer *I, const Letters *l, Type t) {
  if (!type_is_ragged(&t) || l->row) return true;
  return (!l->dims[(int)l->map.out[0]].size &&
          !l->dims[(int)l->map.out[1]].size) ||
         fail(I, "plain operand %s cannot name the groups or rows of %s",
              text(I, in(I, 0)), text(I, t));
}

static bool infer_broadcast(Infer *I) {
  Letters l;
  Type t = given(I), a = in(I, 0);
  const char *map = attr_sym(I->n, "map");
  if (!bind_map(I, &l)) return false;
  if (a.dtype != t.dtype || strlen(l.map.out) != t.rank)
    return fail(I, "%s does not become %s by map \"%s\"", text(I, a),
                text(I, t), map);
  for (const char *c = l.map.ins[0]; *c; c++)
    if (!strchr(l.map.out, *c))
      return fail(I, "'%c' is not in the result: map \"%s\"", *c, map);
  for (int d = 0; d < t.rank; d++) {
    Dim bound = l.dims[(int)l.map.out[d]];
    if (bound.size &&
        (bound.size != t.dims[d].size || bound.ragged != t.dims[d].ragged))
      return fail(I, "'%c' differs: operand %s vs result %s", l.map.out[d],
                  text(I, a), text(I, t));
  }
  return want_new_rows(I, &l, t) && result(I, t);
}

/* ---- moving data -------------------------------------------------------- */

static bool infer_reshape(Infer *I) {
  Type a = in(I, 0), t = given(I);
  bool rows = type_is_ragged(&a);
  bool same_rows = rows == type_is_ragged(&t) &&
                   (!rows || (a.dims[0].size == t.dims[0].size &&
                              a.dims[1].size == t.dims[1].size));
  if (a.dtype != t.dtype || !same_rows ||
      type_elements(&a) != type_elements(&t))
    return fail(I, "%s cannot be read as %s", text(I, a), text(I, t));
  return result(I, t);
}

static bool infer_slice(Infer *I) {
  Type t = in(I, 0);
  if (!want_dim(I, t)) return false;
  Dim *d = &t.dims[attr_int(I->n, "dim")];
  if (!want_range(I, "start", 0, d->size - 1) ||
      !want_range(I, "size", 1, d->size - attr_int(I->n, "start")))
    return false;
  d->size = attr_int(I->n, "size");
  return result(I, t);
}

static bool infer_concat(Infer *I) {
  Type t = in(I, 0);
  if (!want_dim(I, t)) return false;
  int64_t dim = attr_int(I->n, "dim"), size = t.dims[dim].size;
  for (uint32_t i = 1; i < I->n->ins.len; i++) {
    Type other = in(I, i);
    if (other.rank == t.rank) {
      size += other.dims[dim].size;
      other.dims[dim] = t.dims[dim];
    }
    if (!type_equal(&t, &other))
      return fail(I, "operands 0 and %u differ outside dim %lld: %s vs %s", i,
                  (long long)dim, text(I, in(I, 0)), text(I, in(I, i)));
  }
  t.dims[dim].size = size;
  return result(I, t);
}

static bool infer_pad(Infer *I) {
  Type t = in(I, 0);
  if (!want_dim(I, t) || !want_range(I, "lo", 0, MAX_DIM) ||
      !want_range(I, "hi", 0, MAX_DIM))
    return false;
  t.dims[attr_int(I->n, "dim")].size +=
      attr_int(I->n, "lo") + attr_int(I->n, "hi");
  return result(I, t);
}

/* Appends dims [from, rank) of `more` to `t`. */
static bool append_dims(Infer *I, Type *t, Type more, int from) {
  if (t->rank + more.rank - from > MAX_RANK)
    return fail(I, "the result of %s and %s has more than %d dims",
                text(I, in(I, 0)), text(I, in(I, 1)), MAX_RANK);
  for (int d = from; d < more.rank; d++)
    t->dims[t->rank++] = more.dims[d];
  return true;
}

static bool infer_gather(Infer *I) {
  Type table = in(I, 0), t = type_with_dtype(in(I, 1), table.dtype);
  return want_rank(I, 0, 1) && want_plain(I, 0) && want_dtype(I, 1, DT_i32) &&
         append_dims(I, &t, table, 1) && result(I, t);
}

static bool infer_scatter_add(Infer *I) {
  Type ids = in(I, 0), x = in(I, 1), front = x;
  if (!want_dtype(I, 0, DT_i32) || !want_number(I, 1) ||
      !want_rank(I, 1, ids.rank) || !want_range(I, "rows", 1, MAX_DIM))
    return false;
  front.rank = ids.rank;
  if (!type_same_dims(&front, &ids))
    return fail(I, "dims of ids %s do not lead %s", text(I, ids), text(I, x));
  Type t = {.dtype = x.dtype, .rank = 1};
  t.dims[0].size = attr_int(I->n, "rows");
  return append_dims(I, &t, x, ids.rank) && result(I, t);
}

static bool infer_pack(Infer *I) {
  Type x = in(I, 0);
  if (!want_range(I, "group", 1, MAX_DIM)) return false;
  bool turned = attr_bool(I->n, "turned");
  int64_t group = attr_int(I->n, "group");
  int64_t n = x.dims[!turned].size, k = x.dims[turned].size;
  if (x.rank != 2 || type_is_ragged(&x) || n % PANEL || k % group)
    return fail(I, "%s is no matrix of whole panels, %d columns of groups of "
                "%lld", text(I, x), PANEL, (long long)group);
  int64_t dims[] = {n / PANEL, k / group, PANEL, group};
  return result(I, type_of(x.dtype, 4, dims));
}

/* Operands 0 and 1 are x[S.., _] and ids i32[S.., K]. */
static bool want_chosen(Infer *I) {
  return want_last_dim(I, 0) && want_last_dim(I, 1) &&
         want_dtype(I, 1, DT_i32) && want_same_leading(I, 0, 1);
}

static bool infer_take(Infer *I) {
  return want_chosen(I) && result(I, type_with_dtype(in(I, 1), in(I, 0).dtype));
}

static bool infer_put(Infer *I) {
  Type x = in(I, 0), t = x, ids = in(I, 1);
  if (!want_chosen(I) || !want_number(I, 0) ||
      !want_range(I, "size", 1, MAX_DIM))
    return false;
  if (!type_same_dims(&x, &ids))
    return fail(I, "dims differ: %s vs ids %s", text(I, x), text(I, ids));
  t.dims[t.rank - 1].size = attr_int(I->n, "size");
  return result(I, t);
}

/* ---- orders ------------------------------------------------------------- */

static bool infer_top_k(Infer *I) {
  Type t = in(I, 0);
  if (!want_number(I, 0) || !want_last_dim(I, 0) ||
      !want_range(I, "k", 1, t.dims[t.rank - 1].size))
    return false;
  t.dims[t.rank - 1].size = attr_int(I->n, "k");
  return result(I, t) && result(I, type_with_dtype(t, DT_i32));
}

static bool infer_sort(Infer *I) {
  return want_number(I, 0) && want_last_dim(I, 0) && result(I, in(I, 0)) &&
         result(I, type_with_dtype(in(I, 0), DT_i32));
}

/* ---- routing ------------------------------------------------------------ */

/* Operand i is ids (or slots) i32[S.., K]; gives R, the rows in all. */
static bool want_ids(Infer *I, uint32_t i, int64_t *rows) {
  Type t = in(I, i);
  if (!want_rank(I, i, 1) || !want_plain(I, i) || !want_dtype(I, i, DT_i32))
    return false;
  *rows = type_elements(&t);
  return *rows <= MAX_DIM || fail(I, "%s makes more than %lld rows", text(I, t),
                                  (long long)MAX_DIM);
}

/* Operand i is x[S.., D] of the tokens that operand `ids` routes. */
static bool want_tokens(Infer *I, uint32_t i, uint32_t ids) {
  return want_rank(I, i, 1) && want_plain(I, i) && want_number(I, i) &&
         want_same_leading(I, i, ids);
}

/* Operand i, when there: gates with the dims of `ids` and the dtype of y. */
static bool want_gates(Infer *I, uint32_t i, uint32_t ids) {
  if (I->n->ins.len <= i) return true;
  Type want = type_with_dtype(in(I, ids), in(I, 0).dtype), gates = in(I, i);
  return type_equal(&want, &gates) ||
         fail(I, "gates must be %s, but are %s", text(I, want), text(I, gates));
}

/* Operand 0 is y[N, r<=rows, D]. */
static bool want_rows(Infer *I, int64_t rows) {
  Type y = in(I, 0);
  if (!want_number(I, 0)) return false;
  if (!type_is_ragged(&y) || y.rank != 3)
    return fail(I, "operand 0 must be rows [N, r<=R, D], but is %s",
                text(I, y));
  return y.dims[1].size == rows ||
         fail(I, "the ids make %lld rows, operand 0 is %s", (long long)rows,
              text(I, y));
}

static Type with_last(Type t, int64_t size, Dtype dtype) {
  t.dims[t.rank - 1] = (Dim){.size = size};
  t.dtype = dtype;
  return t;
}

/* Of a node that may say how many rows an expert has at most. */
static bool want_most(Infer *I) {
  return !attr_ref((Node *)I->n, "most")->present ||
         want_range(I, "most", 1, MAX_DIM);
}

static bool infer_dispatch(Infer *I) {
  int64_t rows;
  if (!want_ids(I, 1, &rows) || !want_tokens(I, 0, 1) || !want_gates(I, 2, 1) ||
      !want_range(I, "experts", 1, MAX_DIM - 1) || !want_most(I))
    return false;
  Type x = in(I, 0);
  return result(I, type_ragged(x.dtype, attr_int(I->n, "experts"), rows,
                               x.dims[x.rank - 1].size));
}

static bool infer_combine(Infer *I) {
  int64_t rows;
  if (!want_ids(I, 1, &rows) || !want_rows(I, rows) || !want_gates(I, 2, 1))
    return false;
  return result(I, with_last(in(I, 1), in(I, 0).dims[2].size, in(I, 0).dtype));
}

static bool infer_row_dot(Infer *I) {
  int64_t rows;
  if (!want_ids(I, 2, &rows) || !want_rows(I, rows) || !want_tokens(I, 1, 2))
    return false;
  Type y = in(I, 0), d = in(I, 1);
  if (y.dtype != d.dtype || y.dims[2].size != d.dims[d.rank - 1].size)
    return fail(I, "rows and tokens differ: %s vs %s", text(I, y), text(I, d));
  return result(I, type_with_dtype(in(I, 2), y.dtype));
}

static bool infer_route(Infer *I) {
  int64_t rows;
  if (!want_ids(I, 0, &rows) || !want_range(I, "experts", 1, MAX_DIM - 1))
    return false;
  int64_t offsets = attr_int(I->n, "experts") + 1;
  return result(I, type_of(DT_i32, 1, &offsets)) && result(I, in(I, 0)) &&
         result(I, type_of(DT_i32, 1, &rows));
}

static bool infer_rows_gather(Infer *I) {
  Type x = in(I, 0), src = in(I, 1), offsets = in(I, 2);
  if (!want_rank(I, 0, 1) || !want_plain(I, 0) || !want_number(I, 0) ||
      !want_dtype(I, 1, DT_i32) || !want_dtype(I, 2, DT_i32) ||
      !want_range(I, "choices", 1, MAX_DIM))
    return false;
  if (src.rank != 1 || offsets.rank != 1 || offsets.dims[0].size < 2)
    return fail(I,
                "src and offsets must be i32[R] and i32[N + 1], but are %s "
                "and %s",
                text(I, src), text(I, offsets));
  Type tokens = leading(x);
  int64_t k = attr_int(I->n, "choices"), rows = src.dims[0].size;
  if (rows % k || rows / k != type_elements(&tokens))
    return fail(I, "%lld choices of %s do not make %s", (long long)k,
                text(I, x), text(I, src));
  if (I->n->ins.len > 3) {
    Type gates = in(I, 3), front = gates;
    front.rank = gates.rank ? gates.rank - 1 : 0;
    if (gates.dtype != x.dtype || gates.rank != x.rank ||
        !type_same_dims(&front, &tokens) || gates.dims[x.rank - 1].size != k)
      return fail(I, "gates do not fit: %s for %lld choices of %s",
                  text(I, gates), (long long)k, text(I, x));
  }
  return result(I, type_ragged(x.dtype, offsets.dims[0].size - 1, rows,
                               x.dims[x.rank - 1].size));
}

/* ---- structure ---------------------------------------------------------- */

static bool infer_grad(Infer *I) {
  if (!want_float(I, 0)) return false;
  if (in(I, 0).rank)
    return fail(I, "operand 0 must be a scalar, but is %s", text(I, in(I, 0)));
  for (uint32_t i = 1; i < I->n->ins.len; i++)
    if (!want_float(I, i) || !result(I, in(I, i))) return false;
  return true;
}

/* Parameter i of the body has type `t`. */
static bool want_param(Infer *I, uint32_t i, Type t) {
  Type p = I->n->body->params.data[i]->type;
  return type_equal(&p, &t) ||
         fail(I, "parameter %u of the body must be %s, but is %s", i,
              text(I, t), text(I, p));
}

static bool want_params(Infer *I, uint32_t n) {
  if (!I->n->body) return fail(I, "has no body");
  return I->n->body->params.len == n ||
         fail(I, "the body must take %u parameter%s, but takes %u", n,
              n == 1 ? "" : "s", I->n->body->params.len);
}

static bool infer_fused(Infer *I) {
  if (!want_params(I, I->n->ins.len)) return false;
  for (uint32_t i = 0; i < I->n->ins.len; i++)
    if (!want_param(I, i, in(I, i))) return false;
  const ValueVec *results = &I->n->body->results;
  for (uint32_t i = 0; i < results->len; i++)
    if (!result(I, ir_now(results->data[i])->type)) return false;
  return true;
}

/* What one iteration sees of scanned operand i. */
static bool slice_of(Infer *I, uint32_t i, Type *out) {
  Type t = in(I, i);
  int64_t length = attr_int(I->n, "length");
  if (!want_rank(I, i, 1) || !want_plain(I, i)) return false;
  if (t.dims[0].size != length)
    return fail(I, "length=%lld, but dim 0 of scanned operand %u is %s",
                (long long)length, i, text(I, t));
  *out = (Type){.dtype = t.dtype};
  return append_dims(I, out, t, 1);
}

static bool scan_params(Infer *I, uint32_t carries, uint32_t scanned) {
  if (!want_params(I, I->n->ins.len + 1) ||
      !want_param(I, 0, type_scalar(DT_i32)))
    return false;
  for (uint32_t i = 0; i < I->n->ins.len; i++) {
    Type t = in(I, i);
    if (i >= carries && i < carries + scanned && !slice_of(I, i, &t))
      return false;
    if (!want_param(I, i + 1, t)) return false;
  }
  return true;
}

/* L values of type `t`, one an iteration. */
static bool stacked(Infer *I, Type t) {
  Type all = {.dtype = t.dtype, .rank = 1};
  if (type_is_ragged(&t))
    return fail(I, "ragged %s cannot be stacked", text(I, t));
  if (t.rank == MAX_RANK)
    return fail(I, "%s has too many dims to be stacked", text(I, t));
  all.dims[0].size = attr_int(I->n, "length");
  memcpy(&all.dims[1], t.dims, t.rank * sizeof(Dim));
  all.rank += t.rank;
  return result(I, all);
}

/* Of a loop with its number of turns as the last operand. */
static bool want_turns(Infer *I) {
  uint32_t n = I->n->ins.len, carries = (uint32_t)attr_int(I->n, "carries");
  if (attr_int(I->n, "scanned") || attr_bool(I->n, "reverse") ||
      I->n->body->results.len != carries)
    return fail(I, "counted turns go forward, and nothing is scanned or "
                   "stacked");
  if (n == carries) return fail(I, "no operand counts the turns");
  Type t = in(I, n - 1), want = type_scalar(DT_i32);
  return type_equal(&t, &want) ||
         fail(I, "operand %u counts the turns and must be i32[], but is %s",
              n - 1, text(I, t));
}

static bool infer_scan(Infer *I) {
  int64_t n = I->n->ins.len;
  if (!want_range(I, "carries", 0, n) ||
      !want_range(I, "scanned", 0, n - attr_int(I->n, "carries")) ||
      !want_range(I, "length", 1, MAX_DIM) ||
      (attr_bool(I->n, "counted") && !want_turns(I)))
    return false;
  uint32_t carries = (uint32_t)attr_int(I->n, "carries");
  if (!scan_params(I, carries, (uint32_t)attr_int(I->n, "scanned")))
    return false;
  const ValueVec *results = &I->n->body->results;
  if (results->len < carries)
    return fail(I, "carries=%u, but the body yields %u", carries,
                results->len);
  for (uint32_t i = 0; i < results->len; i++) {
    Type t = ir_now(results->data[i])->type;
    if (i >= carries && !stacked(I, t)) return false;
    if (i >= carries) continue;
    Type carry = in(I, i);
    if (!type_equal(&t, &carry))
      return fail(I, "carry %u starts as %s, but the body yields %s", i,
                  text(I, carry), text(I, t));
    if (!result(I, t)) return false;
  }
  return true;
}

/* ---- entry points ------------------------------------------------------- */

static InferFn *const rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower,      \
           batch, shard, doc)                                                 \
  [OP_##name] = infer_##infer,
#include "ops.def"
#undef OP
};

bool ir_infer_types(Ctx *cx, const Node *n, TypeVec *out) {
  Infer I = {cx, n, out};
  const OpInfo *info = &op_info[n->op];
  int64_t got = n->ins.len;
  if (got < info->min_ins)
    return fail(&I, "needs %d operand%s%s, got %lld", info->min_ins,
                info->min_ins == 1 ? "" : "s",
                info->max_ins == info->min_ins ? "" : " at least",
                (long long)got);
  if (info->max_ins != VARIADIC && got > info->max_ins)
    return fail(&I, "takes %d operand%s%s, got %lld", info->max_ins,
                info->max_ins == 1 ? "" : "s",
                info->max_ins == info->min_ins ? "" : " at most",
                (long long)got);
  if (op_is(n->op, TRAIT_TYPED) && n->outs.len != 1)
    return fail(&I, "needs a type for its one result");
  const AttrSpec *specs;
  int n_attrs = op_attrs(n->op, &specs);
  for (int i = 0; i < n_attrs; i++)
    if (!specs[i].optional && !n->attrs[i].present)
      return fail(&I, "attribute %s is missing", specs[i].name);
  return rules[n->op](&I);
}

bool ir_infer(Ctx *cx, Node *n) {
  Type few[4];
  TypeVec types = {.data = few, .cap = COUNT_OF(few)};
  if (!ir_infer_types(cx, n, &types)) return false;
  if (n->outs.len && n->outs.len != types.len) {
    diag_error(cx, n->span, "%s: has %u results, not %u", op_info[n->op].name,
               types.len, n->outs.len);
    return false;
  }
  for (uint32_t i = 0; i < types.len; i++) {
    if (i == n->outs.len) ir_add_result(cx, n, types.data[i]);
    n->outs.data[i]->type = types.data[i];
  }
  return true;
}
