/* build.c: compiled code against the interpreter, launch by launch:
 * contractions of every form, routing, arithmetic of bf16, planned memory. */
#include <stdlib.h>
#include <string.h>

#include "../../runtime/rt.h"
#include "build.h"

static Module *read_text(Ctx *cx, const char *text) {
  uint32_t file = source_add(cx, "test.ir", text, strlen(text));
  return ir_read(cx, file);
}

/* ---- products ----------------------------------------------------------- */

/* A map, and a size for each of its letters in order of appearance. */
typedef struct Product {
  const char *map;
  int sizes[8];
} Product;

static void add_type(Buf *b, const char *letters, const char *all,
                     const int *sizes, const char *dtype) {
  buf_fmt(b, "%s[", dtype);
  for (const char *p = letters; *p; p++)
    buf_fmt(b, "%s%d", p == letters ? "" : ", ", sizes[strchr(all, *p) - all]);
  buf_add(b, "]");
}

static void check_product(const Product *p, const char *dtype,
                          const char *cpu) {
  IndexMap m;
  char all[MAX_RANK * 2 + 1] = "", name[128];
  if (!map_parse(p->map, &m)) abort();
  for (const char *c = p->map; *c; c++)
    if (*c != ',' && *c != '-' && *c != '>' && !strchr(all, *c))
      strncat(all, c, 1);
  Buf b = {0};
  Dtype operands;
  if (!dtype_find(dtype, &operands)) abort();
  buf_add(&b, "moec-ir 1\nmesh {dev=1}\nentry @main(%x: ");
  add_type(&b, m.ins[0], all, p->sizes, dtype);
  buf_add(&b, " = input \"x\", %y: ");
  add_type(&b, m.ins[1], all, p->sizes, dtype);
  buf_fmt(&b, " = input \"y\") {\n  %%z = contract %%x, %%y {map=\"%s\"} : ",
          p->map);
  add_type(&b, m.out, all, p->sizes,
           dtype_info[dtype_info[operands].sums].name);
  buf_add(&b, "\n  return report \"z\" = %z\n}\n");
  snprintf(name, sizeof name, "build product %s %s %s", p->map, dtype, cpu);
  Ctx cx = {0};
  Module *module = read_text(&cx, b.data);
  if (module && !run_passes(module, "schedule", 2, DT_f32)) module = NULL;
  check(&cx, name, module, cpu, 7, 1e-4);
  buf_free(&b);
}

static void products(const char *cpu) {
  static const Product all[] = {
      {"mk,kn->mn", {33, 70, 45}},
      {"mk,nk->mn", {5, 300, 64}},
      {"km,kn->mn", {40, 13, 97}},
      {"bmk,bkn->bmn", {3, 17, 29, 31}},
      {"km,kn->nm", {19, 50, 3}},
      {"abk,kcd->abcd", {2, 3, 4, 5, 6}},
      {"bad,bcd->abc", {4, 3, 7, 5}},
      {"mk,k->m", {9, 100}},
      {"k,k->", {77}},
      {"m,n->mn", {7, 40}},
      {"xayb,cadb->xcyd", {2, 3, 2, 5, 4, 3}},
      {"bad,dgn->abgn", {5, 70, 33, 4, 9}},
      {"bad,abgn->dgn", {6, 5, 33, 4, 9}},
      {"bad,abgn->dgn", {3, 300, 7, 2, 40}},
      {"abgn,dgn->bad", {7, 30, 4, 9, 65}},
      {"abm,abgn->mgn", {4, 3, 70, 2, 9}},
      {"xad,dgn->axng", {3, 4, 40, 5, 6}},
      {"mk,kn->mn", {1, 1, 1}},
      {"mk,kn->mn", {1, 600, 1}},
      {"mk,kn->mn", {200, 5, 300}},
      {"mk,kn->mn", {2064, 1, 2080}}, /* a result that caches do not keep */
  };
  for (size_t i = 0; i < COUNT_OF(all); i++) {
    check_product(&all[i], "f32", cpu);
    check_product(&all[i], "f64", cpu);
    check_product(&all[i], "bf16", cpu);
  }
}

/* ---- experts ------------------------------------------------------------ */

/* Letters behind a $ stand for the sizes of an Experts, F for the dtype, R for
 * T * K, O for N + 1. */
