/* wgmma.c: products of warpgroups: wgmma.mma_async and what orders it.
 *
 * Four warps make d[64, N] += a[64, 16] b[16, N] of operands in shared memory;
 * each of them has 16 rows of d in its registers, as mma.sync has. A
 * descriptor says how an operand lies: its address, two distances, how groups
 * of 16 bytes change places. In units of 16 bytes, of which T values have
 * room, with W units a swizzle:
 *
 *   along the depth      ((8, m), (T, 2)) : ((W T, stride), (1, T))
 *     without a swizzle  ((8, m), (T, 2)) : ((T, stride), (1, leading))
 *   across               ((T, W, m), (8, 2)) : ((1, T, leading), (W T, stride))
 *     without a swizzle  ((T, 1, m), (8, 2)) : ((1, T, stride), (T, leading))
 *
 * A product is made at once, since nobody can see when: until wgmma.wait_group
 * its registers may be neither read nor written, nor may what it reads. A mov
 * between registers hands on what is still to come, as that is a change of
 * names for ptxas. Behind what else uses such registers a wgmma.fence must
 * stand in front of the next product. */
#include "async.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, DEPTH = 16, COLUMNS_MOST = 256, WARPS = 4, SLOT = 64 };

/* A product that is not over. */
typedef struct Product {
  const Ins *ins;
  uint64_t number;
  int group, n_units;
  uint32_t units[2 * (ROWS + COLUMNS_MOST)]; /* of shared memory, it reads */
} Product;

/* A register of 32 lanes, where it is the result of a product. */
typedef struct Slot {
  uint64_t product; /* number of the last product that makes it */
  uint64_t used;    /* step of the warp when something else used it */
} Slot;

struct Products {
  Product *all;
  int n, cap, group;
  uint64_t made, over; /* numbers */
  uint64_t fence;      /* step of the last wgmma.fence */
  Slot *slots;
};

/* What warps of a group have in common: the products in their order. */
typedef struct Issue {
  const Ins *ins;
  uint64_t a, b;
} Issue;

struct Issues {
  Issue *all;
  int n, cap, done[WARPS];
};

/* ---- operands ------------------------------------------------------------ */

typedef struct Panel {
  const Swizzle *swizzle;
  uint64_t start, leading, stride;
  bool across;
} Panel;

static Panel panel_of(uint64_t descriptor, bool across) {
  return (Panel){swizzle_of_descriptor(descriptor >> 62),
                 (descriptor & 0x3fff) << 4, (descriptor >> 16 & 0x3fff) << 4,
                 (descriptor >> 32 & 0x3fff) << 4, across};
}

/* Address of 8 values: along the depth, those of row (or column) `line` from
 * 8 `unit` on; across, those of 8 rows from 8 `unit` on at depth `line`. */
static uint64_t unit_address(const Panel *p, int line, int unit) {
  uint64_t l = (uint64_t)line, u = (uint64_t)unit;
  uint64_t wide = (uint64_t)p->swizzle->span / 16, at = l % 8 * wide * 16;
  if (!p->across) at += l / 8 * p->stride + u * (wide == 1 ? p->leading : 16);
  else if (wide == 1) at += l / 8 * p->leading + u * p->stride;
  else at += l / 8 * p->stride + u / wide * p->leading + u % wide * 16;
  return swizzled(p->swizzle, p->start + at);
}

static const uint8_t *read_unit(Warp *w, const Ins *i, uint64_t address,
                                Product *x) {
  const uint8_t *p = touch(w, i, 0, SP_SHARED, address, UNIT, TOUCH_LOAD);
  if (w->stop) return p;
  uint64_t offset = (uint64_t)(p - w->block->shared);
  if (!proxy_use(w, i, 0, offset, UNIT)) return p;
  Unit *u = unit_at(w->block, offset);
  u->readers++;
  u->by = i;
  x->units[x->n_units++] = (uint32_t)(offset / UNIT);
  return p;
}

/* `n` rows (or columns) from `first` on, all of the depth. */
static void read_panel(Warp *w, const Ins *i, const Panel *p, int first, int n,
                       Product *x, float out[][DEPTH]) {
  int lines = p->across ? DEPTH : n, units = (p->across ? n : DEPTH) / 8;
  for (int l = 0; l < lines; l++)
    for (int u = 0; u < units; u++) {
      uint64_t at = p->across ? unit_address(p, l, first / 8 + u)
                              : unit_address(p, first + l, u);
      uint16_t v[8];
      memcpy(v, read_unit(w, i, at, x), sizeof v);
      if (w->stop) return;
      for (int e = 0; e < 8; e++) {
        float f = i->type == TY_bf16 ? bf16_to_float(v[e]) : f16_to_float(v[e]);
        if (p->across) out[8 * u + e][l] = f;
        else out[l][8 * u + e] = f;
      }
    }
}

