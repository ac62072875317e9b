/* moerun_args.c: the options of all verbs as one table; parsing and help. */
#include "moerun.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { /* ORDER VERB: as in moerun.c */
  TRAIN = 1,
  EVAL = 2,
  SAMPLE = 4,
  BENCH = 8,
  INFO = 16,
  VERIFY = 32,
  VOCAB = 64,
  ENCODE = 128,
  DOCTOR = 256,
  TRANSLATE = 512,
  BLEU = 1024,
  EXPERTS = 2048,
  RUNS = TRAIN | EVAL | SAMPLE | BENCH | VERIFY | TRANSLATE | EXPERTS
};

typedef enum OptionKind {
  OPT_TEXT,
  OPT_COUNT,
  OPT_REAL,
  OPT_FLAG,
  OPT_SET,
  OPT_DEVICE
} OptionKind;

typedef struct Option {
  const char *name;
  const char *value; /* what it stands for in the help, NULL for a flag */
  int verbs;
  OptionKind kind;
  size_t at; /* in RunArgs */
  const char *doc;
} Option;

#define AT(field) offsetof(RunArgs, field)

static const Option options[] = {
    {"--data", "FILE", TRAIN | EVAL | BENCH | VERIFY | TRANSLATE | EXPERTS,
     OPT_TEXT, AT(data),
     "the text to read, any bytes (bench: random bytes without it)"},
    {"--target", "FILE", TRAIN | EVAL | BENCH | VERIFY, OPT_TEXT, AT(target),
     "the translations of --data, line by line"},
    {"--valid", "FILE", TRAIN, OPT_TEXT, AT(valid),
     "a text to evaluate on, by the entry eval"},
    {"--valid-target", "FILE", TRAIN, OPT_TEXT, AT(valid_target),
     "the translations of --valid"},
    {"--valid-every", "N", TRAIN, OPT_COUNT, AT(valid_every),
     "evaluate every N steps, and at the end; default: at the end"},
    {"--format", "KIND", RUNS | ENCODE, OPT_TEXT, AT(format),
     "what is in these files: bytes, the default; words, with\n"
     "--vocab; u16 or u32, numbers of tokens, little-endian.\n"
     "encode: u16 or u32 to write; default: the smaller that does"},
    {"--vocab", "FILE", RUNS | ENCODE, OPT_TEXT, AT(vocab),
     "a vocabulary, made by moerun vocab; texts are read as its words"},
    {"--size", "N", VOCAB, OPT_COUNT, AT(size),
     "how many words at most, <unk> and <eos> among them;\n"
     "default 10000"},
    {"--split", "HOW", VOCAB, OPT_TEXT, AT(split),
     "where words end: space, the default, or punctuation, which\n"
     "cuts around every such mark too"},
    {"-o", "FILE", VOCAB | ENCODE | EXPERTS, OPT_TEXT, AT(out),
     "what to write; experts: a picture of them and the most frequent\n"
     "tokens, in SVG"},
    {"--top", "N", EXPERTS, OPT_COUNT, AT(top),
     "contexts of an expert; default 5"},
    {"--around", "N", EXPERTS, OPT_COUNT, AT(around),
     "tokens of a context on each side; default 30 bytes, 8 words"},
    {"--expert", "N", EXPERTS, OPT_COUNT, AT(expert),
     "tell of this one alone; default: of all"},
    {"--steps", "N", TRAIN | BENCH | VERIFY, OPT_COUNT, AT(steps),
     "train: up to step N, those of a resumed run included; bench: default\n"
     "20; verify: of which step to compare the gradients, default 1"},
    {"--set", "NAME=X", RUNS, OPT_SET, AT(sets),
     "set an option of the model, e.g. lr=2e-3; may be given again"},
    {"--seed", "N", RUNS, OPT_COUNT, AT(seed),
     "for initial values and random draws; default 0"},
    {"--threads", "N", RUNS, OPT_COUNT, AT(threads),
     "default: the cores this process may use"},
    {"--log", "F.jsonl", TRAIN, OPT_TEXT, AT(log),
     "write one JSON object a step: step, loss, lr, grad_norm, tokens_per_s,\n"
     "every other scalar report under its name, and under the last part of\n"
     "its name where only one report ends so; valid_loss, valid_perplexity,\n"
     "valid_tokens where evaluated"},
    {"--print-every", "N", TRAIN, OPT_COUNT, AT(print_every),
     "a line of progress every N steps; default: about 40 lines"},
    {"--ckpt", "DIR", TRAIN | EVAL | SAMPLE | TRANSLATE | EXPERTS, OPT_TEXT,
     AT(ckpt),
     "train: save checkpoints under DIR; else: load the newest one there"},
    {"--ckpt-every", "N", TRAIN, OPT_COUNT, AT(ckpt_every),
     "save every N steps, and at the end; default: at the end"},
    {"--keep", "N", TRAIN, OPT_COUNT, AT(keep),
     "keep the N newest checkpoints; default 3, 0 keeps all"},
    {"--probe", "DIR", TRAIN, OPT_TEXT, AT(probe),
     "write what the entry probes and reports to DIR/step-N.safetensors"},
    {"--probe-every", "N", TRAIN, OPT_COUNT, AT(probe_every),
     "do so every N steps, and at the end; default: at the end"},
    {"--resume", "auto|DIR", TRAIN, OPT_TEXT, AT(resume),
     "go on from a checkpoint bit for bit; auto: the newest one under --ckpt,\n"
     "or from the start when there is none"},
    {"--load", "DIR[:PATTERN]",
     TRAIN | EVAL | SAMPLE | BENCH | TRANSLATE | EXPERTS, OPT_TEXT, AT(load),
     "parameters from a checkpoint or a .safetensors file; with a pattern\n"
     "only those whose path matches ('*' any run, '?' any character)"},
    {"--prompt", "TEXT", SAMPLE, OPT_TEXT, AT(prompt),
     "what the text starts with; default: a new line"},
    {"--tokens", "N", SAMPLE, OPT_COUNT, AT(tokens),
     "how many to write; default 200"},
    {"--temperature", "X", SAMPLE, OPT_REAL, AT(temperature),
     "below 1 more likely, above 1 more varied, 0 the likeliest; default 1"},
    {"--device", "auto|cpu|cuda", RUNS, OPT_DEVICE, AT(device),
     "what to run on, of what the model was compiled for; auto, the default:\n"
     "a GPU where there is one; verify: one of each model, as in cpu,cuda"},
    {"--alpha", "X", TRANSLATE, OPT_REAL, AT(alpha),
     "how much longer translations are preferred: scores are divided by\n"
     "((5 + words) / 6) ^ X; default 0.6"},
    {"--timeout", "SECONDS", RUNS, OPT_REAL, AT(timeout),
     "how long a rank waits for others without any progress; default 30"},
    {"--entry", "NAME", RUNS & ~TRANSLATE, OPT_TEXT, AT(entry),
     "the model's entry to run; default train, eval or decode"},
    {"--roofline", NULL, BENCH, OPT_FLAG, AT(roofline),
     "measure a large product and a large copy, and tell how near a step is\n"
     "to the time that its products or its memory traffic must take"},
    {"--profile", NULL, BENCH, OPT_FLAG, AT(profile),
     "the same, and time by source line, on standard error"},
    {"--ir", "STAGE", INFO, OPT_TEXT, AT(ir),
     "print the embedded IR of a stage, e.g. frontend, plan"},
    {"--tolerance", "X", VERIFY, OPT_REAL, AT(tolerance),
     "how far gradients may differ, by norm; default 1e-5, for f64 1e-12"},
    {"--randomize", "PATTERN", VERIFY, OPT_TEXT, AT(randomize),
     "draw the parameters whose path matches from -0.1 to 0.1 before the\n"
     "first step; default: those that are 0 throughout; '' draws none"},
    {"--quiet", NULL, TRAIN | EVAL | SAMPLE | VERIFY | TRANSLATE, OPT_FLAG,
     AT(quiet),
     "no progress on standard error"},
    {"--poison", NULL, RUNS, OPT_FLAG, AT(poison),
     "fill memory with NaN before use, and on a GPU wait for each operation,\n"
     "to name one that fails: for tests"},
};

