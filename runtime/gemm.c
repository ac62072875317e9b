/* gemm.c: matrix products by oneDNN, or by plain loops.
 *
 * oneDNN's primitives cost a millisecond to make and can hold scratch memory of
 * their own. So each different shape is made once, when a session begins, for
 * the team's number of threads, with scratch memory given by the session. What
 * oneDNN lacks (f64, strides that only its reference code takes) runs through
 * plain loops: each element sums over k in order, whatever the number of
 * threads.
 *
 * Where the machine has no fast product in bf16, the operands are widened into
 * scratch memory, as they lie, and multiplied in f32.
 *
 * A product of long rows is made by blocks of columns, unless its depth is
 * small and its left operand lies in rows: oneDNN 2.6 is slower at all of them
 * at once (512 x 2048 x 10000 in f32, 4 threads: 430 to 490 GFLOP/s, by blocks
 * 640 to 670; with 512 in place of 2048, 680 either way, and 570 or 650 where
 * the left operand lies in columns). */
#include "rt.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

typedef void OwnGemm(const MoertGemm *g, void *const *args, int64_t row_lo,
                     int64_t row_hi);

struct RtGemm {
  MoertGemm shape;
  dnnl_primitive_t primitive; /* NULL: `own` */
  dnnl_memory_t memory[4];    /* a, b, c, scratchpad */
  int64_t scratchpad_bytes; /* of the primitive or the blocks */
  OwnGemm *own;
  RtGemm *wide; /* instead: the same in f32, on widened operands */
  RtGemm *block, *rest; /* instead: of so many columns; what is left, or NULL */
};

/* ---- plain loops --------------------------------------------------------- */

/* One row of c over `width` columns, kept in registers or the first cache. */
enum { OWN_COLUMNS = 64 };

/* Rows [row_lo, row_hi) of all batches: row = batch * m + i. */
#define OWN_GEMM(T)                                                          \
  static void own_##T(const MoertGemm *g, void *const *args, int64_t row_lo, \
                      int64_t row_hi) {                                      \
    const int64_t *as = g->a_stride, *bs = g->b_stride, *cs = g->c_stride;   \
    for (int64_t row = row_lo; row < row_hi; row++) {                        \
      int64_t batch = row / g->m, i = row % g->m;                            \
      const T *a = (const T *)args[0] + batch * as[0] + i * as[1];           \
      T *c = (T *)args[2] + batch * cs[0] + i * cs[1];                       \
      for (int64_t j0 = 0; j0 < g->n; j0 += OWN_COLUMNS) {                   \
        const T *b = (const T *)args[1] + batch * bs[0] + j0 * bs[2];        \
        int64_t width = g->n - j0 < OWN_COLUMNS ? g->n - j0 : OWN_COLUMNS;   \
        T sum[OWN_COLUMNS] = {0};                                            \
        for (int64_t k = 0; k < g->k; k++)                                   \
          for (int64_t j = 0; j < width; j++)                                \
            sum[j] += a[k * as[2]] * b[k * bs[1] + j * bs[2]];               \
        for (int64_t j = 0; j < width; j++) {                                \
          T *to = &c[(j0 + j) * cs[2]];                                      \
          *to = g->accumulate ? *to + sum[j] : sum[j];                       \
        }                                                                    \
      }                                                                      \
    }                                                                        \
  }
OWN_GEMM(float)
OWN_GEMM(double)

static OwnGemm *const own_gemm[MOERT_DTYPE_COUNT] = {
    [MOERT_f32] = own_float, [MOERT_f64] = own_double};

static void run_own(const RtGemm *g, void *const *args, int threads) {
  int64_t rows = g->shape.batch * g->shape.m;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; row++)
    g->own(&g->shape, args, row, row + 1);
}

/* ---- oneDNN -------------------------------------------------------------- */

static MoertStatus start_engine(RtGemms *all) {
  if (all->engine) return MOERT_OK;
  dnnl_engine_t engine;
  RT_TRY(RT_DNNL(dnnl_engine_create(&engine, dnnl_cpu, 0)));
  all->engine = engine;
  dnnl_stream_t stream;
  RT_TRY(
      RT_DNNL(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags)));
  all->stream = stream;
  return MOERT_OK;
}

