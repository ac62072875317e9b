/* launches.c: see launches.h. */
#include "launches.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ragged_rest.h"
#include "random_graph.h"

const InputBound *launches_bounds;

/* The record of a node, and the scans around it from the outermost. */
typedef struct Launch {
  int record;
  int depth;
  const Node *scans[MAX_LOOPS];
  int64_t turns; /* how often the interpreter has run it */
} Launch;

typedef struct Check {
  Ctx *cx;
  Arena *a;
  Entry *e;
  int entry;
  MoertModel *model;
  MoertSession *s;
  const MoertDesc *desc;
  Map launches; /* Node -> Launch */
  RaggedRest rest;
  int n_records;
  int failures;
  Buf *why;
} Check;

static void fail(Check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fail(Check *c, const char *fmt, ...) {
  if (c->failures++) return;
  char text[400];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  buf_fmt(c->why, "entry %s: %s", c->e->name, text);
}

/* ---- which record is whose ---------------------------------------------- */

/* Numbers records as codegen/table.c makes them. */
static void number_records(Check *c, const Region *r, const Launch *around) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    Launch *l = arena_copy(c->a, around, sizeof *around);
    if (n->op == OP_reshape &&
        !memcmp(&n->ins.data[0]->place, &n->outs.data[0]->place, sizeof(Place)))
      continue;
    l->record = c->n_records++;
    if (n->op == OP_scan) {
      l->scans[l->depth++] = n;
      number_records(c, n->body, l);
      c->n_records++;
    } else {
      map_put(c->a, &c->launches, n, l);
    }
  }
}

/* Loop indices of a node's next turn. */
static void loop_indices(Launch *l, int64_t out[MAX_LOOPS]) {
  int64_t turn = l->turns++;
  memset(out, 0, MAX_LOOPS * sizeof *out);
  for (int d = l->depth - 1; d >= 0; d--) {
    int64_t length = attr_int(l->scans[d], "length");
    int64_t i = turn % length;
    out[d] = attr_bool(l->scans[d], "reverse") ? length - 1 - i : i;
    turn /= length;
  }
}

/* ---- comparing ---------------------------------------------------------- */

/* Ops whose sums may run in another order, or be rounded more than once. */
static bool sums(OpKind op) {
  static const OpKind all[] = {OP_reduce_sum,  OP_cumsum,       OP_put,
                               OP_rows_dot,    OP_rows_combine, OP_contract,
                               OP_scatter_add, OP_scan,
                               OP_square_sum,  OP_attention,
                               OP_attention_grad};
  for (size_t i = 0; i < COUNT_OF(all); i++)
    if (all[i] == op) return true;
  return false;
}

/* `seen`: values that depend on none. */
static bool depends_on_sum(Arena *a, Map *seen, const Value *v) {
  if (!v->def || map_get(seen, v)) return false;
  if (sums(v->def->op)) return true;
  for (uint32_t i = 0; i < v->def->ins.len; i++)
    if (depends_on_sum(a, seen, v->def->ins.data[i])) return true;
  map_put(a, seen, v, (void *)v);
  return false;
}

static bool is_exact(Arena *a, const Node *n, uint32_t out) {
  Map seen = {0};
  if (n->op != OP_fused) return !sums(n->op);
  return !depends_on_sum(a, &seen, n->body->results.data[out]);
}

static bool same_bits(double x, double y) {
  return x == y ? signbit(x) == signbit(y) : isnan(x) && isnan(y);
}

static double norm(const Tensor *t) {
  double sum = 0;
  for (int64_t i = 0; i < type_elements(&t->type); i++)
    if (isfinite(t->data[i])) sum += t->data[i] * t->data[i];
  return sqrt(sum);
}

/* Elements of `got` that are not the bits of `want`; the first in `at`. */
static int64_t bits_differ(const Tensor *got, const Tensor *want, int64_t *at) {
  int64_t n = 0;
  for (int64_t i = type_elements(&want->type) - 1; i >= 0; i--)
    if (!same_bits(got->data[i], want->data[i])) {
      *at = i;
      n++;
    }
  return n;
}

/* Norm of the difference; infinite where one is finite and the other is not. */
static double distance(const Tensor *got, const Tensor *want) {
  double sum = 0;
  for (int64_t i = 0; i < type_elements(&want->type); i++) {
    double x = got->data[i], y = want->data[i];
    if (!isfinite(x) && !isfinite(y)) continue;
    sum += (x - y) * (x - y);
  }
  return isnan(sum) ? INFINITY : sqrt(sum);
}