static const char experts_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%x: $F[$T, $D] = input \"x\", %ids: i32[$T, $K] ="
    " input \"ids\", %w: $F[$N, $D, $H] = input \"w\","
    " %x3: $F[$T, $K, $H] = input \"x3\") {\n"
    "  %o, %slot, %src = route %ids {experts=$N} : i32[$O],"
    " i32[$T, $K], i32[$R]\n"
    "  %r = fused %x, %src, %o {kind=\"map\", rows=0} (%xp: $F[$T,"
    " $D], %srcp: i32[$R], %op: i32[$O]) {\n"
    "    %g = rows_gather %xp, %srcp, %op {choices=$K} : $F[$N,"
    " r<=$R, $D]\n"
    "    yield %g\n"
    "  } : $F[$N, r<=$R, $D]\n"
    "  %h = contract %r, %w {map=\"nrd,ndh->nrh\"} : $F[$N, r<=$R,"
    " $H]\n"
    "  %dr = contract %h, %w {map=\"nrh,ndh->nrd\"} : $F[$N, r<=$R,"
    " $D]\n"
    "  %dw = contract %r, %h {map=\"nrd,nrh->ndh\"} : $F[$N, $D,"
    " $H]\n"
    "  %all = contract %r, %dr {map=\"nrd,nre->de\"} : $F[$D, $D]\n"
    "  %per = contract %r, %dr {map=\"nrd,nrd->nd\"} : $F[$N, $D]\n"
    "  %some = contract %r, %per {map=\"nrd,nd->nr\"} : $F[$N,"
    " r<=$R]\n"
    "  %sum = contract %r, %dr {map=\"nrd,nrd->d\"} : $F[$D]\n"
    "  %sum2 = contract %some, %dr {map=\"nr,nrd->d\"} : $F[$D]\n"
    "  %table = scatter_add %ids, %x3 {rows=$N} : $F[$N, $H]\n"
    "  return report \"w\" = %dw, report \"all\" = %all, report \"sum\" ="
    " %sum, report \"sum2\" = %sum2, report \"per\" = %per,"
    " report \"table\" = %table\n"
    "}\n";

/* Operands of bf16, sums of f32: forward, both gradients. */
static const char pairs_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%x: bf16[$T, $D] = input \"x\", %ids: i32[$T, $K] ="
    " input \"ids\", %w: bf16[$N, $D, $H] = input \"w\","
    " %y: bf16[$T, $H] = input \"y\") {\n"
    "  %o, %slot, %src = route %ids {experts=$N} : i32[$O],"
    " i32[$T, $K], i32[$R]\n"
    "  %r, %q = fused %x, %y, %src, %o {kind=\"map\", rows=0} (%xp:"
    " bf16[$T, $D], %yp: bf16[$T, $H], %srcp: i32[$R], %op: i32[$O]) {\n"
    "    %g = rows_gather %xp, %srcp, %op {choices=$K} : bf16[$N,"
    " r<=$R, $D]\n"
    "    %f = rows_gather %yp, %srcp, %op {choices=$K} : bf16[$N,"
    " r<=$R, $H]\n"
    "    yield %g, %f\n"
    "  } : bf16[$N, r<=$R, $D], bf16[$N, r<=$R, $H]\n"
    "  %h = contract %r, %w {map=\"nrd,ndh->nrh\"} : f32[$N, r<=$R,"
    " $H]\n"
    "  %dr = contract %q, %w {map=\"nrh,ndh->nrd\"} : f32[$N, r<=$R,"
    " $D]\n"
    "  %dw = contract %r, %q {map=\"nrd,nrh->ndh\"} : f32[$N, $D,"
    " $H]\n"
    "  %sum = contract %h, %h {map=\"nrh,nrh->h\"} : f32[$H]\n"
    "  %sum2 = contract %dr, %dr {map=\"nrd,nrd->d\"} : f32[$D]\n"
    "  return report \"dw\" = %dw, report \"sum\" = %sum,"
    " report \"sum2\" = %sum2\n"
    "}\n";

/* Of few rows, a result that caches do not keep. */
static const char large_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%x: $F[$T, $D] = input \"x\", %ids: i32[$T, $K] ="
    " input \"ids\", %y: $F[$T, $H] = input \"y\") {\n"
    "  %o, %slot, %src = route %ids {experts=$N} : i32[$O],"
    " i32[$T, $K], i32[$R]\n"
    "  %r = rows_gather %x, %src, %o {choices=$K} : $F[$N, r<=$R, $D]\n"
    "  %q = rows_gather %y, %src, %o {choices=$K} : $F[$N, r<=$R, $H]\n"
    "  %dw = contract %r, %q {map=\"nrd,nrh->ndh\"} : $S[$N, $D, $H]\n"
    "  return probe \"dw\" = %dw\n"
    "}\n";

