/* report.c: --report=kernels, the kernels of a program for GPUs, a line each.
 *
 * A line has the place in the model that the kernel is for, what a launch looks
 * like, what ptxas makes of it (where there is a ptxas), and how long a launch
 * takes at least on a GPU that is named: the time for its products or the time
 * for the bytes that it reads and writes, whichever is longer. These figures
 * are of all stages of a launch together and stand with the first. Launches of
 * the main entry are told of, a kernel with several of them once, and products
 * of the library among them.
 *
 *   kernel    line          kind        times  grid x threads  ...  us  bound
 *   k3_row_0  tiny.dsl:25   fused rows      2       16 x 128       0.1  memory
 */
#include "persist.h"

#include <string.h>

/* A kernel or a product, and all its launches. */
typedef struct Row {
  CgLaunch l; /* the first one */
  Sym symbol, where, kind;
  bool tf32; /* of operands that it rounds */
  int n_stages;
  WarpGrid *stages;
} Row;

typedef struct Report {
  Ctx *cx;
  const Entry *main;
  const CgGpu *gpu;
  bool tf32; /* as the library's products of f32 are */
  VEC(Row) rows;
  VEC(Sym) loops; /* a line each */
  CgPtxasVec found;
  Sym unknown; /* why nothing was found, or NULL */
  Buf *out;
} Report;

/* ---- collecting ---------------------------------------------------------- */

/* "model.dsl:12" */
static Sym line_of(Ctx *cx, const Node *n) {
  Sym place = node_loc(cx, n);
  const char *column = strrchr(place, ':');
  return column ? sym_n(cx, place, (size_t)(column - place)) : sym(cx, "?");
}

/* "fused rows", behind the names of results */
static Sym kind_of(Ctx *cx, const char *name) {
  const char *colon = strstr(name, ": ");
  return sym(cx, colon ? colon + 2 : name);
}

static Row *row_of(Report *r, const char *symbol) {
  for (uint32_t i = 0; symbol[0] && i < r->rows.len; i++)
    if (!strcmp(r->rows.data[i].symbol, symbol)) return &r->rows.data[i];
  return NULL;
}

/* How a loop is done, and why. */
static void add_loop(Report *r, const CgLaunch *told) {
  const PsLoop *l = told->loop;
  Sym where = line_of(r->cx, told->node), s;
  double by_graph = 1e6 * l->graph, by_one = 1e6 * l->persistent;
  if (told->persists)
    s = sym_fmt(r->cx,
                "%s: %lld turns by one kernel, %s_0, of %lld blocks that keep "
                "%lld bytes each: %.0f us, by a graph %.0f us",
                where, (long long)l->turns, told->symbol,
                (long long)l->grid.blocks, (long long)l->held_bytes, by_one,
                by_graph);
  else if (l->why)
    s = sym_fmt(r->cx, "%s: %lld turns in a graph: %s", where,
                (long long)l->turns, l->why);
  else
    s = sym_fmt(r->cx,
                "%s: %lld turns in a graph: %.0f us, by one kernel %.0f us",
                where, (long long)l->turns, by_graph, by_one);
  vec_push(&r->cx->perm, &r->loops, s);
}

/* A loop as one kernel rounds none. */
static bool in_tf32(const Report *r, const CgLaunch *l) {
  bool rounds = !l->kernel && !l->persists && r->tf32;
  for (uint32_t i = 0; l->kernel && i < l->kernel->stages.len; i++)
    rounds |= (l->kernel->stages.data[i].needs & KN_TF32) != 0;
  return rounds && l->dtype == DT_f32;
}

static void launched(void *user, const CgLaunch *l) {
  Report *r = user;
  if (l->entry != r->main) return;
  if (l->loop) add_loop(r, l);
  if (l->loop && !l->persists) return;
  Row *known = row_of(r, l->symbol);
  if (known) {
    known->l.times += l->times;
    return;
  }
  Arena *a = &r->cx->perm;
  Row row = {.l = *l,
             .symbol = sym(r->cx, l->symbol),
             .where = line_of(r->cx, l->node),
             .kind = kind_of(r->cx, l->name),
             .tf32 = in_tf32(r, l),
             .n_stages = l->kernel ? (int)l->kernel->stages.len
                                   : l->persists};
  row.stages = NEW_ARRAY(a, WarpGrid, (size_t)row.n_stages + 1);
  if (l->persists) row.stages[0] = l->loop->grid;
  for (int i = 0; l->kernel && i < row.n_stages; i++)
    row.stages[i] = cg_warp_grid(&l->kernel->stages.data[i]);
  vec_push(a, &r->rows, row);
}

