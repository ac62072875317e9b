/* stream.c: bytes of tensors as streams of runs, and sums over ranks.
 *
 * What one rank sends another is rarely one piece of memory: every P-th column,
 * the rows of some experts. A stream lists such runs in order; it is read and
 * written in portions of any size. */
#include "rt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- streams ------------------------------------------------------------- */

MoertStatus rt_stream_add(RtStream *s, RtRuns r) {
  if (r.bytes <= 0 || r.count <= 0) return MOERT_OK;
  if (r.stride == r.bytes || r.count == 1)
    r = (RtRuns){r.data, r.bytes * r.count, 1, 0};
  RtRuns *last = s->n ? &s->runs[s->n - 1] : NULL;
  s->total += r.bytes * r.count;
  if (last && last->count == 1 && r.count == 1 &&
      last->data + last->bytes == r.data) {
    last->bytes += r.bytes;
    return MOERT_OK;
  }
  if (s->n == s->cap) {
    int cap = s->cap ? 2 * s->cap : 4;
    RtRuns *more = realloc(s->runs, (size_t)cap * sizeof *more);
    if (!more) return rt_fail(MOERT_NO_MEMORY, "out of memory");
    s->runs = more;
    s->cap = cap;
  }
  s->runs[s->n++] = r;
  return MOERT_OK;
}

MoertStatus rt_stream_add_part(RtStream *s, RtRuns r, int64_t lo, int64_t hi) {
  if (lo >= hi) return MOERT_OK;
  int64_t first = lo / r.bytes, last = (hi - 1) / r.bytes;
  int64_t skip = lo - first * r.bytes;
  char *data = r.data + first * r.stride;
  if (first == last)
    return rt_stream_add(s, (RtRuns){data + skip, hi - lo, 1, 0});
  if (skip) { /* the rest of a run that was begun */
    RT_TRY(rt_stream_add(s, (RtRuns){data + skip, r.bytes - skip, 1, 0}));
    data += r.stride;
    first++;
  }
  int64_t whole = hi / r.bytes - first, rest = hi % r.bytes;
  RT_TRY(rt_stream_add(s, (RtRuns){data, r.bytes, whole, r.stride}));
  return rt_stream_add(s, (RtRuns){data + whole * r.stride, rest, 1, 0});
}

void rt_stream_clear(RtStream *s) {
  s->n = 0;
  s->total = 0;
  rt_stream_rewind(s);
}

void rt_stream_rewind(RtStream *s) {
  s->at = 0;
  s->run = s->byte = 0;
}

int64_t rt_stream_take(RtStream *s, char **out, int64_t limit) {
  if (s->at == s->n) return 0;
  const RtRuns *r = &s->runs[s->at];
  int64_t n = r->bytes - s->byte < limit ? r->bytes - s->byte : limit;
  *out = r->data + s->run * r->stride + s->byte;
  s->byte += n;
  if (s->byte < r->bytes) return n;
  s->byte = 0;
  if (++s->run < r->count) return n;
  s->run = 0;
  s->at++;
  return n;
}

int64_t rt_stream_read(RtStream *s, char *to, int64_t bytes) {
  int64_t done = 0;
  char *from;
  for (int64_t n;
       done < bytes && (n = rt_stream_take(s, &from, bytes - done)); done += n)
    memcpy(to + done, from, (size_t)n);
  return done;
}

int64_t rt_stream_write(RtStream *s, const char *from, int64_t bytes) {
  int64_t done = 0;
  char *to;
  for (int64_t n; done < bytes && (n = rt_stream_take(s, &to, bytes - done));
       done += n)
    memcpy(to, from + done, (size_t)n);
  return done;
}

int64_t rt_stream_copy(RtStream *to, RtStream *from) {
  int64_t done = 0;
  char *p;
  for (int64_t n; (n = rt_stream_take(from, &p, INT64_MAX)); done += n)
    rt_stream_write(to, p, n);
  return done;
}

/* ---- combining ----------------------------------------------------------- */

enum { BLOCK = 512 }; /* elements at a time, in doubles */

/* acc = the first piece, then acc combined with each of the others; rounded
 * when stored. One function a dtype: the loops are what takes time. */
#define COMBINE(name, T, LOAD, STORE)                                         \
  static void combine_##name(MoertCombine op, char *to, const char *from,     \
                             int64_t stride, int n, int64_t count) {          \
    double acc[BLOCK];                                                        \
    for (int p = 0; p < n; p++) {                                             \
      const T *x = (const T *)(const void *)(from + p * stride);              \
      if (p == 0)                                                             \
        for (int64_t i = 0; i < count; i++)                                   \
          acc[i] = LOAD(x[i]);                                                \
      else if (op == MOERT_SUM)                                               \
        for (int64_t i = 0; i < count; i++)                                   \
          acc[i] += LOAD(x[i]);                                               \
      else if (op == MOERT_MAX)                                               \
        for (int64_t i = 0; i < count; i++)                                   \
          acc[i] = acc[i] > LOAD(x[i]) ? acc[i] : LOAD(x[i]);                 \
      else                                                                    \
        for (int64_t i = 0; i < count; i++)                                   \
          acc[i] = acc[i] < LOAD(x[i]) ? acc[i] : LOAD(x[i]);                 \
    }                                                                         \
    T *out = (T *)(void *)to;                                                 \
    for (int64_t i = 0; i < count; i++)                                       \
      out[i] = STORE(acc[i]);                                                 \
  }

#define AS_DOUBLE(x) ((double)(x))
#define AS_BOOL(x) ((x) != 0)
#define AS_U32(x) ((uint32_t)(int64_t)(x))
#define AS_I32(x) ((int32_t)(uint32_t)(int64_t)(x))
#define AS_F32(x) ((float)(x))
#define AS_F64(x) (x)

static double load_bf16(uint16_t upper) {
  return rt_load(MOERT_bf16, &upper);
}
/* Nearest, ties to even, as if there were no f32 on the way: what is cut off
 * there leaves its trace in the last bit. */
static uint16_t store_bf16(double x) {
  float f = (float)x;
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
  if ((double)f != x && fabs((double)f) > fabs(x)) bits--;
  if ((double)f != x) bits |= 1;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

COMBINE(bool, uint8_t, AS_DOUBLE, AS_BOOL)
COMBINE(i32, int32_t, AS_DOUBLE, AS_I32)
COMBINE(u32, uint32_t, AS_DOUBLE, AS_U32)
COMBINE(bf16, uint16_t, load_bf16, store_bf16)
COMBINE(f32, float, AS_DOUBLE, AS_F32)
COMBINE(f64, double, AS_DOUBLE, AS_F64)

void rt_combine(int dtype, MoertCombine op, char *to, const char *pieces,
                int64_t stride, int n, int64_t elements) {
  static void (*const functions[])(MoertCombine, char *, const char *, int64_t,
                                   int, int64_t) = {
#define DT(name, ...) [MOERT_##name] = combine_##name,
#include "dtypes.def"
#undef DT
  };
  int64_t bytes = rt_dtype[dtype].bytes;
  for (int64_t i = 0; i < elements; i += BLOCK) {
    int64_t count = elements - i < BLOCK ? elements - i : BLOCK;
    functions[dtype](op, to + i * bytes, pieces + i * bytes, stride, n, count);
  }
}
