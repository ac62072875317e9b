/* nvptx.c: NVIDIA GPUs as a target, and LLVM's part in it.
 *
 * Code is PTX for an architecture and later ones, in the oldest version of that
 * language that knows it: the driver makes machine code of it. Vectors are
 * those of llvm_warp.c: 128 lanes of four bytes are 16 bytes a thread, and 32
 * the least. Mathematics is what `expand` has made of it, and no instruction is
 * fused or approximate that the kernel loops do not ask for. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>

static const char triple[] = "nvptx64-nvidia-cuda";

static const struct {
  const char *name, *ptx;
} archs[] = {
    {"sm_80", "+ptx70"},
    {"sm_90", "+ptx78"},
    {"sm_90a", "+ptx80"},
};

bool cg_cuda_target(Ctx *cx, const CodegenOptions *o, Target *out) {
  *out = (Target){0};
  size_t i = 0;
  while (i < COUNT_OF(archs) && strcmp(archs[i].name, o->arch))
    i++;
  if (i == COUNT_OF(archs)) {
    diag_error(cx, (Span){0},
               "unknown architecture '%s'; there are sm_80, sm_90 and sm_90a",
               o->arch);
    return false;
  }
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
  char *message = NULL;
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(triple, &target, &message))
    internal_error("LLVM without NVPTX: %s", message);
  out->device = MOERT_CUDA;
  out->cpu = archs[i].name;
  out->isa = (Isa){.lanes = 128, .has = KN_MMA, .least = 32};
  out->triple = triple;
  out->ways = &ll_warp;
  out->machine = LLVMCreateTargetMachine(
      target, triple, archs[i].name, archs[i].ptx,
      o->opt_level ? LLVMCodeGenLevelDefault : LLVMCodeGenLevelLess,
      LLVMRelocDefault, LLVMCodeModelDefault);
  return true;
}
