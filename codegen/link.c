/* link.c: from a planned module to a shared library, and the texts on the way.
 *
 * Object code goes to a file beside the library, `ld` makes a library of it
 * that is complete in itself, and only then is it renamed: a library that is
 * there is whole. What the environment does to us here (no ld, no space, no
 * permission) is a diagnostic. */
#include "codegen.h"

#include <errno.h>
#include <fcntl.h>
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const Span nowhere;

/* Runs `write` over all bytes; errno says why it failed. */
static bool write_all(int fd, const char *data, size_t n) {
  while (n) {
    ssize_t got = write(fd, data, n);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    data += got;
    n -= (size_t)got;
  }
  return true;
}

static bool write_file(Ctx *cx, const char *path, LLVMMemoryBufferRef text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  bool ok = fd >= 0 &&
            write_all(fd, LLVMGetBufferStart(text), LLVMGetBufferSize(text));
  int why = errno;
  if (fd >= 0 && close(fd) && ok) {
    why = errno;
    ok = false;
  }
  if (!ok)
    diag_error(cx, nowhere, "cannot write '%s': %s", path, strerror(why));
  return ok;
}

/* ---- ld ----------------------------------------------------------------- */

/* All that can be read from a pipe, at most a screenful. */
static void read_text(int fd, char *out, size_t cap) {
  size_t len = 0;
  char drop[512];
  for (;;) {
    bool full = len + 1 >= cap;
    ssize_t got =
        full ? read(fd, drop, sizeof drop) : read(fd, out + len, cap - 1 - len);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (!full) len += (size_t)got;
  }
  while (len && out[len - 1] == '\n')
    len--;
  out[len] = '\0';
}

/* Starts ld with its messages going to a pipe. */
static int spawn_ld(char *const argv[], pid_t *out_pid, int *out_fd) {
  int pipe_fd[2];
  if (pipe2(pipe_fd, O_CLOEXEC)) return errno;
  posix_spawn_file_actions_t fa;
  posix_spawn_file_actions_init(&fa);
  posix_spawn_file_actions_adddup2(&fa, pipe_fd[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&fa, pipe_fd[1], STDERR_FILENO);
  int err = posix_spawnp(out_pid, argv[0], &fa, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&fa);
  close(pipe_fd[1]);
  if (err)
    close(pipe_fd[0]);
  else
    *out_fd = pipe_fd[0];
  return err;
}

static bool run_ld(Ctx *cx, const char *object, const char *library) {
  char *argv[] = {"ld",
                  "-shared",
                  "--build-id=none",
                  "--hash-style=gnu",
                  "-z",
                  "noexecstack",
                  "-z",
                  "now",
                  "--no-undefined",
                  "-o",
                  (char *)library,
                  (char *)object,
                  NULL};
  char said[2000];
  pid_t pid;
  int fd = -1, status = 0;
  int err = spawn_ld(argv, &pid, &fd);
  if (err) {
    diag_error(cx, nowhere, "cannot run the linker 'ld': %s", strerror(err));
    return false;
  }
  read_text(fd, said, sizeof said);
  close(fd);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    continue;
  if (status)
    diag_error(cx, nowhere, "the linker failed: %s",
               said[0] ? said : "without a message");
  return status == 0;
}

/* ---- the library -------------------------------------------------------- */

static void free_module(LLVMModuleRef m) {
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

/* Machine code of the whole module, or NULL after diagnostics. */
static LLVMMemoryBufferRef compile(Module *m, const CodegenOptions *o,
                                   bool text) {
  Target t;
  if (!cg_target(m->cx, o, &t)) return NULL;
  warn_of_slow_bf16(m, o, &t);
  LLVMModuleRef out = cg_module(&t);
  cg_table(m, &t, o, out);
  cg_optimise(&t, out);
  LLVMMemoryBufferRef code = cg_machine_code(&t, out, text);
  free_module(out);
  cg_target_free(&t);
  return code;
}

/* A rename would put the library in the place of a device or a pipe. */
static bool may_replace(Ctx *cx, const char *path) {
  struct stat info;
  if (stat(path, &info) || S_ISREG(info.st_mode)) return true;
  diag_error(cx, nowhere, "cannot write '%s': not a file", path);
  return false;
}

bool cg_library(Module *m, const CodegenOptions *o, const char *path) {
  Ctx *cx = m->cx;
  if (!may_replace(cx, path)) return false;
  LLVMMemoryBufferRef code = compile(m, o, false);
  if (!code) return false;
  Sym object = sym_fmt(cx, "%s.%d.o", path, (int)getpid());
  Sym aside = sym_fmt(cx, "%s.%d", path, (int)getpid());
  bool ok = write_file(cx, object, code);
  LLVMDisposeMemoryBuffer(code);
  ok = ok && run_ld(cx, object, aside);
  unlink(object);
  if (ok && rename(aside, path)) {
    diag_error(cx, nowhere, "cannot write '%s': %s", path, strerror(errno));
    ok = false;
  }
  if (!ok) unlink(aside);
  return ok;
}

/* ---- texts -------------------------------------------------------------- */

static void print_kernel(void *user, const Kernel *k) {
  cg_print_kernel(k, user);
}

bool cg_emit_text(Module *m, const CodegenOptions *o, const char *kind,
                  Buf *out) {
  Target t;
  if (!cg_target(m->cx, o, &t)) return false;
  if (!strcmp(kind, "loops")) {
    cg_kernels(m, &t.isa, print_kernel, out);
    cg_target_free(&t);
    return true;
  }
  LLVMModuleRef ll = cg_module(&t);
  cg_table(m, &t, o, ll);
  cg_optimise(&t, ll);
  if (!strcmp(kind, "llvm")) {
    char *text = LLVMPrintModuleToString(ll);
    buf_add(out, text);
    LLVMDisposeMessage(text);
  } else {
    LLVMMemoryBufferRef code = cg_machine_code(&t, ll, true);
    buf_add_n(out, LLVMGetBufferStart(code), LLVMGetBufferSize(code));
    LLVMDisposeMemoryBuffer(code);
  }
  free_module(ll);
  cg_target_free(&t);
  return true;
}
