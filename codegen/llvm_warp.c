/* llvm_warp.c: what is a GPU's own in the code of a stage.
 *
 * A stage becomes one kernel, `ptx_kernel`, of the addresses of the record's
 * arguments and of the workspace. A vector is shared by the 32 threads of a
 * warp, neighbouring lanes by one thread: a load of 128 lanes of f32 is 16
 * bytes a thread, all of them side by side. Scalars and the way through the
 * code are the same in all threads of a warp, so nothing diverges but a store
 * of a scalar, which thread 0 does alone. Warps share out the stage's items,
 * and have scratch of their own.
 *
 *   stage %0 in 40 {                 warp w of W, lane l
 *     %1 = mul %0, 128               for i = w; i < 40; i += W
 *     %2 = load arg0[%1] : f32x128     float4 v = arg0[i * 128 + l * 4 ...]
 *     %3 = fold add %2                 s = shuffles of v.x, v.y, v.z, v.w
 *     store arg1[%0], %3               if l == 0: arg1[i] = s
 *   }
 *
 * What threads of a warp hand each other by way of memory is waited for: no
 * order holds between what one thread has stored and another loads until both
 * have been at `bar.warp.sync`. One stands in front of an access whenever there
 * may have been one since the last that it must not overtake. */
#include "group.h"
#include "persist.h"

#include <llvm-c/Core.h>
#include <string.h>

enum {
  WARP = 32,
  WARPS = 4,                  /* of a block */
  SHARED_BYTES = 48 << 10,    /* of a block, at most */
  GROUP_LINE = 1024,          /* that of warpgroups starts at a multiple of */
  MAX_BLOCKS = 1 << 16,       /* more items are taken in turns */
  SCRATCH_WARPS = 2048,       /* with scratch in the workspace */
  LINE = 128                  /* bytes; scratch is whole ones */
};

/* ---- launches ------------------------------------------------------------ */

static int64_t round_up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

static int64_t scratch_of(const KStage *s) {
  return round_up(s->scratch_bytes, LINE);
}

/* A block is a team, or several warps. */
static WarpGrid team_grid(const KStage *s) {
  WarpGrid g = {.shared_bytes = scratch_of(s),
                .shares = true,
                .threads = s->team * WARP,
                .blocks = s->count < MAX_BLOCKS ? s->count : MAX_BLOCKS};
  int most = s->needs & KN_GROUPS ? CT_GROUP_BYTES : SHARED_BYTES;
  assert(g.shared_bytes <= most && "a team's scratch is shared");
  if (g.blocks < 1) g.blocks = 1;
  return g;
}

WarpGrid cg_warp_grid(const KStage *s) {
  if (s->team) return team_grid(s);
  int64_t scratch = scratch_of(s), warps = WARPS, most = MAX_BLOCKS;
  while (warps > 1 && warps * scratch > SHARED_BYTES)
    warps /= 2;
  WarpGrid g = {.shares = scratch && warps * scratch <= SHARED_BYTES};
  if (g.shares) g.shared_bytes = warps * scratch;
  if (scratch && !g.shares) {
    warps = WARPS;
    most = SCRATCH_WARPS / WARPS;
  }
  g.threads = (int)warps * WARP;
  g.blocks = (s->count + warps - 1) / warps;
  if (g.blocks > most) g.blocks = most;
  if (g.blocks < 1) g.blocks = 1;
  return g;
}

int64_t cg_warp_workspace(const Kernel *k) {
  int64_t own = round_up(k->workspace_bytes, LINE), most = 0;
  for (uint32_t i = 0; i < k->stages.len; i++) {
    const KStage *s = &k->stages.data[i];
    WarpGrid g = cg_warp_grid(s);
    int64_t all = g.blocks * g.threads / WARP * scratch_of(s);
    if (!g.shares && all > most) most = all;
  }
  return own + most;
}

/* ---- numbers of all threads ---------------------------------------------- */

LLVMTypeRef ll_i32(LlBody *e) {
  return LLVMInt32TypeInContext(e->c);
}

LLVMValueRef ll_word(LlBody *e, int64_t x) {
  return LLVMConstInt(ll_i32(e), (uint64_t)x, true);
}

