/* llvm.c: kernel loops to LLVM, statement by statement.
 *
 * A stage becomes one internal function of type MoertBody: a loop over the
 * chunk's items around the stage's body. The kernel language says all there is
 * to say about vectors, tails and order, so this file only spells it: loops as
 * phi nodes, vectors as vector types, a bool as i1 in a register and as one
 * byte in memory. Functions carry `no-builtins`, so that no loop turns into a
 * call of memset: the library links to nothing. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <string.h>

typedef struct Body {
  LLVMContextRef c;
  LLVMModuleRef m;
  LLVMBuilderRef b;
  LLVMValueRef fn;
  LLVMTypeRef i64, ptr;
  LLVMValueRef item;  /* induction variable of the chunk loop */
  LLVMValueRef *args; /* addresses of the record's arguments */
  LLVMValueRef *of;   /* by KVal id */
  LLVMValueRef *keys; /* by KVal id; NULL: none */
} Body;

enum { P_ARGS, P_LO, P_HI, P_SCRATCH, P_WORKSPACE, P_COUNT, P_KEYS = P_COUNT };

static void block(Body *e, const KBlock *k);

/* ---- functions ---------------------------------------------------------- */

static void add_attribute(Body *e, LLVMAttributeIndex at, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(e->fn, at, LLVMCreateEnumAttribute(e->c, kind, 0));
}

static void add_text_attribute(Body *e, const char *name, const char *value) {
  LLVMAttributeRef a = LLVMCreateStringAttribute(
      e->c, name, (unsigned)strlen(name), value, (unsigned)strlen(value));
  LLVMAddAttributeAtIndex(e->fn, LLVMAttributeFunctionIndex, a);
}

static LLVMValueRef add_function(Body *e, const char *name, bool keyed) {
  LLVMTypeRef params[P_COUNT + 1] = {e->ptr, e->i64, e->i64,
                                     e->ptr, e->ptr, e->ptr};
  LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(e->c), params,
                                      P_COUNT + keyed, false);
  LLVMValueRef fn = LLVMAddFunction(e->m, name, type);
  LLVMSetLinkage(fn, LLVMInternalLinkage);
  return fn;
}

static void declare(Body *e, const Target *t, const char *name, bool keyed) {
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
static void add_features(Body *e, unsigned needs) {
  char text[128] = "";
  for (size_t i = 0; i < COUNT_OF(cg_needs); i++)
    if (needs & cg_needs[i].bits)
      snprintf(text + strlen(text), sizeof text - strlen(text), "%s+%s",
               text[0] ? "," : "", cg_needs[i].feature);
  if (text[0]) add_text_attribute(e, "target-features", text);
}

static LLVMBasicBlockRef new_block(Body *e, const char *name) {
  return LLVMAppendBasicBlockInContext(e->c, e->fn, name);
}

static LLVMValueRef index_const(Body *e, int64_t x) {
  return LLVMConstInt(e->i64, (uint64_t)x, true);
}

static void load_args(Body *e, int n_args) {
  for (int i = 0; i < n_args; i++) {
    LLVMValueRef at = index_const(e, i);
    LLVMValueRef p =
        LLVMBuildGEP2(e->b, e->ptr, LLVMGetParam(e->fn, P_ARGS), &at, 1, "");
    e->args[i] = LLVMBuildLoad2(e->b, e->ptr, p, "");
  }
}

/* ---- values ------------------------------------------------------------- */

/* The LLVM value of one that was emitted, or of a constant. */
static LLVMValueRef value(Body *e, const KVal *k) {
  if (k->kind == K_INDEX) return index_const(e, k->number);
  if (k->kind == K_CONST)
    return cg_llvm_const(e->c, k->dtype, k->lanes, k->value);
  if (k->kind == K_IV && !k->loop) return e->item;
  if (k->kind == K_IV) k = k->loop;
  if (k->kind == K_RESULT) k = k->loop->accs.data[k->number];
  if (!e->of[k->id]) internal_error("a kernel value is used before it is made");
  return e->of[k->id];
}

static LLVMValueRef zeros(Body *e, int lanes) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  return LLVMConstNull(LLVMVectorType(i32, (unsigned)lanes));
}

