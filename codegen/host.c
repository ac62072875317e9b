/* host.c: the machine that host code is made for, and LLVM's part in it.
 *
 * Code is made for one of a few levels of x86-64, not for a CPU by name: names
 * are masked in virtual machines, and a level gives the same bytes on every
 * machine that has it; what levels have beyond LLVM's is switched on for the
 * functions that use it, and asked only of machines that run them. Each level
 * is a row below. Every level has fma and
 * rounding instructions; without them LLVM would call libm. */
#include "codegen.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <string.h>

static const char *const v3_features[] = {"avx2", "bmi", "bmi2",
                                          "f16c", "fma", "lzcnt"};
static const char *const v4_features[] = {
    "avx2",    "bmi",      "bmi2",     "f16c",     "fma",     "lzcnt",
    "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"};

const CgNeed cg_needs[CG_NEEDS] = {
    {KN_DOT | KN_NARROW, "avx512bf16"},
    {KN_TILES, "amx-tile"},
    {KN_TILES, "amx-bf16"}};

typedef struct Level {
  const char *cpu, *base; /* the base is LLVM's name */
  const char *const *features;
  size_t n_features;
  Isa isa;
} Level;

#define V3 "x86-64-v3", v3_features, COUNT_OF(v3_features)
#define V4 "x86-64-v4", v4_features, COUNT_OF(v4_features)

/* The best first: `native` takes the first that the machine has. */
static const Level levels[] = {
    {"x86-64-v4-amx", V4, {.lanes = 16, .has = KN_TILES | KN_NARROW}},
    {"x86-64-v4-bf16", V4, {.lanes = 16, .has = KN_DOT | KN_NARROW}},
    {"x86-64-v4", V4, {.lanes = 16}},
    {"x86-64-v3", V3, {.lanes = 8}},
};

static const char triple[] = "x86_64-unknown-linux-gnu";

/* ---- choosing ----------------------------------------------------------- */

/* Whether a feature string "+avx,-sse4a,..." switches `feature` on. */
static bool has_feature(const char *string, const char *feature) {
  size_t n = strlen(feature);
  for (const char *p = string; p; p = strchr(p, ',')) {
    p += *p == ',';
    if (p[0] == '+' && !strncmp(p + 1, feature, n) &&
        (p[1 + n] == ',' || !p[1 + n]))
      return true;
  }
  return false;
}

static const Level *native_level(void) {
  char *host = LLVMGetHostCPUFeatures();
  const Level *found = NULL;
  for (size_t i = 0; i < COUNT_OF(levels) && !found; i++) {
    bool all = true;
    for (size_t f = 0; f < levels[i].n_features; f++)
      all = all && has_feature(host, levels[i].features[f]);
    for (size_t f = 0; f < CG_NEEDS; f++)
      all = all && (!(levels[i].isa.has & cg_needs[f].bits) ||
                    has_feature(host, cg_needs[f].feature));
    if (all) found = &levels[i];
  }
  LLVMDisposeMessage(host);
  return found;
}

static const Level *find_level(Ctx *cx, const char *cpu) {
  Span nowhere = {0};
  if (!strcmp(cpu, "native")) {
    const Level *l = native_level();
    if (!l)
      diag_error(cx, nowhere,
                 "this machine lacks avx2 or fma, the least that "
                 "code is made for");
    return l;
  }
  for (size_t i = 0; i < COUNT_OF(levels); i++)
    if (!strcmp(cpu, levels[i].cpu)) return &levels[i];
  diag_error(cx, nowhere,
             "unknown cpu '%s'; there are native, x86-64-v3, x86-64-v4, "
             "x86-64-v4-bf16 and x86-64-v4-amx",
             cpu);
  return NULL;
}

bool cg_target(Ctx *cx, const CodegenOptions *o, Target *out) {
  *out = (Target){0};
  const Level *l = find_level(cx, o->cpu);
  if (!l) return false;
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  char *message = NULL;
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(triple, &target, &message))
    internal_error("LLVM without x86-64: %s", message);
  out->cpu = l->base;
  out->features = l->features;
  out->n_features = (int)l->n_features;
  out->isa = l->isa;
  out->device = MOERT_CPU;
  out->triple = triple;
  out->ways = &ll_x86;
  out->machine = LLVMCreateTargetMachine(target, triple, l->base, "",
                                         o->opt_level ? LLVMCodeGenLevelDefault
                                                      : LLVMCodeGenLevelLess,
                                         LLVMRelocPIC, LLVMCodeModelSmall);
  return true;
}

void cg_target_free(Target *t) {
  if (t->machine) LLVMDisposeTargetMachine(t->machine);
  *t = (Target){0};
}

/* ---- a module's way to machine code ------------------------------------- */

LLVMModuleRef cg_module(const Target *t) {
  LLVMModuleRef m =
      LLVMModuleCreateWithNameInContext("model", LLVMContextCreate());
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(t->machine);
  LLVMSetModuleDataLayout(m, layout);
  LLVMDisposeTargetData(layout);
  LLVMSetTarget(m, t->triple);
  return m;
}

/* Vectors and tails are explicit, so LLVM is left with tidying: addresses,
 * common parts, loop-invariant code, unrolling of short loops; and, in data,
 * what a program that could not be made has left, and texts that several have.
 */
static const char passes[] =
    "globaldce,constmerge,function(mem2reg,early-cse<memssa>,simplifycfg,"
    "instcombine<no-verify-fixpoint>,"
    "loop-mssa(loop-rotate,licm),simplifycfg,instcombine<no-verify-fixpoint>,"
    "loop(indvars,loop-unroll-full),gvn,instcombine<no-verify-fixpoint>,"
    "simplifycfg,adce)";

void cg_optimise(const Target *t, LLVMModuleRef m) {
  char *message = NULL;
  if (LLVMVerifyModule(m, LLVMReturnStatusAction, &message))
    internal_error("generated code is malformed: %s", message);
  LLVMDisposeMessage(message);
  LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
  LLVMErrorRef err = LLVMRunPasses(m, passes, t->machine, o);
  if (err) internal_error("LLVM: %s", LLVMGetErrorMessage(err));
  LLVMDisposePassBuilderOptions(o);
}

LLVMMemoryBufferRef cg_machine_code(const Target *t, LLVMModuleRef m,
                                    bool text) {
  char *message = NULL;
  LLVMMemoryBufferRef out = NULL;
  if (LLVMTargetMachineEmitToMemoryBuffer(
          t->machine, m, text ? LLVMAssemblyFile : LLVMObjectFile, &message,
          &out))
    internal_error("LLVM: %s", message);
  return out;
}
