/* cudasim.c: the stand-in for libcuda.so.1, by PTX files with known results.
 *
 * tests/cudasim/NAME.ptx says in comments what to run, and with what:
 *
 *   // launch: KERNEL grid=2 block=64 shared=256 together
 *   // in: f32 1 2.5 3*4 0..31        a buffer and what is in it
 *   // new: f32 8                     a buffer, unwritten, of so many values
 *   // out: u32 0xffffffff 2          a buffer, unwritten, and what must be in
 *                                     it; behind an `in` of the same type
 *                                     with `same`, what has become of that
 *   // error: CUDA_ERROR_... TEXT     the status, and a part of the message
 *
 * Each buffer's address is a parameter of the kernel, in this order. Floats are
 * compared bit by bit, but NaNs with any NaN; `near` in front of the values
 * allows for rounding. A file whose first line is `// error: ...` must not
 * load. */
#include "../cudasim/cuda_api.h"
#include "tiny.h"

#include <dlfcn.h>
#include <glob.h>
#include <math.h>

/* ---- the library --------------------------------------------------------- */

#define CALLS(X)                                                             \
  X(cuInit) X(cuGetErrorName) X(cuDevicePrimaryCtxRetain)                    \
  X(cuDevicePrimaryCtxReset_v2) X(cuCtxSetCurrent) X(cuMemAlloc_v2)          \
  X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2) X(cuModuleLoadDataEx)                \
  X(cuModuleGetFunction) X(cuLaunchKernel) X(cuLaunchCooperativeKernel)      \
  X(cuCtxSynchronize)
#define DECLARE(name) static __typeof__(&name) p_##name;
CALLS(DECLARE)
#undef DECLARE

static void open_library(void) {
  void *lib = dlopen(beside("../tests/cudasim/libcuda.so.1"), RTLD_NOW);
  if (!lib) {
    printf("not ok cudasim: %s\n", dlerror());
    exit(1);
  }
#define FIND(name) *(void **)&p_##name = dlsym(lib, #name);
  CALLS(FIND)
#undef FIND
}

/* ---- the text of cases --------------------------------------------------- */

enum { VALUES = 4096, BUFFERS = 24 };

typedef struct Format {
  const char *name;
  int bytes;
  bool is_float;
} Format;
static const Format formats[] = {
    {"u8", 1, false},  {"u16", 2, false}, {"u32", 4, false},
    {"s32", 4, false}, {"u64", 8, false}, {"f32", 4, true},
    {"f64", 8, true},
};

typedef struct Buffer {
  const Format *format;
  char kind; /* i(n), n(ew), o(ut), s(ame): an out in the buffer before */
  bool near;
  int n;
  uint64_t values[VALUES]; /* bits of each */
  CUdeviceptr at;
} Buffer;

typedef struct Case {
  char kernel[64];
  unsigned grid, block, shared;
  bool together; /* a cooperative launch */
  char error[256];
  Buffer buffers[BUFFERS];
  int n;
} Case;

static uint64_t one_value(const Format *f, char **at) {
  uint64_t bits = 0;
  if (f->is_float && !(at[0][0] == '0' && at[0][1] == 'x')) {
    double d = strtod(*at, at);
    float s = (float)d;
    if (f->bytes == 4) memcpy(&bits, &s, 4);
    else memcpy(&bits, &d, 8);
    return bits;
  }
  bits = **at == '-' ? (uint64_t)strtoll(*at, at, 0) : strtoull(*at, at, 0);
  return f->bytes < 8 ? bits & ((UINT64_C(1) << 8 * f->bytes) - 1) : bits;
}

/* v, v*count or first..last */
static void read_values(Buffer *b, char *text) {
  for (;;) {
    text += strspn(text, " ");
    if (!*text) return;
    char *start = text;
    uint64_t v = one_value(b->format, &text);
    long count = 1, step = 0;
    if (text == start || b->n == VALUES) {
      printf("not ok cudasim: these are no values: %s\n", start);
      exit(1);
    }
    if (*text == '*') {
      count = strtol(text + 1, &text, 10);
    } else if (text[0] == '.' && text[1] == '.') {
      step = 1;
      count = strtol(text + 2, &text, 10) - (long)v + 1;
    }
    for (long k = 0; k < count && b->n < VALUES; k++)
      b->values[b->n++] = v + (uint64_t)(step * k);
  }
}

