/* llvm_group.c: the instructions of warpgroups, for sm_90a.
 *
 * All that is made here, as PTX spells it:
 *
 *   wgmma.fence.sync.aligned;
 *   wgmma.mma_async.sync.aligned.m64nNk16.f32.bf16.bf16
 *       {d0, ...}, LEFT, RIGHT, 1, 1, 1, A, B;
 *   wgmma.commit_group.sync.aligned;
 *   wgmma.wait_group.sync.aligned P;
 *   fence.proxy.async.shared::cta;
 *
 * and for boxes, gates being what PTX calls mbarriers, by thread 0 but for the
 * last, which threads repeat until it is true:
 *
 *   mbarrier.init.shared::cta.b64 [GATE], BOXES;
 *   mbarrier.inval.shared::cta.b64 [GATE];
 *   mbarrier.arrive.expect_tx.shared::cta.b64 _, [GATE], BYTES;
 *   cp.async.bulk.tensor.3d.shared::cluster.global.tile
 *       .mbarrier::complete_tx::bytes
 *       [TO], [MAP, {ELEMENT, ROW, BATCH}], [GATE];
 *   mbarrier.try_wait.parity.shared::cta.b64 DONE, [GATE], PARITY;
 *
 * N is the columns of a warpgroup's sums, d0 ... d(N / 2 - 1) a thread's share
 * of them, which are words of tiles as they are: tile i of warp w has rows
 * 16 (w % 4) and on, columns 16 i and on. What follows the descriptors: sums
 * are added to what is there, nothing is negated, and whether an operand (A the
 * left one, B the right one) lies across the depth.
 *
 * LEFT and RIGHT describe an operand in shared memory:
 *
 *   bits 0-13    its address / 16
 *   bits 16-29   across: bytes / 16 from 64 of the rows or columns to the next
 *                64; along: not used, 1
 *   bits 32-45   bytes / 16 from eight lines to the next eight, 64
 *   bits 62-63   lines of 128 bytes, of which line r has its part of 16 bytes
 *                number c at c ^ r % 8: 1
 *
 * so that of rows along the depth the next 16 of it are 32 bytes further in the
 * first line, and of rows across 16 lines further.
 *
 * From a product's beginning to the wait for it nothing may touch its sums.
 * Each of these instructions therefore takes all sums and returns them, where
 * PTX names them in the product alone: what LLVM would do to them, copies
 * included, then stands in front of the fence or behind the wait. */
#include "group.h"

#include <llvm-c/Core.h>

enum {
  TILE = 16,
  TILE_WORDS = 8,
  MOST_SUMS = 128, /* of a thread */
  DEEP = 16,       /* of one instruction */
  LINE = 128,      /* bytes */
  LINES = 8,       /* whose parts are exchanged together */
  UNIT = 16,       /* bytes, in descriptors */
  LEADING = 16,    /* bits below a descriptor's fields */
  STRIDE = 32,
  SWIZZLE = 62
};

void ll_group_fence(LlBody *e) {
  ll_assembly(e, LLVMVoidTypeInContext(e->c), "fence.proxy.async.shared::cta;",
              "~{memory}", NULL, 0);
}

/* ---- instructions that have the sums ------------------------------------- */

typedef struct Sums {
  LLVMValueRef of[MOST_SUMS + 2]; /* and operands behind them */
  unsigned n;
} Sums;

static LLVMValueRef word_of(LlBody *e, unsigned i) {
  return ll_tile_words(e, i / TILE_WORDS)[i % TILE_WORDS];
}

static Sums load_sums(LlBody *e, const KVal *k) {
  LLVMTypeRef f32 = LLVMFloatTypeInContext(e->c);
  Sums s = {.n = k->lanes / 2u};
  assert(s.n <= MOST_SUMS);
  for (unsigned i = 0; i < s.n; i++) {
    LLVMValueRef x = LLVMBuildLoad2(e->b, ll_i32(e), word_of(e, i), "");
    s.of[i] = LLVMBuildBitCast(e->b, x, f32, "");
  }
  return s;
}

static void store_sums(LlBody *e, const Sums *s) {
  for (unsigned i = 0; i < s->n; i++) {
    LLVMValueRef x = LLVMBuildBitCast(e->b, s->of[i], ll_i32(e), "");
    LLVMBuildStore(e->b, x, word_of(e, i));
  }
}

