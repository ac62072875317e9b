/* fuse_product.c: a contraction and what is done with its sums in one launch.
 *
 * Such a launch computes its contraction block by block in scratch, and as soon
 * as the sums of a block are complete, what follows from them element by
 * element; only the results of that are stored. It is made where the
 * contraction is a product that no library is called for, and is read by
 *   a map whose results have its shape and that follow from it by elementwise
 *         ops; what else these read may be computed there as well. When others
 *         read the contraction too, it is stored beside the results
 *   sums over all elements of it, or of what is made of it and constants alone:
 *         the norm of a weight's gradient
 * A value that has fewer bytes than the contraction, and is the only thing that
 * another launch would read the contraction for, is stored for it instead: the
 * mask of an activation.
 *
 *   %h = contract %x, %w {map="nrd,ndh->nrh"} : f32[8, r<=64, 32]
 *   %0 = const {value=0} : f32[8, r<=64, 32]
 *   %a = max %h, %0 : f32[8, r<=64, 32]
 *
 * becomes
 *
 *   %a = fused %x, %w {kind="product", rows=2} (%x, %w) {
 *     %h = contract %x, %w {map="nrd,ndh->nrh"} : f32[8, r<=64, 32]
 *     %0 = const {value=0} : f32[8, r<=64, 32]
 *     %a = max %h, %0 : f32[8, r<=64, 32]
 *     yield %a
 *   } : f32[8, r<=64, 32]
 *
 * A parameter that is cast for products over few rows of each group alone is
 * cast in them, as they load it, rather than stored once more:
 *
 *   %0 = cast %w : bf16[8, 32, 32]
 *   %h = contract %x, %0 {map="nrd,ndh->nrh"} : f32[8, r<=64, 32]
 *
 * becomes
 *
 *   %h = fused %x, %w {kind="product", rows=2} (%x, %w) {
 *     %0 = cast %w : bf16[8, 32, 32]
 *     %h = contract %x, %0 {map="nrd,ndh->nrh"} : f32[8, r<=64, 32]
 *     yield %h
 *   } : f32[8, r<=64, 32]
 *
 * Bytes decide. The copy takes a read and a write of each element, and a read
 * of the narrow one by each product; without it, each product reads the wide
 * one, for every block of rows that a group has.
 *
 * Rows that are gathered for products alone are gathered in each of them, as it
 * loads them, whether they are its rows or its depth:
 *
 *   %r = rows_gather %x, %src, %o {choices=4} : bf16[8, r<=64, 32]
 *   %h = contract %r, %w {map="nrd,ndh->nrh"} : f32[8, r<=64, 32]
 *
 * becomes
 *
 *   %h = fused %x, %src, %o, %w {kind="product", rows=2} (...) {
 *     %r = rows_gather %x, %src, %o {choices=4} : bf16[8, r<=64, 32]
 *     %h = contract %r, %w {map="nrd,ndh->nrh"} : f32[8, r<=64, 32]
 *     yield %h
 *   } : f32[8, r<=64, 32]
 *
 * so that they are not written once more, nor kept for the backward pass. Where
 * anything else reads them, they are there for products too. With gates they
 * stay: what copies rows on its way does not multiply, and behind a product
 * whose depth they are it would be too late. */
#include "pass.h"

#include <string.h>

bool fuse_is_product(const Node *n) {
  CtProduct p;
  return n->op == OP_contract && ir_product(n, &p) && !ir_product_is_plain(&p);
}

static bool is_product(const Fuse *f, const Node *n) {
  return f->options->opt_level > 0 && fuse_is_product(n);
}

static bool is_pulled(const Node *n) {
  LowerKind k = op_info[n->op].lower;
  return k == LOWER_SCALAR || k == LOWER_ACCESS;
}

static bool reads(const Node *n, const Value *v) {
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (n->ins.data[i] == v) return true;
  return false;
}

/* Not what the contraction is made of, nor what that is loaded from. */
bool fuse_is_behind(const FuseGroup *g, const Node *n) {
  const Value *v = n->outs.data[0];
  for (uint32_t i = 0; i < g->product->ins.len; i++) {
    const Node *def = g->product->ins.data[i]->def;
    if (g->product->ins.data[i] == v) return false;
    if (def && map_get(&g->read, def->outs.data[0]) && reads(def, v))
      return false;
  }
  return is_pulled(n);
}

static bool is_in(const Fuse *f, const FuseGroup *g, const Node *n) {
  const FuseGroupVec *in = map_get(&f->groups, n);
  for (uint32_t i = 0; in && i < in->len; i++)
    if (fuse_now(in->data[i]) == g) return true;
  return false;
}

