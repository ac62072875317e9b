/* cuda_rows.c: the runtime's kernels for exchanges, as PTX: they put together
 * what goes to each rank, and lay out what has come. NCCL takes no counts that
 * only the GPU knows, so rows of experts go in messages of a fixed width, room
 * for `width` rows for every rank:
 *
 *   own_pieces   a tensor cut into pieces of many runs <-> piece after piece
 *   own_tokens   rows where the tokens are <-> a message for each rank
 *   own_experts  a message of each rank <-> rows where the experts are
 *   own_most     how many rows the longest message has
 *   own_mark     a number, for whoever wants to know how far things are
 *
 * Each of the first three copies either way, `back` says which. Rows beyond
 * the width or the room are not copied, and `over` has how many there were.
 * They copy words of 1, 2, 4 or 8 bytes: what divides a run. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

enum { THREADS = 128, WORDS_A_THREAD = 8, MOST_PORTIONS = 256 };

#define P(name) ".param .u64 " name
#define REGS                                               \
  "{\n  .reg .pred %p<4>;\n  .reg .b32 %r<8>;\n"           \
  "  .reg .b64 %rd<32>;\n"
#define PARAM(to, name) "  ld.param.u64 " to ", [" name "];\n"
/* to = the i32 number `at` of those at `base`; %rd31 goes. */
#define NUMBER(to, base, at)              \
  "  shl.b64 %rd31, " at ", 2;\n"         \
  "  add.u64 %rd31, " base ", %rd31;\n"   \
  "  ld.global.s32 %r7, [%rd31];\n"       \
  "  cvt.s64.s32 " to ", %r7;\n"
#define SPECIAL(to, from) \
  "  mov.u32 %r0, " from ";\n  cvt.u64.u32 " to ", %r0;\n"

/* Copies words %rd2 from %rd0 to %rd1, or, where `back`, the other way; this
 * thread those from %rd3 on, each %rd4 further. */
#define COPY(T, reg, shift)              \
  PARAM("%rd5", "back")                  \
  "  setp.ne.u64 %p3, %rd5, 0;\n"        \
  "  selp.b64 %rd6, %rd1, %rd0, %p3;\n"  \
  "  selp.b64 %rd7, %rd0, %rd1, %p3;\n"  \
  "next:\n"                              \
  "  setp.ge.s64 %p1, %rd3, %rd2;\n"     \
  "  @%p1 bra done;\n"                   \
  "  shl.b64 %rd5, %rd3, " shift ";\n"   \
  "  add.u64 %rd8, %rd6, %rd5;\n"        \
  "  add.u64 %rd9, %rd7, %rd5;\n"        \
  "  ld.global." T " " reg ", [%rd8];\n" \
  "  st.global." T " [%rd9], " reg ";\n" \
  "  add.u64 %rd3, %rd3, %rd4;\n"        \
  "  bra next;\n"                        \
  "done:\n  ret;\n}\n"

/* %rd3, %rd4 of COPY, for the portions of a block's words: grid's y. */
#define PORTION                                 \
  SPECIAL("%rd10", "%ctaid.y")                  \
  SPECIAL("%rd11", "%nctaid.y")                 \
  SPECIAL("%rd12", "%ntid.x")                   \
  SPECIAL("%rd13", "%tid.x")                    \
  "  mad.lo.u64 %rd3, %rd10, %rd12, %rd13;\n"   \
  "  mul.lo.u64 %rd4, %rd11, %rd12;\n"

/* n = %rd21 rows, of which there is no room for those behind %rd22: notes the
 * number that there is (%rd23) in word `slot` of `over`. Then the words:
 * %rd2. */
#define CUT(slot, fits)                      \
  "  setp.le.s64 %p0, %rd21, %rd22;\n"       \
  "  @%p0 bra " fits ";\n"                   \
  "  max.s64 %rd21, %rd22, 0;\n"             \
  PARAM("%rd24", "over")                     \
  "  cvt.u32.u64 %r1, %rd23;\n"              \
  "  st.volatile.global.u32 [%rd24+" slot "], %r1;\n" \
  fits ":\n"

