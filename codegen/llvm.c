/* llvm.c: kernel loops to LLVM, statement by statement.
 *
 * The kernel language says all there is to say about vectors, tails and order,
 * so this file only spells it: loops as phi nodes, vectors as vector types, a
 * bool as i1 in a register and as one byte in memory. A vector is one thread's,
 * or is shared by the threads of a warp, each of which has as many neighbouring
 * lanes; what then differs, and what a stage looks like from outside, is told
 * by a target's LlWays: llvm_x86.c, llvm_warp.c. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <string.h>

/* ---- helpers ------------------------------------------------------------ */

LLVMBasicBlockRef ll_new_block(LlBody *e, const char *name) {
  return LLVMAppendBasicBlockInContext(e->c, e->fn, name);
}

LLVMValueRef ll_index_const(LlBody *e, int64_t x) {
  return LLVMConstInt(e->i64, (uint64_t)x, true);
}

LLVMValueRef ll_call(LlBody *e, const char *name, LLVMTypeRef *types,
                     size_t n_types, LLVMValueRef *a, unsigned n) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  LLVMValueRef f = LLVMGetIntrinsicDeclaration(e->m, id, types, n_types);
  return LLVMBuildCall2(e->b, LLVMGlobalGetValueType(f), f, a, n, "");
}

int ll_width(const LlBody *e, int lanes) {
  if (lanes == 1) return 1;
  assert(lanes % e->ways->threads == 0);
  return lanes / e->ways->threads;
}

/* ---- values ------------------------------------------------------------- */

/* The LLVM value of one that was emitted, or of a constant. */
LLVMValueRef ll_value(LlBody *e, const KVal *k) {
  if (k->kind == K_INDEX) return ll_index_const(e, k->number);
  if (k->kind == K_CONST)
    return cg_llvm_const(e->c, k->dtype, ll_width(e, k->lanes), k->value);
  if (k->kind == K_IV && !k->loop) return e->item;
  if (k->kind == K_IV) k = k->loop;
  if (k->kind == K_RESULT) k = k->loop->accs.data[k->number];
  if (!e->of[k->id]) internal_error("a kernel value is used before it is made");
  return e->of[k->id];
}

LLVMValueRef ll_splat(LlBody *e, LLVMValueRef x, int n) {
  if (n == 1) return x;
  LLVMTypeRef t = LLVMVectorType(LLVMTypeOf(x), (unsigned)n);
  LLVMValueRef zero = LLVMConstInt(LLVMInt32TypeInContext(e->c), 0, false);
  LLVMValueRef v = LLVMBuildInsertElement(e->b, LLVMGetPoison(t), x, zero, "");
  LLVMValueRef zeros = LLVMConstNull(
      LLVMVectorType(LLVMInt32TypeInContext(e->c), (unsigned)n));
  return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(t), zeros, "");
}

LLVMValueRef ll_ramp(LLVMTypeRef integer, int n) {
  LLVMValueRef steps[256];
  assert(n <= (int)COUNT_OF(steps));
  for (int i = 0; i < n; i++)
    steps[i] = LLVMConstInt(integer, (uint64_t)i, false);
  return n == 1 ? steps[0] : LLVMConstVector(steps, (unsigned)n);
}

/* first + 0, 1, 2 ... over all lanes. */
static LLVMValueRef lanes_from(LlBody *e, LLVMValueRef first, int lanes) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  int n = ll_width(e, lanes);
  if (e->lane) {
    LLVMValueRef mine = LLVMConstInt(i32, (uint64_t)n, false);
    mine = LLVMBuildMul(e->b, e->lane, mine, "");
    first = LLVMBuildAdd(e->b, first, mine, "");
  }
  return LLVMBuildAdd(e->b, ll_splat(e, first, n), ll_ramp(i32, n), "");
}

