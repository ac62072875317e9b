/* access.c: instructions that touch memory: loads, stores, atomics, copies
 * that arrive later (cp.async), and addresses from one space to another.
 *
 * How an access is cached or ordered makes no difference here: lanes are
 * executed one after another and what they write is seen at once. */
#include "async.h"

#include <stdlib.h>
#include <string.h>

/* ---- modifiers ----------------------------------------------------------- */

/* Those that say how strong an access is and where it is cached. */
static bool take_caching(Str *rest) {
  static const char *const names[] = {
      "weak",    "volatile", "relaxed",       "acquire",       "release",
      "acq_rel", "cta",      "cluster",       "gpu",           "sys",
      "ca",      "cg",       "cs",            "lu",            "cv",
      "wb",      "wt",       "nc",            "L1::no_allocate",
      "L1::evict_normal",    "L1::evict_first", "L1::evict_last",
      "L1::evict_unchanged", "L2::64B",       "L2::128B",      "L2::256B",
      "noftz"};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++)
    if (take_modifier(rest, names[k])) return true;
  return false;
}

/* What it hands on, or is handed, among all blocks. */
static void note_order(Ins *i, Str rest) {
  static const char *const names[] = {"acquire", "release", "acq_rel"};
  for (int k = 0; k < 3; k++) {
    Str first = rest;
    if (!take_modifier(&first, names[k])) continue;
    if (!take_modifier(&first, "gpu") && !take_modifier(&first, "sys"))
      continue;
    i->acquires = k != 1;
    i->releases = k != 0;
  }
}

static bool take_space(Str *rest, uint8_t *space) {
  Str after = *rest;
  Str name = next_modifier(&after);
  if (name.n > 5 && !memcmp(name.at + name.n - 5, "::cta", 5)) name.n -= 5;
  if (!space_named(name)) return false;
  *space = (uint8_t)space_named(name);
  *rest = after;
  return true;
}

/* ... .space.cache.v2.f32: the type ends it. */
static bool access_modifiers(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  static const char *const strong[] = {"volatile", "relaxed", "acquire",
                                       "release"};
  i->vec = 1;
  for (size_t k = 0; k < sizeof strong / sizeof *strong; k++) {
    Str first = rest;
    i->strong = i->strong || take_modifier(&first, strong[k]);
  }
  note_order(i, rest);
  while (take_caching(&rest) || take_space(&rest, &i->space))
    ;
  if (take_modifier(&rest, "v2")) i->vec = 2;
  else if (take_modifier(&rest, "v4")) i->vec = 4;
  Str whole = rest;
  i->type = (uint8_t)type_named(next_modifier(&rest));
  if (rest.n || !type_info[i->type].bytes)
    return unknown_modifier(d, s, rest.n ? rest : whole);
  return true;
}

/* The values of a vector access, or the one. */
static bool add_values(Decoder *d, Ins *i, const Stmt *s, const Operand *o) {
  int n = o->kind == OPD_VEC ? o->n : 1;
  if (n != i->vec)
    return decode_error(d, s, "%d values where %d are needed", n, i->vec);
  int before = i->n;
  if (!operand_add(d, i, s, o, ANY_SIZE)) return false;
  for (int k = before; k < i->n; k++)
    if (!d->refs[k].none && d->refs[k].bytes < type_info[i->type].bytes)
      return decode_error(d, s, "a register is too narrow");
  return true;
}

/* ---- loads and stores ---------------------------------------------------- */

static inline uint64_t address_of(const Warp *w, const Ins *i, int k,
                                  int lane) {
  const void *base = src(w, i, k);
  uint64_t at = i->o[k].bytes == 4 ? ((const uint32_t *)base)[lane]
                                   : ((const uint64_t *)base)[lane];
  return at + (uint64_t)i->imm;
}

static inline void put_lane(Warp *w, const Ins *i, int k, int lane,
                            uint64_t v) {
  uint8_t *d = dst(w, i, k);
  int bytes = i->o[k].bytes;
  if (!i->o[k].none) memcpy(d + lane * bytes, &v, (size_t)bytes);
}

