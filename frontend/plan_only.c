/* plan_only.c: what a model takes on each device of a mesh, with nothing
 * compiled: --plan-only, for one mesh or for a list of numbers of devices. A
 * batch that the mesh does not divide is planned larger, which is told.
 *
 * The model goes through all passes, for any mesh; passes/plan_point.c makes
 * numbers of what they planned for one rank, and no code is made. Each point
 * has a context of its own, freed when it is done. Where memory does not
 * suffice, more points tell what would. */
#include "plan_only.h"

#include "../passes/planner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Topologies that moec brings along: models/topologies/NAME.topo. */
static const struct {
  const char *name, *text;
} shipped[] = {
#include "topologies.inc"
};

/* ---- the command line ---------------------------------------------------- */

/* "16", or "16..2048": doubled from one to the other. */
static bool read_range(const char *text, size_t n, PlanOnly *p) {
  char *end;
  long long from = strtoll(text, &end, 10), to = from;
  if (end == text || from < 1 || from > MAX_RANKS) return false;
  if (strncmp(end, "..", 2) == 0) {
    const char *second = end + 2;
    to = strtoll(second, &end, 10);
    if (end == second || to > MAX_RANKS) return false;
  }
  if (end != text + n) return false;
  for (; from <= to; from *= 2) {
    if (p->n_devices == MAX_PLAN_POINTS) return false;
    p->devices[p->n_devices++] = from;
    if (from == to) return true;
  }
  return false;
}

static bool is_grown(const Options *o, const char *define) {
  size_t n = strcspn(define, "=");
  for (const char *g = o->grow; g && *g;) {
    size_t len = strcspn(g, ",");
    if (len == n && memcmp(g, define, n) == 0) return true;
    g += len + (g[len] != '\0');
  }
  return false;
}

/* Each const of --grow has a number from -D. */
static bool check_grow(Ctx *cx, const Options *o, Sym *why) {
  for (const char *g = o->grow; g && *g;) {
    size_t n = strcspn(g, ",");
    bool found = false;
    for (uint32_t i = 0; i < o->defines.len && !found; i++) {
      const char *d = o->defines.data[i];
      char *end;
      if (strcspn(d, "=") != n || memcmp(d, g, n) != 0) continue;
      long long x = strtoll(d + n + 1, &end, 10);
      found = x > 0 && x <= MAX_DIM && !*end;
    }
    if (!found) {
      *why = sym_fmt(cx, "--grow=%s: -D %.*s=NUMBER says what it is at first",
                     o->grow, (int)n, g);
      return false;
    }
    g += n + (g[n] != '\0');
  }
  return true;
}

bool plan_only_read(Ctx *cx, const Options *o, PlanOnly *out, Sym *why) {
  *out = (PlanOnly){.o = o};
  for (const char *p = o->plan_only; p && *p;) {
    size_t n = strcspn(p, ",");
    if (!read_range(p, n, out)) {
      *why = sym_fmt(cx, "--plan-only takes numbers of devices, %d at most, as "
                         "16,64 or 16..2048, not '%s'",
                     MAX_PLAN_POINTS, o->plan_only);
      return false;
    }
    p += n + (p[n] != '\0');
  }
  if (out->n_devices && !o->mesh.len) {
    *why = sym(cx, "--plan-only of several sizes needs --mesh: its first axis "
                   "grows");
    return false;
  }
  if (o->grow && !out->n_devices) {
    *why = sym(cx, "--grow needs sizes, as in --plan-only=16..2048");
    return false;
  }
  return check_grow(cx, o, why);
}

/* ---- topologies ---------------------------------------------------------- */

/* The source of --topology: a shipped one by its name, or a file. */
static bool open_topology(Ctx *cx, const Options *o, Topology *out) {
  const char *name = o->topology ? o->topology : "cpu";
  const char *names[COUNT_OF(shipped)];
  uint32_t file = 0;
  for (size_t i = 0; i < COUNT_OF(shipped); i++) {
    names[i] = shipped[i].name;
    if (strcmp(name, shipped[i].name) == 0)
      file = source_add(cx, sym_fmt(cx, "models/topologies/%s.topo", name),
                        shipped[i].text, strlen(shipped[i].text));
  }
  if (file || source_read(cx, name, &file)) return topology_read(cx, file, out);
  const char *reason = strerror(errno);
  const char *near = nearest_word(name, names, COUNT_OF(names));
  diag_error(cx, (Span){0}, "cannot read topology '%s': %s", name, reason);
  if (near)
    diag_note(cx, (Span){0}, "there is a topology '%s'", near);
  else
    for (size_t i = 0; i < COUNT_OF(names); i++)
      diag_note(cx, (Span){0}, "there is a topology '%s'", names[i]);
  return false;
}

/* ---- one point ----------------------------------------------------------- */

typedef struct Asked {
  const Options *o;
  FeOptions fe;
  PassOptions passes;
  bool quiet; /* no warnings, and errors are nobody's */
} Asked;

