/* llvm_fragment.c: fragments, tiles of a product in the registers of a warp.
 *
 * Of mma.m16n8k16, with g = lane / 4 and t = lane % 4, a thread has of the left
 * operand word q, the pair of row g + 8 (q % 2) at depth 2 t + 8 (q / 2), of
 * the right one word q, that of column g at depth 2 t + 8 q, and of the sums
 * word q, row g + 8 (q / 2), column 2 t + q % 2. A fragment has eight words:
 * two halves of the depth of a left one, of a right one two halves of the
 * columns with two of the depth each, of sums two halves of the columns.
 *
 * In which order depth comes does not matter where both sides have the same,
 * nor that of columns, as long as what stores them knows. So what lies side by
 * side in memory may be one thread's, and no access is narrower than need be:
 *
 *   left, right  a thread has the depths 8 t ... 8 t + 7 of its rows, 16 bytes
 *   turned       a thread has columns 2 g and 2 g + 1 of its eight depths, to
 *                become column g of either half
 *   stored       then columns 4 t ... 4 t + 3 of two rows are a thread's
 *
 * No access is a thread's that has nothing to take: it takes what others do. */
#include "fragment.h"

#include <llvm-c/Core.h>

enum { WORDS = 8, HALF = 8, WARP = 32 };

/* ---- helpers ------------------------------------------------------------- */

static LLVMValueRef less(LlBody *e, LLVMValueRef x, LLVMValueRef y) {
  return LLVMBuildICmp(e->b, LLVMIntSLT, x, y, "");
}

static LLVMValueRef pick(LlBody *e, LLVMValueRef v, int i) {
  return LLVMBuildExtractElement(e->b, v, ll_word(e, i), "");
}

static LLVMValueRef join(LlBody *e, LLVMValueRef const *x, int n) {
  LLVMTypeRef t = LLVMVectorType(LLVMTypeOf(x[0]), (unsigned)n);
  LLVMValueRef v = LLVMGetPoison(t);
  for (int i = 0; i < n; i++)
    v = LLVMBuildInsertElement(e->b, v, x[i], ll_word(e, i), "");
  return v;
}

/* Whether every row of the fragment, in steps of `bytes`, starts at one. */
static bool is_aligned(const LlBody *e, const KVal *k, int64_t step,
                       unsigned bytes) {
  unsigned size = dtype_info[k->base.dtype].bytes;
  return e->ways->alignment(e, k) >= bytes && step * size % bytes == 0;
}

/* ---- from memory --------------------------------------------------------- */

/* A row of a fragment: this thread's `base`, and `plus` more. */
typedef struct Row {
  LLVMValueRef base;
  int64_t plus, rows; /* of so many */
} Row;

/* Where element `column` of a row is. Rows that are all there are a constant
 * distance apart, for which accesses have room. */
static LLVMValueRef part_at(LlBody *e, const KVal *k, Row row,
                            LLVMValueRef column) {
  const KVal *last = k->a[1];
  LLVMValueRef r = row.base;
  int64_t step = k->a[3]->number, plus = row.plus * step;
  if (last->kind != K_INDEX || last->number < row.rows - 1) {
    LLVMValueRef end = ll_value(e, last);
    r = ll_add_c(e, r, row.plus);
    r = LLVMBuildSelect(e->b, less(e, r, end), r, end, "");
    plus = 0;
  }
  LLVMValueRef at =
      LLVMBuildAdd(e->b, ll_value(e, k->a[0]), ll_times_c(e, r, step), "");
  return ll_add_c(e, LLVMBuildAdd(e->b, at, column, ""), plus);
}

/* `n` elements from `column` on of the row, as n / 2 words: at once, or each by
 * itself, and zeros from `run` on, of which there are `all` in the fragment. */
