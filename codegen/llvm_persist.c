/* llvm_persist.c: the kernel of a loop whose blocks stay.
 *
 *   held = what does not change        the stages that are done once
 *   for turn in [0, turns)
 *     for each stage                   its items, by all warps of the grid
 *       meet
 *
 * Blocks meet at a counter in the GPU's memory, one a kernel. Each adds 1 and
 * the first block what is then left to 2^31, so that the highest bit changes
 * when the last one comes, and all wait for that: the counter need not be set
 * back, neither from turn to turn nor from launch to launch.
 *
 * What a block has written is there for the others behind the meeting: thread 0
 * adds with `release` at the scope of the GPU, behind a barrier of its block,
 * which makes the others' writes known first, and waits with `acquire`, before
 * another one, after which no thread of its block finds in its first cache what
 * is older. Loads in between need say nothing of that, but they must not be
 * those for memory that never changes (ld.global.nc): the arguments are not
 * said to be apart (noalias), without which LLVM makes none. */
#include "persist.h"

#include <llvm-c/Core.h>
#include <string.h>

enum { GLOBAL = 1 }; /* address space */

static LLVMTypeRef global_pointer(LlBody *e) {
  return LLVMPointerTypeInContext(e->c, GLOBAL);
}

static void declare(LlBody *e, unsigned n, const char *name) {
  Arena a = {0};
  LLVMTypeRef *params = NEW_ARRAY(&a, LLVMTypeRef, n);
  for (unsigned i = 0; i < n; i++)
    params[i] = global_pointer(e);
  e->fn = LLVMAddFunction(
      e->m, name,
      LLVMFunctionType(LLVMVoidTypeInContext(e->c), params, n, false));
  LLVMSetFunctionCallConv(e->fn, LL_PTX_KERNEL);
  arena_reset(&a);
}

/* ---- meeting ------------------------------------------------------------- */

static LLVMValueRef counter_of(LlBody *e, const char *name) {
  char text[160];
  snprintf(text, sizeof text, "%.120s_met", name);
  LLVMValueRef g = LLVMAddGlobalInAddressSpace(e->m, ll_i32(e), text, GLOBAL);
  LLVMSetInitializer(g, LLVMConstNull(ll_i32(e)));
  LLVMSetLinkage(g, LLVMInternalLinkage);
  LLVMSetAlignment(g, 4);
  return g;
}

static LLVMValueRef number(LlBody *e, const char *name) {
  return ll_call(e, name, NULL, 0, NULL, 0);
}

static LLVMValueRef is_zero(LlBody *e, LLVMValueRef x) {
  return LLVMBuildICmp(e->b, LLVMIntEQ, x, ll_word(e, 0), "");
}

static void wait_here(LlBody *e) {
  ll_call(e, "llvm.nvvm.barrier0", NULL, 0, NULL, 0);
}

/* Thread 0 for its block. */
static void meet(LlBody *e, LLVMValueRef counter, int64_t blocks) {
  LLVMTypeRef i32 = ll_i32(e);
  wait_here(e);
  LLVMValueRef thread = number(e, "llvm.nvvm.read.ptx.sreg.tid.x");
  LLVMValueRef block = number(e, "llvm.nvvm.read.ptx.sreg.ctaid.x");
  LLVMBasicBlockRef after = ll_if(e, is_zero(e, thread));
  LLVMValueRef rest = ll_word(e, INT32_MIN - (blocks - 1));
  LLVMValueRef a[2] = {counter,
                       LLVMBuildSelect(e->b, is_zero(e, block), rest,
                                       ll_word(e, 1), "")};
  LLVMValueRef before =
      ll_assembly(e, i32, "atom.release.gpu.global.add.u32 $0, [$1], $2;",
                  "=r,l,r,~{memory}", a, 2);
  LLVMBasicBlockRef again = ll_new_block(e, "again");
  LLVMBasicBlockRef met = ll_new_block(e, "met");
  LLVMBuildBr(e->b, again);
  LLVMPositionBuilderAtEnd(e->b, again);
  LLVMValueRef now =
      ll_assembly(e, i32, "ld.acquire.gpu.global.u32 $0, [$1];",
                  "=r,l,~{memory}", a, 1);
  LLVMValueRef changed = LLVMBuildXor(e->b, before, now, "");
  changed = LLVMBuildICmp(e->b, LLVMIntSLT, changed, ll_word(e, 0), "");
  LLVMBuildCondBr(e->b, changed, met, again);
  LLVMPositionBuilderAtEnd(e->b, met);
  ll_end_if(e, after);
  wait_here(e);
}

