/* ranks_run.c: see ranks_run.h. */
#include "ranks_run.h"
#include "random_graph.h"

#include <math.h>
#include <string.h>

/* ---- parts --------------------------------------------------------------- */

static double padding(Dtype dtype) {
  switch (dtype_info[dtype].kind) {
  case DK_BOOL: return 1;
  case DK_INT: return INT32_MAX;
  case DK_UINT: return UINT32_MAX;
  case DK_FLOAT: return (double)NAN;
  }
  return 0;
}

/* Where element i of a rank's part is in the whole tensor; -1: padding. */
static int64_t in_whole(const Type *whole, const Type *local,
                        const DimPart *parts, int64_t i) {
  int64_t at[MAX_RANK], index = 0;
  for (int d = local->rank; d-- > 0; i /= local->dims[d].size)
    at[d] = i % local->dims[d].size;
  for (int d = 0; d < local->rank; d++) {
    if (at[d] >= parts[d].count) return -1;
    index = index * whole->dims[d].size + parts[d].start + at[d];
  }
  return index;
}

static void parts_of(const Module *m, const Type *t, const Placement *p,
                     int64_t rank, DimPart *out) {
  for (int d = 0; d < t->rank; d++)
    out[d] = axes_part(m, p->dims[d], t->dims[d].size, rank);
}

/* What a rank has of `t` where it is placed so; padding is NaN, of integers the
 * largest. */
static Tensor *part_of(const Module *m, const Tensor *t, const Placement *p,
                       int64_t rank, Arena *a) {
  DimPart parts[MAX_RANK];
  Tensor *out = tensor_new(a, placement_local(m, &t->type, p));
  parts_of(m, &t->type, p, rank, parts);
  for (int64_t i = 0; i < type_elements(&out->type); i++) {
    int64_t from = in_whole(&t->type, &out->type, parts, i);
    out->data[i] = from < 0 ? padding(t->type.dtype) : t->data[from];
  }
  return out;
}

/* ---- operands ------------------------------------------------------------ */

static const Module *module_of(const RanksRun *r) {
  return r->whole->module;
}

static Tensor *slot_of(const RanksSlots *slots, Sym path) {
  for (uint32_t i = 0; slots && i < slots->len; i++)
    if (!strcmp(slots->data[i].path, path)) return slots->data[i].t;
  return NULL;
}

static double option_of(const Module *m, Sym name) {
  for (uint32_t i = 0; i < m->options.len; i++)
    if (!strcmp(m->options.data[i].name, name)) return m->options.data[i].value;
  return 0;
}

static double draw(const RanksRun *r, Random *random, Dtype dtype) {
  double x = random_unit(random);
  switch (dtype_info[dtype].kind) {
  case DK_BOOL: return x < 0.5;
  case DK_INT:
  case DK_UINT: return floor(x * (double)r->below);
  case DK_FLOAT: return (float)(2 * x - 1);
  }
  return 0;
}

static Tensor *operand(const RanksRun *r, const RanksSlots *slots, uint32_t i,
                       int64_t step) {
  const Binding *b = &r->whole->ins.data[i];
  const Type *t = &r->whole->region->params.data[i]->type;
  Tensor *x = b->kind == BIND_SLOT ? slot_of(slots, b->name) : NULL;
  if (x) return x;
  x = tensor_new(r->a, *t);
  Random random = {r->seed * 1000 + i};
  for (int64_t k = 0; k < type_elements(t); k++)
    x->data[k] = draw(r, &random, t->dtype);
  if (b->kind == BIND_OPTION) x->data[0] = option_of(module_of(r), b->name);
  if (b->kind == BIND_STEP) x->data[0] = (double)step;
  if (b->kind == BIND_SEED) x->data[0] = (uint32_t)r->seed;
  return x;
}

void ranks_draw(RanksRun *r, const RanksSlots *slots, int64_t step) {
  r->ins = NEW_ARRAY(r->a, Tensor *, r->whole->ins.len + 1);
  for (uint32_t i = 0; i < r->whole->ins.len; i++)
    r->ins[i] = operand(r, slots, i, step);
}

/* Slots as the last run of r->whole left them. */
static void keep(const RanksRun *r, RanksSlots *slots) {
  for (uint32_t i = 0; i < r->whole->outs.len; i++) {
    const Binding *b = &r->whole->outs.data[i];
    if (b->kind != BIND_SLOT) continue;
    uint32_t k = 0;
    while (k < slots->len && strcmp(slots->data[k].path, b->name))
      k++;
    RanksSlot kept = {b->name, r->outs[i]};
    if (k == slots->len)
      vec_push(r->a, slots, kept);
    else
      slots->data[k] = kept;
  }
}

/* What a rank is given of an input: the text shares out dim 0, or all of it. */
static Placement given(const RanksRun *r, uint32_t i) {
  const Binding *b = &r->part->ins.data[i];
  Placement p = {0};
  if (b->kind == BIND_SLOT)
    p = ir_slot(r->whole->module, b->name)->placement;
  else if (b->kind == BIND_INPUT && strstr(b->source, "share="))
    p.dims[0] = r->whole->region->params.data[i]->placement.dims[0];
  return p;
}

/* ---- results ------------------------------------------------------------- */

static bool same(double a, double b) {
  return a == b || (isnan(a) && isnan(b));
}

