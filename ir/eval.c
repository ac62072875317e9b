/* eval.c: the reference interpreter: slow, obvious, and the oracle for all that
 * the compiler makes.
 *
 * Every element is a double. A node's function (a row of ops.def) fills its
 * results from its operands in double; then they are rounded to their dtype
 * here, in one place. As a double holds more than twice the bits of f32, this
 * equals f32 arithmetic for + - * / sqrt; sums are added in double and rounded
 * once. Values live in malloc memory from their definition to their last use.
 *
 * The functions: eval_scalar.c elementwise ops, eval_map.c ops with an index
 * map, eval_data.c the rest of moving, summing and ordering, eval_rows.c rows,
 * ids and routing, eval_comm.c ranks; here bodies. */
#include "ir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What stands around the nodes that run. */
typedef struct EvalRun {
  Tensor **values;    /* by value id; NULL before definition, after last use */
  uint32_t *last_use; /* by value id: index of a node in the value's region */
  uint32_t clamped;
} EvalRun;

enum { KEEP = -1 }; /* last_use: until its region ends */

static EvalFn *const rules[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, ...) \
  [OP_##name] = eval_##eval,
#include "ops.def"
#undef OP
};

/* ---- dtypes -------------------------------------------------------------- */

static double wrap(double x) { /* to [0, 2^32) */
  return fabs(x) < 0x1p63 ? (double)(uint32_t)(int64_t)x : 0;
}

static double round_bool(double x) {
  return x != 0;
}
static double round_u32(double x) {
  return wrap(x);
}
static double round_i32(double x) {
  double u = wrap(x);
  return u < 0x1p31 ? u : u - 0x1p32;
}
static double round_f32(double x) {
  return (float)x;
}
static double round_f64(double x) {
  return x;
}
/* Nearest, ties to even, on the 8 bits of a bf16 significand. */
static double round_bf16(double x) {
  if (!isfinite(x) || x == 0) return x;
  int exponent;
  frexp(x, &exponent); /* |x| in [2^(exponent - 1), 2^exponent) */
  if (exponent < -125) exponent = -125; /* below, spacing stays */
  double unit = ldexp(1, exponent - 8);
  double y = nearbyint(x / unit) * unit;
  return fabs(y) < 0x1p128 ? y : copysign(INFINITY, x);
}

static double load_bool(const void *p) {
  return *(const uint8_t *)p != 0;
}
static void store_bool(void *p, double x) {
  *(uint8_t *)p = x != 0;
}
#define LOAD_STORE(name, T)                         \
  static double load_##name(const void *p) {        \
    T x;                                            \
    memcpy(&x, p, sizeof x);                        \
    return (double)x;                               \
  }                                                 \
  static void store_##name(void *p, double value) { \
    T x = (T)value;                                 \
    memcpy(p, &x, sizeof x);                        \
  }
LOAD_STORE(i32, int32_t)
LOAD_STORE(u32, uint32_t)
LOAD_STORE(f32, float)
LOAD_STORE(f64, double)

static double load_bf16(const void *p) {
  uint16_t upper;
  memcpy(&upper, p, sizeof upper);
  uint32_t bits = (uint32_t)upper << 16;
  return load_f32(&bits);
}
static void store_bf16(void *p, double value) {
  uint32_t bits;
  store_f32(&bits, round_bf16(value));
  uint16_t upper = (uint16_t)(bits >> 16);
  memcpy(p, &upper, sizeof upper);
}

static const struct {
  double (*round)(double);
  double (*load)(const void *);
  void (*store)(void *, double);
} dtype_eval[DTYPE_COUNT] = {
#define DT(name, ...) [DT_##name] = {round_##name, load_##name, store_##name},
#include "../runtime/dtypes.def"
#undef DT
};

static void round_tensor(const Eval *ev, Tensor *t) {
  Dtype dtype = t->type.dtype;
  int64_t n = type_elements(&t->type);
  if (dtype_info[dtype].kind == DK_FLOAT && ev->mode == EVAL_F64) return;
  if (dtype == DT_f32) { /* the common case, in a loop that vectorises */
    for (int64_t i = 0; i < n; i++)
      t->data[i] = (float)t->data[i];
    return;
  }
  for (int64_t i = 0; i < n; i++)
    t->data[i] = dtype_eval[dtype].round(t->data[i]);
}

double dtype_bitcast(double x, Dtype from, Dtype to) {
  uint64_t bits;
  dtype_eval[from].store(&bits, x);
  return dtype_eval[to].load(&bits);
}