/* The same with what is read at its place. */
static const char with_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%x: $F[$T, $D] = input \"x\", %ids: i32[$T, $K] ="
    " input \"ids\", %y: $F[$T, $H] = input \"y\","
    " %s: $S[] = input \"s\", %p: $S[$N, $D, $H] = input \"p\","
    " %m: $S[$N, $D, $H] = input \"m\") {\n"
    "  %o, %slot, %src = route %ids {experts=$N} : i32[$O],"
    " i32[$T, $K], i32[$R]\n"
    "  %r = rows_gather %x, %src, %o {choices=$K} : $F[$N, r<=$R, $D]\n"
    "  %q = rows_gather %y, %src, %o {choices=$K} : $F[$N, r<=$R, $H]\n"
    "  %dw = contract %r, %q {map=\"nrd,nrh->ndh\"} : $S[$N, $D, $H]\n"
    "  %sb = broadcast %s {map=\"->ndh\"} : $S[$N, $D, $H]\n"
    "  %mm = fma %sb, %m, %dw : $S[$N, $D, $H]\n"
    "  %pp = sub %p, %mm : $S[$N, $D, $H]\n"
    "  return probe \"m\" = %mm, probe \"p\" = %pp\n"
    "}\n";

/* A right operand that products cast, forward and back. */
static const char cast_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%x: bf16[$T, $D] = input \"x\", %ids: i32[$T, $K] ="
    " input \"ids\", %w: f32[$N, $D, $H] = input \"w\","
    " %y: bf16[$T, $H] = input \"y\") {\n"
    "  %o, %slot, %src = route %ids {experts=$N} : i32[$O],"
    " i32[$T, $K], i32[$R]\n"
    "  %r = rows_gather %x, %src, %o {choices=$K} : bf16[$N, r<=$R, $D]\n"
    "  %q = rows_gather %y, %src, %o {choices=$K} : bf16[$N, r<=$R, $H]\n"
    "  %wn = cast %w : bf16[$N, $D, $H]\n"
    "  %h = contract %r, %wn {map=\"nrd,ndh->nrh\"} : f32[$N, r<=$R, $H]\n"
    "  %d = contract %q, %wn {map=\"nrh,ndh->nrd\"} : f32[$N, r<=$R, $D]\n"
    "  %hs = rows_combine %h, %slot : f32[$T, $H]\n"
    "  %ds = rows_combine %d, %slot : f32[$T, $D]\n"
    "  return probe \"h\" = %hs, probe \"d\" = %ds\n"
    "}\n";

/* Products with something behind them: S is the dtype of the sums. A mask that
 * another launch reads, values that vary along some dims, columns that are two
 * dims, sums over all of what is and of what is not ragged. */
