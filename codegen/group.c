/* group.c: products of bf16 by warpgroups, for sm_90a.
 *
 * A warpgroup is four warps whose tensor cores work as one: a single
 * instruction multiplies 64 rows by up to 256 columns, 16 deep, reads both
 * operands from shared memory by itself, and goes on while its threads do other
 * things. An item is a block of the result for one or two warpgroups; its sums
 * are in their registers all along. A step is 64 of the depth, which is a line
 * of 128 bytes of each row of an operand; as many of them have a place each as
 * there is room for. With four:
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
 * Where an operand's places do not hang on counts, its panels are boxes of a
 * tensor that hardware copies, at the word of one thread: zeros for what is
 * outside of the tensor, and the same order of parts. Each place has a gate
 * that opens when its boxes are there; all threads wait for that behind the
 * meeting. Boxes go the products' way, so there is no fence behind them; but in
 * front of an item's first there is one, for the sums of the item before lay
 * there. What ends within a tensor, as experts' rows do, is left to threads:
 * where it is the depth there must be zeros behind the end, and else there may
 * be what nobody has written.
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
  TILE = 16,
  DEEP = CT_GROUP_DEEP,
  PART = 8,   /* of a line, that a thread copies at once */
  GROUPS = 2, /* that a multiprocessor has room for, by their registers */
  BEHIND = 2, /* places whose steps are multiplied or were just now */
  MOST_PLACES = 6,
  PAD = 8,  /* elements behind a row of sums, for banks of its tiles */
  DOTS = 2048 /* multiply-adds of a multiprocessor in a cycle */
};

static const int64_t MOST_STRIDE = 1ll << 40; /* bytes */

/* By shares of 64 rows by 128 or 256 columns, one a warpgroup. */
static const CtShape shapes[] = {
    {128, 256, 2, 1}, {128, 128, 2, 1}, {64, 256, 1, 2}, {64, 128, 1, 1}};

/* Copies of an operand by hardware. */
typedef struct Boxes {
  KMap map;
  int number; /* of the map */
  int count;  /* in a step; 0: threads copy it */
} Boxes;

