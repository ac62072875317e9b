/* attention.c: scaled dot-product attention: its shape, its types, what it
 * means.
 *
 * Of query i and key j of one head the score is scale * q_i . k_j; a query's
 * weights are the softmax of its scores over the keys that it sees, and its
 * result the weighted sum of their values. It sees key j where the mask, if
 * there is one, is true at j, and, in a causal one, where j is not behind it:
 * j <= i + Tk - Tq, as the last query stands at the last key. A query that sees
 * nothing has result 0, and -inf as the logarithm of its sum of exponentials.
 *
 * With P the weights, `delta` the rows' dot products of the result with its
 * cotangent dO (less the cotangent of the logarithms), the gradient is
 *
 *   dV = P' dO    dS = P * (dO V' - delta) * scale    dQ = dS K    dK = dS' Q
 *
 * and P is exp(S - lse): nothing of the size of P is ever kept. */
#include "ir.h"

#include <math.h>
#include <string.h>

/* ---- shape --------------------------------------------------------------- */

static bool is_gradient(const Node *n) {
  return n->op == OP_attention_grad;
}

static uint32_t mask_of(const Node *n) {
  return is_gradient(n) ? 6 : 3;
}

static const Type *type_in(const Node *n, uint32_t i) {
  return &ir_now(n->ins.data[i])->type;
}

AttentionShape ir_attention(const Node *n) {
  const Type *q = type_in(n, 0), *k = type_in(n, 1), *v = type_in(n, 2);
  int r = q->rank;
  AttentionShape s = {.queries = q->dims[r - 3].size,
                      .keys = k->dims[r - 3].size,
                      .heads = q->dims[r - 2].size,
                      .kv_heads = k->dims[r - 2].size,
                      .width = q->dims[r - 1].size,
                      .v_width = v->dims[r - 1].size,
                      .batch = 1,
                      .causal = attr_bool(n, "causal"),
                      .mask = n->ins.len > mask_of(n) ? (int)mask_of(n) : -1,
                      .scale = attr_float(n, "scale"),
                      .dtype = q->dtype};
  for (int d = 0; d < r - 3; d++)
    s.batch *= q->dims[d].size;
  return s;
}

/* Pairs of a query and a key that it may see, of one head. */
static int64_t pairs_seen(const AttentionShape *s) {
  int64_t m = s->queries, n = s->keys;
  if (!s->causal) return m * n;
  /* The last min(m, n) queries see n, n - 1, ... keys. */
  int64_t rows = m < n ? m : n;
  return rows * n - rows * (rows - 1) / 2;
}

int64_t ir_attention_macs(const Node *n) {
  AttentionShape s = ir_attention(n);
  int64_t products =
      is_gradient(n) ? 3 * s.width + 2 * s.v_width : s.width + s.v_width;
  return s.batch * s.heads * pairs_seen(&s) * products;
}

/* ---- types --------------------------------------------------------------- */

static Sym text_in(Infer *I, uint32_t i) {
  return type_text(I->cx, type_in(I->n, i));
}

static bool want_floats(Infer *I) {
  const Type *q = type_in(I->n, 0);
  for (uint32_t i = 0; i < 3; i++) {
    const Type *t = type_in(I->n, i);
    if (dtype_info[t->dtype].kind != DK_FLOAT || type_is_ragged(t) ||
        t->rank < 3)
      return infer_fail(
          I,
          "operand %u must be floats [.., time, heads, width], but "
          "is %s",
          i, text_in(I, i));
    if (t->dtype != q->dtype || t->rank != q->rank)
      return infer_fail(I, "operands differ: queries %s vs %s %s",
                        text_in(I, 0), i == 1 ? "keys" : "values",
                        text_in(I, i));
  }
  return true;
}

/* Queries and keys agree in leading dims and width, keys and values in all but
 * their width; heads are a multiple of those of keys. */
static bool want_sizes(Infer *I) {
  const Type *q = type_in(I->n, 0), *k = type_in(I->n, 1),
             *v = type_in(I->n, 2);
  int r = q->rank;
  for (int d = 0; d < r; d++) {
    if (d < r - 1 && k->dims[d].size != v->dims[d].size)
      return infer_fail(I, "keys and values differ in dim %d: %s vs %s", d,
                        text_in(I, 1), text_in(I, 2));
    bool own = d == r - 3 || d == r - 2; /* time, heads */
    if (!own && q->dims[d].size != k->dims[d].size)
      return infer_fail(I, "queries and keys differ in dim %d: %s vs %s", d,
                        text_in(I, 0), text_in(I, 1));
  }
  int64_t heads = q->dims[r - 2].size, kv_heads = k->dims[r - 2].size;
  return heads % kv_heads == 0 ||
         infer_fail(I, "%lld heads of queries are no multiple of %lld of keys",
                    (long long)heads, (long long)kv_heads);
}

/* Operand i is of this type; `what` says why. */
static bool want_type(Infer *I, uint32_t i, const Type *t, const char *what) {
  return type_equal(type_in(I->n, i), t) ||
         infer_fail(I, "%s must be %s, but is %s", what, type_text(I->cx, t),
                    text_in(I, i));
}

/* bool [.., Tk] where there is one. */
static bool want_mask(Infer *I) {
  if (I->n->ins.len <= mask_of(I->n)) return true;
  Type t = *type_in(I->n, 1);
  t.dtype = DT_bool;
  t.rank -= 2;
  return want_type(I, mask_of(I->n), &t, "the mask of keys");
}