static const char behind_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%x: $F[$T, $D] = input \"x\", %ids: i32[$T, $K] ="
    " input \"ids\", %w: $F[$N, $D, $H] = input \"w\","
    " %y: $F[$T, $H] = input \"y\", %v: $F[$N, $D, 3, $H] = input \"v\","
    " %b: $S[$H] = input \"b\", %s: $S[] = input \"s\","
    " %p: $S[$N, $H, $D] = input \"p\") {\n"
    "  %o, %slot, %src = route %ids {experts=$N} : i32[$O],"
    " i32[$T, $K], i32[$R]\n"
    "  %r = rows_gather %x, %src, %o {choices=$K} : $F[$N, r<=$R, $D]\n"
    "  %q = rows_gather %y, %src, %o {choices=$K} : $F[$N, r<=$R, $H]\n"
    "  %h = contract %r, %w {map=\"nrd,ndh->nrh\"} : $S[$N, r<=$R, $H]\n"
    "  %zero = const {value=0} : $S[$N, r<=$R, $H]\n"
    "  %k = lt %zero, %h : bool[$N, r<=$R, $H]\n"
    "  %a = select %k, %h, %zero : $S[$N, r<=$R, $H]\n"
    "  %an = cast %a : bf16[$N, r<=$R, $H]\n"
    "  %aw = cast %an : $S[$N, r<=$R, $H]\n"
    "  %as = rows_combine %aw, %slot : $S[$T, $H]\n"
    "  %g = contract %r, %w {map=\"nrd,ndh->nrh\"} : $S[$N, r<=$R, $H]\n"
    "  %gb = broadcast %b {map=\"h->nrh\"} : $S[$N, r<=$R, $H]\n"
    "  %gg = add %g, %gb : $S[$N, r<=$R, $H]\n"
    "  %gk = select %k, %gg, %zero : $S[$N, r<=$R, $H]\n"
    "  %gs = rows_combine %gk, %slot : $S[$T, $H]\n"
    "  %c = contract %r, %v {map=\"nrd,ndgh->nrgh\"}"
    " : $S[$N, r<=$R, 3, $H]\n"
    "  %ci = iota {dim=2} : i32[$N, r<=$R, 3, $H]\n"
    "  %cf = cast %ci : $S[$N, r<=$R, 3, $H]\n"
    "  %cb = broadcast %b {map=\"h->nrgh\"} : $S[$N, r<=$R, 3, $H]\n"
    "  %cc = fma %c, %cf, %cb : $S[$N, r<=$R, 3, $H]\n"
    "  %cs = contract %cc, %cf {map=\"nrgh,nrgh->gh\"} : $S[3, $H]\n"
    "  %dw = contract %r, %q {map=\"nrd,nrh->ndh\"} : $S[$N, $D, $H]\n"
    "  %d2 = mul %dw, %dw : $S[$N, $D, $H]\n"
    "  %dt = reduce_sum %d2 {map=\"abc->\"} : $S[]\n"
    "  %ds = reduce_sum %dw {map=\"abc->\"} : $S[]\n"
    "  %e = contract %q, %w {map=\"nrh,ndh->nrd\"} : $S[$N, r<=$R, $D]\n"
    "  %et = reduce_sum %e {map=\"nrd->\"} : $S[]\n"
    "  %u = contract %q, %r {map=\"nrh,nrd->nhd\"} : $S[$N, $H, $D]\n"
    "  %ub = broadcast %s {map=\"->nhd\"} : $S[$N, $H, $D]\n"
    "  %uu = fma %u, %ub, %p : $S[$N, $H, $D]\n"
    "  return probe \"a\" = %as, probe \"g\" = %gs, probe \"c\" = %cs,"
    " probe \"dw\" = %dw, probe \"dt\" = %dt, probe \"ds\" = %ds,"
    " probe \"et\" = %et, probe \"u\" = %uu\n"
    "}\n";

/* T tokens, K choices, D to H wide, N experts; ids in [0, below). */
typedef struct Experts {
  int t, k, d, n, h, below;
} Experts;

static void add_size(Buf *b, const Experts *e, const char *dtype, char c) {
  switch (c) {
  case 'F': buf_add(b, dtype); break;
  case 'S': buf_add(b, strcmp(dtype, "bf16") ? dtype : "f32"); break;
  case 'T': buf_fmt(b, "%d", e->t); break;
  case 'K': buf_fmt(b, "%d", e->k); break;
  case 'D': buf_fmt(b, "%d", e->d); break;
  case 'N': buf_fmt(b, "%d", e->n); break;
  case 'H': buf_fmt(b, "%d", e->h); break;
  case 'R': buf_fmt(b, "%d", e->t * e->k); break;
  case 'O': buf_fmt(b, "%d", e->n + 1); break;
  }
}

static void check_experts(const char *text, const Experts *e, const char *dtype,
                          const char *cpu) {
  char name[128];
  Buf b = {0};
  for (const char *c = text; *c; c++) {
    if (*c == '$')
      add_size(&b, e, dtype, *++c);
    else
      buf_add_n(&b, c, 1);
  }
  snprintf(name, sizeof name,
           "build experts t=%d k=%d d=%d n=%d h=%d of %d %s %s", e->t, e->k,
           e->d, e->n, e->h, e->below, dtype, cpu);
  InputBound bounds[] = {{"ids", e->below}, {NULL, 0}};
  launches_bounds = bounds;
  Ctx cx = {0};
  Module *m = read_text(&cx, b.data);
  bool fused = strstr(text, "fused");
  const char *from = fused ? "schedule" : "fuse";
  if (m && !run_passes(m, from, 2, DT_f32)) m = NULL;
  check(&cx, name, m, cpu, 11, 1e-3);
  launches_bounds = NULL;
  buf_free(&b);
}

