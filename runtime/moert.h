/* moert.h: the public C ABI of moec's runtime, and the layout of the one symbol
 * that a compiled model exports.
 *
 * A program opens a model, makes a session (which owns all memory and the
 * thread team's settings), then steps an entry: it fills inputs, calls
 * moert_step, reads reports. Nothing here exits or aborts the host program;
 * functions return a status and leave a text in moert_error(). A session is
 * used by one thread at a time. Out pointers come last and are nulled first.
 *
 * Threads are OpenMP's. How long idle ones spin before they sleep is read from
 * the environment when the process starts: a program that may share its cores
 * with others should be started with GOMP_SPINCOUNT=5000, as moerun does.
 *
 * Part 1 is for programs; part 2 is the contract with generated code. */
#ifndef MOERT_H
#define MOERT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOERT_API __attribute__((visibility("default")))

/* ======================= part 1: for programs ============================= */

typedef enum MoertStatus {
  MOERT_OK = 0,
  MOERT_INVALID,     /* the caller's mistake: wrong name, shape, size */
  MOERT_NOT_FOUND,   /* a file, symbol, slot or entry that is not there */
  MOERT_BAD_DATA,    /* a file that is truncated, edited or of another kind */
  MOERT_UNSUPPORTED, /* this machine or this build cannot: CPU feature, ABI */
  MOERT_NO_MEMORY,
  MOERT_IO,          /* reading or writing failed: no space, no permission */
  MOERT_NOT_FINITE,  /* loss or gradient is not finite; nothing changed */
  MOERT_RANK_LOST,   /* another rank has died, failed or does not answer */
  MOERT_INTERNAL     /* a mistake of the runtime itself */
} MoertStatus;

typedef struct MoertModel MoertModel;
typedef struct MoertSession MoertSession;

/* Text of this thread's last failure: what, expression, place. "" if none. */
MOERT_API const char *moert_error(void);
MOERT_API const char *moert_status_name(MoertStatus s);

/* Loads a compiled model. MOERT_NOT_FOUND, MOERT_BAD_DATA (not a model),
 * MOERT_UNSUPPORTED (other ABI version; CPU feature missing, named). */
MOERT_API MoertStatus moert_open(const char *path, MoertModel **out_model);
MOERT_API void moert_close(MoertModel *model);

/* ---- ranks -----------------------------------------------------------------
 * A library that was compiled for a mesh of several ranks is run by as many
 * processes at once, each with a communicator that knows its rank. `timeout` is
 * how many seconds a rank waits for others without any progress, 0 for 30.
 * When a rank is lost every other one gets MOERT_RANK_LOST, with a text that
 * names the rank and the exchange; a communicator is of no use after that. */
typedef struct MoertComm MoertComm;
typedef struct MoertLocal MoertLocal;

/* Ranks on one machine: shared memory, made before the processes are forked,
 * gone with the last of them. */
MOERT_API MoertStatus moert_local_new(int ranks, MoertLocal **out_local);
/* In each process: returns when all have joined. */
MOERT_API MoertStatus moert_local_join(MoertLocal *l, int rank, double timeout,
                                       MoertComm **out_comm);
/* For the process that has forked them: a rank has ended before its time, `how`
 * in words. The others are told. */
MOERT_API void moert_local_lost(MoertLocal *l, int rank, const char *how);
/* Whether one of them was the first to say why they end: moert_comm_fail. */
MOERT_API int moert_local_told(const MoertLocal *l);
MOERT_API void moert_local_free(MoertLocal *l);

/* Ranks started by mpirun or srun. MOERT_UNSUPPORTED: this build has no MPI, or
 * its library cannot be loaded. */
MOERT_API MoertStatus moert_mpi_open(double timeout, MoertComm **out_comm);

MOERT_API int moert_comm_rank(const MoertComm *c);
MOERT_API int moert_comm_size(const MoertComm *c);
/* Bytes of tensors that have come in from other ranks so far. */
MOERT_API int64_t moert_comm_bytes(const MoertComm *c);
/* What every rank gives, `bytes` of it, for all of them by rank. */
MOERT_API MoertStatus moert_comm_all(MoertComm *c, const void *mine,
                                     size_t bytes, void *all);
