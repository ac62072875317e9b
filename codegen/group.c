/* group.c: products of bf16 by warpgroups, for sm_90a.
 *
 * A warpgroup is four warps whose tensor cores work as one: a single
 * instruction multiplies 64 rows by up to 256 columns, 16 deep, reads both
 * operands from shared memory by itself, and goes on while its threads do other
 * things. An item is a block of the result for one or two warpgroups; its sums
 * are in their registers all along. A step is 64 of the depth, which is a line
 * of 128 bytes of each row of an operand; four of them have a place each:
 *
 *   panels 0, 1 on their way
 *   for k: meet         step k is here, and step k - 128 done with by all
 *          sums += product of step k, begun
 *          panel k + 128, where step k - 128 was
 *          wait         for the product of step k - 64
 *   wait, meet          all of the memory is free
 *   sums to it, 16 rows a warp, for finish.c
 *
 * So there is always a product under way while threads ask for operands. What
 * threads copy there, and what products read, goes by different ways (PTX calls
 * them proxies): whoever has copied waits for his copies, says by a fence that
 * they are for the other way, and only then meets the others. Products that a
 * warpgroup has waited for no longer read, and it has waited for those of step
 * k - 128 before it comes to the meeting of step k: so behind that, their place
 * may be overwritten, by any thread.
 *
 * An operand lies in rows along its depth or across, as in memory. Across, a
 * panel is 64 of the depth by 64, and a block has one or more of them side by
 * side; along, all its rows are one panel. Both are lines of 128 bytes, eight
 * to a group, in which the parts of 16 bytes of line r are exchanged by r: what
 * K_PANEL does to lines of that length is what tensor cores want.
 *
 * What bounds it: by such products a multiprocessor of an H100 does 2048
 * multiply-adds a cycle (its maker's 989 TFLOP/s, at 132 multiprocessors and
 * 1.83 GHz), about twice what warps' own reach. A step of 128 by 256 is 1024
 * cycles for 48 KiB of operands, and with what team.c says of the second cache
 * they take as long; smaller blocks are bound by that cache. So products are
 * left to teams where those have blocks that suit better, few rows above all,
 * or where operands do not lie at multiples of 16 bytes.
 *
 * No kernel of these has been timed, nor run on a GPU: see HACKING.md. */
#include "group.h"

enum {
  ALL = 1 << 30, /* depth of a block */
  TILE = 16,
  DEEP = 64, /* of a step, and elements of a line */
  PART = 8,  /* of a line, that a thread copies at once */
  STEPS = 4, /* that have a place */
  AHEAD = 2, /* that are on their way while one is multiplied */
  PAD = 8,   /* elements behind a row of sums, for banks of its tiles */
  DOTS = 2048 /* multiply-adds of a multiprocessor in a cycle */
};

/* By shares of 64 rows by 128 or 256 columns, one a warpgroup. */
static const CtShape shapes[] = {
    {128, 256, 2, 1}, {128, 128, 2, 1}, {64, 256, 1, 2}, {64, 128, 1, 1}};

typedef struct Group {
  CtItem at; /* the first member */
  CtShape shape;
  KPanel panel[CT_OUT]; /* of a step, the first one there */
  bool down[CT_OUT];    /* its rows are the depth */
  KBase base[CT_OUT];
  int64_t step; /* elements of scratch from step to step */
} Group;

/* Columns of a share. */
static int columns_of(const Group *g) {
  return g->shape.cols / g->shape.wide;
}

/* ---- statements ---------------------------------------------------------- */

static void group_statement(KBuild *b, KVal p) {
  kb_needs(b, KN_GROUPS | KN_TILES);
  kb_statement(b, p);
}

/* Waits for copies as kb_meet does, which products may then read. */
static void meet(KBuild *b, int batches) {
  group_statement(b, (KVal){.kind = K_MEET, .number = batches, .value = 1});
}

static void wait_for(const Group *g, int products) {
  group_statement(g->at.b, (KVal){.kind = K_GROUP_WAIT,
                                  .lanes = (uint16_t)columns_of(g),
                                  .number = products});
}

/* ---- the depth ----------------------------------------------------------- */

static int size_of(const Group *g, int side) {
  return side == CT_LEFT ? g->shape.rows : g->shape.cols;
}

/* Elements of a step of an operand from one share of it to the next. */
static int64_t share_of(const Group *g, int side) {
  int shares = side == CT_LEFT ? g->shape.high : g->shape.wide;
  return (int64_t)size_of(g, side) / shares * DEEP;
}

