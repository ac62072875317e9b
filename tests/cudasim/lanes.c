/* lanes.c: instructions by which lanes and warps meet: shuffles, votes,
 * barriers; and branches, by which they part. */
#include "async.h"

#include <string.h>

/* ---- members ------------------------------------------------------------- */

/* The lanes that operand k names, the same for all; and they are here. */
static bool members_here(Warp *w, const Ins *i, int k) {
  const uint32_t *m = src(w, i, k);
  uint32_t first = m[__builtin_ctz(w->active)];
  for (int l = 0; l < LANES; l++)
    if (w->active >> l & 1 && m[l] != first) {
      fault(w, i, l, CUDA_ERROR_LAUNCH_FAILED,
            "names lanes 0x%x, another lane names 0x%x", m[l], first);
      return false;
    }
  return lanes_meet(w, i, first);
}

/* ---- shuffles ------------------------------------------------------------ */

enum { SHFL_UP, SHFL_DOWN, SHFL_BFLY, SHFL_IDX };
static const char *const shuffle_names[] = {"up", "down", "bfly", "idx"};

/* The lane to read from, or -1 where it is beyond the segment. */
static int shuffle_from(int mode, int lane, uint32_t b, uint32_t c) {
  int clamp = (int)(c & 31), segment = (int)(c >> 8 & 31), n = (int)(b & 31);
  int most = (lane & segment) | (clamp & ~segment);
  int from;
  switch (mode) {
  case SHFL_UP: from = lane - n; return from >= most ? from : -1;
  case SHFL_DOWN: from = lane + n; break;
  case SHFL_BFLY: from = lane ^ n; break;
  default: from = (lane & segment) | (n & ~segment); break;
  }
  return from <= most ? from : -1;
}

/* Operands: d, p (may be none), a, b, c, members. */
static void ins_shfl(Warp *w, const Ins *i) {
  if (!members_here(w, i, 5)) return;
  const uint32_t *a = src(w, i, 2), *b = src(w, i, 3), *c = src(w, i, 4);
  uint64_t v[LANES], p[LANES];
  for (int l = 0; l < LANES; l++) {
    int from = shuffle_from(i->mode, l, b[l], c[l]);
    p[l] = from >= 0;
    v[l] = a[from < 0 ? l : from];
    if (w->active >> l & 1 && from >= 0 && !(w->active >> from & 1)) {
      fault(w, i, l, CUDA_ERROR_LAUNCH_FAILED,
            "reads from lane %d, which is not there", from);
      return;
    }
  }
  put_wide(w, i, 0, v);
  put_wide(w, i, 1, p);
}

bool decode_shfl(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (!take_modifier(&rest, "sync")) return unknown_modifier(d, s, whole);
  i->mode = 0;
  while (i->mode < 4 && !take_modifier(&rest, shuffle_names[i->mode]))
    i->mode++;
  if (i->mode == 4 || !str_is(rest, "b32"))
    return unknown_modifier(d, s, whole);
  if (s->n_op != 5) return decode_error(d, s, "5 operands are needed");
  i->run = ins_shfl;
  const Operand *to = &s->op[0];
  bool pair = to->kind == OPD_PAIR;
  Operand none = {.kind = OPD_SINK};
  if (!operand_add(d, i, s, pair ? &to->part[0] : to, 4) ||
      !operand_add(d, i, s, pair ? &to->part[1] : &none, 0))
    return false;
  for (int k = 1; k < 5; k++)
    if (!operand_add(d, i, s, &s->op[k], 4)) return false;
  return true;
}

/* ---- votes --------------------------------------------------------------- */

enum { VOTE_ALL, VOTE_ANY, VOTE_UNI, VOTE_BALLOT };
static const char *const vote_names[] = {"all", "any", "uni", "ballot"};

static void ins_vote(Warp *w, const Ins *i) {
  if (!members_here(w, i, 2)) return;
  uint32_t p = *(const uint32_t *)src(w, i, 1);
  if (i->flag) p = ~p;
  uint32_t yes = p & w->active;
  uint64_t result = 0, v[LANES];
  switch (i->mode) {
  case VOTE_ALL: result = yes == w->active; break;
  case VOTE_ANY: result = yes != 0; break;
  case VOTE_UNI: result = !yes || yes == w->active; break;
  case VOTE_BALLOT: result = yes; break;
  }
  for (int l = 0; l < LANES; l++)
    v[l] = result;
  put_wide(w, i, 0, v);
}

bool decode_vote(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (!take_modifier(&rest, "sync")) return unknown_modifier(d, s, whole);
  i->mode = 0;
  while (i->mode < 4 && !take_modifier(&rest, vote_names[i->mode]))
    i->mode++;
  bool ballot = i->mode == VOTE_BALLOT;
  if (i->mode == 4 || !str_is(rest, ballot ? "b32" : "pred"))
    return unknown_modifier(d, s, whole);
  if (s->n_op != 3) return decode_error(d, s, "3 operands are needed");
  i->run = ins_vote;
  Operand p = s->op[1];
  i->flag = p.negated;
  p.negated = false;
  return operand_add(d, i, s, &s->op[0], ballot ? 4 : 0) &&
         operand_add(d, i, s, &p, 0) && operand_add(d, i, s, &s->op[2], 4);
}

