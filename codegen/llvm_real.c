/* llvm_real.c: tiles of f32, for teams.
 *
 * The sums of a tile lie as those of bf16 do (llvm_warp.c): with g = lane / 4
 * and t = lane % 4 a thread has rows g and g + 8, and columns 2 t, 2 t + 1, and
 * 8 more each. Operands come two of the depth at a time: of a left tile each
 * thread has its two rows, of a right one its four columns, which it shares
 * with those of the same g, or t; a warp of four by four tiles loads 24 times
 * two elements for 256 multiply-adds. Each sum is added to in the order of its
 * depth.
 *
 * Rounded to tf32 they are 16 of the depth, for tensor cores: words lie as
 * those of bf16 do, with one element in the place of two. So ldmatrix brings
 * what lies along its depth, four elements of a row at a time. */
#include "group.h"

#include <llvm-c/Core.h>

enum { DEEP = 2, ROWS = 2, COLUMNS = 4, GROUP = 4, WORDS = 8 };

static LLVMValueRef add(LlBody *e, LLVMValueRef x, LLVMValueRef y) {
  return LLVMBuildAdd(e->b, x, y, "");
}

static LLVMValueRef word_of_index(LlBody *e, const KVal *k) {
  return LLVMBuildTrunc(e->b, ll_value(e, k), ll_i32(e), "");
}

/* The thread's nth row or column, counted from the tile's first. */
static LLVMValueRef own(LlBody *e, bool right, int nth) {
  LLVMValueRef part = ll_lane_part(e, !right);
  if (right) part = ll_times_c(e, part, 2);
  part = ll_add_c(e, part, right ? 8 * (nth / 2) + nth % 2 : 8 * nth);
  return LLVMBuildTrunc(e->b, part, ll_i32(e), "");
}

/* n elements, one or two, from element `at` of row `row` of the panel on. */
static void load(LlBody *e, const KVal *k, LLVMValueRef row, LLVMValueRef at,
                 int n, LLVMValueRef *words) {
  int bytes = (int)dtype_info[DT_f32].bytes;
  LLVMTypeRef shared = LLVMPointerTypeInContext(e->c, 3), i32 = ll_i32(e);
  LLVMValueRef group = LLVMBuildUDiv(e->b, at, ll_word(e, GROUP), "");
  LLVMValueRef in = LLVMBuildURem(e->b, at, ll_word(e, GROUP), "");
  LLVMValueRef p = ll_shared_at(e, &k->base, ll_value(e, k->a[0]));
  p = add(e, p, ll_group_at(e, k->lanes * bytes, row, group));
  p = add(e, p, LLVMBuildMul(e->b, in, ll_word(e, bytes), ""));
  p = LLVMBuildIntToPtr(e->b, p, shared, "");
  LLVMTypeRef type = n > 1 ? LLVMVectorType(i32, (unsigned)n) : i32;
  LLVMValueRef x = LLVMBuildLoad2(e->b, type, p, "");
  LLVMSetAlignment(x, (unsigned)(n * bytes));
  words[0] = x;
  for (int i = 0; i < n && n > 1; i++)
    words[i] = LLVMBuildExtractElement(e->b, x, ll_word(e, i), "");
}

/* Word DEEP i + d: the thread's row or column i at depth d. */
void ll_real_pick(LlBody *e, const KVal *k) {
  bool right = k->value == 1 || k->value == 3, down = k->value >= 2;
  LLVMValueRef first = word_of_index(e, k->a[1]);
  LLVMValueRef depth = word_of_index(e, k->a[2]);
  LLVMValueRef words[COLUMNS * DEEP], two[2];
  int n = right ? COLUMNS : ROWS;
  for (int i = 0; i < n && !down; i++)
    load(e, k, add(e, first, own(e, right, i)), depth, DEEP,
         &words[DEEP * i]);
  int at_once = right ? 2 : 1; /* columns that are side by side */
  for (int i = 0; i < n && down; i += at_once)
    for (int d = 0; d < DEEP; d++) {
      load(e, k, add(e, depth, ll_word(e, d)),
           add(e, first, own(e, right, i)), at_once, two);
      for (int j = 0; j < at_once; j++)
        words[DEEP * (i + j) + d] = two[j];
    }
  for (int i = 0; i < n * DEEP; i++)
    LLVMBuildStore(e->b, words[i], ll_tile_words(e, k->number)[i]);
}

static LLVMValueRef real(LlBody *e, int64_t tile, int i) {
  LLVMValueRef x =
      LLVMBuildLoad2(e->b, ll_i32(e), ll_tile_words(e, tile)[i], "");
  return LLVMBuildBitCast(e->b, x, LLVMFloatTypeInContext(e->c), "");
}

void ll_real_dot(LlBody *e, const KVal *k) {
  LLVMTypeRef f32 = LLVMFloatTypeInContext(e->c);
  for (int i = 0; i < ROWS * COLUMNS; i++) {
    int row = i / 2 % 2, column = i / 4 * 2 + i % 2;
    LLVMValueRef sum = real(e, k->number, i);
    for (int d = 0; d < DEEP; d++) {
      LLVMValueRef a[3] = {real(e, k->a[0]->number, DEEP * row + d),
                           real(e, k->a[1]->number, DEEP * column + d), sum};
      sum = ll_call(e, "llvm.fma", &f32, 1, a, 3);
    }
    sum = LLVMBuildBitCast(e->b, sum, ll_i32(e), "");
    LLVMBuildStore(e->b, sum, ll_tile_words(e, k->number)[i]);
  }
}

/* ---- tf32 ---------------------------------------------------------------- */

/* Words as ll_tile_pick brings them, of a panel whose rows are the depth. */
static void load_turned(LlBody *e, const KVal *k, bool right,
                        LLVMValueRef *words) {
  LLVMValueRef first = word_of_index(e, k->a[1]);
  LLVMValueRef g = LLVMBuildLShr(e->b, e->lane, ll_word(e, 2), "");
  LLVMValueRef t = LLVMBuildAnd(e->b, e->lane, ll_word(e, 3), "");
  for (int i = 0; i < WORDS; i++) {
    int half = i / 4, q = i % 4;
    int across = right ? 8 * half : 8 * (q % 2);
    int depth = right ? 4 * q : 8 * half + 4 * (q / 2);
    LLVMValueRef at = add(e, first, add(e, g, ll_word(e, across)));
    load(e, k, add(e, t, ll_word(e, depth)), at, 1, &words[i]);
  }
}

void ll_tf32_pick(LlBody *e, const KVal *k) {
  bool right = k->value == 1 || k->value == 3, down = k->value >= 2;
  LLVMTypeRef f32 = LLVMFloatTypeInContext(e->c);
  LLVMValueRef words[WORDS];
  if (down)
    load_turned(e, k, right, words);
  else
    ll_tile_pick(e, k, words);
  for (int i = 0; i < WORDS; i++) {
    LLVMValueRef x = LLVMBuildBitCast(e->b, words[i], f32, "");
    x = ll_assembly(e, ll_i32(e), "cvt.rna.tf32.f32 $0, $1;", "=r,f", &x, 1);
    LLVMBuildStore(e->b, x, ll_tile_words(e, k->number)[i]);
  }
}
