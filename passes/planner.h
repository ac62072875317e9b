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

/* All exchanges of one kind over the same axes: bytes are those that each
 * device sends in a step. */
typedef struct PlanTraffic {
  MoveKind kind;
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
  /* bytes a device */
  int64_t params, optim, states, ends; /* ends: inputs and reports */
  int64_t gradients, activations, exchange;
  int64_t memory; /* all of these */
  PlanTraffic traffic[MAX_TRAFFIC];
  int n_traffic;
  int64_t sent;      /* bytes by all exchanges of a step */
  double exchanging; /* seconds */
  double flops[DTYPE_COUNT], ops, bytes;
  int64_t launches;
  double seconds[BOUND_COUNT]; /* of the launches by what bounds them */
  double launching;
  PlanLayer layers[MAX_PLAN_LAYERS];
  int n_layers;
  CostTotals cost; /* of the whole model, as --report=cost counts */
} PlanPoint;

/* `whole`: the planned program for one device; `parts`: the same model on the
 * mesh, after shard. False: diagnostics were reported. */
bool plan_point(const Module *whole, Module *parts, const Topology *t,
                PlanPoint *out);
double plan_computing(const PlanPoint *p); /* seconds of all launches */

/* plan_traffic.c: what the entry's reshards send. */
bool plan_traffic(Module *m, const Entry *e, const Topology *t,
                  PlanPoint *out);
/* Seconds of one step of a move; *crossed is the outermost link it takes. */
double plan_move_seconds(const Module *m, const Topology *t, const MoveStep *s,
                         const TopologyLink **crossed);

/* plan_match.c: which part of a value of the planned program a device has. */
typedef struct PlanMatch PlanMatch;
PlanMatch *plan_match_new(Arena *a, const Module *whole, const Entry *e,
                          Module *parts);
double plan_share(PlanMatch *m, const Value *v);
/* Of the multiply-adds of a contraction in a launch. */
double plan_macs_share(PlanMatch *m, const Node *contract);

/* plan_memory.c: the arena of an entry, of parts of its buffers. */
typedef struct PlanArena {
  int64_t bytes, gradients; /* those alive at the peak */
} PlanArena;
PlanArena plan_arena(Ctx *cx, const Module *whole, Entry *e, PlanMatch *m);

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
