/* mma.c: products by tensor cores: mma.sync and ldmatrix.
 *
 * A fragment is a matrix in the registers of a warp. In the PTX ISA's layouts
 * lanes go by g = lane / 4 and t = lane % 4. Of A (16 rows) a lane has rows g
 * and g + 8, of B (8 columns) column g, of C and D rows g and g + 8 at columns
 * 2t and 2t + 1. Along the depth it has pairs 2t, 2t + 1 and the same 8 further
 * on for types of 16 bits, t and the same 4 further on for tf32. Sums are made
 * in f32 from the first of the depth to the last, C first: hardware rounds its
 * own way, so tests compare within a tolerance. */
#include "cudasim.h"

#include <string.h>

enum { ROWS = 16, COLUMNS = 8, DEPTH_MAX = 16 };

typedef struct Shape {
  const char *name; /* modifiers behind mma.sync.aligned. */
  int depth, a, b;  /* registers of A and B a lane */
  Type type;
} Shape;

static const Shape shapes[] = {
    {"m16n8k16.row.col.f32.bf16.bf16.f32", 16, 4, 2, TY_bf16},
    {"m16n8k8.row.col.f32.bf16.bf16.f32", 8, 2, 1, TY_bf16},
    {"m16n8k16.row.col.f32.f16.f16.f32", 16, 4, 2, TY_f16},
    {"m16n8k8.row.col.f32.f16.f16.f32", 8, 2, 1, TY_f16},
    {"m16n8k8.row.col.f32.tf32.tf32.f32", 8, 4, 2, TY_tf32},
    {"m16n8k4.row.col.f32.tf32.tf32.f32", 4, 2, 1, TY_tf32},
};

/* The two values in a register of 16-bit values, or the one of tf32, of which
 * hardware reads the upper 19 bits. */
static int values(Type type, uint32_t reg, float *out) {
  uint32_t bits = reg & ~UINT32_C(0x1fff);
  switch (type) {
  case TY_bf16:
    out[0] = bf16_to_float((uint16_t)reg);
    out[1] = bf16_to_float((uint16_t)(reg >> 16));
    return 2;
  case TY_f16:
    out[0] = f16_to_float((uint16_t)reg);
    out[1] = f16_to_float((uint16_t)(reg >> 16));
    return 2;
  default: memcpy(out, &bits, 4); return 1;
  }
}

/* Register k of A: rows alternate fastest, then the halves of the depth. */
static void read_a(const Warp *w, const Ins *i, const Shape *s,
                   float a[ROWS][DEPTH_MAX]) {
  for (int k = 0; k < s->a; k++) {
    const uint32_t *reg = src(w, i, 4 + k);
    for (int lane = 0; lane < LANES; lane++) {
      float v[2];
      int n = values(s->type, reg[lane], v);
      int row = lane / 4 + (k & 1) * 8;
      for (int e = 0; e < n; e++)
        a[row][(lane % 4 + k / 2 * 4) * n + e] = v[e];
    }
  }
}

static void read_b(const Warp *w, const Ins *i, const Shape *s,
                   float b[DEPTH_MAX][COLUMNS]) {
  for (int k = 0; k < s->b; k++) {
    const uint32_t *reg = src(w, i, 4 + s->a + k);
    for (int lane = 0; lane < LANES; lane++) {
      float v[2];
      int n = values(s->type, reg[lane], v);
      for (int e = 0; e < n; e++)
        b[(lane % 4 + k * 4) * n + e][lane / 4] = v[e];
    }
  }
}

static void ins_mma(Warp *w, const Ins *i) {
  if (!lanes_meet(w, i, UINT32_MAX)) return;
  if (w->active != UINT32_MAX) {
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED, "needs all 32 lanes");
    return;
  }
  const Shape *s = &shapes[i->mode];
  float a[ROWS][DEPTH_MAX], b[DEPTH_MAX][COLUMNS], d[4][LANES];
  read_a(w, i, s, a);
  read_b(w, i, s, b);
  for (int k = 0; k < 4; k++) {
    const float *c = src(w, i, 4 + s->a + s->b + k);
    for (int lane = 0; lane < LANES; lane++) {
      int row = lane / 4 + k / 2 * 8, column = lane % 4 * 2 + k % 2;
      float sum = c[lane];
      for (int z = 0; z < s->depth; z++)
        sum += a[row][z] * b[z][column];
      d[k][lane] = sum;
    }
  }
  for (int k = 0; k < 4; k++)
    memcpy(dst(w, i, k), d[k], sizeof d[k]);
}