/* |got - want| / |want| over what counts of a part; 0 for nothing at all. */
static double difference(const Module *m, const Tensor *want, const Tensor *got,
                         const Placement *p, int64_t rank) {
  DimPart parts[MAX_RANK];
  double diff = 0, size = 0;
  parts_of(m, &want->type, p, rank, parts);
  for (int64_t i = 0; i < type_elements(&want->type); i++)
    if (isfinite(want->data[i])) size += want->data[i] * want->data[i];
  for (int64_t i = 0; i < type_elements(&got->type); i++) {
    int64_t at = in_whole(&want->type, &got->type, parts, i);
    if (at < 0 || same(got->data[i], want->data[at])) continue;
    double d = got->data[i] - want->data[at];
    diff += isfinite(d) ? d * d : INFINITY;
  }
  return diff ? sqrt(diff / size) : 0;
}

static const char *compare(RanksRun *r, Tensor **const *outs, int n,
                           double tol) {
  const Module *m = module_of(r);
  for (uint32_t i = 0; i < r->whole->outs.len; i++) {
    const Binding *b = &r->whole->outs.data[i];
    Placement p = {0};
    if (b->kind == BIND_SLOT) p = ir_slot(r->whole->module, b->name)->placement;
    for (int k = 0; k < n; k++) {
      Type local = placement_local(m, &r->outs[i]->type, &p);
      if (!type_equal(&local, &outs[k][i]->type))
        return sym_fmt(r->cx, "%s of rank %d is %s, not %s", b->name, k,
                       type_text(r->cx, &outs[k][i]->type),
                       type_text(r->cx, &local));
      double d = difference(m, r->outs[i], outs[k][i], &p, k);
      if (d > r->worst) r->worst = d;
      if (!(d <= tol))
        return sym_fmt(r->cx, "%s of rank %d differs by %g", b->name, k, d);
    }
  }
  return NULL;
}

/* All ranks say the same. */
static const char *read_rounds(RanksRun *r, Tensor **const *outs, int n) {
  r->rounds = 1;
  for (uint32_t i = 0; i < r->part->outs.len; i++) {
    if (strcmp(r->part->outs.data[i].name, "rounds")) continue;
    r->rounds = outs[0][i]->data[0];
    for (int k = 0; k < n; k++)
      if (outs[k][i]->data[0] != r->rounds) return "rounds differ over ranks";
  }
  return NULL;
}

const char *ranks_run(RanksRun *r, double tol) {
  Eval ev = {.cx = r->cx, .mode = r->mode};
  int n = (int)mesh_devices(module_of(r));
  Tensor ***ins = NEW_ARRAY(r->a, Tensor **, (size_t)n);
  Tensor ***outs = NEW_ARRAY(r->a, Tensor **, (size_t)n);
  r->outs = NEW_ARRAY(r->a, Tensor *, r->whole->outs.len + 1);
  if (ir_eval(&ev, r->whole, r->ins, r->outs, r->a)) return "one rank fails";
  for (int k = 0; k < n; k++) {
    ins[k] = NEW_ARRAY(r->a, Tensor *, r->part->ins.len + 1);
    outs[k] = NEW_ARRAY(r->a, Tensor *, r->part->outs.len + 1);
    for (uint32_t i = 0; i < r->part->ins.len; i++) {
      Placement p = given(r, i);
      ins[k][i] = part_of(module_of(r), r->ins[i], &p, k, r->a);
      if (!type_equal(&ins[k][i]->type, &r->part->region->params.data[i]->type))
        return sym_fmt(r->cx, "parameter %u has another type", i);
    }
  }
  uint32_t clamped = ir_eval_ranks(&ev, r->part, (Tensor *const *const *)ins,
                                   (Tensor **const *)outs, r->a);
  if (clamped == EVAL_FAILED) return "the ranks fail";
  if (clamped) return sym_fmt(r->cx, "%u ids are out of bounds", clamped);
  const char *why = read_rounds(r, (Tensor **const *)outs, n);
  if (why) return why;
  return compare(r, (Tensor **const *)outs, n, tol);
}

/* ---- both sides ---------------------------------------------------------- */

bool sides_split(Sides *s, Module *m, const char *from) {
  Pipeline p = {.options = {.opt_level = 2, .precision = DT_f32,
                            .expert_rows = s->expert_rows},
                .from = from,
                .stop_after = "shard"};
  if (!m || !pass_run(&p, m)) return false;
  s->whole = ir_module_clone(m);
  p.from = "partition";
  p.stop_after = "rounds";
  s->part = m;
  return pass_run(&p, m);
}

const char *sides_step(Sides *s, const char *entry, RanksSlots *slots,
                       int64_t at, EvalMode mode, int64_t below, double tol) {
  RanksRun r = {.cx = &s->cx,
                .whole = ir_entry(s->whole, entry),
                .part = ir_entry(s->part, entry),
                .mode = mode,
                .a = &s->a,
                .seed = 7 + (uint64_t)at,
                .below = below};
  ranks_draw(&r, slots, at);
  const char *why = ranks_run(&r, tol);
  if (r.worst > s->worst) s->worst = r.worst;
  if (r.rounds > s->rounds) s->rounds = r.rounds;
  if (!why) keep(&r, slots);
  return why;
}

void sides_free(Sides *s) {
  arena_reset(&s->a);
  ctx_free(&s->cx);
}
