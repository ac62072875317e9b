/* shard.c: placements, what takes a value from one to another, and the promise
 * of shard: each node but `reshard` finds its operands where its rule wants
 * them, and makes its results where they are written to be. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"

#include <stdlib.h>
#include <string.h>

/* ---- reading ------------------------------------------------------------- */

/* A module on mesh {a=2, b=4, c=3} with two such values. */
static Module *read_types(Ctx *cx, const char *from, const char *to) {
  Buf b = {0};
  buf_fmt(&b,
          "moec-ir 1\nmesh {a=2, b=4, c=3}\nentry @f() {\n"
          "  %%x = const {value=0} : %s\n  %%y = const {value=0} : %s\n"
          "  return probe \"x\" = %%x\n}\n",
          from, to);
  uint32_t file = source_add(cx, "case", b.data, b.len);
  buf_free(&b);
  Module *m = ir_read(cx, file);
  if (!m) diag_print(cx, stdout);
  return m;
}

static const Value *value(const Module *m, int i) {
  return m->entries.data[0]->region->nodes.data[i]->outs.data[0];
}

/* ---- moves --------------------------------------------------------------- */

static const struct {
  const char *name, *from, *to, *steps;
} moves[] = {
    {"nothing to do", "f32[8 @a, 4]", "f32[8 @a, 4]", ""},
    {"cut smaller", "f32[8, 4]", "f32[8 @b @a, 4]", "slice @b 0, slice @a 0"},
    {"gathered", "f32[8 @a, 4]", "f32[8, 4]", "all_gather @a 64"},
    {"gathered from the minor end", "f32[8 @a @b, 4]", "f32[8, 4]",
     "all_gather @b 48, all_gather @a 64"},
    {"from dim to dim", "f32[8 @b, 4]", "f32[8, 4 @b]", "all_to_all @b 24"},
    {"the minor axis goes elsewhere", "f32[8 @a @b, 4]", "f32[8 @a, 4 @b]",
     "all_to_all @b 12"},
    {"the major axis goes elsewhere", "f32[8 @a @b, 4]", "f32[8 @b, 4 @a]",
     "permute @a @b 16, all_to_all @a 8"},
    {"the major axis goes", "f32[8 @a @b, 4]", "f32[8 @b, 4]",
     "permute @a @b 16, all_gather @a 16"},
    {"another order of axes", "f32[8 @a @b, 4]", "f32[8 @b @a, 4]",
     "permute @a @b 16"},
    {"another order of axes, uneven", "f32[6 @a @b, 4]", "f32[6 @b @a, 4]",
     "all_gather @b 48, all_gather @a 48, slice @b 0, slice @a 0"},
    {"both axes go elsewhere", "f32[8 @a @b, 8]", "f32[8, 8 @a @b]",
     "all_to_all @a @b 28"},
    {"both axes go elsewhere, uneven", "f32[8 @a @c, 8]", "f32[8, 8 @a @c]",
     "all_gather @c 128, all_to_all @a 64, slice @c 0"},
    {"two dims change places", "f32[8 @a, 4 @b]", "f32[8 @b, 4 @a]",
     "all_gather @a 16, all_to_all @b 24, slice @a 0"},
    {"a sum for all", "f32[8, 4; sum @b]", "f32[8, 4]", "all_reduce @b 192"},
    {"a sum in parts", "f32[8, 4; sum @b]", "f32[8 @b, 4]",
     "reduce_scatter @b 96"},
    {"a sum of parts", "f32[8 @a, 4; sum @b]", "f32[8 @a, 4]",
     "all_reduce @b 96"},
    {"cut before it is summed", "f32[8, 4; sum @b]", "f32[8 @a, 4]",
     "slice @a 0, all_reduce @b 96"},
    {"two sums", "f32[8; max @a @b]", "f32[8]",
     "all_reduce @a @b 56"},
    {"a sum of one number", "f32[; sum @b]", "f32[]", "all_reduce @b 6"},
    {"parts of uneven size", "f32[8 @c]", "f32[8]", "all_gather @c 24"},
    {"a sum in parts of uneven size", "f32[8; sum @c]", "f32[8 @c]",
     "reduce_scatter @c 24"},
    {"to parts of uneven size", "f32[9 @c, 4]", "f32[9, 4 @c]",
     "all_to_all @c 48"},
    {"rows to experts", "f32[8, r<=64 @b, 4]", "f32[8 @b, r<=64, 4]",
     "all_to_all @b 192"},
    {"rows of groups to experts", "f32[8, r<=64 @a @b, 4]",
     "f32[8 @b, r<=64 @a, 4]", "all_to_all @b 96"},
    {"rows to experts over two axes", "f32[8, r<=64 @a @b, 4]",
     "f32[8 @a @b, r<=64, 4]", "all_to_all @a @b 112"},
    {"rows to experts, joined before", "f32[8, r<=64 @b, 4 @a]",
     "f32[8 @b, r<=64, 4]", "all_gather @a 128, all_to_all @b 192"},
    {"rows to tokens, summed after", "f32[8 @b, r<=64, 4; sum @a]",
     "f32[8, r<=64 @b, 4 @a]", "all_to_all @b 192, reduce_scatter @a 128"},
};

static void add_step(const Module *m, const MoveStep *s, int k, Buf *out) {
  buf_fmt(out, "%s%s", k ? ", " : "", move_names[s->kind]);
  axes_text(m, s->axes, out);
  buf_fmt(out, " %lld", (long long)s->bytes);
}

