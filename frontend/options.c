/* options.c: the table of moec's options, and what reads it: parsing, --help,
 * the nearest real name for a wrong one, and the record of flags. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

typedef enum OptionKind {
  O_HEADING, /* a line of --help */
  O_FLAG,    /* bool field */
  O_TEXT,    /* one argument; the last one given counts */
  O_MAYBE,   /* the same, but behind "=" or not at all */
  O_LIST     /* one argument each time; all count */
} OptionKind;

typedef struct OptionRow {
  OptionKind kind;
  const char *name;  /* "--long", or "-s" whose argument may follow at once */
  const char *arg;   /* what the argument is called */
  const char *words; /* what it may be: "a|b", or "a,b" for a list of them; the
                        names of stages for STAGES */
  size_t field;
  bool shapes; /* changes the compiled program */
  const char *doc;
} OptionRow;

#define STAGES   "(stages)"
#define FIELD(f) offsetof(Options, f)

static const OptionRow rows[] = {
    {O_HEADING, NULL, NULL, NULL, 0, 0, "What to make"},
    {O_TEXT, "-o", "FILE", NULL, FIELD(output), 0,
     "the library to write, or with --emit the text; - is standard output "
     "(default: the model's name with .so, unless only text is asked for)"},
    {O_TEXT, "--emit", "KIND", "ast|ir|loops|llvm|asm|ptx", FIELD(emit), 0,
     "text instead of a library: the model in canonical form, the last IR, "
     "kernel loops, LLVM IR, assembly, PTX of --target=cuda"},
    {O_TEXT, "--report", "LIST", "memory,cost,kernels", FIELD(report), 0,
     "planned memory and biggest buffers; parameters, operations and bytes by "
     "layer; the kernels of a step on a GPU: lines of the model, registers and "
     "spills (by ptxas, where it is in PATH), bytes, the least time"},
    {O_TEXT, "--explain", "WHAT", "shard|shard-all", FIELD(explain), 0,
     "where every tensor lives on the mesh and why, what moves and what it "
     "costs; shard-all tells of values without a name, too"},

    {O_HEADING, NULL, NULL, NULL, 0, 0, "Planning ahead"},
    {O_MAYBE, "--plan-only", "DEVICES", NULL, FIELD(plan_only), 0,
     "compile nothing: memory, exchanges and time of a step on each device of "
     "--mesh; with numbers, as =16,64 or =16..2048, how that scales as the "
     "first axis of --mesh grows"},
    {O_TEXT, "--topology", "NAME", NULL, FIELD(topology), 0,
     "what a device and its links can do: one of models/topologies (default "
     "cpu), or a file like them"},
    {O_TEXT, "--grow", "CONSTS", NULL, FIELD(grow), 0,
     "consts, each with a -D, that grow as the number of devices does: B,N"},
    {O_FLAG, "--json", NULL, NULL, FIELD(json), 0, "the plan as JSON"},

    {O_HEADING, NULL, NULL, NULL, 0, 0, "The model"},
    {O_LIST, "-D", "NAME=VALUE", NULL, FIELD(defines), 1,
     "set a const of the model"},
    {O_LIST, "-I", "DIR", NULL, FIELD(includes), 0,
     "look for imports here too, after the importing file's own folder"},
    {O_LIST, "--mesh", "AXIS=SIZE", NULL, FIELD(mesh), 1,
     "sizes of mesh axes (default 1), also AXIS=SIZE,AXIS=SIZE"},

    {O_TEXT, "--expert-rows", "F", NULL, FIELD(expert_rows), 1,
     "a device of --mesh has room for F times the mean number of rows that go "
     "to its experts, 1 or more; what is more goes in further rounds, "
     "computing its experts' activations again in the backward pass, so "
     "nothing is dropped (default: room for all there can be)"},
    {O_TEXT, "--reshard-limit", "MIB", NULL, FIELD(reshard_limit), 0,
     "warn of a parameter that every device has whole, and of a value that is "
     "gathered, above so many MiB, if the model does not ask for it (default "
     "64)"},
    {O_FLAG, "-Werror=reshard", NULL, NULL, FIELD(reshard_errors), 0,
     "make errors of these warnings"},

    {O_HEADING, NULL, NULL, NULL, 0, 0, "How to compile"},
    {O_TEXT, "-O", "LEVEL", "0|2", FIELD(level), 1,
     "0: one launch an op, for debugging; 2: fuse everything (default)"},
    {O_TEXT, "--target", "LIST", "cpu,cuda", FIELD(target), 1,
     "what to make code for: both in one library (default; without the GPUs', "
     "with a warning, where the model has what they cannot do yet), or one; "
     "texts and dumps are those for the CPU, where it is among them"},
    {O_TEXT, "--arch", "ARCH", "sm_80|sm_90|sm_90a", FIELD(arch), 1,
     "the least that a GPU must be (default sm_80); sm_90a is itself alone"},
    {O_TEXT, "--scan", "HOW", "auto|graph|persistent", FIELD(scan), 1,
     "loops on a GPU: launch by launch in a graph; persistent, one kernel each "
     "whose blocks stay and keep weights on the chip, where that can be; or "
     "auto, what should take less time (default; see --report=kernels)"},
    {O_TEXT, "--mcpu", "CPU", NULL, FIELD(mcpu), 1,
     "the processor to make code for: native (default), x86-64-v3 (AVX2) or "
     "x86-64-v4 (AVX-512)"},
    {O_TEXT, "--precision", "DTYPE", "f32|bf16|f64", FIELD(precision), 1,
     "what floats are computed in: f32 (default); bf16 for the operands of "
     "products of matrices, the rest in f32; or f64 for checking"},
    {O_LIST, "--layer", "PATH=DTYPE", NULL, FIELD(layers), 1,
     "with --precision=bf16: what the products of a layer, and of those within "
     "it, are computed in, f32 or bf16 (default: f32 for a layer with a "
     "product that a top_k chooses from, as a gate's)"},
    {O_FLAG, "--tf32", NULL, NULL, FIELD(tf32), 1,
     "large products of f32 on GPUs by tensor cores: of operands rounded to 10 "
     "bits of mantissa, summed in f32; attention and loops as one kernel round "
     "nothing"},
    {O_FLAG, "--keep-grads", NULL, NULL, FIELD(keep_grads), 1,
     "what trains also hands out the gradient of each parameter, as a probe "
     "grad/PATH, whole on every rank: for moerun verify, and train --probe"},

    {O_HEADING, NULL, NULL, NULL, 0, 0, "Looking inside"},
    {O_TEXT, "--dump", "STAGES", STAGES, FIELD(dump), 0,
     "IR text after a stage, or after several (a,b), or all"},
    {O_TEXT, "--dump-dir", "DIR", NULL, FIELD(dump_dir), 0,
     "write dumps there as NN-stage.ir, not to standard output"},
    {O_TEXT, "--stop-after", "STAGE", STAGES, FIELD(stop_after), 0,
     "run no stage after this one; what comes out is IR text"},
    {O_TEXT, "--from", "STAGE", STAGES, FIELD(from), 0,
     "the first stage to run on IR text that was dumped before it"},
    {O_FLAG, "--loc", NULL, NULL, FIELD(loc), 0,
     "source places in IR text: loc(\"file:line:column\")"},
    {O_FLAG, "--time-passes", NULL, NULL, FIELD(time_passes), 0,
     "milliseconds by stage, on standard error"},

    {O_HEADING, NULL, NULL, NULL, 0, 0, "Help"},
    {O_FLAG, "--ops", NULL, NULL, FIELD(ops), 0,
     "every op of the IR: operands, attributes, meaning"},
    {O_FLAG, "--version", NULL, NULL, FIELD(version), 0, "the version"},
    {O_FLAG, "--help", NULL, NULL, FIELD(help), 0, "this text"},
    {O_FLAG, "-h", NULL, NULL, FIELD(help), 0, "the same"},
};

