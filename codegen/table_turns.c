/* table_turns.c: loops that are one kernel each, as records.
 *
 *   TURNS k12_turns %h, %zx, ..., %zh, %y     instead of the loop,
 *   LOOP 32                                   where the GPU has room for all
 *     LAUNCH ...                              of its blocks at once
 *   END
 *
 * Loops that do the same with operands that lie alike have one kernel. */
#include "table.h"
#include "persist.h"

#include <llvm-c/Core.h>

static uint64_t hash_of(const PsLoop *l) {
  uint64_t h = hash_bytes(0, &l->turns, sizeof l->turns);
  h = hash_bytes(h, &l->reverse, sizeof l->reverse);
  for (uint32_t i = 0; i < l->args.len; i++)
    h = hash_bytes(h, &l->args.data[i].step, sizeof l->args.data[i].step);
  for (uint32_t i = 0; i < l->parts.len; i++) {
    const PsPart *p = &l->parts.data[i];
    size_t n = (size_t)p->k->n_args;
    h = hash_bytes(h, &p->k->hash, sizeof p->k->hash);
    h = hash_bytes(h, p->args, n * sizeof *p->args);
    h = hash_bytes(h, p->k->aligned, n);
    h = hash_bytes(h, &p->k->in_place, sizeof p->k->in_place);
  }
  return h;
}

static Emitted *emit(Table *t, const PsLoop *l) {
  char name[96], stage_name[128];
  const void *key = (const void *)(uintptr_t)hash_of(l);
  Emitted *e = map_get(&t->kernels, key);
  ConstVec all = {0};
  int64_t workspace = 0;
  if (e) return e;
  e = NEW(t->a, Emitted);
  tb_symbol(t, "turns", name, sizeof name);
  for (uint32_t i = 0; i < l->parts.len; i++)
    if (l->parts.data[i].k->workspace_bytes > workspace)
      workspace = l->parts.data[i].k->workspace_bytes;
  ll_stage_name(name, 0, stage_name, sizeof stage_name);
  LLVMValueRef fn = ll_persist(t->code, t->t, l, stage_name);
  vec_push(t->a, &t->lines, ((CgLine){fn, node_loc(t->ir->cx, l->scan)}));
  KStage stage = {.count = l->turns};
  vec_push(t->a, &all, tb_launch(t, &stage, &l->grid, stage_name));
  e->kernel = tb_kernel(t, "turns", workspace, &all);
  e->symbol = sym(t->ir->cx, name);
  map_put(t->a, &t->kernels, key, e);
  return e;
}

/* Where arguments are for index 0 of this loop. */
static void add_args(Table *t, Record *r, const PsLoop *l) {
  int depth = cg_loops_around(l->scan);
  for (uint32_t i = 0; i < l->args.len; i++) {
    const Value *v = l->args.data[i].v;
    Place p = v->place;
    p.stride[depth] = 0;
    vec_push(t->a, &r->args, tb_ref(t, &v->type, &p));
  }
  r->n_outs = l->n_outs;
}

/* What all turns do; none of it is needed, for the loop's records say so. */
static void add_work(Record *r, const PsLoop *l) {
  r->dtype = DT_bool;
  for (uint32_t i = 0; i < l->parts.len; i++) {
    const Node *n = l->parts.data[i].n;
    r->flops += l->turns * tb_flops(n);
    r->bytes += l->turns * tb_bytes(n);
    Dtype dtype = cg_product_dtype(n);
    if (dtype != DT_bool) r->dtype = dtype;
  }
}

bool tb_turns(Table *t, Node *n) {
  Ctx *cx = t->ir->cx;
  PsLoop l;
  if (t->code == t->m) return false;
  cg_persist(cx, n, &t->t->isa, cg_gpu(t->t->cpu), &l);
  if (l.why && t->o->scan == CG_SCAN_PERSISTENT)
    diag_warning(cx, n->span, "this loop is not one kernel: %s", l.why);
  if (!cg_persists(&l, t->o->scan)) {
    tb_tell(t, (CgLaunch){.node = n, .symbol = "", .loop = &l}, NULL);
    return false;
  }
  for (uint32_t i = 0; i < l.parts.len; i++)
    tb_note_places(t, l.parts.data[i].n, l.parts.data[i].k);
  const Emitted *e = emit(t, &l);
  Record r = tb_record_of(t, MOERT_TURNS, n);
  r.kernel = e->kernel;
  add_args(t, &r, &l);
  add_work(&r, &l);
  CgLaunch told = {
      .node = n, .symbol = e->symbol, .loop = &l, .persists = true};
  tb_tell(t, told, &r);
  tb_add_record(t, &r);
  return true;
}