LLVMValueRef ll_lane_part(LlBody *e, bool upper) {
  LLVMValueRef x = upper ? LLVMBuildLShr(e->b, e->lane, ll_word(e, 2), "")
                         : LLVMBuildAnd(e->b, e->lane, ll_word(e, 3), "");
  return LLVMBuildZExt(e->b, x, e->i64, "");
}

LLVMValueRef ll_add_c(LlBody *e, LLVMValueRef x, int64_t c) {
  return LLVMBuildAdd(e->b, x, ll_index_const(e, c), "");
}

LLVMValueRef ll_times_c(LlBody *e, LLVMValueRef x, int64_t c) {
  return LLVMBuildMul(e->b, x, ll_index_const(e, c), "");
}

/* ---- what threads hand each other ---------------------------------------- */

/* Accesses that a later one may have to wait for, a set each for scratch, the
 * workspace and arguments. ONE: by thread 0 alone. */
enum { LOADED = 1, STORED = 2, STORED_ONE = 4, PLACE_BITS = 3 };

static bool is_load(const KVal *k) {
  return k->kind == K_LOAD || k->kind == K_TAKE || k->kind == K_TILE_TAKE ||
         k->kind == K_TILE_PICK || k->kind == K_PANEL;
}

static bool is_store(const KVal *k) {
  return k->kind == K_STORE || k->kind == K_PUT || k->kind == K_TILE_STORE;
}

/* Whether all threads do it, each its part. */
static bool by_all(const KVal *store) {
  return store->kind == K_TILE_STORE || store->a[1]->lanes > 1;
}

static int place_of(const KVal *k) {
  return (int)k->base.kind * PLACE_BITS;
}

/* What the access is to those after it. Arguments are apart from each other but
 * where a result takes the place of one. */
static unsigned leaves(const LlBody *e, const KVal *k) {
  if (is_store(k))
    return (unsigned)(by_all(k) ? STORED : STORED_ONE) << place_of(k);
  if (!is_load(k)) return 0;
  bool counts = k->base.kind != KB_ARG || e->exchanged;
  return (counts ? (unsigned)LOADED : 0) << place_of(k);
}

/* What it must not overtake. */
static unsigned waits_for(const LlBody *e, const KVal *k) {
  unsigned set = STORED | STORED_ONE;
  if (is_load(k) && k->base.kind == KB_ARG && !e->exchanged) return 0;
  if (is_store(k)) set = LOADED | (by_all(k) ? STORED_ONE : STORED);
  return set << place_of(k);
}

static void wait(LlBody *e) {
  LLVMValueRef all = LLVMConstAllOnes(LLVMInt32TypeInContext(e->c));
  ll_call(e, "llvm.nvvm.bar.warp.sync", NULL, 0, &all, 1);
  e->dirty = 0;
}

static void before(LlBody *e, const KVal *k) {
  if (e->dirty & waits_for(e, k)) wait(e);
  e->dirty |= leaves(e, k);
}

static void enter(LlBody *e, const KBlock *b) {
  for (uint32_t i = 0; i < b->len; i++) {
    e->dirty |= leaves(e, b->data[i]);
    enter(e, &b->data[i]->body);
  }
}

/* Which arguments are loaded and stored, a bit each; the last for many. */
static void note_args(const KBlock *b, uint64_t *loaded, uint64_t *stored) {
  for (uint32_t i = 0; i < b->len; i++) {
    const KVal *k = b->data[i];
    int64_t number = k->base.number < 63 ? k->base.number : 63;
    if (is_load(k) && k->base.kind == KB_ARG) *loaded |= 1ull << number;
    if (is_store(k) && k->base.kind == KB_ARG) *stored |= 1ull << number;
    note_args(&k->body, loaded, stored);
  }
}

/* ---- memory -------------------------------------------------------------- */

static LLVMValueRef start_of(LlBody *e, const KBase *base) {
  switch (base->kind) {
  case KB_ARG: return e->args[base->number];
  case KB_SCRATCH: return e->scratch;
  case KB_WORKSPACE: return e->workspace;
  case KB_HELD: return e->held;
  }
  return NULL;
}

/* The largest power of two, at most 16, that divides the address of each
 * thread's lanes. */