/* The step from k on of an operand into its panels at `place`. */
static void copy_side(Group *g, int side, KVal *k, KVal *place) {
  KBuild *b = g->at.b;
  const CtProduct *p = g->at.p;
  bool left = side == CT_LEFT, down = g->down[side];
  const CtLetter *other = left ? &p->m : &p->n;
  KVal *lo = left ? g->at.m_lo : g->at.n_lo;
  KVal *size = kb_alu(b, A_SUB, left ? g->at.m_end : g->at.n_end, lo);
  KVal *depth = kb_alu(b, A_SUB, g->at.k_hi, k);
  KVal *from = ct_at(b, g->at.offset[side], lo, other->stride[side]);
  from = ct_at(b, from, k, p->k.stride[side]);
  if (!down) {
    kb_panel(b, &g->panel[side], place, g->base[side], from, size, depth,
             other->stride[side]);
    return;
  }
  for (int i = 0; i < size_of(g, side); i += DEEP)
    kb_panel(b, &g->panel[side], kb_alu_c(b, A_ADD, place, i * DEEP),
             g->base[side], kb_alu_c(b, A_ADD, from, i), depth,
             kb_alu_c(b, A_SUB, size, i), p->k.stride[side]);
}

static void copy_step(Group *g, KVal *k, KVal *place) {
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    copy_side(g, side, k, place);
  kb_batch(g->at.b);
}

/* Where this warpgroup's share of an operand starts, of the step at `place`. */
static KVal *share_at(Group *g, int side, KVal *place) {
  KBuild *b = g->at.b;
  KVal *nth = kb_alu_c(b, A_DIV, kb_warp(b), CT_WARPGROUP);
  nth = kb_alu_c(b, side == CT_LEFT ? A_DIV : A_REM, nth, g->shape.wide);
  KVal *skip = kb_alu_c(b, A_MUL, nth, share_of(g, side));
  int64_t start = g->panel[side].base.number / dtype_info[DT_bf16].bytes;
  return kb_alu_c(b, A_ADD, kb_alu(b, A_ADD, place, skip), start);
}

static void begin_product(Group *g, KVal *place) {
  KBuild *b = g->at.b;
  KVal *left = share_at(g, CT_LEFT, place);
  KVal *right = share_at(g, CT_RIGHT, place);
  group_statement(b, (KVal){.kind = K_GROUP_DOT,
                            .lanes = (uint16_t)columns_of(g),
                            .value = g->down[CT_LEFT] + 2 * g->down[CT_RIGHT],
                            .a = {left, right}});
}

/* The place behind `place`, in turn. */
static KVal *next_place(Group *g, KVal *place) {
  KBuild *b = g->at.b;
  KVal *next = kb_alu_c(b, A_ADD, place, g->step);
  KVal *inside = kb_alu_c(b, A_LT, next, STEPS * g->step);
  return kb_alu(b, A_MUL, next, ct_number(b, inside));
}

static void all_steps(Group *g) {
  KBuild *b = g->at.b;
  for (int i = 0; i < AHEAD; i++)
    copy_step(g, kb_alu_c(b, A_ADD, g->at.k_lo, i * DEEP),
              kb_index(b, i * g->step));
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, DEEP), *k = kb_iv(b, loop);
  KVal *here = kb_acc(b, loop, kb_index(b, 0));
  KVal *ahead = kb_acc(b, loop, kb_index(b, AHEAD * g->step));
  meet(b, AHEAD - 1);
  begin_product(g, here);
  copy_step(g, kb_alu_c(b, A_ADD, k, AHEAD * DEEP), ahead);
  wait_for(g, STEPS - AHEAD - 1);
  kb_next(b, here, next_place(g, here));
  kb_next(b, ahead, next_place(g, ahead));
  kb_end(b);
  wait_for(g, 0);
}

/* ---- the sums ------------------------------------------------------------ */