static void test_moves(void) {
  for (size_t i = 0; i < COUNT_OF(moves); i++) {
    Ctx cx = {0};
    Buf got = {0};
    buf_add(&got, "");
    Module *m = read_types(&cx, moves[i].from, moves[i].to);
    if (m) {
      const Value *x = value(m, 0), *y = value(m, 1);
      Move move = reshard_move(m, &x->type, &x->placement, &y->placement);
      for (int k = 0; k < move.n; k++)
        add_step(m, &move.steps[k], k, &got);
      const Placement *end =
          move.n ? &move.steps[move.n - 1].after : &x->placement;
      if (!placement_equal(end, &y->placement)) buf_add(&got, ", not there");
    }
    CHECK(moves[i].name, strcmp(got.data, moves[i].steps) == 0, "%s", got.data);
    buf_free(&got);
    ctx_free(&cx);
  }
}

/* ---- one device's part --------------------------------------------------- */

static const struct {
  const char *name, *type, *local;
} locals[] = {
    {"a part", "f32[64 @a @b, 32, 6 @c]", "f32[8, 32, 2]"},
    {"rounded up", "f32[5 @b]", "f32[2]"},
    {"more devices than elements", "f32[1 @a, 3 @b]", "f32[1, 1]"},
    {"parts of a sum are whole", "f32[5; sum @b]", "f32[5]"},
    {"rows of some experts", "f32[8 @b, r<=64, 4]", "f32[2, r<=16, 4]"},
    {"rows of some tokens", "f32[8, r<=64 @a, 4]", "f32[8, r<=32, 4]"},
    {"rows of both", "f32[8 @b, r<=60 @a, 4]", "f32[2, r<=8, 4]"},
};

static void test_locals(void) {
  for (size_t i = 0; i < COUNT_OF(locals); i++) {
    Ctx cx = {0};
    Module *m = read_types(&cx, locals[i].type, "f32[1]");
    const char *got = "cannot be read";
    if (m) {
      Type t = placement_local(m, &value(m, 0)->type, &value(m, 0)->placement);
      got = type_text(&cx, &t);
    }
    CHECK(locals[i].name, strcmp(got, locals[i].local) == 0, "%s", got);
    ctx_free(&cx);
  }
}

/* ---- what shard promises ------------------------------------------------- */

/* The axes on the dims of a factor: the same at every end; NULL: not so. */
static const char *factor_axes(const ShardUnit *u, int f, Axes *out) {
  bool seen = false;
  for (int side = 0; side < 2; side++) {
    uint32_t n = side ? u->outs.len : u->ins.len;
    for (uint32_t i = 0; i < n; i++) {
      const ShardEnd *e = side ? &u->outs.data[i] : &u->ins.data[i];
      for (int d = 0; d < e->v->type.rank; d++) {
        if (e->factor[d] != f) continue;
        if (seen && e->v->placement.dims[d] != *out)
          return "dims that go together are split differently";
        *out = e->v->placement.dims[d];
        seen = true;
      }
    }
  }
  return NULL;
}

static const char *whole_dims(const ShardEnd *e) {
  for (int d = 0; d < e->v->type.rank; d++)
    if (e->factor[d] < 0 && e->v->placement.dims[d])
      return "a dim is split that may not be";
  return NULL;
}

/* What is wrong with the placements around a unit; NULL: nothing. */
static const char *wrong(const ShardUnit *u) {
  Axes parts = 0, passed = 0;
  const char *why = NULL;
  for (uint32_t i = 0; i < u->ins.len && !why; i++) {
    why = whole_dims(&u->ins.data[i]);
    passed |= u->ins.data[i].v->placement.partial;
  }
  if (passed && !u->linear) return "an operand is a part of a sum";
  for (int f = 0; f < u->n_factors && !why; f++) {
    Axes axes = 0;
    why = factor_axes(u, f, &axes);
    if (u->factors[f].kind != FACTOR_KEPT) parts |= axes;
  }
  for (uint32_t i = 0; i < u->outs.len && !why; i++) {
    const Placement *p = &u->outs.data[i].v->placement;
    why = whole_dims(&u->outs.data[i]);
    if (!p->partial != !(parts | passed)) why = "parts of a sum are lost";
  }
  return why;
}

static void check_units(const char *name, Module *m) {
  Arena a = {0};
  Shard s = {.cx = m->cx, .m = m, .a = &a};
  const char *why = NULL;
  const ShardUnit *u = NULL;
  shard_units(&s);
  for (uint32_t i = 0; i < s.units.len && !why; i++) {
    u = s.units.data[i];
    if (!u->n || u->n->op != OP_reshard) why = wrong(u);
  }
  CHECK(name, !why, "%s: %s", u->what, why);
  arena_reset(&a);
}

static void test_models(void) {
  static const char *const models[] = {"models/lm_moe.dsl",
                                       "models/lm_4lstm.dsl",
                                       "models/lm_wide.dsl",
                                       "models/lm_transformer.dsl"};
  static const char *const meshes[] = {
      "dev=8", "data=2,expert=4", "data=4,model=2",
      "dev=2,data=2,expert=2,model=2", "model=8"};
  for (size_t i = 0; i < COUNT_OF(models); i++)
    for (size_t k = 0; k < COUNT_OF(meshes); k++) {
      Ctx cx = {0};
      FeOptions fe = {.path = models[i], .mesh = &meshes[k], .n_mesh = 1};
      Pipeline p = {.options = {.opt_level = 2}, .stop_after = "shard"};
      Module *m = fe_compile(&cx, &fe);
      Sym name = sym_fmt(&cx, "%s on %s", models[i], meshes[k]);
      if (m && pass_run(&p, m))
        check_units(name, m);
      else
        CHECK(name, false, "it is not placed");
      ctx_free(&cx);
    }
}

int main(void) {
  test_moves();
  test_locals();
  test_models();
  return failures != 0;
}