/* Seconds in which an exchange of tensors was under way so far, and those of
 * them in which the program waited for one: the others were spent computing. */
MOERT_API void moert_comm_seconds(const MoertComm *c, double *out_busy,
                                  double *out_waited);
/* Returns when all ranks have called it. */
MOERT_API MoertStatus moert_comm_barrier(MoertComm *c);
/* The largest value that any rank gives, for all of them. */
MOERT_API MoertStatus moert_comm_max(MoertComm *c, int *value);
/* Tells the others that this rank gives up. Returns 0 where another rank of
 * this machine has said so before: that it gives up with this very text, or
 * that the same rank is lost. One of them saying it is enough. */
MOERT_API int moert_comm_fail(MoertComm *c, const char *text);
MOERT_API void moert_comm_close(MoertComm *c);

/* What a session is to run on, of what the model was compiled for. */
typedef enum MoertChoice {
  MOERT_AUTO, /* a GPU where there is one, else the CPU */
  MOERT_USE_CPU,
  MOERT_USE_CUDA
} MoertChoice;

typedef struct MoertSessionOptions {
  MoertChoice device;
  int threads;      /* 0: the cores this process may use */
  uint32_t seed;    /* for initial values and every random draw */
  int poison;       /* fill buffers with NaN before use, and on a GPU wait for
                       each operation, to name one that fails: for tests */
  int profile;      /* time each record, see moert_profile */
  MoertComm *comm;  /* NULL: alone. It must outlive the session */
  int neighbours;   /* processes that share these cores, 0: 1 */
} MoertSessionOptions;

/* MOERT_INVALID: there are not as many ranks as the model's mesh has.
 * MOERT_UNSUPPORTED: the model was not compiled for the device, or the device
 * is not there, or too old. MOERT_NO_MEMORY: it has too little.
 * Allocates every byte the model will use and runs its `init` entry. `options`
 * may be NULL for all zero. The model must outlive the session. */
MOERT_API MoertStatus moert_session(MoertModel *model,
                                    const MoertSessionOptions *options,
                                    MoertSession **out_session);
MOERT_API void moert_session_free(MoertSession *s);

/* Sets a scalar option, e.g. "lr". */
MOERT_API MoertStatus moert_set_option(MoertSession *s, const char *name,
                                       double value);
MOERT_API MoertStatus moert_get_option(MoertSession *s, const char *name,
                                       double *out_value);

/* The buffer of an entry's input, to fill before a step: its dtype and shape
 * are the model's, row-major. Owned by the session. */
MOERT_API MoertStatus moert_input(MoertSession *s, const char *entry,
                                  const char *name, void **out_data,
                                  size_t *out_bytes);

/* Runs one step of an entry. An entry that trains counts completed steps. On
 * MOERT_NOT_FINITE no slot has changed, and moert_error names the first op
 * whose result is not finite, with its source line. */
MOERT_API MoertStatus moert_step(MoertSession *s, const char *entry);

/* The same in two halves, for what a program may do while a device computes.
 * When moert_start has returned the inputs of all entries may be filled again.
 * moert_finish waits for the end of the step and has its status; until then
 * nothing else may be asked of the session but moert_input, moert_stage and
 * moert_text_ahead. Where moert_start fails the step is over, and there is
 * nothing to finish. On the CPU a step is over when it has been started. */
MOERT_API MoertStatus moert_start(MoertSession *s, const char *entry);
MOERT_API MoertStatus moert_finish(MoertSession *s);
/* Begins to bring the entry's inputs, as they are, to the device. A step that
 * finds them the same need not wait for them, and nothing else changes. */
MOERT_API MoertStatus moert_stage(MoertSession *s, const char *entry);

/* A scalar report of the entry's last step, e.g. "loss". */
MOERT_API MoertStatus moert_report(MoertSession *s, const char *entry,
                                   const char *name, double *out_value);
/* A report or probe of any shape: pointer into session memory. */
MOERT_API MoertStatus moert_report_data(MoertSession *s, const char *entry,
                                        const char *name, const void **out_data,
                                        size_t *out_bytes);

/* Writes all reports and probes of the entry's last step, named tensors, to the
 * file `dir`/step-NNNNNNNN.safetensors. */