static unsigned alignment(const LlBody *e, const KVal *k) {
  unsigned bytes = dtype_info[k->base.dtype].bytes;
  int lanes = k->kind == K_STORE   ? k->a[1]->lanes
              : k->kind == K_PANEL ? 0
                                   : k->lanes; /* 0: a tile */
  uint64_t at = (uint64_t)kb_divisor(k->a[0]) * bytes | 16;
  if (k->base.kind == KB_ARG)
    at |= e->kernel->aligned ? e->kernel->aligned[k->base.number] : bytes;
  else
    at |= (uint64_t)k->base.number;
  if (lanes > 1) at |= (uint64_t)ll_width(e, lanes) * bytes;
  return (unsigned)(at & -at);
}

/* Whether lane i of the thread's is among the first k->a[count]. */
static LLVMValueRef is_among(LlBody *e, LLVMValueRef count, int n, int i) {
  LLVMValueRef lane = LLVMBuildZExt(e->b, e->lane, e->i64, "");
  lane = LLVMBuildMul(e->b, lane, ll_index_const(e, n), "");
  lane = LLVMBuildAdd(e->b, lane, ll_index_const(e, i), "");
  return LLVMBuildICmp(e->b, LLVMIntSLT, lane, count, "");
}

static LLVMValueRef nth(LlBody *e, LLVMValueRef at, Dtype dtype, int i) {
  LLVMValueRef index = ll_index_const(e, i);
  LLVMTypeRef t = ll_memory_type(e, dtype, 1);
  return LLVMBuildInBoundsGEP2(e->b, t, at, &index, 1, "");
}

/* The loads are under conditions: memory is not touched where there is none. */
static LLVMValueRef load_some(LlBody *e, const KVal *k, LLVMValueRef at) {
  int n = ll_width(e, k->lanes);
  LLVMTypeRef t = ll_memory_type(e, k->dtype, 1);
  LLVMValueRef count = ll_value(e, k->a[1]), v = NULL;
  v = LLVMGetPoison(ll_memory_type(e, k->dtype, n));
  for (int i = 0; i < n; i++) {
    LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(e->b), NULL};
    LLVMBasicBlockRef after = ll_if(e, is_among(e, count, n, i));
    LLVMValueRef p = nth(e, at, k->dtype, i);
    LLVMValueRef in[2] = {LLVMConstNull(t), LLVMBuildLoad2(e->b, t, p, "")};
    LLVMSetAlignment(in[1], dtype_info[k->dtype].bytes);
    from[1] = LLVMGetInsertBlock(e->b);
    ll_end_if(e, after);
    LLVMValueRef x = LLVMBuildPhi(e->b, t, "");
    LLVMAddIncoming(x, in, from, 2);
    v = n > 1 ? LLVMBuildInsertElement(e->b, v, x, ll_word(e, i), "") : x;
  }
  return ll_from_memory(e, k->dtype, v);
}

static void store_some(LlBody *e, const KVal *k, LLVMValueRef v,
                       LLVMValueRef at) {
  Dtype dtype = k->a[1]->dtype;
  int n = ll_width(e, k->a[1]->lanes);
  LLVMValueRef count = ll_value(e, k->a[2]);
  v = ll_to_memory(e, dtype, n, v);
  for (int i = 0; i < n; i++) {
    LLVMBasicBlockRef after = ll_if(e, is_among(e, count, n, i));
    LLVMValueRef x = v;
    if (n > 1) x = LLVMBuildExtractElement(e->b, v, ll_word(e, i), "");
    LLVMValueRef s = LLVMBuildStore(e->b, x, nth(e, at, dtype, i));
    LLVMSetAlignment(s, dtype_info[dtype].bytes);
    ll_end_if(e, after);
  }
}

static LLVMValueRef gather(LlBody *e, const KVal *k) {
  LLVMValueRef base = ll_address(e, &k->base, ll_value(e, k->a[0]));
  return ll_gather_each(e, k, base, ll_value(e, k->a[1]));
}

/* ---- across lanes -------------------------------------------------------- */

/* Words of 32 bits by a shuffle of the warp. */
static LLVMValueRef shuffle_word(LlBody *e, const char *way, LLVMValueRef word,
                                 int n) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMValueRef a[4] = {LLVMConstAllOnes(i32), word, ll_word(e, n),
                       ll_word(e, WARP - 1)};
  return ll_call(e, way, NULL, 0, a, 4);
}

