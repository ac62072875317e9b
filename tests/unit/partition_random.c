/* partition_random.c: random programs, meshes and annotations through shard and
 * partition, half of them with gradients: by virtual ranks they compute what
 * one rank computes without, and so they do after all passes that follow.
 *
 *   partition_random [FIRST SEEDS]
 *
 * A program that fails is named by its seed: partition_random SEED 1 is that
 * one alone, and prints it. Sums run in another order by ranks: all floats are
 * f64, and one program in a hundred may differ, where a last bit turned a
 * comparison over. */
#include "../../passes/pass.h"
#include "check.h"
#include "random_graph.h"
#include "ranks_run.h"

#include <stdlib.h>
#include <string.h>

enum { SEEDS = 300, MOST_DEVICES = 8 };

typedef struct Places {
  Module *m;
  Random random;
} Places;

static int64_t below(Places *p, int64_t n) {
  return random_below(&p->random, n);
}
static bool chance(Places *p, int percent) {
  return below(p, 100) < percent;
}

/* ---- meshes and placements ----------------------------------------------- */

static void draw_mesh(Places *p) {
  static const int64_t sizes[] = {2, 2, 2, 3, 4, 5, 1};
  static const char *const names[] = {"a", "b", "c"};
  Ctx *cx = p->m->cx;
  int64_t devices = 1, n = 1 + below(p, 3);
  for (int64_t i = 0; i < n; i++) {
    int64_t size = sizes[below(p, COUNT_OF(sizes))];
    if (devices * size > MOST_DEVICES) size = 1;
    MeshAxis axis = {.name = sym(cx, names[i]), .size = size};
    vec_push(&cx->perm, &p->m->mesh, axis);
    devices *= size;
  }
}

/* `even`: only where the parts are of one size. */
static Placement draw_place(Places *p, const Type *t, bool even) {
  Placement at = {0};
  unsigned left = (1u << p->m->mesh.len) - 1;
  for (int tries = 0; t->rank && tries < (int)p->m->mesh.len; tries++) {
    int axis = (int)below(p, p->m->mesh.len), d = (int)below(p, t->rank);
    if (!(left >> axis & 1) || at.closed >> d & 1) continue;
    if (chance(p, 8) && !at.dims[d]) {
      at.closed |= (uint8_t)(1u << d);
      continue;
    }
    Axes axes = axes_add(at.dims[d], axis);
    if (even && t->dims[d].size % axes_parts(p->m, axes)) continue;
    at.dims[d] = axes;
    left &= ~(1u << axis);
  }
  return at;
}

/* ---- annotations --------------------------------------------------------- */

static void place_params(Places *p, Entry *e) {
  for (uint32_t i = 0; i < p->m->slots.len; i++) {
    Slot *s = p->m->slots.data[i];
    s->placement = draw_place(p, &s->type, false);
  }
  for (uint32_t i = 0; i < e->ins.len; i++) {
    Value *v = e->region->params.data[i];
    if (e->ins.data[i].kind == BIND_SLOT)
      v->placement = ir_slot(p->m, e->ins.data[i].name)->placement;
    if (e->ins.data[i].kind == BIND_INPUT)
      v->placement = draw_place(p, &v->type, true);
  }
}

static Value *annotate(Places *p, Builder *b, Value *v) {
  Value *by = ir_unary(b, OP_annotate, v);
  by->placement = draw_place(p, &v->type, false);
  return by;
}

/* Annotates some of a region's values for those who read them later. */
static void annotate_region(Places *p, Region *r) {
  Ctx *cx = p->m->cx;
  NodeVec nodes = {0};
  Map now = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    for (uint32_t k = 0; k < n->ins.len; k++) {
      Value *by = map_get(&now, n->ins.data[k]);
      if (by) n->ins.data[k] = by;
    }
    if (n->body) annotate_region(p, n->body);
    vec_push(&cx->perm, &nodes, n);
    Builder b = ir_builder(cx, r);
    b.out = &nodes;
    for (uint32_t k = 0; k < n->outs.len; k++) {
      Value *v = n->outs.data[k];
      if (type_is_ragged(&v->type) || !v->type.rank || !chance(p, 20)) continue;
      map_put(&cx->perm, &now, v, annotate(p, &b, v));
    }
  }
  for (uint32_t i = 0; i < r->results.len; i++) {
    Value *by = map_get(&now, r->results.data[i]);
    if (by) r->results.data[i] = by;
  }
  r->nodes = nodes;
}

/* ---- gradients ----------------------------------------------------------- */

