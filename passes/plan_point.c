/* plan_point.c: what a step of the main entry takes on each device of a mesh:
 * memory, exchanges, and the time of its launches.
 *
 * The launches are those of the program for one device, each with the part of
 * its operands, results and multiply-adds that a device has (plan_match.c). A
 * launch takes the longest of three times: of its products at the rate for
 * their dtype, of its elementwise operations, and of the bytes that it reads
 * and writes at the bandwidth of memory; and what the topology says that any
 * launch takes besides. A loop takes its turns one after the other. Launches
 * follow one another, so a step takes their sum, and that of its exchanges
 * where nothing overlaps. */
#include "planner.h"

#include <string.h>

typedef struct Step {
  const Topology *t;
  PlanMatch *match;
  PlanPoint *out;
  bool no_rate[DTYPE_COUNT]; /* products that the topology does not know */
} Step;

/* What one run of a launch does on one device. */
typedef struct Work {
  double flops[DTYPE_COUNT], ops, bytes;
} Work;

/* ---- one launch ---------------------------------------------------------- */

static void add_product(Step *s, const Node *n, Work *w) {
  double macs = (double)ir_macs(n) * plan_macs_share(s->match, n);
  w->flops[n->ins.data[0]->type.dtype] += 2 * macs;
}

/* The part that a device has of a launch: that of its largest tensor. */
static double launch_share(Step *s, const Node *n) {
  const Value *best = NULL;
  for (uint32_t i = 0; i < n->ins.len + n->outs.len; i++) {
    const Value *v = i < n->ins.len ? n->ins.data[i]
                                    : n->outs.data[i - n->ins.len];
    if (!best || type_elements(&v->type) > type_elements(&best->type)) best = v;
  }
  return best ? plan_share(s->match, best) : 1;
}

static void add_body(Step *s, const Region *r, double share, Work *w) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->body) add_body(s, n->body, share, w);
    if (n->op == OP_contract) add_product(s, n, w);
    if (op_is(n->op, TRAIT_EW))
      w->ops += share * (double)type_elements(&n->outs.data[0]->type);
  }
}

static Work work_of(Step *s, const Node *n) {
  Work w = {0};
  if (n->op == OP_contract) add_product(s, n, &w);
  if (n->body) add_body(s, n->body, launch_share(s, n), &w);
  for (uint32_t i = 0; i < n->ins.len; i++)
    w.bytes += (double)ir_bytes_read(n, i) *
               plan_share(s->match, n->ins.data[i]);
  for (uint32_t i = 0; i < n->outs.len; i++)
    w.bytes += (double)type_bytes(&n->outs.data[i]->type) *
               plan_share(s->match, n->outs.data[i]);
  return w;
}

static double seconds_of(Step *s, const Work *w, PlanBound *bound) {
  double by[BOUND_COUNT] = {0}, most = 0;
  for (int d = 0; d < DTYPE_COUNT; d++) {
    if (!(w->flops[d] > 0)) continue;
    if (s->t->products[d] > 0)
      by[BOUND_PRODUCTS] += w->flops[d] / s->t->products[d];
    else
      s->no_rate[d] = true;
  }
  by[BOUND_ELEMENTWISE] = w->ops / s->t->elementwise;
  by[BOUND_MEMORY] = w->bytes / s->t->bandwidth;
  *bound = BOUND_MEMORY;
  for (int b = 0; b < BOUND_COUNT; b++)
    if (by[b] > most) most = by[b], *bound = (PlanBound)b;
  return most;
}

/* ---- all launches -------------------------------------------------------- */

/* Two components of the path below the first: "lm/moe/experts". */
static PlanLayer *layer_row(PlanPoint *p, const char *path) {
  size_t n = 0;
  for (int slashes = 0; path[n] && (path[n] != '/' || ++slashes < 3);)
    n++;
  if (!n) path = "(no layer)", n = strlen(path);
  if (n >= PLAN_TEXT) n = PLAN_TEXT - 1;
  for (int i = 0; i < p->n_layers; i++)
    if (strlen(p->layers[i].name) == n &&
        memcmp(p->layers[i].name, path, n) == 0)
      return &p->layers[i];
  if (p->n_layers == MAX_PLAN_LAYERS) return &p->layers[MAX_PLAN_LAYERS - 1];
  PlanLayer *l = &p->layers[p->n_layers++];
  memcpy(l->name, path, n);
  return l;
}

