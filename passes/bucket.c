/* bucket.c: few large sums over ranks instead of many small ones.
 *
 * All-reduces of the same axes, kind of sum and dtype become one with several
 * operands, where nothing has to move for it but they themselves: the joint
 * exchange stands right behind the last operand to be made, and that must still
 * be before the first reader of any of its results. Each element is summed as
 * before, so the results are the same bits.
 *
 * What is joined waits for the last of them, so only gradients are, up to a
 * number of bytes, in the order in which they are made: by the backward part,
 * and read by what comes after it, so that nothing waits that could go on. The
 * first bucket is full, and on its way, long before the last gradient is made.
 * Sums of a few bytes, whose cost is to begin at all, are joined whoever reads
 * them, but with one another only: the gradients of all biases are made by one
 * launch, and nothing large should wait for that.
 *
 *   %a = ... backward                        %a = ...
 *   %b = ... backward               becomes  %b = ...
 *   %ga = all_reduce %a {...}                %ga, %gb = all_reduce %a, %b {...}
 *   %u = mul %ga, %ga                        %u = mul %ga, %ga
 *   %gb = all_reduce %b {...} */
#include "pass.h"

#include <stdlib.h>
#include <string.h>

static const struct {
  int64_t most;  /* bytes of a bucket of several */
  int64_t small; /* of a sum of the other kind, and of a bucket of them that
                    may be read at once */
} bucket_bytes = {8 << 20, 64 << 10};

/* Positions count from 1; parameters are made at 0, results read at the end. */
typedef struct Sum {
  Node *n;
  uint32_t made;       /* the last of its operands */
  uint32_t read;       /* the first reader of its results */
  bool gradient;
  int64_t bytes;
  struct Sum *next;    /* in its bucket, in order */
  uint32_t first_read; /* of the bucket that it begins */
  int64_t all_bytes;
} Sum;
typedef VEC(Sum *) SumVec;

typedef struct Buckets {
  Ctx *cx;
  Region *r;
  Map position; /* Node -> number */
  SumVec sums;
} Buckets;

static uint32_t position_of(const Buckets *b, const Node *n) {
  return (uint32_t)(uintptr_t)map_get(&b->position, n);
}

/* ---- what there is ------------------------------------------------------- */

static Sum *new_sum(Buckets *b, Node *n) {
  Sum *s = NEW(&b->cx->scratch, Sum);
  *s = (Sum){.n = n, .read = b->r->nodes.len + 1, .gradient = true};
  for (uint32_t i = 0; i < n->ins.len; i++) {
    const Node *def = n->ins.data[i]->def;
    uint32_t at = def ? position_of(b, def) : 0;
    if (at > s->made) s->made = at;
    s->gradient = s->gradient && def && def->backward;
    s->bytes += type_bytes(&n->ins.data[i]->type);
  }
  s->all_bytes = s->bytes;
  return s;
}

/* The sum that `v` is a result of, NULL for none. */
static Sum *sum_of(const Map *sums, const Value *v) {
  return v->def ? map_get(sums, v->def) : NULL;
}

static void find_readers(Buckets *b, const Map *sums) {
  for (uint32_t i = b->r->nodes.len; i-- > 0;) {
    const Node *n = b->r->nodes.data[i];
    for (uint32_t k = 0; k < n->ins.len; k++) {
      Sum *s = sum_of(sums, n->ins.data[k]);
      if (!s) continue;
      s->read = i + 1;
      s->gradient = s->gradient && !n->backward;
    }
  }
}

static int by_made(const void *a, const void *b) {
  const Sum *x = *(Sum *const *)a, *y = *(Sum *const *)b;
  if (x->made != y->made) return x->made < y->made ? -1 : 1;
  return x->read < y->read ? -1 : x->read > y->read;
}

static void find_sums(Buckets *b) {
  Map sums = {0};
  for (uint32_t i = 0; i < b->r->nodes.len; i++) {
    Node *n = b->r->nodes.data[i];
    map_put(&b->cx->scratch, &b->position, n, (void *)(uintptr_t)(i + 1));
    if (n->op != OP_all_reduce || ir_wait_of(n)) continue;
    Sum *s = new_sum(b, n);
    map_put(&b->cx->scratch, &sums, n, s);
    vec_push(&b->cx->scratch, &b->sums, s);
  }
  find_readers(b, &sums);
  for (uint32_t i = 0; i < b->sums.len; i++)
    b->sums.data[i]->first_read = b->sums.data[i]->read;
  if (b->sums.len)
    qsort(b->sums.data, b->sums.len, sizeof(*b->sums.data), by_made);
}

/* ---- joining ------------------------------------------------------------- */