MOERT_API MoertStatus moert_save_reports(MoertSession *s, const char *entry,
                                         const char *dir);

/* Copies a slot (parameter, optimiser or recurrent state) by path: the whole
 * tensor, whichever ranks have parts of it. `bytes` must be its size. Of
 * several ranks all must call, for the same slots in the same order; they put
 * the same. */
MOERT_API MoertStatus moert_get(MoertSession *s, const char *path, void *data,
                                size_t bytes);
MOERT_API MoertStatus moert_put(MoertSession *s, const char *path,
                                const void *data, size_t bytes);

/* Recurrent state of one entry, or of all where `entry` is NULL, back to its
 * initial value. */
MOERT_API MoertStatus moert_reset_state(MoertSession *s, const char *entry);

MOERT_API int64_t moert_steps_done(const MoertSession *s);
MOERT_API void moert_set_steps_done(MoertSession *s, int64_t steps);

/* Saves all slots, the step, seed, options and `cursor` (the caller's data
 * position) under a directory `dir`/step-NNNNNNNN, written aside, synced,
 * renamed; then points `dir`/latest at it. Of several ranks all must call, and
 * all get the same status and text. The first writes whole tensors, so that a
 * checkpoint can be loaded on any mesh. MOERT_BAD_DATA: ranks that should have
 * the same in a slot do not. */
MOERT_API MoertStatus moert_save(MoertSession *s, const char *dir,
                                 int64_t cursor);
/* Loads a checkpoint directory, or the latest under it. Hashes, names, shapes
 * and dtypes are checked before anything changes. `pattern` NULL loads
 * everything and demands that all be there; otherwise only parameters whose
 * path matches ('*' any run, '?' any character) are loaded, and step, seed,
 * options and cursor stay; `dir` may then also be a single safetensors file.
 * out_cursor may be NULL. MOERT_NOT_FOUND: there is no checkpoint;
 * MOERT_BAD_DATA: there is, and it is not whole. Of several ranks all must
 * call, each reads its parts from the same files, and all get the same status:
 * where one fails nothing changes anywhere. */
MOERT_API MoertStatus moert_load(MoertSession *s, const char *dir,
                                 const char *pattern, int64_t *out_cursor);
/* Removes all but the `keep` newest checkpoints under `dir`; never the one that
 * `latest` names. */
MOERT_API MoertStatus moert_prune(const char *dir, int keep);

/* ---- vocabularies ----------------------------------------------------------
 *
 * Words and their numbers: 0 is <unk>, every word that is not there; 1 is
 * <eos>, the end of a line. A text is cut at white space, or also around each
 * mark of ASCII punctuation. The file is text, a word a line behind a first
 * line that says how texts are cut; it can be read and written by hand. */
typedef struct MoertVocab MoertVocab;

typedef enum MoertSplit { /* ORDER SPLIT: vocab.c */
  MOERT_SPLIT_SPACE,
  MOERT_SPLIT_PUNCTUATION
} MoertSplit;

/* The `size` most frequent words of n texts, <unk> and <eos> among them, or all
 * there are; of equally frequent ones the first by their bytes. MOERT_INVALID:
 * size below 3; MOERT_BAD_DATA: no word in the files. */
MOERT_API MoertStatus moert_vocab_build(const char *const *text_paths, int n,
                                        MoertSplit split, int64_t size,
                                        MoertVocab **out_vocab);
/* MOERT_BAD_DATA: not a vocabulary; the line is named. */
MOERT_API MoertStatus moert_vocab_open(const char *path,
                                       MoertVocab **out_vocab);
/* A file of that name is replaced when all is written. */
MOERT_API MoertStatus moert_vocab_save(const MoertVocab *v, const char *path);
MOERT_API void moert_vocab_close(MoertVocab *v);
MOERT_API int64_t moert_vocab_size(const MoertVocab *v);
/* What the tokens of a file are. */
typedef enum MoertTokens { /* ORDER TOKENS: tokens.c */
  MOERT_BYTES,
  MOERT_WORDS, /* of text, by a vocabulary */
  MOERT_U16,   /* numbers, little-endian, of a file made before */
  MOERT_U32
} MoertTokens;
/* "bytes", "words", "u16", "u32"; NULL behind the last. */
MOERT_API const char *moert_tokens_name(int tokens);
/* The token that ends a line, and that for words not in the vocabulary; -1 for
 * none. */