static LLVMValueRef shuffle_element(LlBody *e, const char *way, LLVMValueRef x,
                                    int n) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c), t = LLVMTypeOf(x);
  LLVMTypeKind kind = LLVMGetTypeKind(t);
  if (kind == LLVMDoubleTypeKind) {
    LLVMTypeRef two = LLVMVectorType(i32, 2);
    LLVMValueRef words = LLVMBuildBitCast(e->b, x, two, "");
    for (int i = 0; i < 2; i++) {
      LLVMValueRef lane = ll_word(e, i);
      LLVMValueRef w = LLVMBuildExtractElement(e->b, words, lane, "");
      w = shuffle_word(e, way, w, n);
      words = LLVMBuildInsertElement(e->b, words, w, lane, "");
    }
    return LLVMBuildBitCast(e->b, words, t, "");
  }
  if (kind == LLVMFloatTypeKind) {
    x = shuffle_word(e, way, LLVMBuildBitCast(e->b, x, i32, ""), n);
    return LLVMBuildBitCast(e->b, x, t, "");
  }
  x = LLVMBuildZExtOrBitCast(e->b, x, i32, "");
  return LLVMBuildTruncOrBitCast(e->b, shuffle_word(e, way, x, n), t, "");
}

static LLVMValueRef shuffle(LlBody *e, const char *way, LLVMValueRef v,
                            int width, int n) {
  if (width == 1) return shuffle_element(e, way, v, n);
  LLVMValueRef out = LLVMGetPoison(LLVMTypeOf(v));
  for (int i = 0; i < width; i++) {
    LLVMValueRef lane = ll_word(e, i);
    LLVMValueRef x = LLVMBuildExtractElement(e->b, v, lane, "");
    x = shuffle_element(e, way, x, n);
    out = LLVMBuildInsertElement(e->b, out, x, lane, "");
  }
  return out;
}

/* Lane i with lane i + half, which is another thread's until one thread has all
 * that is left; thread 0's result is everyone's. */
static LLVMValueRef fold(LlBody *e, const KVal *k) {
  int width = ll_width(e, k->a[0]->lanes);
  LLVMValueRef v = ll_value(e, k->a[0]);
  for (int n = WARP / 2; n >= 1; n /= 2) {
    LLVMValueRef half[2] = {
        v, shuffle(e, "llvm.nvvm.shfl.sync.down.i32", v, width, n)};
    v = cg_llvm_scalar(e->b, k->op, k->dtype, k->dtype, half);
  }
  LLVMValueRef x[64] = {v};
  assert(width <= (int)COUNT_OF(x));
  for (int i = 0; width > 1 && i < width; i++)
    x[i] = LLVMBuildExtractElement(e->b, v, ll_word(e, i), "");
  for (int n = width / 2; n >= 1; n /= 2)
    for (int i = 0; i < n; i++) {
      LLVMValueRef half[2] = {x[i], x[i + n]};
      x[i] = cg_llvm_scalar(e->b, k->op, k->dtype, k->dtype, half);
    }
  return shuffle_element(e, "llvm.nvvm.shfl.sync.idx.i32", x[0], 0);
}

/* ---- tiles ----------------------------------------------------------------
 *
 * A tile is eight words of each thread, as mma.m16n8k16 wants its operands:
 * with g = lane / 4 and t = lane % 4, word q of an operand's half h of 16 deep
 * is the pair of row g + 8 (q % 2) at depth 16 h + 2 t + 8 (q / 2), for a right
 * operand that of column g + 8 h' at depth 16 h + 2 t + 8 q; and word q of half
 * h of a sum's columns is row g + 8 (q / 2), column 8 h + 2 t + q % 2. */

enum { TILES = 24, WORDS = 8 };

void ll_warp_tiles(LlBody *e, Arena *a) {
  e->tiles = NEW_ARRAY(a, LLVMValueRef, TILES * WORDS);
  for (int i = 0; i < TILES * WORDS; i++)
    e->tiles[i] = LLVMBuildAlloca(e->b, LLVMInt32TypeInContext(e->c), "");
}

static LLVMValueRef *word_of(LlBody *e, int64_t tile, int i) {
  assert(tile >= 0 && tile < TILES);
  return &e->tiles[tile * WORDS + i];
}