static void take_part(LlBody *e, const KVal *k, Row row, LLVMValueRef column,
                      int n, int all, LLVMValueRef *out) {
  int64_t run = k->a[2]->number;
  unsigned bytes = (unsigned)n * dtype_info[k->base.dtype].bytes;
  bool whole = run >= all, wide = is_aligned(e, k, k->a[3]->number, bytes) &&
                                  (whole || run % n == 0);
  LLVMValueRef zero = ll_index_const(e, 0), half[HALF];
  for (int i = 0; i < (wide ? 1 : n); i++) {
    LLVMValueRef c = ll_add_c(e, column, i), in = NULL;
    if (!whole) {
      in = less(e, c, ll_index_const(e, run));
      c = LLVMBuildSelect(e->b, in, c, zero, "");
    }
    LLVMTypeRef t = LLVMInt16TypeInContext(e->c);
    if (wide) t = ll_i32(e);
    if (wide && n > 2) t = LLVMVectorType(t, (unsigned)n / 2);
    LLVMValueRef x = LLVMBuildLoad2(
        e->b, t, ll_address(e, &k->base, part_at(e, k, row, c)), "");
    LLVMSetAlignment(x, wide ? bytes : 2);
    if (in) x = LLVMBuildSelect(e->b, in, x, LLVMConstNull(t), "");
    half[i] = x;
  }
  for (int i = 0; i < n / 2; i++) {
    if (wide) {
      out[i] = n > 2 ? pick(e, half[0], i) : half[0];
      continue;
    }
    LLVMValueRef lower = LLVMBuildZExt(e->b, half[2 * i], ll_i32(e), "");
    LLVMValueRef upper = LLVMBuildZExt(e->b, half[2 * i + 1], ll_i32(e), "");
    upper = LLVMBuildShl(e->b, upper, ll_word(e, 16), "");
    out[i] = LLVMBuildOr(e->b, lower, upper, "");
  }
}

/* Rows g and g + 8. */
static void take_rows(LlBody *e, const KVal *k, LLVMValueRef *words) {
  LLVMValueRef g = ll_lane_part(e, true), v[4];
  LLVMValueRef depth = ll_times_c(e, ll_lane_part(e, false), 8);
  for (int r = 0; r < 2; r++) {
    take_part(e, k, (Row){g, 8 * r, KF_SIDE}, depth, 8, KF_DEEP, v);
    for (int i = 0; i < 4; i++)
      words[k->number == KF_RIGHT ? 4 * r + i : 2 * i + r] = v[i];
  }
}

/* Bytes of two words, a digit each, the lowest last. */
static LLVMValueRef permute(LlBody *e, LLVMValueRef x, LLVMValueRef y,
                            int64_t bytes) {
  LLVMValueRef a[3] = {x, y, ll_word(e, bytes)};
  return ll_call(e, "llvm.nvvm.prmt", NULL, 0, a, 3);
}

static void take_turned(LlBody *e, const KVal *k, LLVMValueRef *words) {
  LLVMValueRef column = ll_times_c(e, ll_lane_part(e, true), 2), two[2];
  LLVMValueRef depth = ll_times_c(e, ll_lane_part(e, false), 2);
  for (int i = 0; i < 4; i++) {
    for (int odd = 0; odd < 2; odd++)
      take_part(e, k, (Row){depth, 8 * i + odd, KF_DEEP}, column, 2, KF_SIDE,
                &two[odd]);
    words[i] = permute(e, two[0], two[1], 0x5410);
    words[4 + i] = permute(e, two[0], two[1], 0x7632);
  }
}

/* The row (of which a thread has two) or the column of word i of sums. */
static Row place_of(LlBody *e, bool row, int i) {
  if (row) return (Row){ll_lane_part(e, true), 8 * (i / 2 % 2), KF_SIDE};
  LLVMValueRef t = ll_times_c(e, ll_lane_part(e, false), 2);
  return (Row){t, 8 * (i / 4) + i % 2, KF_SIDE};
}

static LLVMValueRef take_numbers(LlBody *e, const KVal *k) {
  LLVMValueRef x[WORDS] = {NULL}, zero = ll_index_const(e, 0);
  LLVMTypeRef f32 = LLVMFloatTypeInContext(e->c);
  bool row = k->number == KF_ROW;
  int n = row ? 2 : WORDS;
  for (int i = 0; i < n; i++) {
    if (i & 2) {
      x[i] = x[i - 2]; /* the other row's */
      continue;
    }
    LLVMValueRef at = part_at(e, k, place_of(e, row, row ? 2 * i : i), zero);
    x[i] = LLVMBuildLoad2(e->b, f32, ll_address(e, &k->base, at), "");
    LLVMSetAlignment(x[i], 4);
  }
  return join(e, x, n);
}

