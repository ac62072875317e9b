/* ranks_build.c: compiled exchanges by real ranks against virtual ones: the
 * same text, the same operands, processes over shared memory on one side and
 * the interpreter on the other. What has no products agrees bit for bit. The
 * bytes that come in are those that were predicted. Then the same on GPUs, one
 * a rank, where sums are made in the numbers' own dtype, and what comes in is
 * as much as messages of one width have. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../codegen/codegen.h"
#include "../../passes/pass.h"
#include "../../runtime/moert.h"
#include "check.h"
#include "random_graph.h"
#include "stand_ins.h"

enum { MOST_RANKS = 8, WHY = 1024 };

typedef struct Case {
  const char *name, *mesh, *text;
  double tol; /* by norm; 0: bit for bit */
  int below;  /* integer inputs are in [0, below) */
  double room; /* for rows, as of PassOptions */
} Case;

#define ON_OTHERS                                                             \
  "(%x: f32[30, 6] = input \"x\", %ids: i32[30, 2] = input \"x\","            \
  " %w: f32[2, 6, 5] = input \"x\", %v: f32[2, 5, 6] = input \"x\") {\n"      \
  "  %o, %slot, %src = route %ids {experts=8}"                                \
  " : i32[9], i32[30, 2], i32[60]\n"                                          \
  "  %d = rows_gather %x, %src, %o {choices=2} : f32[8, r<=60, 6]\n"          \
  "  %lo = slice %o {dim=0, start=0, size=8} : i32[8]\n"                      \
  "  %hi = slice %o {dim=0, start=1, size=8} : i32[8]\n"                      \
  "  %n = sub %hi, %lo : i32[8]\n"                                            \
  "  %m = all_to_all %n {axes=\"dev\", split=0, concat=0} : i32[8]\n"         \
  "  %got = reshape %m : i32[4, 2]\n"                                         \
  "  %c = reduce_sum %got {map=\"pm->m\"} : i32[2]\n"                         \
  "  %e = cumsum %c {exclusive=false, reverse=false} : i32[2]\n"              \
  "  %theirs = pad %e {dim=0, lo=1, hi=0} : i32[3]\n"                         \
  "  %there = rows_send %d, %o, %got, %theirs {axes=\"dev\", rows=240}"       \
  " : f32[2, r<=240, 6]\n"                                                    \
  "  %h = contract %there, %w {map=\"nrd,ndh->nrh\"} : f32[2, r<=240, 5]\n"   \
  "  %a = mul %h, %h : f32[2, r<=240, 5]\n"                                   \
  "  %y = contract %a, %v {map=\"nrh,nhd->nrd\"} : f32[2, r<=240, 6]\n"       \
  "  %back = rows_return %y, %o, %got, %theirs {axes=\"dev\", rows=60}"       \
  " : f32[8, r<=60, 6]\n"                                                     \
  "  %out = rows_combine %back, %slot : f32[30, 6]\n"                         \
  "  %dw = contract %there, %a {map=\"nrd,nrh->ndh\"} : f32[2, 6, 5]\n"       \
  "  return probe \"out\" = %out, probe \"dw\" = %dw, probe \"t\" = %theirs"  \
  "\n}\n"