/* ---- who may do it ------------------------------------------------------- */

/* All warps of a group do the same products, of the same operands. */
static bool same_issue(Warp *w, const Ins *i, uint64_t a, uint64_t b) {
  struct Issues *s = &w->block->issues[w->id / WARPS];
  int *mine = &s->done[w->id % WARPS];
  if (*mine == s->n) {
    if (s->n == s->cap) {
      s->cap = s->cap ? 2 * s->cap : 64;
      s->all = realloc(s->all, (size_t)s->cap * sizeof *s->all);
    }
    s->all[s->n++] = (Issue){i, a, b};
  }
  const Issue *first = &s->all[(*mine)++];
  if (first->ins != i)
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED,
          "another warp of this warpgroup does the wgmma of PTX line %d",
          first->ins->line);
  else if (first->a != a || first->b != b)
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED,
          "another warp of this warpgroup has other descriptors");
  return !w->stop;
}

static bool descriptor(Warp *w, const Ins *i, int k, uint64_t *out) {
  const uint64_t *v = src(w, i, k);
  for (int l = 1; l < LANES; l++)
    if (v[l] != v[0]) {
      fault(w, i, l, CUDA_ERROR_LAUNCH_FAILED,
            "its descriptor is not that of lane 0");
      return false;
    }
  if (v[0] >> 49 & 7) {
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED,
          "a descriptor's base offset is not known here");
    return false;
  }
  *out = v[0];
  return true;
}

static Slot *slot(const Warp *w, const Ref *r) {
  return &w->products->slots[r->at / SLOT];
}

/* Registers were not used behind the last fence, and products that make them
 * now are of the same shape. */
static bool registers_ready(Warp *w, const Ins *i) {
  const struct Products *p = w->products;
  for (int k = 0; k < i->vec; k++) {
    const Slot *s = slot(w, &i->o[k]);
    const char *why = s->used >= p->fence
                          ? "no wgmma.fence behind what used its registers"
                          : NULL;
    for (int x = 0; x < p->n && !why; x++)
      if (p->all[x].number == s->product && p->all[x].ins->vec != i->vec)
        why = "another shape than the product under way in its registers";
    if (!why) continue;
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED, "%s", why);
    return false;
  }
  return true;
}

static bool all_lanes(Warp *w, const Ins *i) {
  if (!lanes_meet(w, i, UINT32_MAX)) return false;
  if (w->active == UINT32_MAX &&
      w->id / WARPS * WARPS + WARPS <= w->block->n_warps)
    return true;
  fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED,
        "needs all lanes of four warps of a warpgroup");
  return false;
}

/* ---- products ------------------------------------------------------------ */

static Product *product_new(Warp *w, const Ins *i) {
  struct Products *p = w->products;
  if (p->n == p->cap) {
    p->cap = p->cap ? 2 * p->cap : 8;
    p->all = realloc(p->all, (size_t)p->cap * sizeof *p->all);
  }
  Product *x = &p->all[p->n++];
  x->ins = i;
  x->number = ++p->made;
  x->group = p->group;
  x->n_units = 0;
  return x;
}

/* Register k of a lane: row lane / 4, 8 further for each second pair; columns
 * 2 (lane % 4) and the next, 8 further for each fourth register. */
static void multiply(Warp *w, const Ins *i, float a[][DEPTH],
                     float b[][DEPTH]) {
  uint32_t keep = *(const uint32_t *)src(w, i, i->vec + 2);
  float sign = i->flag ? -1 : 1;
  for (int k = 0; k < i->vec; k++) {
    float *d = dst(w, i, k);
    for (int lane = 0; lane < LANES; lane++) {
      const float *x = a[lane / 4 + k / 2 % 2 * 8];
      const float *y = b[k / 4 * 8 + lane % 4 * 2 + k % 2];
      float sum = keep >> lane & 1 ? d[lane] : 0;
      for (int z = 0; z < DEPTH; z++)
        sum += sign * x[z] * y[z];
      d[lane] = sum;
    }
    slot(w, &i->o[k])->product = w->products->made;
  }
}

enum { ACROSS_A = 1, ACROSS_B = 2 };

