/* pass.h: the passes, their driver, and the reports.
 *
 * A pass is a function from module to module, in place. It returns false after
 * reporting diagnostics (a user's mistake); its own mistakes are asserts, and
 * output that fails ir_verify is one. Sections in the order of the .c files. */
#ifndef MOEC_PASS_H
#define MOEC_PASS_H

#include "../ir/ir.h"

enum { FACT_GRADS = 1, FACT_EXPANDED = 2, FACT_FUSED = 4, FACT_PLANNED = 8 };

/* How often each rewrite of a pass fired, for --time-passes. */
typedef struct RuleCount {
  const char *rule;
  uint32_t count;
} RuleCount;
typedef struct PassStats {
  RuleCount rules[96];
  uint32_t n;
} PassStats;

/* What the user says of a layer and those within it. */
typedef struct LayerDtype {
  const char *layer;
  Dtype dtype; /* of the operands of its products: DT_f32 or DT_bf16 */
  bool found;  /* set by the precision pass: it has a product */
} LayerDtype;

/* What a program is made for, and what passes need to know of it. */
typedef enum PassTarget { TARGET_CPU, TARGET_CUDA, TARGET_COUNT } PassTarget;
typedef struct TargetFacts {
  const char *name;
  bool packs;   /* operands that a loop's products read in every turn */
  bool remakes; /* gradients rather than store them */
} TargetFacts;
extern const TargetFacts target_facts[TARGET_COUNT]; /* pipeline.c */
/* The first pass that looks at them: what is before it is one for all. */
#define FIRST_OF_TARGET "layout"

typedef struct PassOptions {
  PassTarget target;
  int opt_level;      /* 0: no fusion; 2: everything */
  Dtype precision;    /* DT_f32, DT_bf16 for products, or DT_f64 */
  LayerDtype *layers; /* with DT_bf16 */
  uint32_t n_layers;
  PassStats *stats; /* may be NULL */
  bool *same;       /* see pass_same; may be NULL */
  Buf *explain;     /* what shard tells of its decisions; NULL: nothing */
  bool explain_all; /* of every value, not only of those with a name */
  int64_t reshard_limit; /* bytes above which shard warns; 0: the default */
  bool reshard_errors;   /* those warnings are errors */
  bool keep_grads; /* autodiff makes probes of what it computes */
  double expert_rows; /* rows for a rank's experts at once, times the mean; 0:
                         all there can be */
} PassOptions;
#define RESHARD_LIMIT (INT64_C(64) << 20)

typedef bool PassFn(Module *m, const PassOptions *o);
PassFn pass_simplify, pass_hoist, pass_autodiff, pass_precision,
    pass_shard, pass_partition, pass_rounds, pass_bucket, pass_recompute,
    pass_expand, pass_layout, pass_remake, pass_fuse, pass_schedule, pass_plan;

typedef struct PassInfo {
  const char *name;
  PassFn *run;
  unsigned needs, gives;
  const char *doc;
} PassInfo;
extern const PassInfo pass_info[];
extern const int pass_count;

/* ---- pipeline.c -------------------------------------------------------- */

typedef struct Pipeline {
  PassOptions options;
  const char *from;       /* first pass to run, NULL for the first of all */
  const char *stop_after; /* last pass to run, NULL for the last of all */
  bool time_passes;       /* print milliseconds and rewrites to stderr */
  /* Called with the module after each pass; number counts from 1 in the table,
   * whatever `from` is. `same`: the pass has changed nothing. May be NULL. */
  void (*after)(void *user, int number, const char *name, Module *m, bool same);
  void *user;
} Pipeline;

/* Runs the passes; verifies after each. False: diagnostics were reported. */
bool pass_run(Pipeline *p, Module *m);
int pass_find(const char *name); /* index in pass_info, -1 when unknown */
/* Those of the facts in `wanted` that hold for the module, by inspection. */
unsigned pass_facts(Module *m, unsigned wanted);
/* How a pass returns that leaves the module as it is, which then is neither
 * verified nor printed again. True. */
bool pass_same(const PassOptions *o);
/* Counts one rewrite; `rule` is a literal. */
void pass_tally(const PassOptions *o, const char *rule);

/* ---- precision_bf16.c, for precision.c ----------------------------------- */

/* False: a layer of the options has no product. */
bool precision_bf16(Module *m, const PassOptions *o);