static LLVMValueRef load_word(LlBody *e, int64_t tile, int i) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  return LLVMBuildLoad2(e->b, i32, *word_of(e, tile, i), "");
}

static LLVMValueRef load_real(LlBody *e, int64_t tile, int i) {
  LLVMTypeRef f32 = LLVMFloatTypeInContext(e->c);
  return LLVMBuildBitCast(e->b, load_word(e, tile, i), f32, "");
}

/* One element, or 0 past the depth, as the lower half of a word. */
static LLVMValueRef take_element(LlBody *e, const KVal *k, LLVMValueRef at,
                                 LLVMValueRef depth) {
  LLVMTypeRef i16 = LLVMInt16TypeInContext(e->c);
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  bool whole = k->a[2]->kind == K_INDEX && k->a[2]->number >= WARP;
  LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(e->b), NULL}, after = NULL;
  if (!whole)
    after = ll_if(e, LLVMBuildICmp(e->b, LLVMIntSLT, depth,
                                   ll_value(e, k->a[2]), ""));
  at = LLVMBuildAdd(e->b, at, ll_times_c(e, depth, k->a[4]->number), "");
  LLVMValueRef x =
      LLVMBuildLoad2(e->b, i16, ll_address(e, &k->base, at), "");
  if (after) {
    LLVMValueRef in[2] = {LLVMConstNull(i16), x};
    from[1] = LLVMGetInsertBlock(e->b);
    ll_end_if(e, after);
    x = LLVMBuildPhi(e->b, i16, "");
    LLVMAddIncoming(x, in, from, 2);
  }
  return LLVMBuildZExt(e->b, x, i32, "");
}

/* Whether two that follow each other in depth are one aligned word. */
static bool takes_words(const LlBody *e, const KVal *k) {
  return k->a[4]->number == 1 && k->a[3]->number % 2 == 0 &&
         k->a[2]->kind == K_INDEX && k->a[2]->number >= WARP &&
         alignment(e, k) >= 4;
}

/* The pair of row `row` from `depth` on. */
static LLVMValueRef take_pair(LlBody *e, const KVal *k, LLVMValueRef row,
                              LLVMValueRef depth) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  const KVal *last = k->a[1];
  if (last->kind != K_INDEX || last->number < 15) {
    LLVMValueRef end = ll_value(e, last);
    LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, row, end, "");
    row = LLVMBuildSelect(e->b, less, row, end, "");
  }
  LLVMValueRef at = ll_times_c(e, row, k->a[3]->number);
  at = LLVMBuildAdd(e->b, ll_value(e, k->a[0]), at, "");
  if (takes_words(e, k)) {
    at = LLVMBuildAdd(e->b, at, depth, "");
    LLVMValueRef x =
        LLVMBuildLoad2(e->b, i32, ll_address(e, &k->base, at), "");
    LLVMSetAlignment(x, 4);
    return x;
  }
  LLVMValueRef lower = take_element(e, k, at, depth);
  LLVMValueRef upper = take_element(e, k, at, ll_add_c(e, depth, 1));
  upper = LLVMBuildShl(e->b, upper, ll_word(e, 16), "");
  return LLVMBuildOr(e->b, lower, upper, "");
}

LLVMValueRef *ll_tile_words(LlBody *e, int64_t tile) {
  return word_of(e, tile, 0);
}

static void tile_take(LlBody *e, const KVal *k) {
  LLVMValueRef g = ll_lane_part(e, true);
  LLVMValueRef t = ll_times_c(e, ll_lane_part(e, false), 2);
  for (int i = 0; i < WORDS; i++) {
    int half = i / 4, q = i % 4;
    int row = k->value != 0 ? 8 * half : 8 * (q % 2);
    int depth = k->value != 0 ? 16 * (q / 2) + 8 * (q % 2)
                              : 16 * half + 8 * (q / 2);
    LLVMValueRef x =
        take_pair(e, k, ll_add_c(e, g, row), ll_add_c(e, t, depth));
    LLVMBuildStore(e->b, x, *word_of(e, k->number, i));
  }
}

static void tile_pick(LlBody *e, const KVal *k) {
  LLVMValueRef words[WORDS];
  ll_tile_pick(e, k, words);
  for (int i = 0; i < WORDS; i++)
    LLVMBuildStore(e->b, words[i], *word_of(e, k->number, i));
}