#define IN_HALVES                                                             \
  "(%x: f32[30, 6] = input \"x\", %ids: i32[30, 2] = input \"x\","            \
  " %w: f32[2, 6, 4] = input \"x\") {\n"                                      \
  "  %o, %slot, %src = route %ids {experts=4}"                                \
  " : i32[5], i32[30, 2], i32[60]\n"                                          \
  "  %d = rows_gather %x, %src, %o {choices=2} : f32[4, r<=60, 6]\n"          \
  "  %lo = slice %o {dim=0, start=0, size=4} : i32[4]\n"                      \
  "  %hi = slice %o {dim=0, start=1, size=4} : i32[4]\n"                      \
  "  %n = sub %hi, %lo : i32[4]\n"                                            \
  "  %n6 = pad %n {dim=0, lo=0, hi=2} : i32[6]\n"                             \
  "  %m = all_to_all %n6 {axes=\"dev\", split=0, concat=0} : i32[6]\n"        \
  "  %got = reshape %m : i32[3, 2]\n"                                         \
  "  %c = reduce_sum %got {map=\"pm->m\"} : i32[2]\n"                         \
  "  %e = cumsum %c {exclusive=false, reverse=false} : i32[2]\n"              \
  "  %theirs = pad %e {dim=0, lo=1, hi=0} : i32[3]\n"                         \
  "  %there = rows_send %d, %o, %got, %theirs {axes=\"dev\", rows=180}"       \
  " : f32[2, r<=180, 6]\n"                                                    \
  "  %y = contract %there, %w {map=\"nrd,ndh->nrh\"} : f32[2, r<=180, 4]\n"   \
  "  %back = rows_return %y, %o, %got, %theirs {axes=\"dev\", rows=60}"       \
  " : f32[4, r<=60, 4]\n"                                                     \
  "  %r = rank {axes=\"model\"} : i32[]\n"                                    \
  "  %half = local_slice %back, %r {dim=2, parts=2} : f32[4, r<=60, 2]\n"     \
  "  %all = all_gather %half {axes=\"model\", dim=2} : f32[4, r<=60, 4]\n"    \
  "  %s = all_reduce %all {axes=\"model\", op=\"sum\"} : f32[4, r<=60, 4]\n"  \
  "  %part = reduce_scatter %s {axes=\"model\", dim=2, op=\"max\"}"           \
  " : f32[4, r<=60, 2]\n"                                                     \
  "  %out = rows_combine %part, %slot : f32[30, 2]\n"                         \
  "  return probe \"out\" = %out, probe \"t\" = %theirs\n}\n"