/* A matrix of [batch,] rows, columns. A stride of 0 over the batch repeats: a
 * batch dim of 1. oneDNN wants strides that could be real where a dim is 1. */
static MoertStatus matrix(const MoertGemm *g, int dtype, const int64_t *stride,
                          int64_t rows, int64_t columns,
                          dnnl_memory_desc_t *out) {
  dnnl_dims_t dims = {g->batch, rows, columns}, strides;
  int first = g->batch == 1; /* without the batch dim */
  for (int i = 0; i < 3; i++)
    strides[i] = stride[i];
  if (strides[0] == 0) dims[0] = 1, strides[0] = rows * columns;
  if (columns == 1) strides[2] = 1;
  if (rows == 1) strides[1] = columns * strides[2];
  return RT_DNNL(dnnl_memory_desc_init_by_strides(
      out, 3 - first, dims + first, rt_dtype[dtype].dnnl, strides + first));
}

static MoertStatus make_attributes(const MoertGemm *g,
                                   dnnl_primitive_attr_t *out) {
  RT_TRY(RT_DNNL(dnnl_primitive_attr_create(out)));
  RT_TRY(RT_DNNL(dnnl_primitive_attr_set_scratchpad_mode(
      *out, dnnl_scratchpad_mode_user)));
  if (!g->accumulate) return MOERT_OK;
  dnnl_post_ops_t ops;
  RT_TRY(RT_DNNL(dnnl_post_ops_create(&ops)));
  MoertStatus st = RT_DNNL(dnnl_post_ops_append_sum(ops, 1));
  if (st == MOERT_OK) st = RT_DNNL(dnnl_primitive_attr_set_post_ops(*out, ops));
  dnnl_post_ops_destroy(ops);
  return st;
}

/* Whether the primitive is oneDNN's slow reference code. */
static bool is_reference(dnnl_primitive_desc_t pd) {
  const char *name = NULL;
  return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) ==
             dnnl_success &&
         strstr(name, "ref");
}

/* The scratchpad is the session's: the same for all, given at each run. */
static MoertStatus make_memories(RtGemms *all, RtGemm *g,
                                 const dnnl_memory_desc_t md[3],
                                 dnnl_primitive_desc_t pd) {
  const dnnl_memory_desc_t *pad =
      dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
  g->scratchpad_bytes = (int64_t)dnnl_memory_desc_get_size(pad);
  if (g->scratchpad_bytes > all->scratchpad_bytes)
    all->scratchpad_bytes = g->scratchpad_bytes;
  for (int i = 0; i < 4; i++)
    RT_TRY(RT_DNNL(dnnl_memory_create(&g->memory[i], i < 3 ? &md[i] : pad,
                                      all->engine, DNNL_MEMORY_NONE)));
  return MOERT_OK;
}

/* Leaves g->primitive NULL where oneDNN has nothing good for the shape. */
static MoertStatus make_primitive(RtGemms *all, RtGemm *g) {
  const MoertGemm *s = &g->shape;
  dnnl_memory_desc_t md[3];
  RT_TRY(matrix(s, s->dtype, s->a_stride, s->m, s->k, &md[0]));
  RT_TRY(matrix(s, s->dtype, s->b_stride, s->k, s->n, &md[1]));
  RT_TRY(matrix(s, s->c_dtype, s->c_stride, s->m, s->n, &md[2]));
  dnnl_matmul_desc_t desc;
  RT_TRY(RT_DNNL(dnnl_matmul_desc_init(&desc, &md[0], &md[1], NULL, &md[2])));
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t pd = NULL;
  MoertStatus st;
  RT_TRYGOTO(make_attributes(s, &attr), st, done);
  RT_TRYGOTO(
      RT_DNNL(dnnl_primitive_desc_create(&pd, &desc, attr, all->engine, NULL)),
      st, done);
  if (is_reference(pd) && (g->own || s->dtype == MOERT_bf16)) goto done;
  RT_TRYGOTO(make_memories(all, g, md, pd), st, done);
  st = RT_DNNL(dnnl_primitive_create(&g->primitive, pd));
done:
  dnnl_primitive_desc_destroy(pd);
  dnnl_primitive_attr_destroy(attr);
  return st;
}

