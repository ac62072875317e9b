/* llvm_x86.c: what is x86's own in the code of a stage.
 *
 * A stage becomes one internal function of type MoertBody: a loop over the
 * chunk's items around the stage's body. Vectors are LLVM's, each in one
 * thread. Functions carry `no-builtins`, so that no loop turns into a call of
 * memset: the library links to nothing. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <string.h>

enum { P_ARGS, P_LO, P_HI, P_SCRATCH, P_WORKSPACE, P_COUNT, P_KEYS = P_COUNT };

/* ---- functions ---------------------------------------------------------- */

static void add_attribute(LlBody *e, LLVMAttributeIndex at, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(e->fn, at, LLVMCreateEnumAttribute(e->c, kind, 0));
}

static void add_text_attribute(LlBody *e, const char *name, const char *value) {
  LLVMAttributeRef a = LLVMCreateStringAttribute(
      e->c, name, (unsigned)strlen(name), value, (unsigned)strlen(value));
  LLVMAddAttributeAtIndex(e->fn, LLVMAttributeFunctionIndex, a);
}

static LLVMValueRef add_function(LlBody *e, const char *name, bool keyed) {
  LLVMTypeRef params[P_COUNT + 1] = {e->ptr, e->i64, e->i64,
                                     e->ptr, e->ptr, e->ptr};
  LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(e->c), params,
                                      P_COUNT + keyed, false);
  LLVMValueRef fn = LLVMAddFunction(e->m, name, type);
  LLVMSetLinkage(fn, LLVMInternalLinkage);
  return fn;
}

static void declare(LlBody *e, const Target *t, const char *name, bool keyed) {
  char width[16];
  e->fn = add_function(e, name, keyed);
  snprintf(width, sizeof width, "%d", t->isa.lanes * 32);
  add_text_attribute(e, "prefer-vector-width", width);
  add_text_attribute(e, "no-builtins", "");
  add_attribute(e, LLVMAttributeFunctionIndex, "nounwind");
  /* Arguments may be one buffer (in place), the rest is each its own. */
  add_attribute(e, P_ARGS + 1, "noalias");
  add_attribute(e, P_SCRATCH + 1, "noalias");
  add_attribute(e, P_WORKSPACE + 1, "noalias");
}

/* Instructions that this function may use and others may not. */
static void add_features(LlBody *e, unsigned needs) {
  char text[128] = "";
  for (size_t i = 0; i < COUNT_OF(cg_needs); i++)
    if (needs & cg_needs[i].bits)
      snprintf(text + strlen(text), sizeof text - strlen(text), "%s+%s",
               text[0] ? "," : "", cg_needs[i].feature);
  if (text[0]) add_text_attribute(e, "target-features", text);
}

static void load_args(LlBody *e, int n_args) {
  for (int i = 0; i < n_args; i++) {
    LLVMValueRef at = ll_index_const(e, i);
    LLVMValueRef p =
        LLVMBuildGEP2(e->b, e->ptr, LLVMGetParam(e->fn, P_ARGS), &at, 1, "");
    e->args[i] = LLVMBuildLoad2(e->b, e->ptr, p, "");
  }
}

/* Keys in their places, each in all its lanes. */
static void load_keys(LlBody *e, const Kernel *k) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  for (uint32_t i = 0; i < k->keys.len; i++) {
    const KVal *key = k->keys.data[i];
    LLVMValueRef at = ll_index_const(e, i);
    LLVMValueRef p =
        LLVMBuildGEP2(e->b, i32, LLVMGetParam(e->fn, P_KEYS), &at, 1, "");
    LLVMValueRef x = LLVMBuildLoad2(e->b, i32, p, "");
    e->keys[key->id] = key->lanes > 1 ? ll_splat(e, x, key->lanes) : x;
  }
}

/* ---- memory -------------------------------------------------------------- */

static LLVMValueRef start_of(LlBody *e, const KBase *base) {
  switch (base->kind) {
  case KB_ARG: return e->args[base->number];
  case KB_SCRATCH: return LLVMGetParam(e->fn, P_SCRATCH);
  case KB_WORKSPACE: return LLVMGetParam(e->fn, P_WORKSPACE);
  case KB_HELD: break; /* of GPUs alone */
  }
  return NULL;
}

static unsigned alignment(const LlBody *e, const KVal *k) {
  (void)e;
  unsigned bytes = dtype_info[k->base.dtype].bytes;
  return k->kind == K_STORE && k->value != 0 ? bytes * k->a[1]->lanes : bytes;
}

