/* options.h: the command line of moec, as one table in options.c. */
#ifndef MOEC_OPTIONS_H
#define MOEC_OPTIONS_H

#include "../ir/base.h"

typedef VEC(const char *) TextVec;

/* Every option by its field; NULL or false where it was not given. Texts point
 * into argv. */
typedef struct Options {
  const char *input;
  const char *output, *emit, *report, *explain, *reshard_limit, *expert_rows;
  const char *plan_only; /* "" without an argument */
  const char *topology, *grow;
  TextVec defines, includes, mesh, layers;
  const char *target, *arch, *scan, *mcpu, *level, *precision;
  const char *dump, *dump_dir, *from, *stop_after;
  bool json, reshard_errors, keep_grads, tf32, time_passes, loc, ops, version;
  bool help;
} Options;

/* Reads the command line; lists live in cx->perm. False: a message for stderr
 * was printed, and the program should end with status 2. */
bool options_parse(Ctx *cx, int argc, char **argv, Options *out);
/* The complete help, from the same table. */
void options_help(FILE *to);
/* The options that shape the compiled program, in table order, as they would be
 * typed: what the library records and its hash covers. */
Sym options_flags(Ctx *cx, const Options *o);

/* Stages in pipeline order, ended by NULL: "frontend", the passes, "codegen".
 * Given by main.c. */
extern const char *const stage_names[];
int stage_find(const char *name); /* index in stage_names, -1: no such stage */
/* Whether the comma list names `word`, or is "all". */
bool list_has(const char *list, const char *word);

#endif
