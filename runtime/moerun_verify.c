/* moerun_verify.c: whether two compiled models have the same gradients, one of
 * them perhaps for several ranks.
 *
 * The first model starts from its own initial values, the second from those of
 * the first; both do the same steps on the same data, and the last step's
 * gradients are compared, parameter by parameter: |g_B - g_A| / |g_A|. Losses
 * say much less: an optimiser that divides by the size of a gradient hides one
 * that is a multiple of what it should be.
 *
 * A parameter that is 0 throughout says nothing of what it multiplies, a gate's
 * weights that all experts are alike: such ones are drawn at random.
 *
 * Each model's ranks are processes of their own, which leave what they computed
 * in memory that all share. Where several ranks run this program already, each
 * of them runs both models: one of a single rank by itself, the other with all
 * of them. */
#include "moerun.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { A, B };

/* What the two are to have in common. */
typedef struct Verify {
  const RunArgs *args;
  MoertModel *models[2];
  const MoertDesc *desc[2];
  const MoertEntry *entry[2];
  const char *paths[2];
  int ranks[2];
  char *params;        /* wholes of A, by its slots */
  char *grads[2];      /* by the entry's probes */
  int64_t sizes[3];    /* of params, grads */
  double *losses;      /* of A and B */
} Verify;

static Verify *verifying; /* for what each rank runs */
static int side;

/* ---- numbers ------------------------------------------------------------- */

static int64_t bytes_of(int dtype, int rank, const int64_t *dims) {
  int64_t n = run_dtype_bytes[dtype];
  for (int i = 0; i < rank; i++)
    n *= dims[i];
  return n;
}

/* A float is the upper part of a wider one's pattern. */
static double number(const char *data, int64_t bytes) {
  double x;
  float f;
  uint32_t word = 0;
  if (bytes == sizeof x) {
    memcpy(&x, data, sizeof x);
    return x;
  }
  memcpy((char *)&word + sizeof word - bytes, data, (size_t)bytes);
  memcpy(&f, &word, sizeof f);
  return (double)f;
}

static void set_number(char *data, int64_t bytes, double x) {
  float f = (float)x;
  if (bytes == sizeof x)
    memcpy(data, &x, sizeof x);
  else
    memcpy(data, (char *)&f + sizeof f - bytes, (size_t)bytes);
}

static bool is_zero(const char *data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i++)
    if (data[i]) return false;
  return true;
}

/* Evenly from -0.1 to 0.1, other numbers for other paths and seeds. */
static void draw(char *data, const MoertSlot *s, int64_t bytes, uint64_t seed) {
  int64_t each = run_dtype_bytes[s->dtype];
  uint64_t state = seed;
  for (const char *p = s->path; *p; p++)
    state = state * 31 + (unsigned char)*p;
  for (int64_t i = 0; i < bytes; i += each)
    set_number(data + i, each, 0.2 * run_uniform(&state) - 0.1);
}

/* ---- one of the models --------------------------------------------------- */

static bool is_float(int dtype) {
  static const bool floats[MOERT_DTYPE_COUNT] = {
#define DT(name, bytes, kind, ...) [MOERT_##name] = RT_##kind == RT_FLOAT,
#include "dtypes.def"
#undef DT
  };
  return floats[dtype];
}

static bool is_drawn(const MoertSlot *s, const char *data, int64_t bytes,
                     const char *pattern) {
  if (!is_float(s->dtype)) return false;
  return pattern ? fnmatch(pattern, s->path, 0) == 0 : is_zero(data, bytes);
}

/* Whether this rank leaves what all have: the first does, where ranks share
 * memory. */
static bool leaves(const RunArgs *a) {
  return verifying->args->comm || ranks_own(a) == 0;
}

/* One of A's parameters, drawn anew where that is wanted, into memory of this
 * rank alone: the others are not at the same place. */
static MoertStatus give_param(MoertSession *s, const MoertSlot *x, char *data) {
  const RunArgs *a = verifying->args;
  int64_t bytes = bytes_of(x->dtype, x->rank, x->dims);
  MoertStatus st = moert_get(s, x->path, data, (size_t)bytes);
  if (st != MOERT_OK || !is_drawn(x, data, bytes, a->randomize)) return st;
  draw(data, x, bytes, (uint64_t)a->seed);
  return moert_put(s, x->path, data, (size_t)bytes);
}