static LLVMValueRef gather(LlBody *e, const KVal *k) {
  LLVMValueRef base = ll_address(e, &k->base, ll_value(e, k->a[0]));
  LLVMValueRef offsets = ll_value(e, k->a[1]);
  unsigned bytes = dtype_info[k->dtype].bytes, lanes = k->lanes;
  if (bytes < 4) return ll_gather_each(e, k, base, offsets);
  LLVMTypeRef type = cg_llvm_type(e->c, k->dtype, k->lanes);
  LLVMValueRef at = LLVMBuildInBoundsGEP2(e->b, ll_memory_type(e, k->dtype, 1),
                                          base, &offsets, 1, "");
  LLVMTypeRef types[2] = {type, LLVMTypeOf(at)};
  static const char name[] = "llvm.masked.gather";
  unsigned id = LLVMLookupIntrinsicID(name, sizeof name - 1);
  LLVMValueRef f = LLVMGetIntrinsicDeclaration(e->m, id, types, 2);
  LLVMTypeRef i1s = LLVMVectorType(LLVMInt1TypeInContext(e->c), lanes);
  LLVMValueRef a[4] = {at,
                       LLVMConstInt(LLVMInt32TypeInContext(e->c), bytes, false),
                       LLVMConstAllOnes(i1s), LLVMGetPoison(type)};
  return LLVMBuildCall2(e->b, LLVMGlobalGetValueType(f), f, a, 4, "");
}

/* Lanes of `dtype` as integers of its bytes: what every target moves. */
static LLVMTypeRef plain_type(LlBody *e, Dtype dtype, int lanes) {
  return LLVMVectorType(LLVMIntTypeInContext(e->c, 8 * dtype_info[dtype].bytes),
                        (unsigned)lanes);
}

/* Which lanes are the first `count`. */
static LLVMValueRef first_lanes(LlBody *e, LLVMValueRef count,
                                LLVMTypeRef lanes) {
  LLVMTypeRef element = LLVMGetElementType(lanes);
  LLVMValueRef ramp[128];
  unsigned n = LLVMGetVectorSize(lanes);
  assert(n <= COUNT_OF(ramp));
  for (unsigned i = 0; i < n; i++)
    ramp[i] = LLVMConstInt(element, i, false);
  count = ll_splat(e, LLVMBuildTrunc(e->b, count, element, ""), (int)n);
  return LLVMBuildICmp(e->b, LLVMIntSLT, LLVMConstVector(ramp, n), count, "");
}

static LLVMValueRef load_some(LlBody *e, const KVal *k, LLVMValueRef p) {
  LLVMTypeRef types[2] = {plain_type(e, k->dtype, k->lanes), e->ptr};
  LLVMValueRef align = LLVMConstInt(LLVMInt32TypeInContext(e->c),
                                    dtype_info[k->dtype].bytes, false);
  LLVMValueRef a[4] = {p, align,
                       first_lanes(e, ll_value(e, k->a[1]), types[0]),
                       LLVMConstNull(types[0])};
  LLVMValueRef v = ll_call(e, "llvm.masked.load", types, 2, a, 4);
  if (dtype_info[k->dtype].kind == DK_BOOL)
    return ll_from_memory(e, k->dtype, v);
  return LLVMBuildBitCast(e->b, v, cg_llvm_type(e->c, k->dtype, k->lanes), "");
}

static void store_some(LlBody *e, const KVal *k, LLVMValueRef v,
                       LLVMValueRef p) {
  LLVMTypeRef types[2] = {plain_type(e, k->dtype, k->lanes), e->ptr};
  LLVMValueRef align = LLVMConstInt(LLVMInt32TypeInContext(e->c),
                                    dtype_info[k->dtype].bytes, false);
  LLVMValueRef plain = dtype_info[k->dtype].kind == DK_BOOL
                           ? LLVMBuildZExt(e->b, v, types[0], "")
                           : LLVMBuildBitCast(e->b, v, types[0], "");
  LLVMValueRef a[4] = {plain, p, align,
                       first_lanes(e, ll_value(e, k->a[2]), types[0])};
  ll_call(e, "llvm.masked.store", types, 2, a, 4);
}

/* To be read, kept in all caches or all but the first, data. */
static void fetch(LlBody *e, const KVal *k) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMTypeRef t = ll_memory_type(e, k->base.dtype, 1);
  LLVMValueRef at = ll_value(e, k->a[0]), p = ll_start_of(e, &k->base);
  LLVMValueRef a[4] = {LLVMBuildGEP2(e->b, t, p, &at, 1, ""),
                       LLVMConstInt(i32, 0, false),
                       LLVMConstInt(i32, k->value != 0 ? 2 : 3, false),
                       LLVMConstInt(i32, 1, false)};
  ll_call(e, "llvm.prefetch", &e->ptr, 1, a, 4);
}

