/* cudasim.h: a CUDA device in plain C, for tests on machines without one.
 *
 * libcuda.so.1 of this folder has the calls of NVIDIA's library, as far as the
 * runtime uses them, and executes PTX text on the processor. It is found by
 * LD_LIBRARY_PATH alone, so the programs that are tested know nothing of it.
 *
 *   parse.c    PTX text -> statements           decode.c   statements -> code
 *   ins.def    THE table of instructions        alu.c ...  their functions
 *   exec.c     grids, blocks, warps             memory.c   what may be touched
 *   driver.c   the driver's calls               stream.c   queues and graphs
 *   cublaslt.c products, as libcublasLt.so.12   races.c    who is in no order
 *   nccl.c     exchanges, as libnccl.so.2    async.h    behind the threads
 *
 * A warp's 32 lanes are executed together, an instruction at a time. Lanes
 * that went different ways wait for each other by the smallest place in the
 * code. All is deterministic. What a GPU would let pass is an error here, with
 * kernel, PTX line and thread: see memory.c and races.c.
 *
 * Environment, read at cuInit:
 *   CUDASIM_DEVICES=1   devices         CUDASIM_MEMORY=17179869184  bytes each
 *   CUDASIM_ARCH=90     sm_90           CUDASIM_DRIVER=13000  CUDA 13.0
 *   CUDASIM_ORDER=reverse  blocks and warps from the last to the first
 *   CUDASIM_RACES=0  races in global memory are not looked for: less memory
 *   CUDASIM_STEPS=N     instructions of a warp until a loop counts as endless
 *   CUDASIM_LOG=FILE    errors are appended there instead of standard error
 *   CUDASIM_COUNTERS=FILE  counters are written there when the program ends; a
 *       % in it stands for the number of the device that was used first
 *   CUDA_VISIBLE_DEVICES=0,2  of the devices those that the program sees */
#ifndef MOEC_CUDASIM_H
#define MOEC_CUDASIM_H

#include "cuda_api.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LANES = 32, ALL_LANES = -1, WARPS_MOST = 32 };

/* ---- arena: memory of a module's lifetime -------------------------------- */

typedef struct Arena {
  struct Chunk *last;
} Arena;

void *arena_new(Arena *a, size_t bytes); /* zeroed, aligned to 64 */
void arena_free(Arena *a);

/* PUSH(arena, array, n, cap, element): appends to an array that grows. */
#define PUSH(a, v, n, cap, ...)                                              \
  do {                                                                       \
    if ((n) == (cap)) (v) = arena_grow((a), (v), &(cap), sizeof *(v));       \
    (v)[(n)++] = (__VA_ARGS__);                                              \
  } while (0)
void *arena_grow(Arena *a, const void *old, int *cap, size_t element);

/* ---- PTX as text (parse.c) ----------------------------------------------- */

/* Part of a module's text. */
typedef struct Str {
  const char *at;
  int n;
} Str;

bool str_is(Str s, const char *text);
bool str_same(Str a, Str b);

typedef enum Type {
  TY_none,
#define TY(name, kind, bytes) TY_##name,
#include "types.def"
#undef TY
  TYPE_COUNT
} Type;

typedef struct TypeInfo {
  const char *name;
  char kind; /* u, s, f, b(its), p(redicate), h(alf precision or packed) */
  int bytes;
} TypeInfo;
extern const TypeInfo type_info[TYPE_COUNT];
Type type_named(Str name); /* TY_none when there is none */

typedef enum Space {
  SP_GENERIC,
  SP_REG,
  SP_GLOBAL,
  SP_CONST,
  SP_SHARED,
  SP_LOCAL,
  SP_PARAM
} Space;
Space space_named(Str name); /* SP_GENERIC when there is none */

/* .reg .f32 %f<19>; .shared .align 16 .b8 tile[4096]; a parameter */
typedef struct Var {
  Space space;
  Type type;
  Str name;
  int count; /* of .reg NAME<count>; -1 for a single name */
  int align;
  int64_t bytes; /* 0: .extern .shared NAME[], the launch says how many */
  const uint8_t *init;
  int line;
  uint64_t at; /* its address, or its offset among parameters */
} Var;