MOERT_API int64_t moert_line_end(MoertTokens tokens);
MOERT_API int64_t moert_unknown(MoertTokens tokens);

/* Reads a text's words, and writes their numbers as MOERT_U16 or MOERT_U32 to a
 * file, unless `out_path` is NULL. MOERT_INVALID: the vocabulary is too large
 * for them. How many there are, and how many of these are <unk>. */
MOERT_API MoertStatus moert_vocab_encode_file(const MoertVocab *v,
                                              const char *text_path,
                                              MoertTokens tokens,
                                              const char *out_path,
                                              int64_t *out_n,
                                              int64_t *out_unknown);
/* The numbers of a text's words; the caller frees them. */
MOERT_API MoertStatus moert_vocab_encode(const MoertVocab *v, const char *text,
                                         size_t bytes, uint32_t **out_tokens,
                                         size_t *out_n);
/* The text of a word, "\n" for <eos>, of out_n bytes without a 0 behind them.
 * out_joined: no space belongs in front of it. */
MOERT_API const char *moert_vocab_word(const MoertVocab *v, int64_t token,
                                       size_t *out_n, int *out_joined);

/* ---- text files as data ----------------------------------------------------
 *
 * A file is a row of tokens: its bytes, unless the session says otherwise. The
 * inputs of an entry say what they take of it: `text` the token at a position
 * as i32, `text(shift=S)` the one S later, `text(mask, shift=S)` a float, 1
 * where that one exists and counts, else 0. All of an entry's text inputs are
 * [B, T]: B streams side by side, T positions of each a batch. `below=N` among
 * the arguments makes tokens from N on an error. `share=AXES`, axes of the mesh
 * with '*' in between, says that the ranks along these each have a part of the
 * streams: B is one rank's then, and the batch P times as large. */
typedef struct MoertText MoertText;

typedef enum MoertTextMode {
  MOERT_TEXT_TRAIN, /* full batches only, from the start again at the end */
  MOERT_TEXT_COVER  /* every prediction exactly once, the ragged end masked */
} MoertTextMode;

typedef enum MoertTextEvent {
  MOERT_TEXT_BATCH, /* the inputs hold the next batch */
  MOERT_TEXT_START, /* the same, and it is a first one: state was reset */
  MOERT_TEXT_END    /* nothing is left; the inputs are as before */
} MoertTextEvent;

/* What the session's text files hold. The vocabulary must outlive the session;
 * numbers may have one too. Checkpoints remember which it was: one of another
 * vocabulary, or of none, is not loaded. MOERT_INVALID: words without one. */
MOERT_API MoertStatus moert_set_tokens(MoertSession *s, MoertTokens tokens,
                                       const MoertVocab *vocab);

/* MOERT_INVALID: the entry takes no text. MOERT_BAD_DATA: empty, shorter than a
 * batch (the message says how many tokens it takes), a token out of bounds.
 * `path` NULL: random bytes, for measuring. */
MOERT_API MoertStatus moert_text_open(MoertSession *s, const char *entry,
                                      const char *path, MoertTextMode mode,
                                      MoertText **out_text);
/* Tokens of the whole text, 0 of pairs; one of them, -1 outside. */
MOERT_API int64_t moert_text_tokens(const MoertText *t);
MOERT_API int64_t moert_text_token(const MoertText *t, int64_t at);
/* Where in the text the i-th token of this rank's last batch is, counted row by
 * row; -1 behind the end, and of pairs. */
MOERT_API int64_t moert_text_at(const MoertText *t, int64_t i);
/* ---- pairs of sentences ----------------------------------------------------
 *
 * Two files, a sentence and its translation in lines of the same number. Inputs
 * say what they take: `pairs.source` a sentence and its end (<eos>; of bytes
 * that of the line), `pairs.target` the end and its translation,
 * `pairs.target(shift=1)` the translation and its end; all i32[B, S], 0 behind;
 * with `mask` floats, 1 for each of these tokens. A model may have an entry for
 * each of several sizes, NAME.S16, NAME.S32 ...: a pair goes to the smallest
 * that holds it. In training a round has the pairs in a random order of its
 * own.
 *
 * `entry` is NAME; `target_path` NULL where no input is a target.
 * MOERT_BAD_DATA: the files have not as many lines, a token is
 * out of bounds, or no batch can be filled. */