/* A store past the caches. */
static void mark_store(LlBody *e, const KVal *k, LLVMValueRef store) {
  if (k->value == 0) return;
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMMetadataRef one = LLVMValueAsMetadata(LLVMConstInt(i32, 1, false));
  LLVMMetadataRef list = LLVMMDNodeInContext2(e->c, &one, 1);
  LLVMSetMetadata(store, LLVMGetMDKindIDInContext(e->c, "nontemporal", 11),
                  LLVMMetadataAsValue(e->c, list));
}

/* ---- across lanes -------------------------------------------------------- */

/* Pairwise: the lower half with the upper half until one is left. */
static LLVMValueRef fold(LlBody *e, const KVal *k) {
  LLVMValueRef v = ll_value(e, k->a[0]);
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  for (int n = k->a[0]->lanes / 2; n >= 1; n /= 2) {
    LLVMValueRef half[2], pick[128];
    for (int side = 0; side < 2; side++) {
      for (int i = 0; i < n; i++)
        pick[i] = LLVMConstInt(i32, (uint64_t)(side * n + i), false);
      half[side] =
          n == 1
              ? LLVMBuildExtractElement(e->b, v, pick[0], "")
              : LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(LLVMTypeOf(v)),
                                       LLVMConstVector(pick, (unsigned)n), "");
    }
    v = cg_llvm_scalar(e->b, k->op, k->dtype, k->dtype, half);
  }
  return v;
}

/* ---- pairs and tiles ----------------------------------------------------- */

/* As lanes of integers as wide as a group. */
static LLVMValueRef zip(LlBody *e, const KVal *k) {
  int group = (int)k->number, n = k->lanes / group, half = n / 2;
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMTypeRef wide = LLVMIntTypeInContext(e->c, (unsigned)group * 8 *
                                                    dtype_info[k->dtype].bytes);
  wide = LLVMVectorType(wide, (unsigned)n);
  LLVMValueRef pick[128], side[2];
  assert(n <= (int)COUNT_OF(pick));
  for (int i = 0; i < n; i++) {
    int at = (k->value != 0 ? half : 0) + i / 2 + (i % 2 ? n : 0);
    pick[i] = LLVMConstInt(i32, (uint64_t)at, false);
  }
  for (int i = 0; i < 2; i++)
    side[i] = LLVMBuildBitCast(e->b, ll_value(e, k->a[i]), wide, "");
  LLVMValueRef v = LLVMBuildShuffleVector(
      e->b, side[0], side[1], LLVMConstVector(pick, (unsigned)n), "");
  return LLVMBuildBitCast(e->b, v, cg_llvm_type(e->c, k->dtype, k->lanes), "");
}

static LLVMValueRef dot(LlBody *e, const KVal *k) {
  assert(k->lanes == 16);
  LLVMTypeRef pairs =
      LLVMVectorType(LLVMBFloatTypeInContext(e->c), 2 * (unsigned)k->lanes);
  LLVMValueRef a[3] = {ll_value(e, k->a[0]),
                       LLVMBuildBitCast(e->b, ll_value(e, k->a[1]), pairs, ""),
                       LLVMBuildBitCast(e->b, ll_value(e, k->a[2]), pairs, "")};
  return ll_call(e, "llvm.x86.avx512bf16.dpbf16ps.512", NULL, 0, a, 3);
}

/* Lanes [from, from + n) of a vector. */
static LLVMValueRef part(LlBody *e, LLVMValueRef v, int from, int n) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMValueRef pick[16];
  assert(n <= (int)COUNT_OF(pick));
  for (int i = 0; i < n; i++)
    pick[i] = LLVMConstInt(i32, (uint64_t)(from + i), false);
  return LLVMBuildShuffleVector(e->b, v, LLVMGetUndef(LLVMTypeOf(v)),
                                LLVMConstVector(pick, (unsigned)n), "");
}

