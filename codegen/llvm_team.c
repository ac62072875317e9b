/* llvm_team.c: what the warps of a block do together.
 *
 * A panel's rows lie one behind the other in shared memory, in groups of 16
 * bytes, of which eight lie side by side before they meet the same banks again:
 *
 *   group c of row r is at place c ^ (r / 2) % 4 of four, or c ^ r % 8 of more
 *
 * so that the same group of eight rows in a row is in all banks, once each: one
 * access of ldmatrix. Panels are filled by cp.async, 16 bytes at a time, which
 * also writes the zeros for what there is not. Where an operand does not lie at
 * multiples of 16 bytes its elements are loaded one by one, and stored. */
#include "group.h"

#include <llvm-c/Core.h>
#include <string.h>

enum { GROUP_BYTES = KB_COPY_BYTES, LANES = 32 };

/* ---- instructions -------------------------------------------------------- */

LLVMValueRef ll_assembly(LlBody *e, LLVMTypeRef result, const char *text,
                         const char *constraints, LLVMValueRef *a,
                         unsigned n) {
  static const char convergent[] = "convergent";
  LLVMTypeRef types[LL_MOST_OPERANDS];
  assert(n <= COUNT_OF(types));
  for (unsigned i = 0; i < n; i++)
    types[i] = LLVMTypeOf(a[i]);
  LLVMTypeRef type = LLVMFunctionType(result, types, n, false);
  LLVMValueRef code = LLVMGetInlineAsm(
      type, text, strlen(text), constraints, strlen(constraints), true, false,
      LLVMInlineAsmDialectATT, false);
  LLVMValueRef call = LLVMBuildCall2(e->b, type, code, a, n, "");
  unsigned kind =
      LLVMGetEnumAttributeKindForName(convergent, strlen(convergent));
  LLVMAddCallSiteAttribute(call, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                           LLVMCreateEnumAttribute(e->c, kind, 0));
  return call;
}

static void meet(LlBody *e, int64_t batches, bool for_groups) {
  char text[64];
  snprintf(text, sizeof text, "cp.async.wait_group %d;", (int)batches);
  ll_assembly(e, LLVMVoidTypeInContext(e->c), text, "~{memory}", NULL, 0);
  if (for_groups) ll_group_fence(e);
  ll_call(e, "llvm.nvvm.barrier0", NULL, 0, NULL, 0);
}

static void batch(LlBody *e) {
  ll_assembly(e, LLVMVoidTypeInContext(e->c), "cp.async.commit_group;",
              "~{memory}", NULL, 0);
}

/* ---- where groups lie ---------------------------------------------------- */

static LLVMValueRef add(LlBody *e, LLVMValueRef x, LLVMValueRef y) {
  return LLVMBuildAdd(e->b, x, y, "");
}

static LLVMValueRef times(LlBody *e, LLVMValueRef x, int64_t y) {
  return LLVMBuildMul(e->b, x, ll_word(e, y), "");
}

static LLVMValueRef part(LlBody *e, LLVMValueRef x, int shift, int mask) {
  x = LLVMBuildLShr(e->b, x, ll_word(e, shift), "");
  return LLVMBuildAnd(e->b, x, ll_word(e, mask), "");
}

LLVMValueRef ll_shared_at(LlBody *e, const KBase *base, LLVMValueRef at) {
  LLVMValueRef p = ll_start_of(e, base);
  p = LLVMBuildPtrToInt(e->b, p, ll_i32(e), "");
  at = LLVMBuildTrunc(e->b, at, ll_i32(e), "");
  return add(e, p, times(e, at, dtype_info[base->dtype].bytes));
}

LLVMValueRef ll_group_at(LlBody *e, int run, LLVMValueRef row,
                         LLVMValueRef group) {
  LLVMValueRef moved = run / GROUP_BYTES == 4 ? part(e, row, 1, 3)
                                              : part(e, row, 0, 7);
  group = LLVMBuildXor(e->b, group, moved, "");
  return add(e, times(e, row, run), times(e, group, GROUP_BYTES));
}

/* ---- copies -------------------------------------------------------------- */

/* A group that one thread copies. */
typedef struct Copy {
  LLVMValueRef to;   /* i32 */
  LLVMValueRef from; /* where its first element is, in elements */
  LLVMValueRef there; /* elements of it that there are, i32 */
} Copy;

static int bytes_of(Dtype dtype) {
  return (int)dtype_info[dtype].bytes;
}

