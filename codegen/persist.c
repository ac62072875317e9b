/* persist.c: which loops can be one kernel each, and which had better be.
 *
 * A loop that is launched turn by turn waits for a launch behind another, a few
 * microseconds, and reads the same weights again and again. One kernel for all
 * turns waits for its own blocks to meet instead, and keeps weights on the chip
 * where there is room. Its products are less busy than those of launches, so
 * that large ones are no gain: times are guessed for both, and compared.
 *
 * What may be in a body: products of two matrices, the right one being the same
 * in every turn, and launches of kind map, row and cols, or product. Values are
 * where the plan has put them for launches turn by turn, for between any two
 * stages all blocks meet. */
#include "persist.h"

#include <string.h>

/* Seconds, guessed for all GPUs: between two launches of a graph that wait for
 * each other; until all blocks have met; until what another block wrote is
 * there. And how much faster the second cache is than memory. */
static const double launch_time = 2.5e-6, meet_time = 1.3e-6,
                    load_time = 0.4e-6, cache = 2;
enum {
  DEEP = 32,     /* of a product's depth, that are loaded at once */
  AHEAD = 4,     /* the same where the right operand is on the chip */
  SLOWER = 8,    /* products of few warps than the most there can be */
  MOST_ARGS = MOERT_PARAM_BYTES / 8 - 1
};

/* ---- what can be --------------------------------------------------------- */

int cg_loops_around(const Node *scan) {
  int depth = 0;
  for (const Node *n = scan->region->owner; n; n = n->region->owner)
    depth += n->op == OP_scan;
  return depth;
}

/* Whether the value of the body is the same in every turn. */
static bool stays(const Node *scan, const Value *v) {
  int64_t changing = 1 + attr_int(scan, "carries") + attr_int(scan, "scanned");
  return !v->def && v->index >= changing;
}

/* What a launch that is not of another kind multiplies by; else NULL. */
static const Node *product_of(const Node *n) {
  if (n->op != OP_fused) return n;
  return strcmp(attr_sym(n, "kind"), "product") ? NULL : ir_product_node(n);
}

/* Why the launch cannot be part of such a kernel, or NULL. */
static const char *launch_fault(const Node *scan, const Node *n) {
  CtProduct p;
  const Node *c = product_of(n);
  if (!c) return NULL;
  if (c->op != OP_contract) return "its body has more than products and maps";
  if (!ir_product(c, &p) || p.groups)
    return "a product is not one of two matrices";
  const Value *right = n->op == OP_fused
                           ? ir_product_operand(c, p.arg[CT_RIGHT])
                           : c->ins.data[p.arg[CT_RIGHT]];
  if (n->op == OP_fused) right = n->ins.data[right->index];
  return stays(scan, right)
             ? NULL
             : "a product's right operand differs from turn to turn";
}

static const char *body_fault(const Node *scan) {
  const Value *index = scan->body->params.data[0];
  if (attr_bool(scan, "counted")) return "its turns are counted as it runs";
  bool works = false;
  for (uint32_t i = 0; i < scan->body->nodes.len; i++) {
    const Node *n = scan->body->nodes.data[i];
    for (uint32_t k = 0; k < n->ins.len; k++)
      if (n->ins.data[k] == index) return "its body reads the number of a turn";
    if (n->op == OP_reshape) {
      if (!cg_same_place(&n->ins.data[0]->place, &n->outs.data[0]->place))
        return "its body copies";
      continue;
    }
    const char *why = launch_fault(scan, n);
    if (why) return why;
    works = true;
  }
  return works ? NULL : "its body does nothing";
}

/* ---- arguments ----------------------------------------------------------- */

static uint32_t arg_of(Arena *a, PsLoop *l, const Value *v, int depth) {
  for (uint32_t i = 0; i < l->args.len; i++)
    if (l->args.data[i].v == v) return i;
  vec_push(a, &l->args, ((PsArg){v, v->place.stride[depth]}));
  return l->args.len - 1;
}

static bool is_launch(const Node *n) {
  return n->op != OP_reshape;
}

static bool is_written(const Node *scan, const Value *v) {
  return v->def && v->def->region == scan->body && is_launch(v->def);
}

/* Those that are written are the last ones. */
static void find_args(Arena *a, PsLoop *l) {
  const Node *scan = l->scan;
  int depth = cg_loops_around(scan);
  uint32_t read = 0;
  for (int written = 0; written < 2; written++) {
    for (uint32_t i = 0; i < l->parts.len; i++) {
      const Node *n = l->parts.data[i].n;
      const ValueVec *of[] = {&n->ins, &n->outs};
      for (int k = 0; k < 2; k++)
        for (uint32_t j = 0; j < of[k]->len; j++)
          if (is_written(scan, of[k]->data[j]) == written)
            arg_of(a, l, of[k]->data[j], depth);
    }
    if (!written) read = l->args.len;
  }
  l->n_outs = l->args.len - read;
  for (uint32_t i = 0; i < l->parts.len; i++) {
    PsPart *p = &l->parts.data[i];
    const Node *n = p->n;
    p->args = NEW_ARRAY(a, uint32_t, n->ins.len + n->outs.len + 1);
    for (uint32_t j = 0; j < n->ins.len; j++)
      p->args[j] = arg_of(a, l, n->ins.data[j], depth);
    for (uint32_t j = 0; j < n->outs.len; j++)
      p->args[n->ins.len + j] = arg_of(a, l, n->outs.data[j], depth);
  }
}

/* ---- launches ------------------------------------------------------------ */