void tensor_from_bytes(Tensor *t, const void *bytes) {
  const char *p = bytes;
  uint32_t size = dtype_info[t->type.dtype].bytes;
  for (int64_t i = 0, n = type_elements(&t->type); i < n; i++)
    t->data[i] = dtype_eval[t->type.dtype].load(p + i * size);
}

void tensor_to_bytes(const Tensor *t, void *bytes) {
  char *p = bytes;
  uint32_t size = dtype_info[t->type.dtype].bytes;
  for (int64_t i = 0, n = type_elements(&t->type); i < n; i++)
    dtype_eval[t->type.dtype].store(p + i * size, t->data[i]);
}

/* ---- tensors ------------------------------------------------------------- */

static size_t data_bytes(const Type *t) {
  return (size_t)type_elements(t) * sizeof(double);
}

Tensor *tensor_new(Arena *a, Type t) {
  Tensor *x = NEW(a, Tensor);
  *x = (Tensor){t, arena_alloc(a, data_bytes(&t))};
  return x;
}

Tensor *tensor_copy(Arena *a, const Tensor *t) {
  Tensor *x = NEW(a, Tensor);
  *x = (Tensor){t->type, arena_copy(a, t->data, data_bytes(&t->type))};
  return x;
}

/* Header and data in one block, to be freed with free(). */
static Tensor *heap_tensor(Type t) {
  Tensor *x = malloc(sizeof *x + data_bytes(&t));
  if (!x) internal_error("out of memory: %zu bytes", data_bytes(&t));
  *x = (Tensor){t, (double *)(x + 1)};
  return x;
}

/* ---- regions ------------------------------------------------------------- */

/* What says who owns ragged rows is read without being an operand. */
static void keep_ragged_source(EvalRun *run, Value *v) {
  Value *source = type_is_ragged(&v->type) ? ir_ragged_source(v) : NULL;
  if (source) run->last_use[source->id] = (uint32_t)KEEP;
}

/* Sets last_use of every value of `r` and of the bodies in it. */
static void find_last_uses(EvalRun *run, Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    for (uint32_t k = 0; k < n->outs.len; k++)
      run->last_use[n->outs.data[k]->id] = i;
    for (uint32_t k = 0; k < n->ins.len; k++) {
      uint32_t *last = &run->last_use[n->ins.data[k]->id];
      if (*last != (uint32_t)KEEP) *last = i;
    }
    if (n->body) find_last_uses(run, n->body);
    for (uint32_t k = 0; k < n->ins.len; k++)
      keep_ragged_source(run, n->ins.data[k]);
    for (uint32_t k = 0; k < n->outs.len; k++)
      keep_ragged_source(run, n->outs.data[k]);
  }
  for (uint32_t i = 0; i < r->results.len; i++)
    run->last_use[r->results.data[i]->id] = (uint32_t)KEEP;
}

static void drop(EvalRun *run, const Value *v) {
  if (!v->def) return; /* a parameter's tensor is not ours */
  free(run->values[v->id]);
  run->values[v->id] = NULL;
}

static void drop_all(EvalRun *run, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    for (uint32_t k = 0; k < r->nodes.data[i]->outs.len; k++)
      drop(run, r->nodes.data[i]->outs.data[k]);
}

/* Runs a node on operands into allocated results. */
static bool run_node(Eval *ev, EvalRun *run, Node *n, const Tensor *const *ins,
                     Tensor *const *outs) {
  EvalCall c = {.ev = ev, .n = n, .ins = ins, .outs = outs, .run = run};
  rules[n->op](&c);
  run->clamped += c.clamped;
  if (c.failed) return false;
  for (uint32_t i = 0; i < n->outs.len; i++)
    round_tensor(ev, outs[i]);
  if (ev->hook) ev->hook(ev->user, n, ins, outs);
  return true;
}

/* Runs the nodes of a region whose parameters have their tensors. Results, and
 * what is kept, stay until drop_all. */
static bool run_region(Eval *ev, EvalRun *run, Region *r) {
  const Tensor **ins = NULL;
  Tensor **outs = NULL;
  bool ok = true;
  for (uint32_t i = 0; i < r->nodes.len && ok; i++) {
    Node *n = r->nodes.data[i];
    ins = realloc(ins, (n->ins.len + 1) * sizeof *ins);
    outs = realloc(outs, (n->outs.len + 1) * sizeof *outs);
    if (!ins || !outs) internal_error("out of memory");
    for (uint32_t k = 0; k < n->ins.len; k++)
      ins[k] = run->values[n->ins.data[k]->id];
    for (uint32_t k = 0; k < n->outs.len; k++) {
      Value *v = n->outs.data[k];
      run->values[v->id] = outs[k] = heap_tensor(v->type);
    }
    ok = run_node(ev, run, n, ins, outs);
    for (uint32_t k = 0; k < n->ins.len; k++)
      if (run->last_use[n->ins.data[k]->id] == i) drop(run, n->ins.data[k]);
    for (uint32_t k = 0; k < n->outs.len; k++)
      if (run->last_use[n->outs.data[k]->id] == i) drop(run, n->outs.data[k]);
  }
  free(ins);
  free(outs);
  return ok;
}