static void read_buffer(Case *c, char kind, char *text) {
  Buffer *b = &c->buffers[c->n++];
  *b = (Buffer){.kind = kind};
  for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
    size_t n = strlen(formats[k].name);
    if (strncmp(text, formats[k].name, n) || text[n] != ' ') continue;
    b->format = &formats[k];
    text += n + 1;
  }
  if (!strncmp(text, "same ", 5)) {
    b->kind = 's';
    text += 5;
  }
  if (!strncmp(text, "near ", 5)) {
    b->near = true;
    text += 5;
  }
  if (kind == 'n') b->n = atoi(text);
  else if (b->format) read_values(b, text);
}

/* One line of comment; behind a launch, what belongs to it. */
static void read_line(Case *c, char *line) {
  if (!strncmp(line, "// in: ", 7)) read_buffer(c, 'i', line + 7);
  else if (!strncmp(line, "// new: ", 8)) read_buffer(c, 'n', line + 8);
  else if (!strncmp(line, "// out: ", 8)) read_buffer(c, 'o', line + 8);
  else if (!strncmp(line, "// error: ", 10))
    snprintf(c->error, sizeof c->error, "%s", line + 10);
}

static void read_launch(Case *c, const char *line) {
  *c = (Case){.grid = 1, .block = 32};
  sscanf(line, "// launch: %63s", c->kernel);
  const char *at;
  if ((at = strstr(line, "grid="))) c->grid = (unsigned)atoi(at + 5);
  if ((at = strstr(line, "block="))) c->block = (unsigned)atoi(at + 6);
  if ((at = strstr(line, "shared="))) c->shared = (unsigned)atoi(at + 7);
  c->together = strstr(line, " together");
}

/* ---- running a case ------------------------------------------------------ */

static char why[1024];

static char *read_file(const char *path) {
  FILE *f = fopen(path, "r");
  char *text = calloc(1, 1 << 20);
  if (!f || !text || fread(text, 1, (1 << 20) - 1, f) == 0) text[0] = 0;
  if (f) fclose(f);
  return text;
}

/* "CUDA_ERROR_... TEXT" against what was returned and written to the log. */
static bool fails_so(CUresult r, const char *expected) {
  const char *name = "";
  p_cuGetErrorName(r, &name);
  size_t n = strlen(name);
  char *log = read_file(scratch("log"));
  bool ok = !strncmp(expected, name, n) &&
            (expected[n] == 0 || strstr(log, expected + n + 1));
  if (!ok) snprintf(why, sizeof why, "%s: %.800s", name, log);
  free(log);
  return ok;
}

static bool same(const Buffer *b, uint64_t x, uint64_t y) {
  double p = 0, q = 0;
  if (!b->format->is_float) return x == y;
  if (b->format->bytes == 8) {
    memcpy(&p, &x, 8);
    memcpy(&q, &y, 8);
  } else {
    float s, t;
    memcpy(&s, &x, 4);
    memcpy(&t, &y, 4);
    p = s;
    q = t;
  }
  if (b->near) return fabs(p - q) <= 1e-5 * (fabs(p) + fabs(q)) + 1e-6;
  return x == y || (p != p && q != q);
}

static bool check_buffer(const Case *c, int which) {
  const Buffer *b = &c->buffers[which];
  int bytes = b->format->bytes;
  uint8_t *got = calloc((size_t)b->n, (size_t)bytes);
  CUresult r = p_cuMemcpyDtoH_v2(got, b->at, (size_t)(b->n * bytes));
  bool ok = !r;
  if (r) snprintf(why, sizeof why, "%d from copying", (int)r);
  for (int k = 0; k < b->n && ok; k++) {
    uint64_t v = 0;
    memcpy(&v, got + k * bytes, (size_t)bytes);
    ok = same(b, v, b->values[k]);
    if (!ok)
      snprintf(why, sizeof why, "buffer %d [%d] is 0x%llx, not 0x%llx", which,
               k, (unsigned long long)v, (unsigned long long)b->values[k]);
  }
  free(got);
  return ok;
}