static void experts(const char *cpu) {
  static const Experts all[] = {
      {40, 2, 33, 5, 47, 5},  {7, 1, 3, 4, 5, 4},       {1, 1, 1, 1, 1, 1},
      {300, 2, 40, 6, 64, 1}, {100, 4, 64, 32, 96, 20}, {3, 2, 7, 9, 290, 9},
      {600, 1, 5, 2, 33, 2},  {300, 2, 40, 12, 64, 1},
      {6, 1, 1030, 2, 1100, 2}, /* wider and deeper than blocks */
  };
  for (size_t i = 0; i < COUNT_OF(all); i++) {
    check_experts(experts_text, &all[i], "f32", cpu);
    check_experts(experts_text, &all[i], "f64", cpu);
    check_experts(behind_text, &all[i], "f32", cpu);
    if (i % 3 == 0) check_experts(behind_text, &all[i], "f64", cpu);
  }
  /* more depth than a block has, where the mean is small */
  static const Experts large = {300, 1, 262, 16, 544, 1};
  check_experts(with_text, &large, "f32", cpu);
}

/* What a golden file computes, from a pass on. */
static void check_file(const char *path, const char *from, const char *cpu) {
  Ctx cx = {0};
  char name[128];
  uint32_t file;
  snprintf(name, sizeof name, "build %s for %s", path, cpu);
  Module *m = source_read(&cx, path, &file) ? ir_read(&cx, file) : NULL;
  if (m) add_init(m, true);
  if (m && !run_passes(m, from, 2, DT_f32)) m = NULL;
  check(&cx, name, m, cpu, 5, 1e-5);
}

/* Blocks of rows, columns and depth that are whole, cut, single and missing;
 * on each kind of machine that this one is. Of one row of one, fuse makes a map
 * that moves a single bf16. */
static void pairs(void) {
  static const Experts all[] = {
      {40, 2, 33, 5, 47, 5},    {7, 1, 7, 4, 5, 4},    {300, 2, 40, 6, 64, 1},
      {1, 1, 1, 1, 1, 1},       {3, 2, 7, 9, 290, 9},  {600, 1, 5, 2, 33, 2},
      {100, 4, 64, 32, 96, 20}, {64, 1, 32, 2, 32, 1}, {50, 2, 300, 3, 530, 3},
      {290, 2, 270, 2, 34, 2},
  };
  static const char *const cpus[] = {"x86-64-v3", "x86-64-v4", "x86-64-v4-bf16",
                                     "x86-64-v4-amx"};
  static const char *const features[] = {"avx2", "avx512f", "avx512bf16",
                                         "amx-bf16"};
  for (size_t c = 0; c < COUNT_OF(cpus); c++)
    for (size_t i = 0; i < COUNT_OF(all); i++)
      if (rt_cpu_has(features[c])) {
        check_experts(pairs_text, &all[i], "bf16", cpus[c]);
        if (i % 2) check_experts(behind_text, &all[i], "bf16", cpus[c]);
        if (i % 4 == 0) check_experts(cast_text, &all[i], "bf16", cpus[c]);
      }
  static const Experts large = {40, 1, 530, 8, 544, 7};
  for (size_t c = 0; c < COUNT_OF(cpus); c++)
    if (rt_cpu_has(features[c])) {
      check_experts(large_text, &large, "bf16", cpus[c]);
      check_file("tests/pass/layout/scan.ir", "layout", cpus[c]);
    }
}

/* ---- arithmetic of bf16 -------------------------------------------------- */

/* Every scalar op of floats on bf16, and casts from and to it: x goes through
 * all patterns, NaN, infinities and subnormal numbers included, y and z through
 * others, f through some of f32; d, j and u are a little more than halfway
 * between two bf16, by less than an f32 shows. Vectors and a tail. */
static const char bf16_text[] =
    "moec-ir 1\n"
    "mesh {dev=1}\n"
    "entry @main(%step: i32[] = step) {\n"
    "  %i = iota {dim=0} : u32[65541]\n"
    "  %16 = const {value=16} : u32[65541]\n"
    "  %p = const {value=2654435769} : u32[65541]\n"
    "  %q = const {value=2246822519} : u32[65541]\n"
    "  %xi = shl %i, %16 : u32[65541]\n"
    "  %xf = bitcast %xi : f32[65541]\n"
    "  %x = cast %xf : bf16[65541]\n"
    "  %yi = mul %i, %p : u32[65541]\n"
    "  %f = bitcast %yi : f32[65541]\n"
    "  %y = cast %f : bf16[65541]\n"
    "  %zi = mul %i, %q : u32[65541]\n"
    "  %zf = bitcast %zi : f32[65541]\n"
    "  %z = cast %zf : bf16[65541]\n"
    "  %more = const {value=1.000000001} : f64[65541]\n"
    "  %half = const {value=32768} : u32[65541]\n"
    "  %hi = or %xi, %half : u32[65541]\n"
    "  %hf = bitcast %hi : f32[65541]\n"
    "  %hd = cast %hf : f64[65541]\n"
    "  %d = mul %hd, %more : f64[65541]\n"
    "  %23 = const {value=23} : u32[65541]\n"
    "  %rest = const {value=4194305} : u32[65541]\n"
    "  %ui = shl %i, %23 : u32[65541]\n"
    "  %u = or %ui, %rest : u32[65541]\n"
    "  %j = bitcast %u : i32[65541]\n"
    "  %tenth = const {value=0.1} : bf16[65541]\n"
    "  %c = lt %i, %yi : bool[65541]\n";