/* Both halves of the columns, from each half of the depth; four bytes of it are
 * two of bf16 or one of tf32. */
static void tile_dot(LlBody *e, const KVal *k) {
  const char *mma = k->dtype == DT_f32 ? "llvm.nvvm.mma.m16n8k8.row.col.tf32"
                                       : "llvm.nvvm.mma.m16n8k16.row.col.bf16";
  int64_t left = k->a[0]->number, right = k->a[1]->number;
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  for (int i = 0; i < 4; i++) {
    int half = i / 2, deep = i % 2;
    LLVMValueRef a[10];
    for (int q = 0; q < 4; q++) {
      a[q] = load_word(e, left, 4 * deep + q);
      a[6 + q] = load_real(e, k->number, 4 * half + q);
    }
    for (int q = 0; q < 2; q++)
      a[4 + q] = load_word(e, right, 4 * half + 2 * deep + q);
    LLVMValueRef sums = ll_call(e, mma, NULL, 0, a, 10);
    for (unsigned q = 0; q < 4; q++) {
      LLVMValueRef x = LLVMBuildExtractValue(e->b, sums, q, "");
      x = LLVMBuildBitCast(e->b, x, i32, "");
      LLVMBuildStore(e->b, x, *word_of(e, k->number, 4 * half + (int)q));
    }
  }
}

static void tile_store(LlBody *e, const KVal *k) {
  LLVMValueRef g = ll_lane_part(e, true);
  LLVMValueRef t = ll_times_c(e, ll_lane_part(e, false), 2);
  for (int i = 0; i < WORDS; i++) {
    int half = i / 4, q = i % 4;
    LLVMValueRef at = ll_add_c(e, g, 8 * (q / 2));
    at = ll_times_c(e, at, k->a[1]->number);
    at = LLVMBuildAdd(e->b, at, ll_add_c(e, t, 8 * half + q % 2), "");
    at = LLVMBuildAdd(e->b, at, ll_value(e, k->a[0]), "");
    LLVMValueRef s = LLVMBuildStore(e->b, load_real(e, k->number, i),
                                    ll_address(e, &k->base, at));
    LLVMSetAlignment(s, dtype_info[k->base.dtype].bytes);
  }
}

static void tile_zero(LlBody *e, const KVal *k) {
  for (int i = 0; i < WORDS; i++)
    LLVMBuildStore(e->b, ll_word(e, 0), *word_of(e, k->number, i));
}

static LLVMValueRef special(LlBody *e, const KVal *k) {
  switch ((int)k->kind) {
  case K_PAUSE: wait(e); return NULL;
  case K_TAKE:
  case K_PUT: before(e, k); return ll_fragment(e, k);
  case K_MMA:
  case K_PLACES:
  case K_AHEAD:
  case K_PAIRS:
  case K_JOIN:
  case K_ROW_FOLD:
  case K_BY_ROW: return ll_fragment(e, k);
  case K_TILE_ZERO: tile_zero(e, k); return NULL;
  case K_TILE_TAKE: before(e, k); tile_take(e, k); return NULL;
  case K_TILE_DOT:
    (k->dtype == DT_f32 && k->value == 0 ? ll_real_dot : tile_dot)(e, k);
    return NULL;
  case K_TILE_STORE: before(e, k); tile_store(e, k); return NULL;
  case K_TILE_PICK:
    before(e, k);
    (k->dtype != DT_f32 ? tile_pick
     : k->a[2]          ? ll_real_pick
                        : ll_tf32_pick)(e, k);
    return NULL;
  case K_WARP: return e->warp;
  case K_PANEL: before(e, k); return ll_team(e, k);
  case K_PANEL_ROWS:
  case K_BATCH: return ll_team(e, k);
  case K_GROUP_DOT:
  case K_GROUP_WAIT:
  case K_GATES:
  case K_BOX:
  case K_GATE_WAIT: return ll_group(e, k);
  case K_MEET: e->dirty = 0; return ll_team(e, k);
  }
  internal_error("statement %d is not for warps", (int)k->kind);
}

/* ---- stages -------------------------------------------------------------- */

static LLVMValueRef read_register(LlBody *e, const char *name) {
  return ll_call(e, name, NULL, 0, NULL, 0);
}