static LLVMValueRef narrow(LlBody *e, const KVal *k) {
  int half = k->lanes / 2;
  LLVMValueRef x = ll_value(e, k->a[0]);
  LLVMValueRef a[2] = {part(e, x, half, half), part(e, x, 0, half)};
  return ll_call(e, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", NULL, 0, a, 2);
}

static LLVMValueRef tile_number(LlBody *e, int64_t number) {
  assert(number >= 0 && number < 8);
  return LLVMConstInt(LLVMInt8TypeInContext(e->c), (uint64_t)number, false);
}

static void tile_zero(LlBody *e, const KVal *k) {
  LLVMValueRef a[1] = {tile_number(e, k->number)};
  ll_call(e, "llvm.x86.tilezero", NULL, 0, a, 1);
}

static void tile_move(LlBody *e, const KVal *k, const char *name) {
  int64_t step = k->a[1]->number * dtype_info[k->base.dtype].bytes;
  LLVMValueRef a[3] = {tile_number(e, k->number),
                       ll_address(e, &k->base, ll_value(e, k->a[0])),
                       ll_index_const(e, step)};
  ll_call(e, name, NULL, 0, a, 3);
}

static void tile_dot(LlBody *e, const KVal *k) {
  LLVMValueRef a[3] = {tile_number(e, k->number),
                       tile_number(e, k->a[0]->number),
                       tile_number(e, k->a[1]->number)};
  ll_call(e, "llvm.x86.tdpbf16ps", NULL, 0, a, 3);
}

/* Makes all eight tiles 16 rows of 64 bytes, for the rest of the function. */
static void tiles_open(LlBody *e) {
  enum { CONFIG_BYTES = 64, COLUMN_BYTES = 16, ROWS = 48, TILES = 8 };
  char config[CONFIG_BYTES] = {1}; /* the palette */
  for (int i = 0; i < TILES; i++) {
    config[COLUMN_BYTES + 2 * i] = 64; /* two bytes each, the lower first */
    config[ROWS + i] = 16;
  }
  LLVMValueRef text = LLVMConstStringInContext(e->c, config, sizeof config, 1);
  LLVMValueRef g = LLVMAddGlobal(e->m, LLVMTypeOf(text), "tiles");
  LLVMSetInitializer(g, text);
  LLVMSetGlobalConstant(g, true);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  ll_call(e, "llvm.x86.ldtilecfg", NULL, 0, &g, 1);
}

static LLVMValueRef special(LlBody *e, const KVal *k) {
  switch ((int)k->kind) {
  case K_ZIP: return zip(e, k);
  case K_DOT: return dot(e, k);
  case K_NARROW: return narrow(e, k);
  case K_TILE_ZERO: tile_zero(e, k); return NULL;
  case K_TILE_LOAD: tile_move(e, k, "llvm.x86.tileloadd64"); return NULL;
  case K_TILE_STORE: tile_move(e, k, "llvm.x86.tilestored64"); return NULL;
  case K_TILE_DOT: tile_dot(e, k); return NULL;
  }
  internal_error("statement %d is none of x86's own", (int)k->kind);
}

/* ---- stages and kernels -------------------------------------------------- */

static LLVMValueRef stage(LlBody *e, const Target *t, const Kernel *k,
                          const KStage *s, const char *name) {
  declare(e, t, name, k->keys.len > 0);
  add_features(e, s->needs);
  LLVMPositionBuilderAtEnd(e->b, ll_new_block(e, "entry"));
  load_args(e, k->n_args);
  load_keys(e, k);
  if (s->needs & KN_TILES) tiles_open(e);
  LlLoop l = ll_loop_open(e, LLVMGetParam(e->fn, P_LO));
  e->item = l.iv;
  ll_loop_test(e, &l, LLVMGetParam(e->fn, P_HI));
  ll_block(e, &s->body);
  ll_loop_close(e, &l, 1);
  if (s->needs & KN_TILES) ll_call(e, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
  /* Such stores wait for no lock: others might see them late. */
  if (s->streams) ll_call(e, "llvm.x86.sse.sfence", NULL, 0, NULL, 0);
  LLVMBuildRetVoid(e->b);
  return e->fn;
}

const LlWays ll_x86 = {.threads = 1,
                       .shares_code = true,
                       .stage = stage,
                       .start_of = start_of,
                       .alignment = alignment,
                       .load_some = load_some,
                       .store_some = store_some,
                       .gather = gather,
                       .mark_store = mark_store,
                       .fetch = fetch,
                       .fold = fold,
                       .special = special};

LLVMValueRef cg_llvm_keyed(LLVMModuleRef m, const Kernel *k, const char *name,
                           LLVMValueRef code) {
  LlBody e = ll_body(m, &ll_x86);
  Arena a = {0};
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e.c);
  LLVMValueRef *keys = NEW_ARRAY(&a, LLVMValueRef, k->keys.len);
  for (uint32_t i = 0; i < k->keys.len; i++)
    keys[i] = LLVMConstInt(i32, (uint32_t)k->keys.data[i]->value, false);
  LLVMValueRef all = LLVMConstArray2(i32, keys, k->keys.len);
  LLVMValueRef g = LLVMAddGlobal(m, LLVMTypeOf(all), "keys");
  LLVMSetInitializer(g, all);
  LLVMSetGlobalConstant(g, true);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  e.fn = add_function(&e, name, false);
  LLVMPositionBuilderAtEnd(e.b, ll_new_block(&e, "entry"));
  LLVMValueRef args[P_COUNT + 1];
  for (unsigned i = 0; i < P_COUNT; i++)
    args[i] = LLVMGetParam(e.fn, i);
  args[P_KEYS] = g;
  LLVMBuildCall2(e.b, LLVMGlobalGetValueType(code), code, args, P_COUNT + 1,
                 "");
  LLVMBuildRetVoid(e.b);
  LLVMDisposeBuilder(e.b);
  arena_reset(&a);
  return e.fn;
}