/* The warp's 16 rows, by way of scratch of its own. */
static void hand_on(Group *g, KBase sums) {
  KBuild *b = g->at.b;
  CtItem part = g->at;
  int wide = g->shape.wide, columns = columns_of(g);
  int64_t step = columns + PAD;
  KVal *warp = kb_warp(b), *nth = kb_alu_c(b, A_DIV, warp, CT_WARPGROUP);
  KVal *at = kb_alu_c(b, A_MUL, warp, TILE * step);
  for (int i = 0; i < columns / TILE; i++)
    kb_tile_store(b, i, sums, kb_alu_c(b, A_ADD, at, i * TILE), step);
  KVal *high = kb_alu_c(b, A_MUL, kb_alu_c(b, A_DIV, nth, wide), CT_WARPGROUP);
  high = kb_alu(b, A_ADD, high, kb_alu_c(b, A_REM, warp, CT_WARPGROUP));
  part.m_lo = kb_alu(b, A_ADD, g->at.m_lo, kb_alu_c(b, A_MUL, high, TILE));
  part.m_end = kb_alu_c(b, A_ADD, part.m_lo, TILE);
  part.m_end = kb_alu(b, A_MIN, g->at.m_end, part.m_end);
  nth = kb_alu_c(b, A_MUL, kb_alu_c(b, A_REM, nth, wide), columns);
  part.n_lo = kb_alu(b, A_ADD, g->at.n_lo, nth);
  part.n_end = kb_alu_c(b, A_ADD, part.n_lo, columns);
  part.n_end = kb_alu(b, A_MIN, g->at.n_end, part.n_end);
  part.done->sums(&part, &(CtSums){sums, columns, step, 0, at});
}

static void block(CtItem *t) {
  Group *g = (Group *)t;
  KBuild *b = t->b;
  int64_t left = (int64_t)g->shape.rows * DEEP;
  g->step = left + (int64_t)g->shape.cols * DEEP;
  KBase base = kb_scratch(b, DT_bf16, STEPS * g->step), sums = base;
  assert(base.number == 0 && "lines are counted from the start of memory");
  sums.dtype = DT_f32;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    int rows = g->down[side] ? DEEP : size_of(g, side);
    g->panel[side] = (KPanel){rows, DEEP, base};
    base.number += left * dtype_info[DT_bf16].bytes;
  }
  for (int i = 0; i < columns_of(g) / TILE; i++)
    kb_tile_zero(b, i);
  kb_meet(b, 0); /* the item before is done with */
  all_steps(g);
  kb_meet(b, 0);
  hand_on(g, sums);
}

/* ---- which blocks -------------------------------------------------------- */

static int64_t cycles(const CtProduct *p, const Isa *isa, const CtShape *s) {
  return ct_shape_cycles(p, isa, s, DOTS);
}

static CtShape choose(const CtProduct *p, const Isa *isa) {
  CtShape best = shapes[0];
  for (size_t i = 1; i < COUNT_OF(shapes); i++)
    if (cycles(p, isa, &shapes[i]) < cycles(p, isa, &best)) best = shapes[i];
  return best;
}

/* Whether each line of an operand starts where 16 bytes of it can be copied at
 * once; element by element copying would take longer than the products. */
static bool is_copied(const CtProduct *p, int side) {
  const CtLetter *other = side == CT_LEFT ? &p->m : &p->n;
  bool along = ct_along_depth(p, side);
  int64_t step = along ? other->stride[side] : p->k.stride[side];
  if (p->ragged_k && along) return false; /* it starts anywhere */
  return step % PART == 0 && p->batch.stride[side] % PART == 0;
}

bool ct_in_groups(const CtTask *task, const Isa *isa) {
  if (!(isa->has & KN_GROUPS) || !ct_in_teams(task, isa)) return false;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (!is_copied(&task->p, side)) return false;
  CtShape s = choose(&task->p, isa);
  return cycles(&task->p, isa, &s) <= ct_team_cycles(&task->p, isa);
}

/* The most lanes that the columns are whole vectors of. */
static int lanes_of(const CtProduct *p, const Isa *isa) {
  int lanes = isa->lanes;
  while (lanes > isa->least && p->n.size % lanes)
    lanes /= 2;
  return lanes;
}

Kernel *ct_groups(Ctx *cx, const CtTask *task, const Isa *isa) {
  const Node *n = task->n;
  const CtProduct *p = &task->p;
  Group *g = NEW(&cx->scratch, Group);
  g->shape = choose(p, isa);
  KBuild *b = kb_new(
      cx, sym_fmt(cx, "contract_wgmma_%dx%d", g->shape.rows, g->shape.cols),
      (int)(n->ins.len + n->outs.len), (int)n->outs.len);
  g->at = (CtItem){.b = b,
                   .task = task,
                   .p = p,
                   .rows = g->shape.rows,
                   .cols = g->shape.cols,
                   .depth = ALL,
                   .warps = isa->least,
                   .team = g->shape.high * g->shape.wide * CT_WARPGROUP,
                   .block = block};
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    g->base[side] = ct_operand(task, side);
    g->down[side] = !ct_along_depth(p, side);
  }
  ct_finish_of(cx, &g->at, lanes_of(p, isa));
  return ct_items(&g->at);
}