static EvalRun run_new(Entry *e) {
  uint32_t n = ir_number(e) + 1;
  EvalRun run = {.values = calloc(n, sizeof *run.values),
                 .last_use = calloc(n, sizeof *run.last_use)};
  if (!run.values || !run.last_use) internal_error("out of memory");
  return run;
}

static void run_free(EvalRun *run) {
  free(run->values);
  free(run->last_use);
}

uint32_t ir_eval(Eval *ev, Entry *e, Tensor *const *ins, Tensor **outs,
                 Arena *a) {
  EvalRun run = run_new(e);
  Region *r = e->region;
  find_last_uses(&run, r);
  for (uint32_t i = 0; i < r->params.len; i++) {
    assert(type_equal(&ins[i]->type, &r->params.data[i]->type));
    run.values[r->params.data[i]->id] = ins[i];
  }
  bool ok = run_region(ev, &run, r);
  for (uint32_t i = 0; i < r->results.len; i++)
    outs[i] = ok ? tensor_copy(a, run.values[r->results.data[i]->id]) : NULL;
  drop_all(&run, r);
  run_free(&run);
  return ok ? run.clamped : EVAL_FAILED;
}

uint32_t ir_eval_node(Eval *ev, Node *n, Tensor *const *ins, Tensor **outs,
                      Arena *a) {
  EvalRun run = {0};
  if (n->body) {
    run = run_new(n->region->entry);
    find_last_uses(&run, n->body);
  }
  for (uint32_t i = 0; i < n->outs.len; i++)
    outs[i] = tensor_new(a, n->outs.data[i]->type);
  bool ok = run_node(ev, &run, n, (const Tensor *const *)ins, outs);
  for (uint32_t i = 0; i < n->outs.len && !ok; i++)
    outs[i] = NULL;
  run_free(&run);
  return ok ? run.clamped : EVAL_FAILED;
}

/* ---- ids and groups ------------------------------------------------------ */

int64_t eval_id(EvalCall *c, double id, int64_t size) {
  if (id >= 0 && id < (double)size) return (int64_t)id;
  c->clamped++;
  return id > 0 ? size - 1 : 0;
}

void eval_count_ids(EvalCall *c, const Tensor *ids, int64_t groups, bool drops,
                    int64_t *offsets) {
  memset(offsets, 0, sizeof *offsets * (size_t)(groups + 1));
  for (int64_t i = 0, n = type_elements(&ids->type); i < n; i++)
    if (!drops || ids->data[i] != (double)groups)
      offsets[eval_id(c, ids->data[i], groups) + 1]++;
  for (int64_t g = 0; g < groups; g++)
    offsets[g + 1] += offsets[g];
}

/* What says whose the rows of `v` are: ids of a `by` that dispatches, or
 * offsets where that is NULL. NULL: nothing does. */
static const Tensor *rows_source(EvalCall *c, Value *v, const Node **by) {
  *by = NULL;
  if (c->n->op == OP_contract && c->n->ins.len > 2) return c->ins[2];
  Value *source = ir_ragged_source(v);
  if (!source) return NULL;
  const Node *owner = ir_ragged_owner(v);
  if (owner->op == OP_dispatch) *by = owner;
  const Tensor *t = c->run->values ? c->run->values[source->id] : NULL;
  if (!t && c->ev->outside) t = c->ev->outside(c->ev->user, source);
  return t;
}

int64_t *eval_groups(EvalCall *c, Value *v) {
  const Node *by;
  const Tensor *t = rows_source(c, v, &by);
  if (!t) {
    diag_error(c->ev->cx, c->n->span,
               "%s: nothing says which rows of a ragged value belong to whom",
               op_info[c->n->op].name);
    c->failed = true;
    return NULL;
  }
  int64_t groups = v->type.dims[0].size;
  int64_t *offsets = calloc((size_t)groups + 1, sizeof *offsets);
  if (!offsets) internal_error("out of memory");
  for (int64_t g = 0; g <= groups && !by; g++)
    offsets[g] = (int64_t)t->data[g];
  uint32_t clamped = c->clamped; /* counted where rows were made */
  if (by) eval_count_ids(c, t, groups, attr_bool(by, "drops"), offsets);
  c->clamped = clamped;
  return offsets;
}

/* ---- bodies -------------------------------------------------------------- */