static inline uint64_t extend(uint64_t v, Type t) {
  int unused = 64 - 8 * type_info[t].bytes;
  if (type_info[t].kind != 's' || !unused) return v;
  return (uint64_t)((int64_t)(v << unused) >> unused);
}

/* Who finds what he found before waits for others. */
static void acquired(Warp *w, const Ins *i) {
  uint64_t answer = 0;
  for (uint32_t left = w->active; left; left &= left - 1) {
    int lane = __builtin_ctz(left), bytes = i->o[0].bytes;
    uint64_t v = 0;
    memcpy(&v, (const uint8_t *)dst(w, i, 0) + lane * bytes,
           i->o[0].none ? 0 : (size_t)bytes);
    answer = answer * 31 + v;
    note_acquire(w, address_of(w, i, i->vec, lane));
  }
  if (w->asked != i || w->answer != answer) {
    w->asked = i;
    w->answer = answer;
    w->block->changes++;
  } else {
    w->asks = i;
    w->stop = true;
  }
}

static void ins_load(Warp *w, const Ins *i) {
  int bytes = type_info[i->type].bytes;
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    const uint8_t *p =
        touch(w, i, lane, (Space)i->space, address_of(w, i, i->vec, lane),
              bytes * i->vec, TOUCH_LOAD);
    for (int k = 0; k < i->vec; k++) {
      uint64_t v = 0;
      memcpy(&v, p + k * bytes, (size_t)bytes);
      put_lane(w, i, k, lane, extend(v, (Type)i->type));
    }
  }
  if (i->acquires && !w->stop) acquired(w, i);
}

/* Most of all loads: n words of global memory, for which nothing is wrong. */
static inline void load_words(Warp *w, const Ins *i, int n) {
  const Region *r = &w->block->launch->heap->region;
  const uint64_t known = UINT64_C(0x0303030303030303), *base = src(w, i, n);
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    uint64_t at = base[lane] + (uint64_t)i->imm, offset = at - r->base;
    uint64_t state[2] = {known, known};
    uint32_t v[4];
    bool plain = offset < r->size && !(at % (uint64_t)(4 * n));
    if (plain) memcpy(state, r->state + offset, (size_t)(4 * n));
    if (plain && (state[0] & state[1] & known) == known) {
      note_global(w, i, lane, offset, 4 * n, TOUCH_LOAD);
      memcpy(v, r->mem + offset, (size_t)(4 * n));
    } else {
      memcpy(v, touch(w, i, lane, SP_GLOBAL, at, 4 * n, TOUCH_LOAD),
             (size_t)(4 * n));
    }
    for (int k = 0; k < n; k++)
      ((uint32_t *)dst(w, i, k))[lane] = v[k];
  }
}

static void ins_load_word(Warp *w, const Ins *i) {
  load_words(w, i, 1);
}
static void ins_load_2_words(Warp *w, const Ins *i) {
  load_words(w, i, 2);
}
static void ins_load_4_words(Warp *w, const Ins *i) {
  load_words(w, i, 4);
}

/* The function for loads of words by addresses of 64 bits, or the general. */
static InsFn *load_by(const Decoder *d, const Ins *i) {
  bool words = i->space == SP_GLOBAL && type_info[i->type].bytes == 4 &&
               d->refs[i->vec].bytes == 8;
  for (int k = 0; k < i->vec; k++)
    words = words && d->refs[k].bytes == 4 && !d->refs[k].none;
  if (!words || i->acquires) return ins_load;
  return i->vec == 1   ? ins_load_word
         : i->vec == 2 ? ins_load_2_words
                       : ins_load_4_words;
}

static void ins_store(Warp *w, const Ins *i) {
  int bytes = type_info[i->type].bytes;
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    uint8_t *p = touch(w, i, lane, (Space)i->space, address_of(w, i, 0, lane),
                       bytes * i->vec, TOUCH_STORE);
    for (int k = 0; k < i->vec; k++) {
      const uint8_t *from = src(w, i, 1 + k);
      memcpy(p + k * bytes, from + lane * i->o[1 + k].bytes, (size_t)bytes);
    }
    if (i->releases) note_release(w, address_of(w, i, 0, lane));
  }
}

