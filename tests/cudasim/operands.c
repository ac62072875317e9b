/* operands.c: operands of the instruction at hand: names to places in the
 * register file, numbers to a pool of constants, symbols to addresses. */
#include "cudasim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERANDS_MAX = sizeof((Decoder *)0)->refs / sizeof(Ref) };

const char *const special_names[SPECIAL_COUNT] = {
#define SPECIAL(name, id) name,
#include "special.def"
#undef SPECIAL
};

bool decode_error(Decoder *d, const Stmt *s, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return ptx_error(d->m, s->line, "%.*s: %s", s->name.n, s->name.at, text);
}

/* ---- modifiers ----------------------------------------------------------- */

Str next_modifier(Str *rest) {
  Str m = *rest;
  for (m.n = 0; m.n < rest->n && rest->at[m.n] != '.';)
    m.n++;
  int past = m.n < rest->n ? m.n + 1 : m.n;
  rest->at += past;
  rest->n -= past;
  return m;
}

bool take_modifier(Str *rest, const char *name) {
  Str after = *rest;
  if (!rest->n || !str_is(next_modifier(&after), name)) return false;
  *rest = after;
  return true;
}

bool unknown_modifier(Decoder *d, const Stmt *s, Str rest) {
  Str m = next_modifier(&rest);
  return decode_error(d, s, "unknown instruction, at '.%.*s'", m.n, m.at);
}

/* ---- names --------------------------------------------------------------- */

static bool names(const Name *n, Str name) {
  if (n->count < 0) return str_same(n->name, name);
  if (name.n <= n->name.n || memcmp(name.at, n->name.at, (size_t)n->name.n))
    return false;
  int64_t index = 0;
  for (int k = n->name.n; k < name.n; k++) {
    if (name.at[k] < '0' || name.at[k] > '9' || index >= n->count) return false;
    index = 10 * index + name.at[k] - '0';
  }
  return index < n->count;
}

const Name *name_find(const Decoder *d, Str name) {
  for (int k = d->n_names - 1; k >= d->floor; k--)
    if (names(&d->names[k], name)) return &d->names[k];
  for (int k = 0; k < d->n_module && k < d->floor; k++)
    if (names(&d->names[k], name)) return &d->names[k];
  return NULL;
}

/* ---- places -------------------------------------------------------------- */

/* A place in the pool with 32 times the value; its table is open hashing. */
static Ref constant(Decoder *d, uint64_t value, int bytes) {
  Kernel *k = d->k;
  if (d->pool_used * 2 >= d->pool_size) {
    uint32_t *old = d->pool, n = d->pool_size;
    d->pool_size = n ? 2 * n : 256;
    d->pool = calloc(2 * (size_t)d->pool_size, sizeof *d->pool);
    d->pool_used = 0;
    for (uint32_t x = 0; x < n; x++)
      if (old[2 * x]) {
        uint64_t v = 0;
        memcpy(&v, k->consts + old[2 * x] - 1, old[2 * x + 1]);
        uint32_t slot = (uint32_t)(v * 0x9e3779b97f4a7c15u >> 32);
        while (d->pool[2 * (slot %= d->pool_size)])
          slot++;
        memcpy(&d->pool[2 * slot], &old[2 * x], 8);
        d->pool_used++;
      }
    free(old);
  }
  if (bytes < 8) value &= (UINT64_C(1) << 8 * bytes) - 1;
  uint32_t slot = (uint32_t)(value * 0x9e3779b97f4a7c15u >> 32);
  for (; d->pool[2 * (slot %= d->pool_size)]; slot++) {
    uint32_t at = d->pool[2 * slot] - 1;
    if (d->pool[2 * slot + 1] == (uint32_t)bytes &&
        !memcmp(k->consts + at, &value, (size_t)bytes))
      return (Ref){at, BASE_CONSTS, (uint8_t)bytes, false};
  }
  uint32_t at = (uint32_t)k->const_bytes;
  k->const_bytes += LANES * bytes;
  k->consts = realloc(k->consts, (size_t)k->const_bytes);
  for (int l = 0; l < LANES; l++)
    memcpy(k->consts + at + (size_t)(l * bytes), &value, (size_t)bytes);
  d->pool[2 * slot] = at + 1;
  d->pool[2 * slot + 1] = (uint32_t)bytes;
  d->pool_used++;
  return (Ref){at, BASE_CONSTS, (uint8_t)bytes, false};
}

static Ref mask_constant(Decoder *d, bool truth) {
  Ref r = constant(d, truth ? UINT32_MAX : 0, 4);
  r.bytes = 0;
  return r;
}

static bool push(Decoder *d, Ins *i, const Stmt *s, Ref r) {
  if (d->n_refs == OPERANDS_MAX) return decode_error(d, s, "many operands");
  d->refs[d->n_refs++] = r;
  i->n = (uint8_t)d->n_refs;
  return true;
}

static bool wrong_size(Decoder *d, const Stmt *s, Str name, int has,
                       int wants) {
  return decode_error(d, s, "'%.*s' has %d bits where %d are needed", name.n,
                      name.at, has ? 8 * has : 1, wants ? 8 * wants : 1);
}

