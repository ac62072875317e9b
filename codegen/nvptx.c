/* nvptx.c: NVIDIA GPUs as a target, and LLVM's part in it.
 *
 * Code is PTX for an architecture and later ones, in the oldest version of that
 * language that knows it: the driver makes machine code of it. Vectors are
 * those of llvm_warp.c: 128 lanes of four bytes are 16 bytes a thread, and 32
 * the least. Mathematics is what `expand` has made of it, and no instruction is
 * fused or approximate that the kernel loops do not ask for. */
#include "group.h"

#include <llvm-c/Core.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>

static const char triple[] = "nvptx64-nvidia-cuda";

/* Figures without sparsity: NVIDIA A100 Tensor Core GPU data sheet, June 2021,
 * SXM with 80 GB; NVIDIA H100 Tensor Core GPU data sheet, 2023, SXM. f32 is
 * that of plain instructions, f64 that of tensor cores. */
#define A100                                                     \
  "A100 SXM", {[DT_bf16] = 312e12, [DT_f32] = 19.5e12,           \
               [DT_f64] = 19.5e12},                              \
      156e12, 2.039e12, 108, 163 << 10
#define H100                                                     \
  "H100 SXM", {[DT_bf16] = 989e12, [DT_f32] = 67e12,             \
               [DT_f64] = 67e12},                                \
      494.5e12, 3.35e12, 132, CT_GROUP_BYTES
static const CgGpu gpus[] = {
    {"sm_80", "+ptx70", A100, KN_MMA},
    {"sm_90", "+ptx78", H100, KN_MMA},
    {"sm_90a", "+ptx80", H100, KN_MMA | KN_GROUPS},
};

const CgGpu *cg_gpu(const char *arch) {
  for (size_t i = 0; i < COUNT_OF(gpus); i++)
    if (!strcmp(gpus[i].arch, arch)) return &gpus[i];
  return NULL;
}

/* Blocks that begin with an instruction of no line at all keep the last one. */
static void init(void) {
  static const char *const options[] = {"moec",
                                        "-use-unknown-locations=Disable"};
  static bool done;
  if (done) return;
  done = true;
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
  LLVMParseCommandLineOptions(COUNT_OF(options), options, "");
}

bool cg_cuda_target(Ctx *cx, const CodegenOptions *o, Target *out) {
  *out = (Target){0};
  const CgGpu *gpu = cg_gpu(o->arch);
  if (!gpu) {
    diag_error(cx, (Span){0},
               "unknown architecture '%s'; there are sm_80, sm_90 and sm_90a",
               o->arch);
    return false;
  }
  init();
  char *message = NULL;
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(triple, &target, &message))
    internal_error("LLVM without NVPTX: %s", message);
  out->device = MOERT_CUDA;
  out->cpu = gpu->arch;
  out->isa = (Isa){
      .lanes = 128, .has = gpu->has, .least = 32, .cores = gpu->cores};
  if (o->tf32) out->isa.has |= KN_TF32;
  out->triple = triple;
  out->ways = &ll_warp;
  out->machine = LLVMCreateTargetMachine(
      target, triple, gpu->arch, gpu->ptx,
      o->opt_level ? LLVMCodeGenLevelDefault : LLVMCodeGenLevelLess,
      LLVMRelocDefault, LLVMCodeModelDefault);
  return true;
}