static bool run_passes(const Asked *a, Module *m, const char *first,
                       const char *last) {
  Pipeline p = {.options = a->passes,
                .from = first,
                .stop_after = last,
                .time_passes = a->o->time_passes && !a->quiet};
  return pass_run(&p, m);
}

/* "B=128, N=64" */
static void tell_fitted(const SymVec *v, char *out) {
  Buf b = {0};
  buf_add(&b, "");
  for (uint32_t i = 0; i < v->len; i++)
    buf_fmt(&b, "%s%s", i ? ", " : "", v->data[i]);
  snprintf(out, PLAN_TEXT, "%s", b.data);
  buf_free(&b);
}

static bool find_point(Ctx *cx, const Asked *a, PlanPoint *out) {
  Topology t;
  SymVec fitted = {0};
  FeOptions fe = a->fe;
  if (!open_topology(cx, a->o, &t)) return false;
  fe.fitted = &fitted;
  Module *m = fe_compile(cx, &fe);
  tell_fitted(&fitted, out->fitted);
  Entry *e = m ? ir_main_entry(m) : NULL;
  if (m && !e) diag_error(cx, (Span){0}, "the model has no entry to plan");
  if (!e) return false;
  out->cost = cost_totals(m, e);
  if (!run_passes(a, m, NULL, "shard")) return false;
  PlanRows *rows = plan_rows_new(m);
  return run_passes(a, m, pass_info[pass_find("shard") + 1].name, "plan") &&
         plan_point(m, rows, &t, out);
}

static bool plan_one(const Asked *a, PlanPoint *out) {
  Ctx cx = {0};
  *out = (PlanPoint){0};
  bool ok = find_point(&cx, a, out);
  if (!a->quiet) diag_print(&cx, stderr);
  ctx_free(&cx);
  return ok;
}

/* ---- meshes -------------------------------------------------------------- */

/* The axes of --mesh with their sizes; one that is not a number is 0. */
typedef struct Axis {
  Sym name;
  int64_t size;
} Axis;
typedef VEC(Axis) AxisVec;

static AxisVec read_mesh(Ctx *cx, const Options *o) {
  AxisVec v = {0};
  for (uint32_t i = 0; i < o->mesh.len; i++)
    for (const char *p = o->mesh.data[i]; *p;) {
      size_t n = strcspn(p, ","), eq = strcspn(p, "=");
      Axis x = {sym_n(cx, p, eq < n ? eq : n), 0};
      if (eq < n) x.size = strtoll(p + eq + 1, NULL, 10);
      if (x.size > MAX_DIM) x.size = (int64_t)MAX_DIM + 1;
      vec_push(&cx->perm, &v, x);
      p += n + (p[n] != '\0');
    }
  return v;
}

/* "dev=16,model=2", with one axis of another size, added where it is new. */
static const char *mesh_with(Ctx *cx, const AxisVec *v, Sym name,
                             int64_t size) {
  Buf b = {0};
  bool found = false;
  buf_add(&b, "");
  for (uint32_t i = 0; i < v->len; i++) {
    bool this = v->data[i].name == name;
    found |= this;
    buf_fmt(&b, "%s%s=%lld", i ? "," : "", v->data[i].name,
            (long long)(this ? size : v->data[i].size));
  }
  if (!found) buf_fmt(&b, "%s%s=%lld", b.len ? "," : "", name,
                      (long long)size);
  Sym text = sym(cx, b.data);
  buf_free(&b);
  return text;
}

/* ---- what would fit ------------------------------------------------------ */

enum { MOST_DEVICES = 1 << 16 };

static void note_fit(Ctx *cx, const char *what, const PlanPoint *p) {
  char bytes[16];
  bytes_text(p->memory, bytes);
  diag_note(cx, (Span){0}, "%s%s%s needs %s a device", what,
            *p->fitted ? ", with " : "", p->fitted, bytes);
}

/* Doubles an axis until that has not saved memory twice. */
static bool suggest_axis(Ctx *cx, Asked a, const AxisVec *mesh, Sym axis,
                         const PlanPoint *now, double memory) {
  int64_t size = 1, least = now->memory;
  int vain = 0;
  for (uint32_t i = 0; i < mesh->len; i++)
    if (mesh->data[i].name == axis) size = mesh->data[i].size;
  int64_t others = now->devices / (size > 0 ? size : 1);
  for (size *= 2; size > 0 && size * others <= MOST_DEVICES; size *= 2) {
    PlanPoint p;
    const char *text = mesh_with(cx, mesh, axis, size);
    a.fe.mesh = &text;
    a.fe.n_mesh = 1;
    if (!plan_one(&a, &p)) {
      diag_note(cx, (Span){0}, "the model has sizes that --mesh %s does not "
                               "divide",
                text);
      return false;
    }
    vain = (double)p.memory > 0.99 * (double)least ? vain + 1 : 0;
    if (vain == 2) return false;
    if (p.memory < least) least = p.memory;
    if ((double)p.memory > memory) continue;
    note_fit(cx, sym_fmt(cx, "--mesh %s", text), &p);
    return true;
  }
  return false;
}