void eval_fused(EvalCall *c) {
  Region *body = c->n->body;
  for (uint32_t i = 0; i < body->params.len; i++)
    c->run->values[body->params.data[i]->id] = (Tensor *)c->ins[i];
  c->failed = !run_region(c->ev, c->run, body);
  for (uint32_t i = 0; i < body->results.len && !c->failed; i++) {
    const Tensor *t = c->run->values[body->results.data[i]->id];
    memcpy(c->outs[i]->data, t->data, data_bytes(&t->type));
  }
  drop_all(c->run, body);
}

/* Where iteration `i` of a stacked tensor starts, and how long it is. */
static double *stacked_at(const Tensor *stacked, int64_t i, size_t *bytes) {
  int64_t n = type_elements(&stacked->type) / stacked->type.dims[0].size;
  *bytes = (size_t)n * sizeof(double);
  return stacked->data + i * n;
}

/* Gives the body's parameters their tensors: copies for what changes from one
 * iteration to the next, the operands themselves for invariants. Carries live
 * in the results, which start as the operands. */
static void scan_bind(EvalCall *c, uint32_t carries, uint32_t scanned) {
  Region *body = c->n->body;
  for (uint32_t i = 0; i < body->params.len; i++) {
    Tensor *t = NULL;
    if (i == 0 || (i > carries && i <= carries + scanned))
      t = heap_tensor(body->params.data[i]->type);
    else if (i <= carries)
      t = c->outs[i - 1];
    else
      t = (Tensor *)c->ins[i - 1];
    c->run->values[body->params.data[i]->id] = t;
  }
  for (uint32_t i = 0; i < carries; i++)
    memcpy(c->outs[i]->data, c->ins[i]->data, data_bytes(&c->ins[i]->type));
}

static void scan_unbind(EvalCall *c, uint32_t carries, uint32_t scanned) {
  Value **params = c->n->body->params.data;
  free(c->run->values[params[0]->id]);
  for (uint32_t i = 0; i < scanned; i++)
    free(c->run->values[params[1 + carries + i]->id]);
}

/* Next carries and stacked values from the results of iteration `t`. Carries
 * are copied aside first: a result may be another carry's parameter. */
static void scan_yield(EvalCall *c, uint32_t carries, int64_t t) {
  Region *body = c->n->body;
  Tensor **next = calloc(body->results.len + 1, sizeof *next);
  if (!next) internal_error("out of memory");
  for (uint32_t i = 0; i < body->results.len; i++) {
    const Tensor *result = c->run->values[body->results.data[i]->id];
    if (i < carries) {
      next[i] = heap_tensor(result->type);
      memcpy(next[i]->data, result->data, data_bytes(&result->type));
    } else {
      size_t bytes;
      double *to = stacked_at(c->outs[i], t, &bytes);
      memcpy(to, result->data, bytes);
    }
  }
  for (uint32_t i = 0; i < carries; i++) {
    memcpy(c->outs[i]->data, next[i]->data, data_bytes(&next[i]->type));
    free(next[i]);
  }
  free(next);
}

/* How many turns a scan takes. */
static int64_t scan_turns(const EvalCall *c) {
  int64_t length = attr_int(c->n, "length");
  if (!attr_bool(c->n, "counted")) return length;
  int64_t turns = (int64_t)c->ins[c->n->ins.len - 1]->data[0];
  return turns < length ? turns : length;
}

void eval_scan(EvalCall *c) {
  Region *body = c->n->body;
  uint32_t carries = (uint32_t)attr_int(c->n, "carries");
  uint32_t scanned = (uint32_t)attr_int(c->n, "scanned");
  int64_t length = scan_turns(c);
  bool reverse = attr_bool(c->n, "reverse");
  scan_bind(c, carries, scanned);
  for (int64_t i = 0; i < length && !c->failed; i++) {
    int64_t t = reverse ? length - 1 - i : i;
    c->run->values[body->params.data[0]->id]->data[0] = (double)t;
    for (uint32_t k = carries; k < carries + scanned; k++) {
      size_t bytes;
      const double *from = stacked_at(c->ins[k], t, &bytes);
      memcpy(c->run->values[body->params.data[k + 1]->id]->data, from, bytes);
    }
    c->failed = !run_region(c->ev, c->run, body);
    if (!c->failed) scan_yield(c, carries, t);
    drop_all(c->run, body);
  }
  scan_unbind(c, carries, scanned);
}

void eval_none(EvalCall *c) {
  diag_error(c->ev->cx, c->n->span,
             "cannot evaluate `%s`: run the autodiff pass first",
             op_info[c->n->op].name);
  c->failed = true;
}