/* ---- rewrite.c: local rewrites as rule rows ---------------------------- */

#define ANY_OP OP_COUNT

/* What a rule looks at. Nodes it makes go through `b`; they are rewritten in
 * turn before anything reads them. */
typedef struct Rewrite {
  Builder *b;
  const PassOptions *options;
  Node *n;         /* operands are up to date */
  const Map *uses; /* value -> how often it is read, see rw_uses; also holds
                      the nodes that were there when it was made */
  bool has_grads;  /* the module still has a grad op */
} Rewrite;

/* Guard and action: what takes the place of the node's only result, or NULL
 * where the rule does not apply. A rule keeps the type and makes the program
 * smaller or more canonical, so that rewriting ends. */
typedef Value *RuleFn(Rewrite *w);
typedef struct Rule {
  const char *name;
  OpKind op;     /* of the node */
  OpKind ins[2]; /* that make its first operands; ANY_OP for whatever */
  RuleFn *apply;
} Rule;

/* Rows of rules by family; the last has no name. */
extern const Rule scalar_rules[]; /* simplify.c */
extern const Rule move_rules[];   /* simplify_move.c */
extern const Rule map_rules[];    /* simplify_map.c */

/* Improves a scan in place, or replaces its results, with new nodes through
 * `b`, before it; true when it changed something. simplify_scan.c */
bool simplify_scan(Builder *b, Node *n, const Map *uses,
                   const PassOptions *o);

/* Applies the rules to the entry until none fires, merges equal nodes and
 * drops dead ones. */
void rewrite_entry(Entry *e, const Rule *const *families,
                   const PassOptions *o);

Value *rw_in(const Rewrite *w, uint32_t i);
/* What makes that operand; the first result. */
Node *rw_def(const Rewrite *w, uint32_t i);
Value *rw_result(const Rewrite *w);
uint32_t rw_uses(const Rewrite *w, const Value *v); /* 0: a new value */
bool rw_is_const(const Value *v, double *out);      /* every element *out */
bool rw_is_value(const Value *v, double value);     /* signs of 0 differ */

/* ---- autodiff.c, shared with vjp.c and vjp_scan.c ---------------------- */

/* One application of a rule: cotangents for the operands of `n` from those of
 * its results. A rule appends nodes through `b` and fills dins[i] where
 * wants[i] (elsewhere it is ignored); NULL stays where nothing flows back. */
typedef struct Vjp {
  Builder *b;
  Node *n;
  Value *const *douts; /* NULL where nothing flows in; at least one is set */
  const bool *wants;   /* operands whose cotangent is of use */
  Value **dins;
} Vjp;
typedef void VjpFn(Vjp *v);
extern VjpFn *const vjp_rules[OP_COUNT]; /* vjp.c, from ops.def */
VjpFn vjp_zero;                          /* vjp.c: has none, needs none */
VjpFn vjp_none;                          /* vjp.c: has none, an error */
VjpFn vjp_scan;                          /* vjp_scan.c */

/* Adds to `active` each value of the first n_nodes of `r` that depends, through
 * floats, on one that is in it already. */
void autodiff_active(Arena *a, const Region *r, uint32_t n_nodes, Map *active);
/* The same through the body of a scan, seeds being the parameters of the
 * operands with wants[i]; results by carried and stacked position. */
Map scan_active(Arena *a, const Node *n, const bool *wants);
/* Reverse walk over the first n_nodes of `r`: rule by rule, from the
 * cotangents in `cot` (value -> value) to those of all active values. */
void autodiff_reverse(Builder *b, const Region *r, uint32_t n_nodes,
                      const Map *active, Map *cot);
/* cot[v] += d */
void autodiff_add(Builder *b, Map *cot, Value *v, Value *d);

/* ---- loop.c: a scan taken apart and put together ----------------------- */

typedef struct LoopCarry {
  Value *init;  /* outside */
  Value *param; /* in the body */
  Value *next;  /* in the body */
  Value *out;   /* outside */
} LoopCarry;

typedef struct LoopInput {
  Value *outer, *param;
} LoopInput;

typedef struct LoopOutput {
  Value *value, *out; /* in the body; stacked, outside */
} LoopOutput;

/* The parts of a scan, free to be changed; loop_close writes them back. Nodes
 * of the body stay in n->body->nodes. */