typedef enum OperandKind {
  OPD_NAME,  /* register, symbol, label; value is added to a symbol */
  OPD_INT,   /* value */
  OPD_F32,   /* bits in value */
  OPD_F64,
  OPD_ADDR,  /* [name + value], name may be empty; [name, part] of a tensor */
  OPD_VEC,   /* {parts} */
  OPD_PAIR,  /* part | part */
  OPD_LIST,  /* (parts), of a call */
  OPD_SINK   /* _ */
} OperandKind;

typedef struct Operand Operand;
struct Operand {
  OperandKind kind;
  Str name;
  bool negated; /* !%p */
  int64_t value;
  Operand *part;
  int n;
};

/* A line of the source by its `.loc`, 0 when not known, and the number of the
 * `.file`. */
typedef struct Loc {
  int file, line;
} Loc;

typedef enum StmtKind { ST_INS, ST_LABEL, ST_OPEN, ST_CLOSE, ST_VAR } StmtKind;

typedef struct Stmt {
  StmtKind kind;
  int line;      /* of the PTX */
  Loc loc;
  Str name;      /* of the instruction or label */
  Str pred;
  bool pred_not;
  Operand *op;
  int n_op;
  Var var;
} Stmt;

typedef struct Func {
  Str name;
  bool entry, has_body;
  Var *params, *rets;
  int n_params, n_rets, cap_params, cap_rets;
  int param_bytes;
  int max_threads; /* .maxntid or .reqntid, 0 when not given */
  Stmt *stmts;
  int n_stmts, cap_stmts;
  int line;
} Func;

typedef struct Kernel Kernel;

typedef struct Module {
  Arena arena;
  char *text;
  Str *files; /* of the source, by their numbers */
  int n_files;
  int version; /* of PTX, 80 for 8.0 */
  int arch;    /* 80 for sm_80 */
  char arch_suffix; /* 'a' of sm_90a, or 0 */
  Var *vars;
  int n_vars, cap_vars;
  Func *funcs;
  int n_funcs, cap_funcs;
  Kernel **kernels;
  int n_kernels;
  char error[512]; /* the first that was found; "" when there is none */
} Module;

