/* team.c: products of bf16 and f32 by teams of warps.
 *
 * An item is a block of the result for four warps, which share out its sums:
 * each has some of its tiles of 16 by 16 in registers. Both operands go through
 * shared memory, a step of 64 bytes of the depth at a time, so that each of
 * their elements is fetched once for the block and read by two or four warps.
 * Three steps are there at once: one is multiplied while the two behind it
 * arrive, as copies that no thread waits for.
 *
 *   panels 0, 1 on their way
 *   for k: meet         step k is here, and the one before it done with
 *          panel k + 2 steps, where that was
 *          sums += tiles of step k
 *   meet                all of the memory is free
 *   sums to it, some rows at a time, for finish.c
 *
 * An operand is copied as it lies, in rows along its depth or along the other,
 * and turned where tiles are picked from it; rows that the launch gathers are
 * found by gather.c. The depth and rows that there are may be known on the
 * device only; what is copied from behind them is zeros.
 *
 * Products of f32 go by multiply-adds of threads, two of the depth at a time
 * (llvm_real.c), in blocks of the same shapes; their sums lie in registers as
 * those of bf16 do, so what follows is the same. Where the target may round
 * them (KN_TF32) they go by tensor cores, too, a step at once. A right operand
 * that the launch casts from f32 is cast by the threads that copy it, which
 * then wait for what they read.
 *
 * What bounds its depth: of a block of 128 by 128 a step of bf16 is 512 Ki
 * multiply-adds for 16 KiB of operands. A multiprocessor of sm_80 does 1024 of
 * the former in a cycle and gets some 48 bytes of the latter from the second
 * cache: 512 cycles against 341. Smaller blocks are bound by that cache, so a
 * smaller one is taken only where large ones would leave multiprocessors
 * without work or be empty for the most part, which `choose` weighs by these
 * two numbers. Products of f32, of which it does 64, are bound by these.
 *
 * What bounds the rest: a warp of such a block hands on 64 rows, four at a time
 * (finish.c). Where these wait for operands out of memory, 700 cycles each time
 * if that is what it takes, that is 11000, as much as 22 steps. Two blocks fit
 * a multiprocessor, by registers and by shared memory, and one is at its depth
 * while the other is there. So products of a depth of 700 or more, and all that
 * read nothing behind the product, are bound by their depth. */
#include "group.h"

enum {
  ALL = 1 << 30, /* depth of a block */
  TILE = 16,
  DEEP_BYTES = 64, /* of a step of the depth */
  PAIR = 2,  /* of the depth, that are in tiles of f32 */
  STEPS = 3, /* that are there at once */
  STRIP = 2, /* tiles of rows that a warp hands on at a time */
  PAD = 8,   /* elements behind a row of sums, for its tiles' banks to differ */
  MOST = 4,  /* tiles of a warp along a side */
  LEFT_TILES = MOST * MOST,
  RIGHT_TILES = LEFT_TILES + MOST,
  DOTS = 1024,     /* multiply-adds of a multiprocessor of sm_80 in a cycle, */
  TF32_DOTS = 512, /* those of tf32, */
  FMAS = 64,       /* and those of f32 */
  CACHE_BYTES = 48 /* that it gets in one */
};

static const CtShape shapes[] = {
    {128, 128, 2, 2}, {64, 128, 2, 2}, {128, 64, 2, 2},
    {64, 64, 2, 2},   {32, 128, 1, 4}, {128, 32, 4, 1},
};

typedef struct Team {
  CtItem at; /* the first member */
  CtShape shape;
  KPanel panel[CT_OUT]; /* of a step, the first of STEPS */
  bool down[CT_OUT];    /* its rows are the depth */
  bool tf32;            /* the product is of rounded f32 */
  KBase base[CT_OUT];
  Dtype dtype;  /* of panels */
  int deep;     /* of a step */
  int64_t step; /* elements of scratch from step to step */
  CtGather gather;
} Team;

static KVal *plus(KBuild *b, KVal *x, KVal *y) {
  return kb_alu(b, A_ADD, x, y);
}