/* One thread of the grid a word of the packed side. */
#define PIECES(T, reg, shift)                                              \
  ".visible .entry own_pieces_" shift "(" P("whole") ", " P("packed") ", " \
  P("rows") ", " P("run") ", " P("parts") ", " P("back") ")\n" REGS        \
  PARAM("%rd20", "whole") PARAM("%rd21", "packed") PARAM("%rd22", "rows")  \
  PARAM("%rd23", "run") PARAM("%rd24", "parts")                            \
  SPECIAL("%rd10", "%ctaid.x") /* row of a piece */                        \
  "  rem.u64 %rd11, %rd10, %rd22;\n  div.u64 %rd12, %rd10, %rd22;\n"       \
  "  mad.lo.u64 %rd13, %rd11, %rd24, %rd12;\n"                             \
  "  mul.lo.u64 %rd13, %rd13, %rd23;\n  shl.b64 %rd13, %rd13, " shift      \
  ";\n  add.u64 %rd0, %rd20, %rd13;\n"                                     \
  "  mul.lo.u64 %rd14, %rd10, %rd23;\n  shl.b64 %rd14, %rd14, " shift      \
  ";\n  add.u64 %rd1, %rd21, %rd14;\n"                                     \
  "  mov.u64 %rd2, %rd23;\n" PORTION COPY(T, reg, shift)

/* A block an expert: %rd14. */
#define TOKENS(T, reg, shift)                                              \
  ".visible .entry own_tokens_" shift "(" P("rows") ", " P("stage") ", " \
  P("mine") ", " P("some") ", " P("seats") ", " P("experts") ", "          \
  P("run") ", " P("width") ", " P("over") ", " P("back") ")\n" REGS        \
  PARAM("%rd15", "mine") PARAM("%rd16", "some") PARAM("%rd17", "seats")    \
  SPECIAL("%rd14", "%ctaid.x")                                             \
  "  shl.b64 %rd18, %rd14, 1;\n" NUMBER("%rd19", "%rd17", "%rd18")         \
  "  add.u64 %rd18, %rd18, 1;\n" NUMBER("%rd20", "%rd17", "%rd18")         \
  /* place %rd19, its first expert %rd20, rows from %rd25, before %rd26 */ \
  "  setp.ne.u64 %p2, %rd16, 0;\n  @%p2 bra few;\n"                        \
  NUMBER("%rd25", "%rd15", "%rd14")                                        \
  "  add.u64 %rd27, %rd14, 1;\n" NUMBER("%rd21", "%rd15", "%rd27")         \
  "  sub.s64 %rd21, %rd21, %rd25;\n" NUMBER("%rd26", "%rd15", "%rd20")     \
  "  sub.s64 %rd26, %rd25, %rd26;\n  bra known;\n"                         \
  "few:\n" NUMBER("%rd25", "%rd16", "%rd14") PARAM("%rd27", "experts")     \
  "  add.u64 %rd28, %rd27, %rd14;\n" NUMBER("%rd21", "%rd16", "%rd28")     \
  "  mov.u64 %rd26, 0;\n"                                                  \
  "before:\n  setp.ge.s64 %p1, %rd20, %rd14;\n  @%p1 bra known;\n"         \
  "  add.u64 %rd28, %rd27, %rd20;\n" NUMBER("%rd29", "%rd16", "%rd28")     \
  "  add.s64 %rd26, %rd26, %rd29;\n  add.u64 %rd20, %rd20, 1;\n"           \
  "  bra before;\n"                                                        \
  "known:\n" PARAM("%rd27", "width") PARAM("%rd28", "run")                 \
  "  sub.s64 %rd22, %rd27, %rd26;\n  add.s64 %rd23, %rd26, %rd21;\n"       \
  CUT("0", "fits")                                                     \
  PARAM("%rd0", "rows") PARAM("%rd1", "stage")                             \
  "  mul.lo.u64 %rd25, %rd25, %rd28;\n  shl.b64 %rd25, %rd25, " shift      \
  ";\n  add.u64 %rd0, %rd0, %rd25;\n"                                      \
  "  mad.lo.u64 %rd26, %rd19, %rd27, %rd26;\n"                             \
  "  mul.lo.u64 %rd26, %rd26, %rd28;\n  shl.b64 %rd26, %rd26, " shift      \
  ";\n  add.u64 %rd1, %rd1, %rd26;\n"                                      \
  "  mul.lo.u64 %rd2, %rd21, %rd28;\n" PORTION COPY(T, reg, shift)