static LLVMValueRef splat(Body *e, LLVMValueRef x, int lanes) {
  LLVMTypeRef t = LLVMVectorType(LLVMTypeOf(x), (unsigned)lanes);
  LLVMValueRef zero = LLVMConstInt(LLVMInt32TypeInContext(e->c), 0, false);
  LLVMValueRef v = LLVMBuildInsertElement(e->b, LLVMGetPoison(t), x, zero, "");
  return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(t), zeros(e, lanes), "");
}

/* Keys in their places, each in all its lanes. */
static void load_keys(Body *e, const Kernel *k) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  for (uint32_t i = 0; i < k->keys.len; i++) {
    const KVal *key = k->keys.data[i];
    LLVMValueRef at = index_const(e, i);
    LLVMValueRef p =
        LLVMBuildGEP2(e->b, i32, LLVMGetParam(e->fn, P_KEYS), &at, 1, "");
    LLVMValueRef x = LLVMBuildLoad2(e->b, i32, p, "");
    e->keys[key->id] = key->lanes > 1 ? splat(e, x, key->lanes) : x;
  }
}

static LLVMValueRef lanes_from(Body *e, LLVMValueRef first, int lanes) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMValueRef steps[256];
  assert(lanes <= (int)COUNT_OF(steps));
  for (int i = 0; i < lanes; i++)
    steps[i] = LLVMConstInt(i32, (uint64_t)i, false);
  LLVMValueRef ramp = LLVMConstVector(steps, (unsigned)lanes);
  return LLVMBuildAdd(e->b, splat(e, first, lanes), ramp, "");
}

static LLVMValueRef alu(Body *e, const KVal *k) {
  LLVMValueRef x = value(e, k->a[0]), y = value(e, k->a[1]);
  LLVMValueRef c;
  switch (k->alu) {
  case A_ADD: return LLVMBuildNSWAdd(e->b, x, y, "");
  case A_SUB: return LLVMBuildNSWSub(e->b, x, y, "");
  case A_MUL: return LLVMBuildNSWMul(e->b, x, y, "");
  case A_DIV: return LLVMBuildSDiv(e->b, x, y, "");
  case A_REM: return LLVMBuildSRem(e->b, x, y, "");
  case A_MIN:
    c = LLVMBuildICmp(e->b, LLVMIntSLT, x, y, "");
    return LLVMBuildSelect(e->b, c, x, y, "");
  case A_MAX:
    c = LLVMBuildICmp(e->b, LLVMIntSGT, x, y, "");
    return LLVMBuildSelect(e->b, c, x, y, "");
  case A_LT: return LLVMBuildICmp(e->b, LLVMIntSLT, x, y, "");
  case A_LE: return LLVMBuildICmp(e->b, LLVMIntSLE, x, y, "");
  case A_EQ: return LLVMBuildICmp(e->b, LLVMIntEQ, x, y, "");
  }
  return NULL;
}

static LLVMValueRef scalar(Body *e, const KVal *k) {
  LLVMValueRef a[COUNT_OF(k->a)];
  for (size_t i = 0; i < COUNT_OF(k->a) && k->a[i]; i++)
    a[i] = cg_is_key(k, (int)i) ? e->keys[k->a[i]->id] : value(e, k->a[i]);
  return cg_llvm_scalar(e->b, k->op, k->a[0]->dtype, k->dtype, a);
}