bool ptx_parse(Module *m, const char *text);
/* Notes an error, unless one is there; false. */
bool ptx_error(Module *m, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- code (decode.c, ins.def) -------------------------------------------- */

typedef struct Warp Warp;
typedef struct Ins Ins;
typedef void InsFn(Warp *w, const Ins *i);

/* Where an operand lies: 32 values of `bytes` side by side; a predicate
 * (bytes 0) is one word with a bit a lane. */
typedef struct Ref {
  uint32_t at;
  uint8_t base; /* a Base */
  uint8_t bytes;
  bool none; /* _ */
} Ref;

typedef enum Base { BASE_REGS, BASE_CONSTS, BASE_SPECIAL, BASE_COUNT } Base;

struct Ins {
  InsFn *run;
  InsFn *behind;  /* what `run` goes on with, where it only looks */
  const Ref *o;   /* operands, destinations first; vectors side by side */
  int64_t imm;    /* offset of an address, target of a branch */
  int64_t imm2;   /* offset of a second address */
  uint32_t pred;  /* place of the predicate in BASE_REGS */
  uint32_t flip;  /* all ones for @!p */
  bool has_pred;
  uint8_t n;      /* operands */
  uint8_t space;  /* a Space */
  uint8_t vec;    /* elements of a vector access */
  uint8_t type;   /* a Type: of what is loaded, stored or made */
  uint8_t from;   /* a Type: of what is converted */
  uint8_t mode;   /* meaning depends on the instruction */
  bool sat, flag;
  bool strong; /* an access that is volatile or relaxed: it may race */
  bool acquires, releases; /* at the scope of all blocks */
  bool moves;  /* mov from a register or constant to a register */
  int line;
  Loc loc;
};

/* Registers that the machine fills, 32 words each. */
typedef enum Special {
#define SPECIAL(name, id) SPECIAL_##id,
#include "special.def"
#undef SPECIAL
  SPECIAL_COUNT
} Special;
extern const char *const special_names[SPECIAL_COUNT];

struct Kernel {
  char *name;
  Module *module;
  Ins *code;
  int n_code, cap_code;
  uint8_t *consts; /* 32 times the value each */
  int const_bytes, reg_bytes;
  int local_bytes;    /* a thread */
  int shared_bytes;   /* of its variables */
  int param_bytes;
  const Var *params;
  int n_params;
  int max_threads;
  int max_dynamic;    /* cuFuncSetAttribute */
  int dynamic_at;     /* address of what a launch adds to shared memory */
  bool async;         /* it has what async.h is about */
  Var *shared; /* its variables, placed */
  int n_shared, cap_shared;
};


/* Of cvt; R_NONE where nothing is said. */
typedef enum Rounding { R_NONE, RN, RZ, RNA, RNI, RZI, RMI, RPI } Rounding;

float bf16_to_float(uint16_t h);
uint16_t float_to_bf16(float x);
float float_to_tf32(float x); /* to nearest */
float f16_to_float(uint16_t h);

/* Decodes all kernels; addresses of global variables are known by now. */
bool ptx_decode(Module *m);
Kernel *kernel_named(const Module *m, const char *name);

/* One row of ins.def: an exact name with a signature, or a family whose
 * modifiers a function reads. */
typedef struct Decoder Decoder;
typedef bool DecodeFn(Decoder *d, Ins *i, const Stmt *s, Str modifiers);
typedef struct InsRow {
  const char *name;
  const char *operands; /* a letter each: h 16 bits, w 32, q 64, p predicate */
  InsFn *run;
  DecodeFn *decode;
} InsRow;
const InsRow *ins_row(Str name); /* NULL when there is none */

#define S1(...)
#define S2(...)
#define S3(...)
#define M1(...)
#define M2(...)
#define M3(...)
#define M4(...)
#define CMP(...)
#define SEL(...)
#define PRED(...)
#define FAMILY(name) DecodeFn decode_##name;
#include "ins.def"
#include "ins_undef.h"

/* What a name means where it stands. */
typedef struct Name {
  Str name;
  int count; /* of registers; -1 for a single name */
  Space space;
  Type type;
  uint64_t at; /* register file, address, offset of a parameter */
} Name;

typedef struct Label {
  Str name;
  int pc, line;
} Label;

/* A kernel being decoded. */
struct Decoder {
  Module *m;
  Kernel *k;
  Name *names; /* the innermost last */
  int n_names, cap_names;
  int n_module, floor; /* of the module; below those of the function at hand */
  Label *labels;
  int n_labels, cap_labels;
  Label *jumps; /* to be told where their label is; pc of the branch */
  int n_jumps, cap_jumps;
  int depth; /* of calls */
  bool inlined; /* `ret` goes to the end of a call */
  uint32_t *pool; /* places of constants + 1, by hash of value and size */
  uint32_t pool_size, pool_used;
  Ref refs[160]; /* operands of the instruction at hand */
  int n_refs;
};
const Name *name_find(const Decoder *d, Str name);

/* For the functions that read modifiers (operands.c). */
enum { ANY_SIZE = -1 };
Str next_modifier(Str *rest); /* empty at the end */
/* The modifier is the next one, and is passed over. */
bool take_modifier(Str *rest, const char *name);
/* Adds an operand to i: of `bytes`, 0 for a predicate, ANY_SIZE for a register
 * of any size; a vector or pair adds its parts. */
bool operand_add(Decoder *d, Ins *i, const Stmt *s, const Operand *o,
                 int bytes);
/* All operands, by letters as in InsRow; '*' takes any size. */
bool operands_add(Decoder *d, Ins *i, const Stmt *s, const char *letters);
/* [reg + imm], [symbol + imm] or [imm]: adds the register, or a zero, and
 * sets i->imm; a parameter sets i->space too. */
bool operand_address(Decoder *d, Ins *i, const Stmt *s, const Operand *o);
bool operand_constant(Decoder *d, const Stmt *s, const Operand *o,
                      int64_t *value);
bool decode_error(Decoder *d, const Stmt *s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What is left of the modifiers is unknown. */
bool unknown_modifier(Decoder *d, const Stmt *s, Str rest);

/* ---- memory -------------------------------------------------------------- */

/* What is known of a byte of device memory. COMING: a copy that runs behind
 * the threads is under way there. */
enum { BYTE_HELD = 1, BYTE_SET = 2, BYTE_FREED = 4, BYTE_COMING = 8 };

/* Who touched something last, and when: races.c. */
typedef uint64_t Access;

/* A range of device addresses, with what lies there. */
typedef struct Region {
  uint64_t base, size;
  uint8_t *mem, *state;
  Access *readers, *writers; /* for two bytes each; NULL: not looked at */
} Region;

enum {
  SHARED_START = 1024, /* of addresses in shared and local memory: 0 is none */
  SHARED_END = 1 << 18, /* of those in shared memory, variables at their end */
  DEVICES_MAX = 16
};
/* Generic addresses; none of them is one of the host. */
#define SHARED_WINDOW UINT64_C(0x00a0000000000000)
#define LOCAL_WINDOW UINT64_C(0x00a1000000000000)
#define PARAM_WINDOW UINT64_C(0x00a2000000000000)
#define WINDOW_SIZE (UINT64_C(1) << 32)
#define DEVICE_WINDOW UINT64_C(0x00c0000000000000)
#define DEVICE_STRIDE (UINT64_C(1) << 44)

bool region_new(Region *r, uint64_t base, uint64_t size, bool races);

typedef struct Allocation {
  uint64_t at, bytes;
  bool freed;
} Allocation;

/* Allocations in the order in which they were made. */
typedef struct Heap {
  Region region;
  uint64_t next, used, limit;
  Allocation *all;
  int n, cap;
} Heap;

uint64_t heap_new(Heap *h, uint64_t bytes); /* 0: no room */
bool heap_free(Heap *h, uint64_t at);
/* Why [at, at + n) may not be touched, in words. */
void heap_explain(const Heap *h, uint64_t at, char *text, size_t n);
/* The bytes, or NULL where some of them are not held. */
uint8_t *heap_bytes(Heap *h, uint64_t at, uint64_t n);
void heap_set_state(Heap *h, uint64_t at, uint64_t n);
bool heap_is_set(const Heap *h, uint64_t at, uint64_t n);
extern Heap pinned; /* memory of the host that devices see */

/* ---- execution (exec.c) -------------------------------------------------- */

typedef struct Together Together; /* together.c */

typedef struct Launch {
  const Kernel *kernel;
  Heap *heap;
  uint32_t grid[3], block[3];
  uint32_t dynamic_bytes;
  const uint8_t *params;
  bool reversed, cooperative;
  uint64_t max_steps;
  int status; /* a CUresult */
  char error[640];
  uint64_t steps; /* of all warps */
  uint64_t start; /* by the clock of races.c */
  Together *together; /* all blocks at once; NULL: one by one */
} Launch;

/* Of the lanes of a warp, those that stand at one place of the code. */
typedef struct Group {
  uint32_t pc, mask;
  bool waits; /* for others, at an instruction of several lanes */
} Group;

typedef struct CopyAhead CopyAhead; /* cp.async that has not arrived */

typedef struct Block {
  Launch *launch;
  uint32_t id[3];
  Warp *warps;
  int n_warps, n_threads;
  uint8_t *shared, *shared_state;
  uint32_t shared_bytes;
  Access *readers, *writers; /* one a byte of shared memory */
  uint64_t clock;            /* now */
  uint64_t start, since;     /* of this block; of the last barrier of all */
  struct Unit *units;        /* of shared memory, where k->async: async.h */
  struct Issues *issues;     /* of each warpgroup */
  struct Comings *comings;   /* copies under way */
  struct Gates *gates;       /* what mbarriers let pass */
  uint64_t changes;          /* of what warps ask for */
  uint64_t slice; /* when it went on, where others do in between */
  int number;
} Block;

struct Warp {
  uint8_t *base[BASE_COUNT];
  uint32_t pc, mask; /* of the group that runs */
  uint32_t active;   /* of its lanes, those that the predicate lets */
  uint32_t live, started;
  Group groups[LANES]; /* the others */
  int n_groups;
  bool stop;   /* this warp cannot go on for now */
  bool ended;
  const Ins *barrier; /* that it waits at */
  int barrier_id, barrier_threads;
  const Ins *asks; /* in vain, so that others go on first */
  const Ins *asked; /* of loads that acquire the last, and what it gave */
  uint64_t answer;
  int id;
  uint64_t since, steps; /* clock of its last bar.warp.sync */
  uint8_t *local, *local_state;
  CopyAhead *copies; /* access.c */
  int n_copies, cap_copies, copy_group[LANES];
  struct Products *products; /* wgmma.c */
  uint32_t *unfenced; /* units that it wrote, for its next fence: proxy.c */
  int n_unfenced, cap_unfenced;
  /* Clocks before which it knows of all that each warp did, by mbarriers; the
   * same at its last fence, and of the last barrier of all then. */
  uint64_t known[WARPS_MOST], known_fenced[WARPS_MOST], fenced;
  Block *block;
};

int run_kernel(Launch *l);
/* together.c */
bool together_new(Launch *l, int blocks);
void together_free(Launch *l);
void run_together(Launch *l, Block *blocks, int n);
/* A block goes on, and what stands before now in its time was another's. */
void together_slice(Block *b);
/* What a block did before its last barrier is known to who acquires there, and
 * to its block behind the next barrier. */
void note_release(Warp *w, uint64_t address);
void note_acquire(Warp *w, uint64_t address);
void together_met(Block *b);
/* Whether another block's access, or several blocks', is in no order with what
 * this one does. */
bool together_races(const Block *b, uint64_t when, bool several);
/* exec.c */
int run_warps(Block *b, Warp **waiting);
bool release_warps(Block *b);
void nobody_goes_on(Warp *w);
void block_over(Block *b);

/* A fault of a lane (-1: of the warp): the first one is kept. */
void fault(Warp *w, const Ins *i, int lane, int status, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static inline const void *src(const Warp *w, const Ins *i, int k) {
  return w->base[i->o[k].base] + i->o[k].at;
}
static inline void *dst(const Warp *w, const Ins *i, int k) {
  return w->base[BASE_REGS] + i->o[k].at;
}
static inline uint32_t lane_bit(int lane) {
  return UINT32_C(1) << lane;
}
/* An operand's values as 64 bits each; signed ones keep their sign. */
void get_wide(const Warp *w, const Ins *i, int k, bool is_signed,
              uint64_t *out);
/* Writes the active lanes, cut to the operand's size. */
void put_wide(const Warp *w, const Ins *i, int k, const uint64_t *v);

/* The lanes in `members` are all here, or the warp tries other lanes first. */
bool lanes_meet(Warp *w, const Ins *i, uint32_t members);
/* `taken` of the group go to another place, the others stay. */
void branch(Warp *w, uint32_t taken, uint32_t target);
void end_lanes(Warp *w, uint32_t lanes);

/* TOUCH_TAKE: a store behind the threads, that is still to come. */
typedef enum Touch {
  TOUCH_LOAD,
  TOUCH_STORE,
  TOUCH_ATOMIC,
  TOUCH_TAKE
} Touch;

/* The bytes at an address as a lane sees it, checked; after a fault, some
 * bytes that do no harm. */
uint8_t *touch(Warp *w, const Ins *i, int lane, Space space, uint64_t address,
               int bytes, Touch kind);
/* Of an address among a block's bytes of shared memory; UINT64_MAX: none. */
uint64_t shared_offset(const Block *b, uint64_t address);

/* races.c */
void note_shared(Warp *w, const Ins *i, int lane, uint32_t at, int bytes,
                 Touch kind);
void note_global(Warp *w, const Ins *i, int lane, uint64_t offset, int bytes,
                 Touch kind);

#endif
