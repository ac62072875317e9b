/* moerun.h: what the files of the program moerun share. It stands on moert.h
 * and word.c alone. */
#ifndef MOEC_MOERUN_H
#define MOEC_MOERUN_H

#include "rt.h"

/* The command line. Names are those of the options. */
typedef struct RunArgs {
  const char *model, *other, *entry, *data, *valid, *log, *ckpt, *resume, *load;
  const char *target, *valid_target;
  const char *prompt, *ir, *probe, *randomize, *vocab, *format, *split, *out;
  MoertChoice device[2]; /* verify: of both models */
  bool has_two_devices;
  int64_t steps, seed, threads, ckpt_every, valid_every, print_every, keep;
  int64_t probe_every;
  int64_t tokens, size, top, around, expert; /* below 0: default, all */
  double temperature, alpha, tolerance; /* below 0: by dtype */
  bool quiet, profile, roofline, poison;
  double timeout;
  const char **sets; /* "name=value", n_sets of them */
  int n_sets;
  MoertComm *comm;   /* NULL: alone */
  int neighbours;    /* ranks on these cores */
} RunArgs;

/* What the programs end with. */
enum { EXIT_USER = 1, EXIT_USAGE = 2, EXIT_INTERNAL = 70 };

/* ---- moerun_args.c: the command line ------------------------------------- */

typedef struct RunVerb {
  const char *name;
  int (*run)(const RunArgs *a); /* an exit status */
  const char *use, *doc;
  bool alone; /* never by several ranks */
} RunVerb;

void run_help(const RunVerb *verbs, int n_verbs);
void run_verb_help(const RunVerb *verbs, int verb);
/* Fills `out` from the words behind the verb. False: said what is wrong. */
bool run_parse(const RunVerb *verbs, int verb, int argc, char **argv,
               RunArgs *out);

/* ---- moerun_ranks.c: several processes ----------------------------------- */

/* How the ranks of this run are started. */
typedef enum RanksBy { RANKS_NONE, RANKS_LOCAL, RANKS_MPI } RanksBy;
typedef struct Ranks {
  RanksBy by;
  int n;          /* in all */
  int neighbours; /* on this machine, for the cores */
  int rank;       /* this one's, as its launcher says */
} Ranks;

/* Takes `-n N` from the front of the command line, or what the environment of
 * mpirun or srun says. False: said what is wrong, *status the exit status. */
bool ranks_find(int *argc, char ***argv, Ranks *out, int *status);
/* Runs a verb by all ranks; the exit status. */
int ranks_run(const Ranks *r, const RunVerb *verb, RunArgs *a);
/* The rank of this process, 0 where it is alone. */
int ranks_own(const RunArgs *a);
/* How many run this program. */
int ranks_count(const RunArgs *a);

/* ---- moerun_open.c: what all verbs do ------------------------------------ */

/* Whose messages are to be printed: of a rank but the first with its number,
 * and what another rank has said in the same words not again. */
void run_speak_as(MoertComm *comm, int rank);

/* Prints "moerun: " and the message on stderr; returns EXIT_USER. */
int run_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Prints the runtime's failure text; returns the exit status for it. */
int run_failed(MoertStatus st);

typedef struct Run {
  const RunArgs *args;
  MoertModel *model;
  MoertSession *session;
  const MoertDesc *desc;
  MoertTokens tokens;
  MoertVocab *vocab;    /* NULL: none */
  int64_t cursor;       /* of the checkpoint that was resumed */
  bool resumed;
  int64_t resident_before, peak_before; /* bytes, before and after creation */
} Run;

/* Model, session, checkpoint, options, in this order. Without --resume and
 * --load parameters come from the checkpoint `from`, where it is not NULL. An
 * exit status, 0 when all is well; call run_close in any case. */
int run_open(const RunArgs *a, const char *from, Run *out);
/* --format; an exit status. */
int run_find_tokens(const char *name, MoertTokens *out);
void run_close(Run *r);
/* What the process needs, of several ranks the one that needs most: as planned,
 * and as measured up to now. All ranks call it. */
typedef struct RunMemory {
  int64_t planned, measured; /* bytes */
} RunMemory;
MoertStatus run_memory(const Run *r, RunMemory *out);
/* What this rank's exchanges took so far, or since then. */
typedef struct RunExchanges {
  double busy, waited; /* see moert_comm_seconds */
  int64_t bytes;       /* that came in */
  int graphs, counts;  /* on a GPU, see moert_gpu_graphs */
  bool hidden;         /* they are parts of graphs: nobody sees their time */
} RunExchanges;
RunExchanges run_exchanges(const Run *r, const RunExchanges *since);
/* "12.3 ms a step in exchanges, 4.5 ms of it waited for; 8.1 MB a step come
 * in", or "2 graphs a step, between them the host is told how many rows go to
 * others; ..."; static thread-local text. */
const char *run_exchanges_text(const RunExchanges *x, int64_t steps);
/* Of NAME.S16, NAME.S32 ... the first. NULL, with the message printed, when the
 * model has no such entry. */
const MoertEntry *run_entry(const Run *r, const char *name);
/* The texts of an entry: one, or pairs of sentences where there is a target. */
MoertStatus run_open_text(const Run *r, const char *entry, const char *data,
                          const char *target, MoertTextMode mode,
                          MoertText **out);
/* How many of the tokens [0, n) have a text. */
int64_t run_words(const Run *r, int64_t n);
/* A token's text: its byte, its word, else its number. joined: no space belongs
 * in front of it. */