static const Case cases[] = {
    {"dense", "dev=4",
     "(%x: f32[8, 12] = input \"x\", %y: f32[3, 4] = input \"x\") {\n"
     "  %r = rank {axes=\"dev\"} : i32[]\n"
     "  %s = local_slice %x, %r {dim=1, parts=4} : f32[8, 3]\n"
     "  %t = transpose %s {map=\"ab->ba\"} : f32[3, 8]\n"
     "  %a, %b = all_reduce %t, %y {axes=\"dev\", op=\"sum\"}"
     " : f32[3, 8], f32[3, 4]\n"
     "  %g = all_gather %b {axes=\"dev\", dim=1} : f32[3, 16]\n"
     "  %m = mul %g, %g : f32[3, 16]\n"
     "  %e = reduce_scatter %m {axes=\"dev\", dim=1, op=\"sum\"} : f32[3, 4]\n"
     "  %f = all_to_all %x {axes=\"dev\", split=0, concat=1} : f32[2, 48]\n"
     "  %h = permute %f {axes=\"dev\", to=[2, 0, 3, 1]} : f32[2, 48]\n"
     "  %n = neg %h : f32[2, 48]\n"
     "  return probe \"a\" = %a, probe \"e\" = %e, probe \"n\" = %n, "
     "probe \"r\" = %r, probe \"s\" = %s\n}\n", 0, 0, 0},
    {"two axes", "data=2, expert=3",
     "(%x: f32[6, 6] = input \"x\", %i: i32[5] = input \"x\") {\n"
     "  %p = all_reduce %x {axes=\"expert\", op=\"sum\"} : f32[6, 6]\n"
     "  %q = all_reduce %p {axes=\"data\", op=\"max\"} : f32[6, 6]\n"
     "  %s = sub %p, %q : f32[6, 6]\n"
     "  %g = all_gather %s {axes=\"expert,data\", dim=0} : f32[36, 6]\n"
     "  %a = all_to_all %g {axes=\"data,expert\", split=0, concat=0}"
     " : f32[36, 6]\n"
     "  %d = all_reduce %i {axes=\"data,expert\", op=\"sum\"} : i32[5]\n"
     "  %r = rank {axes=\"expert,data\"} : i32[]\n"
     "  return probe \"a\" = %a, probe \"d\" = %d, probe \"r\" = %r\n}\n",
     0, 1000, 0},
    {"in a loop", "dev=2",
     "(%h: f32[4] = input \"x\", %u: f32[5, 4] = input \"x\") {\n"
     "  %e, %ys = scan %h, %u {carries=1, scanned=1, length=5, reverse=false}"
     " (%t: i32[], %hp: f32[4], %ut: f32[4]) {\n"
     "    %s = add %hp, %ut : f32[4]\n"
     "    %g = all_reduce %s {axes=\"dev\", op=\"max\"} : f32[4]\n"
     "    %k = mul %g, %s : f32[4]\n"
     "    %f = reduce_scatter %k {axes=\"dev\", dim=0, op=\"min\"} : f32[2]\n"
     "    %n = all_gather %f {axes=\"dev\", dim=0} : f32[4]\n"
     "    %o = tanh %n : f32[4]\n"
     "    yield %o, %k\n"
     "  } : f32[4], f32[5, 4]\n"
     "  return probe \"e\" = %e, probe \"ys\" = %ys\n}\n", 1e-6, 0, 0},
    {"in place", "dev=3",
     "(%x: f32[1000] = input \"x\") {\n"
     "  %y = mul %x, %x : f32[1000]\n"
     "  %z = all_reduce %y {axes=\"dev\", op=\"sum\"} : f32[1000]\n"
     "  %w = sub %z, %x : f32[1000]\n"
     "  %v = all_reduce %w {axes=\"dev\", op=\"sum\"} : f32[1000]\n"
     "  return probe \"v\" = %v\n}\n", 0, 0, 0},
    {"behind work", "dev=3",
     "(%x: f32[300, 40] = input \"x\", %h: f32[40] = input \"x\") {\n"
     "  %a = mul %x, %x : f32[300, 40]\n"
     "  %p = all_reduce %a {axes=\"dev\", op=\"sum\"} : f32[300, 40]\n"
     "  %n = neg %p : f32[300, 40]\n"
     "  %b = mul %a, %x : f32[300, 40]\n"
     "  %q, %r = all_reduce %b, %h {axes=\"dev\", op=\"sum\"}"
     " : f32[300, 40], f32[40]\n"
     "  %e, %ys = scan %h, %x {carries=1, scanned=1, length=300,"
     " reverse=false} (%t: i32[], %hp: f32[40], %xt: f32[40]) {\n"
     "    %g = all_reduce %xt {axes=\"dev\", op=\"max\"} : f32[40]\n"
     "    %s = reduce_max %hp {map=\"a->\"} : f32[]\n"
     "    %k = broadcast %s {map=\"->a\"} : f32[40]\n"
     "    %m = min %k, %g : f32[40]\n"
     "    yield %m, %hp\n"
     "  } : f32[40], f32[300, 40]\n"
     "  %c = add %q, %n : f32[300, 40]\n"
     "  %d = sub %c, %ys : f32[300, 40]\n"
     "  return probe \"d\" = %d, probe \"e\" = %e, probe \"r\" = %r,"
     " probe \"b\" = %b\n}\n", 0, 0, 0},
    {"experts on other ranks", "dev=4", ON_OTHERS, 1e-5, 8, 0},
    {"experts that do not divide, in halves", "dev=3, model=2", IN_HALVES, 1e-5,
     4, 0},
    {"experts in rounds", "dev=4", ON_OTHERS, 1e-5, 8, 1},
    {"one expert in rounds", "dev=4", ON_OTHERS, 1e-5, 1, 1.25},
    {"halves of experts in rounds", "dev=3, model=2", IN_HALVES, 1e-5, 3, 1},
};

/* On a GPU sums of f32 are rounded at each step. */
static const double gpu_tol = 1e-6;

/* ---- operands and results ------------------------------------------------ */

typedef struct Run {
  Ctx cx;
  Module *m;
  Entry *e;
  int ranks;
  uint32_t n_outs; /* without the report of rounds */
  Tensor **ins[MOST_RANKS], **outs[MOST_RANKS];
  char *got[MOST_RANKS]; /* shared: results of the real ranks, one a slot */
  char (*whys)[WHY];
  bool on_gpu;
  int64_t *came; /* shared: bytes that came in a step, by rank */
  size_t bytes; /* of one rank's results */
} Run;

static void *shared(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) abort();
  return p;
}