/* Pairwise: the lower half with the upper half until one is left. */
static LLVMValueRef fold(Body *e, const KVal *k) {
  LLVMValueRef v = value(e, k->a[0]);
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

/* ---- memory ------------------------------------------------------------- */

static LLVMTypeRef memory_type(Body *e, Dtype dtype, int lanes) {
  if (dtype_info[dtype].kind != DK_BOOL)
    return cg_llvm_type(e->c, dtype, lanes);
  LLVMTypeRef byte = LLVMInt8TypeInContext(e->c);
  return lanes > 1 ? LLVMVectorType(byte, (unsigned)lanes) : byte;
}

static LLVMValueRef start_of(Body *e, const KBase *base) {
  LLVMValueRef p = NULL;
  switch (base->kind) {
  case KB_ARG: p = e->args[base->number]; break;
  case KB_SCRATCH: p = LLVMGetParam(e->fn, P_SCRATCH); break;
  case KB_WORKSPACE: p = LLVMGetParam(e->fn, P_WORKSPACE); break;
  }
  if (base->kind != KB_ARG && base->number) {
    LLVMValueRef bytes = index_const(e, base->number);
    LLVMTypeRef byte = LLVMInt8TypeInContext(e->c);
    p = LLVMBuildInBoundsGEP2(e->b, byte, p, &bytes, 1, "");
  }
  return p;
}

/* Address of element `at` of a base. */
static LLVMValueRef address(Body *e, const KBase *base, LLVMValueRef at) {
  LLVMValueRef p = start_of(e, base);
  LLVMTypeRef t = memory_type(e, base->dtype, 1);
  return LLVMBuildInBoundsGEP2(e->b, t, p, &at, 1, "");
}

static LLVMValueRef from_memory(Body *e, Dtype dtype, LLVMValueRef v) {
  if (dtype_info[dtype].kind != DK_BOOL) return v;
  return LLVMBuildICmp(e->b, LLVMIntNE, v, LLVMConstNull(LLVMTypeOf(v)), "");
}

/* Lane by lane, for elements that no gather instruction takes. */
static LLVMValueRef gather_each(Body *e, const KVal *k, LLVMValueRef base,
                                LLVMValueRef offsets) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMTypeRef t = memory_type(e, k->dtype, 1);
  LLVMValueRef v = LLVMGetPoison(memory_type(e, k->dtype, k->lanes));
  for (int i = 0; i < k->lanes; i++) {
    LLVMValueRef lane = LLVMConstInt(i32, (uint64_t)i, false);
    LLVMValueRef at = LLVMBuildExtractElement(e->b, offsets, lane, "");
    at = LLVMBuildSExt(e->b, at, e->i64, "");
    LLVMValueRef p = LLVMBuildInBoundsGEP2(e->b, t, base, &at, 1, "");
    LLVMValueRef x = LLVMBuildLoad2(e->b, t, p, "");
    LLVMSetAlignment(x, dtype_info[k->dtype].bytes);
    v = LLVMBuildInsertElement(e->b, v, x, lane, "");
  }
  return from_memory(e, k->dtype, v);
}