/* A's parameters to where B finds them. */
static MoertStatus give_params(const Run *r, const Verify *v) {
  char *to = v->params;
  for (int i = 0; i < v->desc[A]->n_slots; i++) {
    const MoertSlot *x = &v->desc[A]->slots[i];
    if (x->kind != MOERT_SLOT_PARAM) continue;
    size_t bytes = (size_t)bytes_of(x->dtype, x->rank, x->dims);
    char *data = malloc(bytes);
    MoertStatus st =
        data ? give_param(r->session, x, data) : MOERT_NO_MEMORY;
    if (st == MOERT_OK && leaves(r->args)) memcpy(to, data, bytes);
    free(data);
    if (st != MOERT_OK) return st;
    to += bytes;
  }
  return MOERT_OK;
}

static MoertStatus take_params(MoertSession *s, const Verify *v) {
  const char *from = v->params;
  for (int i = 0; i < v->desc[A]->n_slots; i++) {
    const MoertSlot *x = &v->desc[A]->slots[i];
    if (x->kind != MOERT_SLOT_PARAM) continue;
    int64_t bytes = bytes_of(x->dtype, x->rank, x->dims);
    MoertStatus st = moert_put(s, x->path, from, (size_t)bytes);
    if (st != MOERT_OK) return st;
    from += bytes;
  }
  return MOERT_OK;
}

static bool is_grad(const MoertBinding *b) {
  return b->kind == MOERT_BIND_PROBE && strncmp(b->name, "grad/", 5) == 0;
}

/* All ranks have gradients and reports whole: the first leaves them. */
static MoertStatus leave_results(MoertSession *s, const Verify *v) {
  const MoertEntry *e = v->entry[side];
  char *to = v->grads[side];
  for (int i = 0; i < e->n_outs; i++) {
    const void *data;
    size_t bytes;
    if (!is_grad(&e->outs[i])) continue;
    MoertStatus st =
        moert_report_data(s, e->name, e->outs[i].name, &data, &bytes);
    if (st != MOERT_OK) return st;
    memcpy(to, data, bytes);
    to += bytes;
  }
  if (moert_report(s, e->name, "loss", &v->losses[side]) != MOERT_OK)
    v->losses[side] = NAN; /* the model calls it otherwise */
  return MOERT_OK;
}

static MoertStatus steps(const Run *r, const Verify *v) {
  MoertText *text;
  MoertTextEvent event;
  MoertStatus st = run_open_text(r, v->entry[side]->name, v->args->data,
                                 v->args->target, MOERT_TEXT_TRAIN, &text);
  for (int64_t i = 0; i < v->args->steps && st == MOERT_OK; i++)
    st = run_step(r, text, &event);
  moert_text_close(text);
  return st;
}

static int run_side(const RunArgs *a) {
  const Verify *v = verifying;
  Run r;
  int status = run_open(a, NULL, &r);
  if (!status) {
    MoertStatus st =
        side == A ? give_params(&r, v) : take_params(r.session, v);
    if (st == MOERT_OK) st = steps(&r, v);
    if (st == MOERT_OK && leaves(a)) st = leave_results(r.session, v);
    if (st != MOERT_OK) status = run_failed(st);
  }
  run_close(&r);
  return status;
}

/* ---- running both -------------------------------------------------------- */

static int run_model(const Verify *v, int which) {
  static const RunVerb verb = {"verify", run_side, "", "", false};
  RunArgs a = *v->args;
  a.model = v->paths[which];
  a.device[0] = a.device[which];
  side = which;
  if (v->args->comm) { /* among ranks that are there */
    if (v->ranks[which] == 1) a.comm = NULL;
    return run_side(&a);
  }
  int n = v->ranks[which];
  Ranks r = {.by = RANKS_LOCAL, .n = n, .neighbours = n};
  int status = ranks_run(&r, &verb, &a);
  if (status) run_error("%s could not do its steps", a.model);
  return status;
}