static CUresult fill_buffer(Case *c, int which) {
  Buffer *b = &c->buffers[which];
  int bytes = b->format->bytes;
  if (b->kind == 's') {
    b->at = b[-1].at;
    return CUDA_SUCCESS;
  }
  CUresult r = p_cuMemAlloc_v2(&b->at, (size_t)(b->n * bytes));
  if (r || b->kind != 'i') return r;
  uint8_t *data = calloc((size_t)b->n, (size_t)bytes);
  for (int k = 0; k < b->n; k++)
    memcpy(data + k * bytes, &b->values[k], (size_t)bytes);
  r = p_cuMemcpyHtoD_v2(b->at, data, (size_t)(b->n * bytes));
  free(data);
  return r;
}

static CUresult launch(Case *c, CUmodule m) {
  CUfunction f;
  CUresult r = p_cuModuleGetFunction(&f, m, c->kernel);
  void *params[BUFFERS];
  int n = 0;
  for (int k = 0; k < c->n && !r; k++) {
    r = fill_buffer(c, k);
    if (c->buffers[k].kind != 's') params[n++] = &c->buffers[k].at;
  }
  if (!r && c->together)
    r = p_cuLaunchCooperativeKernel(f, c->grid, 1, 1, c->block, 1, 1,
                                    c->shared, NULL, params);
  else if (!r)
    r = p_cuLaunchKernel(f, c->grid, 1, 1, c->block, 1, 1, c->shared, NULL,
                         params, NULL);
  return r ? r : p_cuCtxSynchronize();
}

static bool fresh_context(void) {
  CUcontext x;
  remove(scratch("log"));
  return !p_cuDevicePrimaryCtxReset_v2(0) &&
         !p_cuDevicePrimaryCtxRetain(&x, 0) && !p_cuCtxSetCurrent(x);
}

static void run_case(const char *file, Case *c, const char *text) {
  char name[256];
  CUmodule m = NULL;
  snprintf(name, sizeof name, "%s %s", file, c->kernel);
  snprintf(why, sizeof why, "no context");
  bool ok = fresh_context();
  CUresult r = ok ? p_cuModuleLoadDataEx(&m, text, 0, NULL, NULL)
                  : CUDA_ERROR_INVALID_CONTEXT;
  if (!r && c->kernel[0]) r = launch(c, m);
  if (c->error[0]) ok = ok && fails_so(r, c->error);
  else ok = ok && (!r || fails_so(r, "success"));
  int compared = 0;
  for (int k = 0; k < c->n && ok && !c->error[0]; k++)
    if (c->buffers[k].kind == 'o' || c->buffers[k].kind == 's') {
      ok = check_buffer(c, k);
      compared += c->buffers[k].n;
    }
  if (ok && !c->error[0] && !compared) {
    snprintf(why, sizeof why, "it compares nothing");
    ok = false;
  }
  CHECK(name, ok, "%s", why);
}

static void run_file(const char *path) {
  static Case c;
  char *text = read_file(path), *copy = strdup(text), *save = NULL;
  const char *file = strrchr(path, '/') + 1;
  bool open = false;
  for (char *line = strtok_r(copy, "\n", &save); line;
       line = strtok_r(NULL, "\n", &save)) {
    bool starts = !strncmp(line, "// launch: ", 11);
    if (starts && open) run_case(file, &c, text);
    if (starts) read_launch(&c, line);
    else if (!open) c = (Case){.grid = 1};
    open = open || starts || !strncmp(line, "// error: ", 10);
    if (!starts) read_line(&c, line);
  }
  if (open) run_case(file, &c, text);
  free(copy);
  free(text);
}

int main(void) {
  glob_t files;
  setenv("CUDASIM_LOG", scratch("log"), 1);
  setenv("CUDASIM_STEPS", "100000", 1);
  open_library();
  if (p_cuInit(0)) return 1;
  if (glob("tests/cudasim/*.ptx", 0, NULL, &files)) {
    printf("not ok cudasim: no tests/cudasim/*.ptx\n");
    return 1;
  }
  for (size_t k = 0; k < files.gl_pathc; k++)
    run_file(files.gl_pathv[k]);
  globfree(&files);
  scratch_remove();
  return failures != 0;
}
