/* loops.c: building kernel loops.
 *
 * The builder keeps a stack of open blocks. A value carries the depth and the
 * number of the block it is known in; it may be used wherever that block is
 * still open. A pure statement goes to the outermost block that knows all its
 * operands: an open loop joins its parent's block only when it is closed, so
 * appending to an outer block puts a statement in front of the loop. Equal pure
 * values are made once (hash consing); a hit whose block has been closed is
 * passed over. */
#include "codegen.h"

#include <string.h>

enum { MAX_DEPTH = 32, SCRATCH_ALIGN = 64 };

typedef struct Level {
  KVal *owner; /* K_FOR or K_IF; NULL for the stage */
  KBlock *block;
  uint32_t scope;
} Level;

typedef struct ConsCell ConsCell;
struct ConsCell {
  KVal *v;
  ConsCell *next;
};

struct KBuild {
  Ctx *cx;
  Arena *arena;
  Kernel *k;
  KStage stage; /* the open one */
  Level levels[MAX_DEPTH];
  int n_levels;
  uint32_t scopes;
  Map cons;
};

struct KDetour {
  int level, n;
  Level saved[MAX_DEPTH];
};

KBuild *kb_new(Ctx *cx, const char *name, int n_args, int n_outs) {
  KBuild *b = NEW(&cx->scratch, KBuild);
  b->cx = cx;
  b->arena = &cx->scratch;
  b->k = NEW(b->arena, Kernel);
  b->k->name = name;
  b->k->n_args = n_args;
  b->k->n_outs = n_outs;
  return b;
}

/* ---- blocks -------------------------------------------------------------- */

static Level *top(KBuild *b) {
  assert(b->n_levels > 0);
  return &b->levels[b->n_levels - 1];
}

static void open_level(KBuild *b, KVal *owner, KBlock *block) {
  assert(b->n_levels < MAX_DEPTH);
  b->levels[b->n_levels++] = (Level){owner, block, ++b->scopes};
}

int kb_depth(const KBuild *b) {
  return b->n_levels - 1;
}

uint32_t kb_scope(const KBuild *b, int level) {
  return level < b->n_levels ? b->levels[level].scope : 0;
}

bool kb_known(const KBuild *b, const KVal *v) {
  return v->scope == 0 ||
         (v->level < b->n_levels && b->levels[v->level].scope == v->scope);
}

KDetour *kb_detour(KBuild *b, int level) {
  assert(level >= 0 && level < b->n_levels);
  KDetour *d = NEW(b->arena, KDetour);
  d->level = level;
  d->n = b->n_levels - (level + 1);
  for (int i = 0; i < d->n; i++)
    d->saved[i] = b->levels[level + 1 + i];
  b->n_levels = level + 1;
  return d;
}

void kb_return(KBuild *b, KDetour *d) {
  assert(b->n_levels == d->level + 1);
  for (int i = 0; i < d->n; i++)
    b->levels[b->n_levels++] = d->saved[i];
}

/* ---- values -------------------------------------------------------------- */

static KVal *new_val(KBuild *b, KVal proto) {
  KVal *v = NEW(b->arena, KVal);
  *v = proto;
  v->id = b->k->n_vals++;
  return v;
}

/* Makes `v` known in the block of depth `level`. */
static KVal *know_at(KBuild *b, KVal *v, int level) {
  v->level = (uint16_t)level;
  v->scope = b->levels[level].scope;
  return v;
}

static KVal *append_at(KBuild *b, KVal proto, int level) {
  KVal *v = know_at(b, new_val(b, proto), level);
  vec_push(b->arena, b->levels[level].block, v);
  return v;
}

static KVal *append(KBuild *b, KVal proto) {
  return append_at(b, proto, kb_depth(b));
}

/* Depth of the outermost block that knows all operands. */
static int operands_level(const KBuild *b, const KVal *p) {
  int level = 0;
  for (size_t i = 0; i < COUNT_OF(p->a) && p->a[i]; i++) {
    assert(kb_known(b, p->a[i]) && "operand of a closed block");
    if (p->a[i]->scope && p->a[i]->level > level) level = p->a[i]->level;
  }
  return level;
}