static void ins_product(Warp *w, const Ins *i) {
  uint64_t da, db;
  float a[ROWS][DEPTH], b[COLUMNS_MOST][DEPTH];
  if (!all_lanes(w, i) || !descriptor(w, i, i->vec, &da) ||
      !descriptor(w, i, i->vec + 1, &db) || !same_issue(w, i, da, db) ||
      !registers_ready(w, i))
    return;
  Panel pa = panel_of(da, i->mode & ACROSS_A);
  Panel pb = panel_of(db, i->mode & ACROSS_B);
  Product *x = product_new(w, i);
  read_panel(w, i, &pa, w->id % WARPS * ROWS, ROWS, x, a);
  if (!w->stop) read_panel(w, i, &pb, 0, 2 * i->vec, x, b);
  if (!w->stop) multiply(w, i, a, b);
}

static void ins_fence(Warp *w, const Ins *i) {
  if (all_lanes(w, i)) w->products->fence = w->steps + 1;
}

static void ins_commit(Warp *w, const Ins *i) {
  if (all_lanes(w, i)) w->products->group++;
}

/* All but the newest i->imm groups are over. */
static void ins_wait(Warp *w, const Ins *i) {
  struct Products *p = w->products;
  if (!all_lanes(w, i)) return;
  int n = 0;
  while (n < p->n && p->all[n].group < p->group - i->imm) {
    const Product *x = &p->all[n++];
    p->over = x->number;
    for (int u = 0; u < x->n_units; u++)
      w->block->units[x->units[u]].readers--;
  }
  p->n -= n;
  if (n) memmove(p->all, p->all + n, (size_t)p->n * sizeof *p->all);
}

/* ---- what else uses the registers ---------------------------------------- */

static const Ins *maker(const struct Products *p, uint64_t number) {
  for (int k = 0; k < p->n; k++)
    if (p->all[k].number == number) return p->all[k].ins;
  return NULL;
}

static void ins_guarded(Warp *w, const Ins *i) {
  const struct Products *p = w->products;
  if (i->moves && i->o[1].base == BASE_REGS) {
    Slot *to = slot(w, &i->o[0]);
    const Slot *from = slot(w, &i->o[1]);
    if (from->product > p->over || to->product <= p->over) {
      *to = *from;
      i->behind(w, i);
      return;
    }
  }
  for (int k = 0; k < i->n; k++) {
    if (i->o[k].base != BASE_REGS || i->o[k].none) continue;
    Slot *s = slot(w, &i->o[k]);
    s->used = w->steps + 1;
    if (s->product <= p->over) continue;
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED,
          "uses a register of the wgmma of PTX line %d, which no "
          "wgmma.wait_group has waited for",
          maker(p, s->product)->line);
    return;
  }
  i->behind(w, i);
}

/* Some register of the instruction is in the set. */
static bool meets(const uint8_t *set, const Ins *i) {
  for (int k = 0; k < i->n; k++)
    if (i->o[k].base == BASE_REGS && !i->o[k].none && set[i->o[k].at / SLOT])
      return true;
  return false;
}

static int add_registers(uint8_t *set, const Ins *i, int n) {
  int more = 0;
  for (int k = 0; k < n; k++) {
    if (i->o[k].base != BASE_REGS || set[i->o[k].at / SLOT]) continue;
    set[i->o[k].at / SLOT] = 1;
    more++;
  }
  return more;
}

/* Results of products, and what they are moved to and from. */
void products_guard(Kernel *k) {
  uint8_t *set = arena_new(&k->module->arena, (size_t)k->reg_bytes / SLOT + 2);
  int more = 0;
  for (int c = 0; c < k->n_code; c++)
    if (k->code[c].run == ins_product)
      more += add_registers(set, &k->code[c], k->code[c].vec);
  while (more) {
    more = 0;
    for (int c = 0; c < k->n_code; c++)
      if (k->code[c].moves && meets(set, &k->code[c]))
        more += add_registers(set, &k->code[c], 2);
  }
  for (int c = 0; c < k->n_code; c++) {
    Ins *i = &k->code[c];
    if (i->run == ins_product || !meets(set, i)) continue;
    i->behind = i->run;
    i->run = ins_guarded;
  }
}

/* ---- a block's way ------------------------------------------------------- */

static size_t slots_of(const Block *b) {
  return (size_t)b->launch->kernel->reg_bytes / SLOT + 2;
}

bool products_new(Block *b) {
  b->issues = calloc((size_t)b->n_warps / WARPS + 1, sizeof *b->issues);
  bool ok = b->issues != NULL;
  for (int k = 0; k < b->n_warps && ok; k++) {
    struct Products *p = b->warps[k].products = calloc(1, sizeof *p);
    if (p) p->slots = malloc(slots_of(b) * sizeof *p->slots);
    ok = p && p->slots;
  }
  return ok;
}

