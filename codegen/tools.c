/* tools.c: programs of others that moec runs: the linker, and NVIDIA's
 * assembler where there is one.
 *
 * Both are looked for in PATH. What ptxas has to say of a kernel are lines of
 * text:
 *
 *   ptxas info    : Compiling entry function 'k3_rows_0' for 'sm_80'
 *       8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
 *   ptxas info    : Used 32 registers, used 0 barriers, 1024 bytes smem, ...
 */
#include "codegen.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const Span nowhere;

/* ---- running one --------------------------------------------------------- */

static void read_text(int fd, Buf *out) {
  char some[4096];
  for (;;) {
    ssize_t got = read(fd, some, sizeof some);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    buf_add_n(out, some, (size_t)got);
  }
}

/* Starts a program with its messages going to a pipe. */
static int start(char *const argv[], pid_t *out_pid, int *out_fd) {
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

/* Its exit status, as wait gives it, and what it printed; or why it cannot be
 * run, as errno does. */
static int run(char *const argv[], int *out_status, Buf *out_said) {
  pid_t pid;
  int fd = -1;
  buf_add(out_said, "");
  int err = start(argv, &pid, &fd);
  if (err) return err;
  read_text(fd, out_said);
  close(fd);
  while (waitpid(pid, out_status, 0) < 0 && errno == EINTR)
    continue;
  return 0;
}

/* ---- ld ------------------------------------------------------------------ */

bool cg_ld(Ctx *cx, const char *object, const char *library) {
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
  enum { SHOWN = 2000 };
  Buf said = {0};
  int status = 0, err = run(argv, &status, &said);
  while (said.len && said.data[said.len - 1] == '\n')
    said.data[--said.len] = '\0';
  if (err)
    diag_error(cx, nowhere, "cannot run the linker 'ld': %s", strerror(err));
  else if (status)
    diag_error(cx, nowhere, "the linker failed: %.*s", SHOWN,
               said.len ? said.data : "without a message");
  buf_free(&said);
  return !err && status == 0;
}

/* ---- ptxas --------------------------------------------------------------- */

/* The number in front of `unit` in [text, end), 0 where there is none. */
static int64_t number_of(const char *text, const char *end, const char *unit) {
  const char *at = strstr(text, unit);
  if (!at || at >= end) return 0;
  while (at > text && at[-1] >= '0' && at[-1] <= '9')
    at--;
  return strtoll(at, NULL, 10);
}

/* One kernel's part of what ptxas said, from its name on. */
static CgPtxas read_kernel(Ctx *cx, const char *name, const char *end) {
  size_t len = strcspn(name, "'");
  return (CgPtxas){
      .symbol = sym_n(cx, name, len),
      .registers = (int)number_of(name, end, " registers"),
      .shared_bytes = number_of(name, end, " bytes smem"),
      .spill_bytes = number_of(name, end, " bytes spill stores") +
                     number_of(name, end, " bytes spill loads")};
}

static void read_kernels(Ctx *cx, const char *said, CgPtxasVec *out) {
  static const char mark[] = "Compiling entry function '";
  const char *at = strstr(said, mark);
  while (at) {
    const char *name = at + sizeof mark - 1;
    at = strstr(name, mark);
    const char *end = at ? at : name + strlen(name);
    vec_push(&cx->perm, out, read_kernel(cx, name, end));
  }
}

static Sym assemble(Ctx *cx, const char *dir, const char *ptx,
                    const char *arch, CgPtxasVec *out) {
  Sym from = sym_fmt(cx, "%s/kernels.ptx", dir);
  Sym to = sym_fmt(cx, "%s/kernels.cubin", dir);
  char *argv[] = {"ptxas",      "-v", (char *)sym_fmt(cx, "-arch=%s", arch),
                  (char *)from, "-o", (char *)to,
                  NULL};
  Buf said = {0};
  int status = 0, err = 0;
  Sym why = NULL;
  if (!file_write(from, ptx, strlen(ptx)))
    why = sym_fmt(cx, "cannot write '%s': %s", from, strerror(errno));
  else if ((err = run(argv, &status, &said)) == ENOENT)
    why = sym(cx, "there is no ptxas in PATH");
  else if (err)
    why = sym_fmt(cx, "cannot run ptxas: %s", strerror(err));
  else if (status)
    why = sym_fmt(cx, "ptxas failed: %.*s", (int)strcspn(said.data, "\n"),
                  said.data);
  else
    read_kernels(cx, said.data, out);
  buf_free(&said);
  unlink(from);
  unlink(to);
  return why;
}

/* In a folder of its own. */
Sym cg_ptxas(Ctx *cx, const char *ptx, const char *arch, CgPtxasVec *out) {
  const char *tmp = getenv("TMPDIR");
  Buf dir = {0};
  buf_fmt(&dir, "%s/moec-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
  Sym why;
  if (mkdtemp(dir.data)) {
    why = assemble(cx, dir.data, ptx, arch, out);
    rmdir(dir.data);
  } else {
    why = sym_fmt(cx, "cannot make a folder '%s': %s", dir.data,
                  strerror(errno));
  }
  buf_free(&dir);
  return why;
}