typedef struct Loop {
  Node *n;
  int64_t length;
  bool reverse;
  Value *index;
  VEC(LoopCarry) carries;
  VEC(LoopInput) scanned;
  VEC(LoopInput) invariants;
  VEC(LoopOutput) stacked;
  LoopInput turns; /* counted at run time; without an outer value: `length` */
} Loop;

Loop loop_open(Ctx *cx, Node *n);
/* An empty loop over `length` whose body belongs to no scan yet. */
Loop loop_new(Ctx *cx, Entry *e, int64_t length, bool reverse);
/* Has a new loop take so many turns, i32[], its length being the most. */
void loop_count(Ctx *cx, Loop *l, Value *turns);
/* Makes l->n hold the parts; for a new loop makes the scan through `b`. */
void loop_close(Builder *b, Loop *l);
/* The body's parameter for an operand, the result for a body's value: the one
 * that is there, or a new one. */
Value *loop_scanned(Ctx *cx, Loop *l, Value *outer);
Value *loop_invariant(Ctx *cx, Loop *l, Value *outer);
/* The operand that an invariant parameter stands for; NULL: it is none. */
Value *loop_outer(const Loop *l, const Value *param);
Value *loop_stack(Ctx *cx, Loop *l, Value *value);
/* Adds a carry; its `next` is set by the caller. Returns its position. */
uint32_t loop_carry(Ctx *cx, Loop *l, Value *init);
/* One iteration's part of a stacked type, and back. */
Type loop_element(Type t);
Type loop_stacked(Type t, int64_t length);

/* ---- expand.c ------------------------------------------------------------ */

/* What `route` tells of the choices that have rows. */
typedef struct ExpandRoute {
  Value *ids;
  int64_t experts;
  bool drops;
  Routes rows;
} ExpandRoute;

typedef struct Expand {
  Builder b; /* where the node that is replaced stood */
  VEC(ExpandRoute) routes; /* those known in this region so far */
  Loop loop;               /* whose body the region is; n is NULL for none */
  struct Expand *outer;    /* of the region around, or NULL */
} Expand;

/* What the only result of `n` is now, as nodes appended through x->b. One for
 * each op whose row says EXPAND. */
typedef Value *ExpandFn(Expand *x, Node *n);
ExpandFn expand_exp, expand_log, expand_log1p, expand_tanh, expand_erf,
    expand_sigmoid, expand_normal, expand_uniform, expand_threefry,
    expand_dispatch, expand_combine, expand_row_dot, expand_stop_gradient;

/* ---- batch.c: an op of a loop's body, for all iterations at once ------- */

/* A body's value seen from outside of the loop. */
typedef struct Over {
  Value *v;
  bool stacked; /* one an iteration along dim 0; else the same in all */
} Over;

/* Whether the op can work on stacked operands; stacked: by operand. */
bool batch_can(const Node *n, const bool *stacked);
/* Appends through `b` what computes all iterations' results of `n` from its
 * operands: a plain clone when no operand is stacked. */
void batch_node(Builder *b, const Node *n, const Over *ins, int64_t length,
                Over *outs);

/* ---- hoist.c, shared with hoist_sink.c --------------------------------- */

/* On what a body's value depends, the last that holds. */
typedef enum LoopClass {
  CLASS_NONE,  /* not of this body */
  CLASS_FIXED, /* on invariants alone */
  CLASS_INPUT, /* on the index and scanned operands, by ops that batch */
  CLASS_CARRY  /* on carries, or not to be had outside for another reason */
} LoopClass;

typedef struct Hoist {
  Ctx *cx;
  const PassOptions *options;
  Loop l;
  Region *body;
  Builder before, after; /* around the scan */
  Map classes;           /* value -> LoopClass */
  Map uses;              /* value -> reads, a yield is one */
  bool changed;
} Hoist;

LoopClass hoist_class(const Hoist *h, const Value *v);
/* The body's value outside of the loop through `b`, made before or after it;
 * `made` remembers (value -> Over). After the loop, what it must keep for that
 * is stacked; before it, the class of `v` must not be CLASS_CARRY. */
Over hoist_outside(Hoist *h, Builder *b, Map *made, Value *v);
/* Moves sums over all iterations, and what only feeds stacked results, to
 * behind the loop. hoist_sink.c */
void hoist_sink(Hoist *h);