/* ---- names -------------------------------------------------------------- */

int stage_find(const char *name) {
  for (int i = 0; stage_names[i]; i++)
    if (strcmp(stage_names[i], name) == 0) return i;
  return -1;
}

/* The words that an option's argument may be. */
static void words_of(Ctx *cx, const OptionRow *row, TextVec *out) {
  if (strcmp(row->words, STAGES) != 0) {
    for (const char *p = row->words; *p;) {
      size_t n = strcspn(p, "|,");
      vec_push(&cx->perm, out, sym_n(cx, p, n));
      p += n + (p[n] != '\0');
    }
    return;
  }
  /* IR text is the frontend's result, and nothing follows codegen. */
  int first = row->field == FIELD(from);
  for (int i = first; stage_names[i + !first]; i++)
    vec_push(&cx->perm, out, stage_names[i]);
  if (row->field == FIELD(dump)) vec_push(&cx->perm, out, "all");
}

static bool takes_list(const OptionRow *row) {
  return row->field == FIELD(dump) || strchr(row->words, ',');
}

bool list_has(const char *list, const char *word) {
  for (const char *p = list; p && *p;) {
    size_t n = strcspn(p, ",");
    if ((n == strlen(word) && memcmp(p, word, n) == 0) ||
        (n == 3 && memcmp(p, "all", 3) == 0))
      return true;
    p += n + (p[n] != '\0');
  }
  return false;
}