/* A block an expert of a rank: place * experts + expert. */
#define EXPERTS(T, reg, shift)                                             \
  ".visible .entry own_experts_" shift "(" P("rows") ", " P("stage") ", " \
  P("got") ", " P("theirs") ", " P("experts") ", " P("run") ", "           \
  P("width") ", " P("room") ", " P("over") ", " P("back") ")\n" REGS       \
  PARAM("%rd15", "got") PARAM("%rd16", "theirs") PARAM("%rd17", "experts") \
  SPECIAL("%rd14", "%ctaid.x")                                             \
  "  div.u64 %rd19, %rd14, %rd17;\n  rem.u64 %rd20, %rd14, %rd17;\n"       \
  NUMBER("%rd21", "%rd15", "%rd14")                                        \
  /* rows of this rank's experts before: %rd26 */                          \
  "  sub.u64 %rd27, %rd14, %rd20;\n  mov.u64 %rd26, 0;\n"                  \
  "before:\n  setp.ge.u64 %p1, %rd27, %rd14;\n  @%p1 bra there;\n"         \
  NUMBER("%rd28", "%rd15", "%rd27")                                        \
  "  add.s64 %rd26, %rd26, %rd28;\n  add.u64 %rd27, %rd27, 1;\n"           \
  "  bra before;\n"                                                        \
  /* and of this expert of ranks before: from %rd25 on */                  \
  "there:\n" NUMBER("%rd25", "%rd16", "%rd20")                             \
  "  mov.u64 %rd27, %rd20;\n"                                              \
  "ranks:\n  setp.ge.u64 %p1, %rd27, %rd14;\n  @%p1 bra known;\n"          \
  NUMBER("%rd28", "%rd15", "%rd27")                                        \
  "  add.s64 %rd25, %rd25, %rd28;\n  add.u64 %rd27, %rd27, %rd17;\n"       \
  "  bra ranks;\n"                                                         \
  "known:\n" PARAM("%rd27", "width") PARAM("%rd28", "run")                 \
  "  sub.s64 %rd22, %rd27, %rd26;\n  add.s64 %rd23, %rd26, %rd21;\n"       \
  CUT("0", "fits") PARAM("%rd22", "room")                              \
  "  add.s64 %rd23, %rd25, %rd21;\n  sub.s64 %rd22, %rd22, %rd25;\n"       \
  CUT("4", "holds")                                                    \
  PARAM("%rd0", "rows") PARAM("%rd1", "stage")                             \
  "  mul.lo.u64 %rd25, %rd25, %rd28;\n  shl.b64 %rd25, %rd25, " shift      \
  ";\n  add.u64 %rd0, %rd0, %rd25;\n"                                      \
  "  mad.lo.u64 %rd26, %rd19, %rd27, %rd26;\n"                             \
  "  mul.lo.u64 %rd26, %rd26, %rd28;\n  shl.b64 %rd26, %rd26, " shift      \
  ";\n  add.u64 %rd1, %rd1, %rd26;\n"                                      \
  "  mul.lo.u64 %rd2, %rd21, %rd28;\n" PORTION COPY(T, reg, shift)

/* One thread: of each place the rows of its experts, [first, end) in
 * `bounds`. */
