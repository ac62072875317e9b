/* planner.c: how long an exchange takes on a topology, against sums by hand;
 * that levels of links carry all bytes, whatever the mesh; and that whole
 * models send what `shard` explains. */
#include "../../frontend/frontend.h"
#include "../../passes/planner.h"
#include "check.h"

#include <math.h>
#include <string.h>

/* ---- links --------------------------------------------------------------- */

static Module *mesh_of(Ctx *cx, int n, const int64_t *sizes) {
  static const char *const names[] = {"a", "b", "c"};
  Module *m = ir_module_new(cx);
  for (int i = 0; i < n; i++) {
    MeshAxis x = {.name = sym(cx, names[i]), .size = sizes[i]};
    vec_push(&cx->perm, &m->mesh, x);
  }
  return m;
}

static bool topology(Ctx *cx, const char *links, Topology *out) {
  Sym text = sym_fmt(cx,
                     "memory 1 GB\nbandwidth 1 GB/s\nproduct f32 1 GFLOP/s\n"
                     "elementwise 1 GFLOP/s\n%s",
                     links);
  uint32_t file = source_add(cx, "case", text, strlen(text));
  bool ok = topology_read(cx, file, out);
  if (!ok) diag_print(cx, stdout);
  return ok;
}

/* Over axes of the mesh {a=2, b=4, c=8}: 64 devices, 8 neighbours on inner
 * links of 8 GB/s and 1 us, the rest on 1 GB/s and 10 us. 8 MB are sent. */
static const struct {
  const char *name;
  MoveKind kind;
  int axes[2];
  double us;
} cases[] = {
    /* 8e6 / 8e9 s, 7 messages */
    {"gathered inside", MOVE_ALL_GATHER, {2, -1}, 1000 + 7},
    {"summed inside", MOVE_ALL_REDUCE, {2, -1}, 1000 + 14},
    /* 4 devices that are 8 apart: all between machines */
    {"summed between", MOVE_ALL_REDUCE, {1, -1}, 8000 + 6 * 10},
    {"all to all between", MOVE_ALL_TO_ALL, {1, -1}, 8000 + 3 * 10},
    /* 32 devices: the inner share is (1 - 1/8) / (1 - 1/32), 28/31 */
    {"summed over both", MOVE_ALL_REDUCE, {1, 2},
     1000 * 28 / 31. + 14 + 8000 * 3 / 31. + 60},
    {"scattered over both", MOVE_REDUCE_SCATTER, {1, 2},
     1000 * 28 / 31. + 7 + 8000 * 3 / 31. + 30},
    /* 7 of 31 others are near */
    {"all to all over both", MOVE_ALL_TO_ALL, {1, 2},
     1000 * 7 / 31. + 7 + 8000 * 24 / 31. + 240},
};

static void test_cases(void) {
  Ctx cx = {0};
  Topology t;
  Module *m = mesh_of(&cx, 3, (const int64_t[]){2, 4, 8});
  if (!topology(&cx, "link inner 8 8 GB/s 1 us\nlink outer any 1 GB/s 10 us\n",
                &t))
    return;
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    const TopologyLink *crossed = NULL;
    Axes axes = 0;
    for (int k = 0; k < 2 && cases[i].axes[k] >= 0; k++)
      axes = axes_add(axes, cases[i].axes[k]);
    double us = 1e6 * plan_link_seconds(m, &t, cases[i].kind, axes, 8e6,
                                        &crossed);
    CHECK(cases[i].name, fabs(us - cases[i].us) < 1e-6 * us,
          "%.3f us, not %.3f", us, cases[i].us);
  }
  ctx_free(&cx);
}

/* With links that are all alike and take no time for a message, every exchange
 * takes its bytes at their rate. */
static void test_all_bytes(void) {
  Ctx cx = {0};
  Topology t;
  if (!topology(&cx, "link x 2 1 GB/s 1ns\nlink y 6 1 GB/s 1ns\n"
                     "link z 24 1 GB/s 1ns\nlink w any 1 GB/s 1ns\n",
                &t))
    return;
  for (int i = 0; i < t.n_links; i++)
    t.links[i].latency = 0;
  int wrong = 0, n = 0;
  for (int64_t a = 1; a <= 6; a++)
    for (int64_t b = 1; b <= 9; b++)
      for (int kind = MOVE_REDUCE_SCATTER; kind < MOVE_COUNT; kind++)
        for (int over = 1; over < 4; over++) {
          Module *m = mesh_of(&cx, 2, (const int64_t[]){a, b});
          const TopologyLink *crossed = NULL;
          Axes axes = over & 1 ? axes_add(0, 0) : 0;
          if (over & 2) axes = axes_add(axes, 1);
          if (axes_parts(m, axes) == 1) continue;
          double us = 1e6 * plan_link_seconds(m, &t, (MoveKind)kind, axes, 1e6,
                                              &crossed);
          n++;
          wrong += fabs(us - 1000) > 1e-6;
        }
  CHECK("links carry all bytes", n > 300 && wrong == 0, "%d of %d do not",
        wrong, n);
  ctx_free(&cx);
}