/* ---- layout_scan.c, for layout.c ----------------------------------------- */

/* Packs invariants of a scan for the products that read them; the packing goes
 * through `before`. */
void layout_scan(Builder *before, Node *scan, const PassOptions *o);

/* ---- fuse*.c among themselves ---------------------------------- */

/* How a group reads one value: `lead` of the value's leading dims are the
 * group's; FUSE_ROWS where sums over rows need it, FUSE_REST after those;
 * `times` elements of it are computed, repeated ones counted. */
enum { FUSE_ROWS = 1, FUSE_REST = 2 };
typedef struct FuseRead {
  int lead;
  int parts;
  double times;
  const Value *v;
} FuseRead;

/* What becomes one node: a launch, or a node that stays as it is. */
typedef struct FuseGroup FuseGroup;
struct FuseGroup {
  uint32_t id;
  Node *fixed;        /* the node that stays */
  FuseGroup *merged;  /* into that one */
  NodeVec nodes;      /* computed here, users before operands */
  ValueVec results;   /* stored, in that order too */
  VEC(FuseRead *) reads;
  Map read;           /* value -> FuseRead */
  uint64_t *reach;    /* by id: groups that need this one, at any remove */
  int rank;
  int64_t dims[MAX_RANK]; /* of the first result */
  int rows;               /* leading dims that all results share */
  int64_t widest;         /* elements of the largest value, rows' part aside */
  bool orders;            /* has an op on rows, or sums a last dim */
  bool uneven;            /* has results of several shapes */
  int column_rows;        /* `cols`: dims that are summed over; else 0 */
  int sums;               /* of any kind */
  const Node *total;      /* the last sum over all of a tensor, a tiny one's
                             aside */
  int64_t column_dims[MAX_RANK];
  Node *product;          /* `product`: the contraction, once it is certain */
  bool emitted;
};
typedef VEC(FuseGroup *) FuseGroupVec;

/* What is known of a value before groups are chosen. More than so many loads
 * are worth a store: the value is then a load of what is computed from it. */
enum { FUSE_LOADS = 2 };
typedef struct FuseValue {
  int cost;       /* scalar ops an element since the last result stored or
                     reduced */
  bool from_seed; /* computed from iotas, constants and scalars alone */
  bool at_start;  /* the same, all scalars being parameters of the region */
  int n_loads;    /* tensors of its size that this takes, to FUSE_LOADS + 1 */
  const Value *loads[FUSE_LOADS];
} FuseValue;

typedef struct Fuse {
  Ctx *cx;
  Arena *a;
  const PassOptions *options;
  Region *region;
  Map values;  /* Value -> FuseValue */
  Map users;   /* Value -> NodeVec */
  Map groups;  /* Node -> FuseGroupVec, where it is computed */
  Map homes;    /* stored Value -> FuseGroup */
  Map returned; /* values that the region returns */
  Map place;    /* Node -> its number in the region, from 1 */
  Map stored;   /* stored Value -> result of the launch */
  Map products; /* contraction -> FuseGroup that waits for it */
  FuseGroupVec all;
  uint32_t words; /* of a reach set */
} Fuse;

/* The groups that read a node's results, and whether the region returns one. */
typedef struct FuseReaders {
  FuseGroupVec launches, fixed;
  bool returned;
} FuseReaders;

/* fuse.c */
FuseReaders fuse_readers(Fuse *f, const Node *n);
/* Every reader but `g` itself comes after it. */
bool fuse_precedes(const FuseGroup *g, const FuseReaders *r);
/* Makes the results of `n` that others read results of `g`, which has it. */
void fuse_store(Fuse *f, FuseGroup *g, Node *n);

/* fuse_product.c: whether a launch may hold the contraction and what is done
 * with it: a product that no library is called for. Also for remake.c. */
bool fuse_is_product(const Node *n);
/* Each of the first four true where `n` is in a group now. */
bool fuse_placed_product(Fuse *f, Node *n);
bool fuse_placed_loaded(Fuse *f, Node *n);
bool fuse_placed_total(Fuse *f, Node *n);
bool fuse_placed_narrow(Fuse *f, Node *n, const FuseReaders *r);
/* Whether `g` reads a product that may be computed in it. */
bool fuse_awaits_product(Fuse *f, const FuseGroup *g);
/* Whether `n` may be computed behind the contraction of `g`. */
bool fuse_is_behind(const FuseGroup *g, const Node *n);