/* ---- columns ------------------------------------------------------------- */

enum {
  KERNEL,
  LINE,
  KIND,
  TIMES,
  GRID,
  REGISTERS,
  STATIC,
  SHARED,
  SPILLS,
  FLOPS,
  BYTES,
  MICROSECONDS,
  BOUND,
  COLUMNS
};

static const struct {
  const char *name;
  bool left;
} columns[COLUMNS] = {
    [KERNEL] = {"kernel", true},   [LINE] = {"line", true},
    [KIND] = {"kind", true},       [TIMES] = {"times", false},
    [GRID] = {"grid x threads", false},
    [REGISTERS] = {"registers", false},
    [STATIC] = {"static", false},  [SHARED] = {"shared", false},
    [SPILLS] = {"spills", false},  [FLOPS] = {"flops", false},
    [BYTES] = {"bytes", false},    [MICROSECONDS] = {"us", false},
    [BOUND] = {"bound by", true},
};

typedef struct Line {
  Sym cell[COLUMNS];
} Line;
typedef VEC(Line) LineVec;

static double seconds_of_products(const Report *r, const Row *row) {
  double rate = row->tf32 ? r->gpu->tf32 : r->gpu->flops[row->l.dtype];
  return row->l.flops && rate > 0 ? (double)row->l.flops / rate : 0;
}

static double seconds_of_memory(const Report *r, const Row *row) {
  return (double)row->l.bytes / r->gpu->bytes;
}

static double seconds(const Report *r, const Row *row) {
  double a = seconds_of_products(r, row), b = seconds_of_memory(r, row);
  return a > b ? a : b;
}

static Sym integer(Ctx *cx, int64_t x) {
  return sym_fmt(cx, "%lld", (long long)x);
}

/* What is told of a whole launch. */
static void add_launch(const Report *r, const Row *row, Line *out) {
  Ctx *cx = r->cx;
  double products = seconds_of_products(r, row);
  bool memory = seconds_of_memory(r, row) >= products;
  out->cell[LINE] = row->where;
  out->cell[KIND] = row->kind;
  out->cell[TIMES] = integer(cx, row->l.times);
  out->cell[FLOPS] = integer(cx, row->l.flops);
  out->cell[BYTES] = integer(cx, row->l.bytes);
  out->cell[MICROSECONDS] = sym_fmt(cx, "%.2f", 1e6 * seconds(r, row));
  out->cell[BOUND] = sym(cx, memory ? "memory" : "compute");
}

static void add_found(const Report *r, Sym symbol, Line *out) {
  for (uint32_t i = 0; i < r->found.len; i++) {
    const CgPtxas *f = &r->found.data[i];
    if (f->symbol != symbol) continue;
    out->cell[REGISTERS] = integer(r->cx, f->registers);
    out->cell[STATIC] = integer(r->cx, f->shared_bytes);
    out->cell[SPILLS] = integer(r->cx, f->spill_bytes);
    return;
  }
  Sym unknown = sym(r->cx, "?");
  out->cell[REGISTERS] = out->cell[STATIC] = out->cell[SPILLS] = unknown;
}

static Line stage_line(const Report *r, const Row *row, int i) {
  char name[128];
  const WarpGrid *g = &row->stages[i];
  Line out = {{NULL}};
  ll_stage_name(row->symbol, (uint32_t)i, name, sizeof name);
  if (i == 0) add_launch(r, row, &out);
  out.cell[KERNEL] = sym(r->cx, name);
  out.cell[GRID] =
      sym_fmt(r->cx, "%lld x %d", (long long)g->blocks, g->threads);
  out.cell[SHARED] = integer(r->cx, g->shared_bytes);
  add_found(r, out.cell[KERNEL], &out);
  return out;
}

