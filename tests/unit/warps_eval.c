/* warps_eval.c: see warps_eval.h. */
#include "warps_eval.h"

#include "../cudasim/cuda_api.h"

#include <llvm-c/Core.h>
#include <stdlib.h>
#include <string.h>

enum {
  SPARE = 64,     /* bytes: no argument is empty */
  MOST_SHARED = 8 /* an attribute of functions, of cuda.h */
};

/* Whether a call went well; else its error is told, once. */
static bool went(Buf *why, const char *what, CUresult result) {
  const char *name = "?";
  if (!result) return true;
  cuGetErrorName(result, &name);
  buf_fmt(why, "%s: %s; ", what, name);
  return false;
}

static bool open_device(Buf *why) {
  static bool is_open;
  CUcontext context;
  if (is_open) return true;
  is_open = went(why, "init", cuInit(0)) &&
            went(why, "context", cuDevicePrimaryCtxRetain(&context, 0)) &&
            went(why, "context", cuCtxSetCurrent(context));
  return is_open;
}

static LLVMMemoryBufferRef ptx_of(const Target *t, const Kernel *k) {
  LLVMModuleRef m = cg_module(t);
  LLVMContextRef c = LLVMGetModuleContext(m);
  LLVMValueRef *bodies = calloc(k->stages.len + 1, sizeof *bodies);
  cg_llvm_kernel(m, t, k, "kernel", bodies);
  free(bodies);
  cg_optimise(t, m);
  LLVMMemoryBufferRef text = cg_machine_code(t, m, true);
  LLVMDisposeModule(m);
  LLVMContextDispose(c);
  return text;
}

static bool encode(const KMap *m, CUdeviceptr at, CUtensorMap *out, Buf *why) {
  enum { BF16 = 9, PROMOTION = 3, SWIZZLE = 3, BYTES = 2 };
  uint64_t size[3], stride[2];
  uint32_t box[3] = {(uint32_t)m->box[0], (uint32_t)m->box[1], 1};
  uint32_t steps[3] = {1, 1, 1};
  for (int i = 0; i < 3; i++)
    size[i] = (uint64_t)m->size[i];
  for (int i = 0; i < 2; i++)
    stride[i] = (uint64_t)m->step[i] * BYTES;
  return went(why, "map",
              cuTensorMapEncodeTiled(out, BF16, 3, (void *)(uintptr_t)at, size,
                                     stride, box, steps, 0, SWIZZLE, PROMOTION,
                                     0));
}

static bool launch_stage(const Kernel *k, const KStage *s, CUfunction f,
                         CUdeviceptr *at, Buf *why) {
  CUtensorMap maps[4];
  WarpGrid g = cg_warp_grid(s);
  size_t n = (size_t)k->n_args + 1;
  void **params = calloc(n + s->maps.len, sizeof *params);
  bool ok = went(why, "shared memory",
                 cuFuncSetAttribute(f, MOST_SHARED, (int)g.shared_bytes));
  for (size_t i = 0; i < n; i++)
    params[i] = &at[i];
  for (uint32_t i = 0; ok && i < s->maps.len; i++) {
    ok = encode(&s->maps.data[i], at[s->maps.data[i].arg], &maps[i], why);
    params[n + i] = &maps[i];
  }
  ok = ok && went(why, "launch",
                  cuLaunchKernel(f, (unsigned)g.blocks, 1, 1,
                                 (unsigned)g.threads, 1, 1,
                                 (unsigned)g.shared_bytes, NULL, params, NULL));
  free(params);
  return ok;
}

/* One stage after the other; `at`: the arguments, then the workspace. */
static bool launch(const Kernel *k, CUmodule module, CUdeviceptr *at,
                   Buf *why) {
  bool ok = true;
  for (uint32_t i = 0; ok && i < k->stages.len; i++) {
    char name[64];
    CUfunction f;
    ll_stage_name("kernel", i, name, sizeof name);
    ok = went(why, name, cuModuleGetFunction(&f, module, name)) &&
         launch_stage(k, &k->stages.data[i], f, at, why) &&
         went(why, name, cuCtxSynchronize());
  }
  return ok;
}

static bool run(const Kernel *k, CUmodule module, const LoopsArg *args,
                Buf *why) {
  CUdeviceptr *at = calloc((size_t)k->n_args + 1, sizeof *at);
  bool ok = true;
  for (int i = 0; ok && i <= k->n_args; i++) {
    int64_t bytes = i < k->n_args ? args[i].bytes : cg_warp_workspace(k);
    ok = went(why, "memory", cuMemAlloc_v2(&at[i], (size_t)bytes + SPARE));
    if (ok && i < k->n_args)
      ok = went(why, "argument",
                cuMemcpyHtoD_v2(at[i], args[i].data, (size_t)bytes));
  }
  ok = ok && launch(k, module, at, why);
  for (int i = 0; i <= k->n_args; i++) {
    if (ok && i < k->n_args)
      ok = went(why, "result", cuMemcpyDtoH_v2(args[i].data, at[i],
                                               (size_t)args[i].bytes));
    if (at[i]) cuMemFree_v2(at[i]);
  }
  free(at);
  return ok;
}

/* Code for arguments as the device's memory has them. */
static void note_places(Ctx *cx, Kernel *k) {
  enum { ALIGNED = 16 };
  uint8_t *all = NEW_ARRAY(&cx->scratch, uint8_t, (size_t)k->n_args);
  memset(all, ALIGNED, (size_t)k->n_args);
  k->aligned = all;
}

bool warps_eval(Ctx *cx, Kernel *k, const LoopsArg *args, Buf *why) {
  CodegenOptions options = {.arch = "sm_80", .opt_level = 2};
  Target t;
  CUmodule module;
  for (uint32_t i = 0; i < k->stages.len; i++)
    if (k->stages.data[i].needs & KN_GROUPS) options.arch = "sm_90a";
  if (!open_device(why) || !cg_cuda_target(cx, &options, &t)) return false;
  note_places(cx, k);
  LLVMMemoryBufferRef text = ptx_of(&t, k);
  bool ok = went(why, "PTX",
                 cuModuleLoadDataEx(&module, LLVMGetBufferStart(text), 0, NULL,
                                    NULL));
  if (ok) {
    ok = run(k, module, args, why);
    cuModuleUnload(module);
  }
  if (!ok && getenv("SHOW")) puts(LLVMGetBufferStart(text));
  LLVMDisposeMemoryBuffer(text);
  cg_target_free(&t);
  return ok;
}
