/* texts.c: what a library would be made of, as text: kernel loops, LLVM's IR,
 * assembly, PTX. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>

/* ---- kernels alone ------------------------------------------------------ */

typedef struct Kernels {
  CgLowered lowered;
  void (*each)(void *user, const Kernel *k);
  void *user;
  Arena a;
  Map seen;
} Kernels;

static void kernels_of(Kernels *ks, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    MoertGemm g;
    bool swapped;
    if (n->op == OP_scan) kernels_of(ks, n->body);
    if (n->op == OP_scan || n->op == OP_reshape ||
        op_info[n->op].lower == LOWER_COMM || n->op == OP_wait ||
        (n->op == OP_contract && cg_gemm(n, ks->lowered.isa, &g, &swapped)))
      continue;
    Kernel *k = cg_lower_once(&ks->lowered, n);
    if (!k) continue;
    const void *key = (const void *)(uintptr_t)k->hash;
    if (map_get(&ks->seen, key)) continue;
    map_put(&ks->a, &ks->seen, key, k);
    ks->each(ks->user, k);
  }
}

void cg_kernels(Module *m, const Isa *isa,
                void (*each)(void *user, const Kernel *k), void *user) {
  Kernels ks = {
      .lowered = {.cx = m->cx, .isa = isa}, .each = each, .user = user};
  for (uint32_t i = 0; i < m->entries.len; i++)
    kernels_of(&ks, m->entries.data[i]->region);
  arena_reset(&ks.a);
}

/* ---- texts --------------------------------------------------------------- */

static void print_kernel(void *user, const Kernel *k) {
  cg_print_kernel(k, user);
}

/* LLVM's text of a program's kernels, or machine code in words. */
static bool emit_code(const CgProgram *p, const Target *t,
                      const CodegenOptions *o, const char *kind, Buf *out) {
  Target host;
  if (!cg_target(p->m->cx, o, &host)) return false;
  bool is_host = t->device == MOERT_CPU;
  LLVMModuleRef data = cg_module(&host);
  LLVMModuleRef ll = is_host ? data : cg_module(t);
  LLVMValueRef d = cg_table(p, t, o, data, ll, NULL);
  if (d) cg_export(d);
  if (d && is_host) cg_optimise(t, ll);
  if (d && !strcmp(kind, "llvm")) {
    char *text = LLVMPrintModuleToString(ll);
    buf_add(out, text);
    LLVMDisposeMessage(text);
  } else if (d) {
    LLVMMemoryBufferRef code = cg_machine_code(t, ll, true);
    buf_add_n(out, LLVMGetBufferStart(code), LLVMGetBufferSize(code));
    LLVMDisposeMemoryBuffer(code);
  }
  if (!is_host) cg_free_module(ll);
  cg_free_module(data);
  cg_target_free(&host);
  return d != NULL;
}

bool cg_emit_text(const CgPrograms *p, const CodegenOptions *o,
                  const char *kind, Buf *out) {
  Target t;
  int device = !strcmp(kind, "ptx") ? MOERT_CUDA : MOERT_CPU;
  while (!p->of[device].m)
    device++;
  const CgProgram *one = &p->of[device];
  bool ok = cg_target_of(one->m->cx, o, device, &t);
  if (ok && !strcmp(kind, "loops"))
    cg_kernels(one->m, &t.isa, print_kernel, out);
  else if (ok)
    ok = emit_code(one, &t, o, kind, out);
  cg_target_free(&t);
  return ok;
}