/* Says how many threads there are, for ptxas to share out registers, and that
 * one block of them at a time is enough: it would rather have room for more
 * than keep all values in registers. */
void ll_warp_threads(LlBody *e, int threads) {
  LLVMMetadataRef f[5] = {
      LLVMValueAsMetadata(e->fn), LLVMMDStringInContext2(e->c, "maxntidx", 8),
      LLVMValueAsMetadata(ll_word(e, threads)),
      LLVMMDStringInContext2(e->c, "minctasm", 8),
      LLVMValueAsMetadata(ll_word(e, 1))};
  LLVMMetadataRef node = LLVMMDNodeInContext2(e->c, f, 5);
  LLVMAddNamedMetadataOperand(e->m, "nvvm.annotations",
                              LLVMMetadataAsValue(e->c, node));
}

/* Maps are parameters by value, which stay where they are. */
static void declare_maps(LlBody *e, unsigned first, unsigned n) {
  enum { BYTES = 128, ALIGNED = 64 };
  Arena a = {0};
  LLVMTypeRef map = LLVMArrayType2(LLVMInt8TypeInContext(e->c), BYTES);
  unsigned byval = LLVMGetEnumAttributeKindForName("byval", 5);
  unsigned align = LLVMGetEnumAttributeKindForName("align", 5);
  LLVMMetadataRef *numbers = NEW_ARRAY(&a, LLVMMetadataRef, n);
  for (unsigned i = 0; i < n; i++) {
    LLVMAttributeIndex at = first + i + 1;
    LLVMAddAttributeAtIndex(e->fn, at,
                            LLVMCreateTypeAttribute(e->c, byval, map));
    LLVMAddAttributeAtIndex(e->fn, at,
                            LLVMCreateEnumAttribute(e->c, align, ALIGNED));
    numbers[i] = LLVMValueAsMetadata(ll_word(e, at));
  }
  LLVMMetadataRef f[3] = {LLVMValueAsMetadata(e->fn),
                          LLVMMDStringInContext2(e->c, "grid_constant", 13),
                          LLVMMDNodeInContext2(e->c, numbers, n)};
  LLVMMetadataRef node = LLVMMDNodeInContext2(e->c, f, 3);
  if (n)
    LLVMAddNamedMetadataOperand(e->m, "nvvm.annotations",
                                LLVMMetadataAsValue(e->c, node));
  arena_reset(&a);
}

static void declare(LlBody *e, const Kernel *k, const KStage *s,
                    const char *name) {
  Arena a = {0};
  unsigned n = (unsigned)k->n_args + 1, maps = s->maps.len;
  LLVMTypeRef *params = NEW_ARRAY(&a, LLVMTypeRef, n + maps);
  for (unsigned i = 0; i < n + maps; i++)
    params[i] = LLVMPointerTypeInContext(e->c, i < n ? 1 : 0);
  LLVMTypeRef type =
      LLVMFunctionType(LLVMVoidTypeInContext(e->c), params, n + maps, false);
  e->fn = LLVMAddFunction(e->m, name, type);
  LLVMSetFunctionCallConv(e->fn, LL_PTX_KERNEL);
  unsigned noalias = LLVMGetEnumAttributeKindForName("noalias", 7);
  LLVMAddAttributeAtIndex(e->fn, n,
                          LLVMCreateEnumAttribute(e->c, noalias, 0));
  declare_maps(e, n, maps);
  arena_reset(&a);
}

LLVMValueRef ll_shared_memory(LlBody *e, unsigned alignment) {
  LLVMValueRef g = LLVMGetNamedGlobal(e->m, "shared_memory");
  LLVMTypeRef bytes = LLVMArrayType2(LLVMInt8TypeInContext(e->c), 0);
  if (!g) {
    g = LLVMAddGlobalInAddressSpace(e->m, bytes, "shared_memory", 3);
    LLVMSetLinkage(g, LLVMExternalLinkage);
  }
  if (LLVMGetAlignment(g) < alignment) LLVMSetAlignment(g, alignment);
  return g;
}

/* Where warp number `of_block` of the block's, `of_all` of the grid's, has its
 * scratch. */