bool decode_ld(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!access_modifiers(d, i, s, rest)) return false;
  if (s->n_op != 2) return decode_error(d, s, "2 operands are needed");
  if (!add_values(d, i, s, &s->op[0]) ||
      !operand_address(d, i, s, &s->op[1]))
    return false;
  i->run = load_by(d, i);
  return true;
}

bool decode_ldu(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  return decode_ld(d, i, s, rest);
}

bool decode_st(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  if (!access_modifiers(d, i, s, rest)) return false;
  i->run = ins_store;
  if (s->n_op != 2) return decode_error(d, s, "2 operands are needed");
  if (i->space == SP_CONST) return decode_error(d, s, "constants are constant");
  return operand_address(d, i, s, &s->op[0]) &&
         add_values(d, i, s, &s->op[1]);
}

/* ---- atomics ------------------------------------------------------------- */

typedef enum Atomic {
  AT_ADD, AT_MIN, AT_MAX, AT_AND, AT_OR, AT_XOR, AT_EXCH, AT_INC, AT_DEC, AT_CAS
} Atomic;
static const char *const atomic_names[] = {
    "add", "min", "max", "and", "or", "xor", "exch", "inc", "dec", "cas"};

static uint64_t add_floats(Type t, uint64_t x, uint64_t y) {
  uint64_t out = 0;
  if (t == TY_f32) {
    float a, b;
    memcpy(&a, &x, 4);
    memcpy(&b, &y, 4);
    a += b;
    memcpy(&out, &a, 4);
  } else {
    double a, b;
    memcpy(&a, &x, 8);
    memcpy(&b, &y, 8);
    a += b;
    memcpy(&out, &a, 8);
  }
  return out;
}

/* x is what was there; signed ones are extended. */
static uint64_t atomic(const Ins *i, uint64_t x, uint64_t y, uint64_t z) {
  Type t = (Type)i->type;
  bool less = type_info[t].kind == 's' ? (int64_t)x < (int64_t)y : x < y;
  switch ((Atomic)i->mode) {
  case AT_ADD: return type_info[t].kind == 'f' ? add_floats(t, x, y) : x + y;
  case AT_MIN: return less ? x : y;
  case AT_MAX: return less ? y : x;
  case AT_AND: return x & y;
  case AT_OR: return x | y;
  case AT_XOR: return x ^ y;
  case AT_EXCH: return y;
  case AT_INC: return x >= y ? 0 : x + 1;
  case AT_DEC: return !x || x > y ? y : x - 1;
  case AT_CAS: return x == y ? z : x;
  }
  return x;
}

/* Operands: [the old value,] address, value [, another]. */
static void ins_atomic(Warp *w, const Ins *i) {
  int bytes = type_info[i->type].bytes, at = i->flag ? 1 : 0;
  bool is_signed = type_info[i->type].kind == 's';
  uint64_t y[LANES], z[LANES] = {0};
  get_wide(w, i, at + 1, is_signed, y);
  if (i->mode == AT_CAS) get_wide(w, i, at + 2, is_signed, z);
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    uint8_t *p = touch(w, i, lane, (Space)i->space, address_of(w, i, at, lane),
                       bytes, TOUCH_ATOMIC);
    uint64_t old = 0;
    memcpy(&old, p, (size_t)bytes);
    old = extend(old, (Type)i->type);
    uint64_t v = atomic(i, old, y[lane], z[lane]);
    memcpy(p, &v, (size_t)bytes);
    if (i->acquires) note_acquire(w, address_of(w, i, at, lane));
    if (i->releases) note_release(w, address_of(w, i, at, lane));
    if (i->flag) put_lane(w, i, 0, lane, old);
  }
}