MOERT_API MoertStatus moert_pairs_open(MoertSession *s, const char *entry,
                                       const char *source_path,
                                       const char *target_path,
                                       MoertTextMode mode,
                                       MoertText **out_text);
/* Pairs that are too long for the model, or of a size that does not fill a
 * batch: no round has them. */
MOERT_API int64_t moert_text_left_out(const MoertText *t);
/* Lines of the file of pairs; that of a row of the last batch, from 0, or -1
 * where a row is left over. */
MOERT_API int64_t moert_text_lines(const MoertText *t);
MOERT_API int64_t moert_text_line(const MoertText *t, int64_t row);
/* The entry whose inputs hold the last batch: the one to step. */
MOERT_API const char *moert_text_entry(const MoertText *t);

/* Fills the entry's text inputs. */
MOERT_API MoertStatus moert_text_next(MoertText *t, MoertTextEvent *out_event);
/* Between moert_start and moert_finish: fills in, and stages, what the next
 * call of moert_text_next gives, unless that is the first batch of a round or
 * the end. Nothing that is told of the last batch changes but what is in the
 * inputs, which must stay so until that call, or until moert_text_seek; of
 * pairs, moert_text_line is the new one's. */
MOERT_API MoertStatus moert_text_ahead(MoertText *t);
/* Batches given so far, over all rounds: what a checkpoint keeps as cursor. */
MOERT_API int64_t moert_text_cursor(const MoertText *t);
MOERT_API void moert_text_seek(MoertText *t, int64_t cursor);
/* Tokens in a batch, of pairs those of targets in the mean; batches in a round.
 */
MOERT_API int64_t moert_text_batch_tokens(const MoertText *t);
MOERT_API int64_t moert_text_batches(const MoertText *t);
MOERT_API void moert_text_close(MoertText *t);

/* Bytes a session has allocated for slabs, workspace, scratch and library
 * scratchpads: what the plan said, exactly. On a GPU of the GPU's memory. */
MOERT_API int64_t moert_planned_bytes(const MoertSession *s);
/* Bytes of a GPU's memory that are gone since the session was made, those that
 * the driver and cuBLASLt have for themselves included. 0 on the CPU. */
MOERT_API int64_t moert_gpu_bytes(MoertSession *s);
/* Of the last step: graphs launched on a GPU, 0 where its operations were
 * launched one by one, or on the CPU; and how often it told the host how many
 * rows other ranks get, for exchanges that need to know. */
MOERT_API int moert_gpu_graphs(const MoertSession *s);
MOERT_API int moert_gpu_counts(const MoertSession *s);
MOERT_API int moert_threads(const MoertSession *s);
/* What it runs on, for people: "NVIDIA H100 (sm_90)", "4 threads", and in the
 * latter case why it is not a GPU, where the model has code for one. */
MOERT_API const char *moert_device(const MoertSession *s);

/* ---- what this machine has of what the runtime can use ------------------- */

typedef struct MoertFinding {
  const char *what;  /* "CUDA driver" */
  int found;
  char text[400];    /* what was found, or what is missing */
  const char *gives; /* what it is for, "" for what is always there */
} MoertFinding;
/* Looks for all of it and fills up to `cap` findings; how many. */
MOERT_API int moert_doctor(MoertFinding *out, int cap);

/* ================== part 2: the contract with generated code ============== */

/* A compiled model exports `const MoertDesc moert_model`. Everything in it is
 * constant data. Bump the version with any change to a struct below. */
#define MOERT_ABI_VERSION 8
#define MOERT_MAGIC 0x63656f6du /* "moec" */
#define MOERT_MAX_RANK 8
#define MOERT_MAX_LOOPS 4
#define MOERT_MAX_MESH 8