static uint64_t value_key(const KVal *p) {
  uint64_t w[13] = {p->kind,
                    p->op,
                    p->alu,
                    p->dtype,
                    p->index,
                    p->lanes,
                    (uint64_t)p->number,
                    0,
                    p->base.kind,
                    (uint64_t)p->base.number};
  memcpy(&w[7], &p->value, sizeof w[7]);
  w[10] = p->base.dtype;
  uint64_t h = hash_bytes(0, w, sizeof w);
  for (size_t i = 0; i < COUNT_OF(p->a) && p->a[i]; i++)
    h = hash_bytes(h, &p->a[i]->id, sizeof p->a[i]->id);
  return h;
}

static bool same_value(const KVal *x, const KVal *y) {
  return x->kind == y->kind && x->op == y->op && x->alu == y->alu &&
         x->dtype == y->dtype && x->index == y->index && x->lanes == y->lanes &&
         x->number == y->number &&
         memcmp(&x->value, &y->value, sizeof x->value) == 0 &&
         memcmp(x->a, y->a, sizeof x->a) == 0 && x->base.kind == y->base.kind &&
         x->base.number == y->base.number && x->base.dtype == y->base.dtype;
}

/* The value that `proto` describes, found or made; `floor`: the outermost depth
 * it may go to. -1: it stands in no block and is known everywhere. */
static KVal *cons(KBuild *b, KVal proto, int floor) {
  uint64_t key = value_key(&proto);
  const void *mapped = (const void *)(uintptr_t)key;
  ConsCell *chain = map_get(&b->cons, mapped);
  for (ConsCell *c = chain; c; c = c->next)
    if (same_value(c->v, &proto) && kb_known(b, c->v)) return c->v;
  KVal *v;
  if (floor < 0) {
    v = new_val(b, proto);
  } else {
    int level = operands_level(b, &proto);
    v = append_at(b, proto, level > floor ? level : floor);
  }
  ConsCell *cell = NEW(b->arena, ConsCell);
  *cell = (ConsCell){v, chain};
  map_put(b->arena, &b->cons, mapped, cell);
  return v;
}

KVal *kb_value(KBuild *b, KVal proto) {
  return cons(b, proto, 0);
}

KVal *kb_statement(KBuild *b, KVal proto) {
  operands_level(b, &proto); /* asserts that they are known */
  return append(b, proto);
}

static bool is_index_const(const KVal *v, int64_t number) {
  return v->kind == K_INDEX && v->number == number;
}

KVal *kb_index(KBuild *b, int64_t number) {
  return cons(
      b, (KVal){.kind = K_INDEX, .index = true, .lanes = 1, .number = number},
      -1);
}

static int64_t alu_fold(KAlu alu, int64_t x, int64_t y) {
  switch (alu) {
  case A_ADD: return x + y;
  case A_SUB: return x - y;
  case A_MUL: return x * y;
  case A_DIV: return x / y;
  case A_REM: return x % y;
  case A_MIN: return x < y ? x : y;
  case A_MAX: return x > y ? x : y;
  case A_LT: return x < y;
  case A_LE: return x <= y;
  case A_EQ: return x == y;
  }
  internal_error("index operation %d", (int)alu);
}

/* x where the operation with a constant leaves it alone, the constant where it
 * wins, else NULL. */
static KVal *alu_identity(KBuild *b, KAlu alu, KVal *x, KVal *y) {
  if ((alu == A_ADD || alu == A_SUB) && is_index_const(y, 0)) return x;
  if ((alu == A_MUL || alu == A_DIV) && is_index_const(y, 1)) return x;
  if (alu == A_MUL && is_index_const(y, 0)) return y;
  if (alu == A_REM && is_index_const(y, 1)) return kb_index(b, 0);
  if (alu == A_SUB && x == y) return kb_index(b, 0);
  if ((alu == A_DIV || alu == A_REM) && is_index_const(x, 0) &&
      y->kind == K_INDEX)
    return x;
  return NULL;
}