/* Elements of a group of the panel. */
static int group_of(const KVal *k) {
  return GROUP_BYTES / bytes_of(k->dtype);
}

/* Elements of `group` of a row that there are: the first ones. */
static LLVMValueRef elements(LlBody *e, const KVal *k, LLVMValueRef group,
                             LLVMValueRef row) {
  LLVMValueRef from = times(e, group, group_of(k));
  from = LLVMBuildZExt(e->b, from, e->i64, "");
  LLVMValueRef n = LLVMBuildSub(e->b, ll_value(e, k->a[2]), from, "");
  LLVMValueRef a[2] = {n, ll_index_const(e, 0)};
  LLVMTypeRef type = e->i64;
  a[0] = ll_call(e, "llvm.smax", &type, 1, a, 2);
  a[1] = ll_index_const(e, group_of(k));
  n = ll_call(e, "llvm.smin", &type, 1, a, 2);
  row = LLVMBuildZExt(e->b, row, e->i64, "");
  LLVMValueRef is =
      LLVMBuildICmp(e->b, LLVMIntSLT, row, ll_value(e, k->a[1]), "");
  n = LLVMBuildTrunc(e->b, n, ll_i32(e), "");
  return LLVMBuildSelect(e->b, is, n, ll_word(e, 0), "");
}

static void copy_ahead(LlBody *e, const KVal *k, const Copy *c) {
  LLVMTypeRef global = LLVMPointerTypeInContext(e->c, 1);
  LLVMValueRef from = ll_address(e, &k->base, c->from);
  from = LLVMBuildAddrSpaceCast(e->b, from, global, "");
  LLVMValueRef a[3] = {c->to, from, times(e, c->there, bytes_of(k->dtype))};
  ll_assembly(e, LLVMVoidTypeInContext(e->c),
              "cp.async.cg.shared.global [$0], [$1], 16, $2;",
              "r,l,r,~{memory}", a, 3);
}

/* Elements, one or more, from the i-th of a group on, or zeros where the last
 * of them is none; as they are in memory. */
static LLVMValueRef load_elements(LlBody *e, const KVal *k, const Copy *c,
                                  int i, int n) {
  LLVMTypeRef type = ll_memory_type(e, k->base.dtype, n);
  LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(e->b), NULL};
  LLVMBasicBlockRef after = ll_if(
      e, LLVMBuildICmp(e->b, LLVMIntSLT, ll_word(e, i + n - 1), c->there, ""));
  LLVMValueRef at = add(e, c->from, ll_index_const(e, i));
  LLVMValueRef x = LLVMBuildLoad2(e->b, type, ll_address(e, &k->base, at), "");
  LLVMSetAlignment(x, (unsigned)(n * bytes_of(k->base.dtype)));
  LLVMValueRef in[2] = {LLVMConstNull(type), x};
  from[1] = LLVMGetInsertBlock(e->b);
  ll_end_if(e, after);
  x = LLVMBuildPhi(e->b, type, "");
  LLVMAddIncoming(x, in, from, 2);
  return x;
}

/* Element i of those in `from`, as the panel has it, in the lower bits of a
 * word. */
static LLVMValueRef element_of(LlBody *e, const KVal *k, LLVMValueRef from,
                               int i, int n) {
  LLVMTypeRef bits =
      LLVMIntTypeInContext(e->c, 8 * (unsigned)bytes_of(k->dtype));
  if (n > 1) from = LLVMBuildExtractElement(e->b, from, ll_word(e, i), "");
  if (k->base.dtype != k->dtype)
    from = cg_llvm_scalar(e->b, OP_cast, k->base.dtype, k->dtype, &from);
  from = LLVMBuildBitCast(e->b, from, bits, "");
  return bytes_of(k->dtype) < 4 ? LLVMBuildZExt(e->b, from, ll_i32(e), "")
                                : from;
}

/* By the thread itself, n elements at once, what is cast among them. */
static void copy_now(LlBody *e, const KVal *k, const Copy *c, int n) {
  LLVMTypeRef shared = LLVMPointerTypeInContext(e->c, 3);
  enum { WORDS = GROUP_BYTES / 4 };
  LLVMValueRef all = LLVMGetPoison(LLVMVectorType(ll_i32(e), WORDS));
  int in_word = 4 / bytes_of(k->dtype);
  LLVMValueRef from = NULL, word = NULL;
  for (int i = 0; i < group_of(k); i++) {
    if (i % n == 0) from = load_elements(e, k, c, i, n);
    LLVMValueRef x = element_of(e, k, from, i % n, n);
    if (i % in_word)
      x = LLVMBuildOr(e->b, word, LLVMBuildShl(e->b, x, ll_word(e, 16), ""),
                      "");
    word = x;
    all = LLVMBuildInsertElement(e->b, all, x, ll_word(e, i / in_word), "");
  }
  LLVMValueRef to = LLVMBuildIntToPtr(e->b, c->to, shared, "");
  LLVMSetAlignment(LLVMBuildStore(e->b, all, to), GROUP_BYTES);
}