static LLVMValueRef gather(Body *e, const KVal *k) {
  LLVMValueRef base = address(e, &k->base, value(e, k->a[0]));
  LLVMValueRef offsets = value(e, k->a[1]);
  unsigned bytes = dtype_info[k->dtype].bytes, lanes = k->lanes;
  if (bytes < 4) return gather_each(e, k, base, offsets);
  LLVMTypeRef type = cg_llvm_type(e->c, k->dtype, k->lanes);
  LLVMValueRef at = LLVMBuildInBoundsGEP2(e->b, memory_type(e, k->dtype, 1),
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
static LLVMTypeRef plain_type(Body *e, Dtype dtype, int lanes) {
  return LLVMVectorType(LLVMIntTypeInContext(e->c, 8 * dtype_info[dtype].bytes),
                        (unsigned)lanes);
}

/* Which lanes are the first `count`. */
static LLVMValueRef first_lanes(Body *e, LLVMValueRef count,
                                LLVMTypeRef lanes) {
  LLVMTypeRef element = LLVMGetElementType(lanes);
  LLVMValueRef ramp[128];
  unsigned n = LLVMGetVectorSize(lanes);
  assert(n <= COUNT_OF(ramp));
  for (unsigned i = 0; i < n; i++)
    ramp[i] = LLVMConstInt(element, i, false);
  count = splat(e, LLVMBuildTrunc(e->b, count, element, ""), (int)n);
  return LLVMBuildICmp(e->b, LLVMIntSLT, LLVMConstVector(ramp, n), count, "");
}

static LLVMValueRef call(Body *e, const char *name, LLVMTypeRef *types,
                         size_t n_types, LLVMValueRef *a, unsigned n) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  LLVMValueRef f = LLVMGetIntrinsicDeclaration(e->m, id, types, n_types);
  return LLVMBuildCall2(e->b, LLVMGlobalGetValueType(f), f, a, n, "");
}

static LLVMValueRef load_some(Body *e, const KVal *k) {
  LLVMTypeRef types[2] = {plain_type(e, k->dtype, k->lanes), e->ptr};
  LLVMValueRef align = LLVMConstInt(LLVMInt32TypeInContext(e->c),
                                    dtype_info[k->dtype].bytes, false);
  LLVMValueRef a[4] = {address(e, &k->base, value(e, k->a[0])), align,
                       first_lanes(e, value(e, k->a[1]), types[0]),
                       LLVMConstNull(types[0])};
  LLVMValueRef v = call(e, "llvm.masked.load", types, 2, a, 4);
  return LLVMBuildBitCast(e->b, v, cg_llvm_type(e->c, k->dtype, k->lanes), "");
}

static void store_some(Body *e, const KVal *k, LLVMValueRef v, LLVMValueRef p) {
  LLVMTypeRef types[2] = {plain_type(e, k->dtype, k->lanes), e->ptr};
  LLVMValueRef align = LLVMConstInt(LLVMInt32TypeInContext(e->c),
                                    dtype_info[k->dtype].bytes, false);
  LLVMValueRef a[4] = {LLVMBuildBitCast(e->b, v, types[0], ""), p, align,
                       first_lanes(e, value(e, k->a[2]), types[0])};
  call(e, "llvm.masked.store", types, 2, a, 4);
}

/* To be read, kept in all caches or all but the first, data. */
static void fetch(Body *e, const KVal *k) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMTypeRef t = memory_type(e, k->base.dtype, 1);
  LLVMValueRef at = value(e, k->a[0]), p = start_of(e, &k->base);
  LLVMValueRef a[4] = {LLVMBuildGEP2(e->b, t, p, &at, 1, ""),
                       LLVMConstInt(i32, 0, false),
                       LLVMConstInt(i32, k->value != 0 ? 2 : 3, false),
                       LLVMConstInt(i32, 1, false)};
  call(e, "llvm.prefetch", &e->ptr, 1, a, 4);
}

static LLVMValueRef load(Body *e, const KVal *k) {
  if (k->a[1] && k->a[1]->index) return load_some(e, k);
  if (k->a[1]) return gather(e, k);
  LLVMValueRef p = address(e, &k->base, value(e, k->a[0]));
  LLVMValueRef v =
      LLVMBuildLoad2(e->b, memory_type(e, k->dtype, k->lanes), p, "");
  LLVMSetAlignment(v, dtype_info[k->dtype].bytes);
  return from_memory(e, k->dtype, v);
}

