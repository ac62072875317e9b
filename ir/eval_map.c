/* eval_map.c: the interpreter's ops that have an index map: broadcast,
 * transpose, the reductions, contract.
 *
 * All are one loop nest over the letters of the map, in which each tensor
 * advances by its stride for that letter (0 where it lacks it):
 * out[..] op= a[..] (* b[..]). A ragged tensor stores its rows packed, so that
 * its group letter has stride 0; where another tensor does have one for it, the
 * nest runs group by group over that group's rows. */
#include "ir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OUT, A, B, TENSORS, MAX_LETTERS = 3 * MAX_RANK };

typedef struct Loop {
  char letter;
  int64_t size;
  int64_t stride[TENSORS];
} Loop;

/* Loops from the outermost; the last one is left to the inner function. */
typedef struct Nest {
  int n;
  Loop loops[MAX_LETTERS];
  double *data[TENSORS]; /* of operands: only read */
} Nest;

/* Runs `count` steps from the given places. */
typedef void InnerFn(int64_t count, double *out, int64_t so, const double *a,
                     int64_t sa, const double *b, int64_t sb);

static void run_nest(const Nest *nest, InnerFn *inner) {
  int64_t at[MAX_LETTERS] = {0};
  double *p[TENSORS];
  memcpy(p, nest->data, sizeof p);
  int last = nest->n - 1;
  const Loop *in = &nest->loops[last];
  for (int k = 0; k < nest->n; k++)
    if (nest->loops[k].size == 0) return;
  for (;;) {
    inner(in->size, p[OUT], in->stride[OUT], p[A], in->stride[A], p[B],
          in->stride[B]);
    int k = last - 1;
    for (; k >= 0; k--) {
      const Loop *l = &nest->loops[k];
      at[k]++;
      for (int t = 0; t < TENSORS; t++)
        p[t] += l->stride[t];
      if (at[k] < l->size) break;
      at[k] = 0;
      for (int t = 0; t < TENSORS; t++)
        p[t] -= l->stride[t] * l->size;
    }
    if (k < 0) return;
  }
}

/* Elements from one index to the next along logical dim `dim` as stored. */
static int64_t stored_stride(const Type *t, int dim) {
  if (dim == 0 && type_is_ragged(t)) return 0;
  int64_t stride = 1;
  for (int i = dim + 1; i < t->rank; i++)
    stride *= t->dims[i].size;
  return stride;
}

static Loop *nest_loop(Nest *nest, char letter) {
  for (int i = 0; i < nest->n; i++)
    if (nest->loops[i].letter == letter) return &nest->loops[i];
  nest->loops[nest->n] = (Loop){.letter = letter, .size = 1};
  return &nest->loops[nest->n++];
}

static void nest_add(Nest *nest, int which, const Tensor *t,
                     const char *letters) {
  nest->data[which] = t->data;
  for (int i = 0; i < t->type.rank; i++) {
    Loop *l = nest_loop(nest, letters[i]);
    l->size = t->type.dims[i].size;
    l->stride[which] += stored_stride(&t->type, i);
  }
}

/* Makes the loop innermost that walks memory best: steps of 0 or 1 everywhere,
 * then the longest. The others keep their order. */
static void choose_inner(Nest *nest) {
  int best = -1, best_steps = TENSORS + 1;
  for (int i = 0; i < nest->n; i++) {
    const Loop *l = &nest->loops[i];
    int steps = 0;
    for (int t = 0; t < TENSORS; t++)
      steps += l->stride[t] > 1;
    if (best >= 0 &&
        (steps > best_steps ||
         (steps == best_steps && l->size <= nest->loops[best].size)))
      continue;
    best = i;
    best_steps = steps;
  }
  Loop inner = nest->loops[best];
  for (int i = best; i + 1 < nest->n; i++)
    nest->loops[i] = nest->loops[i + 1];
  nest->loops[nest->n - 1] = inner;
}

/* Runs the nest once per group of ragged value `v`, over that group's rows. */
static void run_groups(EvalCall *c, Nest *nest, Value *v, char group, char row,
                       InnerFn *inner) {
  int64_t *offsets = eval_groups(c, v);
  if (!offsets) return;
  for (int64_t g = 0; g < v->type.dims[0].size; g++) {
    Nest one = *nest;
    Loop *lg = nest_loop(&one, group), *lr = nest_loop(&one, row);
    for (int t = 0; t < TENSORS; t++)
      one.data[t] += g * lg->stride[t] + offsets[g] * lr->stride[t];
    lg->size = 1;
    lr->size = offsets[g + 1] - offsets[g];
    run_nest(&one, inner);
  }
  free(offsets);
}

/* Leaves out the rows that a dispatch has dropped, where all are one sum. */
static void only_rows(EvalCall *c, Loop *rows, Value *v) {
  const Node *owner = ir_ragged_owner(v);
  if (rows->stride[OUT] || !owner || owner->op != OP_dispatch ||
      !attr_bool(owner, "drops"))
    return;
  int64_t *offsets = eval_groups(c, v);
  if (offsets) rows->size = offsets[v->type.dims[0].size];
  free(offsets);
}