/* ---- opening ------------------------------------------------------------- */

static int64_t grads_bytes(const MoertEntry *e) {
  int64_t bytes = 0;
  for (int i = 0; i < e->n_outs; i++)
    if (is_grad(&e->outs[i]))
      bytes += bytes_of(e->outs[i].dtype, e->outs[i].rank, e->outs[i].dims);
  return bytes;
}

static int open_model(Verify *v, int which) {
  MoertStatus st = moert_open(v->paths[which], &v->models[which]);
  if (st != MOERT_OK) return run_failed(st);
  const MoertDesc *d = v->desc[which] = moert_desc(v->models[which]);
  Run r = {.desc = d};
  v->ranks[which] = 1;
  for (int i = 0; i < d->n_axes; i++)
    v->ranks[which] *= (int)d->mesh[i].size;
  v->entry[which] = run_entry(&r, v->args->entry ? v->args->entry : "train");
  if (!v->entry[which]) return EXIT_USER;
  v->sizes[1 + which] = grads_bytes(v->entry[which]);
  if (v->sizes[1 + which] == 0)
    return run_error("%s hands out no gradients: compile it with moec "
                     "--keep-grads", v->paths[which]);
  if (v->args->comm && v->ranks[which] > 1 &&
      v->ranks[which] != moert_comm_size(v->args->comm))
    return run_error("%s was compiled for %d ranks, but %d are running",
                     v->paths[which], v->ranks[which],
                     moert_comm_size(v->args->comm));
  return 0;
}

static const MoertSlot *find_param(const MoertDesc *d, const char *path) {
  for (int i = 0; i < d->n_slots; i++)
    if (d->slots[i].kind == MOERT_SLOT_PARAM &&
        strcmp(d->slots[i].path, path) == 0)
      return &d->slots[i];
  return NULL;
}

/* Every parameter of the one model is in the other, and alike. */
static int compare_params(const Verify *v, int one, int other) {
  for (int i = 0; i < v->desc[one]->n_slots; i++) {
    const MoertSlot *x = &v->desc[one]->slots[i], *y;
    if (x->kind != MOERT_SLOT_PARAM) continue;
    y = find_param(v->desc[other], x->path);
    if (!y)
      return run_error("%s has no parameter '%s', which %s has",
                       v->paths[other], x->path, v->paths[one]);
    if (x->dtype != y->dtype || x->rank != y->rank ||
        memcmp(x->dims, y->dims, sizeof x->dims) != 0)
      return run_error("parameter '%s' is of another dtype or shape in %s than "
                       "in %s", x->path, v->paths[other], v->paths[one]);
  }
  return 0;
}

