/* rt.h: what the runtime's files share. Sections in the order of the .c files:
 * status, word, hash, cpuid, model, mem, cpu, gemm, comm, progress, stream,
 * local, mpi, session, tables, parts, step, cpu_step, cuda, peaks, safetensors,
 * ckpt_dir. */
#ifndef MOEC_RT_H
#define MOEC_RT_H

#include "moert.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* ---- status.c: failures as a status and a text --------------------------- */

/* Records this thread's failure text and returns `st`. */
MoertStatus rt_fail(MoertStatus st, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Puts text in front of the failure recorded last; returns `st`. */
MoertStatus rt_fail_prefix(MoertStatus st, const char *fmt, ...)
    PRINTF_LIKE(2, 3);
/* The status and text of an errno value or a oneDNN status, with the call that
 * gave it and its place. */
MoertStatus rt_fail_errno(int err, const char *subject, const char *call,
                          const char *file, int line);
MoertStatus rt_fail_dnnl(int status, const char *call, const char *file,
                         int line);

static inline int64_t rt_larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* A call that returns a negative number and sets errno, as a status. */
#define RT_SYS(call, subject)                                                  \
  ((call) < 0 ? rt_fail_errno(errno, (subject), #call, __FILE__, __LINE__)     \
              : MOERT_OK)
/* A oneDNN call as a status. */
#define RT_DNNL(call) rt_dnnl_status((int)(call), #call, __FILE__, __LINE__)
static inline MoertStatus rt_dnnl_status(int status, const char *call,
                                         const char *file, int line) {
  return status ? rt_fail_dnnl(status, call, file, line) : MOERT_OK;
}

#define RT_TRY(call)                                                           \
  do {                                                                         \
    MoertStatus rt_try_ = (call);                                              \
    if (rt_try_ != MOERT_OK) return rt_try_;                                   \
  } while (0)
/* The same with cleanup: stores the status in `st` and goes to `label`. */
#define RT_TRYGOTO(call, st, label)                                            \
  do {                                                                         \
    (st) = (call);                                                             \
    if ((st) != MOERT_OK) goto label;                                          \
  } while (0)

/* Memory for small tables; NULL is reported as MOERT_NO_MEMORY by RT_NEW. */
#define RT_NEW(out, n)                                                         \
  ((*(out) = calloc((size_t)(n) ? (size_t)(n) : 1, sizeof **(out)))            \
       ? MOERT_OK                                                              \
       : rt_fail(MOERT_NO_MEMORY, "out of memory"))

/* ---- word.c: the name that was meant ------------------------------------- */

/* The candidate nearest to `word` by edit distance; NULL when none is near.
 * `stride` bytes lie between candidates, each starts with a const char *. */
const char *rt_nearest(const char *word, const void *candidates, size_t n,
                       size_t stride);
/* "; did you mean 'X'?" for that candidate, or "". Text of a static
 * thread-local buffer. */
const char *rt_did_you_mean(const char *word, const void *candidates, size_t n,
                            size_t stride);

/* ---- hash.c -------------------------------------------------------------- */

/* XXH64 with seed 0: in pieces, and at once. */
typedef struct RtHash {
  uint64_t acc[4], total;
  unsigned char rest[32]; /* a stripe that is not full yet */
  size_t n_rest;
} RtHash;
void rt_hash_start(RtHash *h);
void rt_hash_add(RtHash *h, const void *data, size_t bytes);
uint64_t rt_hash_end(const RtHash *h);
uint64_t rt_hash(const void *data, size_t bytes);

/* ---- cpuid.c ------------------------------------------------------------- */

/* Whether this machine, its operating system included, has a CPU feature, by
 * LLVM's name for it. False for names that are not known. */
bool rt_cpu_has(const char *feature);
/* Asks the operating system for what a feature needs beyond the CPU: tiles, for
 * all threads of the process. */
MoertStatus rt_cpu_permit(const char *feature);

/* ---- model.c ------------------------------------------------------------- */

struct MoertModel {
  void *library;
  const MoertDesc *desc; /* the first of its programs */
};
/* The program for a device, NULL: there is none. */
const MoertDesc *rt_program(const MoertModel *m, MoertDevice device);
/* MOERT_UNSUPPORTED, with their names, where the CPU lacks features. */
MoertStatus rt_cpu_features(const MoertDesc *d);

typedef enum RtKind { RT_BOOL, RT_INT, RT_UINT, RT_FLOAT } RtKind;
typedef struct RtDtype {
  const char *name, *safetensors;
  int64_t bytes;
  RtKind kind;
  int dnnl; /* dnnl_data_type_t */
  int cuda; /* cudaDataType_t */
  int nccl; /* ncclDataType_t */
  int sums; /* dtype of sums of products */
} RtDtype;
extern const RtDtype rt_dtype[MOERT_DTYPE_COUNT];

/* Product of dims. */
int64_t rt_elements(int rank, const int64_t *dims);
/* Element 0 of `data` as a double, and back. */
double rt_load(int dtype, const void *data);
void rt_store(int dtype, void *data, double value);

/* ---- mem.c --------------------------------------------------------------- */

/* All memory of a session. `bytes` is the sum of what was asked for. */
typedef struct RtMem {
  struct RtBlock {
    void *data;
    int64_t bytes;
  } *blocks;
  int n_blocks;
  int64_t bytes;
} RtMem;

/* 64-byte aligned, every page touched: 0xff (NaN in any float dtype) where
 * `poison`, else 0. NULL for no bytes. */
MoertStatus rt_mem_new(RtMem *m, int64_t bytes, bool poison, void **out_data);
void rt_mem_free(RtMem *m);
/* Bytes that a process may still have, swap included; -1: not known. */
int64_t rt_mem_available(void);
/* Refuses what this machine does not have. */
MoertStatus rt_mem_check(int64_t bytes);

/* ---- cpu.c: the thread team, the clock ----------------------------------- */

/* Seconds on a clock that only goes forward. */
double rt_seconds(void);

/* The cores this process may use: its affinity, and its container's share. */
int rt_cpu_cores(void);
/* This process' part of them where `neighbours` share them, at least one. */
int rt_cpu_share(int neighbours);
/* Makes the calling thread's OpenMP settings those of a team of `threads`, and
 * puts the old ones back. */
typedef struct RtTeam {
  int threads, dynamic;
} RtTeam;
RtTeam rt_team_enter(int threads);
void rt_team_leave(RtTeam before);
/* Runs all chunks of a stage. `scratch` holds `threads` areas. */
void rt_run_stage(const MoertStage *g, int threads, void *const *args,
                  char *scratch, int64_t scratch_stride, void *workspace);
/* Within a region of the team: this thread's number, 0 for the first; the wait
 * for all; its part of [0, n); its share of a stage's chunks, the same at each
 * call. */
int rt_team_member(void);
void rt_team_wait(void);
void rt_team_share(int64_t n, int64_t *out_lo, int64_t *out_hi);
void rt_run_share(const MoertStage *g, void *const *args, char *scratch,
                  int64_t scratch_stride, void *workspace);

/* ---- gemm.c -------------------------------------------------------------- */

/* A product made ready: a oneDNN primitive, or plain loops. */
typedef struct RtGemm RtGemm;
/* All different products of a session. */
typedef struct RtGemms {
  RtGemm **items;
  int n;
  void *engine, *stream;
  int64_t scratchpad_bytes; /* of the product that needs most */
  bool widens; /* bf16 as where the machine has no fast products of it */
} RtGemms;
/* The product for a shape, made where it is not there yet. Call within the
 * team. */
MoertStatus rt_gemm_get(RtGemms *all, const MoertGemm *shape, RtGemm **out);
/* args: a, b, c. */
MoertStatus rt_gemm_run(RtGemms *all, RtGemm *g, void *const *args,
                        void *scratchpad, int threads);
void rt_gemms_free(RtGemms *all);

/* ---- comm.c: exchanges among ranks --------------------------------------- */

/* Bytes that lie in `count` runs of `bytes`, `stride` apart. */
typedef struct RtRuns {
  char *data;
  int64_t bytes, count, stride;
} RtRuns;

/* What goes to a rank, or comes from it: runs one after the other. */
typedef struct RtStream {
  RtRuns *runs;
  int n, cap;
  int64_t total;
  int at;            /* position: run list, run in it, byte in that */
  int64_t run, byte;
} RtStream;

/* One round of messages in a group: every member sends to every other, perhaps
 * nothing. Streams are by place; one's own is not looked at. */
typedef struct RtExchange {
  const char *what; /* for messages: the op, its result and source line */
  int n, me;
  const int *ranks; /* by place */
  RtStream *send, *recv;
  void *requests;   /* the transport's own, from start to wait */
} RtExchange;

typedef enum RtMoved { RT_NOTHING, RT_MOVED, RT_DONE } RtMoved;

/* How messages travel. A rank does all exchanges of its program in the same
 * order as the others, one after the other, so those between two ranks need no
 * names. One thread at a time is in `start`, `move` and `rest`. */
typedef struct RtTransport {
  MoertStatus (*start)(MoertComm *c, RtExchange *x);
  /* What can be done without waiting; RT_DONE: all has gone and all has come.
   * Leaves in c->news what a nap is told. */
  MoertStatus (*move)(MoertComm *c, RtExchange *x, RtMoved *out);
  /* Nothing could be moved: waits a little, and looks for what is wrong. */
  MoertStatus (*rest)(MoertComm *c, RtExchange *x);
  /* The same in a thread that may only sleep, until there may be news. */
  void (*nap)(MoertComm *c, unsigned news);
  int (*fail)(MoertComm *c, const char *text);
  void (*close)(MoertComm *c);
  /* What is known to be wrong, with `what` for messages; NULL: its launcher
   * ends the ranks itself. */
  MoertStatus (*look)(MoertComm *c, const char *what);
} RtTransport;

typedef struct RtQueue RtQueue;
struct MoertComm {
  const RtTransport *transport;
  int rank, size;
  double timeout;
  int64_t bytes; /* payload received */
  void *state;   /* the transport's */
  RtQueue *queue; /* NULL where there is one rank */
  bool may_help;  /* any thread may move bytes */
  bool far;       /* some ranks are on other machines */
  unsigned news;
  double busy, waited; /* see moert_comm_seconds */
};

/* The ranks of a group, and one's own place; of the axes that it is over, in
 * their order, the sizes. */
typedef struct RtGroup {
  int n, me;
  int *ranks;
  int64_t sizes[MOERT_MAX_MESH];
} RtGroup;
MoertStatus rt_group_new(const MoertAxis *mesh, int n_axes,
                         const MoertCollective *k, int rank, RtGroup *out);
void rt_group_free(RtGroup *g);
/* Of `experts` those of the rank at a place: each axis of the group cuts the
 * parts that the one before made, in sizes rounded up. */
void rt_experts_of(const MoertCollective *k, const RtGroup *g, int64_t experts,
                   int place, int64_t *first, int64_t *end);

/* An operand or result of an exchange. */
typedef struct RtBuffer {
  char *data;
  int dtype;
  int64_t elements;
} RtBuffer;

/* A collective made ready once, then started and waited for again and again. */
typedef struct RtPending {
  MoertComm *comm;
  const MoertCollective *k;
  RtGroup group;
  char *what;
  RtExchange x;
  int n;             /* operands of an all_reduce */
  RtBuffer *buffers; /* as the record's args */
  int n_buffers;
  char *staging;     /* RT_STAGING bytes where something is summed */
  int operand;       /* all_reduce: the one at work */
  int64_t done;      /* elements of a piece that are summed */
  bool gathering, active, in_round;
  bool uncounted;    /* not of tensors */
  /* progress.c: */
  struct RtPending *next;
  double since;      /* when it came to the front; 0: not yet */
  MoertStatus status;
  char *why;         /* it has failed, or NULL */
  atomic_bool over;
} RtPending;

/* Operands of rows_send and rows_return, see their rows in ops.def. */
enum { RT_X, RT_MINE, RT_GOT, RT_THEIRS, RT_SOME, RT_OTHERS };

enum { RT_STAGING = 1 << 20, RT_TIMEOUT = 30 /* seconds */ };
/* Bytes of staging that a collective needs. */
int64_t rt_staging_bytes(const MoertCollective *k);
/* `staging` is the caller's. Buffers are set before each start. */
MoertStatus rt_pending_new(MoertComm *c, const MoertAxis *mesh, int n_axes,
                           const MoertCollective *k, int n_buffers,
                           const char *what, char *staging, RtPending *out);
void rt_pending_free(RtPending *p);
MoertStatus rt_comm_start(RtPending *p);
MoertStatus rt_comm_wait(RtPending *p);

/* One step of an exchange that has been started. */
MoertStatus rt_pending_advance(RtPending *p, RtMoved *out);

/* The communicator of one rank. */
extern MoertComm rt_comm_self;

/* What every rank gives, by rank; not counted among the bytes of tensors. */
MoertStatus rt_comm_all(MoertComm *c, const char *what, const void *mine,
                        size_t bytes, void *all);
/* MOERT_OK where all ranks come with that; else the same status and text for
 * all, of the first rank that does not. */
enum { RT_VERDICT = 1020 };
MoertStatus rt_comm_agree(MoertComm *c, MoertStatus st);

/* ---- progress.c: exchanges that go on behind computation ----------------- */

/* Of a communicator of several ranks, made and freed with it. */
MoertStatus rt_queue_new(MoertComm *c);
void rt_queue_free(MoertComm *c);
void rt_queue_start(MoertComm *c, RtPending *p);
MoertStatus rt_queue_wait(MoertComm *c, RtPending *p);
void rt_queue_drop(MoertComm *c, RtPending *p); /* nobody waits any more */
/* Runs an exchange that is no collective; none is under way. */
MoertStatus rt_exchange(MoertComm *c, RtExchange *x);
/* The program is about to compute: what has been started goes on meanwhile, by
 * a helper; or only what can be done right now is. */
MoertStatus rt_comm_behind(MoertComm *c);
void rt_comm_poke(MoertComm *c);

/* ---- stream.c ------------------------------------------------------------ */

MoertStatus rt_stream_add(RtStream *s, RtRuns r);
/* Bytes [lo, hi) of `r`, counted run after run. */
MoertStatus rt_stream_add_part(RtStream *s, RtRuns r, int64_t lo, int64_t hi);
void rt_stream_clear(RtStream *s);
void rt_stream_rewind(RtStream *s);
/* Copies up to `bytes` from or to a stream's position and moves it; returns how
 * many, 0 at the end. */
int64_t rt_stream_read(RtStream *s, char *to, int64_t bytes);
int64_t rt_stream_write(RtStream *s, const char *from, int64_t bytes);
int64_t rt_stream_copy(RtStream *to, RtStream *from);
/* The bytes at the position that lie side by side, at most `limit`; moves
 * behind them. 0 at the end. */
int64_t rt_stream_take(RtStream *s, char **out, int64_t limit);

/* to[i] = the elements i of n pieces, `stride` bytes apart, combined. */
void rt_combine(int dtype, MoertCombine op, char *to, const char *pieces,
                int64_t stride, int n, int64_t elements);

/* ---- mpi.c: the plug-in -------------------------------------------------- */

/* What libmoert-mpi.so exports as `moert_mpi`. Functions leave a text in `why`
 * and return false where they fail. */
#define RT_MPI_VERSION 3
enum { RT_WHY = 512 };
enum { RT_MPI_FAILED = -1, RT_MPI_NOTHING, RT_MPI_MOVED, RT_MPI_DONE };
typedef struct RtMpi {
  int version;
  /* any_thread: calls may come from any, one at a time. */
  bool (*open)(int *rank, int *size, bool *crowded, bool *any_thread,
               bool *far, char *why);
  bool (*start)(RtExchange *x, char *why);
  int (*test)(RtExchange *x, char *why); /* RT_MPI_... */
  /* Place of a rank that is still waited for. */
  int (*missing)(const RtExchange *x);
  /* Whether a rank that gives up has something to say: it is the first of this
   * machine, or has not lost another and says something new. */
  bool (*tell)(const char *text, bool lost);
  void (*close)(void);
} RtMpi;

/* Whether the plug-in loads; MOERT_UNSUPPORTED with its text. */
MoertStatus rt_mpi_check(void);

/* ---- session.c ----------------------------------------------------------- */

typedef struct RtEntry {
  char *base[MOERT_SLAB_COUNT]; /* for the device */
  char *input, *report; /* these two slabs for the host */
  RtGemm **gemms; /* one a record; NULL where it is no product */
  RtPending *pending; /* one a record; for those that start an exchange */
  double *seconds; /* one a record */
  int64_t *calls;
  const MoertBinding *ok; /* the report, NULL where there is none */
} RtEntry;

/* The loops around a record that is run, outermost first. */
typedef struct RtLoops {
  int64_t index[MOERT_MAX_LOOPS];
  int64_t turn[MOERT_MAX_LOOPS]; /* from 0, whatever the direction */
  int64_t turns[MOERT_MAX_LOOPS]; /* how many there are */
  int start[MOERT_MAX_LOOPS];    /* its record */
  int depth;
} RtLoops;

/* What a session's program runs on. */
typedef struct RtDevice {
  MoertDevice is;
  /* All memory, and what records need to be run: s->slab, s->planned, the
   * addresses in s->entries. What was made before a failure is closed too. */
  MoertStatus (*open)(MoertSession *s);
  void (*close)(MoertSession *s);
  /* All records of an entry, its inputs in RtEntry.input. `start` may return
   * before they are done, with the inputs free to be filled again where the
   * memory that they are read in is another; done when `finish` returns, with
   * the reports in RtEntry.report. */
  MoertStatus (*start)(MoertSession *s, int entry);
  MoertStatus (*finish)(MoertSession *s, int entry);
  /* Begins to bring the inputs to the device for the next `start`. */
  MoertStatus (*stage)(MoertSession *s, int entry);
  /* One record; may return before it is done. A loop's: its argument gets the
   * index of the innermost loop. */
  MoertStatus (*record)(MoertSession *s, int entry, int index,
                        const RtLoops *l);
  MoertStatus (*wait)(MoertSession *s);
  /* Between the host's memory and the device's. */
  MoertStatus (*read)(MoertSession *s, void *to, const void *from,
                      int64_t bytes);
  MoertStatus (*write)(MoertSession *s, void *to, const void *from,
                       int64_t bytes);
  /* Fills what a step writes before it reads it with NaN. */
  MoertStatus (*poison)(MoertSession *s, int entry);
  /* See moert_gpu_bytes. */
  int64_t (*taken)(MoertSession *s);
  /* Seconds of a product of square matrices, and of a copy of RT_COPY_BYTES. */
  MoertStatus (*time_product)(const MoertSession *s, int dtype, int64_t size,
                              double *out_seconds);
  MoertStatus (*time_copy)(const MoertSession *s, double *out_seconds);
} RtDevice;

struct MoertSession {
  MoertModel *model;
  const MoertDesc *desc;
  const RtDevice *device; /* NULL: none was found */
  char device_text[640];
  int threads;
  uint32_t seed;
  bool poison, profile;
  bool has_helper; /* a thread beside the team, for exchanges */
  int64_t steps_done;
  int started; /* entry of the step that moert_start has begun, + 1; else 0 */
  double *options; /* by index in desc->options */
  int64_t planned; /* bytes of the device's memory */
  char *slab[3]; /* param, optim, state: ORDER SLOT */
  char *state_kept; /* a copy of the state slab while some of it is reset */
  RtEntry *entries;
  MoertComm *comm;
  MoertTokens tokens; /* of its text files */
  const MoertVocab *vocab; /* NULL: none */
  char *view; /* a copy of what the device has, and the slot that it is of */
  int64_t view_bytes;
  const MoertSlot *viewed;
  /* cpu_step.c: */
  RtMem mem;
  char *arena, *workspace, *scratch, *scratchpad, *staging;
  int64_t workspace_bytes, scratch_stride;
  RtGemms gemms;
  int max_args;
  void **args; /* of the record being run: max_args a thread */
  struct RtCuda *cuda; /* NULL: on the CPU */
  struct {
    int graphs, counts; /* see moert_gpu_graphs */
  } last;             /* step on a GPU */
};

/* Index of an entry, -1 with a failure text when there is none. */
int rt_find_entry(MoertSession *s, const char *name);
/* Address of a slot, and of a ref, for the device. */
char *rt_slot_data(const MoertSession *s, const MoertSlot *slot);
char *rt_address(const MoertSession *s, int entry, const MoertRef *ref,
                 const int64_t *loop);
/* An input, option or report of an entry in the host's memory. */
char *rt_binding_data(const MoertSession *s, int entry, const MoertBinding *b);
/* What the host sees of the device's memory: good until the next view or
 * step. */
MoertStatus rt_view(MoertSession *s, int entry, const MoertRef *ref,
                    const int64_t *loop, const char **out);
MoertStatus rt_slot_view(MoertSession *s, const MoertSlot *slot, char **out);
/* The slot becomes what a view of it has been changed to. */
MoertStatus rt_slot_changed(MoertSession *s, const MoertSlot *slot,
                            const char *part);

/* ---- tables.c ------------------------------------------------------------ */

/* MOERT_BAD_DATA: what is wrong with a program's tables. */
MoertStatus rt_check_tables(const MoertDesc *d);

/* ---- parts.c: slots that are cut over ranks ------------------------------ */

/* Which box of a whole tensor a rank has, and the sizes it is stored with. */
typedef struct RtPart {
  int rank; /* number of dims */
  bool is_cut; /* some dim is, whatever this rank has */
  int64_t whole[MOERT_MAX_RANK], lo[MOERT_MAX_RANK], n[MOERT_MAX_RANK];
  int64_t size[MOERT_MAX_RANK];
} RtPart;
RtPart rt_part(const MoertDesc *d, const MoertSlot *slot, int rank);
/* The first of the ranks that have the same part as this one. */
int rt_part_owner(const MoertDesc *d, const MoertSlot *slot, int rank);
/* Bytes of the whole tensor, and of a part as it is stored. */
int64_t rt_slot_bytes(const MoertSlot *slot);
int64_t rt_part_bytes(const MoertDesc *d, const MoertSlot *slot);

/* n elements that lie side by side from `whole` on in the whole tensor and from
 * `slab` on in the part. */
typedef struct RtRun {
  int64_t whole, slab, n;
} RtRun;
typedef struct RtWalk {
  const RtPart *part;
  int cut;            /* the innermost dim that is cut, -1: none */
  int64_t inner, row; /* elements below that dim, and with it */
  int64_t at, to;
} RtWalk;
/* Over what the part has of elements [from, to) of the whole. */
RtWalk rt_walk(const RtPart *p, int64_t from, int64_t to);
bool rt_walk_next(RtWalk *w, RtRun *out);

/* Takes the part's share of elements [from, to) of a whole; `whole` has these
 * alone. */
void rt_part_take(const MoertSlot *slot, const RtPart *p, const char *whole,
                  int64_t from, int64_t to, char *slab);
/* Of the part's elements; what fills it up does not count. */
uint64_t rt_part_hash(const MoertSlot *slot, const RtPart *p,
                      const char *slab);

/* Wholes from parts, portion by portion; all ranks gather the same in the same
 * order. */
enum { RT_PORTION = 4 << 20 };
typedef struct RtGather {
  MoertSession *session;
  bool to_all;  /* else to rank 0 alone */
  char *buffer; /* the portion that was gathered last */
  char *marks;  /* one a rank: for exchanges of nothing */
  int *ranks;
  char what[256]; /* for messages */
  RtExchange x;
} RtGather;
MoertStatus rt_gather_open(MoertSession *s, bool to_all, RtGather *out);
void rt_gather_close(RtGather *g);
/* Elements of the portion that starts at `from`. */
int64_t rt_gather_portion(const MoertSlot *slot, int64_t from);
MoertStatus rt_gather(RtGather *g, const MoertSlot *slot, int64_t from);

/* ---- step.c -------------------------------------------------------------- */

/* The way through an entry's records. A loop begins at *at, or ends there: true
 * where a turn of it follows. The caller goes on behind *at. */
int rt_loop_end(const MoertEntry *e, int start);
/* How many turns the loop that begins at `at` takes now. */
MoertStatus rt_loop_turns(MoertSession *s, int entry, int at, const RtLoops *l,
                          int64_t *out);
bool rt_loop_enter(const MoertEntry *e, int *at, int64_t turns, RtLoops *l);
bool rt_loop_next(const MoertEntry *e, int *at, RtLoops *l);
/* Visits each record that does something, and a loop's before each turn.
 * `whole` may be NULL, or do a loop by itself and return its end; it returns
 * `start` where it has done nothing. Of a TURNS record it says whether that is
 * to be visited, and returns the end of the loop behind it. */
typedef MoertStatus RtVisit(MoertSession *s, int entry, int index,
                            const RtLoops *l);
typedef int RtWhole(MoertSession *s, int entry, int start, const RtLoops *l);
MoertStatus rt_each_record(MoertSession *s, int entry, RtVisit *visit,
                           RtWhole *whole);

/* ---- cpu_step.c ---------------------------------------------------------- */

extern const RtDevice rt_cpu;

/* ---- cuda.c: more of it in gpu.h ----------------------------------------- */

typedef struct RtCuda RtCuda;
extern const RtDevice rt_cuda;
/* A GPU that can run the program, of several ranks one each;
 * MOERT_UNSUPPORTED, and one line, where there is none. All ranks get the same
 * status. */
MoertStatus rt_cuda_find(const MoertDesc *d, MoertComm *comm, RtCuda **out);
/* "NVIDIA H100 (sm_90)" */
void rt_cuda_name(const RtCuda *c, char *out, size_t bytes);

/* ---- peaks.c ------------------------------------------------------------- */

#define RT_COPY_BYTES ((int64_t)512 << 20)
/* Something to time: seconds of a run, of many one after the other. */
typedef MoertStatus RtTimed(void *user);
MoertStatus rt_steady(RtTimed *run, void *user, double *out_seconds);
/* Of two square matrices of `dtype` with `size` rows. */
MoertGemm rt_square_product(int dtype, int64_t size);
/* Numbers in [-1, 1), which differ in all their bits as those of models do. */
void rt_fill_random(int dtype, char *to, int64_t n, int threads);
MoertStatus rt_cpu_time_product(const MoertSession *s, int dtype, int64_t size,
                                double *out_seconds);
MoertStatus rt_cpu_time_copy(const MoertSession *s, double *out_seconds);

/* ---- safetensors.c ------------------------------------------------------- */

/* A tensor in a file: read, `data` points into the mapping; to write, NULL
 * where it comes in portions. */
typedef struct RtTensor {
  const char *name, *dtype;
  int rank;
  int64_t dims[MOERT_MAX_RANK];
  const void *data;
  int64_t bytes;
} RtTensor;

/* A mapped safetensors file, checked to be one. */
typedef struct RtTensors {
  const char *map;
  size_t map_bytes;
  void *header; /* cJSON, owns the names */
  RtTensor *items;
  int n;
} RtTensors;

/* The next portion of a tensor without data. */
typedef MoertStatus RtNext(void *user, const RtTensor *x, const void **out_data,
                           size_t *out_bytes);
/* Writes tensors to a new file and syncs it; its size and hash. */
MoertStatus rt_tensors_write(const RtTensor *x, int n, RtNext *next, void *user,
                             const char *path, int64_t *out_bytes,
                             uint64_t *out_hash);
/* Maps a file for reading; MOERT_BAD_DATA when it is not whole. */
MoertStatus rt_tensors_open(const char *path, RtTensors *out);
const RtTensor *rt_tensors_find(const RtTensors *t, const char *name);
void rt_tensors_close(RtTensors *t);

/* Maps a whole file; an empty one gives NULL and 0. */
MoertStatus rt_map_file(const char *path, const char **out_data,
                        size_t *out_bytes);
void rt_unmap(const char *data, size_t bytes);
/* Lets go of what has been read of a mapping: a checkpoint would else be in
 * memory a second time. */
void rt_drop_mapped(const char *data, size_t bytes);
uint64_t rt_hash_mapped(const char *data, size_t bytes);
/* Writes a new file and syncs it; the second takes the place of an old one when
 * all is written. */
MoertStatus rt_write_file(const char *path, const void *data, size_t bytes);
MoertStatus rt_replace_file(const char *path, const void *data, size_t bytes);

/* ---- vocab.c, tokens.c: files as tokens ---------------------------------- */

/* Words that every vocabulary has. */
enum { RT_UNKNOWN = 0, RT_LINE_END = 1 };
uint64_t rt_vocab_hash(const MoertVocab *v);

typedef struct RtTokens {
  MoertTokens kind;
  const void *data;
  size_t n;
  int width;     /* bytes of one */
  int64_t bound; /* they are below it, whatever the file */
  const char *map; /* the file, or NULL */
  size_t map_bytes;
  void *made; /* or memory of its own */
} RtTokens;
/* What one is called: "byte". */
const char *rt_tokens_unit(MoertTokens kind);
/* MOERT_BAD_DATA: not a whole number of tokens. */
MoertStatus rt_tokens_open(const char *path, MoertTokens kind,
                           const MoertVocab *vocab, RtTokens *out);
/* Random bytes below `below`; the same in every run. */
MoertStatus rt_tokens_random(size_t n, int64_t below, RtTokens *out);
/* MOERT_INVALID: the vocabulary is too large for a model. */
MoertStatus rt_tokens_fit(const RtTokens *t, int64_t below);
int64_t rt_token(const RtTokens *t, int64_t i);
void rt_tokens_close(RtTokens *t);

/* ---- source.c: what inputs ask for --------------------------------------- */

typedef enum RtFrom {
  RT_FROM_ELSEWHERE,
  RT_FROM_TEXT,
  RT_FROM_SOURCE, /* of pairs of sentences */
  RT_FROM_TARGET
} RtFrom;
typedef struct RtSource {
  RtFrom from;
  bool mask;
  int64_t shift, below;
  MoertCollective share; /* over whose axes the rows of a batch are split */
} RtSource;
/* MOERT_UNSUPPORTED: arguments that are not known; MOERT_INVALID: not [B, T].
 */
MoertStatus rt_source_of(const MoertSession *s, const MoertEntry *e,
                         const MoertBinding *b, RtSource *out);
/* How many ranks share the rows, and which part is this one's. */
MoertStatus rt_source_share(const MoertSession *s, const RtSource *src,
                            int64_t *shares, int64_t *share);

/* ---- pairs.c: sentences and their translations --------------------------- */

typedef struct RtPairs RtPairs;
/* `target` may be NULL. */
MoertStatus rt_pairs_open(MoertSession *s, const char *entry,
                          const char *source, const char *target,
                          MoertTextMode mode, RtPairs **out);
void rt_pairs_close(RtPairs *p);
/* Fills the inputs of an entry with batch `number`, counted over all rounds. */
MoertStatus rt_pairs_fill(RtPairs *p, int64_t number, const char **out_entry);
int64_t rt_pairs_batches(const RtPairs *p); /* in a round */
int64_t rt_pairs_tokens(const RtPairs *p);  /* in a batch, in the mean */
int64_t rt_pairs_left_out(const RtPairs *p);
int64_t rt_pairs_lines(const RtPairs *p);
/* The line whose pair is in a row of the last batch, from 0; -1: none is. */
int64_t rt_pairs_line(const RtPairs *p, int64_t row);

/* ---- ckpt_dir.c: directories of checkpoints ------------------------------ */

enum { RT_PATH = 4096 };
typedef struct RtPath {
  char text[RT_PATH];
} RtPath;
/* "dir/name"; MOERT_INVALID when it is too long. */
MoertStatus rt_join(const char *dir, const char *name, RtPath *out);
MoertStatus rt_sync_dir(const char *path);
/* Makes a directory and those above it. */
MoertStatus rt_make_dirs(const char *path);
/* Removes a directory and the files in it, as far as that goes. */
void rt_remove_dir(const char *path);
/* A new directory in `dir`, which is made too: it becomes `dir`/`name` when all
 * of it has been written. */
MoertStatus rt_set_aside(const char *dir, const char *name, RtPath *out);
/* Gives it its name, and points `dir`/latest at it. */
MoertStatus rt_put_in_place(const char *aside, const char *dir,
                            const char *name);
/* The directory of one checkpoint: `dir`, or the newest one in it. */
MoertStatus rt_find_checkpoint(const char *dir, RtPath *out);

#endif