/* fuse_group.c */
FuseGroup *fuse_group_new(Fuse *f, Node *fixed);
FuseGroup *fuse_now(FuseGroup *g); /* through merges */
bool fuse_needs(const FuseGroup *later, const FuseGroup *earlier);
void fuse_need(Fuse *f, FuseGroup *later, FuseGroup *earlier);
FuseValue *fuse_value(const Fuse *f, const Value *v);
bool fuse_is_launchable(const Node *n);
/* How `g` would read the node's results: what its own nodes ask for. */
FuseRead fuse_demand(const Fuse *f, const FuseGroup *g, const Node *n);
/* Whether computing `n` in `g` is right and worth while; `r` as above. */
bool fuse_fits(const Fuse *f, const FuseGroup *g, const Node *n, FuseRead r);
void fuse_take(Fuse *f, FuseGroup *g, Node *n, FuseRead r);
/* The same, the group's shape being right as it is. */
void fuse_add(Fuse *f, FuseGroup *g, Node *n, FuseRead r);
/* Takes `n` if it fits and its results can be stored; a new group takes all. */
bool fuse_take_result(Fuse *f, FuseGroup *g, Node *n, FuseRead r);
bool fuse_merge(Fuse *f, FuseGroup *g, FuseGroup *h);

/* ---- reshard.c: a change of placement, step by step ---------------------- */

typedef enum MoveKind {
  MOVE_SLICE, /* each device keeps a part of what it has */
  MOVE_REDUCE_SCATTER,
  MOVE_ALL_TO_ALL,
  MOVE_PERMUTE, /* parts as they are, by other devices */
  MOVE_ALL_REDUCE,
  MOVE_ALL_GATHER,
  MOVE_COUNT
} MoveKind;
extern const char *const move_names[MOVE_COUNT];

typedef struct MoveStep {
  MoveKind kind;
  int axis;      /* of the mesh: the first of */
  Axes axes;     /* several, of all_reduce, all_to_all and permute */
  int from, to;  /* dims, PLACED_PARTIAL, PLACED_NOWHERE */
  int64_t bytes; /* that each device sends */
  Placement after;
} MoveStep;

enum { MAX_MOVES = 4 * MAX_AXES };
typedef struct Move {
  MoveStep steps[MAX_MOVES];
  int n;
  int64_t bytes;
} Move;

/* What takes a value from one placement to the other; `to` may be partial only
 * where `from` is. */
Move reshard_move(const Module *m, const Type *t, const Placement *from,
                  const Placement *to);
/* The same by way of the whole value on every device. */
Move reshard_through_whole(const Module *m, const Type *t,
                           const Placement *from, const Placement *to);
/* Of a permute: to which place of its group the part of each one goes, of which
 * there are axes_parts(s->axes). */
void reshard_permutation(const Module *m, const MoveStep *s,
                         const Placement *before, Arena *a, int64_t *to);
/* What each of `devices` sends when each has `local` bytes before. */
int64_t move_bytes(MoveKind kind, int64_t devices, int64_t local);

/* ---- shard_rules.c, shard.c, shard_write.c, shard_explain.c, shard_table.c -
 *
 * A unit is what is placed as a whole: a node, a slot with all that is bound to
 * it, an input, a carry of a scan. Its factors are sets of dims of its operands
 * and results that are cut together or not at all. */

typedef enum FactorKind {
  FACTOR_KEPT, /* each part is computed from parts */
  FACTOR_SUM,  /* results are partial where it is split */
  FACTOR_MAX,
  FACTOR_MIN
} FactorKind;

/* When a factor may take an axis from a neighbour: rules in order. */
typedef enum ShardLevel {
  LEVEL_SAID,  /* the model says it */
  LEVEL_SAME,  /* element by element: operands, results, loops and slots */
  LEVEL_BATCH, /* a letter of all operands and the result; the tokens' dim */
  LEVEL_KEPT,  /* another letter that the result keeps */
  LEVEL_SUM,   /* a letter that is summed over */
  LEVEL_LAST,  /* what is left: from a small tensor to what it is repeated
                  over; the experts of a dispatch */
  LEVEL_COUNT,
  LEVEL_COST = LEVEL_COUNT /* not a rule: moved there because it saves bytes */
} ShardLevel;

typedef struct ShardUnit ShardUnit;

