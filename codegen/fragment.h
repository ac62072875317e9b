/* fragment.h: fragments of products in kernel loops. */
#ifndef MOEC_FRAGMENT_H
#define MOEC_FRAGMENT_H

#include "codegen.h"

/* Fragments are tiles that are values, where a vector is a warp and has KN_MMA:
 * f32 [16][16], or bf16 [16][32] or [32][16] as pairs, u32. Lane 8 l + w of a
 * f32 one is row l / 4 + 8 (w / 2 % 2), column 2 (l % 4) + w % 2 + 8 (w / 4);
 * lane 2 l + w of its rows' numbers is row l / 4 + 8 w. */
enum { KF_LANES = 256, KF_ROWS = 64, KF_SIDE = 16, KF_DEEP = 32 };
typedef enum KfWay {
  KF_LEFT,  /* rows of memory are its rows, and what lies along them depth */
  KF_RIGHT, /* rows of memory are its columns; its depth and that of left ones
               that were taken are in one order, which pairs do not have */
  KF_TURNED, /* rows of memory are its depth, in the order of pairs; columns are
               in one that kb_put knows */
  KF_ROW,   /* numbers in memory are those of its rows */
  KF_COLUMN /* numbers in memory are those of its columns, in each row */
} KfWay;

/* fragments.c
 *
 * Rows in memory are `step` elements apart; rows past `last`, which
 * may be negative, are that one again, and of a row there are `run` elements,
 * zeros behind them. */
KVal *kb_take(KBuild *b, KfWay way, KBase base, KVal *index, KVal *last,
              int64_t run, int64_t step);
/* A number for each row or column, `step` apart, the same past `last`. */
KVal *kb_take_numbers(KBuild *b, KfWay way, KBase base, KVal *index, KVal *last,
                      int64_t step);
/* i32: a row or column for each lane of a fragment. */
KVal *kb_places(KBuild *b, KfWay way);
KVal *kb_ahead(KBuild *b, KfWay way, KVal *most); /* of it, of the other */
KVal *kb_mma(KBuild *b, KVal *sum, KVal *left, KVal *right);
KVal *kb_pairs(KBuild *b, KVal *x);
KVal *kb_join(KBuild *b, KVal *first, KVal *second);
KVal *kb_row_fold(KBuild *b, OpKind op, KVal *x);
KVal *kb_by_row(KBuild *b, KVal *x);
void kb_pause(KBuild *b);
/* Stores the first `rows` rows, `run` elements each, of sums of products with
 * turned fragments. */
void kb_put(KBuild *b, KBase base, KVal *index, KVal *v, KVal *rows,
            int64_t run, int64_t step);

#endif