/* ---- the depth ----------------------------------------------------------- */

/* The step from k on of both operands into the panels at `place`. */
static void copy_step(Team *g, KVal *k, KVal *place) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    const CtLetter *other = side == CT_LEFT ? &p->m : &p->n;
    KVal *lo = side == CT_LEFT ? g->at.m_lo : g->at.n_lo;
    KVal *end = side == CT_LEFT ? g->at.m_end : g->at.n_end;
    KVal *size = kb_alu(b, A_SUB, end, lo);
    KVal *depth = kb_alu(b, A_SUB, g->at.k_hi, k);
    bool down = g->down[side];
    kb_panel(b, &g->panel[side], place, g->base[side],
             ct_gather_from(&g->gather, side, k), down ? depth : size,
             down ? size : depth,
             down ? p->k.stride[side] : other->stride[side],
             g->gather.rows[side]);
  }
  kb_batch(b);
}

/* Tiles of a warp along a side. */
static int tiles_of(const Team *g, int side) {
  const CtShape *s = &g->shape;
  return side == CT_LEFT ? s->rows / s->high / TILE : s->cols / s->wide / TILE;
}

/* Where this warp's rows or columns of the block start. */
static KVal *warp_at(Team *g, int side) {
  KBuild *b = g->at.b;
  KAlu which = side == CT_LEFT ? A_DIV : A_REM;
  KVal *nth = kb_alu_c(b, which, kb_warp(b), g->shape.wide);
  return kb_alu_c(b, A_MUL, nth, (int64_t)tiles_of(g, side) * TILE);
}

/* Tile i of the operand from the panels at `place`. */
static void pick(Team *g, int side, int i, KVal *place, KVal *depth) {
  KBuild *b = g->at.b;
  bool right = side == CT_RIGHT;
  kb_tile_pick(b, (right ? RIGHT_TILES : LEFT_TILES) + i, right, g->down[side],
               &g->panel[side], place,
               kb_alu_c(b, A_ADD, warp_at(g, side), (int64_t)i * TILE), depth);
}

/* The tiles from `depth` on, or of all of the step. */
static void add_tiles_at(Team *g, KVal *place, KVal *depth) {
  int high = tiles_of(g, CT_LEFT), wide = tiles_of(g, CT_RIGHT);
  for (int i = 0; i < high; i++)
    pick(g, CT_LEFT, i, place, depth);
  for (int j = 0; j < wide; j++) {
    pick(g, CT_RIGHT, j, place, depth);
    for (int i = 0; i < high; i++)
      kb_tile_dot_of(g->at.b, g->dtype, g->tf32, i * wide + j,
                     LEFT_TILES + i, RIGHT_TILES + j);
  }
}

static void add_tiles(Team *g, KVal *place) {
  KBuild *b = g->at.b;
  if (g->dtype == DT_bf16 || g->tf32) {
    add_tiles_at(g, place, NULL);
    return;
  }
  KVal *loop = kb_for(b, kb_index(b, 0), kb_index(b, g->deep), PAIR);
  add_tiles_at(g, place, kb_iv(b, loop));
  kb_end(b);
}

/* The place behind `place`, in turn. */
static KVal *next_place(Team *g, KVal *place) {
  KBuild *b = g->at.b;
  KVal *next = kb_alu_c(b, A_ADD, place, g->step);
  KVal *inside = kb_alu_c(b, A_LT, next, STEPS * g->step);
  return kb_alu(b, A_MUL, next, ct_number(b, inside));
}

