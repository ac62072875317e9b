/* layout_scan.c: operands that the products of a loop read in every turn.
 *
 * Goal: such an operand is packed once, before the loop, in the order in which
 * the product's kernel reads it (`pack` and codegen/panels.c), and a body whose
 * products all are kernels is walked by the team without a fork and join for
 * each. Method: a contraction in a scan's body is taken where one operand is an
 * invariant of the scan with whole panels as columns and depth, and the other
 * has its rows in front and its depth behind; where there are many rows, a
 * library that packs in passing is as good.
 *
 *   %y = scan %h, %u {carries=1, scanned=0, length=32, ...} (%i, %hp, %up) {
 *     %z = contract %hp, %up {map="bm,mgn->bgn"} : f32[64, 4, 512]
 *
 * becomes
 *
 *   %0 = reshape %u : f32[512, 2048]
 *   %1 = pack %0 {group=1, turned=false} : f32[64, 512, 32, 1]
 *   %y = scan %h, %1 {carries=1, scanned=0, length=32, ...} (%i, %hp, %2) {
 *     %3 = reshape %hp : f32[64, 512, 1]
 *     %4 = contract %3, %2 {map="mkg,pkcg->mpc"} : f32[64, 64, 32]
 *     %z = reshape %4 : f32[64, 4, 512] */
#include "pass.h"

#include <string.h>

enum {
  TURNS = 4,     /* that pay for packing */
  MOST_ROWS = 512,
  LEAST = 4096,  /* elements of an operand worth it */
  GROUPS = 16    /* depth is a multiple of so many */
};

/* A product of an operand that varies and one that does not. */
typedef struct Fit {
  Value *left, *right; /* in the body */
  int64_t m, n, k;
  bool turned; /* depth is last in the right operand */
} Fit;

static bool is_invariant(const Node *scan, const Value *v) {
  return !v->def && v->region == scan->body &&
         v->index > attr_int(scan, "carries") + attr_int(scan, "scanned");
}

/* The letters of `s` that `other` has, or has not, in order; their sizes'
 * product. */
static int64_t letters(const char *s, const Type *t, const char *other,
                       bool both, char *out) {
  int64_t size = 1;
  for (int d = 0; s[d]; d++)
    if (!!strchr(other, s[d]) == both) {
      *out++ = s[d];
      size *= t->dims[d].size;
    }
  *out = 0;
  return size;
}

/* Whether `s` is `x`, then `y`. */
static bool is_made_of(const char *s, const char *x, const char *y) {
  size_t n = strlen(x);
  return strlen(s) == n + strlen(y) && !strncmp(s, x, n) && !strcmp(s + n, y);
}

/* With operand `side` as the right one. */
static bool fits(const Node *n, int side, Fit *f) {
  IndexMap m;
  map_parse(attr_sym(n, "map"), &m);
  const char *left = m.ins[1 - side], *right = m.ins[side];
  char rows[MAX_RANK + 1], columns[MAX_RANK + 1], depth[MAX_RANK + 1];
  char same[MAX_RANK + 1];
  *f = (Fit){.left = n->ins.data[1 - side], .right = n->ins.data[side]};
  f->m = letters(left, &f->left->type, right, false, rows);
  f->k = letters(left, &f->left->type, right, true, depth);
  f->n = letters(right, &f->right->type, left, false, columns);
  if (letters(left, &f->left->type, m.out, true, same) != f->m ||
      strcmp(same, rows) != 0) /* no letter is in all three */
    return false;
  f->turned = is_made_of(right, columns, depth);
  return is_made_of(left, rows, depth) && is_made_of(m.out, rows, columns) &&
         (f->turned || is_made_of(right, depth, columns));
}

/* Elements of depth that the kernel takes at once, 0 where it takes none. */
static int64_t group_of(Dtype dtype) {
  return dtype == DT_bf16 ? 2 : dtype == DT_f32;
}

static bool is_worth(const Node *n, const Fit *f) {
  int64_t group = group_of(f->left->type.dtype);
  return group && !type_is_ragged(&f->left->type) &&
         !type_is_ragged(&n->outs.data[0]->type) && f->m > 1 &&
         f->m <= MOST_ROWS && f->n % PANEL == 0 && f->n > PANEL &&
         f->k % (GROUPS * group) == 0 && f->n * f->k >= LEAST;
}

/* The operand of the scan behind a body's invariant, packed in front of it. */
static Value *packed(Builder *before, Value *outer, const Fit *f) {
  int64_t group = group_of(outer->type.dtype);
  int64_t dims[2] = {f->turned ? f->n : f->k, f->turned ? f->k : f->n};
  Type t = type_of(outer->type.dtype, 2, dims);
  Value *flat = ir_reshape(before, outer, t);
  return ir_node(before, OP_pack, NULL, &flat, 1, "group", group, "turned",
                 f->turned, NULL)
      ->outs.data[0];
}

static void rewrite(Builder *before, Node *scan, Node *n, const Fit *f,
                    NodeVec *out) {
  Ctx *cx = before->cx;
  Loop l = loop_open(cx, scan);
  Value *outer = scan->ins.data[f->right->index - 1];
  Value *right = loop_invariant(cx, &l, packed(before, outer, f));
  loop_close(before, &l);
  Builder b = ir_builder_like(cx, scan->body, out, n);
  int64_t group = group_of(outer->type.dtype);
  int64_t dims[3] = {f->m, f->k / group, group};
  Type t = type_of(outer->type.dtype, 3, dims);
  Value *left = ir_reshape(&b, f->left, t);
  Value *v = ir_contract(&b, left, right, "mkg,pkcg->mpc");
  ir_replace(n->outs.data[0], ir_reshape(&b, v, n->outs.data[0]->type));
}

/* Drops invariants that nothing reads. */
static void drop_unread(Builder *b, Node *scan) {
  Map read = {0};
  const Region *body = scan->body;
  for (uint32_t i = 0; i < body->nodes.len; i++)
    for (uint32_t k = 0; k < body->nodes.data[i]->ins.len; k++)
      map_put(&b->cx->scratch, &read, ir_now(body->nodes.data[i]->ins.data[k]),
              scan);
  for (uint32_t i = 0; i < body->results.len; i++)
    map_put(&b->cx->scratch, &read, ir_now(body->results.data[i]), scan);
  Loop l = loop_open(b->cx, scan);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l.invariants.len; i++)
    if (map_get(&read, l.invariants.data[i].param))
      l.invariants.data[kept++] = l.invariants.data[i];
  l.invariants.len = kept;
  loop_close(b, &l);
}

void layout_scan(Builder *before, Node *scan, const PassOptions *o) {
  if (attr_int(scan, "length") < TURNS || attr_bool(scan, "counted")) return;
  Ctx *cx = before->cx;
  NodeVec nodes = {0}, old = scan->body->nodes;
  bool any = false;
  for (uint32_t i = 0; i < old.len; i++) {
    Node *n = old.data[i];
    Fit f;
    bool done = false;
    for (int side = 0; side < 2 && n->op == OP_contract && !done; side++) {
      const Value *right = n->ins.data[side];
      if (!is_invariant(scan, right) || is_invariant(scan, n->ins.data[!side]))
        continue;
      if (!fits(n, side, &f) || !is_worth(n, &f)) continue;
      rewrite(before, scan, n, &f, &nodes);
      pass_tally(o, "pack an operand for a loop");
      done = any = true;
    }
    if (!done) vec_push(&cx->perm, &nodes, n);
  }
  scan->body->nodes = nodes;
  if (any) drop_unread(before, scan);
}