static void find_scratch(LlBody *e, const KStage *s, const WarpGrid *g,
                         LLVMValueRef of_block, LLVMValueRef of_all) {
  LLVMTypeRef byte = LLVMInt8TypeInContext(e->c);
  LLVMValueRef start = NULL, at = of_block;
  if (!s->scratch_bytes) return;
  if (s->team) at = ll_index_const(e, 0);
  if (g->shares) {
    LLVMValueRef behind = ll_index_const(e, e->held_bytes);
    start = ll_shared_memory(e, s->needs & KN_GROUPS ? GROUP_LINE : 16);
    start = LLVMBuildInBoundsGEP2(e->b, byte, start, &behind, 1, "");
  } else {
    int64_t own = round_up(e->kernel->workspace_bytes, LINE);
    LLVMValueRef skip = ll_index_const(e, own);
    start = LLVMBuildInBoundsGEP2(e->b, byte, e->workspace, &skip, 1, "");
    at = of_all;
  }
  at = LLVMBuildMul(e->b, at, ll_index_const(e, scratch_of(s)), "");
  e->scratch = LLVMBuildInBoundsGEP2(e->b, byte, start, &at, 1, "");
}

/* This thread's lane and this warp's, or its team's, number among all. */
static LLVMValueRef find_warp(LlBody *e, const KStage *s, const WarpGrid *g) {
  LLVMValueRef thread = read_register(e, "llvm.nvvm.read.ptx.sreg.tid.x");
  LLVMValueRef block = read_register(e, "llvm.nvvm.read.ptx.sreg.ctaid.x");
  e->lane = LLVMBuildAnd(e->b, thread, ll_word(e, WARP - 1), "");
  e->first =
      LLVMBuildICmp(e->b, LLVMIntEQ, e->lane, ll_word(e, 0), "");
  LLVMValueRef warp = LLVMBuildLShr(e->b, thread, ll_word(e, 5), "");
  warp = e->warp = LLVMBuildZExt(e->b, warp, e->i64, "");
  block = LLVMBuildZExt(e->b, block, e->i64, "");
  LLVMValueRef all =
      LLVMBuildMul(e->b, block, ll_index_const(e, g->threads / WARP), "");
  all = LLVMBuildAdd(e->b, all, warp, "");
  find_scratch(e, s, g, warp, all);
  return s->team ? block : all;
}

/* Items that are worked on at the same time. */
static int64_t takers(const KStage *s, const WarpGrid *g) {
  return s->team ? g->blocks : g->blocks * g->threads / WARP;
}

void ll_warp_items(LlBody *e, const Kernel *k, const KStage *s,
                   const WarpGrid *g) {
  uint64_t loaded = 0, stored = 0;
  e->team = s->team;
  LlLoop l = ll_loop_open(e, find_warp(e, s, g));
  e->item = l.iv;
  ll_loop_test(e, &l, ll_index_const(e, s->count));
  note_args(&s->body, &loaded, &stored);
  e->exchanged = k->in_place || (loaded & stored);
  e->dirty = 0;
  if (takers(s, g) < s->count) enter(e, &s->body);
  ll_block(e, &s->body);
  ll_loop_close(e, &l, takers(s, g));
}

static LLVMValueRef stage(LlBody *e, const Target *t, const Kernel *k,
                          const KStage *s, const char *name) {
  (void)t;
  Arena a = {0};
  WarpGrid g = cg_warp_grid(s);
  declare(e, k, s, name);
  e->stage = s;
  ll_warp_threads(e, g.threads);
  LLVMPositionBuilderAtEnd(e->b, ll_new_block(e, "entry"));
  for (int i = 0; i < k->n_args; i++)
    e->args[i] = LLVMGetParam(e->fn, (unsigned)i);
  e->workspace = LLVMGetParam(e->fn, (unsigned)k->n_args);
  if (s->needs & KN_TILES) ll_warp_tiles(e, &a);
  ll_warp_items(e, k, s, &g);
  LLVMBuildRetVoid(e->b);
  arena_reset(&a);
  return e->fn;
}

const LlWays ll_warp = {.threads = WARP,
                        .stage = stage,
                        .start_of = start_of,
                        .alignment = alignment,
                        .load_some = load_some,
                        .store_some = store_some,
                        .gather = gather,
                        .fold = fold,
                        .special = special,
                        .before = before,
                        .enter = enter};