static void draw(Run *r, const Case *c) {
  for (int k = 0; k < r->ranks; k++) {
    r->ins[k] = NEW_ARRAY(&r->cx.perm, Tensor *, r->e->ins.len);
    r->outs[k] = NEW_ARRAY(&r->cx.perm, Tensor *, r->e->outs.len);
    random_inputs(r->e, 100 + (uint64_t)k, &r->cx.perm, r->ins[k]);
    for (uint32_t i = 0; i < r->e->ins.len; i++) {
      Tensor *t = r->ins[k][i];
      for (int64_t j = 0; c->below && j < type_elements(&t->type); j++)
        if (dtype_info[t->type.dtype].kind == DK_INT)
          t->data[j] = fmod(fabs(t->data[j]), c->below);
    }
  }
}

static bool evaluate(Run *r) {
  Tensor *const *ins[MOST_RANKS];
  for (int k = 0; k < r->ranks; k++)
    ins[k] = r->ins[k];
  Eval ev = {.cx = &r->cx, .mode = EVAL_TYPED};
  return ir_eval_ranks(&ev, r->e, ins, r->outs, &r->cx.perm) == 0;
}

/* ---- real ranks ---------------------------------------------------------- */

static MoertStatus step(Run *r, int rank, MoertComm *comm, const char *path) {
  MoertModel *model;
  MoertSession *s;
  MoertSessionOptions o = {.device = r->on_gpu ? MOERT_USE_CUDA : MOERT_USE_CPU,
                           .threads = 1, .poison = !r->on_gpu, .comm = comm};
  MoertStatus st = moert_open(path, &model);
  if (st == MOERT_OK) st = moert_session(model, &o, &s);
  if (st != MOERT_OK) return st;
  const MoertEntry *e = &moert_session_desc(s)->entries[0];
  for (int turn = 0; turn < 2 && st == MOERT_OK; turn++) {
    for (uint32_t i = 0; i < r->e->ins.len && st == MOERT_OK; i++) {
      void *data;
      size_t bytes;
      st = moert_input(s, e->name, e->ins[i].name, &data, &bytes);
      if (st == MOERT_OK) tensor_to_bytes(r->ins[rank][i], data);
    }
    if (st != MOERT_OK) break;
    int64_t before = moert_comm_bytes(comm);
    st = moert_step(s, e->name);
    r->came[rank] = moert_comm_bytes(comm) - before;
  }
  char *to = r->got[rank];
  for (uint32_t i = 0; i < r->n_outs && st == MOERT_OK; i++) {
    st = moert_read(s, 0, &e->outs[i].ref, NULL, to);
    to += type_bytes(&r->outs[rank][i]->type);
  }
  moert_session_free(s);
  moert_close(model);
  return st;
}

static void be_rank(Run *r, MoertLocal *l, int rank, const char *path) {
  MoertComm *comm;
  snprintf(r->whys[rank], WHY, "rank %d has not ended", rank);
  MoertStatus st = moert_local_join(l, rank, 60, &comm);
  if (st == MOERT_OK) st = step(r, rank, comm, path);
  if (st != MOERT_OK)
    snprintf(r->whys[rank], WHY, "rank %d: %s", rank, moert_error());
  else
    r->whys[rank][0] = 0;
  _exit(0);
}

static bool run_real(Run *r, const char *path, Buf *why) {
  MoertLocal *l;
  if (moert_local_new(r->ranks, &l)) return false;
  fflush(stdout);
  for (int k = 0; k < r->ranks; k++)
    if (fork() == 0) be_rank(r, l, k, path);
  while (wait(NULL) > 0)
    ;
  moert_local_free(l);
  for (int k = 0; k < r->ranks; k++)
    if (r->whys[k][0] && !why->len) buf_add(why, r->whys[k]);
  return !why->len;
}

/* ---- comparing ----------------------------------------------------------- */