static Dtype dtype_of(const Sum *s) {
  return s->n->ins.data[0]->type.dtype;
}

static bool are_alike(const Sum *a, const Sum *b) {
  return !strcmp(attr_sym(a->n, "axes"), attr_sym(b->n, "axes")) &&
         !strcmp(attr_sym(a->n, "op"), attr_sym(b->n, "op")) &&
         dtype_of(a) == dtype_of(b) && a->gradient == b->gradient &&
         (a->bytes <= bucket_bytes.small) == (b->bytes <= bucket_bytes.small);
}

/* Whether `s`, made last, may go with bucket `b`. */
static bool may_join(const Sum *b, const Sum *s) {
  int64_t bytes = b->all_bytes + s->bytes;
  uint32_t read = b->first_read < s->read ? b->first_read : s->read;
  return read > s->made && bytes <= (s->gradient ? bucket_bytes.most
                                                 : bucket_bytes.small);
}

static void join(Sum *b, Sum *s) {
  Sum *last = b;
  while (last->next)
    last = last->next;
  last->next = s;
  b->all_bytes += s->bytes;
  if (s->read < b->first_read) b->first_read = s->read;
}

/* Into the bucket of its kind that was begun last, or a new one. */
static void find_bucket(Arena *a, SumVec *open, Sum *s) {
  uint32_t i = open->len;
  while (i > 0 && !are_alike(open->data[i - 1], s))
    i--;
  if (i > 0 && may_join(open->data[i - 1], s))
    join(open->data[i - 1], s);
  else
    vec_push(a, open, s);
}

/* ---- writing ------------------------------------------------------------- */

static uint32_t last_made(const Sum *bucket) {
  while (bucket->next)
    bucket = bucket->next;
  return bucket->made;
}

/* One exchange for all of the bucket: its first one takes in the others. */
static void merge(Buckets *b, Sum *bucket) {
  Node *to = bucket->n;
  for (Sum *s = bucket->next; s; s = s->next)
    for (uint32_t k = 0; k < s->n->ins.len; k++) {
      Value *v = s->n->outs.data[k];
      v->def = to;
      v->index = to->outs.len;
      vec_push(&b->cx->perm, &to->ins, s->n->ins.data[k]);
      vec_push(&b->cx->perm, &to->outs, v);
    }
}

/* All nodes as they were, the buckets behind their last operands. */
static void write_all(Buckets *b, const SumVec *buckets) {
  Map moved = {0};
  NodeVec all = {0};
  Ctx *cx = b->cx;
  for (uint32_t i = 0; i < buckets->len; i++)
    for (Sum *s = buckets->data[i]; s && buckets->data[i]->next; s = s->next)
      map_put(&cx->scratch, &moved, s->n, s);
  uint32_t next = 0; /* they come in this order */
  for (uint32_t at = 0; at <= b->r->nodes.len; at++) {
    Node *n = at ? b->r->nodes.data[at - 1] : NULL;
    if (n && !map_get(&moved, n)) vec_push(&cx->perm, &all, n);
    for (; next < buckets->len && last_made(buckets->data[next]) == at; next++)
      if (buckets->data[next]->next)
        vec_push(&cx->perm, &all, buckets->data[next]->n);
  }
  b->r->nodes = all;
}

static int by_last_made(const void *a, const void *b) {
  const Sum *x = *(Sum *const *)a, *y = *(Sum *const *)b;
  uint32_t p = last_made(x), q = last_made(y);
  return p < q ? -1 : p > q;
}

static bool bucket_region(Ctx *cx, Region *r, const PassOptions *o) {
  Buckets b = {.cx = cx, .r = r};
  SumVec buckets = {0};
  bool any = false;
  for (uint32_t i = 0; i < r->nodes.len; i++)
    if (r->nodes.data[i]->op == OP_scan)
      any |= bucket_region(cx, r->nodes.data[i]->body, o);
  find_sums(&b);
  for (uint32_t i = 0; i < b.sums.len; i++)
    find_bucket(&cx->scratch, &buckets, b.sums.data[i]);
  if (buckets.len == b.sums.len) return any;
  qsort(buckets.data, buckets.len, sizeof(*buckets.data), by_last_made);
  write_all(&b, &buckets);
  for (uint32_t i = 0; i < buckets.len; i++) {
    merge(&b, buckets.data[i]);
    if (buckets.data[i]->next) pass_tally(o, "bucket");
  }
  return true;
}

bool pass_bucket(Module *m, const PassOptions *o) {
  bool any = false;
  for (uint32_t i = 0; i < m->entries.len; i++)
    any |= bucket_region(m->cx, m->entries.data[i]->region, o);
  return any || pass_same(o);
}
