/* infer_comm.c: result types of the ops that are about ranks. They need the
 * mesh, which is the module's: a group has as many ranks as its axes' sizes
 * multiply to. */
#include "ir.h"

#include <string.h>

static Type in(const Infer *I, uint32_t i) {
  return ir_now(I->n->ins.data[i])->type;
}

static Sym text(const Infer *I, Type t) {
  return type_text(I->cx, &t);
}

static bool group_size(Infer *I, int64_t *size) {
  Axes a;
  Sym why;
  const Module *m = I->n->region->entry->module;
  if (mesh_devices(m) > MAX_RANKS)
    return infer_fail(I, "the mesh has more than %lld ranks",
                      (long long)MAX_RANKS);
  bool ok = axes_parse(m, attr_sym(I->n, "axes"), &a, &why);
  *size = ok ? axes_parts(m, a) : 0;
  return ok || infer_fail(I, "%s", why);
}

static bool want_plain(Infer *I, uint32_t i) {
  Type t = in(I, i);
  return !type_is_ragged(&t) ||
         infer_fail(I, "operand %u may not be ragged, but is %s", i,
                    text(I, t));
}

static bool want_i32(Infer *I, uint32_t i, int rank, const int64_t *dims) {
  Type want = type_of(DT_i32, rank, dims), got = in(I, i);
  return type_equal(&want, &got) ||
         infer_fail(I, "operand %u must be %s, but is %s", i, text(I, want),
                    text(I, got));
}

/* Attribute `name` is a dim of `t`, of rows one behind them: they stay with
 * their ranks, which have the same of them. */
static bool want_dim(Infer *I, Type t, const char *name) {
  int64_t dim = attr_int(I->n, name);
  if (dim < 0 || dim >= t.rank)
    return infer_fail(I, "%s=%lld is no dim of %s", name, (long long)dim,
                      text(I, t));
  return !type_is_ragged(&t) || dim > 1 ||
         infer_fail(I, "%s=%lld is one of the rows of %s", name, (long long)dim,
                    text(I, t));
}

/* That dim of `t`, cut into `parts`. */
static bool cut(Infer *I, Type *t, const char *name, int64_t parts) {
  if (!want_dim(I, *t, name)) return false;
  Dim *d = &t->dims[attr_int(I->n, name)];
  if (parts < 1 || d->size % parts)
    return infer_fail(I, "dim %lld of %s does not divide by %lld",
                      (long long)attr_int(I->n, name), text(I, *t),
                      (long long)parts);
  d->size /= parts;
  return true;
}

static bool join(Infer *I, Type *t, const char *name, int64_t parts) {
  if (!want_dim(I, *t, name)) return false;
  int64_t *size = &t->dims[attr_int(I->n, name)].size;
  if (*size > MAX_DIM / parts)
    return infer_fail(I, "dim %lld of the result is larger than %lld",
                      (long long)attr_int(I->n, name), (long long)MAX_DIM);
  *size *= parts;
  return true;
}

static bool want_combine(Infer *I, uint32_t i) {
  CombineOp op;
  const char *name = attr_sym(I->n, "op");
  if (!combine_find(name, &op))
    return infer_fail(I, "op=\"%s\" is not sum, max or min", name);
  return op != COMBINE_SUM || in(I, i).dtype != DT_bool ||
         infer_fail(I, "operand %u is %s, of which there is no sum", i,
                    text(I, in(I, i)));
}

bool infer_rank(Infer *I) {
  int64_t p;
  return group_size(I, &p) && infer_result(I, type_scalar(DT_i32));
}

bool infer_local_slice(Infer *I) {
  Type t = in(I, 0);
  return want_i32(I, 1, 0, NULL) &&
         cut(I, &t, "dim", attr_int(I->n, "parts")) && infer_result(I, t);
}

bool infer_all_reduce(Infer *I) {
  int64_t p;
  if (!group_size(I, &p)) return false;
  for (uint32_t i = 0; i < I->n->ins.len; i++)
    if (!want_combine(I, i) || !infer_result(I, in(I, i))) return false;
  return true;
}

bool infer_all_gather(Infer *I) {
  int64_t p;
  Type t = in(I, 0);
  return group_size(I, &p) && join(I, &t, "dim", p) && infer_result(I, t);
}