static LineVec lines_of(const Report *r) {
  LineVec lines = {0};
  Line head = {{NULL}};
  for (int c = 0; c < COLUMNS; c++)
    head.cell[c] = sym(r->cx, columns[c].name);
  vec_push(&r->cx->perm, &lines, head);
  for (uint32_t i = 0; i < r->rows.len; i++) {
    const Row *row = &r->rows.data[i];
    for (int k = 0; k < row->n_stages; k++)
      vec_push(&r->cx->perm, &lines, stage_line(r, row, k));
    if (row->n_stages) continue;
    Line product = {{NULL}};
    add_launch(r, row, &product);
    product.cell[KERNEL] =
        sym(r->cx, row->tf32 ? "(cuBLASLt tf32)" : "(cuBLASLt)");
    vec_push(&r->cx->perm, &lines, product);
  }
  return lines;
}

/* ---- the table ----------------------------------------------------------- */

static void add_lines(Report *r) {
  LineVec lines = lines_of(r);
  int width[COLUMNS] = {0};
  for (uint32_t i = 0; i < lines.len; i++)
    for (int c = 0; c < COLUMNS; c++) {
      Sym text = lines.data[i].cell[c];
      int n = text ? (int)strlen(text) : 0;
      if (n > width[c]) width[c] = n;
    }
  for (uint32_t i = 0; i < lines.len; i++) {
    size_t start = r->out->len;
    for (int c = 0; c < COLUMNS; c++) {
      Sym text = lines.data[i].cell[c];
      int w = columns[c].left ? -width[c] : width[c];
      buf_fmt(r->out, "%s%*s", c ? "  " : "", w, text ? text : "");
    }
    while (r->out->len > start && r->out->data[r->out->len - 1] == ' ')
      r->out->data[--r->out->len] = '\0';
    buf_add(r->out, "\n");
  }
}

static void add_heading(Report *r) {
  buf_fmt(r->out,
          "kernels of %s for %s. us: microseconds that a launch takes at least "
          "on an\n%s, by its data sheet: %g TFLOP/s in bf16, %g in %s, %g in "
          "f64, %g TB/s.\nshared and static: bytes of shared memory that a "
          "block is launched with, and has\nbeyond that; spills: bytes that a "
          "thread stores to and loads from local memory.\n",
          r->main->name, r->gpu->arch, r->gpu->name,
          r->gpu->flops[DT_bf16] / 1e12,
          (r->tf32 ? r->gpu->tf32 : r->gpu->flops[DT_f32]) / 1e12,
          r->tf32 ? "tf32" : "f32",
          r->gpu->flops[DT_f64] / 1e12, r->gpu->bytes / 1e12);
  if (r->unknown)
    buf_fmt(r->out, "registers, static and spills are unknown: %s\n",
            r->unknown);
  buf_add(r->out, "\n");
}

static void add_total(Report *r) {
  double all = 0;
  int64_t launches = 0;
  for (uint32_t i = 0; i < r->rows.len; i++) {
    const Row *row = &r->rows.data[i];
    launches += row->l.times * (row->n_stages ? row->n_stages : 1);
    all += (double)row->l.times * seconds(r, row);
  }
  buf_fmt(r->out, "\na step: %lld launches, %.2f us at least\n",
          (long long)launches, 1e6 * all);
}

static void add_loops(Report *r) {
  if (r->loops.len)
    buf_add(r->out,
            "\nloops, and how long they take by the cost model, which counts "
            "launches that wait\nfor each other, too (--scan):\n");
  for (uint32_t i = 0; i < r->loops.len; i++)
    buf_fmt(r->out, "  %s\n", r->loops.data[i]);
}

bool cg_kernel_report(const CgPrograms *p, const CodegenOptions *o, Buf *out) {
  Module *m = p->of[MOERT_CUDA].m;
  Buf ptx = {0};
  Report r = {.cx = m->cx,
              .main = ir_main_entry(m),
              .gpu = cg_gpu(o->arch),
              .tf32 = o->tf32,
              .out = out};
  CodegenOptions tells = *o;
  tells.launched = launched;
  tells.user = &r;
  if (!r.main) {
    diag_error(m->cx, (Span){0}, "--report=kernels: the model has no entry");
    return false;
  }
  bool ok = cg_emit_text(p, &tells, "ptx", &ptx);
  if (ok) {
    r.unknown = cg_ptxas(m->cx, ptx.data, o->arch, &r.found);
    add_heading(&r);
    add_lines(&r);
    add_total(&r);
    add_loops(&r);
  }
  buf_free(&ptx);
  return ok;
}