static void add_launch(Step *s, const Node *n, double times) {
  PlanPoint *p = s->out;
  PlanBound bound;
  Work w = work_of(s, n);
  double seconds = seconds_of(s, &w, &bound);
  PlanLayer *l = layer_row(p, n->layer ? n->layer : "");
  for (int d = 0; d < DTYPE_COUNT; d++) {
    p->flops[d] += times * w.flops[d];
    l->flops += times * w.flops[d];
  }
  p->ops += times * w.ops;
  p->bytes += times * w.bytes;
  l->bytes += times * w.bytes;
  p->launches += (int64_t)times;
  p->seconds[bound] += times * seconds;
  p->launching += times * s->t->launch;
  l->seconds += times * (seconds + s->t->launch);
}

/* A reshape is a launch only where the plan copies. */
static bool takes_nothing(const Node *n) {
  const Value *from = n->op == OP_reshape ? n->ins.data[0] : NULL;
  return from && memcmp(&from->place, &n->outs.data[0]->place,
                        sizeof from->place) == 0;
}

static void add_region(Step *s, const Region *r, double times) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op == OP_scan)
      add_region(s, n->body, times * (double)attr_int(n, "length"));
    else if (!takes_nothing(n))
      add_launch(s, n, times);
  }
}

static bool has_rates(const Step *s, Ctx *cx) {
  bool ok = true;
  for (int d = 0; d < DTYPE_COUNT; d++) {
    if (!s->no_rate[d]) continue;
    diag_error(cx, s->t->span, "the topology lacks 'product %s', which the "
                               "program has",
               dtype_info[d].name);
    ok = false;
  }
  return ok;
}

double plan_computing(const PlanPoint *p) {
  double sum = p->launching;
  for (int b = 0; b < BOUND_COUNT; b++)
    sum += p->seconds[b];
  return sum;
}

/* ---- memory -------------------------------------------------------------- */

static int64_t local_bytes(const Module *m, const Type *t,
                           const Placement *p) {
  Type local = placement_local(m, t, p);
  return type_bytes(&local);
}

static void add_slots(const Module *m, PlanPoint *p) {
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    int64_t bytes = local_bytes(m, &s->type, &s->placement);
    *(s->kind == SLOT_PARAM   ? &p->params
      : s->kind == SLOT_OPTIM ? &p->optim
                              : &p->states) += bytes;
  }
}

static void add_ends(const Module *m, const Entry *e, PlanPoint *p) {
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Value *v = e->region->params.data[i];
    if (e->ins.data[i].kind == BIND_INPUT)
      p->ends += local_bytes(m, &v->type, &v->placement);
  }
  for (uint32_t i = 0; i < e->outs.len; i++) {
    const Value *v = e->region->results.data[i];
    if (e->outs.data[i].kind != BIND_SLOT)
      p->ends += local_bytes(m, &v->type, &v->placement);
  }
}

/* The largest arena of all entries counts. */
static void add_arenas(const Module *whole, Module *parts, PlanPoint *p) {
  Ctx *cx = parts->cx;
  PlanArena most = {0};
  for (uint32_t i = 0; i < whole->entries.len; i++) {
    Entry *e = whole->entries.data[i];
    PlanMatch *m = plan_match_new(&cx->scratch, whole, e, parts);
    PlanArena a = plan_arena(cx, whole, e, m);
    if (a.bytes > most.bytes) most = a;
  }
  p->gradients = most.gradients;
  p->activations = most.bytes - most.gradients;
}

/* ---- all of it ----------------------------------------------------------- */

static void mesh_text(const Module *m, PlanPoint *p) {
  Buf b = {0};
  buf_add(&b, m->mesh.len ? "" : "one device");
  for (uint32_t i = 0; i < m->mesh.len; i++)
    buf_fmt(&b, "%s%s=%lld", i ? "," : "", m->mesh.data[i].name,
            (long long)m->mesh.data[i].size);
  snprintf(p->mesh, sizeof p->mesh, "%s", b.data);
  buf_free(&b);
}

bool plan_point(const Module *whole, Module *parts, const Topology *t,
                PlanPoint *out) {
  Ctx *cx = parts->cx;
  Entry *e = ir_main_entry(whole), *twin = ir_main_entry(parts);
  out->devices = mesh_devices(parts);
  out->tokens = out->cost.tokens;
  mesh_text(parts, out);
  if (!plan_traffic(parts, twin, t, out)) return false;
  add_slots(parts, out);
  for (uint32_t i = 0; i < parts->entries.len; i++)
    add_ends(parts, parts->entries.data[i], out);
  add_arenas(whole, parts, out);
  out->memory = out->params + out->optim + out->states + out->ends +
                out->gradients + out->activations + out->exchange;
  Step s = {.t = t, .out = out};
  s.match = plan_match_new(&cx->scratch, whole, e, parts);
  add_region(&s, e->region, 1);
  return has_rates(&s, cx);
}