static void suggest(const char *word, const char *const *names, size_t n) {
  const char *near = nearest_word(word, names, n);
  if (near)
    fprintf(stderr, "; did you mean '%s'?\n", near);
  else
    fprintf(stderr, "; 'moec --help' lists what there is\n");
}

static bool check_words(Ctx *cx, const OptionRow *row, const char *value) {
  TextVec words = {0};
  words_of(cx, row, &words);
  const char *separators = takes_list(row) ? "," : "";
  const char *p = value;
  do {
    size_t n = strcspn(p, separators);
    Sym word = sym_n(cx, p, n);
    uint32_t i = 0;
    while (i < words.len && strcmp(words.data[i], word) != 0)
      i++;
    if (i == words.len) {
      fprintf(stderr, "moec: %s cannot be '%s'", row->name, word);
      suggest(word, words.data, words.len);
      return false;
    }
    p += n + (p[n] != '\0');
  } while (*p);
  return true;
}

/* Where the argument is NAME=VALUE, that there are two sides. */
static bool check_pair(const OptionRow *row, const char *value) {
  const char *equals = strchr(value, '=');
  if (!strchr(row->arg, '=') || (equals && equals > value && equals[1]))
    return true;
  fprintf(stderr, "moec: %s %s: must be %s\n", row->name, value, row->arg);
  return false;
}

/* ---- parsing ------------------------------------------------------------ */

static bool is_long(const OptionRow *row) {
  return row->name[1] == '-';
}

/* The row of an argument; *value is what follows its name, NULL when nothing
 * does. */
static const OptionRow *find_row(const char *text, const char **value) {
  size_t len = strcspn(text, "=");
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    const OptionRow *row = &rows[i];
    if (row->kind == O_HEADING) continue;
    size_t n = strlen(row->name);
    if (is_long(row) && n == len && memcmp(text, row->name, n) == 0) {
      *value = text[n] == '=' ? text + n + 1 : NULL;
      return row;
    }
    if (!is_long(row) && strncmp(text, row->name, n) == 0 &&
        (row->arg || !text[n])) {
      *value = text[n] ? text + n : NULL;
      return row;
    }
  }
  return NULL;
}

static bool unknown(Ctx *cx, const char *text) {
  const char *names[COUNT_OF(rows)];
  size_t n = 0;
  for (size_t i = 0; i < COUNT_OF(rows); i++)
    if (rows[i].kind != O_HEADING) names[n++] = rows[i].name;
  Sym word = sym_n(cx, text, strcspn(text, "="));
  fprintf(stderr, "moec: unknown option '%s'", word);
  suggest(word, names, n);
  return false;
}

static bool set(Ctx *cx, Options *o, const OptionRow *row, const char *value) {
  char *field = (char *)o + row->field;
  switch (row->kind) {
  case O_HEADING: return true;
  case O_FLAG: *(bool *)field = true; return true;
  case O_LIST:
    vec_push(&cx->perm, (TextVec *)field, value);
    return check_pair(row, value);
  case O_MAYBE: *(const char **)field = value ? value : ""; return true;
  case O_TEXT:
    *(const char **)field = value;
    return !row->words || check_words(cx, row, value);
  }
  return false;
}