/* A node and the dtype of its result. */
static const struct {
  const char *node, *dtype;
} bf16_ops[] = {
    {"add %x, %y", "bf16"},
    {"sub %x, %y", "bf16"},
    {"mul %x, %y", "bf16"},
    {"div %x, %y", "bf16"},
    {"max %x, %y", "bf16"},
    {"min %x, %y", "bf16"},
    {"fma %x, %y, %z", "bf16"},
    {"neg %x", "bf16"},
    {"abs %x", "bf16"},
    {"sqrt %x", "bf16"},
    {"floor %x", "bf16"},
    {"lt %x, %y", "bool"},
    {"le %x, %y", "bool"},
    {"eq %x, %y", "bool"},
    {"ne %x, %y", "bool"},
    {"is_finite %x", "bool"},
    {"select %c, %x, %y", "bf16"},
    {"bitcast %x", "bf16"},
    {"cast %x", "bf16"},
    {"cast %x", "f32"},
    {"cast %x", "f64"},
    {"cast %x", "i32"},
    {"cast %x", "u32"},
    {"cast %x", "bool"},
    {"cast %f", "bf16"},
    {"cast %d", "bf16"},
    {"cast %j", "bf16"},
    {"cast %u", "bf16"},
    {"cast %c", "bf16"},
    {"mul %x, %tenth", "bf16"},
};

static void check_text(const char *name, const char *text, const char *cpu) {
  Ctx cx = {0};
  char full[128];
  snprintf(full, sizeof full, "build %s for %s", name, cpu);
  Module *m = read_text(&cx, text);
  if (m && !run_passes(m, "fuse", 2, DT_f32)) m = NULL;
  check(&cx, full, m, cpu, 13, 0);
}

/* Additions of bf16 called a function of LLVM's, and so did a map that moves a
 * single one. */
static void bf16_arithmetic(const char *cpu) {
  Buf b = {0};
  buf_add(&b, bf16_text);
  for (size_t i = 0; i < COUNT_OF(bf16_ops); i++)
    buf_fmt(&b, "  %%r%zu = %s : %s[65541]\n", i, bf16_ops[i].node,
            bf16_ops[i].dtype);
  for (size_t i = 0; i < COUNT_OF(bf16_ops); i++)
    buf_fmt(&b, "%s probe \"r%zu\" = %%r%zu", i ? "," : "  return", i, i);
  buf_add(&b, "\n}\n");
  check_text("every op of bf16", b.data, cpu);
  buf_free(&b);
}

/* ---- plans -------------------------------------------------------------- */

/* The golden files of the plan compute what they say. */
static void plans(void) {
  static const char *const names[] = {
      "carries-swapped", "in-place",        "memory",
      "reshapes",        "slot-read-later", "slots-swapped",
      "stacked-carry",   "stacked-before",  "in-place-row",
      "in-place-last"};
  for (size_t i = 0; i < COUNT_OF(names); i++) {
    char path[128];
    snprintf(path, sizeof path, "tests/pass/plan/%s.ir", names[i]);
    check_file(path, "plan", "native");
  }
}

/* Sums over the rows of each group. */
static void group_sums(void) {
  check_file("tests/pass/fuse/groups.ir", "fuse", "native");
  check_file("tests/pass/fuse/groups-all.ir", "fuse", "native");
}

int main(void) {
  products("native");
  products("x86-64-v3");
  experts("native");
  experts("x86-64-v3");
  pairs();
  bf16_arithmetic("x86-64-v3");
  bf16_arithmetic("x86-64-v4");
  bf16_arithmetic("native");
  plans();
  group_sums();
  return failures != 0;
}