static bool suggest_bf16(Ctx *cx, Asked a, double memory) {
  PlanPoint p;
  if (a.passes.precision != DT_f32) return false;
  a.passes.precision = DT_bf16;
  if (!plan_one(&a, &p) || (double)p.memory > memory) return false;
  note_fit(cx, "--precision=bf16", &p);
  return true;
}

static void refuse(Ctx *cx, const Asked *asked, const PlanPoint *p,
                   const Topology *t) {
  char needs[16], has[16], parts[3][16];
  SymVec axes = {0};
  AxisVec mesh = read_mesh(cx, asked->o);
  Asked a = *asked;
  bool any = false;
  a.quiet = true;
  a.passes.reshard_errors = false;
  bytes_text(p->memory, needs);
  bytes_text((int64_t)t->memory, has);
  bytes_text(p->params + p->optim, parts[0]);
  bytes_text(p->gradients, parts[1]);
  bytes_text(p->activations, parts[2]);
  diag_error(cx, t->span, "too little memory: a step needs %s a device, and "
                          "each has %s",
             needs, has);
  diag_note(cx, (Span){0}, "parameters and optimiser %s, gradients %s, "
                           "activations and all else of a step %s",
            parts[0], parts[1], parts[2]);
  fe_axes(cx, &a.fe, &axes);
  for (uint32_t i = 0; i < axes.len; i++)
    any |= suggest_axis(cx, a, &mesh, axes.data[i], p, t->memory);
  any |= suggest_bf16(cx, a, t->memory);
  if (!any)
    diag_note(cx, (Span){0}, "more devices along one axis of the mesh are not "
                             "enough, nor is --precision=bf16");
}

/* ---- several points ------------------------------------------------------ */

/* The definitions for `n` devices. */
static bool grow(Ctx *cx, const PlanOnly *p, int64_t n, TextVec *out) {
  for (uint32_t i = 0; i < p->o->defines.len; i++) {
    const char *d = p->o->defines.data[i];
    size_t len = strcspn(d, "=");
    if (is_grown(p->o, d)) {
      int64_t x = strtoll(d + len + 1, NULL, 10) * n;
      if (x % p->devices[0]) {
        diag_error(cx, (Span){0}, "--grow: %s times %lld / %lld is no whole "
                                  "number",
                   d, (long long)n, (long long)p->devices[0]);
        return false;
      }
      d = sym_fmt(cx, "%.*s=%lld", (int)len, d,
                  (long long)(x / p->devices[0]));
    }
    vec_push(&cx->perm, out, d);
  }
  return true;
}

static bool point_of(Ctx *cx, const PlanOnly *p, Asked a, int i,
                     PlanPoint *out) {
  AxisVec mesh = read_mesh(cx, p->o);
  TextVec defines = {0};
  int64_t n = p->devices[i], others = 1;
  for (uint32_t k = 1; k < mesh.len && others <= n; k++)
    others *= mesh.data[k].size > 0 ? mesh.data[k].size : 1;
  if (n % others) {
    diag_error(cx, (Span){0}, "%lld devices are not a multiple of %lld, those "
                              "of the axes but '%s'",
               (long long)n, (long long)others, mesh.data[0].name);
    return false;
  }
  const char *text = mesh_with(cx, &mesh, mesh.data[0].name, n / others);
  if (!grow(cx, p, n, &defines)) return false;
  a.fe.mesh = &text;
  a.fe.n_mesh = 1;
  a.fe.defines = defines.data;
  a.fe.n_defines = defines.len;
  if (i) a.passes.reshard_limit = INT64_MAX; /* warned already */
  if (plan_one(&a, out)) return true;
  diag_error(cx, (Span){0}, "there is no plan for %lld devices%s",
             (long long)n,
             p->o->grow || !i ? ""
                              : "; with --grow=CONSTS the batch can grow, too");
  return false;
}

static bool plan_list(Ctx *cx, const PlanOnly *p, const Asked *a,
                      const Topology *t, Buf *out) {
  PlanPoint *points = NEW_ARRAY(&cx->perm, PlanPoint, MAX_PLAN_POINTS);
  for (int i = 0; i < p->n_devices; i++)
    if (!point_of(cx, p, *a, i, &points[i])) return false;
  (p->o->json ? plan_json : plan_table)(p->o->input, points, p->n_devices, t,
                                        out);
  return true;
}

bool plan_only_run(Ctx *cx, const PlanOnly *p, const FeOptions *fe,
                   const PassOptions *passes, Buf *out) {
  Topology t;
  PlanPoint *point = NEW(&cx->perm, PlanPoint);
  Asked a = {.o = p->o, .fe = *fe, .passes = *passes};
  if (!open_topology(cx, p->o, &t)) return false;
  if (p->n_devices) return plan_list(cx, p, &a, &t, out);
  if (!plan_one(&a, point)) return false;
  if ((double)point->memory > t.memory) {
    refuse(cx, &a, point, &t);
    return false;
  }
  if (p->o->json)
    plan_json(p->o->input, point, 1, &t, out);
  else
    plan_report(p->o->input, point, &t, out);
  return true;
}