static MoertStatus run_primitive(const RtGemms *all, const RtGemm *g,
                                 void *const *args, void *scratchpad) {
  static const int names[4] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST,
                               DNNL_ARG_SCRATCHPAD};
  dnnl_exec_arg_t exec[4];
  for (int i = 0; i < 4; i++) {
    RT_TRY(RT_DNNL(dnnl_memory_set_data_handle(g->memory[i],
                                               i < 3 ? args[i] : scratchpad)));
    exec[i] = (dnnl_exec_arg_t){names[i], g->memory[i]};
  }
  return RT_DNNL(dnnl_primitive_execute(g->primitive, all->stream, 4, exec));
}

/* ---- widened bf16 ------------------------------------------------------- */

static bool has_fast_bf16(const RtGemms *all) {
  return !all->widens && rt_cpu_has("avx512bf16");
}

/* Elements from the first to the last of a matrix, as it lies. */
static int64_t extent(const MoertGemm *g, const int64_t *stride, int64_t rows,
                      int64_t columns) {
  return (g->batch - 1) * stride[0] + (rows - 1) * stride[1] +
         (columns - 1) * stride[2] + 1;
}

static int64_t extent_of(const MoertGemm *g, int arg) {
  return arg ? extent(g, g->b_stride, g->k, g->n)
             : extent(g, g->a_stride, g->m, g->k);
}

/* Scratch memory of so many widened elements: whole lines. */
static int64_t wide_bytes(int64_t elements) {
  return (elements * (int64_t)sizeof(float) + 63) / 64 * 64;
}

static MoertStatus make_wide(RtGemms *all, RtGemm *g) {
  MoertGemm shape = g->shape;
  shape.dtype = shape.c_dtype;
  RT_TRY(rt_gemm_get(all, &shape, &g->wide));
  int64_t bytes = g->wide->scratchpad_bytes;
  for (int i = 0; i < 2; i++)
    bytes += wide_bytes(extent_of(&g->shape, i));
  if (bytes > all->scratchpad_bytes) all->scratchpad_bytes = bytes;
  return MOERT_OK;
}

/* A bf16 is the upper half of an f32. */
static void widen(uint32_t *to, const uint16_t *from, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++)
    to[i] = (uint32_t)from[i] << 16;
}

static MoertStatus run_wide(RtGemms *all, const RtGemm *g, void *const *args,
                            char *scratchpad, int threads) {
  void *wide[3] = {NULL, NULL, args[2]};
  for (int i = 0; i < 2; i++) {
    int64_t n = extent_of(&g->shape, i);
    wide[i] = scratchpad;
    scratchpad += wide_bytes(n);
    widen(wide[i], args[i], n, threads);
  }
  return rt_gemm_run(all, g->wide, wide, scratchpad, threads);
}

/* ---- blocks of columns --------------------------------------------------- */

enum {
  LONG_ROW = 16384, /* bytes of a row of the result, */
  BLOCK_ROW = 8192, /* and of a block of it */
  SHALLOW = 512     /* depth */
};

static bool wants_blocks(const MoertGemm *g) {
  int64_t row = g->n * (int64_t)rt_dtype[g->c_dtype].bytes;
  bool in_rows = g->k == 1 || g->a_stride[2] == 1;
  return rt_dtype[g->dtype].dnnl != dnnl_data_type_undef && row > LONG_ROW &&
         (g->k > SHALLOW || !in_rows);
}

static MoertStatus make_blocks(RtGemms *all, RtGemm *g) {
  MoertGemm shape = g->shape;
  shape.n = BLOCK_ROW / (int64_t)rt_dtype[shape.c_dtype].bytes;
  RT_TRY(rt_gemm_get(all, &shape, &g->block));
  g->scratchpad_bytes = g->block->scratchpad_bytes;
  shape.n = g->shape.n % shape.n;
  if (!shape.n) return MOERT_OK;
  RT_TRY(rt_gemm_get(all, &shape, &g->rest));
  if (g->rest->scratchpad_bytes > g->scratchpad_bytes)
    g->scratchpad_bytes = g->rest->scratchpad_bytes;
  return MOERT_OK;
}