static void store(Body *e, const KVal *k) {
  const KVal *what = k->a[1];
  LLVMValueRef v = value(e, what);
  LLVMValueRef p = address(e, &k->base, value(e, k->a[0]));
  if (k->a[2]) {
    store_some(e, k, v, p);
    return;
  }
  if (dtype_info[what->dtype].kind == DK_BOOL)
    v = LLVMBuildZExt(e->b, v, memory_type(e, what->dtype, what->lanes), "");
  LLVMValueRef s = LLVMBuildStore(e->b, v, p);
  unsigned bytes = dtype_info[what->dtype].bytes;
  LLVMSetAlignment(s, k->value != 0 ? bytes * what->lanes : bytes);
  if (k->value == 0) return;
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMMetadataRef one = LLVMValueAsMetadata(LLVMConstInt(i32, 1, false));
  LLVMMetadataRef list = LLVMMDNodeInContext2(e->c, &one, 1);
  LLVMSetMetadata(s, LLVMGetMDKindIDInContext(e->c, "nontemporal", 11),
                  LLVMMetadataAsValue(e->c, list));
}

/* ---- pairs and tiles ----------------------------------------------------- */

/* As lanes of integers as wide as a group. */
static LLVMValueRef zip(Body *e, const KVal *k) {
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
    side[i] = LLVMBuildBitCast(e->b, value(e, k->a[i]), wide, "");
  LLVMValueRef v = LLVMBuildShuffleVector(
      e->b, side[0], side[1], LLVMConstVector(pick, (unsigned)n), "");
  return LLVMBuildBitCast(e->b, v, cg_llvm_type(e->c, k->dtype, k->lanes), "");
}

static LLVMValueRef dot(Body *e, const KVal *k) {
  assert(k->lanes == 16);
  LLVMTypeRef pairs =
      LLVMVectorType(LLVMBFloatTypeInContext(e->c), 2 * (unsigned)k->lanes);
  LLVMValueRef a[3] = {value(e, k->a[0]),
                       LLVMBuildBitCast(e->b, value(e, k->a[1]), pairs, ""),
                       LLVMBuildBitCast(e->b, value(e, k->a[2]), pairs, "")};
  return call(e, "llvm.x86.avx512bf16.dpbf16ps.512", NULL, 0, a, 3);
}

/* Lanes [from, from + n) of a vector. */
static LLVMValueRef part(Body *e, LLVMValueRef v, int from, int n) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMValueRef pick[16];
  assert(n <= (int)COUNT_OF(pick));
  for (int i = 0; i < n; i++)
    pick[i] = LLVMConstInt(i32, (uint64_t)(from + i), false);
  return LLVMBuildShuffleVector(e->b, v, LLVMGetUndef(LLVMTypeOf(v)),
                                LLVMConstVector(pick, (unsigned)n), "");
}

static LLVMValueRef narrow(Body *e, const KVal *k) {
  int half = k->lanes / 2;
  LLVMValueRef x = value(e, k->a[0]);
  LLVMValueRef a[2] = {part(e, x, half, half), part(e, x, 0, half)};
  return call(e, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", NULL, 0, a, 2);
}

static LLVMValueRef tile_number(Body *e, int64_t number) {
  assert(number >= 0 && number < 8);
  return LLVMConstInt(LLVMInt8TypeInContext(e->c), (uint64_t)number, false);
}

static void tile_zero(Body *e, const KVal *k) {
  LLVMValueRef a[1] = {tile_number(e, k->number)};
  call(e, "llvm.x86.tilezero", NULL, 0, a, 1);
}

static void tile_move(Body *e, const KVal *k, const char *name) {
  int64_t step = k->a[1]->number * dtype_info[k->base.dtype].bytes;
  LLVMValueRef a[3] = {tile_number(e, k->number),
                       address(e, &k->base, value(e, k->a[0])),
                       index_const(e, step)};
  call(e, name, NULL, 0, a, 3);
}

static void tile_dot(Body *e, const KVal *k) {
  LLVMValueRef a[3] = {tile_number(e, k->number),
                       tile_number(e, k->a[0]->number),
                       tile_number(e, k->a[1]->number)};
  call(e, "llvm.x86.tdpbf16ps", NULL, 0, a, 3);
}

/* Makes all eight tiles 16 rows of 64 bytes, for the rest of the function. */
static void tiles_open(Body *e) {
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
  call(e, "llvm.x86.ldtilecfg", NULL, 0, &g, 1);
}

/* ---- control ------------------------------------------------------------ */

static LLVMTypeRef type_of_kval(Body *e, const KVal *k) {
  return k->index ? e->i64 : cg_llvm_type(e->c, k->dtype, k->lanes);
}

/* for (iv = lo; iv < hi; iv += step): open, then close after the body. */
typedef struct Loop {
  LLVMBasicBlockRef header, exit;
  LLVMValueRef iv;
} Loop;

static Loop loop_open(Body *e, LLVMValueRef lo) {
  Loop l = {new_block(e, "loop"), NULL, NULL};
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b);
  LLVMBuildBr(e->b, l.header);
  LLVMPositionBuilderAtEnd(e->b, l.header);
  l.iv = LLVMBuildPhi(e->b, e->i64, "");
  LLVMAddIncoming(l.iv, &lo, &before, 1);
  return l;
}