static bool atomic_fits(const Ins *i) {
  char kind = type_info[i->type].kind;
  int bytes = type_info[i->type].bytes;
  if (bytes < 4) return false;
  switch ((Atomic)i->mode) {
  case AT_ADD: return kind == 'u' || kind == 's' || kind == 'f';
  case AT_MIN:
  case AT_MAX: return kind == 'u' || kind == 's';
  case AT_AND:
  case AT_OR:
  case AT_XOR:
  case AT_EXCH:
  case AT_CAS: return kind == 'b';
  case AT_INC:
  case AT_DEC: return kind == 'u' && bytes == 4;
  }
  return false;
}

static bool decode_atomic(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  note_order(i, rest);
  while (take_caching(&rest) || take_space(&rest, &i->space))
    ;
  int op = 0;
  while (op <= AT_CAS && !take_modifier(&rest, atomic_names[op]))
    op++;
  take_modifier(&rest, "noftz");
  i->mode = (uint8_t)op;
  i->type = (uint8_t)type_named(next_modifier(&rest));
  if (op > AT_CAS || rest.n || !atomic_fits(i))
    return unknown_modifier(d, s, whole);
  int at = i->flag ? 1 : 0, bytes = type_info[i->type].bytes;
  int n = at + (op == AT_CAS ? 3 : 2);
  if (s->n_op != n) return decode_error(d, s, "%d operands are needed", n);
  i->run = ins_atomic;
  if (i->flag && !operand_add(d, i, s, &s->op[0], bytes)) return false;
  if (!operand_address(d, i, s, &s->op[at])) return false;
  for (int k = at + 1; k < n; k++)
    if (!operand_add(d, i, s, &s->op[k], bytes)) return false;
  return true;
}

bool decode_atom(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  i->flag = true;
  return decode_atomic(d, i, s, rest);
}

bool decode_red(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  return decode_atomic(d, i, s, rest);
}

/* ---- copies that arrive later -------------------------------------------- */

/* From its issue until a wait lets it arrive, its bytes count as unwritten. */
struct CopyAhead {
  const Ins *ins;
  uint64_t to, from;
  int lane, bytes, used; /* of which are copied; the rest becomes 0 */
  int group;
};

static void check_source(Warp *w, const Ins *i, const CopyAhead *c,
                         uint8_t *out) {
  if (c->used == c->bytes) {
    memcpy(out, touch(w, i, c->lane, SP_GLOBAL, c->from, c->bytes, TOUCH_LOAD),
           (size_t)c->bytes);
    return;
  }
  for (int k = 0; k < c->used; k++)
    out[k] = *touch(w, i, c->lane, SP_GLOBAL, c->from + (uint64_t)k, 1,
                    TOUCH_LOAD);
}

static void ins_copy_ahead(Warp *w, const Ins *i) {
  uint64_t used[LANES];
  if (i->n > 2) get_wide(w, i, 2, false, used);
  for (uint32_t left = w->active; left && !w->stop; left &= left - 1) {
    int lane = __builtin_ctz(left);
    CopyAhead c = {i, address_of(w, i, 0, lane),
                   address_of(w, i, 1, lane) - (uint64_t)i->imm +
                       (uint64_t)i->imm2,
                   lane, i->vec, i->vec, w->copy_group[lane]};
    uint8_t bytes[16];
    if (i->n > 2 && used[lane] < i->vec) c.used = (int)used[lane];
    check_source(w, i, &c, bytes);
    uint8_t *p = touch(w, i, lane, SP_SHARED, c.to, c.bytes, TOUCH_STORE);
    if (w->stop) return;
    memset(w->block->shared_state + (p - w->block->shared),
           BYTE_HELD | BYTE_COMING, (size_t)c.bytes);
    if (w->n_copies == w->cap_copies) {
      w->cap_copies = w->cap_copies ? 2 * w->cap_copies : 256;
      w->copies = realloc(w->copies, (size_t)w->cap_copies * sizeof c);
    }
    w->copies[w->n_copies++] = c;
  }
}