static const char *shown(Check *c, const Node *n) {
  Buf b = {0};
  ir_print_node((Node *)n, &b);
  size_t line = b.data ? strcspn(b.data, "\n") : 0;
  const char *text = sym_n(c->cx, b.data ? b.data : "", line);
  buf_free(&b);
  return text;
}

static void compare(Check *c, const Node *n, uint32_t out, const Tensor *got,
                    const Tensor *want, double scale) {
  int64_t at = 0, differ = bits_differ(got, want, &at);
  const Type *t = &want->type;
  if (!differ) return;
  bool exact = is_exact(c->a, n, out);
  if (exact || dtype_info[t->dtype].kind != DK_FLOAT) {
    bool may = !exact && differ <= type_elements(t) / 50;
    if (!may)
      fail(c, "result %u of %s: %lld elements differ, at %lld %.9g, not %.9g",
           out, shown(c, n), (long long)differ, (long long)at, got->data[at],
           want->data[at]);
    return;
  }
  double d = distance(got, want), tol = dtype_info[t->dtype].tol;
  /* Weights of an attention are rounded to the dtype of its operands. */
  if (n->op == OP_attention || n->op == OP_attention_grad)
    tol = dtype_info[n->ins.data[0]->type.dtype].tol;
  if (d > tol * (norm(want) + scale))
    fail(c, "result %u of %s: off by %.3g of %.3g; at %lld %.9g, not %.9g", out,
         shown(c, n), d, norm(want), (long long)at, got->data[at],
         want->data[at]);
}

/* ---- launches ----------------------------------------------------------- */

static void *address(Check *c, const MoertRef *ref, const int64_t *loop) {
  return moert_address(c->s, c->entry, ref, loop);
}

static void poison_arena(Check *c) {
  const MoertEntry *e = &c->desc->entries[c->entry];
  MoertRef all = {.slab = MOERT_SLAB_ARENA};
  if (e->arena_bytes)
    memset(address(c, &all, NULL), 0xff, (size_t)e->arena_bytes);
}

static size_t ref_bytes(const MoertRef *r) {
  return (size_t)r->elements * dtype_info[r->dtype].bytes;
}

static void after_node(void *user, const Node *n, const Tensor *const *ins,
                       Tensor *const *outs) {
  Check *c = user;
  rest_note(&c->rest, n, outs);
  Launch *l = map_get(&c->launches, n);
  if (!l) return;
  int64_t loop[MAX_LOOPS];
  loop_indices(l, loop);
  if (c->failures) return;
  const MoertRecord *r = &c->desc->entries[c->entry].records[l->record];
  MoertGemm g;
  bool swapped = false, gemm = r->kind == MOERT_GEMM;
  if (gemm) cg_gemm(n, &(Isa){0}, &g, &swapped); /* asks which comes first */
  uint32_t n_ins = gemm ? 2 : n->ins.len, n_outs = n->outs.len;
  if ((uint32_t)r->n_args != n_ins + n_outs || (uint32_t)r->n_outs != n_outs) {
    fail(c, "record %d (%s) is not that of %s", l->record, r->name,
         shown(c, n));
    return;
  }
  poison_arena(c);
  for (uint32_t i = 0; i < n_outs; i++)
    memset(address(c, &r->args[n_ins + i], loop), 0xff,
           ref_bytes(&r->args[n_ins + i]));
  double scale = 0;
  for (uint32_t i = 0; i < n_ins; i++) {
    tensor_to_bytes(ins[i], address(c, &r->args[swapped ? 1 - i : i], loop));
    if (dtype_info[ins[i]->type.dtype].kind == DK_FLOAT)
      scale = fmax(scale, norm(ins[i]));
  }
  if (moert_run_record(c->s, c->entry, l->record, loop)) {
    fail(c, "record %d (%s): %s", l->record, r->name, moert_error());
    return;
  }
  Arena a = {0};
  for (uint32_t i = 0; i < n_outs; i++) {
    Tensor *got = tensor_new(&a, outs[i]->type);
    tensor_from_bytes(got, address(c, &r->args[n_ins + i], loop));
    rest_forget(&c->rest, n->outs.data[i], got, outs[i]);
    compare(c, n, i, got, outs[i], scale);
  }
  arena_reset(&a);
}

/* ---- inputs and whole steps --------------------------------------------- */