typedef enum MoertDtype { /* ORDER DTYPE: as in dtypes.def */
#define DT(name, ...) MOERT_##name,
#include "dtypes.def"
#undef DT
  MOERT_DTYPE_COUNT
} MoertDtype;

typedef enum MoertSlab { /* ORDER SLAB: ir.h, less SLAB_NONE */
  MOERT_SLAB_PARAM,
  MOERT_SLAB_OPTIM,
  MOERT_SLAB_STATE,
  MOERT_SLAB_INPUT,  /* one an entry */
  MOERT_SLAB_REPORT, /* one an entry */
  MOERT_SLAB_ARENA,  /* one a session, the largest entry's size */
  MOERT_SLAB_COUNT
} MoertSlab;

/* Where a tensor is stored: slab + offset + sum of loop index * stride, loops
 * counted from the outermost. Bytes. */
typedef struct MoertRef {
  int32_t slab;
  int32_t dtype;
  int64_t elements; /* stored elements at the address, for checks */
  int64_t offset;
  int64_t stride[MOERT_MAX_LOOPS];
} MoertRef;

/* What a program's kernels run on. */
typedef enum MoertDevice {
  MOERT_CPU,
  MOERT_CUDA,
  MOERT_DEVICE_COUNT
} MoertDevice;

/* One parallel loop. On the CPU the runtime splits [0, count) into calls of
 * `body`, which is given all of the record's argument addresses. Chunks are
 * `grain` long, the last one shorter. `scratch` holds scratch_bytes, 64-byte
 * aligned, private to the call. `workspace` is shared by the stages of a
 * kernel.
 *
 * On CUDA the loop is within the kernel `symbol` of the program's code, run by
 * `blocks` blocks of `threads` threads, with `shared_bytes` of shared memory
 * on top of what it declares. Its parameters are 64-bit addresses: those of the
 * record's arguments, in order, then the workspace; behind them, by value, its
 * maps. The stages of a record run one after the other. `body` is NULL, and
 * scratch is part of the workspace. */
typedef void MoertBody(void *const *args, int64_t lo, int64_t hi,
                       void *scratch, void *workspace);
enum { MOERT_PARAM_BYTES = 4096 }; /* of parameters, that CUDA has room for */

/* On CUDA: an argument in bf16 of which boxes are copied by hardware, lines of
 * 128 bytes in their order for products of warpgroups (CU_TENSOR_MAP_...). */
typedef struct MoertMap {
  int64_t size[3];   /* elements of a row, rows, batch */
  int64_t stride[2]; /* bytes from row to row, of the batch */
  int32_t box[3];    /* the same of a box */
  int32_t arg;
} MoertMap;

typedef struct MoertStage {
  MoertBody *body;
  int64_t count, grain;
  int64_t scratch_bytes;
  int32_t uneven; /* chunks differ much in work: handed out one at a time */
  int32_t threads, shared_bytes; /* CUDA, 0 on the CPU */
  int32_t n_maps;                /* the same */
  int64_t blocks;
  const char *symbol; /* "" on the CPU */
  const MoertMap *maps;
} MoertStage;

typedef struct MoertKernel {
  const char *name;
  int64_t workspace_bytes;
  int32_t n_stages;
  const MoertStage *stages;
} MoertKernel;

/* c[b,m,n] = sum over k of a[b,m,k] * b[b,k,n] (+ c where accumulate). Strides
 * in elements; 0 repeats. */
typedef struct MoertGemm {
  int64_t batch, m, n, k;
  int64_t a_stride[3]; /* batch, m, k */
  int64_t b_stride[3]; /* batch, k, n */
  int64_t c_stride[3]; /* batch, m, n */
  int32_t dtype;       /* of a and b */
  int32_t c_dtype;     /* f32 where a and b are bf16, else theirs */
  int32_t accumulate;
  int32_t tf32; /* of f32 on a GPU: a and b may be rounded to tf32 */
} MoertGemm;

/* An exchange among the ranks that differ in `axes` of the mesh alone: P of
 * them, counted row-major in that order. A tensor cut into P pieces is `rows`
 * runs of `run` elements a piece, the first of piece i at i * run, each P * run
 * after the other. Sums are made in double, in order of rank, rounded once. */