/* ---- a cast in front of it ----------------------------------------------- */

/* Times that ragged product `n` reads its right operand `v`, if by no more than
 * this bound, for each group's few rows; 0 where it is another product. */
static double reads_of_right(const Fuse *f, const Node *n, const Value *v) {
  CtProduct p;
  if (!is_product(f, n) || !ir_product(n, &p) || !p.groups || p.ragged_k ||
      n->ins.data[p.arg[CT_RIGHT]] != v || n->ins.data[p.arg[CT_LEFT]] == v)
    return 0;
  int64_t blocks = p.rows < p.groups ? p.rows : p.groups;
  blocks += p.rows / CT_ROW_BLOCK;
  return (double)blocks / (double)p.groups;
}

/* Whether `n` is a cast that the products that read it had better do. */
static bool is_cast_in_products(const Fuse *f, const Node *n) {
  if (n->op != OP_cast || n->ins.data[0]->def) return false;
  const Value *v = n->outs.data[0];
  Dtype from = n->ins.data[0]->type.dtype, to = v->type.dtype;
  const NodeVec *users = map_get(&f->users, v);
  if (from != dtype_info[to].sums || !users || map_get(&f->returned, v))
    return false;
  double wide = dtype_info[from].bytes, narrow = dtype_info[to].bytes;
  double copied = wide + narrow, cast = 0;
  for (uint32_t i = 0; i < users->len; i++) {
    double times = reads_of_right(f, users->data[i], v);
    if (times == 0) return false;
    copied += narrow;
    cast += wide * times;
  }
  return cast < copied;
}

/* ---- rows that are gathered in front of it ------------------------------- */

/* Whether `n` gathers rows that the products that read it had better gather. */
static bool is_gather_in_products(const Fuse *f, const Node *n) {
  const Value *v = n->outs.data[0];
  const NodeVec *users = map_get(&f->users, v);
  if (n->op != OP_rows_gather || !users || map_get(&f->returned, v))
    return false;
  for (uint32_t i = 0; i < users->len; i++)
    if (!is_product(f, users->data[i]) ||
        !ir_product_takes_rows(users->data[i], n))
      return false;
  return true;
}

static bool is_in_products(const Fuse *f, const Node *n) {
  return is_cast_in_products(f, n) || is_gather_in_products(f, n);
}

static bool loads_operand(const Fuse *f, const Node *n) {
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Node *def = n->ins.data[i]->def;
    if (def && is_in_products(f, def)) return true;
  }
  return false;
}

/* ---- a map behind it ----------------------------------------------------- */

/* Whether all that `g` makes of `v` is elementwise. */
static bool reads_in_place(Fuse *f, const FuseGroup *g, const Value *v,
                           Map *seen) {
  const NodeVec *users = map_get(&f->users, v);
  for (uint32_t i = 0; users && i < users->len; i++) {
    const Node *n = users->data[i];
    if (!is_in(f, g, n) || map_get(seen, n)) continue;
    map_put(f->a, seen, n, (void *)n);
    if (!op_is(n->op, TRAIT_EW) || !reads_in_place(f, g, n->outs.data[0], seen))
      return false;
  }
  return true;
}

/* Whether contraction `c` may be computed in `g`, a map so far. */
static bool may_join(Fuse *f, const FuseGroup *g, const Node *c) {
  const Value *v = c->outs.data[0];
  int64_t dims[MAX_RANK];
  int rank = type_stored_dims(&v->type, dims);
  if (g->fixed || g->product || g->column_rows || g->orders || g->uneven ||
      g->rank != rank || g->rows != rank ||
      memcmp(g->dims, dims, sizeof *dims * (size_t)rank))
    return false;
  for (uint32_t i = 0; i < g->nodes.len; i++)
    if (!is_pulled(g->nodes.data[i])) return false;
  for (uint32_t i = 0; i < g->results.len; i++)
    if (!type_same_dims(&g->results.data[i]->type, &v->type)) return false;
  Map seen = {0};
  return reads_in_place(f, g, v, &seen);
}

bool fuse_awaits_product(Fuse *f, const FuseGroup *g) {
  for (uint32_t i = 0; i < g->nodes.len; i++) {
    const ValueVec *ins = &g->nodes.data[i]->ins;
    for (uint32_t k = 0; k < ins->len; k++) {
      const Node *c = ins->data[k]->def;
      if (c && is_product(f, c) && may_join(f, g, c)) return true;
    }
  }
  return false;
}

