/* planner.h: what --plan-only needs beyond pass.h: a cluster's description, and
 * what a step takes there. Sections in the order of the .c files. */
#ifndef MOEC_PLANNER_H
#define MOEC_PLANNER_H

#include "pass.h"

/* ---- topology.c: a description of devices and of what joins them --------- */

enum { MAX_LINKS = 6 };

/* A level of links, the innermost first: groups of so many neighbours are
 * joined by it. */
typedef struct TopologyLink {
  Sym name;
  int64_t devices; /* 0: any number */
  double bandwidth; /* bytes a second that one device sends */
  double latency;   /* seconds that a message takes besides */
  Span span;
} TopologyLink;

typedef struct Topology {
  Sym name, device; /* the file's name; what a device is, for people */
  Span span;        /* of the file's start */
  double memory;    /* bytes a device */
  double bandwidth; /* of its memory, bytes a second, both ways together */
  double products[DTYPE_COUNT]; /* FLOPs a second of large products; 0: no */
  double elementwise; /* scalar operations a second */
  double launch;      /* seconds that a launch takes besides */
  TopologyLink links[MAX_LINKS];
  int n_links;
} Topology;

/* Reads a registered source. False: diagnostics were reported. */
bool topology_read(Ctx *cx, uint32_t file, Topology *out);

/* ---- plan_*.c: what a step takes ----------------------------------------- */

enum { PLAN_TEXT = 64, MAX_TRAFFIC = 48, MAX_PLAN_LAYERS = 64 };

/* All exchanges of one op over the same axes: bytes are those that each device
 * sends in a step. */
typedef struct PlanTraffic {
  OpKind op;
  char axes[PLAN_TEXT], link[PLAN_TEXT]; /* the outermost that it crosses */
  int64_t times, bytes;
  double seconds;
} PlanTraffic;

/* What bounds a launch. */
typedef enum PlanBound {
  BOUND_PRODUCTS,
  BOUND_ELEMENTWISE,
  BOUND_MEMORY,
  BOUND_COUNT
} PlanBound;

typedef struct PlanLayer {
  char name[PLAN_TEXT];
  double flops, bytes, seconds;
} PlanLayer;

/* What a step takes on each device; plain data that outlives its module. */
typedef struct PlanPoint {
  int64_t devices, tokens; /* of a step, in all */
  char mesh[PLAN_TEXT];
  char fitted[PLAN_TEXT]; /* consts that the mesh changes: "B=128" */
  /* bytes a device */
  int64_t params, optim, states, ends; /* ends: inputs and reports */
  int64_t gradients, activations;      /* the arena, as it is at its peak */
  int64_t memory;                      /* all of these */
  PlanTraffic traffic[MAX_TRAFFIC];
  int n_traffic;
  int64_t sent;      /* bytes by all exchanges of a step */
  double exchanging; /* seconds */
  double flops[DTYPE_COUNT], ops, bytes;
  int64_t launches;
  double seconds[BOUND_COUNT]; /* of the launches by what bounds them */
  double launching;
  double scheduled; /* of a step in the order that schedule made */
  PlanLayer layers[MAX_PLAN_LAYERS];
  int n_layers;
  CostTotals cost; /* of the whole model, as --report=cost counts */
} PlanPoint;

/* plan_rows.c: how many of its rows a ragged value has on a device, when all
 * experts have as many: its type only has a bound. */
typedef struct PlanRows PlanRows;
/* Of a module that shard has placed, before partition; lives in cx->perm. */
PlanRows *plan_rows_new(const Module *m);
double plan_rows_share(const PlanRows *r, const Type *t); /* 1: not ragged */

/* plan_point.c: of a planned module. False: diagnostics were reported. */
bool plan_point(Module *m, const PlanRows *rows, const Topology *t,
                PlanPoint *out);
double plan_computing(const PlanPoint *p); /* seconds of all launches */

/* plan_traffic.c */
/* Adds the node to the traffic; seconds of one time. */
double plan_exchange(const Module *m, const PlanRows *rows, const Topology *t,
                     const Node *n, int64_t times, PlanPoint *out);
/* Seconds in which each device of a group over `axes` sends so many bytes. */
double plan_link_seconds(const Module *m, const Topology *t, MoveKind kind,
                         Axes axes, double bytes,
                         const TopologyLink **crossed);
/* Whether the links join all devices of the mesh. */
bool plan_links_suffice(const Module *m, const Topology *t);

/* plan_memory.c: bytes of gradients that are alive when most of the arena
 * is. */
int64_t plan_gradients(Module *m, Entry *e);

/* plan_report.c: `model` is what people call it. Columns are the same for any
 * topology. */
void plan_report(const char *model, const PlanPoint *p, const Topology *t,
                 Buf *out);
/* One row a point: how a model scales. */
void plan_table(const char *model, const PlanPoint *p, int n,
                const Topology *t, Buf *out);
/* The same as JSON: an object, or a list of them where n is not 1. */
void plan_json(const char *model, const PlanPoint *p, int n, const Topology *t,
               Buf *out);

#endif
