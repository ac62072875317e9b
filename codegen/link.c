/* link.c: from planned modules to a shared library.
 *
 * Object code goes to a file beside the library, `ld` makes a library of it
 * that is complete in itself, and only then is it renamed: a library that is
 * there is whole. What the environment does to us here (no ld, no space, no
 * permission) is a diagnostic. */
#include "codegen.h"

#include <errno.h>
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const Span nowhere;

static bool write_file(Ctx *cx, const char *path, LLVMMemoryBufferRef text) {
  bool ok = file_write(path, LLVMGetBufferStart(text),
                       LLVMGetBufferSize(text));
  if (!ok)
    diag_error(cx, nowhere, "cannot write '%s': %s", path, strerror(errno));
  return ok;
}

void cg_free_module(LLVMModuleRef m) {
  LLVMContextRef c = LLVMGetModuleContext(m);
  LLVMDisposeModule(m);
  LLVMContextDispose(c);
}

static bool has_bf16_products(const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op == OP_contract && n->ins.data[0]->type.dtype == DT_bf16)
      return true;
    if (n->body && has_bf16_products(n->body)) return true;
  }
  return false;
}

static void warn_of_slow_bf16(Module *m, const CodegenOptions *o,
                              const Target *t) {
  bool any = false;
  for (uint32_t i = 0; i < m->entries.len; i++)
    any |= has_bf16_products(m->entries.data[i]->region);
  if (any && !t->isa.has)
    diag_warning(m->cx, nowhere,
                 "no fast products of bf16 are known of %s: where there are "
                 "none, they are widened to f32",
                 strcmp(o->cpu, "native") ? o->cpu : "this machine");
}

/* ---- programs ------------------------------------------------------------ */

bool cg_target_of(Ctx *cx, const CodegenOptions *o, int device, Target *out) {
  return (device == MOERT_CUDA ? cg_cuda_target : cg_target)(cx, o, out);
}

static Ctx *context_of(const CgPrograms *p) {
  for (int d = 0; d < MOERT_DEVICE_COUNT; d++)
    if (p->of[d].m) return p->of[d].m->cx;
  internal_error("a library without a program");
}

/* Adds the program for one device, in front of `next`. */
static LLVMValueRef add_program(const CgPrograms *p, const CodegenOptions *o,
                                int device, LLVMModuleRef data,
                                LLVMValueRef next) {
  Target t;
  const CgProgram *one = &p->of[device];
  if (!cg_target_of(one->m->cx, o, device, &t)) return NULL;
  bool host = device == MOERT_CPU;
  if (host) warn_of_slow_bf16(one->m, o, &t);
  LLVMModuleRef code = host ? data : cg_module(&t);
  LLVMValueRef d = cg_table(one, &t, o, data, code, next);
  if (!host) cg_free_module(code);
  cg_target_free(&t);
  return d;
}

void cg_warn_of_lack(Ctx *cx, const Diag *why) {
  if (!why->message) internal_error("a program is lacking, nothing says why");
  diag_warning(cx, why->span, "%s: the library holds the CPU's program alone",
               why->message);
}

void cg_export(LLVMValueRef descriptor) {
  LLVMSetValueName2(descriptor, "moert_model", strlen("moert_model"));
  LLVMSetLinkage(descriptor, LLVMExternalLinkage);
}

/* All programs, that for the CPU in front. False: diagnostics. */
static bool add_programs(const CgPrograms *p, const CodegenOptions *o,
                         LLVMModuleRef data) {
  LLVMValueRef first = NULL, next;
  Ctx *cx = context_of(p);
  bool lacking = false;
  Diag lacks;
  for (int d = MOERT_DEVICE_COUNT; d-- > 0;) {
    uint32_t before = cx->diags.len;
    if (!p->of[d].m) continue;
    next = add_program(p, o, d, data, first);
    if (!next && !p->of[d].may_lack) return false;
    if (!next) {
      lacks = diag_take(cx, before);
      lacking = true;
    } else {
      first = next;
    }
  }
  if (lacking) cg_warn_of_lack(cx, &lacks);
  cg_export(first);
  return true;
}

/* The library's object code, or NULL after diagnostics. */
static LLVMMemoryBufferRef compile(const CgPrograms *p,
                                   const CodegenOptions *o) {
  Target host;
  if (!cg_target(context_of(p), o, &host)) return NULL;
  LLVMModuleRef data = cg_module(&host);
  LLVMMemoryBufferRef code = NULL;
  if (add_programs(p, o, data)) {
    cg_optimise(&host, data);
    code = cg_machine_code(&host, data, false);
  }
  cg_free_module(data);
  cg_target_free(&host);
  return code;
}

/* ---- the library -------------------------------------------------------- */

/* A rename would put the library in the place of a device or a pipe. */
static bool may_replace(Ctx *cx, const char *path) {
  struct stat info;
  if (stat(path, &info) || S_ISREG(info.st_mode)) return true;
  diag_error(cx, nowhere, "cannot write '%s': not a file", path);
  return false;
}

bool cg_library(const CgPrograms *p, const CodegenOptions *o,
                const char *path) {
  Ctx *cx = context_of(p);
  if (!may_replace(cx, path)) return false;
  LLVMMemoryBufferRef code = compile(p, o);
  if (!code) return false;
  Sym object = sym_fmt(cx, "%s.%d.o", path, (int)getpid());
  Sym aside = sym_fmt(cx, "%s.%d", path, (int)getpid());
  bool ok = write_file(cx, object, code);
  LLVMDisposeMemoryBuffer(code);
  ok = ok && cg_ld(cx, object, aside);
  unlink(object);
  if (ok && rename(aside, path)) {
    diag_error(cx, nowhere, "cannot write '%s': %s", path, strerror(errno));
    ok = false;
  }
  if (!ok) unlink(aside);
  return ok;
}