/* ---- help ---------------------------------------------------------------- */

void run_help(const RunVerb *verbs, int n_verbs) {
  printf("moerun runs models that moec has compiled.\n\n");
  for (int i = 0; i < n_verbs; i++)
    printf("  moerun %-9s %-33s %s\n", verbs[i].name, verbs[i].use,
           verbs[i].doc);
  printf("\n  moerun COMMAND --help   its options\n"
         "  moerun -n N COMMAND ... by N processes on this machine, for a "
         "model that was\n"
         "                          compiled for a mesh of N ranks; mpirun and "
         "srun work too\n\n"
         "Results go to standard output, progress to standard error. Exit "
         "status: 0;\n1 for a mistake in what was given, or a failure of the "
         "machine; 2 for a wrong\ncommand line; 70 for a mistake of the "
         "runtime itself.\n");
}

static void print_doc(const char *doc) {
  for (const char *line = doc;;) {
    size_t len = strcspn(line, "\n");
    printf("%.*s\n", (int)len, line);
    if (!line[len]) return;
    printf("%26s", "");
    line += len + 1;
  }
}

void run_verb_help(const RunVerb *verbs, int verb) {
  printf("moerun %s %s [OPTION]...\n%s\n\n", verbs[verb].name, verbs[verb].use,
         verbs[verb].doc);
  for (size_t i = 0; i < COUNT_OF(options); i++) {
    const Option *o = &options[i];
    if (!(o->verbs & 1 << verb)) continue;
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", o->name, o->value ? " " : "",
             o->value ? o->value : "");
    printf("  %-23s ", left);
    print_doc(o->doc);
  }
  printf("  %-23s this text\n", "--help");
}