static void run_map(EvalCall *c, InnerFn *inner) {
  IndexMap m;
  bool parsed = map_parse(attr_sym(c->n, "map"), &m);
  assert(parsed);
  (void)parsed;
  Nest nest = {0};
  nest_add(&nest, OUT, c->outs[0], m.out);
  nest_add(&nest, A, c->ins[0], m.ins[0]);
  nest.data[B] = nest.data[A]; /* where there is no second operand */
  if (m.n_ins > 1) nest_add(&nest, B, c->ins[1], m.ins[1]);
  Value *ragged = NULL;
  const char *letters = NULL;
  if (type_is_ragged(&c->outs[0]->type))
    ragged = c->n->outs.data[0], letters = m.out;
  for (int i = 0; i < m.n_ins; i++) /* an operand's owner is known more often */
    if (type_is_ragged(&c->ins[i]->type) &&
        (!ragged || ir_ragged_source(c->n->ins.data[i])))
      ragged = c->n->ins.data[i], letters = m.ins[i];
  if (nest.n == 0) nest_loop(&nest, ' '); /* scalars: one step */
  if (!ragged) {
    choose_inner(&nest);
    run_nest(&nest, inner);
    return;
  }
  Loop *group = nest_loop(&nest, letters[0]);
  bool by_group = group->stride[OUT] || group->stride[A] || group->stride[B];
  if (!by_group) {
    group->size = 1;
    only_rows(c, nest_loop(&nest, letters[1]), ragged);
  }
  choose_inner(&nest);
  if (by_group)
    run_groups(c, &nest, ragged, letters[0], letters[1], inner);
  else
    run_nest(&nest, inner);
}

static void fill(Tensor *t, double value) {
  for (int64_t i = 0, n = type_elements(&t->type); i < n; i++)
    t->data[i] = value;
}

/* ---- the ops ------------------------------------------------------------- */

static void inner_copy(int64_t count, double *out, int64_t so, const double *a,
                       int64_t sa, const double *b, int64_t sb) {
  (void)b, (void)sb;
  for (int64_t i = 0; i < count; i++)
    out[i * so] = a[i * sa];
}

static void inner_sum(int64_t count, double *out, int64_t so, const double *a,
                      int64_t sa, const double *b, int64_t sb) {
  (void)b, (void)sb;
  for (int64_t i = 0; i < count; i++)
    out[i * so] += a[i * sa];
}

static void inner_max(int64_t count, double *out, int64_t so, const double *a,
                      int64_t sa, const double *b, int64_t sb) {
  (void)b, (void)sb;
  for (int64_t i = 0; i < count; i++)
    out[i * so] = out[i * so] > a[i * sa] ? out[i * so] : a[i * sa];
}

static void inner_min(int64_t count, double *out, int64_t so, const double *a,
                      int64_t sa, const double *b, int64_t sb) {
  (void)b, (void)sb;
  for (int64_t i = 0; i < count; i++)
    out[i * so] = out[i * so] < a[i * sa] ? out[i * so] : a[i * sa];
}

static void inner_multiply_add(int64_t count, double *out, int64_t so,
                               const double *a, int64_t sa, const double *b,
                               int64_t sb) {
  if (so == 0) {
    double sum = *out;
    for (int64_t i = 0; i < count; i++)
      sum += a[i * sa] * b[i * sb];
    *out = sum;
  } else if (so == 1 && sa == 0 && sb == 1) { /* a loop that vectorises */
    const double x = *a;
    for (int64_t i = 0; i < count; i++)
      out[i] += x * b[i];
  } else {
    for (int64_t i = 0; i < count; i++)
      out[i * so] += a[i * sa] * b[i * sb];
  }
}

void eval_broadcast(EvalCall *c) {
  run_map(c, inner_copy);
}
void eval_transpose(EvalCall *c) {
  run_map(c, inner_copy);
}

void eval_reduce_sum(EvalCall *c) {
  fill(c->outs[0], 0);
  run_map(c, inner_sum);
}

void eval_reduce_max(EvalCall *c) {
  fill(c->outs[0], -INFINITY);
  run_map(c, inner_max);
}

void eval_reduce_min(EvalCall *c) {
  fill(c->outs[0], INFINITY);
  run_map(c, inner_min);
}

void eval_contract(EvalCall *c) {
  fill(c->outs[0], 0);
  run_map(c, inner_multiply_add);
}

void eval_square_sum(EvalCall *c) {
  Arena a = {0};
  EvalCall product = *c;
  product.n = ir_squared(c->ev->cx, c->n);
  Tensor *all = tensor_new(&a, product.n->outs.data[0]->type);
  product.outs = &all;
  eval_contract(&product);
  double sum = 0;
  for (int64_t i = 0, n = type_elements(&all->type); i < n; i++)
    sum += all->data[i] * all->data[i];
  c->outs[0]->data[0] = sum;
  c->failed = product.failed;
  arena_reset(&a);
}