/* Another way to use the axis that a decision took. */
typedef struct ShardBeaten {
  int factor;
  int64_t bytes; /* that it would have moved; -1: a rule before it came first */
} ShardBeaten;

/* Why a factor has an axis. */
typedef struct ShardWhy {
  ShardLevel level;
  bool backward;         /* from a user, not from an operand */
  const Value *from;     /* the neighbour; NULL: the model says it */
  const ShardUnit *unit; /* the unit that had it there */
  Span origin;           /* the annotation that it began with */
  int64_t bytes;         /* that it moves here, where something was beaten */
  ShardBeaten beaten[3];
  int n_beaten;
} ShardWhy;

typedef struct ShardFactor {
  FactorKind kind;
  char letter; /* for people */
  bool closed; /* takes no more axes */
  bool even;   /* its parts have to be of one size */
  ShardLevel forward, backward;
  int64_t size;
  Axes axes;
  ShardWhy why[MAX_AXES]; /* as `axes` */
} ShardFactor;

/* One operand or result of a unit. */
typedef struct ShardEnd {
  Value *v;
  int8_t factor[MAX_RANK]; /* by dim; -1: never split */
  /* Operands: where it is read, so that a reshard can be put before it. */
  Value **use;
  Region *region;
  Node *before; /* NULL: the region's end */
} ShardEnd;

enum { MAX_FACTORS = 3 * MAX_RANK };
struct ShardUnit {
  uint32_t id;
  Node *n;          /* NULL: a slot or an input */
  Slot *slot;       /* or NULL */
  const char *what; /* for people: "carry", the op's name */
  ShardFactor *factors;
  int n_factors;
  VEC(ShardEnd) ins, outs;
  bool linear;  /* sums of parts are parts of sums */
  Axes partial; /* that operands may be and results are */
};
typedef VEC(ShardUnit *) ShardUnitVec;

/* Who makes and who reads a value. */
typedef struct ShardReader {
  ShardUnit *unit;
  uint32_t end;
} ShardReader;
typedef struct ShardValue {
  ShardReader by; /* the result that it is */
  VEC(ShardReader) readers;
} ShardValue;

/* A reshard that was put in. */
typedef struct ShardMove {
  Value *from, *to;
  Move move;
  int64_t times; /* a step: iterations of the scans around */
  const ShardUnit *reader; /* the first */
  int n_readers;
} ShardMove;
typedef VEC(ShardMove) ShardMoveVec;

typedef struct Shard {
  Ctx *cx;
  Module *m;
  const PassOptions *o;
  Arena *a;
  ShardUnitVec units;
  Map values; /* Value -> ShardValue */
  ShardMoveVec moves;
} Shard;

/* Units of the module, in program order; shard_rules.c has one rule for each
 * word in the `shard` column of ops.def. */
void shard_units(Shard *s);
ShardUnit *shard_unit(Shard *s, Node *n, const char *what);
int shard_factor(ShardUnit *u, FactorKind kind, char letter, int64_t size,
                 ShardLevel forward, ShardLevel backward);
ShardEnd *shard_in(Shard *s, ShardUnit *u, Value **use, Region *r,
                   Node *before);
ShardEnd *shard_out(Shard *s, ShardUnit *u, Value *v);
/* The node's unit by its op's rule; a scan has several. */
void shard_node(Shard *s, Node *n);

ShardValue *shard_value(const Shard *s, const Value *v);
/* Where the unit makes result `end`, or wants operand `end`, to be. */
Placement shard_made(const ShardUnit *u, uint32_t end);
Placement shard_wanted(const ShardUnit *u, uint32_t end);
Placement shard_now(const Shard *s, const Value *v); /* as it is made */
/* Iterations of all scans around a region. */
int64_t shard_times(const Region *r);

/* Bytes that each device sends for one operand of a unit; none where another
 * reader wants it at the same place. */
int64_t shard_operand_cost(const Shard *s, const ShardUnit *u, uint32_t i);
/* Moves axes within units, if less is sent then. */
void shard_repair(Shard *s);

/* Writes placements into the module, with a reshard where they change. */
void shard_write(Shard *s);
/* Words of the report: "%h"; a line for each axis, why the value has it; why a
 * value moves. */
void shard_value_text(const Shard *s, const Value *v, Buf *out);
void shard_why_text(const Shard *s, const Value *v, const char *indent,
                    Buf *out);