static void arrive(Warp *w, const CopyAhead *c) {
  uint8_t bytes[16] = {0};
  check_source(w, c->ins, c, bytes);
  memset(w->block->shared_state + shared_offset(w->block, c->to), BYTE_HELD,
         (size_t)c->bytes);
  memcpy(touch(w, c->ins, c->lane, SP_SHARED, c->to, c->bytes, TOUCH_STORE),
         bytes, (size_t)c->bytes);
}

/* All but the newest i->imm groups; -1: and those not in a group yet. */
static void ins_copy_wait(Warp *w, const Ins *i) {
  int kept = 0;
  for (int k = 0; k < w->n_copies && !w->stop; k++) {
    const CopyAhead *c = &w->copies[k];
    bool due = w->active >> c->lane & 1 &&
               c->group < w->copy_group[c->lane] - i->imm;
    if (due) arrive(w, c);
    else w->copies[kept++] = *c;
  }
  w->n_copies = kept;
}

static void ins_copy_commit(Warp *w, const Ins *i) {
  (void)i;
  for (int lane = 0; lane < LANES; lane++)
    w->copy_group[lane] += (int)(w->active >> lane & 1);
}

static bool decode_copy(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  int64_t bytes;
  bool all = take_modifier(&rest, "ca");
  if (!all && !take_modifier(&rest, "cg")) return unknown_modifier(d, s, rest);
  if (!take_modifier(&rest, "shared::cta") && !take_modifier(&rest, "shared"))
    return unknown_modifier(d, s, rest);
  if (!take_modifier(&rest, "global")) return unknown_modifier(d, s, rest);
  take_caching(&rest);
  if (rest.n) return unknown_modifier(d, s, rest);
  if (s->n_op != 3 && s->n_op != 4)
    return decode_error(d, s, "3 or 4 operands are needed");
  i->run = ins_copy_ahead;
  i->space = SP_GLOBAL;
  if (!operand_constant(d, s, &s->op[2], &bytes)) return false;
  if (bytes != 16 && !(all && (bytes == 4 || bytes == 8)))
    return decode_error(d, s, "no such size");
  i->vec = (uint8_t)bytes;
  Ins to = {.space = SP_SHARED};
  if (!operand_address(d, &to, s, &s->op[0]) ||
      !operand_address(d, i, s, &s->op[1]))
    return false;
  i->imm2 = i->imm;
  i->imm = to.imm;
  return s->n_op == 3 || operand_add(d, i, s, &s->op[3], 4);
}

bool decode_cp(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (!take_modifier(&rest, "async")) return unknown_modifier(d, s, whole);
  if (take_modifier(&rest, "bulk")) return decode_bulk(d, i, s, rest);
  if (str_is(rest, "commit_group")) {
    i->run = ins_copy_commit;
    return operands_add(d, i, s, "");
  }
  if (str_is(rest, "wait_all")) {
    i->run = ins_copy_wait;
    i->imm = -1;
    return operands_add(d, i, s, "");
  }
  if (str_is(rest, "wait_group")) {
    i->run = ins_copy_wait;
    if (s->n_op != 1) return decode_error(d, s, "1 operand is needed");
    return operand_constant(d, s, &s->op[0], &i->imm);
  }
  return decode_copy(d, i, s, rest);
}

/* ---- spaces -------------------------------------------------------------- */

static void ins_cvta(Warp *w, const Ins *i) {
  uint64_t v[LANES];
  get_wide(w, i, 1, false, v);
  for (int l = 0; l < LANES; l++)
    v[l] += (uint64_t)i->imm;
  put_wide(w, i, 0, v);
}

bool decode_cvta(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  bool to = take_modifier(&rest, "to");
  if (!take_space(&rest, &i->space) || !str_is(rest, "u64"))
    return unknown_modifier(d, s, whole);
  uint64_t window = i->space == SP_SHARED  ? SHARED_WINDOW
                    : i->space == SP_LOCAL ? LOCAL_WINDOW
                    : i->space == SP_PARAM ? PARAM_WINDOW
                                           : 0;
  i->imm = (int64_t)(to ? 0 - window : window);
  i->run = ins_cvta;
  return operands_add(d, i, s, "qq");
}