/* Elements that can be read at once, wherever rows of them start. */
static int at_once(const LlBody *e, const KVal *k) {
  int n = GROUP_BYTES / bytes_of(k->base.dtype);
  bool is = e->ways->alignment(e, k) % GROUP_BYTES == 0 &&
            k->a[3]->number % n == 0;
  return is ? n : 1;
}

/* Whether there are all or none of so many elements of a row, always. */
static bool whole(const KVal *k, int n) {
  return kb_divisor(k->a[2]) % n == 0;
}

/* What a thread copies of a panel: threads go along rows, then to those that
 * follow; each has the same group of all its rows. */
typedef struct Share {
  LLVMValueRef group, first; /* its group, and its first row: i32 */
  int64_t rows_on;           /* from row to row */
} Share;

static Share share_of(LlBody *e, int groups) {
  LLVMValueRef warp = LLVMBuildTrunc(e->b, e->warp, ll_i32(e), "");
  LLVMValueRef thread = add(e, times(e, warp, LANES), e->lane);
  return (Share){LLVMBuildAnd(e->b, thread, ll_word(e, groups - 1), ""),
                 LLVMBuildUDiv(e->b, thread, ll_word(e, groups), ""),
                 e->team * LANES / groups};
}

/* Where row `nth` of the share starts in the operand. */
static LLVMValueRef row_from(LlBody *e, const KVal *k, const Share *s,
                             int64_t nth) {
  LLVMValueRef row = s->first;
  if (k->a[5]) {
    row = ll_value(e, k->a[5]);
    if (ll_width(e, k->a[5]->lanes) > 1)
      row = LLVMBuildExtractElement(e->b, row, ll_word(e, nth), "");
  }
  LLVMValueRef at = LLVMBuildZExt(e->b, row, e->i64, "");
  if (!k->a[5]) at = add(e, at, ll_index_const(e, nth * s->rows_on));
  return LLVMBuildMul(e->b, at, ll_index_const(e, k->a[3]->number), "");
}

/* Where groups lie comes back after so many rows; a thread's of longer panels,
 * whose rows are closer, do not all lie alike. */
enum { ROWS_ALIKE = 8 };

static void panel(LlBody *e, const KVal *k) {
  int group = group_of(k), run = k->lanes * bytes_of(k->dtype);
  int n = at_once(e, k);
  KBase scratch = {KB_SCRATCH, 0, k->dtype};
  Share s = share_of(e, k->lanes / group);
  LLVMValueRef start = ll_shared_at(e, &scratch, ll_value(e, k->a[4]));
  LLVMValueRef to = add(e, start, ll_group_at(e, run, s.first, s.group));
  LLVMValueRef from = times(e, s.group, group);
  from = LLVMBuildZExt(e->b, from, e->i64, "");
  from = add(e, ll_value(e, k->a[0]), from);
  for (int64_t i = 0; i * s.rows_on < k->number; i++) {
    LLVMValueRef row = add(e, s.first, ll_word(e, i * s.rows_on));
    Copy c = {.to = add(e, to, ll_word(e, i * s.rows_on * run))};
    if (s.rows_on % ROWS_ALIKE != 0)
      c.to = add(e, start, ll_group_at(e, run, row, s.group));
    c.from = add(e, from, row_from(e, k, &s, i));
    c.there = elements(e, k, s.group, row);
    if (k->base.dtype == k->dtype && n == group)
      copy_ahead(e, k, &c);
    else
      copy_now(e, k, &c, whole(k, n) ? n : 1);
  }
}