static LLVMValueRef alu(LlBody *e, const KVal *k) {
  LLVMValueRef x = ll_value(e, k->a[0]), y = ll_value(e, k->a[1]);
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

static LLVMValueRef scalar(LlBody *e, const KVal *k) {
  LLVMValueRef a[COUNT_OF(k->a)];
  for (size_t i = 0; i < COUNT_OF(k->a) && k->a[i]; i++)
    a[i] = e->keys && cg_is_key(k, (int)i) ? e->keys[k->a[i]->id]
                                           : ll_value(e, k->a[i]);
  return cg_llvm_scalar(e->b, k->op, k->a[0]->dtype, k->dtype, a);
}

/* ---- memory ------------------------------------------------------------- */

LLVMTypeRef ll_memory_type(LlBody *e, Dtype dtype, int n) {
  if (dtype_info[dtype].kind != DK_BOOL) return cg_llvm_type(e->c, dtype, n);
  LLVMTypeRef byte = LLVMInt8TypeInContext(e->c);
  return n > 1 ? LLVMVectorType(byte, (unsigned)n) : byte;
}

LLVMValueRef ll_start_of(LlBody *e, const KBase *base) {
  LLVMValueRef p = e->ways->start_of(e, base);
  if (base->kind != KB_ARG && base->number) {
    LLVMValueRef bytes = ll_index_const(e, base->number);
    LLVMTypeRef byte = LLVMInt8TypeInContext(e->c);
    p = LLVMBuildInBoundsGEP2(e->b, byte, p, &bytes, 1, "");
  }
  return p;
}

LLVMValueRef ll_address(LlBody *e, const KBase *base, LLVMValueRef at) {
  LLVMValueRef p = ll_start_of(e, base);
  LLVMTypeRef t = ll_memory_type(e, base->dtype, 1);
  return LLVMBuildInBoundsGEP2(e->b, t, p, &at, 1, "");
}

LLVMValueRef ll_from_memory(LlBody *e, Dtype dtype, LLVMValueRef v) {
  if (dtype_info[dtype].kind != DK_BOOL) return v;
  return LLVMBuildICmp(e->b, LLVMIntNE, v, LLVMConstNull(LLVMTypeOf(v)), "");
}

LLVMValueRef ll_to_memory(LlBody *e, Dtype dtype, int n, LLVMValueRef v) {
  if (dtype_info[dtype].kind != DK_BOOL) return v;
  return LLVMBuildZExt(e->b, v, ll_memory_type(e, dtype, n), "");
}

LLVMValueRef ll_gather_each(LlBody *e, const KVal *k, LLVMValueRef base,
                            LLVMValueRef offsets) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  LLVMTypeRef t = ll_memory_type(e, k->dtype, 1);
  int n = ll_width(e, k->lanes);
  LLVMValueRef v = LLVMGetPoison(ll_memory_type(e, k->dtype, n));
  for (int i = 0; i < n; i++) {
    LLVMValueRef lane = LLVMConstInt(i32, (uint64_t)i, false), at = offsets;
    if (n > 1) at = LLVMBuildExtractElement(e->b, offsets, lane, "");
    at = LLVMBuildSExt(e->b, at, e->i64, "");
    LLVMValueRef p = LLVMBuildInBoundsGEP2(e->b, t, base, &at, 1, "");
    LLVMValueRef x = LLVMBuildLoad2(e->b, t, p, "");
    LLVMSetAlignment(x, dtype_info[k->dtype].bytes);
    v = n > 1 ? LLVMBuildInsertElement(e->b, v, x, lane, "") : x;
  }
  return ll_from_memory(e, k->dtype, v);
}

/* Where this thread's lanes of a load or store start. */
static LLVMValueRef own_address(LlBody *e, const KVal *k, int lanes) {
  LLVMValueRef at = ll_value(e, k->a[0]);
  if (e->lane && lanes > 1) {
    LLVMValueRef mine = ll_index_const(e, ll_width(e, lanes));
    LLVMValueRef lane = LLVMBuildZExt(e->b, e->lane, e->i64, "");
    at = LLVMBuildAdd(e->b, at, LLVMBuildMul(e->b, lane, mine, ""), "");
  }
  return ll_address(e, &k->base, at);
}

static LLVMValueRef load(LlBody *e, const KVal *k) {
  if (e->ways->before) e->ways->before(e, k);
  if (k->a[1] && k->a[1]->index)
    return e->ways->load_some(e, k, own_address(e, k, k->lanes));
  if (k->a[1]) return e->ways->gather(e, k);
  int n = ll_width(e, k->lanes);
  LLVMValueRef p = own_address(e, k, k->lanes);
  LLVMValueRef v = LLVMBuildLoad2(e->b, ll_memory_type(e, k->dtype, n), p, "");
  LLVMSetAlignment(v, e->ways->alignment(e, k));
  return ll_from_memory(e, k->dtype, v);
}