static void all_steps(Team *g) {
  KBuild *b = g->at.b;
  for (int i = 0; i < STEPS - 1; i++) {
    KVal *place = kb_index(b, i * g->step);
    ct_gather_step(&g->gather, i);
    copy_step(g, kb_alu_c(b, A_ADD, g->at.k_lo, i * g->deep), place);
  }
  ct_gather_step(&g->gather, STEPS - 1);
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, g->deep), *k = kb_iv(b, loop);
  KVal *here = kb_acc(b, loop, kb_index(b, 0));
  KVal *ahead = kb_acc(b, loop, kb_index(b, (STEPS - 1) * g->step));
  ct_gather_loop(&g->gather, loop);
  kb_meet(b, STEPS - 2);
  ct_gather_next(&g->gather, k, STEPS);
  copy_step(g, kb_alu_c(b, A_ADD, k, (STEPS - 1) * g->deep), ahead);
  add_tiles(g, here);
  kb_next(b, here, next_place(g, here));
  kb_next(b, ahead, next_place(g, ahead));
  kb_end(b);
}

/* ---- the sums ------------------------------------------------------------ */

/* The warp's sums of some rows, by way of scratch of its own. */
static void hand_on(Team *g, int from, int n) {
  KBuild *b = g->at.b;
  CtItem part = g->at;
  int wide = tiles_of(g, CT_RIGHT);
  int64_t width = wide * TILE, step = width + PAD;
  KBase sums = {KB_SCRATCH, g->panel[CT_LEFT].base.number, DT_f32};
  KVal *at = kb_alu_c(b, A_MUL, kb_warp(b), STRIP * TILE * step);
  for (int i = 0; i < n * wide; i++)
    kb_tile_store(b, from * wide + i, sums,
                  kb_alu_c(b, A_ADD, at,
                           i / wide * TILE * step + i % wide * TILE),
                  step);
  KVal *m = plus(b, g->at.m_lo, warp_at(g, CT_LEFT));
  part.m_lo = kb_alu_c(b, A_ADD, m, (int64_t)from * TILE);
  part.m_end = kb_alu_c(b, A_ADD, part.m_lo, (int64_t)n * TILE);
  part.m_end = kb_alu(b, A_MIN, g->at.m_end, part.m_end);
  part.n_lo = plus(b, g->at.n_lo, warp_at(g, CT_RIGHT));
  part.n_end = kb_alu(b, A_MIN, g->at.n_end,
                      kb_alu_c(b, A_ADD, part.n_lo, width));
  part.done->sums(&part, &(CtSums){sums, width, step, 0, at});
}

static void block(CtItem *t) {
  Team *g = (Team *)t;
  KBuild *b = t->b;
  int high = tiles_of(g, CT_LEFT), wide = tiles_of(g, CT_RIGHT);
  int deep = g->deep, bytes = (int)dtype_info[g->dtype].bytes;
  int64_t size[CT_OUT] = {g->shape.rows * deep, g->shape.cols * deep};
  int64_t sums = (int64_t)t->team * STRIP * TILE * (wide * TILE + PAD);
  g->step = size[CT_LEFT] + size[CT_RIGHT];
  sums = sums * dtype_info[DT_f32].bytes / bytes;
  int64_t panels = STEPS * g->step;
  KBase base = kb_scratch(b, g->dtype, panels > sums ? panels : sums);
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    int other = side == CT_LEFT ? g->shape.rows : g->shape.cols;
    g->panel[side] = (KPanel){g->down[side] ? deep : other,
                              g->down[side] ? other : deep, base};
    base.number += size[side] * bytes;
  }
  if (g->tf32) kb_needs(b, KN_TF32);
  ct_gather_item(&g->gather, t, g->panel, deep);
  for (int i = 0; i < high * wide; i++)
    kb_tile_zero(b, i);
  kb_meet(b, 0); /* the item before is done with */
  all_steps(g);
  kb_meet(b, 0);
  for (int i = 0; i < high; i += STRIP)
    hand_on(g, i, high - i < STRIP ? high - i : STRIP);
}

/* ---- which blocks -------------------------------------------------------- */

static int64_t blocks(int64_t n, int64_t block) {
  return (n + block - 1) / block;
}