/* Lanes that have the same value. Operands: d, p, a, members. */
static void ins_match(Warp *w, const Ins *i) {
  if (!members_here(w, i, 3)) return;
  uint64_t a[LANES], v[LANES] = {0}, p[LANES] = {0};
  get_wide(w, i, 2, false, a);
  for (int l = 0; l < LANES; l++)
    for (int o = 0; o < LANES; o++)
      if (w->active >> o & 1 && a[l] == a[o]) v[l] |= lane_bit(o);
  for (int l = 0; i->flag && l < LANES; l++) {
    p[l] = v[l] == w->active;
    v[l] = p[l] ? v[l] : 0;
  }
  put_wide(w, i, 0, v);
  put_wide(w, i, 1, p);
}

bool decode_match(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  i->flag = take_modifier(&rest, "all");
  if ((!i->flag && !take_modifier(&rest, "any")) ||
      !take_modifier(&rest, "sync"))
    return unknown_modifier(d, s, whole);
  int bytes = str_is(rest, "b32") ? 4 : str_is(rest, "b64") ? 8 : 0;
  if (!bytes) return unknown_modifier(d, s, rest);
  if (s->n_op != 3) return decode_error(d, s, "3 operands are needed");
  i->run = ins_match;
  const Operand *to = &s->op[0];
  bool pair = to->kind == OPD_PAIR;
  Operand none = {.kind = OPD_SINK};
  return operand_add(d, i, s, pair ? &to->part[0] : to, 4) &&
         operand_add(d, i, s, pair ? &to->part[1] : &none, 0) &&
         operand_add(d, i, s, &s->op[1], bytes) &&
         operand_add(d, i, s, &s->op[2], 4);
}

enum { REDUX_ADD, REDUX_MIN, REDUX_MAX, REDUX_AND, REDUX_OR, REDUX_XOR };
static const char *const redux_names[] = {"add", "min", "max",
                                          "and", "or",  "xor"};

static void ins_redux(Warp *w, const Ins *i) {
  if (!members_here(w, i, 2)) return;
  uint64_t a[LANES], v[LANES];
  get_wide(w, i, 1, i->type == TY_s32, a);
  uint64_t all = a[__builtin_ctz(w->active)];
  for (uint32_t left = w->active & (w->active - 1); left; left &= left - 1) {
    uint64_t x = a[__builtin_ctz(left)];
    bool less = (int64_t)x < (int64_t)all;
    switch (i->mode) {
    case REDUX_ADD: all += x; break;
    case REDUX_MIN: all = less ? x : all; break;
    case REDUX_MAX: all = less ? all : x; break;
    case REDUX_AND: all &= x; break;
    case REDUX_OR: all |= x; break;
    case REDUX_XOR: all ^= x; break;
    }
  }
  for (int l = 0; l < LANES; l++)
    v[l] = all;
  put_wide(w, i, 0, v);
}

bool decode_redux(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (!take_modifier(&rest, "sync")) return unknown_modifier(d, s, whole);
  i->mode = 0;
  while (i->mode < 6 && !take_modifier(&rest, redux_names[i->mode]))
    i->mode++;
  i->type = (uint8_t)type_named(rest);
  bool bits = i->mode >= REDUX_AND && i->type == TY_b32;
  bool ints = i->mode < REDUX_AND && (i->type == TY_u32 || i->type == TY_s32);
  if (!bits && !ints) return unknown_modifier(d, s, whole);
  i->run = ins_redux;
  return operands_add(d, i, s, "www");
}

static void ins_activemask(Warp *w, const Ins *i) {
  uint64_t v[LANES];
  for (int l = 0; l < LANES; l++)
    v[l] = w->active;
  put_wide(w, i, 0, v);
}

bool decode_activemask(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!str_is(rest, "b32")) return unknown_modifier(d, s, rest);
  i->run = ins_activemask;
  return operands_add(d, i, s, "w");
}

/* ---- barriers ------------------------------------------------------------ */

/* Of the block: the whole warp comes, and waits for other warps. */
static void ins_barrier(Warp *w, const Ins *i) {
  if (!lanes_meet(w, i, w->live)) return;
  const uint32_t *id = src(w, i, 0);
  int lane = __builtin_ctz(w->active);
  w->barrier_id = (int)id[lane];
  w->barrier_threads =
      i->n > 1 ? (int)((const uint32_t *)src(w, i, 1))[lane] : 0;
  w->barrier = i;
  w->stop = true;
}

static void ins_warp_barrier(Warp *w, const Ins *i) {
  if (members_here(w, i, 0)) w->since = ++w->block->clock;
}