static void store(LlBody *e, const KVal *k) {
  const KVal *what = k->a[1];
  if (e->ways->before) e->ways->before(e, k);
  LLVMValueRef v = ll_value(e, what);
  LLVMValueRef p = own_address(e, k, what->lanes);
  if (k->a[2]) {
    e->ways->store_some(e, k, v, p);
    return;
  }
  v = ll_to_memory(e, what->dtype, ll_width(e, what->lanes), v);
  LLVMBasicBlockRef after = NULL;
  if (e->lane && what->lanes == 1) after = ll_if(e, e->first);
  LLVMValueRef s = LLVMBuildStore(e->b, v, p);
  LLVMSetAlignment(s, e->ways->alignment(e, k));
  if (e->ways->mark_store) e->ways->mark_store(e, k, s);
  if (after) ll_end_if(e, after);
}

/* ---- control ------------------------------------------------------------ */

static LLVMTypeRef type_of_kval(LlBody *e, const KVal *k) {
  if (k->index) return e->i64;
  return cg_llvm_type(e->c, k->dtype, ll_width(e, k->lanes));
}

LlLoop ll_loop_open(LlBody *e, LLVMValueRef lo) {
  LlLoop l = {ll_new_block(e, "loop"), NULL, NULL};
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b);
  LLVMBuildBr(e->b, l.header);
  LLVMPositionBuilderAtEnd(e->b, l.header);
  l.iv = LLVMBuildPhi(e->b, e->i64, "");
  LLVMAddIncoming(l.iv, &lo, &before, 1);
  return l;
}

void ll_loop_test(LlBody *e, LlLoop *l, LLVMValueRef hi) {
  LLVMBasicBlockRef body = ll_new_block(e, "body");
  l->exit = ll_new_block(e, "exit");
  LLVMValueRef more = LLVMBuildICmp(e->b, LLVMIntSLT, l->iv, hi, "");
  LLVMBuildCondBr(e->b, more, body, l->exit);
  LLVMPositionBuilderAtEnd(e->b, body);
}

void ll_loop_close(LlBody *e, LlLoop *l, int64_t step) {
  LLVMValueRef next = LLVMBuildNSWAdd(e->b, l->iv, ll_index_const(e, step), "");
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
  LLVMAddIncoming(l->iv, &next, &latch, 1);
  LLVMBuildBr(e->b, l->header);
  LLVMPositionBuilderAtEnd(e->b, l->exit);
}

static void for_loop(LlBody *e, const KVal *k) {
  LLVMValueRef lo = ll_value(e, k->a[0]), hi = ll_value(e, k->a[1]);
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b);
  LlLoop l = ll_loop_open(e, lo);
  e->of[k->id] = l.iv;
  for (uint32_t i = 0; i < k->accs.len; i++) {
    const KVal *acc = k->accs.data[i];
    LLVMValueRef init = ll_value(e, acc->a[0]);
    LLVMValueRef phi = LLVMBuildPhi(e->b, type_of_kval(e, acc), "");
    LLVMAddIncoming(phi, &init, &before, 1);
    e->of[acc->id] = phi;
  }
  ll_loop_test(e, &l, hi);
  if (e->ways->enter) e->ways->enter(e, &k->body);
  unsigned dirty = e->dirty; /* and after no turn at all */
  ll_block(e, &k->body);
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
  for (uint32_t i = 0; i < k->accs.len; i++) {
    LLVMValueRef next = ll_value(e, k->updates.data[i]);
    LLVMAddIncoming(e->of[k->accs.data[i]->id], &next, &latch, 1);
  }
  ll_loop_close(e, &l, k->number);
  e->dirty = dirty;
}

LLVMBasicBlockRef ll_if(LlBody *e, LLVMValueRef cond) {
  LLVMBasicBlockRef then = ll_new_block(e, "then");
  LLVMBasicBlockRef after = ll_new_block(e, "after");
  LLVMBuildCondBr(e->b, cond, then, after);
  LLVMPositionBuilderAtEnd(e->b, then);
  return after;
}

void ll_end_if(LlBody *e, LLVMBasicBlockRef after) {
  LLVMBuildBr(e->b, after);
  LLVMPositionBuilderAtEnd(e->b, after);
}