static void compare(Run *r, double tol, Buf *why) {
  for (int k = 0; k < r->ranks; k++) {
    const char *from = r->got[k];
    for (uint32_t i = 0; i < r->n_outs && !why->len; i++) {
      Tensor *want = r->outs[k][i];
      Tensor *got = tensor_new(&r->cx.perm, want->type);
      tensor_from_bytes(got, from);
      from += type_bytes(&want->type);
      double d = 0, n = 0;
      for (int64_t j = 0; j < type_elements(&want->type); j++) {
        d += pow(got->data[j] - want->data[j], 2);
        n += pow(want->data[j], 2);
      }
      if (!(sqrt(d) <= tol * sqrt(n)))
        buf_fmt(why, "rank %d: %s is off by %g of %g", k,
                r->e->outs.data[i].name, sqrt(d), sqrt(n));
    }
  }
}

/* ---- bytes --------------------------------------------------------------- */

/* What a rank receives in a region; -1 where it depends on the rows. */
static int64_t predict(const Run *r, const Region *region, int rank) {
  int64_t sum = 0;
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = region->nodes.data[i];
    int64_t bytes = 0;
    if (n->op == OP_rows_send || n->op == OP_rows_return) return -1;
    if (n->op == OP_scan) {
      bytes = predict(r, n->body, rank);
      if (bytes < 0) return -1;
      bytes *= attr_int(n, "length");
    } else if (op_info[n->op].lower == LOWER_COMM) {
      bytes = ir_comm_bytes(n, axes_place(r->m, node_axes(n), rank));
    }
    sum += bytes;
  }
  return sum;
}

static void compare_bytes(const Run *r, Buf *why) {
  for (int k = 0; k < r->ranks && !why->len; k++) {
    int64_t want = predict(r, r->e->region, k);
    if (want >= 0 && r->came[k] != want)
      buf_fmt(why, "rank %d: %lld bytes came in, %lld were predicted", k,
              (long long)r->came[k], (long long)want);
  }
}

static bool build(Run *r, const Case *c, const char *path, int opt_level) {
  Pipeline p = {.options = {.opt_level = opt_level, .precision = DT_f32,
                            .target = r->on_gpu ? TARGET_CUDA : TARGET_CPU,
                            .expert_rows = c->room},
                .from = "rounds"}; /* it speaks of one rank's parts */
  CodegenOptions o = {.cpu = "native", .arch = "sm_80", .opt_level = 2,
                      .flags = "", .source_hash = "0"};
  CgPrograms all = {{{0}}};
  all.of[r->on_gpu ? MOERT_CUDA : MOERT_CPU].m = r->m;
  return pass_run(&p, r->m) && cg_library(&all, &o, path);
}

static void new_run(Run *r, const Case *c) {
  Buf b = {0};
  buf_fmt(&b, "moec-ir 1\nmesh {%s}\nentry @main%s", c->mesh, c->text);
  uint32_t file = source_add(&r->cx, "case.ir", b.data, b.len);
  r->m = ir_read(&r->cx, file);
  buf_free(&b);
  if (!r->m) return;
  r->e = r->m->entries.data[0];
  r->n_outs = r->e->outs.len;
  r->ranks = (int)mesh_devices(r->m);
  for (uint32_t i = 0; i < r->e->outs.len; i++)
    r->bytes += (size_t)type_bytes(&r->e->region->results.data[i]->type);
  r->came = shared(sizeof *r->came * MOST_RANKS);
  r->whys = shared(sizeof(*r->whys) * MOST_RANKS);
  for (int k = 0; k < r->ranks; k++)
    r->got[k] = shared(r->bytes);
}

static void run_case(const Case *c, int opt_level, bool on_gpu) {
  char name[128], path[256];
  const char *dir = getenv("TMPDIR");
  Run *r = calloc(1, sizeof *r);
  Buf why = {0};
  snprintf(name, sizeof name, "ranks build: %s -O%d%s", c->name, opt_level,
           on_gpu ? " on GPUs" : "");
  snprintf(path, sizeof path, "%s/moec-ranks-%d.so", dir ? dir : "/tmp",
           (int)getpid());
  r->on_gpu = on_gpu;
  new_run(r, c);
  bool ok = r->m != NULL;
  if (ok) {
    draw(r, c);
    ok = evaluate(r) && build(r, c, path, opt_level) && run_real(r, path, &why);
  }
  if (ok) compare(r, on_gpu && c->tol < gpu_tol ? gpu_tol : c->tol, &why);
  if (ok && !on_gpu) compare_bytes(r, &why);
  if (r->cx.errors) diag_print(&r->cx, stdout);
  CHECK(name, ok && !why.len, "%s", why.data ? why.data : "it failed");
  for (int k = 0; r->m && k < r->ranks; k++)
    munmap(r->got[k], r->bytes);
  if (r->m) munmap(r->came, sizeof *r->came * MOST_RANKS);
  if (r->m) munmap(r->whys, sizeof(*r->whys) * MOST_RANKS);
  unlink(path);
  buf_free(&why);
  ctx_free(&r->cx);
  free(r);
}