typedef struct Group {
  CtItem at; /* the first member */
  CtShape shape;
  KPanel panel[CT_OUT]; /* of a step, the first one there */
  bool down[CT_OUT];    /* its rows are the depth */
  KBase base[CT_OUT];
  Boxes boxes[CT_OUT];
  KBase gates;  /* one a place; they open when its boxes have come */
  int64_t step; /* elements of scratch from step to step */
  int places, ahead; /* and of those, for steps that are on their way */
  CtGather gather;
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

/* ---- boxes --------------------------------------------------------------- */

static int boxes_of(const Group *g) {
  return g->boxes[CT_LEFT].count + g->boxes[CT_RIGHT].count;
}

static void gates(const Group *g, bool end) {
  KBuild *b = g->at.b;
  if (!boxes_of(g)) return;
  group_statement(b, (KVal){.kind = K_GATES,
                            .number = g->places,
                            .value = end,
                            .base = g->gates,
                            .a = {kb_index(b, boxes_of(g))}});
}

static void wait_boxes(const Group *g, KVal *place, KVal *turn) {
  KBuild *b = g->at.b;
  if (!boxes_of(g)) return;
  group_statement(b, (KVal){.kind = K_GATE_WAIT,
                            .base = g->gates,
                            .a = {kb_alu_c(b, A_DIV, place, g->step), turn}});
}

/* Those of an operand of the step from k on. */
static void copy_boxes(Group *g, int side, KVal *k, KVal *place) {
  KBuild *b = g->at.b;
  const Boxes *x = &g->boxes[side];
  KVal *lo = side == CT_LEFT ? g->at.m_lo : g->at.n_lo;
  KVal *gate = kb_alu_c(b, A_DIV, place, g->step);
  int64_t start = g->panel[side].base.number / dtype_info[DT_bf16].bytes;
  for (int i = 0; i < x->count; i++) {
    int64_t at = (int64_t)i * DEEP;
    KVal *to = kb_alu_c(b, A_ADD, place, start + at * DEEP);
    KVal *across = kb_alu_c(b, A_ADD, lo, at);
    group_statement(b, (KVal){.kind = K_BOX,
                              .number = x->number,
                              .base = g->gates,
                              .a = {g->down[side] ? across : k,
                                    g->down[side] ? k : lo, g->at.number, to,
                                    gate}});
  }
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
  KVal *from = ct_gather_from(&g->gather, side, k);
  KVal *rows = g->gather.rows[side];
  if (!down) {
    kb_panel(b, &g->panel[side], place, g->base[side], from, size, depth,
             other->stride[side], rows);
    return;
  }
  for (int i = 0; i < size_of(g, side); i += DEEP)
    kb_panel(b, &g->panel[side], kb_alu_c(b, A_ADD, place, i * DEEP),
             g->base[side], kb_alu_c(b, A_ADD, from, i), depth,
             kb_alu_c(b, A_SUB, size, i), p->k.stride[side], rows);
}

/* Nobody would wait for boxes behind the depth's end. */
static void copy_step(Group *g, KVal *k, KVal *place) {
  KBuild *b = g->at.b;
  if (boxes_of(g)) kb_if(b, kb_alu(b, A_LT, k, g->at.k_hi));
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    copy_boxes(g, side, k, place);
  if (boxes_of(g)) kb_end(b);
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (!g->boxes[side].count) copy_side(g, side, k, place);
  kb_batch(b);
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

/* 1 where a place follows `place`, 0 where it is the last. */
static KVal *follows(Group *g, KVal *place) {
  KBuild *b = g->at.b;
  KVal *last = kb_index(b, (g->places - 1) * g->step);
  return ct_number(b, kb_alu(b, A_LT, place, last));
}

/* The place behind `place`, in turn. */
static KVal *next_place(Group *g, KVal *place) {
  KBuild *b = g->at.b;
  return kb_alu(b, A_MUL, kb_alu_c(b, A_ADD, place, g->step),
                follows(g, place));
}

/* 0 in the first turn through all places, 1 in the second, and so on: that of
 * the next step. */
static KVal *next_turn(Group *g, KVal *turn, KVal *place) {
  KBuild *b = g->at.b;
  KVal *next = kb_alu(b, A_ADD, turn, follows(g, place));
  return kb_alu_c(b, A_REM, kb_alu_c(b, A_ADD, next, 1), 2);
}

static void all_steps(Group *g) {
  KBuild *b = g->at.b;
  for (int i = 0; i < g->ahead; i++) {
    ct_gather_step(&g->gather, i);
    copy_step(g, kb_alu_c(b, A_ADD, g->at.k_lo, i * DEEP),
              kb_index(b, i * g->step));
  }
  ct_gather_step(&g->gather, g->ahead);
  KVal *loop = kb_for(b, g->at.k_lo, g->at.k_hi, DEEP), *k = kb_iv(b, loop);
  KVal *here = kb_acc(b, loop, kb_index(b, 0));
  KVal *ahead = kb_acc(b, loop, kb_index(b, g->ahead * g->step));
  KVal *turn = kb_acc(b, loop, kb_index(b, 0));
  ct_gather_loop(&g->gather, loop);
  meet(b, g->ahead - 1);
  wait_boxes(g, here, turn);
  ct_gather_next(&g->gather, k, g->ahead + 1);
  begin_product(g, here);
  copy_step(g, kb_alu_c(b, A_ADD, k, (int64_t)g->ahead * DEEP), ahead);
  wait_for(g, BEHIND - 1);
  kb_next(b, turn, next_turn(g, turn, here));
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

/* As many as fit, where blocks of one warpgroup leave room for another. */
static int places_of(const Group *g) {
  int groups = g->shape.high * g->shape.wide;
  int64_t room = CT_GROUP_BYTES / GROUPS * groups / dtype_info[DT_bf16].bytes;
  int64_t n = room / (g->step + CT_GATE);
  return n < MOST_PLACES ? (int)n : MOST_PLACES;
}

static void block(CtItem *t) {
  Group *g = (Group *)t;
  KBuild *b = t->b;
  int64_t left = (int64_t)g->shape.rows * DEEP;
  g->step = left + (int64_t)g->shape.cols * DEEP;
  g->places = places_of(g);
  g->ahead = g->places - BEHIND;
  assert((int64_t)t->team * TILE * (columns_of(g) + PAD) * 2 <=
         g->places * g->step && "sums of f32 fit where panels were");
  KBase base = kb_scratch(b, DT_bf16, g->places * g->step), sums = base;
  assert(base.number == 0 && "lines are counted from the start of memory");
  sums.dtype = DT_f32;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    int rows = g->down[side] ? DEEP : size_of(g, side);
    g->panel[side] = (KPanel){rows, DEEP, base};
    base.number += left * dtype_info[DT_bf16].bytes;
  }
  g->gates = kb_scratch(b, DT_bf16, g->places * CT_GATE);
  for (int side = CT_LEFT; side <= CT_RIGHT; side++)
    if (g->boxes[side].count)
      g->boxes[side].number = kb_map(b, g->boxes[side].map);
  ct_gather_item(&g->gather, t, g->panel, DEEP);
  for (int i = 0; i < columns_of(g) / TILE; i++)
    kb_tile_zero(b, i);
  meet(b, 0); /* the item before is done with */
  gates(g, false);
  all_steps(g);
  kb_meet(b, 0);
  gates(g, true);
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
    if (ct_operand(task, side).dtype != DT_bf16 || !is_copied(&task->p, side))
      return false;
  CtShape s = choose(&task->p, isa);
  return cycles(&task->p, isa, &s) <= ct_team_cycles(&task->p, isa);
}

/* Whether its places are those of all its rows, and do not hang on offsets. */
static bool is_plain(const CtProduct *p, int side) {
  return !p->groups || (side == CT_RIGHT && !p->ragged_k);
}

/* Whether hardware can find rows that far apart at addresses like this. */
static bool is_tensor(const KMap *m, const Place *at) {
  const int64_t bytes = dtype_info[DT_bf16].bytes;
  bool fits = cg_place_alignment(at, PART * bytes) == PART * bytes;
  for (int i = 0; i < 2; i++)
    fits &= m->step[i] % PART == 0 && m->step[i] * bytes < MOST_STRIDE;
  for (int i = 0; i < 3; i++)
    fits &= m->size[i] > 0 && m->size[i] <= UINT32_MAX;
  return fits && m->step[0] >= m->size[0] && m->step[1] % m->step[0] == 0 &&
         m->step[1] >= m->step[0] * m->size[1];
}

/* Addresses, the workspace's too, and maps at multiples of 64. */
static int64_t param_bytes(const Node *n) {
  return (n->ins.len + n->outs.len + 1) * 8 + 64 + CT_OUT * 128;
}

static Boxes find_boxes(const Group *g, int side) {
  const CtTask *task = g->at.task;
  const CtProduct *p = &task->p;
  const CtLetter *other = side == CT_LEFT ? &p->m : &p->n;
  const CtLetter *inner = g->down[side] ? other : &p->k;
  const CtLetter *outer = g->down[side] ? &p->k : other;
  int arg = p->arg[side], rows = g->down[side] ? DEEP : size_of(g, side);
  KMap m = {.arg = arg,
            .size = {inner->size, outer->size, p->batch.size},
            .step = {outer->stride[side], p->batch.stride[side]},
            .box = {DEEP, rows}};
  if (p->batch.size == 1) m.step[1] = m.step[0] * m.size[1];
  if (!is_plain(p, side) || task->held[side] ||
      param_bytes(task->n) > MOERT_PARAM_BYTES ||
      !is_tensor(&m, &task->n->ins.data[arg]->place))
    return (Boxes){0};
  return (Boxes){.map = m,
                 .count = g->down[side] ? size_of(g, side) / DEEP : 1};
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
  g->at = ct_shape_item(b, task, isa, &g->shape);
  g->at.team *= CT_WARPGROUP;
  g->at.block = block;
  for (int side = CT_LEFT; side <= CT_RIGHT; side++) {
    g->base[side] = ct_operand(task, side);
    g->down[side] = !ct_along_depth(p, side) || ct_gathers_depth(task, side);
    g->boxes[side] = find_boxes(g, side);
  }
  ct_finish_of(cx, &g->at, lanes_of(p, isa));
  return ct_items(&g->at);
}
