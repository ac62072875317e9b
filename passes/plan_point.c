/* plan_point.c: what a step of the main entry takes on each device: memory,
 * exchanges, and time, from the planned program of one rank.
 *
 * A launch takes the longest of three times: of its products at the rate for
 * their dtype, of its elementwise operations, and of the bytes that it reads
 * and writes at the bandwidth of memory; and what the topology says that any
 * launch takes besides. All experts count as having as many rows. Launches
 * follow one another on one clock, exchanges on another: an exchange begins
 * where it stands, behind the one before it, and a `wait` ends when it has
 * come. A loop takes its turns one after the other. */
#include "planner.h"

#include <string.h>

typedef struct Step {
  const Topology *t;
  const Module *m;
  const PlanRows *rows;
  PlanPoint *out;
  bool no_rate[DTYPE_COUNT]; /* products that the topology does not know */
} Step;

/* What one run of a launch does. */
typedef struct Work {
  double flops[DTYPE_COUNT], ops, bytes;
} Work;

/* ---- one launch ---------------------------------------------------------- */

/* The rows that come, of those that may. */
static double share(const Step *s, const Value *v) {
  return plan_rows_share(s->rows, &v->type);
}

/* Of a node with a ragged operand or result. */
static double share_of_node(const Step *s, const Node *n) {
  double least = 1;
  for (uint32_t i = 0; i < n->ins.len + n->outs.len; i++) {
    double x = share(s, i < n->ins.len ? n->ins.data[i]
                                       : n->outs.data[i - n->ins.len]);
    if (x < least) least = x;
  }
  return least;
}

static void add_work(const Step *s, const Node *n, Work *w) {
  if (ir_macs(n))
    w->flops[n->ins.data[0]->type.dtype] +=
        2 * (double)ir_macs(n) * share_of_node(s, n);
  if (op_is(n->op, TRAIT_EW))
    w->ops += (double)type_elements(&n->outs.data[0]->type) *
              share(s, n->outs.data[0]);
  for (uint32_t i = 0; n->body && i < n->body->nodes.len; i++)
    add_work(s, n->body->nodes.data[i], w);
}

static Work work_of(const Step *s, const Node *n) {
  Work w = {0};
  add_work(s, n, &w);
  for (uint32_t i = 0; i < n->ins.len; i++)
    w.bytes += (double)ir_bytes_read(n, i) * share(s, n->ins.data[i]);
  for (uint32_t i = 0; i < n->outs.len; i++)
    w.bytes += (double)type_bytes(&n->outs.data[i]->type) *
               share(s, n->outs.data[i]);
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

/* Returns the seconds of one time. */
static double add_launch(Step *s, const Node *n, double times) {
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
  return seconds + s->t->launch;
}

/* ---- two clocks ---------------------------------------------------------- */

typedef struct Clocks {
  double now, sent; /* when the launches, the exchanges so far end */
  Map there;        /* exchange -> double, when it has come */
} Clocks;

static void exchange(Step *s, Clocks *c, const Node *n, double times) {
  double seconds =
      plan_exchange(s->m, s->rows, s->t, n, (int64_t)times, s->out);
  double *there = NEW(&s->m->cx->scratch, double);
  *there = (c->sent > c->now ? c->sent : c->now) + seconds;
  c->sent = *there;
  map_put(&s->m->cx->scratch, &c->there, n, there);
  if (!ir_wait_of(n)) c->now = *there;
}

static void wait_for(Clocks *c, const Node *n) {
  const double *there = map_get(&c->there, ir_waited(n));
  if (there && *there > c->now) c->now = *there;
}

/* A reshape is a launch only where the plan copies. */
static bool takes_nothing(const Node *n) {
  const Value *from = n->op == OP_reshape ? n->ins.data[0] : NULL;
  return n->op == OP_rank ||
         (from && memcmp(&from->place, &n->outs.data[0]->place,
                         sizeof from->place) == 0);
}

/* Seconds of one run of the region, which is run so many times. */
static double add_region(Step *s, const Region *r, double times) {
  Clocks c = {0};
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    double turns = n->op == OP_scan ? ir_usual_turns(n) : 1;
    if (n->op == OP_scan)
      c.now += turns * add_region(s, n->body, times * turns);
    else if (ir_is_exchange(n))
      exchange(s, &c, n, times);
    else if (n->op == OP_wait)
      wait_for(&c, n);
    else if (!takes_nothing(n))
      c.now += add_launch(s, n, times);
  }
  return c.sent > c.now ? c.sent : c.now;
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

static void add_slots(const Module *m, PlanPoint *p) {
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    Type local = placement_local(m, &s->type, &s->placement);
    *(s->kind == SLOT_PARAM   ? &p->params
      : s->kind == SLOT_OPTIM ? &p->optim
                              : &p->states) += type_bytes(&local);
  }
}

/* The largest arena of all entries counts. */
static void add_entries(Module *m, PlanPoint *p) {
  Entry *most = NULL;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    Entry *e = m->entries.data[i];
    p->ends += e->input_bytes + e->report_bytes;
    if (!most || e->arena_bytes > most->arena_bytes) most = e;
  }
  p->gradients = plan_gradients(m, most);
  p->activations = most->arena_bytes - p->gradients;
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

bool plan_point(Module *m, const PlanRows *rows, const Topology *t,
                PlanPoint *out) {
  out->devices = mesh_devices(m);
  out->tokens = out->cost.tokens;
  mesh_text(m, out);
  if (!plan_links_suffice(m, t)) return false;
  add_slots(m, out);
  add_entries(m, out);
  out->memory = out->params + out->optim + out->states + out->ends +
                out->gradients + out->activations;
  Step s = {.t = t, .m = m, .rows = rows, .out = out};
  out->scheduled = add_region(&s, ir_main_entry(m)->region, 1);
  return has_rates(&s, m->cx);
}