typedef enum MoertCollectiveKind {
  MOERT_ALL_REDUCE,     /* args: n inputs, n outputs; one may be the other */
  MOERT_ALL_GATHER,     /* out: pieces */
  MOERT_REDUCE_SCATTER, /* in: pieces */
  MOERT_ALL_TO_ALL,     /* in and out: pieces */
  MOERT_PERMUTE,        /* place i's goes to place to[i] */
  MOERT_ROWS_SEND,   /* args: x, mine, got, theirs (, some), out; run: elements
                        a row */
  MOERT_ROWS_RETURN, /* the same, or (, some, others); ir/ops.def says what they
                        are */
  MOERT_PLACE        /* out: i32, this rank's place in the group */
} MoertCollectiveKind;

typedef enum MoertCombine { /* ORDER COMBINE: ir.h */
  MOERT_SUM,
  MOERT_MAX,
  MOERT_MIN
} MoertCombine;

typedef struct MoertCollective {
  int32_t kind, combine;
  int32_t n_axes;
  int32_t axes[MOERT_MAX_MESH]; /* in the mesh */
  int64_t in_rows, in_run, out_rows, out_run;
  const int32_t *to; /* one a place */
} MoertCollective;

typedef enum MoertRecordKind {
  MOERT_LAUNCH, /* kernel */
  MOERT_GEMM,   /* args: a, b, c */
  MOERT_COPY,   /* args: from, to; whole elements of `to` */
  MOERT_LOOP,   /* repeats the records up to its MOERT_END `count` times. Args
                   are i32: one that is not written says how many times it is,
                   `count` at most; one that is gets the index before each
                   turn */
  MOERT_END,
  MOERT_TURNS, /* on a GPU: kernel, which does all turns of the loop that is the
                  next record, its blocks waiting for each other; args are where
                  they are for index 0. Where not all blocks of its one stage
                  can run at once that loop is done instead */
  MOERT_START, /* begins an exchange: its args are neither read nor written
                  until it is waited for */
  MOERT_WAIT   /* ends the one that record number `count` has begun */
} MoertRecordKind;

typedef struct MoertRecord {
  int32_t kind;
  int32_t n_args, n_outs; /* the last n_outs of args are written */
  int32_t reverse;        /* loop: indices from count - 1 down to 0 */
  int64_t count;          /* loop, wait */
  const char *name;       /* result names and op, for people */
  const char *where;      /* "file:line:col" of the model source, or "" */
  const MoertRef *args;
  const MoertKernel *kernel;
  const MoertGemm *gemm;
  const MoertCollective *collective;
  int64_t flops;  /* of the products in one execution */
  int64_t needed; /* of these, what no record before has computed in the step */
  int64_t bytes; /* that one execution reads and writes at least */
  int32_t dtype; /* of its products' operands, where it has any */
} MoertRecord;

/* Where an entry's inputs are read and its results left. The runtime writes
 * options, step and seed into the entry's input slab. A slot's result is in the
 * slot itself once the last record has run: a copy, where one is needed, is a
 * record. A training entry has the report `ok`, 1 or 0. */
typedef enum MoertBindKind { /* ORDER BIND: ir.h */
  MOERT_BIND_SLOT,
  MOERT_BIND_INPUT,
  MOERT_BIND_OPTION,
  MOERT_BIND_STEP,
  MOERT_BIND_SEED,
  MOERT_BIND_REPORT,
  MOERT_BIND_PROBE
} MoertBindKind;

typedef struct MoertBinding {
  int32_t kind;
  int32_t dtype, rank;
  int64_t dims[MOERT_MAX_RANK]; /* as stored */
  const char *name;   /* "" for step and seed */
  const char *source; /* inputs: where data comes from, canonical text */
  MoertRef ref;
} MoertBinding;

typedef struct MoertEntry {
  const char *name;
  int32_t n_ins, n_outs, n_records;
  int32_t trains; /* has `minimize` */
  const MoertBinding *ins, *outs;
  const MoertRecord *records;
  int64_t input_bytes, report_bytes, arena_bytes;
  int64_t flops; /* of one step, each product counted once */
} MoertEntry;

typedef enum MoertSlotKind { /* ORDER SLOT: ir.h */
  MOERT_SLOT_PARAM,
  MOERT_SLOT_OPTIM,
  MOERT_SLOT_STATE
} MoertSlotKind;