/* An instruction with `more` operands of 64 bits behind the sums. */
static void with_sums(LlBody *e, Sums *s, const char *text, unsigned more) {
  LLVMTypeRef types[MOST_SUMS];
  Buf constraints = {0};
  for (unsigned i = 0; i < s->n; i++) {
    types[i] = LLVMFloatTypeInContext(e->c);
    buf_add(&constraints, "=f,");
  }
  for (unsigned i = 0; i < s->n; i++)
    buf_fmt(&constraints, "%u,", i);
  for (unsigned i = 0; i < more; i++)
    buf_add(&constraints, "l,");
  buf_add(&constraints, "~{memory}");
  LLVMTypeRef all = LLVMStructTypeInContext(e->c, types, s->n, false);
  LLVMValueRef v =
      ll_assembly(e, all, text, constraints.data, s->of, s->n + more);
  for (unsigned i = 0; i < s->n; i++)
    s->of[i] = LLVMBuildExtractValue(e->b, v, i, "");
  buf_free(&constraints);
}

/* ---- products ------------------------------------------------------------ */

/* All of it, as operands lie there. */
static const KBase scratch = {KB_SCRATCH, 0, DT_bf16};

/* Of the operand at element `at` of scratch. */
static LLVMValueRef descriptor(LlBody *e, LLVMValueRef at, bool down) {
  uint64_t leading = down ? CT_GROUP_DEEP * LINE / UNIT : 1;
  uint64_t rest = leading << LEADING |
                  (uint64_t)(LINES * LINE / UNIT) << STRIDE | 1ull << SWIZZLE;
  LLVMValueRef x = ll_shared_at(e, &scratch, at);
  x = LLVMBuildLShr(e->b, x, ll_word(e, 4), "");
  x = LLVMBuildAnd(e->b, x, ll_word(e, (1 << 14) - 1), "");
  x = LLVMBuildZExt(e->b, x, e->i64, "");
  return LLVMBuildOr(e->b, x, ll_index_const(e, (int64_t)rest), "");
}

/* What a descriptor grows by for the next DEEP of the depth. */
static int64_t advance(bool down) {
  return (down ? DEEP * LINE : DEEP * dtype_info[DT_bf16].bytes) / UNIT;
}

static void dot(LlBody *e, const KVal *k) {
  bool down[2] = {(int)k->value & 1, (int)k->value & 2};
  Sums s = load_sums(e, k);
  Buf text = {0};
  buf_fmt(&text, "wgmma.mma_async.sync.aligned.m64n%dk%d.f32.bf16.bf16 {",
          k->lanes, DEEP);
  for (unsigned i = 0; i < s.n; i++)
    buf_fmt(&text, "%s$%u", i ? ", " : "", i);
  buf_fmt(&text, "}, $%u, $%u, 1, 1, 1, %d, %d;", 2 * s.n, 2 * s.n + 1, down[0],
          down[1]);
  LLVMValueRef at[2];
  for (int i = 0; i < 2; i++)
    at[i] = descriptor(e, ll_value(e, k->a[i]), down[i]);
  with_sums(e, &s, "wgmma.fence.sync.aligned;", 0);
  for (int64_t deep = 0; deep < CT_GROUP_DEEP / DEEP; deep++) {
    for (int i = 0; i < 2; i++)
      s.of[s.n + (unsigned)i] = ll_add_c(e, at[i], deep * advance(down[i]));
    with_sums(e, &s, text.data, 2);
  }
  with_sums(e, &s, "wgmma.commit_group.sync.aligned;", 0);
  store_sums(e, &s);
  buf_free(&text);
}

static void wait(LlBody *e, const KVal *k) {
  char text[64];
  snprintf(text, sizeof text, "wgmma.wait_group.sync.aligned %d;",
           (int)k->number);
  Sums s = load_sums(e, k);
  with_sums(e, &s, text, 0);
  store_sums(e, &s);
}

/* ---- boxes --------------------------------------------------------------- */