KVal *kb_alu(KBuild *b, KAlu alu, KVal *x, KVal *y) {
  assert(x->index && y->index);
  bool compare = alu == A_LT || alu == A_LE || alu == A_EQ;
  bool divides = alu == A_DIV || alu == A_REM;
  bool commutes = alu == A_ADD || alu == A_MUL || alu == A_MIN || alu == A_MAX;
  if (x->kind == K_INDEX && y->kind == K_INDEX &&
      !(divides && y->number == 0)) {
    int64_t r = alu_fold(alu, x->number, y->number);
    return compare ? kb_const(b, DT_bool, (double)r) : kb_index(b, r);
  }
  if (commutes && x->kind == K_INDEX) {
    KVal *t = x;
    x = y;
    y = t;
  }
  KVal *same = alu_identity(b, alu, x, y);
  if (same) return same;
  KVal p = {.kind = K_ALU,
            .alu = alu,
            .lanes = 1,
            .index = !compare,
            .dtype = compare ? DT_bool : 0,
            .a = {x, y}};
  /* A division might trap where its block would not have run. */
  return cons(b, p, divides && y->kind != K_INDEX ? kb_depth(b) : 0);
}

KVal *kb_alu_c(KBuild *b, KAlu alu, KVal *x, int64_t y) {
  return kb_alu(b, alu, x, kb_index(b, y));
}

KVal *kb_from_i32(KBuild *b, KVal *v) {
  assert(!v->index && v->lanes == 1 &&
         (v->dtype == DT_i32 || v->dtype == DT_u32));
  if (v->kind == K_CONST) return kb_index(b, (int64_t)v->value);
  return cons(
      b, (KVal){.kind = K_FROM_I32, .index = true, .lanes = 1, .a = {v}}, 0);
}

KVal *kb_to_i32(KBuild *b, KVal *v) {
  assert(v->index);
  if (v->kind == K_INDEX) return kb_const(b, DT_i32, (double)v->number);
  if (v->kind == K_FROM_I32 && v->a[0]->dtype == DT_i32) return v->a[0];
  return cons(
      b, (KVal){.kind = K_TO_I32, .dtype = DT_i32, .lanes = 1, .a = {v}}, 0);
}

KVal *kb_const(KBuild *b, Dtype dtype, double value) {
  return cons(
      b, (KVal){.kind = K_CONST, .dtype = dtype, .lanes = 1, .value = value},
      -1);
}

KVal *kb_splat(KBuild *b, KVal *v, int lanes) {
  if (v->lanes == lanes) return v;
  assert(!v->index && v->lanes == 1);
  KVal p = {.dtype = v->dtype, .lanes = (uint16_t)lanes};
  if (v->kind == K_CONST) {
    p.kind = K_CONST;
    p.value = v->value;
    return cons(b, p, -1);
  }
  p.kind = K_SPLAT;
  p.a[0] = v;
  return cons(b, p, 0);
}

KVal *kb_scalar(KBuild *b, OpKind op, Dtype dtype, KVal *const *a, int n) {
  assert(op_is(op, TRAIT_EW) && !op_is(op, TRAIT_HIGH));
  assert(n >= op_info[op].min_ins && n <= op_info[op].max_ins && n <= 5);
  int lanes = 1;
  for (int i = 0; i < n; i++) {
    assert(!a[i]->index);
    if (a[i]->lanes > lanes) lanes = a[i]->lanes;
  }
  KVal p = {
      .kind = K_SCALAR, .op = op, .dtype = dtype, .lanes = (uint16_t)lanes};
  for (int i = 0; i < n; i++)
    p.a[i] = kb_splat(b, a[i], lanes);
  return cons(b, p, 0);
}

KVal *kb_op2(KBuild *b, OpKind op, KVal *x, KVal *y) {
  assert(x->dtype == y->dtype);
  bool compare = op == OP_lt || op == OP_le || op == OP_eq || op == OP_ne;
  KVal *a[2] = {x, y};
  return kb_scalar(b, op, compare ? DT_bool : x->dtype, a, 2);
}

KVal *kb_fma(KBuild *b, KVal *x, KVal *y, KVal *z) {
  KVal *a[3] = {x, y, z};
  return kb_scalar(b, OP_fma, x->dtype, a, 3);
}