/* After the phis: leaves when the induction variable has reached `hi`. */
static void loop_test(Body *e, Loop *l, LLVMValueRef hi) {
  LLVMBasicBlockRef body = new_block(e, "body");
  l->exit = new_block(e, "exit");
  LLVMValueRef more = LLVMBuildICmp(e->b, LLVMIntSLT, l->iv, hi, "");
  LLVMBuildCondBr(e->b, more, body, l->exit);
  LLVMPositionBuilderAtEnd(e->b, body);
}

static void loop_close(Body *e, Loop *l, int64_t step) {
  LLVMValueRef next = LLVMBuildNSWAdd(e->b, l->iv, index_const(e, step), "");
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
  LLVMAddIncoming(l->iv, &next, &latch, 1);
  LLVMBuildBr(e->b, l->header);
  LLVMPositionBuilderAtEnd(e->b, l->exit);
}

static void for_loop(Body *e, const KVal *k) {
  LLVMValueRef lo = value(e, k->a[0]), hi = value(e, k->a[1]);
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b);
  Loop l = loop_open(e, lo);
  e->of[k->id] = l.iv;
  for (uint32_t i = 0; i < k->accs.len; i++) {
    const KVal *acc = k->accs.data[i];
    LLVMValueRef init = value(e, acc->a[0]);
    LLVMValueRef phi = LLVMBuildPhi(e->b, type_of_kval(e, acc), "");
    LLVMAddIncoming(phi, &init, &before, 1);
    e->of[acc->id] = phi;
  }
  loop_test(e, &l, hi);
  block(e, &k->body);
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
  for (uint32_t i = 0; i < k->accs.len; i++) {
    LLVMValueRef next = value(e, k->updates.data[i]);
    LLVMAddIncoming(e->of[k->accs.data[i]->id], &next, &latch, 1);
  }
  loop_close(e, &l, k->number);
}

static void if_block(Body *e, const KVal *k) {
  LLVMValueRef cond = value(e, k->a[0]);
  LLVMBasicBlockRef then = new_block(e, "then"), after = new_block(e, "after");
  LLVMBuildCondBr(e->b, cond, then, after);
  LLVMPositionBuilderAtEnd(e->b, then);
  block(e, &k->body);
  LLVMBuildBr(e->b, after);
  LLVMPositionBuilderAtEnd(e->b, after);
}