/* Keeps the right operand on the chip where there is room left. */
static PsPart part_of(Ctx *cx, PsLoop *l, const Node *n, const Isa *isa,
                      const CgGpu *gpu) {
  Isa alone = *isa; /* no teams but those that hold; many short vectors */
  CtHeld h;
  PsPart p = {.n = n};
  alone.cores = 0;
  alone.lanes = alone.least;
  if (n->op == OP_contract && !ct_held_by(n, isa, &h) &&
      l->held_bytes + h.bytes + PS_SCRATCH <= gpu->shared) {
    p.held = true;
    p.k = ct_held(cx, n, &h);
    l->held_bytes += p.k->held_bytes;
  } else {
    p.k = cg_lower(cx, n, &alone);
  }
  return p;
}

/* Blocks that a stage can have work for. */
static int64_t blocks_of(const KStage *s) {
  return s->team ? s->count : (s->count + PS_WARPS - 1) / PS_WARPS;
}

static const char *fit(PsLoop *l, const CgGpu *gpu) {
  WarpGrid *g = &l->grid;
  int64_t scratch = 0;
  *g = (WarpGrid){.blocks = 1, .threads = PS_WARPS * 32, .shares = true};
  for (uint32_t i = 0; i < l->parts.len; i++) {
    const Kernel *k = l->parts.data[i].k;
    for (uint32_t j = 0; j < k->stages.len; j++) {
      const KStage *s = &k->stages.data[j];
      int64_t bytes = (s->scratch_bytes + 127) / 128 * 128;
      if (!s->team) bytes *= PS_WARPS;
      if (bytes > scratch) scratch = bytes;
      if (blocks_of(s) > g->blocks) g->blocks = blocks_of(s);
      assert(!s->team || l->parts.data[i].held);
    }
  }
  if (g->blocks > gpu->cores) g->blocks = gpu->cores;
  if (scratch > PS_SCRATCH) return "it needs too much shared memory";
  g->shared_bytes = l->held_bytes + scratch;
  return l->args.len > MOST_ARGS ? "it has too many operands" : NULL;
}

/* ---- what it takes ------------------------------------------------------- */

static double most(double x, double y) {
  return x > y ? x : y;
}

/* Of one turn: as launches. */
static double time_of_launch(const PsPart *p, const CgGpu *gpu, double flops,
                             double rate) {
  double bytes = ir_usual_bytes(p->n) / gpu->bytes;
  uint32_t stages = p->n->op == OP_contract ? 1 : p->k->stages.len;
  return stages * launch_time + most(bytes, rate > 0 ? flops / rate : 0);
}

/* The same within the kernel: loads that wait for each other, products by as
 * many blocks as there are, and a meeting. */
static double time_of_part(const PsLoop *l, const PsPart *p, const CgGpu *gpu,
                           double flops, double rate) {
  uint32_t stages = p->held ? 1 : p->k->stages.len;
  double left = 0; /* bytes of the left operand, which all blocks read */
  double loads = 1, share = (double)l->grid.blocks / gpu->cores;
  const Node *c = product_of(p->n);
  CtProduct product;
  if (c && ir_product(c, &product)) {
    double deep = (double)product.k.size / DEEP;
    left = (double)(product.m.size * product.k.size * l->grid.blocks) *
           dtype_info[product.dtype].bytes;
    loads = p->held ? deep / PS_WARPS / AHEAD : deep;
    loads = most(loads, 1) * most((double)product.m.size / (p->held ? 64 : 32),
                                  1);
  }
  double bytes = c ? left : ir_usual_bytes(p->n);
  bytes /= gpu->bytes * (c ? cache : 1);
  double work = rate > 0 ? SLOWER * flops / (rate * share) : 0;
  return stages * meet_time + loads * load_time + most(bytes, work);
}

static void guess(PsLoop *l, const Isa *isa, const CgGpu *gpu) {
  double turns = (double)l->turns;
  l->graph = 0;
  l->persistent = launch_time + (double)(l->held_bytes * l->grid.blocks) /
                                    gpu->bytes; /* to bring them there */
  for (uint32_t i = 0; i < l->parts.len; i++) {
    const PsPart *p = &l->parts.data[i];
    double flops = 2 * ir_usual_macs(p->n);
    Dtype dtype = cg_product_dtype(p->n);
    double rate = gpu->flops[dtype];
    bool tf32 = dtype == DT_f32 && isa->has & KN_TF32; /* of launches alone */
    l->graph += turns * time_of_launch(p, gpu, flops, tf32 ? gpu->tf32 : rate);
    l->persistent += turns * time_of_part(l, p, gpu, flops, rate);
  }
}

/* ---- the door ------------------------------------------------------------ */

void cg_persist(Ctx *cx, const Node *scan, const Isa *isa, const CgGpu *gpu,
                PsLoop *out) {
  Arena *a = &cx->scratch;
  *out = (PsLoop){.scan = scan,
                  .turns = attr_int(scan, "length"),
                  .reverse = attr_bool(scan, "reverse"),
                  .why = body_fault(scan)};
  if (out->why) return;
  for (uint32_t i = 0; i < scan->body->nodes.len; i++) {
    const Node *n = scan->body->nodes.data[i];
    if (!is_launch(n)) continue;
    PsPart p = part_of(cx, out, n, isa, gpu);
    if (!p.k) internal_error("no kernel of a loop's launch");
    vec_push(a, &out->parts, p);
  }
  find_args(a, out);
  out->why = fit(out, gpu);
  if (!out->why) guess(out, isa, gpu);
}

bool cg_persists(const PsLoop *l, CgScan scan) {
  switch (scan) {
  case CG_SCAN_AUTO: return !l->why && l->persistent < l->graph;
  case CG_SCAN_GRAPH: return false;
  case CG_SCAN_PERSISTENT: return !l->why;
  }
  return false;
}