/* The number of a row, from the table, or 0. */
static LLVMValueRef row_number(LlBody *e, const KVal *k, LLVMValueRef row) {
  LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(e->b), NULL};
  LLVMValueRef nth = LLVMBuildZExt(e->b, row, e->i64, "");
  LLVMBasicBlockRef after = ll_if(
      e, LLVMBuildICmp(e->b, LLVMIntSLT, nth, ll_value(e, k->a[1]), ""));
  LLVMValueRef p = ll_address(e, &k->base, add(e, ll_value(e, k->a[0]), nth));
  LLVMValueRef x = LLVMBuildLoad2(e->b, ll_i32(e), p, "");
  LLVMValueRef in[2] = {ll_word(e, 0), LLVMBuildUDiv(
                                           e->b, x,
                                           ll_word(e, k->a[2]->number), "")};
  from[1] = LLVMGetInsertBlock(e->b);
  ll_end_if(e, after);
  LLVMValueRef number = LLVMBuildPhi(e->b, ll_i32(e), "");
  LLVMAddIncoming(number, in, from, 2);
  return number;
}

static LLVMValueRef panel_rows(LlBody *e, const KVal *k) {
  int width = ll_width(e, k->lanes), threads = e->team * LANES;
  Share s = share_of(e, (int)(width * threads / k->number));
  LLVMValueRef all = LLVMGetPoison(cg_llvm_type(e->c, DT_i32, width));
  for (int i = 0; i < width; i++) {
    LLVMValueRef row = add(e, s.first, ll_word(e, i * s.rows_on));
    row = row_number(e, k, row);
    all = width > 1 ? LLVMBuildInsertElement(e->b, all, row, ll_word(e, i), "")
                    : row;
  }
  return all;
}

LLVMValueRef ll_team(LlBody *e, const KVal *k) {
  switch ((int)k->kind) {
  case K_PANEL_ROWS: return panel_rows(e, k);
  case K_MEET: meet(e, k->number, k->value != 0); return NULL;
  case K_BATCH: batch(e); return NULL;
  case K_PANEL: panel(e, k); return NULL;
  }
  internal_error("statement %d is none of teams", (int)k->kind);
}

/* ---- tiles --------------------------------------------------------------- */

/* Four matrices of eight rows of a group each, as they lie or turned. */
static void load_matrices(LlBody *e, LLVMValueRef at, bool turned,
                          LLVMValueRef *words) {
  LLVMTypeRef four[4] = {ll_i32(e), ll_i32(e), ll_i32(e), ll_i32(e)};
  LLVMTypeRef result = LLVMStructTypeInContext(e->c, four, 4, false);
  char text[128];
  snprintf(text, sizeof text,
           "ldmatrix.sync.aligned.m8n8.x4%s.shared.b16 {$0, $1, $2, $3}, [$4];",
           turned ? ".trans" : "");
  LLVMValueRef all =
      ll_assembly(e, result, text, "=r,=r,=r,=r,r,~{memory}", &at, 1);
  for (unsigned i = 0; i < 4; i++)
    words[i] = LLVMBuildExtractValue(e->b, all, i, "");
}

/* Words 4 i ... 4 i + 3 are the four matrices of (lane / 8), whose rows are
 * those of (lane % 8); see llvm_warp.c for which element is where. Of a left
 * tile i is the half of the depth, and matrices go by rows first; of a right
 * one i is the half of the columns, and matrices go along the depth. */
void ll_tile_pick(LlBody *e, const KVal *k, LLVMValueRef *words) {
  bool right = k->value == 1 || k->value == 3, down = k->value >= 2;
  enum { GROUP = 8 };
  LLVMValueRef start = ll_shared_at(e, &k->base, ll_value(e, k->a[0]));
  LLVMValueRef first = ll_value(e, k->a[1]);
  first = LLVMBuildTrunc(e->b, first, ll_i32(e), "");
  LLVMValueRef in = part(e, e->lane, 0, 7);
  LLVMValueRef low = part(e, e->lane, 3, 1), high = part(e, e->lane, 4, 1);
  for (int i = 0; i < 2; i++) {
    /* Groups of eight: those of the rows, and of the depth. */
    LLVMValueRef row = right ? ll_word(e, i) : low;
    LLVMValueRef depth = right ? part(e, e->lane, 3, 3)
                               : add(e, ll_word(e, 2 * i), high);
    LLVMValueRef group = depth;
    if (down) {
      group = add(e, part(e, first, 3, k->lanes / GROUP - 1), row);
      row = add(e, times(e, depth, GROUP), in);
    } else {
      row = add(e, first, add(e, times(e, row, GROUP), in));
    }
    row = ll_group_at(e, k->lanes * bytes_of(k->dtype), row, group);
    load_matrices(e, add(e, start, row), down, words + 4 * i);
  }
}