void products_start(Warp *w) {
  struct Products *p = w->products;
  struct Issues *s = &w->block->issues[w->id / WARPS];
  s->n = s->done[w->id % WARPS] = 0;
  memset(p->slots, 0, slots_of(w->block) * sizeof *p->slots);
  p->n = p->group = 0;
  p->made = p->over = p->fence = 0;
}

void products_over(Block *b) {
  for (int k = 0; k < b->n_warps; k++) {
    Warp *w = &b->warps[k];
    const struct Products *p = w->products;
    const struct Issues *s = &b->issues[k / WARPS];
    if (p->n)
      fault(w, p->all[0].ins, -1, CUDA_ERROR_LAUNCH_FAILED,
            "the warp ends and no wgmma.wait_group has waited for this");
    else if (s->done[k % WARPS] != s->n)
      fault(w, s->all[s->done[k % WARPS]].ins, -1, CUDA_ERROR_LAUNCH_FAILED,
            "another warp of this warpgroup does this, and this one ends");
  }
}

void products_free(Block *b) {
  for (int k = 0; b->warps && k < b->n_warps; k++) {
    struct Products *p = b->warps[k].products;
    if (p) free(p->all);
    if (p) free(p->slots);
    free(p);
    if (k % WARPS == 0 && b->issues) free(b->issues[k / WARPS].all);
  }
  free(b->issues);
}

/* ---- decoding ------------------------------------------------------------ */

/* m64n128k16 */
static int shape_columns(Str shape) {
  int n = 0, at = 4;
  for (; at < shape.n && shape.at[at] >= '0' && shape.at[at] <= '9'; at++)
    n = 10 * n + shape.at[at] - '0';
  bool fits = shape.n == at + 3 && !memcmp(shape.at, "m64n", 4) &&
              !memcmp(shape.at + at, "k16", 3);
  return fits && n % 8 == 0 && n <= COLUMNS_MOST ? n : 0;
}

/* The last four operands: signs of a and b, which of them lie across. */
static bool decode_signs(Decoder *d, Ins *i, const Stmt *s) {
  int64_t v[4];
  for (int k = 0; k < 4; k++) {
    if (!operand_constant(d, s, &s->op[4 + k], &v[k])) return false;
    if (k < 2 ? v[k] != 1 && v[k] != -1 : v[k] != 0 && v[k] != 1)
      return decode_error(d, s, "no such number");
  }
  i->flag = v[0] != v[1];
  i->mode = (uint8_t)((v[2] ? ACROSS_A : 0) | (v[3] ? ACROSS_B : 0));
  return true;
}

static bool decode_product(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  int n = shape_columns(next_modifier(&rest));
  i->type = str_is(rest, "f32.bf16.bf16") ? TY_bf16
            : str_is(rest, "f32.f16.f16") ? TY_f16
                                          : TY_none;
  if (!n || !i->type) return unknown_modifier(d, s, whole);
  if (s->n_op != 8) return decode_error(d, s, "8 operands are needed");
  if (s->op[0].kind != OPD_VEC || s->op[0].n != n / 2)
    return decode_error(d, s, "%d registers where %d are needed",
                        s->op[0].n, n / 2);
  i->run = ins_product;
  i->vec = (uint8_t)(n / 2);
  return operand_add(d, i, s, &s->op[0], 4) &&
         operand_add(d, i, s, &s->op[1], 8) &&
         operand_add(d, i, s, &s->op[2], 8) &&
         operand_add(d, i, s, &s->op[3], 0) && decode_signs(d, i, s);
}

bool decode_wgmma(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  d->k->async = true;
  if (d->m->arch != 90 || d->m->arch_suffix != 'a')
    return decode_error(d, s, "is known to sm_90a alone");
  if (take_modifier(&rest, "mma_async")) {
    if (!take_modifier(&rest, "sync") || !take_modifier(&rest, "aligned"))
      return unknown_modifier(d, s, whole);
    return decode_product(d, i, s, rest);
  }
  i->run = str_is(rest, "fence.sync.aligned")          ? ins_fence
           : str_is(rest, "commit_group.sync.aligned") ? ins_commit
           : str_is(rest, "wait_group.sync.aligned")   ? ins_wait
                                                       : NULL;
  if (!i->run) return unknown_modifier(d, s, whole);
  if (i->run != ins_wait) return operands_add(d, i, s, "");
  if (s->n_op != 1) return decode_error(d, s, "1 operand is needed");
  return operand_constant(d, s, &s->op[0], &i->imm);
}