void shard_move_text(const Shard *s, const ShardMove *m, const char *indent,
                     Buf *out);
/* The report of --explain=shard. */
void shard_explain(Shard *s, Buf *out);
/* Warnings for what moves or repeats much that nobody asked for. */
void shard_warn(Shard *s);

/* ---- partition.c, partition_check.c, partition_ops.c, partition_rows.c ----
 *
 * Before the walk all values get the type of one rank's part. A rule then
 * appends to p->b.out what its node becomes, the node itself or others, and
 * names what stands for each old result (ir_replace, which wants the same local
 * type). The node's operands are those of before: partition_was tells what they
 * were, ir_now what to read. */

/* What a value was: the whole tensor's type, and where it lives. */
typedef struct PartValue {
  Type type;
  Placement place;
} PartValue;

/* Of partition_rows.c: who has which rows, and what went between two. */
typedef struct PartRows PartRows;
typedef struct PartSent {
  const PartRows *from, *to;
  Value *got; /* i32[P, M]: how many rows came, by rank and expert */
} PartSent;

typedef struct Partition {
  Ctx *cx;
  Module *m;
  const PassOptions *o;
  Arena *a;
  Map values; /* Value -> PartValue: those that were there before */
  Builder b;  /* where the node at hand stood */
  VEC(PartRows *) rows; /* partition_rows.c */
  VEC(PartSent) sent;
} Partition;

const PartValue *partition_was(const Partition *p, const Value *v);
/* One rank's part. */
Type partition_local(const Partition *p, const Type *t, const Placement *at);
/* "data,expert", as attributes name axes. */
Sym partition_axes(const Partition *p, Axes a);
/* This rank's place in its group: i32[]. */
Value *partition_rank(Partition *p, Axes a);

/* This rank's part of a dim of `size` that `axes` split. */
typedef struct PartRange {
  Value *start;  /* i32[]: its first index in the tensor; NULL: 0 */
  Value *count;  /* i32[]: how many of its indices are the tensor's, the others
                    are padding behind those; NULL: all */
  int64_t local; /* how many there are */
} PartRange;
PartRange partition_range(Partition *p, Axes axes, int64_t size);
/* Whether dim d has padding on some rank. */
bool partition_pads(const Partition *p, const PartValue *v, int d);
/* `v`, with `fill` in the padding of those of `dims` (bit d: dim d) that have
 * one. */
Value *partition_mask(Partition *p, Value *v, const PartValue *was,
                      unsigned dims, double fill);
/* Ids into a split dim of `size`: those of this rank's part, counted from its
 * start, the others 0 and not `ours`; NULL: all are. */
typedef struct PartIds {
  Value *ids, *ours;
} PartIds;
PartIds partition_ids(Partition *p, Value *ids, Axes axes, int64_t size);
/* `v`, a part of a tensor of type `t`, taken from one placement to the other by
 * exchanges; of rows the width. */
Value *partition_move(Partition *p, Value *v, const Type *t,
                      const Placement *from, const Placement *to);

/* Whether the program is one rank's already, which is reported. */
bool partition_is_done(const Module *m);
/* Reports what is not where its node wants it; false: something is not. */
bool partition_check(Module *m);
/* What becomes of any node but a reshard. */
void partition_op(Partition *p, Node *n);
/* The same for dispatch, combine and row_dot, a reshard of a ragged value, and
 * an iota along groups or rows of a ragged one that is split there. */
void partition_rows(Partition *p, Node *n);
/* Ragged `v`, which was `was`, with `fill` behind the last row: for sums over
 * all of them. `at`: whom a diagnostic is about. */
Value *partition_rows_mask(Partition *p, Value *v, const PartValue *was,
                           Span at, double fill);
/* One rank's part of a ragged value: its dim 1 bounds the rows that it has. */
Type partition_rows_local(const Partition *p, const Type *t,
                          const Placement *at);

/* ---- rounds.c ------------------------------------------------------------ */

/* Of so many rows, which may all be for one device, how many it has room for:
 * `factor` times what it gets with `here` of the experts, if all get as many
 * rows. */
int64_t rounds_bound(int64_t rows, int64_t here, int64_t experts,
                     double factor);

/* ---- rounds_some.c, for rounds.c ----------------------------------------- */