/* ---- parsing ------------------------------------------------------------- */

static bool wrong(const char *fmt, const char *a, const char *b) {
  fprintf(stderr, "moerun: ");
  fprintf(stderr, fmt, a, b);
  fprintf(stderr, "\n");
  return false;
}

static bool has_name(const Option *o, const char *word, size_t len) {
  return strlen(o->name) == len && strncmp(o->name, word, len) == 0;
}

/* Names the nearest option, or the command whose option it is. */
static void unknown_option(const RunVerb *verbs, int verb, const char *word,
                           size_t len) {
  const char *own[COUNT_OF(options)];
  size_t n = 0;
  char name[64];
  snprintf(name, sizeof name, "%.*s", (int)len, word);
  for (size_t i = 0; i < COUNT_OF(options); i++) {
    const Option *o = &options[i];
    if (o->verbs & 1 << verb) own[n++] = o->name;
    if (!has_name(o, word, len)) continue;
    int of = 0;
    while (!(o->verbs & 1 << of))
      of++;
    fprintf(stderr, "moerun %s: unknown option '%s'; it is one of moerun %s\n",
            verbs[verb].name, name, verbs[of].name);
    return;
  }
  const char *near = rt_did_you_mean(name, own, n, sizeof own[0]);
  if (!near[0])
    near = rt_did_you_mean(name, &options[0].name, COUNT_OF(options),
                           sizeof options[0]);
  fprintf(stderr, "moerun %s: unknown option '%s'%s\n", verbs[verb].name, name,
          near);
}