int64_t ct_shape_cycles(const CtProduct *p, const Isa *isa, const CtShape *s,
                        int64_t dots) {
  enum { DEEP = 32 };
  dots = (int64_t)s->rows * s->cols * DEEP / dots;
  int64_t bytes = (int64_t)(s->rows + s->cols) * DEEP *
                  dtype_info[p->dtype].bytes / CACHE_BYTES;
  int64_t rows = p->m.size, many = p->batch.size;
  if (p->groups && !p->ragged_k) { /* in the mean */
    many = p->rows < p->groups ? p->rows : p->groups;
    rows = blocks(p->rows, many ? many : 1);
  }
  many *= blocks(rows, s->rows) * blocks(p->n.size, s->cols);
  return blocks(many, isa->cores) * (dots > bytes ? dots : bytes);
}

static bool in_tf32(const CtProduct *p, const Isa *isa) {
  return p->dtype == DT_f32 && isa->has & KN_TF32;
}

static bool in_fmas(const CtProduct *p, const Isa *isa) {
  return p->dtype == DT_f32 && !in_tf32(p, isa);
}

static int64_t cycles(const CtProduct *p, const Isa *isa, const CtShape *s) {
  int64_t dots = in_tf32(p, isa) ? TF32_DOTS : in_fmas(p, isa) ? FMAS : DOTS;
  return ct_shape_cycles(p, isa, s, dots);
}

/* Of the first shape there are 128 sums a thread, and multiply-adds of f32 need
 * the registers; nor are they bound by the cache where blocks are smaller. */
static CtShape choose(const CtProduct *p, const Isa *isa) {
  size_t first = in_fmas(p, isa);
  CtShape best = shapes[first];
  for (size_t i = first + 1; i < COUNT_OF(shapes); i++)
    if (cycles(p, isa, &shapes[i]) < cycles(p, isa, &best)) best = shapes[i];
  return best;
}

int64_t ct_team_cycles(const CtProduct *p, const Isa *isa) {
  CtShape s = choose(p, isa);
  return cycles(p, isa, &s);
}

bool ct_along_depth(const CtProduct *p, int side) {
  return p->k.stride[side] == 1;
}

/* The same along the rows or columns of the result. */
static bool along_other(const CtProduct *p, int side) {
  const CtLetter *other = side == CT_LEFT ? &p->m : &p->n;
  return other->stride[side] == 1 || other->size == 1;
}

bool ct_in_teams(const CtTask *task, const Isa *isa) {
  const CtProduct *p = &task->p;
  bool sums = dtype_info[p->dtype].sums == DT_f32;
  if (!isa->cores || !(isa->has & KN_MMA) || !sums) return false;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (!ct_along_depth(p, side) && !along_other(p, side)) return false;
  return true;
}

CtItem ct_shape_item(KBuild *b, const CtTask *task, const Isa *isa,
                     const CtShape *s) {
  return (CtItem){.b = b,
                  .task = task,
                  .p = &task->p,
                  .rows = s->rows,
                  .cols = s->cols,
                  .depth = ALL,
                  .warps = isa->least,
                  .team = s->high * s->wide};
}

Kernel *ct_teams(Ctx *cx, const CtTask *task, const Isa *isa) {
  const Node *n = task->n;
  const CtProduct *p = &task->p;
  bool tf32 = in_tf32(p, isa);
  KBuild *b = kb_new(cx, tf32 ? "contract_tf32" : "contract",
                     (int)(n->ins.len + n->outs.len), (int)n->outs.len);
  Team *g = NEW(&cx->scratch, Team);
  g->dtype = p->dtype;
  g->tf32 = tf32;
  g->deep = DEEP_BYTES / (int)dtype_info[p->dtype].bytes;
  g->shape = choose(p, isa);
  g->at = ct_shape_item(b, task, isa, &g->shape);
  g->at.block = block;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    g->base[side] = ct_operand(task, side);
    g->down[side] = !ct_along_depth(p, side) || ct_gathers_depth(task, side);
  }
  int lanes = tiles_of(g, CT_RIGHT) * TILE;
  ct_finish_of(cx, &g->at, p->n.size % lanes ? isa->least : lanes);
  return ct_items(&g->at);
}