/* What the runtime itself provides, and ids in their range. */
static void fit_inputs(Check *c, Tensor **ins) {
  for (uint32_t i = 0; i < c->e->ins.len; i++) {
    const Binding *b = &c->e->ins.data[i];
    double x = 0;
    /* Second moments are not negative. */
    if (b->kind == BIND_SLOT &&
        ir_slot(c->e->module, b->name)->kind == SLOT_OPTIM)
      for (int64_t j = 0; j < type_elements(&ins[i]->type); j++)
        ins[i]->data[j] = fabs(ins[i]->data[j]);
    for (const InputBound *k = launches_bounds; k && k->name && b->name; k++)
      if (b->kind == BIND_INPUT && !strcmp(k->name, b->name))
        for (int64_t j = 0; j < type_elements(&ins[i]->type); j++)
          ins[i]->data[j] = fmod(fabs(ins[i]->data[j]), (double)k->below);
    if (b->kind == BIND_OPTION) moert_get_option(c->s, b->name, &x);
    if (b->kind == BIND_OPTION || b->kind == BIND_STEP || b->kind == BIND_SEED)
      ins[i]->data[0] = ins[i]->type.dtype == DT_f32 ? (double)(float)x : x;
  }
}

static void write_inputs(Check *c, Tensor **ins) {
  const MoertEntry *e = &c->desc->entries[c->entry];
  for (uint32_t i = 0; i < c->e->ins.len; i++)
    tensor_to_bytes(ins[i], address(c, &e->ins[i].ref, NULL));
}

static void whole_step(Check *c, Tensor **ins, Tensor **outs, double tol) {
  const MoertEntry *e = &c->desc->entries[c->entry];
  poison_arena(c);
  write_inputs(c, ins);
  moert_set_steps_done(c->s, 0);
  if (moert_step(c->s, e->name)) {
    fail(c, "the step failed: %s", moert_error());
    return;
  }
  Arena a = {0};
  for (uint32_t i = 0; i < c->e->outs.len; i++) {
    Tensor *got = tensor_new(&a, outs[i]->type);
    tensor_from_bytes(got, address(c, &e->outs[i].ref, NULL));
    double d = distance(got, outs[i]), n = norm(outs[i]);
    if (!(d <= tol * (n + 1e-6)))
      fail(c, "a whole step: result %s is off by %.3g of %.3g",
           c->e->outs.data[i].name, d, n);
  }
  arena_reset(&a);
}

static void check_entry(Check *c, uint64_t seed, double step_tol) {
  Launch around = {0};
  c->launches = (Map){0};
  c->n_records = 0;
  number_records(c, c->e->region, &around);
  if (c->n_records != c->desc->entries[c->entry].n_records) {
    fail(c, "%d records, not %d", c->desc->entries[c->entry].n_records,
         c->n_records);
    return;
  }
  Tensor **ins = NEW_ARRAY(c->a, Tensor *, c->e->ins.len + 1);
  Tensor **outs = NEW_ARRAY(c->a, Tensor *, c->e->outs.len + 1);
  random_inputs(c->e, seed, c->a, ins);
  fit_inputs(c, ins);
  Eval ev = {.cx = c->cx, .hook = after_node, .user = c};
  ir_eval(&ev, c->e, ins, outs, c->a);
  if (!c->failures && step_tol > 0) whole_step(c, ins, outs, step_tol);
}

static bool compile(Check *c, Module *m, const char *cpu, char *path) {
  CodegenOptions o = {
      .cpu = cpu, .opt_level = 2, .flags = "", .source_hash = "0"};
  const char *dir = getenv("TMPDIR");
  snprintf(path, 256, "%s/moec-test-%d.so", dir ? dir : "/tmp", (int)getpid());
  MoertSessionOptions options = {.threads = 2, .poison = 1};
  if (!cg_library(&(CgPrograms){{{.m = m}}}, &o, path)) {
    buf_add(c->why, "it does not compile");
    return false;
  }
  if (moert_open(path, &c->model) || moert_session(c->model, &options, &c->s)) {
    buf_fmt(c->why, "it does not open: %s", moert_error());
    return false;
  }
  c->desc = moert_desc(c->model);
  return true;
}

bool launches_agree(Module *m, const char *cpu, uint64_t seed, double step_tol,
                    Buf *why) {
  Arena a = {0};
  char path[256];
  Check c = {.cx = m->cx, .a = &a, .why = why, .rest.a = &a};
  bool ok = compile(&c, m, cpu, path);
  for (uint32_t i = 0; ok && i < m->entries.len && !c.failures; i++) {
    c.e = m->entries.data[i];
    c.entry = (int)i;
    check_entry(&c, seed + i, step_tol);
  }
  moert_session_free(c.s);
  moert_close(c.model);
  unlink(path);
  arena_reset(&a);
  return ok && !c.failures;
}