/* Finds the option of a verb whose name is the first `len` characters. */
static const Option *find_option(const RunVerb *verbs, int verb,
                                 const char *word, size_t len) {
  for (size_t i = 0; i < COUNT_OF(options); i++)
    if (options[i].verbs & 1 << verb && has_name(&options[i], word, len))
      return &options[i];
  unknown_option(verbs, verb, word, len);
  return NULL;
}

static bool set_count(const Option *o, const char *value, int64_t *out) {
  char *end;
  errno = 0;
  long long n = strtoll(value, &end, 10);
  if (end == value || *end || errno || n < 0)
    return wrong("%s: '%s' is not a whole number from 0", o->name, value);
  *out = n;
  return true;
}

static bool set_real(const Option *o, const char *value, double *out) {
  char *end;
  double x = strtod(value, &end);
  if (end == value || *end || !isfinite(x) || x < 0)
    return wrong("%s: '%s' is not a number from 0", o->name, value);
  *out = x;
  return true;
}

static bool add_set(const Option *o, const char *value, RunArgs *out) {
  if (!strchr(value, '='))
    return wrong("%s: '%s' is not of the form NAME=VALUE", o->name, value);
  const char **more =
      realloc(out->sets, (size_t)(out->n_sets + 1) * sizeof *more);
  if (!more) return wrong("%s: out of memory%s", o->name, "");
  out->sets = more;
  out->sets[out->n_sets++] = value;
  return true;
}

static bool find_device(const char *name, size_t len, MoertChoice *out) {
  static const char *const names[] = {[MOERT_AUTO] = "auto",
                                      [MOERT_USE_CPU] = "cpu",
                                      [MOERT_USE_CUDA] = "cuda"};
  for (size_t i = 0; i < COUNT_OF(names); i++)
    if (strlen(names[i]) == len && strncmp(name, names[i], len) == 0) {
      *out = (MoertChoice)i;
      return true;
    }
  return false;
}

/* One, or two with a comma between them. */
static bool set_device(const Option *o, const char *value, RunArgs *out) {
  size_t len = strcspn(value, ",");
  const char *second = value[len] ? value + len + 1 : value;
  out->has_two_devices = value[len] != 0;
  if (find_device(value, len, &out->device[0]) &&
      find_device(second, strlen(second), &out->device[1]))
    return true;
  return wrong("%s: '%s' is none of auto, cpu and cuda", o->name, value);
}

static bool set_option(const Option *o, const char *value, RunArgs *out) {
  void *at = (char *)out + o->at;
  switch (o->kind) {
  case OPT_TEXT: *(const char **)at = value; return true;
  case OPT_COUNT: return set_count(o, value, at);
  case OPT_REAL: return set_real(o, value, at);
  case OPT_FLAG: *(bool *)at = true; return true;
  case OPT_SET: return add_set(o, value, out);
  case OPT_DEVICE: return set_device(o, value, out);
  }
  return false;
}

/* An option at argv[*i], its value included. */
static bool parse_option(const RunVerb *verbs, int verb, char **argv, int argc,
                         int *i, RunArgs *out) {
  const char *word = argv[*i];
  size_t len = strcspn(word, "=");
  const Option *o = find_option(verbs, verb, word, len);
  if (!o) return false;
  if (!o->value && word[len])
    return wrong("%s takes no value: '%s'", o->name, word);
  if (!o->value) return set_option(o, NULL, out);
  if (word[len]) return set_option(o, word + len + 1, out);
  if (*i + 1 == argc) return wrong("%s: %s is missing", o->name, o->value);
  return set_option(o, argv[++*i], out);
}

/* Options that are of no use without others. */
static bool check_needs(const char *name, const RunArgs *a) {
  if (a->ckpt_every && !a->ckpt)
    return wrong("%s: --ckpt-every needs --ckpt DIR%s", name, "");
  if (a->valid_every && !a->valid)
    return wrong("%s: --valid-every needs --valid FILE%s", name, "");
  if (a->valid && !a->target != !a->valid_target)
    return wrong("%s: of --data and --valid one has translations, by --target "
                 "or --valid-target%s", name, "");
  if (a->valid_target && !a->valid)
    return wrong("%s: --valid-target needs --valid FILE%s", name, "");
  if (a->target && !a->data)
    return wrong("%s: --target needs --data FILE%s", name, "");
  if (a->probe_every && !a->probe)
    return wrong("%s: --probe-every needs --probe DIR%s", name, "");
  return true;
}