#define MOST                                                               \
  ".visible .entry own_most(" P("mine") ", " P("some") ", " P("bounds")    \
  ", " P("experts") ", " P("places") ", " P("out") ")\n" REGS              \
  PARAM("%rd15", "mine") PARAM("%rd16", "some") PARAM("%rd17", "bounds")   \
  PARAM("%rd18", "experts") PARAM("%rd19", "places")                       \
  "  setp.ne.u64 %p2, %rd16, 0;\n"                                         \
  "  mov.u64 %rd0, 0;\n  mov.u64 %rd1, 0;\n" /* the place, the most */     \
  "place:\n  setp.ge.u64 %p0, %rd0, %rd19;\n  @%p0 bra done;\n"           \
  "  shl.b64 %rd2, %rd0, 1;\n" NUMBER("%rd3", "%rd17", "%rd2")             \
  "  add.u64 %rd2, %rd2, 1;\n" NUMBER("%rd4", "%rd17", "%rd2")             \
  "  @%p2 bra few;\n" NUMBER("%rd5", "%rd15", "%rd3")                      \
  NUMBER("%rd6", "%rd15", "%rd4")                                          \
  "  sub.s64 %rd6, %rd6, %rd5;\n  bra known;\n"                            \
  "few:\n  mov.u64 %rd6, 0;\n"                                            \
  "expert:\n  setp.ge.u64 %p1, %rd3, %rd4;\n  @%p1 bra known;\n"          \
  "  add.u64 %rd7, %rd18, %rd3;\n" NUMBER("%rd8", "%rd16", "%rd7")         \
  "  add.s64 %rd6, %rd6, %rd8;\n  add.u64 %rd3, %rd3, 1;\n"                \
  "  bra expert;\n"                                                        \
  "known:\n  max.s64 %rd1, %rd1, %rd6;\n  add.u64 %rd0, %rd0, 1;\n"       \
  "  bra place;\n"                                                         \
  "done:\n" PARAM("%rd2", "out")                                           \
  "  cvt.u32.u64 %r1, %rd1;\n  st.global.u32 [%rd2], %r1;\n  ret;\n}\n"

#define MARK                                                               \
  ".visible .entry own_mark(" P("to") ", " P("number") ")\n" REGS          \
  PARAM("%rd0", "to") PARAM("%rd1", "number")                              \
  "  cvt.u32.u64 %r1, %rd1;\n"                                             \
  "  st.volatile.global.u32 [%rd0], %r1;\n  ret;\n}\n"

/* By words of 1, 2, 4 and 8 bytes. */
#define SIZES(KERNEL)                                  \
  KERNEL("u8", "%r2", "0"), KERNEL("u16", "%r2", "1"), \
  KERNEL("u32", "%r2", "2"), KERNEL("u64", "%rd30", "3")
static const char *const texts[] = {
    ".version 7.0\n.target sm_80\n.address_size 64\n",
    SIZES(PIECES), SIZES(TOKENS), SIZES(EXPERTS), MOST, MARK};

/* ORDER ROWS: gpu.h */
static const struct {
  const char *name;
  bool sized;
} kernels[RT_ROWS_KERNELS] = {{"own_pieces", true},
                              {"own_tokens", true},
                              {"own_experts", true},
                              {"own_most", false},
                              {"own_mark", false}};

static MoertStatus load(RtCuda *c) {
  size_t bytes = 1;
  char *all, *at;
  for (size_t i = 0; i < COUNT_OF(texts); i++)
    bytes += strlen(texts[i]);
  RT_TRY(RT_NEW(&all, bytes));
  at = all;
  for (size_t i = 0; i < COUNT_OF(texts); i++)
    at = stpcpy(at, texts[i]);
  MoertStatus st = rt_cuda_module(c, all, &c->rows_module);
  free(all);
  return st;
}

/* While a stream is captured nothing can be loaded. */
MoertStatus rt_cuda_rows_open(RtCuda *c) {
  char name[32];
  RT_TRY(load(c));
  for (int k = 0; k < RT_ROWS_KERNELS; k++)
    for (int w = 0; w < (kernels[k].sized ? RT_WORDS : 1); w++) {
      if (kernels[k].sized)
        snprintf(name, sizeof name, "%s_%d", kernels[k].name, w);
      else
        snprintf(name, sizeof name, "%s", kernels[k].name);
      RT_TRY(RT_CU(c, cuModuleGetFunction(&c->rows_kernels[k][w],
                                          c->rows_module, name)));
    }
  return MOERT_OK;
}

void rt_cuda_rows_free(RtCuda *c) {
  if (c->rows_module) c->cu.cuModuleUnload(c->rows_module);
}

/* ---- launches ------------------------------------------------------------ */