/* ---- models -------------------------------------------------------------- */

typedef struct Sent {
  int64_t times[MOVE_COUNT], bytes[MOVE_COUNT];
} Sent;

/* What the reshards of a placed entry send, as --explain=shard has it. */
static void add_explained(const Module *m, const Region *r, Sent *out) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body) add_explained(m, n->body, out);
    if (n->op != OP_reshard) continue;
    const Value *from = n->ins.data[0], *to = n->outs.data[0];
    Move move = reshard_move(m, &from->type, &from->placement, &to->placement);
    for (int k = 0; k < move.n; k++) {
      out->times[move.steps[k].kind] += shard_times(r);
      out->bytes[move.steps[k].kind] += shard_times(r) * move.steps[k].bytes;
    }
  }
}

/* Rows of experts are one kind with all_to_all. */
static void add_planned(const PlanPoint *p, Sent *out) {
  for (int i = 0; i < p->n_traffic; i++) {
    const PlanTraffic *x = &p->traffic[i];
    MoveKind kind = x->op == OP_all_reduce       ? MOVE_ALL_REDUCE
                    : x->op == OP_all_gather     ? MOVE_ALL_GATHER
                    : x->op == OP_reduce_scatter ? MOVE_REDUCE_SCATTER
                                                 : MOVE_ALL_TO_ALL;
    out->times[kind] += x->times;
    out->bytes[kind] += x->bytes;
  }
}

/* Numbers of rows, which go before the rows of a layer, are not explained;
 * several sums may be one exchange. */
static bool same_sent(const Sent *a, const Sent *b, int64_t layers) {
  for (int k = MOVE_REDUCE_SCATTER; k < MOVE_COUNT; k++) {
    int64_t more = k == MOVE_ALL_TO_ALL ? layers : 0;
    if (b->times[k] > a->times[k] + more || b->bytes[k] < a->bytes[k] ||
        b->bytes[k] > a->bytes[k] + more * 4096)
      return false;
    if (k != MOVE_ALL_REDUCE && b->times[k] != a->times[k] + more) return false;
  }
  return true;
}

static bool run(Module *m, const char *first, const char *last) {
  Pipeline p = {.options = {.opt_level = 2, .reshard_limit = INT64_MAX},
                .from = first,
                .stop_after = last};
  return pass_run(&p, m);
}

static void check_model(const char *path, const char *mesh, int64_t layers) {
  Ctx cx = {0};
  Topology t;
  Sent explained = {0}, planned = {0};
  PlanPoint *point = NEW(&cx.perm, PlanPoint);
  FeOptions fe = {.path = path, .mesh = &mesh, .n_mesh = 1};
  Module *m = fe_compile(&cx, &fe);
  bool ok = m && topology(&cx, "link x any 1 GB/s 1 us\n", &t) &&
            run(m, NULL, "shard");
  PlanRows *rows = ok ? plan_rows_new(m) : NULL;
  if (ok) add_explained(m, ir_main_entry(m)->region, &explained);
  ok = ok && run(m, "partition", "plan") && plan_point(m, rows, &t, point);
  if (!ok) diag_print(&cx, stdout);
  add_planned(point, &planned);
  CHECK(sym_fmt(&cx, "%s on %s sends what is explained", path, mesh),
        ok && point->sent > 0 && same_sent(&explained, &planned, layers),
        "%lld bytes", (long long)point->sent);
  ctx_free(&cx);
}

static void test_models(void) {
  static const char *const meshes[] = {"dev=8", "data=2,expert=4",
                                       "data=4,model=2",
                                       "dev=2,data=2,model=2"};
  for (size_t i = 0; i < COUNT_OF(meshes); i++) {
    check_model("models/lm_moe.dsl", meshes[i], i == 2 ? 0 : 1);
    check_model("models/lm_4lstm.dsl", meshes[i], 0);
    check_model("models/lm_wide.dsl", meshes[i], 0);
  }
}

int main(void) {
  test_cases();
  test_all_bytes();
  test_models();
  return failures != 0;
}