static LLVMValueRef places(LlBody *e, const KVal *k) {
  LLVMValueRef x[WORDS];
  for (int i = 0; i < WORDS; i++) {
    Row place = place_of(e, k->number == KF_ROW, i);
    x[i] = LLVMBuildTrunc(e->b, ll_add_c(e, place.base, place.plus), ll_i32(e),
                          "");
  }
  return join(e, x, WORDS);
}

/* The bounds differ by constants, so that threads keep one number. */
static LLVMValueRef ahead(LlBody *e, const KVal *k) {
  LLVMValueRef x[WORDS], most = ll_value(e, k->a[0]);
  for (int i = 0; i < WORDS; i++) {
    Row to = place_of(e, k->number == KF_ROW, i);
    Row from = place_of(e, k->number != KF_ROW, i);
    LLVMValueRef d = LLVMBuildSub(e->b, to.base, from.base, "");
    d = LLVMBuildTrunc(e->b, d, ll_i32(e), "");
    LLVMValueRef end = ll_add_c(e, most, from.plus - to.plus);
    x[i] = less(e, d, LLVMBuildTrunc(e->b, end, ll_i32(e), ""));
  }
  return join(e, x, WORDS);
}

static LLVMValueRef take(LlBody *e, const KVal *k) {
  LLVMValueRef words[WORDS];
  if (k->dtype == DT_f32) return take_numbers(e, k);
  if (k->number == KF_TURNED)
    take_turned(e, k, words);
  else
    take_rows(e, k, words);
  return join(e, words, WORDS);
}

/* ---- and back ------------------------------------------------------------ */

/* Columns 4 t ... 4 t + 3 of row g + 8 r: the halves of the columns in turn. */
static void put_row(LlBody *e, const KVal *k, LLVMValueRef row, int r) {
  static const int of[4] = {0, 4, 1, 5};
  int64_t run = k->a[3]->number, step = k->a[4]->number;
  LLVMValueRef v = ll_value(e, k->a[1]), x[4];
  LLVMValueRef column = ll_times_c(e, ll_lane_part(e, false), 4);
  bool wide = is_aligned(e, k, step, 16) && (run >= KF_SIDE || run % 4 == 0);
  for (int i = 0; i < 4; i++)
    x[i] = pick(e, v, of[i] + 2 * r);
  LLVMValueRef all = join(e, x, 4);
  LLVMValueRef at = LLVMBuildAdd(e->b, ll_value(e, k->a[0]),
                                 ll_times_c(e, row, step), "");
  at = LLVMBuildAdd(e->b, at, column, "");
  for (int i = 0; i < (wide ? 1 : 4); i++) {
    LLVMValueRef in = less(e, ll_add_c(e, column, i), ll_index_const(e, run));
    LLVMBasicBlockRef after = run < KF_SIDE ? ll_if(e, in) : NULL;
    LLVMValueRef to = ll_address(e, &k->base, ll_add_c(e, at, i));
    LLVMValueRef s = LLVMBuildStore(e->b, wide ? all : x[i], to);
    LLVMSetAlignment(s, wide ? 16 : 4);
    if (after) ll_end_if(e, after);
  }
}

static void put(LlBody *e, const KVal *k) {
  LLVMValueRef g = ll_lane_part(e, true);
  const KVal *rows = k->a[2];
  bool whole = rows->kind == K_INDEX && rows->number >= KF_SIDE;
  for (int r = 0; r < 2; r++) {
    LLVMValueRef row = ll_add_c(e, g, 8 * r);
    LLVMBasicBlockRef after =
        whole ? NULL : ll_if(e, less(e, row, ll_value(e, rows)));
    put_row(e, k, row, r);
    if (after) ll_end_if(e, after);
  }
}

/* ---- in registers -------------------------------------------------------- */