typedef struct Grid {
  unsigned x, y, threads;
} Grid;

/* In the stream of exchanges. */
static MoertStatus launch(RtCuda *c, RtRowsKernel k, int word, Grid g,
                          uint64_t *values, int n) {
  enum { MOST_VALUES = 10 };
  void *params[MOST_VALUES];
  if (g.x == 0) return MOERT_OK;
  for (int i = 0; i < n; i++)
    params[i] = &values[i];
  return RT_CU(c, cuLaunchKernel(c->rows_kernels[k][word], g.x, g.y, 1,
                                 g.threads, 1, 1, 0, c->wire_stream, params,
                                 NULL));
}

/* Of `blocks` things of up to `words` words each. */
static Grid grid(int64_t blocks, int64_t words) {
  int64_t each = THREADS * WORDS_A_THREAD, n = (words + each - 1) / each;
  if (n < 1) n = 1;
  if (n > MOST_PORTIONS) n = MOST_PORTIONS;
  return (Grid){(unsigned)blocks, (unsigned)n, THREADS};
}

/* The longest word that all of these are multiples of. */
static int word_of(int64_t bytes, const void *a, const void *b) {
  uint64_t bits = (uint64_t)bytes | rt_cu_address(a) | rt_cu_address(b);
  int shift = RT_WORDS - 1;
  while (bits & (((uint64_t)1 << shift) - 1))
    shift--;
  return shift;
}

MoertStatus rt_cuda_move_pieces(RtCuda *c, char *whole, char *packed,
                                int64_t rows, int64_t run_bytes, int parts,
                                bool back) {
  int w = word_of(run_bytes, whole, packed);
  int64_t run = run_bytes >> w;
  uint64_t values[] = {rt_cu_address(whole), rt_cu_address(packed),
                       (uint64_t)rows, (uint64_t)run, (uint64_t)parts, back};
  return launch(c, RT_PIECES, w,
                grid(rows * parts, run), values, (int)COUNT_OF(values));
}

MoertStatus rt_cuda_move_tokens(RtCuda *c, const RtRows *r, char *rows,
                                bool back) {
  int w = word_of(r->row_bytes, rows, r->stage);
  int64_t run = r->row_bytes >> w;
  uint64_t values[] = {rt_cu_address(rows),    rt_cu_address(r->stage),
                       rt_cu_address(r->mine), rt_cu_address(r->some),
                       rt_cu_address(r->seats), (uint64_t)r->experts,
                       (uint64_t)run,          (uint64_t)r->width,
                       rt_cu_address(r->over), back};
  return launch(c, RT_TOKENS, w,
                grid(r->experts, r->width * run), values,
                (int)COUNT_OF(values));
}

MoertStatus rt_cuda_move_experts(RtCuda *c, const RtRows *r, char *rows,
                                 int64_t room, bool back) {
  int w = word_of(r->row_bytes, rows, r->stage);
  int64_t run = r->row_bytes >> w;
  uint64_t values[] = {rt_cu_address(rows),   rt_cu_address(r->stage),
                       rt_cu_address(r->got), rt_cu_address(r->theirs),
                       (uint64_t)r->own,      (uint64_t)run,
                       (uint64_t)r->width,    (uint64_t)room,
                       rt_cu_address(r->over), back};
  return launch(c, RT_EXPERTS, w,
                grid(r->own * r->places, r->width * run), values,
                (int)COUNT_OF(values));
}

MoertStatus rt_cuda_find_most(RtCuda *c, const RtRows *r, char *out) {
  uint64_t values[] = {rt_cu_address(r->mine),   rt_cu_address(r->some),
                       rt_cu_address(r->bounds), (uint64_t)r->experts,
                       (uint64_t)r->places,      rt_cu_address(out)};
  return launch(c, RT_MOST, 0, (Grid){1, 1, 1}, values,
                (int)COUNT_OF(values));
}

MoertStatus rt_cuda_mark(RtCuda *c, char *to, int number) {
  uint64_t values[] = {rt_cu_address(to), (uint64_t)number};
  return launch(c, RT_MARK, 0, (Grid){1, 1, 1}, values,
                (int)COUNT_OF(values));
}