static FuseRead whole(const Node *n) {
  const Type *t = &n->outs.data[0]->type;
  return (FuseRead){.lead = t->rank,
                    .parts = FUSE_REST,
                    .times = (double)type_elements(t)};
}

/* The group that waits for product `c`. */
static FuseGroup *waiting(Fuse *f, Node *c) {
  FuseGroup *g = map_get(&f->products, c);
  if (g) return g;
  g = fuse_group_new(f, NULL);
  g->product = c;
  g->rank = g->rows = type_stored_dims(&c->outs.data[0]->type, g->dims);
  g->widest = type_elements(&c->outs.data[0]->type);
  map_put(f->a, &f->products, c, g);
  return g;
}

bool fuse_placed_product(Fuse *f, Node *n) {
  if (!is_product(f, n)) return false;
  FuseReaders r = fuse_readers(f, n);
  FuseGroup *g = map_get(&f->products, n);
  for (uint32_t i = 0; i < r.launches.len && !g; i++)
    if (may_join(f, r.launches.data[i], n)) g = r.launches.data[i];
  if (!g && loads_operand(f, n)) g = waiting(f, n);
  if (!g || !fuse_precedes(g, &r)) return false;
  g->product = n;
  fuse_add(f, g, n, whole(n));
  fuse_store(f, g, n);
  return true;
}

/* In all products that read it, or in none. */
bool fuse_placed_loaded(Fuse *f, Node *n) {
  if (!is_in_products(f, n)) return false;
  FuseReaders r = fuse_readers(f, n);
  if (r.fixed.len || !r.launches.len) return false;
  for (uint32_t i = 0; i < r.launches.len; i++)
    fuse_add(f, r.launches.data[i], n, whole(n));
  return true;
}

/* ---- totals -------------------------------------------------------------- */

/* Whether `v` is made of one product and constants, elementwise and for nothing
 * else; the product then is *c. */
static bool is_of_product(Fuse *f, const Value *v, Node **c) {
  Node *n = v->def;
  if (!n || n->op == OP_const) return n;
  if (is_product(f, n)) {
    if (*c && *c != n) return false;
    *c = n;
    return true;
  }
  const NodeVec *users = map_get(&f->users, v);
  if (!op_is(n->op, TRAIT_EW) || users->len != 1 || map_get(&f->returned, v))
    return false;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (!is_of_product(f, n->ins.data[i], c)) return false;
  return true;
}

bool fuse_placed_total(Fuse *f, Node *n) {
  Node *c = NULL;
  if (n->op != OP_reduce_sum || n->outs.data[0]->type.rank ||
      dtype_info[n->outs.data[0]->type.dtype].sums !=
          n->outs.data[0]->type.dtype ||
      !is_of_product(f, n->ins.data[0], &c) || !c)
    return false;
  FuseGroup *g = waiting(f, c);
  fuse_add(f, g, n, (FuseRead){.parts = FUSE_REST, .times = 1});
  fuse_store(f, g, n);
  return true;
}

/* ---- narrow results ------------------------------------------------------ */

/* Whether all that reads `c`, but for `n`, is in `g` and nowhere else. */
static bool reads_alone(Fuse *f, const FuseGroup *g, const Node *c,
                        const Node *n) {
  const NodeVec *users = map_get(&f->users, c->outs.data[0]);
  if (map_get(&f->returned, c->outs.data[0])) return false;
  for (uint32_t i = 0; i < users->len; i++) {
    const FuseGroupVec *in = map_get(&f->groups, users->data[i]);
    if (users->data[i] == n) continue;
    if (!in || in->len != 1 || fuse_now(in->data[0]) != g) return false;
  }
  return true;
}

/* The product that `n`, of fewer bytes, reads. */
static const Node *wider_product(const Fuse *f, const Node *n) {
  int64_t bytes = type_bytes(&n->outs.data[0]->type);
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Value *v = n->ins.data[i];
    if (v->def && is_product(f, v->def) && bytes < type_bytes(&v->type))
      return v->def;
  }
  return NULL;
}

bool fuse_placed_narrow(Fuse *f, Node *n, const FuseReaders *r) {
  const Node *c = wider_product(f, n);
  if (!op_is(n->op, TRAIT_EW) || !c || r->launches.len < 2) return false;
  for (uint32_t i = 0; i < r->launches.len; i++) {
    FuseGroup *g = r->launches.data[i];
    if (!may_join(f, g, c) || !reads_alone(f, g, c, n) || !fuse_precedes(g, r))
      continue;
    fuse_take(f, g, n, fuse_demand(f, g, n));
    fuse_store(f, g, n);
    return true;
  }
  return false;
}