/* Rows on their way between two ranks' lists of offsets: numbers of all of
 * them, from which those of a round follow. */
typedef struct RoundRows {
  Value *mine, *got; /* operands of rows_send without `some` */
  Value *begin; /* i32[P, M]: where each rank's rows begin, at the experts */
  Value *there; /* i32[N]: where one's own begin there */
  Value *first, *count; /* i32[N]: one's own, where they are now */
} RoundRows;
RoundRows rounds_rows(Builder *b, const Node *send);
/* Operands of rows_send and rows_return for the round that begins with row `lo`
 * of each rank's experts, i32[] (NULL: 0), and has `bound` rows. */
Value *rounds_theirs(Builder *b, Value *theirs, Value *lo, int64_t bound);
Value *rounds_got(Builder *b, const RoundRows *r, Value *lo, int64_t bound);
Value *rounds_some(Builder *b, const RoundRows *r, Value *lo, int64_t bound);
/* How many rounds there are beyond the first, i32[]: the same on all ranks. */
Value *rounds_more(Builder *b, Value *theirs, int64_t bound);

/* ---- recompute.c ---------------------------------------------------------- */

/* Takes the marks off all nodes, before the pass: their values are kept then.
 * Whether there were any. */
bool recompute_forget(Module *m);

/* For vjp_scan.c: values of a region that elementwise ops make of nothing but
 * scalars, positions and integers that are spread over many elements, such as
 * random masks: computing them again reads next to no memory. */
Map recompute_generated(Arena *a, const Region *r);

/* ---- cost.c: what a model costs ---------------------------------------- */

/* Of the forward part of an entry before autodiff: parameters in products and
 * tables, multiply-adds a step; `core` without embedding and softmax. */
typedef struct CostTotals {
  int64_t params, macs, core_params, core_macs, biases, tokens;
} CostTotals;
CostTotals cost_totals(Module *m, Entry *e);

/* The table of parameters, operations and bytes by layer, for the forward part
 * of `e`, before autodiff. Operations are multiply-adds a token; what has no
 * part in a product or a gather, biases for one, is on a line of its own. */
void cost_report(Module *m, Entry *e, Buf *out);
/* A number of bytes in the largest unit that it fills, "1.5 MiB". */
void bytes_text(int64_t bytes, char out[16]);

/* ---- overlap.c: work behind exchanges, for schedule.c -------------------- */

/* Gives every exchange of the region a wait right behind it, which its readers
 * read; takes those out again that still stand there. */
void overlap_begin(Ctx *cx, Region *r);
void overlap_end(Arena *a, Region *r);
/* The nodes in another order, looking `reach` nodes ahead in this one. */
NodeVec overlap_order(Arena *a, const Region *r, uint32_t reach);

/* ---- life.c: how long values are needed -------------------------------- */

/* Positions count from 1; entry parameters are there from 0 on. */
typedef struct Life {
  Arena *arena;
  Map times; /* of nodes */
  Map last;  /* of values */
  int end;   /* position after the last node; results are read there */
} Life;

void life_of(const Entry *e, Arena *a, Life *out);
int life_start(const Life *l, const Node *n);
int life_end(const Life *l, const Node *n); /* a scan's is after its body's */
int life_last(const Life *l, const Value *v); /* last reading, or its making */

/* ---- pack.c: who lies where --------------------------------------------- */

/* Bytes that are alive at positions start to end, both included. */
typedef struct PackItem {
  int64_t bytes;
  int start, end;
  int64_t offset; /* set by pack_offsets */
} PackItem;

/* Gives the items offsets from 0 at which none that are alive together overlap;
 * returns the bytes that all take. Scratch memory from `a`. */
int64_t pack_offsets(PackItem *items, size_t n, Arena *a);

/* ---- memory.c: memory report ------------------------------------------- */

/* Planned bytes by slab, peak of the arena and who is alive there, biggest
 * buffers. Needs a planned module. */
void memory_report(Module *m, Buf *out);
/* What it saves in each entry of `m` that marked values are computed again;
 * `kept`: the same model, planned without the marks. */
void memory_saved(const Module *m, Module *kept, Buf *out);
/* The values of the arena that are alive when most of it is in use, those that
 * lie within others left out; in cx->scratch. */
typedef VEC(const Value *) ConstValueVec;
ConstValueVec memory_peak(Ctx *cx, Entry *e);

#endif