static bool add_special(Decoder *d, Ins *i, const Stmt *s, Str name,
                        int bytes) {
  for (int k = 0; k < SPECIAL_COUNT; k++) {
    if (!str_is(name, special_names[k])) continue;
    if (bytes != 4 && bytes != ANY_SIZE)
      return wrong_size(d, s, name, 4, bytes);
    Ref r = {(uint32_t)(k * LANES * 4), BASE_SPECIAL, 4, false};
    return push(d, i, s, r);
  }
  return decode_error(d, s, "unknown name '%.*s'", name.n, name.at);
}

static int index_of(const Name *n, Str name) {
  int index = 0;
  for (int k = n->name.n; n->count >= 0 && k < name.n; k++)
    index = 10 * index + name.at[k] - '0';
  return index;
}

static bool add_name(Decoder *d, Ins *i, const Stmt *s, const Operand *o,
                     int bytes) {
  if (str_is(o->name, "WARP_SZ")) return push(d, i, s, constant(d, LANES, 4));
  const Name *n = name_find(d, o->name);
  if (!n) return add_special(d, i, s, o->name, bytes);
  if (n->space != SP_REG) { /* its address */
    if (bytes == ANY_SIZE) bytes = 8;
    if (bytes < 4) return wrong_size(d, s, o->name, 8, bytes);
    return push(d, i, s, constant(d, n->at + (uint64_t)o->value, bytes));
  }
  int has = type_info[n->type].bytes;
  if (bytes != ANY_SIZE && has != bytes)
    return wrong_size(d, s, o->name, has, bytes);
  if (o->negated) return decode_error(d, s, "'!' is not known here");
  uint32_t step = has ? (uint32_t)(LANES * has) : 4;
  Ref r = {(uint32_t)n->at + step * (uint32_t)index_of(n, o->name), BASE_REGS,
           (uint8_t)has, false};
  return push(d, i, s, r);
}

static bool add_number(Decoder *d, Ins *i, const Stmt *s, const Operand *o,
                       int bytes) {
  int has = o->kind == OPD_F32 ? 4 : o->kind == OPD_F64 ? 8 : bytes;
  if (has == ANY_SIZE) has = 8;
  if (has != bytes && bytes != ANY_SIZE)
    return decode_error(d, s, "a float of %d bits where %d are needed",
                        8 * has, 8 * bytes);
  if (!has) return push(d, i, s, mask_constant(d, o->value != 0));
  return push(d, i, s, constant(d, (uint64_t)o->value, has));
}

bool operand_add(Decoder *d, Ins *i, const Stmt *s, const Operand *o,
                 int bytes) {
  switch (o->kind) {
  case OPD_NAME: return add_name(d, i, s, o, bytes);
  case OPD_INT:
  case OPD_F32:
  case OPD_F64: return add_number(d, i, s, o, bytes);
  case OPD_SINK: return push(d, i, s, (Ref){0, 0, 0, true});
  case OPD_VEC:
  case OPD_PAIR:
    for (int k = 0; k < o->n; k++)
      if (!operand_add(d, i, s, &o->part[k], bytes)) return false;
    return true;
  case OPD_ADDR:
  case OPD_LIST: break;
  }
  return decode_error(d, s, "no such operand is known here");
}

bool operands_add(Decoder *d, Ins *i, const Stmt *s, const char *letters) {
  int n = (int)strlen(letters);
  if (s->n_op != n)
    return decode_error(d, s, "%d operands where %d are needed", s->n_op, n);
  for (int k = 0; k < n; k++) {
    int bytes = letters[k] == 'p'   ? 0
                : letters[k] == 'h' ? 2
                : letters[k] == 'w' ? 4
                : letters[k] == 'q' ? 8
                                    : ANY_SIZE;
    OperandKind kind = s->op[k].kind;
    if (kind == OPD_SINK || kind == OPD_VEC || kind == OPD_PAIR)
      return decode_error(d, s, "no such operand is known here");
    if (!operand_add(d, i, s, &s->op[k], bytes)) return false;
    if (!k && d->refs[d->n_refs - 1].base != BASE_REGS)
      return decode_error(d, s, "the result is no register");
  }
  return true;
}

bool operand_address(Decoder *d, Ins *i, const Stmt *s, const Operand *o) {
  if (o->kind != OPD_ADDR || o->n)
    return decode_error(d, s, "expected an address");
  i->imm = o->value;
  const Name *n = o->name.n ? name_find(d, o->name) : NULL;
  if (n && n->space == SP_REG) {
    int bytes = type_info[n->type].bytes;
    if (bytes < 4) return wrong_size(d, s, o->name, bytes, 8);
    return operand_add(d, i, s, &(Operand){.name = o->name}, ANY_SIZE);
  }
  if (o->name.n && !n)
    return decode_error(d, s, "unknown name '%.*s'", o->name.n, o->name.at);
  if (n) {
    i->imm += (int64_t)n->at;
    if (i->space == SP_PARAM || i->space == SP_GENERIC) i->space = n->space;
    if (i->space != n->space)
      return decode_error(d, s, "'%.*s' lies in another space", n->name.n,
                          n->name.at);
  }
  return push(d, i, s, constant(d, 0, 8));
}

bool operand_constant(Decoder *d, const Stmt *s, const Operand *o,
                      int64_t *value) {
  if (o->kind != OPD_INT) return decode_error(d, s, "expected a number");
  *value = o->value;
  return true;
}