static LLVMValueRef statement(Body *e, const KVal *k) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  switch (k->kind) {
  case K_INDEX:
  case K_IV:
  case K_CONST:
  case K_ACC:
  case K_RESULT: return NULL; /* found where they are used */
  case K_ALU: return alu(e, k);
  case K_SCALAR: return scalar(e, k);
  case K_SPLAT: return splat(e, value(e, k->a[0]), k->lanes);
  case K_LANES: return lanes_from(e, value(e, k->a[0]), k->lanes);
  case K_LOAD: return load(e, k);
  case K_STORE: store(e, k); return NULL;
  case K_FETCH: fetch(e, k); return NULL;
  case K_FOR: for_loop(e, k); return NULL;
  case K_IF: if_block(e, k); return NULL;
  case K_FOLD: return fold(e, k);
  case K_ZIP: return zip(e, k);
  case K_DOT: return dot(e, k);
  case K_NARROW: return narrow(e, k);
  case K_TILE_ZERO: tile_zero(e, k); return NULL;
  case K_TILE_LOAD: tile_move(e, k, "llvm.x86.tileloadd64"); return NULL;
  case K_TILE_STORE: tile_move(e, k, "llvm.x86.tilestored64"); return NULL;
  case K_TILE_DOT: tile_dot(e, k); return NULL;
  case K_FROM_I32:
    return dtype_info[k->a[0]->dtype].kind == DK_INT
               ? LLVMBuildSExt(e->b, value(e, k->a[0]), e->i64, "")
               : LLVMBuildZExt(e->b, value(e, k->a[0]), e->i64, "");
  case K_TO_I32: return LLVMBuildTrunc(e->b, value(e, k->a[0]), i32, "");
  }
  return NULL;
}

static void block(Body *e, const KBlock *k) {
  for (uint32_t i = 0; i < k->len; i++) {
    LLVMValueRef v = statement(e, k->data[i]);
    if (v) e->of[k->data[i]->id] = v;
  }
}

/* ---- kernels ------------------------------------------------------------ */

static LLVMValueRef stage(Body *e, const Target *t, const Kernel *k,
                          const KStage *s, const char *name) {
  declare(e, t, name, k->keys.len > 0);
  add_features(e, s->needs);
  LLVMPositionBuilderAtEnd(e->b, new_block(e, "entry"));
  load_args(e, k->n_args);
  load_keys(e, k);
  if (s->needs & KN_TILES) tiles_open(e);
  Loop l = loop_open(e, LLVMGetParam(e->fn, P_LO));
  e->item = l.iv;
  loop_test(e, &l, LLVMGetParam(e->fn, P_HI));
  block(e, &s->body);
  loop_close(e, &l, 1);
  if (s->needs & KN_TILES) call(e, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
  /* Such stores wait for no lock: others might see them late. */
  if (s->streams) call(e, "llvm.x86.sse.sfence", NULL, 0, NULL, 0);
  LLVMBuildRetVoid(e->b);
  return e->fn;
}

static Body body_of(LLVMModuleRef m) {
  LLVMContextRef c = LLVMGetModuleContext(m);
  return (Body){.c = c,
                .m = m,
                .b = LLVMCreateBuilderInContext(c),
                .i64 = LLVMInt64TypeInContext(c),
                .ptr = LLVMPointerTypeInContext(c, 0)};
}

LLVMValueRef cg_llvm_keyed(LLVMModuleRef m, const Kernel *k, const char *name,
                           LLVMValueRef code) {
  Body e = body_of(m);
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
  LLVMPositionBuilderAtEnd(e.b, new_block(&e, "entry"));
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

void cg_llvm_kernel(LLVMModuleRef m, const Target *t, const Kernel *k,
                    const char *name, LLVMValueRef *out_bodies) {
  Body e = body_of(m);
  Arena a = {0};
  e.args = NEW_ARRAY(&a, LLVMValueRef, (size_t)k->n_args);
  e.of = NEW_ARRAY(&a, LLVMValueRef, k->n_vals);
  e.keys = NEW_ARRAY(&a, LLVMValueRef, k->n_vals);
  for (uint32_t i = 0; i < k->stages.len; i++) {
    char stage_name[128];
    snprintf(stage_name, sizeof stage_name, "%.100s.%u", name, i);
    out_bodies[i] = stage(&e, t, k, &k->stages.data[i], stage_name);
  }
  LLVMDisposeBuilder(e.b);
  arena_reset(&a);
}