static int make_memory(Verify *v) {
  for (int i = 0; i < v->desc[A]->n_slots; i++) {
    const MoertSlot *x = &v->desc[A]->slots[i];
    if (x->kind == MOERT_SLOT_PARAM)
      v->sizes[0] += bytes_of(x->dtype, x->rank, x->dims);
  }
  char **to[] = {&v->params, &v->grads[A], &v->grads[B]};
  for (int i = 0; i < 3; i++) {
    void *p = mmap(NULL, (size_t)v->sizes[i], PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      return run_error("no %s of memory: %s", run_bytes_text(v->sizes[i]),
                       strerror(errno));
    *to[i] = p;
  }
  void *p = mmap(NULL, 2 * sizeof *v->losses, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return run_error("out of memory");
  v->losses = p;
  return 0;
}

/* ---- comparing ----------------------------------------------------------- */

typedef struct Difference {
  const char *path;
  double off, norm; /* |g_B - g_A| / |g_A|, |g_A| */
  double tolerance;
} Difference;

/* The gradient of that name in a model's results; NULL: it has none. */
static const char *find_grad(const Verify *v, int which,
                             const MoertBinding *x) {
  const MoertEntry *e = v->entry[which];
  const char *at = v->grads[which];
  for (int i = 0; i < e->n_outs; i++) {
    const MoertBinding *b = &e->outs[i];
    if (!is_grad(b)) continue;
    if (strcmp(b->name, x->name) == 0 && b->dtype == x->dtype) return at;
    at += bytes_of(b->dtype, b->rank, b->dims);
  }
  return NULL;
}

static Difference difference(const MoertBinding *x, const char *a,
                             const char *b) {
  int64_t each = run_dtype_bytes[x->dtype];
  int64_t n = bytes_of(x->dtype, x->rank, x->dims) / each;
  double off = 0, norm = 0;
  for (int64_t i = 0; i < n; i++) {
    double p = number(a + i * each, each), q = number(b + i * each, each);
    off += (q - p) * (q - p);
    norm += p * p;
  }
  return (Difference){.path = x->name + strlen("grad/"),
                      .off = off == 0 ? 0 : sqrt(off) / sqrt(norm),
                      .norm = sqrt(norm),
                      .tolerance = each == sizeof(double) ? 1e-12 : 1e-5};
}

/* What is not finite is worst of all. */
static int worst_first(const void *a, const void *b) {
  double x = ((const Difference *)a)->off, y = ((const Difference *)b)->off;
  if (isnan(x) || isnan(y)) return !isnan(x) - !isnan(y);
  return (x < y) - (x > y);
}

static int tell(const Verify *v, Difference *all, int n) {
  int silent = 0;
  qsort(all, (size_t)n, sizeof *all, worst_first);
  printf("difference  gradient  parameter\n");
  for (int i = 0; i < n; i++) {
    printf("%10.2e %9.2e  %s\n", all[i].off, all[i].norm, all[i].path);
    silent += all[i].norm == 0;
  }
  if (!v->args->quiet) {
    if (!isnan(v->losses[A]))
      fprintf(stderr, "loss %.9g and %.9g\n", v->losses[A], v->losses[B]);
    if (silent)
      fprintf(stderr, "%d gradient%s 0 throughout and show%s nothing\n", silent,
              silent == 1 ? " is" : "s are", silent == 1 ? "s" : "");
  }
  for (int i = 0; i < n; i++) {
    double most = v->args->tolerance;
    if (most < 0) most = all[i].tolerance;
    if (!(all[i].off <= most))
      return run_error("the gradient of '%s' differs by %.3g, more than %g",
                       all[i].path, all[i].off, most);
  }
  return 0;
}

static int compare(const Verify *v) {
  const MoertEntry *e = v->entry[A];
  Difference *all = calloc((size_t)e->n_outs + 1, sizeof *all);
  const char *at = v->grads[A];
  int n = 0, status = 0;
  if (!all) return run_error("out of memory");
  for (int i = 0; i < e->n_outs && !status; i++) {
    const MoertBinding *x = &e->outs[i];
    if (!is_grad(x)) continue;
    const char *other = find_grad(v, B, x);
    if (other)
      all[n++] = difference(x, at, other);
    else
      status = run_error("%s does not train '%s'", v->paths[B],
                         x->name + strlen("grad/"));
    at += bytes_of(x->dtype, x->rank, x->dims);
  }
  if (!status && v->sizes[1 + A] != v->sizes[1 + B])
    status = run_error("%s trains more parameters than %s", v->paths[B],
                       v->paths[A]);
  if (!status) status = tell(v, all, n);
  free(all);
  return status;
}

int run_verify(const RunArgs *a) {
  Verify v = {.args = a, .paths = {a->model, a->other}};
  verifying = &v;
  int status = open_model(&v, A);
  if (!status) status = open_model(&v, B);
  if (!status) status = compare_params(&v, A, B);
  if (!status) status = compare_params(&v, B, A);
  if (!status) status = make_memory(&v);
  if (!status) status = run_model(&v, A);
  if (!status) status = run_model(&v, B);
  if (!status) status = compare(&v);
  void *memory[] = {v.params, v.grads[A], v.grads[B]};
  for (int i = 0; i < 3; i++)
    if (memory[i]) munmap(memory[i], (size_t)v.sizes[i]);
  if (v.losses) munmap(v.losses, 2 * sizeof *v.losses);
  moert_close(v.models[A]);
  moert_close(v.models[B]);
  return status;
}