bool decode_mma(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  const Shape *shape = NULL;
  Str whole = rest;
  if (!take_modifier(&rest, "sync") || !take_modifier(&rest, "aligned"))
    return unknown_modifier(d, s, whole);
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
    if (str_is(rest, shapes[k].name)) {
      shape = &shapes[k];
      i->mode = (uint8_t)k;
    }
  if (!shape) return unknown_modifier(d, s, rest);
  int sizes[4] = {4, shape->a, shape->b, 4};
  if (s->n_op != 4) return decode_error(d, s, "4 operands are needed");
  i->run = ins_mma;
  for (int k = 0; k < 4; k++) {
    int n = s->op[k].kind == OPD_VEC ? s->op[k].n : 1;
    if (n != sizes[k])
      return decode_error(d, s, "%d registers where %d are needed", n,
                          sizes[k]);
    if (!operand_add(d, i, s, &s->op[k], 4)) return false;
  }
  return true;
}

/* ---- ldmatrix ------------------------------------------------------------ */

/* Matrices of 8 rows of 8 values of 16 bits: lane 8m + r has the address of
 * row r of matrix m. Lane l gets values 2t and 2t + 1 of row g, or of column g
 * when transposed. */
static void ins_ldmatrix(Warp *w, const Ins *i) {
  if (!lanes_meet(w, i, UINT32_MAX)) return;
  if (w->active != UINT32_MAX) {
    fault(w, i, -1, CUDA_ERROR_LAUNCH_FAILED, "needs all 32 lanes");
    return;
  }
  int n = i->vec;
  uint16_t rows[4 * 8][8];
  uint64_t at[LANES];
  get_wide(w, i, n, false, at);
  for (int r = 0; r < 8 * n && !w->stop; r++)
    memcpy(rows[r],
           touch(w, i, r, SP_SHARED, at[r] + (uint64_t)i->imm, 16, TOUCH_LOAD),
           16);
  for (int m = 0; m < n && !w->stop; m++) {
    uint32_t *d = dst(w, i, m);
    for (int lane = 0; lane < LANES; lane++) {
      int g = lane / 4, t = lane % 4 * 2;
      uint16_t low = i->flag ? rows[8 * m + t][g] : rows[8 * m + g][t];
      uint16_t high = i->flag ? rows[8 * m + t + 1][g] : rows[8 * m + g][t + 1];
      d[lane] = low | (uint32_t)high << 16;
    }
  }
}

bool decode_ldmatrix(Decoder *d, Ins *i, const Stmt *s, Str rest) {
  Str whole = rest;
  if (!take_modifier(&rest, "sync") || !take_modifier(&rest, "aligned") ||
      !take_modifier(&rest, "m8n8"))
    return unknown_modifier(d, s, whole);
  i->vec = take_modifier(&rest, "x1")   ? 1
           : take_modifier(&rest, "x2") ? 2
           : take_modifier(&rest, "x4") ? 4
                                        : 0;
  i->flag = take_modifier(&rest, "trans");
  if (!take_modifier(&rest, "shared::cta")) take_modifier(&rest, "shared");
  if (!i->vec || !str_is(rest, "b16")) return unknown_modifier(d, s, whole);
  if (s->n_op != 2) return decode_error(d, s, "2 operands are needed");
  int n = s->op[0].kind == OPD_VEC ? s->op[0].n : 1;
  if (n != i->vec)
    return decode_error(d, s, "%d registers where %d are needed", n, i->vec);
  i->run = ins_ldmatrix;
  i->space = SP_SHARED;
  return operand_add(d, i, s, &s->op[0], 4) &&
         operand_address(d, i, s, &s->op[1]);
}
