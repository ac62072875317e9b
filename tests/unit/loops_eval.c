/* loops_eval.c: see loops_eval.h. Scalar ops are the interpreter's. */
#include "loops_eval.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LANES = 64, GUARD = 0xff, MOST_RESULTS = 1 << 16 /* bytes */ };

typedef struct Cell {
  bool set;
  int64_t index;
  double lane[MAX_LANES];
} Cell;

typedef struct Run {
  Ctx *cx;
  const Kernel *k;
  const LoopsArg *args;
  LoopsArg scratch, workspace;
  Cell *cells; /* by id; results of loops at n_vals + id of their acc */
  unsigned char tiles[8][16][64];
  Map calls;     /* K_SCALAR -> Call */
  Arena results; /* of scalars, until there are many */
  Buf *why;
  bool failed;
} Run;

/* What a scalar statement needs of the interpreter, made once. */
typedef struct Call {
  Node *n;
  Tensor *ins[5];
} Call;

static void fail(Run *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fail(Run *r, const char *fmt, ...) {
  char text[256];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  if (!r->failed) buf_add(r->why, text);
  r->failed = true;
}

static Cell *cell(Run *r, const KVal *v) {
  uint32_t at = v->id;
  if (v->kind == K_RESULT)
    at = r->k->n_vals + v->loop->accs.data[v->number]->id;
  return &r->cells[at];
}

static int64_t index_of(Run *r, const KVal *v) {
  if (v->kind == K_INDEX) return v->number;
  const Cell *c = cell(r, v);
  if (!c->set) fail(r, "index %u is read before it is known", v->id);
  return c->index;
}

static double lane_of(Run *r, const KVal *v, int lane) {
  if (v->kind == K_CONST) {
    return v->dtype == DT_f32 ? (double)(float)v->value : v->value;
  }
  const Cell *c = cell(r, v);
  if (!c->set) fail(r, "value %u is read before it is known", v->id);
  return c->lane[lane];
}

/* ---- memory -------------------------------------------------------------- */

static unsigned char *address(Run *r, const KVal *v, int64_t index) {
  KBase b = v->base;
  LoopsArg m = r->scratch;
  int64_t at = b.number;
  if (b.kind == KB_ARG) {
    if (b.number < 0 || b.number >= r->k->n_args) {
      fail(r, "there is no argument %lld", (long long)b.number);
      return NULL;
    }
    m = r->args[b.number];
    at = 0;
  } else if (b.kind == KB_WORKSPACE) {
    m = r->workspace;
  }
  int64_t bytes = dtype_info[b.dtype].bytes;
  at += index * bytes;
  if (index < 0 || at < 0 || at + bytes > m.bytes) {
    fail(r, "%s of element %lld outside of base %d %lld",
         v->kind == K_STORE || v->kind == K_TILE_STORE ? "store" : "load",
         (long long)index, (int)b.kind, (long long)b.number);
    return NULL;
  }
  return m.data + at;
}

static double read_element(Run *r, const KVal *v, int64_t index) {
  unsigned char *p = address(r, v, index);
  if (!p) return 0;
  Type t = type_scalar(v->base.dtype);
  double x;
  Tensor one = {t, &x};
  tensor_from_bytes(&one, p);
  return x;
}

static void write_element(Run *r, const KVal *v, int64_t index, double x) {
  unsigned char *p = address(r, v, index);
  Tensor one = {type_scalar(v->base.dtype), &x};
  if (p) tensor_to_bytes(&one, p);
}

static void run_load(Run *r, const KVal *v) {
  Cell *c = cell(r, v);
  int64_t at = index_of(r, v->a[0]);
  bool some = v->a[1] && v->a[1]->index, gather = v->a[1] && !some;
  int64_t count = some ? index_of(r, v->a[1]) : v->lanes;
  for (int i = 0; i < v->lanes; i++) {
    int64_t offset = gather ? (int64_t)lane_of(r, v->a[1], i) : i;
    c->lane[i] = i < count ? read_element(r, v, at + offset) : 0;
  }
  c->set = true;
}

static void run_store(Run *r, const KVal *v) {
  int64_t at = index_of(r, v->a[0]);
  int64_t count = v->a[2] ? index_of(r, v->a[2]) : v->lanes;
  for (int i = 0; i < v->lanes && i < count; i++)
    write_element(r, v, at + i, lane_of(r, v->a[1], i));
}

/* ---- statements ---------------------------------------------------------- */

static void run_alu(Run *r, const KVal *v) {
  int64_t x = index_of(r, v->a[0]), y = index_of(r, v->a[1]), z = 0;
  if ((v->alu == A_DIV || v->alu == A_REM) && y == 0) {
    fail(r, "index divided by 0");
    return;
  }
  switch (v->alu) {
  case A_ADD: z = x + y; break;
  case A_SUB: z = x - y; break;
  case A_MUL: z = x * y; break;
  case A_DIV: z = x / y; break;
  case A_REM: z = x % y; break;
  case A_MIN: z = x < y ? x : y; break;
  case A_MAX: z = x > y ? x : y; break;
  case A_LT: z = x < y; break;
  case A_LE: z = x <= y; break;
  case A_EQ: z = x == y; break;
  }
  Cell *c = cell(r, v);
  c->index = z;
  c->lane[0] = (double)z;
  c->set = true;
}

static Call *call_for(Run *r, const KVal *v) {
  Call *call = map_get(&r->calls, v);
  if (call) return call;
  Arena *a = &r->cx->scratch;
  call = NEW(a, Call);
  call->n = NEW(a, Node);
  call->n->op = v->op;
  int64_t lanes = v->lanes;
  for (int i = 0; i < 5 && v->a[i]; i++) {
    Value *in = NEW(a, Value);
    in->type = type_of(v->a[i]->dtype, 1, &lanes);
    vec_push(a, &call->n->ins, in);
    call->ins[i] = tensor_new(a, in->type);
  }
  Value *out = NEW(a, Value);
  out->type = type_of(v->dtype, 1, &lanes);
  out->def = call->n;
  vec_push(a, &call->n->outs, out);
  map_put(a, &r->calls, v, call);
  return call;
}

static void run_scalar(Run *r, const KVal *v) {
  Call *call = call_for(r, v);
  for (uint32_t i = 0; i < call->n->ins.len; i++)
    for (int l = 0; l < v->lanes; l++)
      call->ins[i]->data[l] = lane_of(r, v->a[i], l);
  Tensor *out;
  Eval ev = {.cx = r->cx, .mode = EVAL_TYPED};
  ir_eval_node(&ev, call->n, call->ins, &out, &r->results);
  memcpy(cell(r, v)->lane, out->data, sizeof(double) * v->lanes);
  cell(r, v)->set = true;
  if (r->results.used_bytes > MOST_RESULTS) arena_reset(&r->results);
}

static double fold_two(OpKind op, Dtype dtype, double x, double y) {
  if (op == OP_max) return x > y ? x : y;
  if (op == OP_min) return x < y ? x : y;
  int64_t sum;
  switch (dtype_info[dtype].kind) { /* integers wrap */
  case DK_FLOAT: return dtype == DT_f32 ? (double)(float)(x + y) : x + y;
  case DK_UINT: sum = (int64_t)x + (int64_t)y; return (double)(uint32_t)sum;
  case DK_INT:
  case DK_BOOL: sum = (int64_t)x + (int64_t)y; return (double)(int32_t)sum;
  }
  return 0;
}

static void run_fold(Run *r, const KVal *v) {
  Cell *c = cell(r, v);
  int n = v->a[0]->lanes;
  double x[MAX_LANES];
  for (int i = 0; i < n; i++)
    x[i] = lane_of(r, v->a[0], i);
  for (; n > 1; n /= 2)
    for (int i = 0; i < n / 2; i++)
      x[i] = fold_two(v->op, v->dtype, x[i], x[i + n / 2]);
  c->lane[0] = x[0];
  c->set = true;
}

/* ---- pairs and tiles ----------------------------------------------------- */

static void run_zip(Run *r, const KVal *v) {
  Cell *c = cell(r, v);
  int group = (int)v->number, half = v->value != 0 ? v->lanes / 2 : 0;
  for (int i = 0; i < v->lanes; i++) {
    int pair = i / (2 * group), at = i % group;
    const KVal *from = v->a[i / group % 2];
    c->lane[i] = lane_of(r, from, half + pair * group + at);
  }
  c->set = true;
}

static void run_narrow(Run *r, const KVal *v) {
  Cell *c = cell(r, v);
  for (int i = 0; i < v->lanes; i++) {
    unsigned char bytes[2];
    double x = lane_of(r, v->a[0], i);
    Tensor one = {type_scalar(v->dtype), &x};
    tensor_to_bytes(&one, bytes);
    tensor_from_bytes(&one, bytes);
    c->lane[i] = x;
  }
  c->set = true;
}

static float half_of(uint32_t pair, int which) {
  uint32_t bits = which ? pair & 0xffff0000u : pair << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static float dot_two(float sum, uint32_t x, uint32_t y) {
  sum += half_of(x, 1) * half_of(y, 1);
  return sum + half_of(x, 0) * half_of(y, 0);
}

static void run_dot(Run *r, const KVal *v) {
  Cell *c = cell(r, v);
  for (int i = 0; i < v->lanes; i++)
    c->lane[i] =
        dot_two((float)lane_of(r, v->a[0], i), (uint32_t)lane_of(r, v->a[1], i),
                (uint32_t)lane_of(r, v->a[2], i));
  c->set = true;
}

static void run_tile_dot(Run *r, const KVal *v) {
  float(*sum)[16] = (void *)r->tiles[v->number];
  const uint32_t(*x)[16] = (void *)r->tiles[v->a[0]->number];
  const uint32_t(*y)[16] = (void *)r->tiles[v->a[1]->number];
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 16; n++)
        sum[m][n] = dot_two(sum[m][n], x[m][k], y[k][n]);
}

static void run_tile_take(Run *r, const KVal *v) {
  uint16_t(*tile)[32] = (void *)r->tiles[v->number];
  int64_t at[5];
  for (int i = 0; i < 5; i++)
    at[i] = index_of(r, v->a[i]);
  for (int64_t m = 0; m < 16; m++)
    for (int64_t k = 0; k < 32; k++) {
      uint16_t *to = v->value != 0 ? &tile[k / 2][2 * m + k % 2] : &tile[m][k];
      int64_t row = m < at[1] ? m : at[1];
      unsigned char *p = NULL;
      *to = 0;
      if (k >= at[2]) continue;
      if (!(p = address(r, v, at[0] + row * at[3] + k * at[4]))) return;
      memcpy(to, p, sizeof *to);
    }
}

static void run_tile(Run *r, const KVal *v) {
  int64_t bytes = dtype_info[v->base.dtype].bytes;
  if (v->kind == K_TILE_ZERO) memset(r->tiles[v->number], 0, 16 * 64);
  if (v->kind == K_TILE_DOT) run_tile_dot(r, v);
  if (v->kind == K_TILE_TAKE) run_tile_take(r, v);
  if (v->kind != K_TILE_LOAD && v->kind != K_TILE_STORE) return;
  int64_t at = index_of(r, v->a[0]), step = index_of(r, v->a[1]);
  for (int i = 0; i < 16; i++) {
    unsigned char *row = r->tiles[v->number][i];
    unsigned char *p = address(r, v, at + i * step);
    if (!p || !address(r, v, at + i * step + 64 / bytes - 1)) return;
    if (v->kind == K_TILE_LOAD)
      memcpy(row, p, 64);
    else
      memcpy(p, row, 64);
  }
}

static void run_block(Run *r, const KBlock *b);

static void copy_cell(Run *r, Cell *to, const KVal *from) {
  if (from->index)
    to->index = index_of(r, from);
  else
    for (int i = 0; i < from->lanes; i++)
      to->lane[i] = lane_of(r, from, i);
  to->set = true;
}

static void run_for(Run *r, const KVal *v) {
  uint32_t n = v->accs.len;
  Cell *next = calloc(n + 1, sizeof *next);
  if (!next) internal_error("out of memory");
  for (uint32_t i = 0; i < n; i++)
    copy_cell(r, cell(r, v->accs.data[i]), v->accs.data[i]->a[0]);
  int64_t hi = index_of(r, v->a[1]);
  for (int64_t i = index_of(r, v->a[0]); i < hi && !r->failed; i += v->number) {
    *cell(r, v->loop) = (Cell){.set = true, .index = i};
    run_block(r, &v->body);
    for (uint32_t j = 0; j < n; j++)
      copy_cell(r, &next[j], v->updates.data[j]);
    for (uint32_t j = 0; j < n; j++)
      *cell(r, v->accs.data[j]) = next[j];
  }
  for (uint32_t i = 0; i < n; i++)
    r->cells[r->k->n_vals + v->accs.data[i]->id] = *cell(r, v->accs.data[i]);
  free(next);
}

static void run_simple(Run *r, const KVal *v) {
  Cell *c = cell(r, v);
  for (int i = 0; i < v->lanes; i++) {
    if (v->kind == K_SPLAT) c->lane[i] = lane_of(r, v->a[0], 0);
    if (v->kind == K_LANES) c->lane[i] = lane_of(r, v->a[0], 0) + i;
    if (v->kind == K_TO_I32) c->lane[i] = (double)(int32_t)index_of(r, v->a[0]);
  }
  if (v->kind == K_FROM_I32) c->index = (int64_t)lane_of(r, v->a[0], 0);
  c->set = true;
}

static void run_statement(Run *r, const KVal *v) {
  switch (v->kind) {
  case K_ALU: run_alu(r, v); return;
  case K_SCALAR: run_scalar(r, v); return;
  case K_LOAD: run_load(r, v); return;
  case K_STORE: run_store(r, v); return;
  case K_FOLD: run_fold(r, v); return;
  case K_ZIP: run_zip(r, v); return;
  case K_DOT: run_dot(r, v); return;
  case K_NARROW: run_narrow(r, v); return;
  case K_FETCH: return; /* changes nothing */
  case K_TAKE:
  case K_MMA:
  case K_PLACES:
  case K_AHEAD:
  case K_PAIRS:
  case K_JOIN:
  case K_ROW_FOLD:
  case K_BY_ROW:
  case K_PAUSE:
  case K_PUT: fail(r, "fragments are for warps"); return;
  case K_TILE_ZERO:
  case K_TILE_LOAD:
  case K_TILE_STORE:
  case K_TILE_TAKE:
  case K_TILE_DOT: run_tile(r, v); return;
  case K_FOR: run_for(r, v); return;
  case K_IF:
    if (lane_of(r, v->a[0], 0) != 0) run_block(r, &v->body);
    return;
  case K_SPLAT:
  case K_LANES:
  case K_FROM_I32:
  case K_TO_I32: run_simple(r, v); return;
  case K_TILE_PICK: /* of warps */
  case K_WARP:
  case K_MEET:
  case K_PANEL:
  case K_PANEL_ROWS:
  case K_BATCH:
  case K_GROUP_DOT:
  case K_GROUP_WAIT:
  case K_GATES:
  case K_BOX:
  case K_GATE_WAIT:
  case K_INDEX:
  case K_IV:
  case K_CONST:
  case K_ACC:
  case K_RESULT: break;
  }
  fail(r, "kind %d stands in a block", (int)v->kind);
}

static void run_block(Run *r, const KBlock *b) {
  for (uint32_t i = 0; i < b->len && !r->failed; i++)
    run_statement(r, b->data[i]);
}

static void run_stage(Run *r, const KStage *s) {
  r->scratch.bytes = s->scratch_bytes;
  r->scratch.data = malloc((size_t)s->scratch_bytes + 1);
  if (!r->scratch.data) internal_error("out of memory");
  int64_t chunks = (s->count + s->grain - 1) / s->grain;
  for (int64_t c = chunks; c-- > 0 && !r->failed;) {
    memset(r->scratch.data, GUARD, (size_t)s->scratch_bytes);
    int64_t hi = (c + 1) * s->grain < s->count ? (c + 1) * s->grain : s->count;
    for (int64_t i = c * s->grain; i < hi && !r->failed; i++) {
      *cell(r, s->iv) = (Cell){.set = true, .index = i};
      run_block(r, &s->body);
    }
  }
  free(r->scratch.data);
}

bool loops_eval(Ctx *cx, const Kernel *k, const LoopsArg *args, Buf *why) {
  Run r = {.cx = cx, .k = k, .args = args, .why = why};
  r.cells = calloc(2 * (size_t)k->n_vals + 1, sizeof *r.cells);
  r.workspace.bytes = k->workspace_bytes;
  r.workspace.data = malloc((size_t)k->workspace_bytes + 1);
  if (!r.cells || !r.workspace.data) internal_error("out of memory");
  memset(r.workspace.data, GUARD, (size_t)k->workspace_bytes);
  for (uint32_t i = 0; i < k->stages.len && !r.failed; i++)
    run_stage(&r, &k->stages.data[i]);
  arena_reset(&r.results);
  free(r.cells);
  free(r.workspace.data);
  return !r.failed;
}