static LLVMValueRef gate_at(LlBody *e, const KVal *k, LLVMValueRef number) {
  number = LLVMBuildMul(e->b, number, ll_index_const(e, CT_GATE), "");
  return ll_shared_at(e, &k->base, number);
}

static void nothing(LlBody *e, const char *text, const char *constraints,
                    LLVMValueRef *a, unsigned n) {
  ll_assembly(e, LLVMVoidTypeInContext(e->c), text, constraints, a, n);
}

static LLVMBasicBlockRef if_thread_0(LlBody *e) {
  LLVMValueRef zero = ll_index_const(e, 0);
  LLVMValueRef is = LLVMBuildICmp(e->b, LLVMIntEQ, e->warp, zero, "");
  return ll_if(e, LLVMBuildAnd(e->b, is, e->first, ""));
}

/* What boxes do to gates goes by the other way, as they do. */
static void gates(LlBody *e, const KVal *k) {
  char text[64] = "mbarrier.inval.shared::cta.b64 [$0];";
  LLVMBasicBlockRef after = if_thread_0(e);
  if (k->value == 0)
    snprintf(text, sizeof text, "mbarrier.init.shared::cta.b64 [$0], %d;",
             (int)k->a[0]->number);
  for (int64_t i = 0; i < k->number; i++) {
    LLVMValueRef gate = gate_at(e, k, ll_index_const(e, i));
    nothing(e, text, "r,~{memory}", &gate, 1);
  }
  if (k->value == 0) ll_group_fence(e);
  ll_end_if(e, after);
}

static LLVMValueRef coordinate(LlBody *e, const KVal *k) {
  return LLVMBuildTrunc(e->b, ll_value(e, k), ll_i32(e), "");
}

static void box(LlBody *e, const KVal *k) {
  const KMap *m = &e->stage->maps.data[k->number];
  LLVMBasicBlockRef after = if_thread_0(e);
  LLVMValueRef gate = gate_at(e, k, ll_value(e, k->a[4]));
  LLVMValueRef map =
      LLVMGetParam(e->fn, (unsigned)(e->kernel->n_args + 1 + k->number));
  char text[96];
  snprintf(text, sizeof text,
           "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], %d;",
           m->box[0] * m->box[1] * dtype_info[DT_bf16].bytes);
  nothing(e, text, "r,~{memory}", &gate, 1);
  LLVMValueRef a[6] = {ll_shared_at(e, &scratch, ll_value(e, k->a[3])),
                       LLVMBuildPtrToInt(e->b, map, e->i64, ""),
                       coordinate(e, k->a[0]), coordinate(e, k->a[1]),
                       coordinate(e, k->a[2]), gate};
  nothing(e,
          "cp.async.bulk.tensor.3d.shared::cluster.global.tile"
          ".mbarrier::complete_tx::bytes [$0], [$1, {$2, $3, $4}], [$5];",
          "r,l,r,r,r,r,~{memory}", a, 6);
  ll_end_if(e, after);
}

static void gate_wait(LlBody *e, const KVal *k) {
  LLVMBasicBlockRef again = ll_new_block(e, "again");
  LLVMBasicBlockRef open = ll_new_block(e, "open");
  LLVMValueRef a[2] = {gate_at(e, k, ll_value(e, k->a[0])),
                       coordinate(e, k->a[1])};
  LLVMBuildBr(e->b, again);
  LLVMPositionBuilderAtEnd(e->b, again);
  LLVMValueRef done = ll_assembly(
      e, LLVMInt1TypeInContext(e->c),
      "mbarrier.try_wait.parity.shared::cta.b64 $0, [$1], $2;",
      "=b,r,r,~{memory}", a, 2);
  LLVMBuildCondBr(e->b, done, open, again);
  LLVMPositionBuilderAtEnd(e->b, open);
}

LLVMValueRef ll_group(LlBody *e, const KVal *k) {
  switch ((int)k->kind) {
  case K_GROUP_DOT: dot(e, k); return NULL;
  case K_GROUP_WAIT: wait(e, k); return NULL;
  case K_GATES: gates(e, k); return NULL;
  case K_BOX: box(e, k); return NULL;
  case K_GATE_WAIT: gate_wait(e, k); return NULL;
  }
  internal_error("statement %d is none of warpgroups", (int)k->kind);
}