/* Both halves of the columns, from each half of the depth. */
static LLVMValueRef mma(LlBody *e, const KVal *k) {
  LLVMValueRef sum = ll_value(e, k->a[0]), left = ll_value(e, k->a[1]);
  LLVMValueRef right = ll_value(e, k->a[2]), x[WORDS];
  for (int i = 0; i < WORDS; i++)
    x[i] = pick(e, sum, i);
  for (int i = 0; i < 4; i++) {
    int half = i % 2, deep = i / 2;
    LLVMValueRef a[10];
    for (int q = 0; q < 4; q++) {
      a[q] = pick(e, left, 4 * deep + q);
      a[6 + q] = x[4 * half + q];
    }
    for (int q = 0; q < 2; q++)
      a[4 + q] = pick(e, right, 4 * half + 2 * deep + q);
    LLVMValueRef d =
        ll_call(e, "llvm.nvvm.mma.m16n8k16.row.col.bf16", NULL, 0, a, 10);
    for (unsigned q = 0; q < 4; q++)
      x[4 * half + (int)q] = LLVMBuildExtractValue(e->b, d, q, "");
  }
  return join(e, x, WORDS);
}

/* Word i of a left fragment's half of the depth is numbers 2 i and 2 i + 1 of
 * the fragment of sums that has these columns. */
static LLVMValueRef pairs(LlBody *e, const KVal *k) {
  LLVMValueRef words[WORDS / 2], v = ll_value(e, k->a[0]);
  for (int i = 0; i < WORDS / 2; i++) {
    LLVMValueRef a[2];
    a[0] = pick(e, v, 2 * i + 1);
    a[1] = pick(e, v, 2 * i);
    LLVMValueRef x = ll_call(e, "llvm.nvvm.ff2bf16x2.rn", NULL, 0, a, 2);
    words[i] = LLVMBuildBitCast(e->b, x, ll_i32(e), "");
  }
  return join(e, words, WORDS / 2);
}

static LLVMValueRef join_halves(LlBody *e, const KVal *k) {
  LLVMValueRef words[WORDS];
  for (int i = 0; i < WORDS; i++)
    words[i] = pick(e, ll_value(e, k->a[i / 4]), i % 4);
  return join(e, words, WORDS);
}

static LLVMValueRef from_lane(LlBody *e, LLVMValueRef x, int other) {
  LLVMTypeRef f32 = LLVMTypeOf(x);
  LLVMValueRef a[4] = {LLVMConstAllOnes(ll_i32(e)),
                       LLVMBuildBitCast(e->b, x, ll_i32(e), ""),
                       ll_word(e, other), ll_word(e, WARP - 1)};
  LLVMValueRef y = ll_call(e, "llvm.nvvm.shfl.sync.bfly.i32", NULL, 0, a, 4);
  return LLVMBuildBitCast(e->b, y, f32, "");
}

/* A row's numbers are those of four threads. */
static LLVMValueRef row_fold(LlBody *e, const KVal *k) {
  static const int more[] = {1, 4, 5};
  LLVMValueRef v = ll_value(e, k->a[0]), rows[2];
  for (int r = 0; r < 2; r++) {
    LLVMValueRef two[2] = {pick(e, v, 2 * r)};
    for (size_t i = 0; i < COUNT_OF(more) + 2; i++) {
      two[1] = i < COUNT_OF(more)
                   ? pick(e, v, more[i] + 2 * r)
                   : from_lane(e, two[0], i == COUNT_OF(more) ? 1 : 2);
      two[0] = cg_llvm_scalar(e->b, k->op, DT_f32, DT_f32, two);
    }
    rows[r] = two[0];
  }
  return join(e, rows, 2);
}

static LLVMValueRef by_row(LlBody *e, const KVal *k) {
  LLVMValueRef v = ll_value(e, k->a[0]), x[WORDS];
  for (int i = 0; i < WORDS; i++)
    x[i] = pick(e, v, i / 2 % 2);
  return join(e, x, WORDS);
}

LlValue ll_fragment(LlBody *e, const KVal *k) {
  switch ((int)k->kind) {
  case K_TAKE: return take(e, k);
  case K_MMA: return mma(e, k);
  case K_PLACES: return places(e, k);
  case K_AHEAD: return ahead(e, k);
  case K_PAIRS: return pairs(e, k);
  case K_JOIN: return join_halves(e, k);
  case K_ROW_FOLD: return row_fold(e, k);
  case K_BY_ROW: return by_row(e, k);
  case K_PUT: put(e, k); return NULL;
  }
  internal_error("statement %d is no fragment's", (int)k->kind);
}