typedef struct RunToken {
  const char *text; /* NULL: own */
  char own[24];
  size_t n;
  bool joined;
} RunToken;
RunToken run_token(const Run *r, int64_t token);
const char *run_token_text(const RunToken *t);
/* Writes a token as text behind others; *line_start: it is the first of a line,
 * and whether the next one is. */
void run_put_token(FILE *f, const Run *r, int64_t token, bool *line_start);
/* Fills the next inputs and runs the step of their entry. MOERT_TEXT_END: there
 * was nothing left to run. */
MoertStatus run_step(const Run *r, MoertText *text, MoertTextEvent *out_event);
/* The same, and the inputs after these are got while the step runs. */
MoertStatus run_step_ahead(const Run *r, MoertText *text,
                           MoertTextEvent *out_event);

extern const char *const run_dtype_name[MOERT_DTYPE_COUNT];
extern const int64_t run_dtype_bytes[MOERT_DTYPE_COUNT];
/* Resident memory of this process: now, and its peak. */
int64_t run_resident_bytes(void);
int64_t run_peak_bytes(void);
double run_seconds(void);
/* Evenly in [0, 1): splitmix64. */
double run_uniform(uint64_t *state);
/* "12.3 MB", "1,234,567", "1:02:03"; static thread-local text, four at a
 * time. */
const char *run_bytes_text(int64_t bytes);
const char *run_count_text(int64_t n);
const char *run_time_text(double seconds);

/* ---- moerun_progress.c: what training tells ------------------------------ */

/* A JSON object on one line. */
typedef struct JsonLine {
  FILE *to;
  int n; /* fields so far */
} JsonLine;
JsonLine json_start(FILE *to);
void json_number(JsonLine *j, const char *key, double value);
void json_string(JsonLine *j, const char *key, const char *value);
/* False where it could not be written. */
bool json_end(JsonLine *j);
/* What run_exchanges_text says, for programs, of one of so many steps. */
void run_exchanges_json(const RunExchanges *x, double steps, JsonLine *j);

/* One step as shown to people. */
typedef struct StepInfo {
  int64_t step, steps;
  double loss, lr, grad_norm; /* NaN where the model does not report it */
  double tokens_per_s, seconds_left;
} StepInfo;

typedef struct Progress {
  bool quiet, live; /* live: stderr is a terminal */
  bool has_header;
  double last_live;
  float *losses;    /* one a step */
  int64_t first_step, n, cap;
  struct ProgressValid {
    int64_t step;
    double loss;
  } *valids;
  int n_valids, cap_valids;
} Progress;

void progress_line(Progress *p, const StepInfo *i);
void progress_live(Progress *p, const StepInfo *i);
void progress_note(Progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
void progress_add(Progress *p, int64_t step, double loss);
void progress_add_valid(Progress *p, int64_t step, double loss);
/* The losses as a text picture, on stderr. */
void progress_curve(const Progress *p);
void progress_free(Progress *p);

/* ---- moerun_profile.c: where the time goes, and what could be ------------ */

/* What the machine can keep up in a second. */
typedef struct RunPeaks {
  double flops[MOERT_DTYPE_COUNT]; /* of products by dtype; 0: not needed */
  double bytes;                    /* of a copy */
} RunPeaks;

/* Seconds that a step takes at least: the larger of the two. */
typedef struct RunLimit {
  double products; /* all of them at their dtypes' peaks */
  double memory;   /* what must be moved, at the rate of a copy */
  double seconds;
} RunLimit;

MoertStatus run_peaks(const Run *r, const MoertEntry *e, RunPeaks *out);
RunLimit run_limit(const Run *r, const MoertEntry *e, const RunPeaks *p);
/* Time by source line over `n_steps` steps, on stderr. */
int run_print_profile(const Run *r, const MoertEntry *e, int64_t n_steps,
                      const RunPeaks *p);

/* ---- moerun_train.c, moerun_eval.c, moerun_sample.c, moerun_bench.c,
 * moerun_info.c, moerun_verify.c, moerun_vocab.c, moerun_doctor.c: one or
 * two verbs each ---------------------------------------------------------- */

int run_train(const RunArgs *a);
int run_eval(const RunArgs *a);
int run_sample(const RunArgs *a);
int run_bench(const RunArgs *a);
int run_info(const RunArgs *a);
int run_verify(const RunArgs *a);
int run_vocab(const RunArgs *a);
int run_encode(const RunArgs *a);
int run_translate(const RunArgs *a);
int run_bleu(const RunArgs *a);
int run_doctor(const RunArgs *a);

int run_experts(const RunArgs *a);

/* ---- moerun_experts.c, moerun_heat.c: who goes to which expert ----------- */

/* The token at a place of the text goes to an expert. */
typedef struct RunChoice {
  int64_t at;
  int32_t expert;
  float gate;
} RunChoice;

/* A layer of experts, and its choices by expert, the largest gates first. */
typedef struct RunLayer {
  char *title;
  const MoertBinding *gates, *chosen; /* [.., k] */
  RunChoice *choices;
  int64_t n, cap;
} RunLayer;

/* Where an expert's choices end that begin at i. */
int64_t run_choices_end(const RunLayer *l, int64_t i);
/* Text on one line: what does not show is escaped, and so is, in XML, what
 * means something there. */
void run_put_escaped(FILE *f, const char *text, size_t n, bool xml);
/* Draws experts against the most frequent tokens, as SVG. */
int run_draw_heat(const Run *r, const MoertText *text, const RunLayer *layers,
                  int n_layers, const char *path);

/* Mean negative log likelihood over every prediction of an open text. */
MoertStatus run_evaluate(const Run *r, MoertText *text, double *out_loss,
                         double *out_tokens);

#endif
