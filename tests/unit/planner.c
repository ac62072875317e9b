/* planner.c: how long an exchange takes on a topology, against sums by hand;
 * and that levels of links carry all bytes, whatever the mesh. */
#include "../../passes/planner.h"
#include "check.h"

#include <math.h>
#include <string.h>

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
    MoveStep s = {.kind = cases[i].kind, .bytes = 8000000};
    const TopologyLink *crossed = NULL;
    for (int k = 0; k < 2 && cases[i].axes[k] >= 0; k++)
      s.axes = axes_add(s.axes, cases[i].axes[k]);
    double us = 1e6 * plan_move_seconds(m, &t, &s, &crossed);
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
          MoveStep s = {.kind = (MoveKind)kind, .bytes = 1000000};
          const TopologyLink *crossed = NULL;
          if (over & 1) s.axes = axes_add(s.axes, 0);
          if (over & 2) s.axes = axes_add(s.axes, 1);
          if (axes_parts(m, s.axes) == 1) continue;
          double us = 1e6 * plan_move_seconds(m, &t, &s, &crossed);
          n++;
          wrong += fabs(us - 1000) > 1e-6;
        }
  CHECK("links carry all bytes", n > 300 && wrong == 0, "%d of %d do not",
        wrong, n);
  ctx_free(&cx);
}

int main(void) {
  test_cases();
  test_all_bytes();
  return failures != 0;
}