bool infer_reduce_scatter(Infer *I) {
  int64_t p;
  Type t = in(I, 0);
  return group_size(I, &p) && want_combine(I, 0) && cut(I, &t, "dim", p) &&
         infer_result(I, t);
}

bool infer_all_to_all(Infer *I) {
  int64_t p;
  Type t = in(I, 0);
  return group_size(I, &p) && cut(I, &t, "split", p) &&
         join(I, &t, "concat", p) && infer_result(I, t);
}

bool infer_permute(Infer *I) {
  int64_t p;
  const Attr *to = attr_ref((Node *)I->n, "to");
  if (!group_size(I, &p) || !want_plain(I, 0)) return false;
  bool *taken = NEW_ARRAY(&I->cx->scratch, bool, (size_t)p);
  bool ok = to->list_len == p;
  for (int64_t i = 0; i < p && ok; i++) {
    int64_t place = to->list[i];
    ok = place >= 0 && place < p && !taken[place];
    if (ok) taken[place] = true;
  }
  return ok ? infer_result(I, in(I, 0))
            : infer_fail(I, "`to` must be the numbers 0 to %lld in some order",
                         (long long)p - 1);
}

/* ---- rows ---------------------------------------------------------------- */

/* How many experts there are in all, by the offsets of the rows where the
 * tokens are; -1: operand 1 is no list of offsets. */
static int64_t all_experts(const Infer *I) {
  Type t = in(I, ROWS_MINE);
  return t.rank == 1 ? t.dims[0].size - 1 : -1;
}

/* Operand `some`: which rows go, of those of so many experts. */
static bool want_some(Infer *I, int64_t experts) {
  int64_t dims[] = {2, experts};
  return I->n->ins.len <= ROWS_SOME || want_i32(I, ROWS_SOME, 2, dims);
}

static bool want_others(Infer *I, Type result) {
  if (I->n->ins.len <= ROWS_OTHERS) return true;
  Type t = in(I, ROWS_OTHERS);
  return type_equal(&t, &result) ||
         infer_fail(I, "operand %d must be like the result, %s, but is %s",
                    ROWS_OTHERS, text(I, result), text(I, t));
}

/* Operands x, mine, got, theirs; `there`: x lies where the experts are. */
static bool infer_rows(Infer *I, bool there) {
  int64_t p, rows = attr_int(I->n, "rows");
  Type t = in(I, 0);
  if (!group_size(I, &p)) return false;
  if (!type_is_ragged(&t) || t.dtype == DT_bool)
    return infer_fail(I, "operand 0 must be rows [N, r<=R, ..], but is %s",
                      text(I, t));
  int64_t groups = there ? all_experts(I) : t.dims[0].size;
  int64_t m = there ? t.dims[0].size : (groups + p - 1) / p;
  if (m > (MAX_DIM - 1) / p) return infer_fail(I, "too many groups of rows");
  if (there && (groups < 1 || (groups + p - 1) / p != m))
    return infer_fail(
        I, "%s are not the offsets of %lld ranks with %lld groups each",
        text(I, in(I, 1)), (long long)p, (long long)m);
  int64_t mine = groups + 1, got[] = {p, m}, theirs = m + 1;
  if (!want_i32(I, ROWS_MINE, 1, &mine) || !want_i32(I, ROWS_GOT, 2, got) ||
      !want_i32(I, ROWS_THEIRS, 1, &theirs) || !want_some(I, mine - 1))
    return false;
  if (rows < 1 || rows > MAX_DIM)
    return infer_fail(I, "rows=%lld is not in 1 to %lld", (long long)rows,
                      (long long)MAX_DIM);
  t.dims[0].size = there ? groups : m;
  t.dims[1].size = rows;
  return want_others(I, t) && infer_result(I, t);
}

bool infer_rows_send(Infer *I) {
  const Attr *most = attr_ref((Node *)I->n, "most");
  if (most->present && (most->i < 1 || most->i > MAX_DIM))
    return infer_fail(I, "most=%lld is not in 1 to %lld", (long long)most->i,
                      (long long)MAX_DIM);
  return infer_rows(I, false);
}
bool infer_rows_return(Infer *I) {
  return infer_rows(I, true);
}

/* Whose results these are is seen to by the verifier. */
bool infer_wait(Infer *I) {
  for (uint32_t i = 0; i < I->n->ins.len; i++)
    if (!infer_result(I, in(I, i))) return false;
  return true;
}
