/* moerun.c: the driver's entry point. It trains, evaluates, samples from,
 * translates, measures, describes and compares compiled models, and prepares
 * texts, on top of moert.h. */
#include "moerun.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const RunVerb verbs[] = {
    {"train", run_train, "MODEL.so --data FILE --steps N",
     "train on a text file", false},
    {"eval", run_eval, "MODEL.so --data FILE --ckpt DIR",
     "loss and perplexity over every token of a file", false},
    {"sample", run_sample, "MODEL.so --ckpt DIR", "write text", false},
    {"bench", run_bench, "MODEL.so [--steps N]",
     "measure training; prints one line of JSON", false},
    {"info", run_info, "MODEL.so", "what is in a compiled model", true},
    {"verify", run_verify, "A.so B.so --data FILE",
     "whether two models have the same gradients", false},
    {"vocab", run_vocab, "TEXT [TEXT] -o FILE [--size N]",
     "make a vocabulary of the words of one or two texts", true},
    {"encode", run_encode, "TEXT --vocab FILE -o FILE",
     "write a text's words as numbers", true},
    {"doctor", run_doctor, "", "what this machine has, and what is missing",
     true},
    {"translate", run_translate, "MODEL.so --data FILE --ckpt DIR",
     "translate a file, line by line", false},
    {"bleu", run_bleu, "TRANSLATIONS REFERENCES",
     "how near translations are to others", true},
    {"experts", run_experts, "MODEL.so --data FILE --ckpt DIR",
     "which contexts each expert takes", true},
};
enum { N_VERBS = COUNT_OF(verbs) };

static int find_verb(const char *name) {
  for (int i = 0; i < N_VERBS; i++)
    if (strcmp(verbs[i].name, name) == 0) return i;
  return -1;
}

/* Idle threads of OpenMP spin for milliseconds by default, which takes the
 * cores away from whoever else uses them: two trainings at once on four cores
 * were measured to slow down a thousand times. 5000 turns are enough to catch
 * the next parallel region of a step; with more processes than cores there are
 * none to spare. libgomp reads this when it is loaded,
 * before main: hence the second start. */
static void limit_spinning(char **argv, const Ranks *r) {
  if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
  bool crowded = r->neighbours > (int)sysconf(_SC_NPROCESSORS_ONLN);
  setenv("GOMP_SPINCOUNT", crowded ? "0" : "5000", 1);
  execv("/proc/self/exe", argv); /* goes on as it is where that fails */
}

static bool is_help(const char *word) {
  return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 ||
         strcmp(word, "help") == 0;
}

static int unknown_verb(const char *word) {
  fprintf(stderr, "moerun: unknown command '%s'%s\n", word,
          rt_did_you_mean(word, &verbs[0].name, N_VERBS, sizeof verbs[0]));
  fprintf(stderr, "moerun --help lists the commands\n");
  return EXIT_USAGE;
}

int main(int argc, char **argv) {
  Ranks ranks;
  int wrong;
  char **all = argv;
  if (!ranks_find(&argc, &argv, &ranks, &wrong)) return wrong;
  limit_spinning(all, &ranks);
  signal(SIGXFSZ,
         SIG_IGN); /* a write past the limit is an error, not the end */
  if (argc < 2) {
    fprintf(stderr, "moerun: no command given; moerun --help lists them\n");
    return EXIT_USAGE;
  }
  if (is_help(argv[1])) {
    int verb = argc > 2 ? find_verb(argv[2]) : -1;
    if (argc > 2 && verb < 0) return unknown_verb(argv[2]);
    if (argc > 2)
      run_verb_help(verbs, verb);
    else
      run_help(verbs, N_VERBS);
    return 0;
  }
  int verb = find_verb(argv[1]);
  if (verb < 0) return unknown_verb(argv[1]);
  for (int i = 2; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      run_verb_help(verbs, verb);
      return 0;
    }
  RunArgs args;
  bool fine = run_parse(verbs, verb, argc - 2, argv + 2, &args);
  int status = fine ? ranks_run(&ranks, &verbs[verb], &args) : EXIT_USAGE;
  free(args.sets);
  if (fflush(stdout) != 0 || ferror(stdout))
    return run_error("cannot write standard output");
  return status;
}