/* Adds gradients of the sum of all floats with respect to the slots. */
static void derive(Ctx *cx, Entry *e) {
  Builder b = ir_builder(cx, e->region);
  Value *ins[8] = {ir_const(&b, type_scalar(DT_f32), 0)};
  uint32_t made = e->region->nodes.len - 1, n = 1;
  for (uint32_t i = 0; i < made; i++) {
    Value *v = e->region->nodes.data[i]->outs.data[0];
    if (v->type.dtype != DT_f32 || type_is_ragged(&v->type)) continue;
    int64_t size = type_elements(&v->type);
    v = ir_reshape(&b, v, type_of(DT_f32, 1, &size));
    v = ir_reduce(&b, OP_reduce_sum, v, "a->");
    ins[0] = ir_binary(&b, OP_add, ins[0], v);
  }
  for (uint32_t i = 0; i < e->ins.len; i++)
    if (e->ins.data[i].kind == BIND_SLOT) ins[n++] = e->region->params.data[i];
  Node *grad = ir_node(&b, OP_grad, NULL, ins, n, NULL);
  for (uint32_t i = 0; i + 1 < n; i++)
    ir_bind_out(e, (Binding){BIND_PROBE, sym_fmt(cx, "g%u", i), NULL},
                grad->outs.data[i]);
}

/* ---- one program --------------------------------------------------------- */

static Module *draw(Ctx *cx, uint64_t seed) {
  RandomGraph o = {.seed = seed,
                   .nodes = 8 + (int)(seed % 5) * 8,
                   .high = seed % 2,
                   .routing = seed % 2,
                   .scans = seed % 3 == 0};
  Module *m = random_graph(cx, &o);
  Places p = {m, {seed * 7 + 3}};
  if (seed % 4 < 2) derive(cx, m->entries.data[0]);
  draw_mesh(&p);
  place_params(&p, m->entries.data[0]);
  annotate_region(&p, m->entries.data[0]->region);
  ir_sweep(m->entries.data[0]);
  return m;
}

static void print(Module *m) {
  Buf text = {0};
  ir_print(m, (PrintOptions){0}, &text);
  fputs(text.data, stdout);
  buf_free(&text);
}

/* By all ranks what `whole` computes; NULL: they agree, else why not. */
static const char *compare(Ctx *cx, Module *whole, Module *part,
                           uint64_t seed) {
  Arena a = {0};
  RanksRun r = {.cx = cx,
                .whole = whole->entries.data[0],
                .part = part->entries.data[0],
                .mode = EVAL_TYPED,
                .a = &a,
                .seed = seed,
                .below = 40};
  ranks_draw(&r, NULL, 3);
  Sym why = ranks_run(&r, 1e-9);
  if (why) why = sym_fmt(cx, "%s", why);
  arena_reset(&a);
  return why;
}

/* NULL: the ranks agree. Bits of f32 cannot be looked at in f64: programs that
 * do are none. */
static const char *check(Ctx *cx, uint64_t seed, bool verbose, int *none) {
  Pipeline p = {.options = {.opt_level = 2, .precision = DT_f64},
                .from = "autodiff",
                .stop_after = "precision"};
  Module *m = draw(cx, seed);
  if (!ir_verify(m, false)) return "the program is not valid";
  if (!pass_run(&p, m)) {
    if (verbose) diag_print(cx, stdout);
    cx->errors = 0;
    ++*none;
    return NULL;
  }
  p.from = p.stop_after = "shard";
  if (!pass_run(&p, m)) return "is not placed";
  if (verbose) print(m);
  Module *part = ir_module_clone(m);
  p.from = p.stop_after = "partition";
  if (!pass_run(&p, part)) return "is not partitioned";
  if (verbose) print(part);
  const char *why = compare(cx, m, part, seed);
  if (why || seed % 2) return why;
  p.from = "recompute";
  p.stop_after = NULL;
  if (!pass_run(&p, part)) return "later passes fail";
  why = compare(cx, m, part, seed);
  return why ? sym_fmt(cx, "after all passes %s", why) : NULL;
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
  uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : SEEDS;
  int differ = 0, none = 0;
  for (uint64_t seed = first; seed < first + n; seed++) {
    Ctx cx = {0};
    const char *why = check(&cx, seed, n == 1, &none);
    bool hard = why && !strstr(why, "differs");
    differ += why != NULL;
    if (why) printf("# partition_random %llu 1: %s\n",
                    (unsigned long long)seed, why);
    if (cx.errors) diag_print(&cx, stdout);
    if (hard) failures++;
    ctx_free(&cx);
  }
  CHECK("random programs over ranks",
        !failures && differ * 100 <= (int)n && none * 2 <= (int)n,
        "%d of %d differ, %d say nothing", differ, (int)n, none);
  return failures != 0;
}