/* ---- turns --------------------------------------------------------------- */

/* Where the arguments of a launch are in this turn. */
static void find_args(LlBody *e, const PsLoop *l, const PsPart *p,
                      LLVMValueRef index) {
  LLVMTypeRef byte = LLVMInt8TypeInContext(e->c);
  for (int i = 0; i < p->k->n_args; i++) {
    const PsArg *a = &l->args.data[p->args[i]];
    LLVMValueRef at = LLVMGetParam(e->fn, p->args[i]);
    LLVMValueRef bytes = ll_times_c(e, index, a->step);
    if (a->step) at = LLVMBuildInBoundsGEP2(e->b, byte, at, &bytes, 1, "");
    e->args[i] = at;
  }
}

/* All stages that are done once, or those that are not. */
static void stages(LlBody *e, const PsLoop *l, LLVMValueRef index, bool once,
                   LLVMValueRef counter) {
  Arena a = {0};
  for (uint32_t i = 0; i < l->parts.len; i++) {
    const PsPart *p = &l->parts.data[i];
    LLVMValueRef held = e->held;
    e->kernel = p->k;
    e->args = NEW_ARRAY(&a, LLVMValueRef, (size_t)p->k->n_args);
    e->of = NEW_ARRAY(&a, LLVMValueRef, p->k->n_vals);
    find_args(e, l, p, index);
    for (uint32_t j = 0; j < p->k->stages.len; j++) {
      const KStage *s = &p->k->stages.data[j];
      if (s->once != once) continue;
      ll_warp_items(e, p->k, s, &l->grid);
      if (!once) meet(e, counter, l->grid.blocks);
    }
    LLVMValueRef bytes = ll_index_const(e, p->k->held_bytes);
    e->held = LLVMBuildInBoundsGEP2(e->b, LLVMInt8TypeInContext(e->c), held,
                                    &bytes, 1, "");
  }
  arena_reset(&a);
}

LLVMValueRef ll_persist(LLVMModuleRef m, const Target *t, const PsLoop *l,
                        const char *name) {
  LlBody e = ll_body(m, t->ways);
  Arena a = {0};
  LLVMValueRef zero = ll_index_const(&e, 0), counter = counter_of(&e, name);
  declare(&e, l->args.len + 1, name);
  ll_warp_threads(&e, l->grid.threads);
  LLVMPositionBuilderAtEnd(e.b, ll_new_block(&e, "entry"));
  e.workspace = LLVMGetParam(e.fn, l->args.len);
  e.held_bytes = l->held_bytes;
  LLVMValueRef shared = e.held = ll_shared_memory(&e, 16);
  ll_warp_tiles(&e, &a);
  stages(&e, l, zero, true, counter);
  wait_here(&e);
  LlLoop turn = ll_loop_open(&e, zero);
  ll_loop_test(&e, &turn, ll_index_const(&e, l->turns));
  LLVMValueRef index = turn.iv;
  if (l->reverse)
    index = LLVMBuildSub(e.b, ll_index_const(&e, l->turns - 1), index, "");
  e.held = shared;
  stages(&e, l, index, false, counter);
  ll_loop_close(&e, &turn, 1);
  LLVMBuildRetVoid(e.b);
  LLVMDisposeBuilder(e.b);
  arena_reset(&a);
  return e.fn;
}