KVal *kb_select(KBuild *b, KVal *cond, KVal *yes, KVal *no) {
  assert(cond->dtype == DT_bool && yes->dtype == no->dtype);
  if (cond->kind == K_CONST) return cond->value != 0 ? yes : no;
  KVal *a[3] = {cond, yes, no};
  return kb_scalar(b, OP_select, yes->dtype, a, 3);
}

KVal *kb_lanes(KBuild *b, KVal *v, int lanes) {
  assert(v->dtype == DT_i32 && !v->index && v->lanes == 1);
  if (lanes == 1) return v;
  return cons(
      b,
      (KVal){
          .kind = K_LANES, .dtype = DT_i32, .lanes = (uint16_t)lanes, .a = {v}},
      0);
}

KVal *kb_fold(KBuild *b, OpKind op, KVal *v) {
  assert(op == OP_add || op == OP_max || op == OP_min);
  if (v->lanes == 1) return v;
  return cons(
      b,
      (KVal){.kind = K_FOLD, .op = op, .dtype = v->dtype, .lanes = 1, .a = {v}},
      0);
}

/* ---- what is known of an index ------------------------------------------- */

static int64_t gcd(int64_t x, int64_t y) {
  while (y) {
    int64_t r = x % y;
    x = y;
    y = r;
  }
  return x < 0 ? -x : x;
}

int64_t kb_divisor(const KVal *v) {
  if (v->kind == K_INDEX) return v->number < 0 ? -v->number : v->number;
  if (v->kind == K_IV && v->loop)
    return gcd(kb_divisor(v->loop->a[0]), v->loop->number);
  if (v->kind != K_ALU) return 1;
  int64_t x = kb_divisor(v->a[0]), y = kb_divisor(v->a[1]);
  if (v->alu == A_ADD || v->alu == A_SUB || v->alu == A_MIN ||
      v->alu == A_MAX || v->alu == A_REM)
    return gcd(x, y);
  if (v->alu == A_MUL && x < 1 << 30 && y < 1 << 30) return x * y;
  return 1;
}

/* ---- memory -------------------------------------------------------------- */