bool options_parse(Ctx *cx, int argc, char **argv, Options *out) {
  *out = (Options){0};
  for (int i = 1; i < argc; i++) {
    const char *text = argv[i];
    if (text[0] != '-' || !text[1]) {
      if (out->input) {
        fprintf(stderr, "moec: one input at a time: '%s' and '%s'\n",
                out->input, text);
        return false;
      }
      out->input = text;
      continue;
    }
    const char *value;
    const OptionRow *row = find_row(text, &value);
    if (!row) return unknown(cx, text);
    if (!row->arg && value) {
      fprintf(stderr, "moec: %s takes no argument\n", row->name);
      return false;
    }
    bool needed = row->kind != O_MAYBE;
    if (row->arg && needed && !value && !(value = argv[++i])) {
      fprintf(stderr, "moec: %s needs an argument: %s\n", row->name, row->arg);
      return false;
    }
    if (!set(cx, out, row, value)) return false;
  }
  return true;
}

/* ---- telling ------------------------------------------------------------ */

enum { HELP_INDENT = 24, HELP_WIDTH = 79 };

/* Prints words from column HELP_INDENT on, broken before HELP_WIDTH. */
static void wrap(FILE *to, const char *text, int column) {
  while (*text) {
    int n = (int)strcspn(text, " ");
    if (column + 1 + n > HELP_WIDTH || column < HELP_INDENT) {
      if (column >= HELP_INDENT) fputc('\n', to), column = 0;
      fprintf(to, "%*s", HELP_INDENT - column, "");
      column = HELP_INDENT;
    } else if (column > HELP_INDENT) {
      fputc(' ', to), column++;
    }
    fprintf(to, "%.*s", n, text);
    column += n;
    text += n + (text[n] != '\0');
  }
  fputc('\n', to);
}

void options_help(FILE *to) {
  fprintf(to,
          "moec MODEL.dsl [options]       compile a model to a library\n"
          "moec [--from=STAGE] TEXT.ir [options]    the same from IR text\n");
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    const OptionRow *row = &rows[i];
    if (row->kind == O_HEADING) {
      fprintf(to, "\n%s\n", row->doc);
      continue;
    }
    int column = fprintf(to, "  %s", row->name);
    if (row->arg)
      column +=
          fprintf(to, "%s%s%s", row->kind == O_MAYBE ? "[" : "",
                  is_long(row) && row->kind != O_LIST ? "="
                  : strcmp(row->name, "-O") == 0      ? ""
                                                      : " ",
                  row->words && strcmp(row->words, STAGES) != 0 ? row->words
                                                                : row->arg);
    if (row->kind == O_MAYBE) column += fprintf(to, "]");
    if (column >= HELP_INDENT) fputc('\n', to), column = 0;
    wrap(to, row->doc, column);
  }
  fprintf(to, "\nStages, in order:");
  for (int i = 0; stage_names[i]; i++)
    fprintf(to, "%s%s%s", i % 7 ? " " : "\n  ", stage_names[i],
            stage_names[i + 1] ? "," : "");
  fprintf(to,
          "\n\nExit status: 0, 1 a mistake in the model or a file, 2 one on "
          "the command line,\n70 a mistake in moec.\n");
}

Sym options_flags(Ctx *cx, const Options *o) {
  Buf b = {0};
  buf_add(&b, "");
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    const OptionRow *row = &rows[i];
    const char *field = (const char *)o + row->field;
    if (!row->shapes) continue;
    const char *glue = is_long(row) ? "=" : "";
    if (row->kind == O_TEXT && *(const char *const *)field)
      buf_fmt(&b, "%s%s%s%s", b.len ? " " : "", row->name, glue,
              *(const char *const *)field);
    if (row->kind == O_FLAG && *(const bool *)field)
      buf_fmt(&b, "%s%s", b.len ? " " : "", row->name);
    if (row->kind == O_LIST)
      for (uint32_t k = 0; k < ((const TextVec *)field)->len; k++)
        buf_fmt(&b, "%s%s%s%s", b.len ? " " : "", row->name, glue,
                ((const TextVec *)field)->data[k]);
  }
  Sym s = sym(cx, b.data);
  buf_free(&b);
  return s;
}