bool decode_bar(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (str_is(rest, "warp.sync")) {
    i->run = ins_warp_barrier;
    if (s->n_op != 1) return decode_error(d, s, "1 operand is needed");
    return operand_add(d, i, s, &s->op[0], 4);
  }
  take_modifier(&rest, "cta");
  if (!str_is(rest, "sync")) return unknown_modifier(d, s, rest);
  i->run = ins_barrier;
  if (s->n_op < 1 || s->n_op > 2)
    return decode_error(d, s, "1 or 2 operands are needed");
  for (int k = 0; k < s->n_op; k++)
    if (!operand_add(d, i, s, &s->op[k], 4)) return false;
  return true;
}

bool decode_barrier(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!str_is(rest, "sync") && !str_is(rest, "sync.aligned") &&
      !str_is(rest, "cta.sync") && !str_is(rest, "cta.sync.aligned"))
    return unknown_modifier(d, s, rest);
  return decode_bar(d, i, s, (Str){"sync", 4});
}

/* One of the lanes, the same each time: the first. */
static void ins_elect(Warp *w, const Ins *i) {
  if (!members_here(w, i, 2)) return;
  uint64_t first[LANES], is_first[LANES];
  for (int l = 0; l < LANES; l++) {
    first[l] = (uint64_t)__builtin_ctz(w->active);
    is_first[l] = (uint64_t)l == first[l];
  }
  put_wide(w, i, 0, first);
  put_wide(w, i, 1, is_first);
}

bool decode_elect(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!str_is(rest, "sync")) return unknown_modifier(d, s, rest);
  if (s->n_op != 2 || s->op[0].kind != OPD_PAIR)
    return decode_error(d, s, "expected lane|predicate and members");
  i->run = ins_elect;
  return operand_add(d, i, s, &s->op[0].part[0], 4) &&
         operand_add(d, i, s, &s->op[0].part[1], 0) &&
         operand_add(d, i, s, &s->op[1], 4);
}

/* What a lane writes is seen by all at once: nothing to wait for. */
static void ins_nothing(Warp *w, const Ins *i) {
  (void)w, (void)i;
}

bool decode_membar(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!str_is(rest, "cta") && !str_is(rest, "gl") && !str_is(rest, "sys"))
    return unknown_modifier(d, s, rest);
  i->run = ins_nothing;
  return operands_add(d, i, s, "");
}

bool decode_fence(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (take_modifier(&rest, "proxy")) return decode_proxy_fence(d, i, s, rest);
  if (!take_modifier(&rest, "sc")) take_modifier(&rest, "acq_rel");
  if (!str_is(rest, "cta") && !str_is(rest, "gpu") && !str_is(rest, "sys"))
    return unknown_modifier(d, s, whole);
  i->run = ins_nothing;
  return operands_add(d, i, s, "");
}

/* setmaxnreg: registers change hands between warps, of which there are enough
 * here. */
bool decode_setmaxnreg(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  int64_t n = 0;
  if (!str_is(rest, "inc.sync.aligned.u32") &&
      !str_is(rest, "dec.sync.aligned.u32"))
    return unknown_modifier(d, s, rest);
  if (d->m->arch != 90 || d->m->arch_suffix != 'a')
    return decode_error(d, s, "is known to sm_90a alone");
  if (s->n_op != 1 || !operand_constant(d, s, &s->op[0], &n) || n % 8 ||
      n < 24 || n > 256)
    return decode_error(d, s, "expected a multiple of 8 from 24 to 256");
  i->run = ins_nothing;
  return true;
}

/* ---- branches and ends --------------------------------------------------- */

static void ins_branch(Warp *w, const Ins *i) {
  branch(w, w->active, (uint32_t)i->imm);
}

static bool jump(Decoder *d, Ins *i, const Stmt *s, Str label) {
  i->run = ins_branch;
  Label to = {label, d->k->n_code, s->line};
  PUSH(&d->m->arena, d->jumps, d->n_jumps, d->cap_jumps, to);
  return true;
}

bool decode_bra(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  take_modifier(&rest, "uni");
  if (rest.n) return unknown_modifier(d, s, rest);
  if (s->n_op != 1 || s->op[0].kind != OPD_NAME)
    return decode_error(d, s, "expected a label");
  return jump(d, i, s, s->op[0].name);
}

static void ins_exit(Warp *w, const Ins *i) {
  (void)i;
  end_lanes(w, w->active);
}

bool decode_exit(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (rest.n) return unknown_modifier(d, s, rest);
  i->run = ins_exit;
  return operands_add(d, i, s, "");
}

bool decode_ret(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  take_modifier(&rest, "uni");
  if (!d->inlined) return decode_exit(d, i, s, rest);
  if (rest.n) return unknown_modifier(d, s, rest);
  return jump(d, i, s, (Str){"", 0});
}

static void ins_trap(Warp *w, const Ins *i) {
  fault(w, i, __builtin_ctz(w->active), CUDA_ERROR_LAUNCH_FAILED, "trap");
}

bool decode_trap(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (rest.n) return unknown_modifier(d, s, rest);
  i->run = ins_trap;
  return operands_add(d, i, s, "");
}