/* Of the verbs that read a text and write a file. */
static bool check_writer(const RunVerb *v, int bit, const RunArgs *a) {
  if (!a->model)
    return wrong("%s: which text? moerun %s TEXT", v->name, v->name);
  if (!a->out) return wrong("%s: -o FILE is missing%s", v->name, "");
  if (bit & ENCODE && !a->vocab)
    return wrong("%s: --vocab FILE is missing%s", v->name, "");
  return true;
}

static bool check(const RunVerb *verbs, int verb, const RunArgs *a) {
  int bit = 1 << verb;
  const char *name = verbs[verb].name;
  if (bit & BLEU && !a->other)
    return wrong("%s: which two files? moerun %s TRANSLATIONS REFERENCES", name,
                 name);
  if (bit & BLEU) return true;
  if (bit & (VOCAB | ENCODE)) return check_writer(&verbs[verb], bit, a);
  if (bit & DOCTOR)
    return !a->model ||
           wrong("%s looks at this machine, not at '%s'", name, a->model);
  if (bit & VERIFY && !a->other)
    return wrong("%s: which two models? moerun %s A.so B.so", name, name);
  if (!a->model)
    return wrong("%s: which model? moerun %s MODEL.so", name, name);
  if (bit & (TRAIN | EVAL | VERIFY | TRANSLATE | EXPERTS) && !a->data)
    return wrong("%s: --data FILE is missing%s", name, "");
  if (bit & TRAIN && a->steps < 0)
    return wrong("%s: --steps N is missing%s", name, "");
  if (bit & VERIFY && a->steps == 0)
    return wrong("%s: --steps 0 has no gradients%s", name, "");
  if (bit & TRAIN && a->resume && strcmp(a->resume, "auto") == 0 && !a->ckpt)
    return wrong("%s: --resume auto looks under --ckpt DIR, which is missing%s",
                 name, "");
  if (a->resume && a->load)
    return wrong("%s: --resume and --load exclude each other%s", name, "");
  if (bit & (EVAL | SAMPLE | TRANSLATE | EXPERTS) && !a->ckpt && !a->load)
    return wrong("%s: --ckpt DIR is missing%s", name, "");
  if (a->has_two_devices && !(bit & VERIFY))
    return wrong("%s: one --device at a time%s", name, "");
  if (a->seed > UINT32_MAX)
    return wrong("%s: --seed is larger than 4294967295%s", name, "");
  if (a->threads > INT32_MAX)
    return wrong("%s: --threads is too large%s", name, "");
  return check_needs(name, a);
}

bool run_parse(const RunVerb *verbs, int verb, int argc, char **argv,
               RunArgs *out) {
  *out = (RunArgs){.steps = -1, .seed = -1, .keep = 3, .tokens = 200,
                   .size = 10000, .top = 5, .around = -1, .expert = -1,
                   .temperature = 1, .alpha = 0.6,
                   .tolerance = -1};
  for (int i = 0; i < argc; i++) {
    if (argv[i][0] == '-' && argv[i][1]) {
      if (!parse_option(verbs, verb, argv, argc, &i, out)) return false;
    } else if (out->model && !out->other &&
               1 << verb & (VERIFY | VOCAB | BLEU)) {
      out->other = argv[i];
    } else if (out->model) {
      return wrong("one model at a time: '%s' and '%s'", out->model, argv[i]);
    } else {
      out->model = argv[i];
    }
  }
  if (1 << verb == VERIFY && out->steps < 0) out->steps = 1;
  return check(verbs, verb, out);
}