static void if_block(LlBody *e, const KVal *k) {
  LLVMBasicBlockRef after = ll_if(e, ll_value(e, k->a[0]));
  unsigned dirty = e->dirty;
  ll_block(e, &k->body);
  ll_end_if(e, after);
  e->dirty |= dirty;
}

static LLVMValueRef statement(LlBody *e, const KVal *k) {
  LLVMTypeRef i32 = LLVMInt32TypeInContext(e->c);
  switch (k->kind) {
  case K_INDEX:
  case K_IV:
  case K_CONST:
  case K_ACC:
  case K_RESULT: return NULL; /* found where they are used */
  case K_ALU: return alu(e, k);
  case K_SCALAR: return scalar(e, k);
  case K_SPLAT: return ll_splat(e, ll_value(e, k->a[0]), ll_width(e, k->lanes));
  case K_LANES: return lanes_from(e, ll_value(e, k->a[0]), k->lanes);
  case K_LOAD: return load(e, k);
  case K_STORE: store(e, k); return NULL;
  case K_FETCH:
    if (e->ways->fetch) e->ways->fetch(e, k);
    return NULL;
  case K_FOR: for_loop(e, k); return NULL;
  case K_IF: if_block(e, k); return NULL;
  case K_FOLD: return e->ways->fold(e, k);
  case K_ZIP:
  case K_DOT:
  case K_NARROW:
  case K_TAKE:
  case K_MMA:
  case K_PLACES:
  case K_AHEAD:
  case K_PAIRS:
  case K_JOIN:
  case K_ROW_FOLD:
  case K_BY_ROW:
  case K_PAUSE:
  case K_PUT:
  case K_TILE_ZERO:
  case K_TILE_LOAD:
  case K_TILE_STORE:
  case K_TILE_TAKE:
  case K_TILE_PICK:
  case K_TILE_DOT:
  case K_WARP:
  case K_MEET:
  case K_PANEL:
  case K_PANEL_ROWS:
  case K_BATCH:
  case K_GROUP_DOT:
  case K_GROUP_WAIT:
  case K_GATES:
  case K_BOX:
  case K_GATE_WAIT: return e->ways->special(e, k);
  case K_FROM_I32:
    return dtype_info[k->a[0]->dtype].kind == DK_INT
               ? LLVMBuildSExt(e->b, ll_value(e, k->a[0]), e->i64, "")
               : LLVMBuildZExt(e->b, ll_value(e, k->a[0]), e->i64, "");
  case K_TO_I32: return LLVMBuildTrunc(e->b, ll_value(e, k->a[0]), i32, "");
  }
  return NULL;
}

void ll_block(LlBody *e, const KBlock *k) {
  for (uint32_t i = 0; i < k->len; i++) {
    LLVMValueRef v = statement(e, k->data[i]);
    if (v) e->of[k->data[i]->id] = v;
  }
}

/* ---- kernels ------------------------------------------------------------ */

LlBody ll_body(LLVMModuleRef m, const LlWays *ways) {
  LLVMContextRef c = LLVMGetModuleContext(m);
  return (LlBody){.c = c,
                  .m = m,
                  .b = LLVMCreateBuilderInContext(c),
                  .i64 = LLVMInt64TypeInContext(c),
                  .ptr = LLVMPointerTypeInContext(c, 0),
                  .ways = ways};
}

void ll_stage_name(const char *kernel, uint32_t i, char *out, size_t cap) {
  snprintf(out, cap, "%.100s_%u", kernel, i);
}

void cg_llvm_kernel(LLVMModuleRef m, const Target *t, const Kernel *k,
                    const char *name, LLVMValueRef *out_bodies) {
  LlBody e = ll_body(m, t->ways);
  Arena a = {0};
  e.kernel = k;
  e.args = NEW_ARRAY(&a, LLVMValueRef, (size_t)k->n_args);
  e.of = NEW_ARRAY(&a, LLVMValueRef, k->n_vals);
  if (t->ways->shares_code) e.keys = NEW_ARRAY(&a, LLVMValueRef, k->n_vals);
  for (uint32_t i = 0; i < k->stages.len; i++) {
    char stage_name[128];
    ll_stage_name(name, i, stage_name, sizeof stage_name);
    out_bodies[i] = t->ways->stage(&e, t, k, &k->stages.data[i], stage_name);
  }
  LLVMDisposeBuilder(e.b);
  arena_reset(&a);
}
