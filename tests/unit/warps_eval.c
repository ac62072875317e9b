/* warps_eval.c: see warps_eval.h. */
#include "warps_eval.h"

#include "../cudasim/cuda_api.h"

#include <llvm-c/Core.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE = 64 }; /* bytes: no argument is empty */

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

/* One stage after the other; `at`: the arguments, then the workspace. */
static bool launch(const Kernel *k, CUmodule module, CUdeviceptr *at,
                   Buf *why) {
  void **params = calloc((size_t)k->n_args + 1, sizeof *params);
  bool ok = true;
  for (int i = 0; i <= k->n_args; i++)
    params[i] = &at[i];
  for (uint32_t i = 0; ok && i < k->stages.len; i++) {
    char name[64];
    CUfunction f;
    WarpGrid g = cg_warp_grid(&k->stages.data[i]);
    ll_stage_name("kernel", i, name, sizeof name);
    ok = went(why, name, cuModuleGetFunction(&f, module, name)) &&
         went(why, name,
              cuLaunchKernel(f, (unsigned)g.blocks, 1, 1, (unsigned)g.threads,
                             1, 1, (unsigned)g.shared_bytes, NULL, params,
                             NULL)) &&
         went(why, name, cuCtxSynchronize());
  }
  free(params);
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
  static const CodegenOptions options = {.arch = "sm_80", .opt_level = 2};
  Target t;
  CUmodule module;
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