/* ---- closing ------------------------------------------------------------- */

/* What rank 1 does when rank 0 closes its session in the middle of a step. */
typedef enum Other { OTHER_DIES, OTHER_HANGS, OTHERS } Other;

/* Rank 0 starts a step, and lets go of it unfinished. */
static MoertStatus close_early(const Run *r, MoertComm *comm, const char *path,
                               int rank) {
  MoertModel *model;
  MoertSession *s;
  MoertSessionOptions o = {
      .device = MOERT_USE_CUDA, .threads = 1, .comm = comm};
  MoertStatus st = moert_open(path, &model);
  if (st == MOERT_OK) st = moert_session(model, &o, &s);
  if (st != MOERT_OK || rank) return st;
  const MoertEntry *e = &moert_session_desc(s)->entries[0];
  void *data;
  size_t bytes;
  st = moert_input(s, e->name, e->ins[0].name, &data, &bytes);
  if (st == MOERT_OK) tensor_to_bytes(r->ins[0][0], data);
  if (st == MOERT_OK) st = moert_start(s, e->name);
  moert_session_free(s);
  moert_close(model);
  return st;
}

static void be_closing(Run *r, MoertLocal *l, int rank, const char *path,
                       Other other) {
  enum { TIMEOUT_S = 1, END_S = 20 };
  MoertComm *comm;
  snprintf(r->whys[rank], WHY, "rank %d has not ended", rank);
  alarm(END_S);
  MoertStatus st = moert_local_join(l, rank, TIMEOUT_S, &comm);
  if (st == MOERT_OK) st = close_early(r, comm, path, rank);
  if (st == MOERT_OK) r->whys[rank][0] = 0;
  else snprintf(r->whys[rank], WHY, "rank %d: %s", rank, moert_error());
  while (rank && other == OTHER_HANGS && r->whys[0][0])
    usleep(10000);
  _exit(0);
}

static void run_closing(Other other) {
  static const char *const names[OTHERS] = {"dies", "hangs"};
  static const Case c = {"", "dev=2",
                         "(%x: f32[8] = input \"x\") {\n"
                         "  %s = all_reduce %x {axes=\"dev\", op=\"sum\"}"
                         " : f32[8]\n"
                         "  return probe \"s\" = %s\n}\n",
                         0, 0, 0};
  char name[128], path[256];
  MoertLocal *l;
  Run *r = calloc(1, sizeof *r);
  snprintf(path, sizeof path, "%s/moec-closing-%d.so",
           getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
  r->on_gpu = true;
  new_run(r, &c);
  draw(r, &c);
  if (!build(r, &c, path, 2) || moert_local_new(r->ranks, &l)) exit(1);
  fflush(stdout);
  for (int k = 0; k < r->ranks; k++)
    if (fork() == 0) be_closing(r, l, k, path, other);
  while (wait(NULL) > 0)
    ;
  moert_local_free(l);
  snprintf(name, sizeof name,
           "ranks build: a session closes in a step when another rank %s",
           names[other]);
  CHECK(name, !r->whys[0][0], "%s", r->whys[0]);
  unlink(path);
  ctx_free(&r->cx);
  free(r);
}

int main(int argc, char **argv) {
  (void)argc;
  setenv("CUDASIM_DEVICES", "8", 1);
  use_stand_ins(argv);
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    run_case(&cases[i], 0, false);
    run_case(&cases[i], 2, false);
    run_case(&cases[i], 2, true);
  }
  for (Other other = 0; other < OTHERS; other++)
    run_closing(other);
  return failures > 0;
}