static bool want_operands(Infer *I) {
  double scale = attr_float(I->n, "scale");
  if (!want_floats(I) || !want_sizes(I) || !want_mask(I)) return false;
  return isfinite(scale) || infer_fail(I, "scale is not finite");
}

static Dtype sums_of(const Node *n) {
  return dtype_info[type_in(n, 0)->dtype].sums;
}

/* The result: as the queries, as wide as the values. */
static Type out_type(const Node *n) {
  Type t = type_with_dtype(*type_in(n, 0), sums_of(n));
  t.dims[t.rank - 1] = type_in(n, 2)->dims[t.rank - 1];
  return t;
}

/* A number for each query and head. */
static Type row_type(const Node *n) {
  Type t = type_with_dtype(*type_in(n, 0), sums_of(n));
  t.rank--;
  return t;
}

bool infer_attention(Infer *I) {
  return want_operands(I) && infer_result(I, out_type(I->n)) &&
         infer_result(I, row_type(I->n));
}

bool infer_attention_grad(Infer *I) {
  if (!want_operands(I)) return false;
  Type d = type_with_dtype(out_type(I->n), type_in(I->n, 0)->dtype);
  Type row = row_type(I->n);
  if (!want_type(I, 3, &d, "the result's cotangent") ||
      !want_type(I, 4, &row, "the rows' logarithms") ||
      !want_type(I, 5, &row, "the rows' dot products"))
    return false;
  for (uint32_t i = 0; i < 3; i++)
    if (!infer_result(I, type_with_dtype(*type_in(I->n, i), sums_of(I->n))))
      return false;
  return true;
}

/* ---- meaning ------------------------------------------------------------- */

/* One query of one head: where its numbers are. */
typedef struct Row {
  const EvalCall *c;
  AttentionShape s;
  int64_t b, i, h; /* batch, query, head */
} Row;

/* Of query, result or row number. */
static int64_t query_at(const Row *r) {
  return (r->b * r->s.queries + r->i) * r->s.heads + r->h;
}

static int64_t key_at(const Row *r, int64_t j) {
  int64_t h = r->h / (r->s.heads / r->s.kv_heads);
  return (r->b * r->s.keys + j) * r->s.kv_heads + h;
}

static double dot(const double *x, const double *y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += x[i] * y[i];
  return sum;
}

static void add(double *to, const double *x, int64_t n, double factor) {
  for (int64_t i = 0; i < n; i++)
    to[i] += factor * x[i];
}

static bool sees(const Row *r, int64_t j) {
  if (r->s.causal && j > r->i + r->s.keys - r->s.queries) return false;
  return r->s.mask < 0 || r->c->ins[r->s.mask]->data[r->b * r->s.keys + j];
}

static double score(const Row *r, int64_t j) {
  int64_t w = r->s.width;
  return r->s.scale * dot(r->c->ins[0]->data + query_at(r) * w,
                          r->c->ins[1]->data + key_at(r, j) * w, w);
}

static void each_row(EvalCall *c, void (*run)(const Row *r)) {
  Row r = {.c = c, .s = ir_attention(c->n)};
  for (uint32_t i = 0; i < c->n->outs.len; i++)
    memset(c->outs[i]->data, 0,
           sizeof(double) * (size_t)type_elements(&c->outs[i]->type));
  for (r.b = 0; r.b < r.s.batch; r.b++)
    for (r.h = 0; r.h < r.s.heads; r.h++)
      for (r.i = 0; r.i < r.s.queries; r.i++)
        run(&r);
}

static void attend(const Row *r) {
  int64_t at = query_at(r), w = r->s.v_width;
  double *out = r->c->outs[0]->data + at * w;
  double top = -INFINITY, sum = 0;
  for (int64_t j = 0; j < r->s.keys; j++) {
    double s = sees(r, j) ? score(r, j) : -INFINITY;
    if (s > top || isnan(s)) top = s;
  }
  for (int64_t j = 0; j < r->s.keys && top != -INFINITY; j++) {
    double p = sees(r, j) ? exp(score(r, j) - top) : 0;
    sum += p;
    if (sees(r, j)) add(out, r->c->ins[2]->data + key_at(r, j) * w, w, p);
  }
  for (int64_t d = 0; d < w && sum != 0; d++)
    out[d] /= sum;
  r->c->outs[1]->data[at] = sum != 0 ? top + log(sum) : -INFINITY;
}

void eval_attention(EvalCall *c) {
  each_row(c, attend);
}

static void attend_back(const Row *r) {
  const Tensor *const *ins = r->c->ins;
  int64_t at = query_at(r), w = r->s.width, vw = r->s.v_width;
  const double *q = ins[0]->data + at * w, *d = ins[3]->data + at * vw;
  for (int64_t j = 0; j < r->s.keys; j++) {
    if (!sees(r, j)) continue;
    int64_t key = key_at(r, j);
    double p = exp(score(r, j) - ins[4]->data[at]);
    double ds = p * (dot(d, ins[2]->data + key * vw, vw) - ins[5]->data[at]);
    add(r->c->outs[0]->data + at * w, ins[1]->data + key * w, w,
        ds * r->s.scale);
    add(r->c->outs[1]->data + key * w, q, w, ds * r->s.scale);
    add(r->c->outs[2]->data + key * vw, d, vw, p);
  }
}

void eval_attention_grad(EvalCall *c) {
  each_row(c, attend_back);
}