/* A dim that an axis of P ranks cuts has parts of its size / P, rounded up, the
 * first for the first rank along the axis, and so on; further axes cut these
 * parts. What a slab holds beyond the end of a part is never looked at. What no
 * axis cuts is the same on all ranks along it. */
typedef struct MoertSlot {
  const char *path;
  int32_t kind, dtype, rank;
  int64_t dims[MOERT_MAX_RANK]; /* of the whole tensor */
  /* By dim the axes that cut it, from 1, the major one first, then 0. */
  int8_t axes[MOERT_MAX_RANK][MOERT_MAX_MESH];
  int64_t offset; /* in the slab of its kind */
} MoertSlot;

typedef struct MoertOption {
  const char *name;
  double value; /* default */
} MoertOption;

typedef struct MoertAxis {
  const char *name;
  int64_t size;
} MoertAxis;

typedef struct MoertStageText {
  const char *name; /* "frontend", then pass names */
  const char *text;
} MoertStageText;

/* One program: a model compiled for one device. A library may have several of
 * one model: their slots, options, entries and inputs have the same names and
 * shapes, but each has places, records and sizes of its own. */
typedef struct MoertDesc {
  uint32_t magic, abi_version;
  int32_t device; /* MoertDevice */
  int32_t n_axes;
  const char *compiler;    /* moec's version */
  const char *source_hash; /* 16 hex digits over all sources and flags */
  const char *flags;       /* the options it was compiled with */
  int32_t n_features, n_slots, n_options, n_entries, n_texts;
  const char *const *features; /* required CPU features, LLVM spelling */
  const MoertSlot *slots;
  const MoertOption *options;
  const MoertEntry *entries;
  const MoertStageText *texts;
  const MoertAxis *mesh;
  int64_t slab_bytes[3]; /* param, optim, state */
  const struct MoertDesc *next; /* the program for another device, or NULL */
  /* CUDA: all kernels as PTX text, what they are made for ("sm_80"), and the
   * same as machine code for that, where it was at hand: an ELF file. */
  const char *ptx, *arch; /* "" on the CPU */
  const void *cubin;      /* NULL: none */
  int64_t cubin_bytes;
} MoertDesc;

/* ---- for tests and tools: one record at a time --------------------------- */

/* A model's programs, linked by `next`, that for the CPU first; the one that a
 * session runs. */
MOERT_API const MoertDesc *moert_desc(const MoertModel *model);
MOERT_API const MoertDesc *moert_session_desc(const MoertSession *s);
/* Address of a ref in a session at given loop indices (NULL: all 0): on a GPU
 * one of the GPU's memory. */
MOERT_API void *moert_address(MoertSession *s, int entry, const MoertRef *ref,
                              const int64_t *loop);
/* All elements of a ref, from and to memory of the host's, on any device. */
MOERT_API MoertStatus moert_read(MoertSession *s, int entry,
                                 const MoertRef *ref, const int64_t *loop,
                                 void *out_data);
MOERT_API MoertStatus moert_write(MoertSession *s, int entry,
                                  const MoertRef *ref, const int64_t *loop,
                                  const void *data);
/* Executes record `index` of an entry alone (not loop records). */
MOERT_API MoertStatus moert_run_record(MoertSession *s, int entry, int index,
                                       const int64_t *loop);
/* Seconds and calls of each record of an entry since creation; arrays of
 * n_records, zero unless the session profiles. */
MOERT_API MoertStatus moert_profile(MoertSession *s, int entry,
                                    const double **out_seconds,
                                    const int64_t **out_calls);

/* ---- what the machine can keep up, with the session's threads ------------ */

/* FLOP/s of matrix products with operands of a float dtype, of the size at
 * which they are fastest. */
MOERT_API MoertStatus moert_peak_flops(const MoertSession *s, int dtype,
                                       double *out_rate);
/* Bytes a second, read and written, of a large copy. Takes 1 GiB of memory
 * while it runs. */
MOERT_API MoertStatus moert_peak_copy(const MoertSession *s, double *out_rate);

#ifdef __cplusplus
}
#endif
#endif
