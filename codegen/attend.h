/* attend.h: what the lowerings of attention share. */
#ifndef MOEC_ATTEND_H
#define MOEC_ATTEND_H

#include "fragment.h"

/* Blocks of scores: `rows` queries by `keys` keys of one head. */
typedef struct Attend {
  Ctx *cx;
  KBuild *b;
  const Node *n;
  const Isa *isa;
  AttentionShape s;
  Dtype sum; /* of scores, sums and results */
  int64_t rows, keys;
  int64_t behind; /* keys behind the first query's, Tk - Tq, where causal */
  KVal *batch, *head, *kv_head;
  KVal *q_lo, *q_end, *k_lo, *k_end; /* of the block */
} Attend;

/* An operand [batch, time, heads, width]. */
typedef enum AttendSide { ATTEND_Q, ATTEND_K, ATTEND_V, ATTEND_D } AttendSide;

Attend *at_new(Ctx *cx, const Node *n, const Isa *isa);
/* Blocks of so many queries and keys, at most. */
void at_blocks(Attend *a, int64_t rows, int64_t keys);
/* Opens a stage of items (batch, head, block of queries); causal ones with more
 * keys first. Returns where the keys that such a block sees end, at least 1. */
KVal *at_query_stage(Attend *a);
/* The same of items (batch, head of keys, one of `blocks`); returns the last
 * of these. */
KVal *at_key_stage(Attend *a, int64_t blocks);
int64_t at_width(const Attend *a, AttendSide side);
/* Where the head's rows start in such a tensor; elements from row to row. */
KVal *at_start(Attend *a, AttendSide side);
int64_t at_step(const Attend *a, AttendSide side);
/* Where the number of query `i` is, of numbers [batch, time, heads]. */
KVal *at_number(Attend *a, KVal *i);
/* A letter of a product: of rows or columns of one of these, or of a block of
 * weights in scratch, [query][key]. */
CtLetter at_letter(int64_t size, int64_t left, int64_t right);
/* An item of a product of at most so many rows, columns and depth, which leaves
 * its sums in `sums`. `weights`: where its left operand is such a block, and
 * NULL where it is operand `left` of the node. */
CtItem *at_product(Attend *a, CtProduct p, int left, const KBase *weights,
                   int right, CtSums *sums);
/* The scores of the block, or other products of its queries' and its keys'
 * rows. */
CtItem *at_scores(Attend *a, AttendSide left, AttendSide right, CtSums *sums);
void at_score(Attend *a, CtItem *t, AttendSide left, AttendSide right);
/* How many of the block's keys, from its first, query `i` may see. */
KVal *at_limit(Attend *a, KVal *i);
/* Which of the `lanes` keys from number `key` of the block on it sees. */
KVal *at_seen(Attend *a, KVal *limit, KVal *key, int lanes);
/* Weights as the products read them: of the operands' dtype. */
KVal *at_narrow(Attend *a, KVal *x);
/* Panels of sums that have keys of the block, in whole steps; where a row of
 * one starts. */
KVal *at_panels(Attend *a, const CtSums *sums);
KVal *at_row(Attend *a, const CtSums *sums, KVal *row, KVal *panel);
/* `f` of x, op by op. */
KVal *at_apply(Attend *a, Value *(*f)(Builder *b, Value *x), KVal *x);
/* Opens a loop over [lo, hi) in steps; returns its variable. */
KVal *at_loop(Attend *a, KVal *lo, KVal *hi, int64_t step);
KVal *at_min(Attend *a, KVal *x, int64_t add, KVal *most); /* of x + add */
KVal *at_f(Attend *a, double value); /* a number of the sums' dtype */

/* attention_warps.c: the stages of both, where that can do it. */
bool at_in_fragments(const Attend *a);
void at_fragments(Attend *a);
void at_fragments_grad(Attend *a);

#endif