static int64_t carve(int64_t *used, Dtype dtype, int64_t elements) {
  int64_t at = *used;
  int64_t bytes = elements * dtype_info[dtype].bytes;
  *used = (at + bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
  return at;
}

KBase kb_scratch(KBuild *b, Dtype dtype, int64_t elements) {
  assert(b->n_levels > 0);
  int64_t at = carve(&b->stage.scratch_bytes, dtype, elements);
  return (KBase){KB_SCRATCH, at, dtype};
}

KBase kb_workspace(KBuild *b, Dtype dtype, int64_t elements) {
  int64_t at = carve(&b->k->workspace_bytes, dtype, elements);
  return (KBase){KB_WORKSPACE, at, dtype};
}

KBase kb_held(KBuild *b, Dtype dtype, int64_t elements) {
  int64_t at = carve(&b->k->held_bytes, dtype, elements);
  return (KBase){KB_HELD, at, dtype};
}

KBase kb_arg(int number, Dtype dtype) {
  return (KBase){KB_ARG, number, dtype};
}

static KVal load_of(KBase base, KVal *index, KVal *offsets, int lanes) {
  assert(index->index && (!offsets || offsets->dtype == DT_i32));
  return (KVal){.kind = K_LOAD,
                .base = base,
                .dtype = base.dtype,
                .lanes = offsets ? offsets->lanes : (uint16_t)lanes,
                .a = {index, offsets}};
}

KVal *kb_load(KBuild *b, KBase base, KVal *index, int lanes) {
  KVal p = load_of(base, index, NULL, lanes);
  operands_level(b, &p); /* asserts that they are known */
  return append(b, p);
}

KVal *kb_gather(KBuild *b, KBase base, KVal *index, KVal *offsets) {
  KVal p = load_of(base, index, offsets, 0);
  operands_level(b, &p);
  return append(b, p);
}

KVal *kb_load_from(KBuild *b, KBase base, KVal *index, KVal *offsets, int lanes,
                   int floor) {
  for (int i = 0; i < b->n_levels; i++)
    if (b->levels[i].owner && b->levels[i].owner->kind == K_IF && i > floor)
      floor = i;
  return cons(b, load_of(base, index, offsets, lanes), floor);
}

static void add_store(KBuild *b, KBase base, KVal *index, KVal *v,
                      bool streams) {
  assert(index->index && !v->index && v->dtype == base.dtype);
  KVal p = {.kind = K_STORE,
            .base = base,
            .dtype = base.dtype,
            .lanes = v->lanes,
            .value = streams,
            .a = {index, v}};
  operands_level(b, &p);
  append(b, p);
}

void kb_store(KBuild *b, KBase base, KVal *index, KVal *v) {
  add_store(b, base, index, v, false);
}

void kb_stream(KBuild *b, KBase base, KVal *index, KVal *v) {
  b->stage.streams = true;
  add_store(b, base, index, v, true);
}

static void fetch(KBuild *b, KBase base, KVal *index, bool far) {
  assert(index->index);
  KVal p = {.kind = K_FETCH, .base = base, .value = far, .a = {index}};
  operands_level(b, &p);
  append(b, p);
}

void kb_fetch(KBuild *b, KBase base, KVal *index) {
  fetch(b, base, index, false);
}

void kb_fetch_far(KBuild *b, KBase base, KVal *index) {
  fetch(b, base, index, true);
}

KVal *kb_load_some(KBuild *b, KBase base, KVal *index, KVal *count, int lanes) {
  assert(index->index && count->index);
  if (count->kind == K_INDEX && count->number == lanes)
    return kb_load(b, base, index, lanes);
  KVal p = {.kind = K_LOAD,
            .base = base,
            .dtype = base.dtype,
            .lanes = (uint16_t)lanes,
            .a = {index, count}};
  operands_level(b, &p);
  return append(b, p);
}

void kb_store_some(KBuild *b, KBase base, KVal *index, KVal *count, KVal *v) {
  assert(index->index && count->index && v->dtype == base.dtype);
  if (count->kind == K_INDEX && count->number == v->lanes) {
    kb_store(b, base, index, v);
    return;
  }
  KVal p = {.kind = K_STORE,
            .base = base,
            .dtype = base.dtype,
            .lanes = v->lanes,
            .a = {index, v, count}};
  operands_level(b, &p);
  append(b, p);
}

/* ---- pairs and tiles ----------------------------------------------------- */

KVal *kb_zip(KBuild *b, KVal *x, KVal *y, int group, bool upper) {
  assert(x->lanes == y->lanes && x->dtype == y->dtype);
  assert(x->lanes % (2 * group) == 0);
  KVal p = {.kind = K_ZIP,
            .dtype = x->dtype,
            .lanes = x->lanes,
            .number = group,
            .value = upper,
            .a = {x, y}};
  return cons(b, p, 0);
}

KVal *kb_dot(KBuild *b, KVal *sum, KVal *x, KVal *y) {
  assert(sum->dtype == DT_f32 && x->dtype == DT_u32 && y->dtype == DT_u32);
  b->stage.needs |= KN_DOT;
  KVal p = {.kind = K_DOT,
            .dtype = DT_f32,
            .lanes = sum->lanes,
            .a = {sum, kb_splat(b, x, sum->lanes), kb_splat(b, y, sum->lanes)}};
  return cons(b, p, 0);
}

KVal *kb_narrow(KBuild *b, KVal *x) {
  assert(x->dtype == DT_f32 && x->lanes == 32);
  b->stage.needs |= KN_NARROW;
  KVal p = {.kind = K_NARROW, .dtype = DT_bf16, .lanes = x->lanes, .a = {x}};
  return cons(b, p, 0);
}

static void tile_statement(KBuild *b, KVal p) {
  b->stage.needs |= KN_TILES;
  kb_statement(b, p);
}

void kb_tile_zero(KBuild *b, int tile) {
  tile_statement(b, (KVal){.kind = K_TILE_ZERO, .number = tile});
}

void kb_tile_load(KBuild *b, int tile, KBase base, KVal *index, int64_t step) {
  tile_statement(b, (KVal){.kind = K_TILE_LOAD,
                           .number = tile,
                           .base = base,
                           .a = {index, kb_index(b, step)}});
}

void kb_tile_store(KBuild *b, int tile, KBase base, KVal *index, int64_t step) {
  tile_statement(b, (KVal){.kind = K_TILE_STORE,
                           .number = tile,
                           .base = base,
                           .a = {index, kb_index(b, step)}});
}

void kb_tile_take(KBuild *b, int tile, bool right, KBase base, KVal *index,
                  KVal *last, KVal *depth, int64_t step, int64_t along) {
  KVal *steps = kb_index(b, step), *alongs = kb_index(b, along);
  tile_statement(b, (KVal){.kind = K_TILE_TAKE,
                           .number = tile,
                           .value = right,
                           .base = base,
                           .a = {index, last, depth, steps, alongs}});
}

void kb_tile_pick(KBuild *b, int tile, bool right, bool across,
                  const KPanel *from, KVal *at, KVal *row, KVal *depth) {
  tile_statement(b, (KVal){.kind = K_TILE_PICK,
                           .number = tile,
                           .value = right + 2 * across,
                           .dtype = from->base.dtype,
                           .lanes = (uint16_t)from->run,
                           .base = from->base,
                           .a = {at, row, depth}});
}

void kb_tile_dot(KBuild *b, int sum, int left, int right) {
  kb_tile_dot_of(b, DT_bf16, false, sum, left, right);
}

void kb_tile_dot_of(KBuild *b, Dtype dtype, bool tf32, int sum, int left,
                    int right) {
  tile_statement(b, (KVal){.kind = K_TILE_DOT,
                           .dtype = dtype,
                           .value = tf32,
                           .number = sum,
                           .a = {kb_index(b, left), kb_index(b, right)}});
}

/* ---- teams of warps ------------------------------------------------------ */

static void team_statement(KBuild *b, KVal p) {
  assert(b->stage.team);
  kb_statement(b, p);
}

KVal *kb_warp(KBuild *b) {
  assert(b->stage.team);
  return cons(b, (KVal){.kind = K_WARP, .index = true, .lanes = 1}, 0);
}

void kb_needs(KBuild *b, unsigned bits) {
  b->stage.needs |= bits;
}

int kb_map(KBuild *b, KMap map) {
  vec_push(b->arena, &b->stage.maps, map);
  return (int)b->stage.maps.len - 1;
}

void kb_meet(KBuild *b, int batches) {
  team_statement(b, (KVal){.kind = K_MEET, .number = batches});
}

KVal *kb_panel_rows(KBuild *b, const KPanel *to, KBase table, KVal *index,
                    KVal *rows, int64_t choices) {
  assert(b->stage.team && table.dtype == DT_i32);
  int64_t bytes = to->rows * to->run * dtype_info[to->base.dtype].bytes;
  return kb_value(b, (KVal){.kind = K_PANEL_ROWS,
                            .dtype = DT_i32,
                            .lanes = (uint16_t)(bytes / KB_COPY_BYTES /
                                                b->stage.team),
                            .number = to->rows,
                            .base = table,
                            .a = {index, rows, kb_index(b, choices)}});
}

void kb_panel(KBuild *b, const KPanel *to, KVal *at, KBase from, KVal *index,
              KVal *rows, KVal *run, int64_t step, KVal *which) {
  int64_t start = to->base.number / dtype_info[to->base.dtype].bytes;
  assert(to->base.kind == KB_SCRATCH);
  KVal *place = kb_alu_c(b, A_ADD, at, start), *steps = kb_index(b, step);
  team_statement(b, (KVal){.kind = K_PANEL,
                           .dtype = to->base.dtype,
                           .number = to->rows,
                           .lanes = (uint16_t)to->run,
                           .base = from,
                           .a = {index, rows, run, steps, place, which}});
}

void kb_batch(KBuild *b) {
  team_statement(b, (KVal){.kind = K_BATCH});
}

/* ---- loops --------------------------------------------------------------- */

KVal *kb_stage(KBuild *b, int64_t count, int64_t grain) {
  assert(b->n_levels == 0 && count >= 0 && grain > 0);
  b->stage = (KStage){.count = count, .grain = grain};
  open_level(b, NULL, &b->stage.body);
  KVal *iv = new_val(
      b, (KVal){.kind = K_IV, .index = true, .lanes = 1, .number = count});
  return b->stage.iv = know_at(b, iv, 0);
}

void kb_uneven(KBuild *b) {
  assert(b->n_levels > 0);
  b->stage.uneven = true;
}

void kb_team(KBuild *b, int warps) {
  assert(b->n_levels > 0);
  b->stage.team = warps;
}

void kb_once(KBuild *b) {
  assert(b->n_levels > 0);
  b->stage.once = true;
}

KVal *kb_for(KBuild *b, KVal *lo, KVal *hi, int64_t step) {
  assert(lo->index && hi->index && step > 0);
  KVal p = {.kind = K_FOR, .number = step, .a = {lo, hi}};
  operands_level(b, &p);
  KVal *loop = know_at(b, new_val(b, p), kb_depth(b));
  open_level(b, loop, &loop->body);
  loop->loop = know_at(
      b,
      new_val(b, (KVal){.kind = K_IV, .index = true, .lanes = 1, .loop = loop}),
      kb_depth(b));
  return loop;
}

KVal *kb_iv(KBuild *b, KVal *loop) {
  assert(loop->kind == K_FOR && kb_known(b, loop->loop));
  (void)b;
  return loop->loop;
}

KVal *kb_acc(KBuild *b, KVal *loop, KVal *init) {
  assert(top(b)->owner == loop && loop->body.len == 0);
  KVal p = {.kind = K_ACC,
            .dtype = init->dtype,
            .index = init->index,
            .lanes = init->lanes,
            .number = loop->accs.len,
            .loop = loop,
            .a = {init}};
  KVal *acc = know_at(b, new_val(b, p), kb_depth(b));
  assert(!init->scope || init->level < acc->level);
  vec_push(b->arena, &loop->accs, acc);
  vec_push(b->arena, &loop->updates, NULL);
  return acc;
}

void kb_next(KBuild *b, KVal *acc, KVal *next) {
  assert(acc->kind == K_ACC && kb_known(b, acc) && kb_known(b, next));
  assert(acc->dtype == next->dtype && acc->index == next->index);
  if (!next->index) next = kb_splat(b, next, acc->lanes);
  assert(!acc->loop->updates.data[acc->number]);
  acc->loop->updates.data[acc->number] = next;
}

KVal *kb_result(KBuild *b, KVal *acc) {
  assert(acc->kind == K_ACC && !kb_known(b, acc));
  if (acc->a[1]) return acc->a[1];
  KVal p = {.kind = K_RESULT,
            .dtype = acc->dtype,
            .index = acc->index,
            .lanes = acc->lanes,
            .number = acc->number,
            .loop = acc->loop};
  KVal *r = new_val(b, p);
  r->level = acc->loop->level;
  r->scope = acc->loop->scope;
  assert(kb_known(b, r));
  return acc->a[1] = r;
}

void kb_if(KBuild *b, KVal *cond) {
  assert(cond->dtype == DT_bool && cond->lanes == 1 && !cond->index);
  KVal p = {.kind = K_IF, .a = {cond}};
  operands_level(b, &p);
  KVal *v = know_at(b, new_val(b, p), kb_depth(b));
  open_level(b, v, &v->body);
}

void kb_end(KBuild *b) {
  KVal *owner = top(b)->owner;
  b->n_levels--;
  if (!owner) {
    vec_push(b->arena, &b->k->stages, b->stage);
    return;
  }
  for (uint32_t i = 0; i < owner->updates.len; i++)
    assert(owner->updates.data[i] && "a carried value without its next one");
  vec_push(b->arena, top(b)->block, owner);
}

Kernel *kb_finish(KBuild *b) {
  assert(b->n_levels == 0);
  cg_hash_kernel(b->arena, b->k);
  return b->k;
}