static MoertStatus run_blocks(RtGemms *all, const RtGemm *g, void *const *args,
                              void *scratchpad, int threads) {
  const MoertGemm *s = &g->shape;
  int64_t step = g->block->shape.n;
  int64_t b = s->b_stride[2] * (int64_t)rt_dtype[s->dtype].bytes;
  int64_t c = s->c_stride[2] * (int64_t)rt_dtype[s->c_dtype].bytes;
  for (int64_t j = 0; j < s->n; j += step) {
    RtGemm *part = s->n - j < step ? g->rest : g->block;
    void *of[3] = {args[0], (char *)args[1] + j * b, (char *)args[2] + j * c};
    RT_TRY(rt_gemm_run(all, part, of, scratchpad, threads));
  }
  return MOERT_OK;
}

/* ---- for the session ----------------------------------------------------- */

static void gemm_free(RtGemm *g) {
  for (int i = 0; i < 4; i++)
    dnnl_memory_destroy(g->memory[i]);
  dnnl_primitive_destroy(g->primitive);
  free(g);
}

static MoertStatus make(RtGemms *all, const MoertGemm *shape, RtGemm **out) {
  RT_TRY(start_engine(all));
  RtGemm *g;
  RT_TRY(RT_NEW(&g, 1));
  g->shape = *shape;
  g->own = own_gemm[shape->dtype];
  bool may_widen = shape->dtype == MOERT_bf16;
  MoertStatus st = MOERT_OK;
  if (may_widen && !has_fast_bf16(all)) {
    st = make_wide(all, g);
  } else if (wants_blocks(shape)) {
    st = make_blocks(all, g);
  } else if (rt_dtype[shape->dtype].dnnl != dnnl_data_type_undef) {
    st = make_primitive(all, g);
    if (st == MOERT_UNSUPPORTED && (g->own || may_widen)) st = MOERT_OK;
    if (st == MOERT_OK && !g->primitive && may_widen) st = make_wide(all, g);
  }
  if (st == MOERT_OK && !g->primitive && !g->own && !g->wide && !g->block)
    st = rt_fail(MOERT_UNSUPPORTED, "no matrix product in %s",
                 rt_dtype[shape->dtype].name);
  if (st == MOERT_OK)
    *out = g;
  else
    gemm_free(g);
  return st;
}

static bool same_shape(const MoertGemm *a, const MoertGemm *b) {
  return a->batch == b->batch && a->m == b->m && a->n == b->n && a->k == b->k &&
         a->dtype == b->dtype && a->c_dtype == b->c_dtype &&
         a->accumulate == b->accumulate &&
         memcmp(a->a_stride, b->a_stride, sizeof a->a_stride) == 0 &&
         memcmp(a->b_stride, b->b_stride, sizeof a->b_stride) == 0 &&
         memcmp(a->c_stride, b->c_stride, sizeof a->c_stride) == 0;
}

MoertStatus rt_gemm_get(RtGemms *all, const MoertGemm *shape, RtGemm **out) {
  *out = NULL;
  for (int i = 0; i < all->n; i++)
    if (same_shape(&all->items[i]->shape, shape)) {
      *out = all->items[i];
      return MOERT_OK;
    }
  RtGemm *made;
  RT_TRY(make(all, shape, &made)); /* may add the one that it widens to */
  RtGemm **more = realloc(all->items, (size_t)(all->n + 1) * sizeof *more);
  if (!more) {
    gemm_free(made);
    return rt_fail(MOERT_NO_MEMORY, "out of memory");
  }
  all->items = more;
  all->items[all->n++] = *out = made;
  return MOERT_OK;
}

MoertStatus rt_gemm_run(RtGemms *all, RtGemm *g, void *const *args,
                        void *scratchpad, int threads) {
  if (g->primitive) return run_primitive(all, g, args, scratchpad);
  if (g->wide) return run_wide(all, g, args, scratchpad, threads);
  if (g->block) return run_blocks(all, g, args, scratchpad, threads);
  run_own(g, args, threads);
  return MOERT_OK;
}

void rt_gemms_free(RtGemms *all) {
  for (int i = 0; i < all->n; i++)
    gemm_free(all->items[i]);
  free(all->items);
  if (all->stream) dnnl_stream_destroy(all->stream);
  if (all->engine) dnnl_engine_destroy(all->engine);
  *all = (RtGemms){0};
}
