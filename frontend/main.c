/* main.c: the program moec. It reads the command line, makes a module from a
 * model or from IR text, runs the passes, and writes what was asked for: the
 * library, dumps, reports. It is the only file that sees every room.
 *
 * All text is collected first and written at the end, so that a run with errors
 * writes nothing. */
#include "frontend.h"
#include "options.h"
#include "plan_only.h"

#include "../codegen/codegen.h"
#include "../passes/pass.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_MISTAKE = 1, EXIT_USAGE = 2, EXIT_OURS = 70 };

const char *const stage_names[] = {"frontend",
#define P(name, entry, needs, gives, doc) #name,
#include "../passes/passes.def"
#undef P
                                   "codegen", NULL};

/* What a stage left behind, for dumps and for the library. */
typedef struct Stage {
  int number;
  const char *name, *text;
} Stage;

/* The model on its way to one target's program. */
typedef struct Way {
  Module *m; /* NULL: that target is not asked for */
  VEC(Stage) stages;
} Way;

/* One run of the compiler. */
typedef struct Job {
  Ctx cx;
  Options o;
  Way ways[TARGET_COUNT];
  PassTarget target; /* at work; the first one asked for at the end */
  int first, last;  /* stages to run, see stage_find */
  bool library;     /* the result is a library, at `output` */
  Dtype precision;
  LayerDtype *layers; /* o.layers */
  int64_t reshard_limit; /* bytes; 0 for the default */
  double expert_rows;    /* times the mean; 0: no bound */
  PlanOnly plan;         /* o.plan_only */
  const char *emit; /* the kind of text that is the result; NULL for none */
  const char *output;
  Buf explained; /* what --explain asks for */
  Buf out;       /* for standard output */
} Job;

/* ---- what the options mean together ------------------------------------- */

static bool usage(const char *fmt, ...) PRINTF_LIKE(1, 2);
static bool usage(const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  fputs("moec: ", stderr);
  vfprintf(stderr, fmt, args);
  fputc('\n', stderr);
  va_end(args);
  return false;
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), k = strlen(end);
  return n >= k && strcmp(text + n - k, end) == 0;
}

static bool emits(const Job *j, const char *kind) {
  return j->emit && strcmp(j->emit, kind) == 0;
}

static bool is_ir(const Job *j) {
  return ends_with(j->o.input, ".ir");
}

/* Texts and reports that are about GPUs are enough to ask for them. */
static bool is_about_gpus(const Options *o) {
  return (o->emit && !strcmp(o->emit, "ptx")) || list_has(o->report, "kernels");
}

/* From `layout` on IR text is that of one target. */
static bool is_of_one(const Options *o) {
  return o->from && stage_find(o->from) > stage_find(FIRST_OF_TARGET);
}

/* A library is for all targets, where nothing else is said, and a text for one
 * of them. */
static bool asks_for(const Job *j, PassTarget t) {
  if (j->o.target) return list_has(j->o.target, target_facts[t].name);
  if (j->library && !is_of_one(&j->o)) return true;
  return (t == TARGET_CUDA) == is_about_gpus(&j->o);
}

/* The library's name when none is given: models/lm.dsl to lm.so. */
static const char *default_output(Job *j) {
  const char *base = strrchr(j->o.input, '/');
  base = base ? base + 1 : j->o.input;
  return sym_fmt(&j->cx, "%.*s.so", (int)(strrchr(base, '.') - base), base);
}

/* The last stage that a dump list names. */
static int last_dumped(const char *list) {
  int last = 0;
  for (int s = 0; s <= pass_count; s++)
    if (list_has(list, stage_names[s])) last = s;
  return last;
}

/* A dump that would never come is a mistake on the command line. */
static bool check_dumps(Job *j) {
  if (!j->o.dump)
    return !j->o.dump_dir || usage("--dump-dir needs --dump: which stages?");
  int from = j->o.from ? j->first : 0;
  for (int s = 0; s <= pass_count; s++) {
    const char *name = stage_names[s];
    if (!list_has(j->o.dump, name) || list_has(j->o.dump, "all")) continue;
    if (s > j->last)
      return usage("--dump=%s comes after --stop-after=%s", name,
                   j->o.stop_after);
    if (s > 0 && s < from)
      return usage("--dump=%s comes before --from=%s", name, j->o.from);
  }
  return true;
}

/* A dtype that the text would never get is a mistake on the command line. */
static bool check_precision(const Job *j) {
  const char *dtype = j->o.precision;
  if (!dtype || strcmp(dtype, "f32") == 0) return true;
  if (j->first <= stage_find("precision")) return true;
  return usage("--precision=%s is the work of the stage precision, which comes "
               "before --from=%s",
               dtype, j->o.from);
}

/* "lm/softmax=f32" */
static bool read_layer(Job *j, const char *text, LayerDtype *out) {
  const char *equals = strchr(text, '=');
  *out = (LayerDtype){.dtype = DT_bool};
  dtype_find(equals + 1, &out->dtype);
  if (out->dtype != DT_f32 && out->dtype != DT_bf16)
    return usage("--layer is PATH=f32 or PATH=bf16, not '%s'", text);
  out->layer = sym_n(&j->cx, text, (size_t)(equals - text));
  return true;
}

static bool read_precision(Job *j) {
  uint32_t n = j->o.layers.len;
  j->precision = DT_f32;
  if (j->o.precision) dtype_find(j->o.precision, &j->precision);
  if (n && j->precision != DT_bf16)
    return usage("--layer is for --precision=bf16");
  j->layers = NEW_ARRAY(&j->cx.perm, LayerDtype, n + 1);
  for (uint32_t i = 0; i < n; i++)
    if (!read_layer(j, j->o.layers.data[i], &j->layers[i])) return false;
  return true;
}

/* MiB to bytes. */
static bool read_limit(Job *j) {
  const char *text = j->o.reshard_limit;
  char *end;
  if (!text) return true;
  double mib = strtod(text, &end);
  if (end == text || *end || !(mib > 0) || mib > 1e9)
    return usage("--reshard-limit is a number of MiB, not '%s'", text);
  j->reshard_limit = (int64_t)(mib * (1 << 20));
  if (!j->reshard_limit) j->reshard_limit = 1;
  return true;
}

static bool read_expert_rows(Job *j) {
  const char *text = j->o.expert_rows;
  char *end;
  if (!text) return true;
  j->expert_rows = strtod(text, &end);
  if (end == text || *end || !(j->expert_rows >= 1 && j->expert_rows <= 1e9))
    return usage("--expert-rows is a number of at least 1, not '%s'", text);
  return true;
}

static bool check_input(const Job *j) {
  const Options *o = &j->o;
  if (!o->input) return usage("no input; 'moec --help' tells more");
  if (!is_ir(j) && !ends_with(o->input, ".dsl"))
    return usage("'%s' is neither a model (.dsl) nor IR text (.ir)", o->input);
  if (is_ir(j) && (o->defines.len || o->mesh.len || o->includes.len))
    return usage("-D, -I and --mesh are for models, not for IR text");
  if (!is_ir(j) && o->from) return usage("--from is for IR text (.ir)");
  if (o->emit && strcmp(o->emit, "ast") == 0) {
    if (is_ir(j)) return usage("--emit=ast is for models (.dsl)");
    if (o->dump || o->report || o->stop_after)
      return usage("--emit=ast runs no stage, so no --dump, --report or "
                   "--stop-after");
  }
  return true;
}

/* --plan-only makes a report and nothing else. */
static bool check_plan(Job *j) {
  const Options *o = &j->o;
  Sym why;
  if (!o->plan_only) {
    if (o->topology || o->grow || o->json)
      return usage("%s is for --plan-only", o->topology ? "--topology"
                                            : o->grow   ? "--grow"
                                                        : "--json");
    return true;
  }
  if (is_ir(j)) return usage("--plan-only is for models, not for IR text");
  if (o->target) return usage("--plan-only is about CPUs: no --target");
  if (o->output || o->emit || o->report || o->explain || o->dump ||
      o->stop_after)
    return usage("--plan-only makes nothing else: no -o, --emit, --report, "
                 "--explain, --dump or --stop-after");
  return plan_only_read(&j->cx, o, &j->plan, &why) || usage("%s", why);
}

/* What comes out, and where to. */
static bool decide_result(Job *j) {
  const Options *o = &j->o;
  bool text_only =
      o->dump || o->report || o->explain || o->stop_after || o->emit;
  j->library = !o->emit && !o->stop_after && (o->output || !text_only);
  if (is_about_gpus(o) && !asks_for(j, TARGET_CUDA))
    return usage("%s is for --target=cuda",
                 list_has(o->report, "kernels") ? "--report=kernels"
                                                : "--emit=ptx");
  if (o->arch && !asks_for(j, TARGET_CUDA))
    return usage("--arch is for --target=cuda");
  if (o->scan && !asks_for(j, TARGET_CUDA))
    return usage("--scan is for --target=cuda");
  if (o->tf32 && !asks_for(j, TARGET_CUDA))
    return usage("--tf32 is for --target=cuda");
  j->emit = o->emit;
  if (!o->emit && o->stop_after && (!o->dump || o->output)) j->emit = "ir";
  j->output = o->output ? o->output : j->library ? default_output(j) : "-";
  if (j->library && strcmp(j->output, "-") == 0)
    return usage("a library cannot go to standard output");
  return true;
}

static bool decide_stages(Job *j) {
  const Options *o = &j->o;
  bool memory = list_has(o->report, "memory");
  bool kernels = list_has(o->report, "kernels");
  j->first = o->from ? stage_find(o->from) : 1;
  if (o->stop_after)
    j->last = stage_find(o->stop_after);
  else if (j->library || j->emit || memory || kernels)
    j->last = pass_count;
  else
    j->last = o->dump ? last_dumped(o->dump) : 0;
  int shard = stage_find("shard");
  if (o->explain && j->last < shard && !o->stop_after) j->last = shard;
  if (o->explain && (j->last < shard || j->first > shard))
    return usage("--explain=%s is the work of the stage shard, which is not "
                 "run", o->explain);
  int autodiff = stage_find("autodiff");
  if (o->keep_grads && (j->last < autodiff || j->first > autodiff))
    return usage("--keep-grads is the work of the stage autodiff, which is not "
                 "run");
  if (o->stop_after && j->last < pass_count) {
    if (j->last > 0 && j->last < j->first)
      return usage("--stop-after=%s comes before --from=%s", o->stop_after,
                   o->from);
    if (j->emit && !emits(j, "ir"))
      return usage("--emit=%s needs every pass, so no --stop-after", j->emit);
    if (memory || kernels)
      return usage("--report=%s needs every pass, so no --stop-after",
                   memory ? "memory" : "kernels");
  }
  return check_dumps(j) && check_precision(j);
}

static bool decide(Job *j) {
  if (!check_input(j) || !read_precision(j) || !read_limit(j) ||
      !read_expert_rows(j) ||
      !check_plan(j))
    return false;
  return j->o.plan_only || (decide_result(j) && decide_stages(j));
}

/* ---- the stages --------------------------------------------------------- */

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void tell_time(const Job *j, const char *stage, double since) {
  if (j->o.time_passes)
    fprintf(stderr, "%-12s %8.1f ms\n", stage, now_ms() - since);
}

/* Of the targets the first that was asked for: dumps and reports are of it. */
static Way *first_way(Job *j) {
  return &j->ways[j->target];
}

static const char *text_of(Job *j, Module *m) {
  Buf b = {0};
  buf_add(&b, "");
  ir_print(m, (PrintOptions){.loc = j->o.loc}, &b);
  const char *text = arena_copy(&j->cx.perm, b.data, b.len + 1);
  buf_free(&b);
  return text;
}

/* Keeps the text of a stage where the library or a dump wants it; `same`: it is
 * that of the stage before. */
static void keep_stage(void *user, int number, const char *name, Module *m,
                       bool same) {
  Job *j = user;
  if (!j->library && !list_has(j->o.dump, name)) return;
  Way *w = &j->ways[j->target];
  const Stage *last = w->stages.len ? &w->stages.data[w->stages.len - 1] : NULL;
  bool kept = same && last && last->number == number - 1;
  Stage s = {number, name, kept ? last->text : text_of(j, m)};
  vec_push(&j->cx.perm, &w->stages, s);
}

static FeOptions fe_options(const Job *j) {
  return (FeOptions){.path = j->o.input,
                     .includes = j->o.includes.data,
                     .n_includes = j->o.includes.len,
                     .defines = j->o.defines.data,
                     .n_defines = j->o.defines.len,
                     .mesh = j->o.mesh.data,
                     .n_mesh = j->o.mesh.len};
}

static bool load(Job *j) {
  double start = now_ms();
  Module *m;
  if (is_ir(j)) {
    uint32_t file;
    if (!source_read(&j->cx, j->o.input, &file)) {
      diag_error(&j->cx, (Span){0}, "cannot read '%s': %s", j->o.input,
                 strerror(errno));
      return false;
    }
    m = ir_read(&j->cx, file);
  } else {
    FeOptions fe = fe_options(j);
    m = fe_compile(&j->cx, &fe);
  }
  if (!m) return false;
  while (!asks_for(j, j->target))
    j->target++;
  j->ways[j->target].m = m;
  tell_time(j, "frontend", start);
  keep_stage(j, 0, "frontend", m, false);
  return true;
}

static PassOptions pass_options(Job *j) {
  const Options *o = &j->o;
  return (PassOptions){
      .target = j->target,
      .opt_level = o->level && strcmp(o->level, "0") == 0 ? 0 : 2,
      .precision = j->precision,
      .layers = j->layers,
      .n_layers = o->layers.len,
      .reshard_limit = j->reshard_limit,
      .reshard_errors = o->reshard_errors,
      .keep_grads = o->keep_grads,
      .expert_rows = j->expert_rows,
      .explain = o->explain ? &j->explained : NULL,
      .explain_all = o->explain && strcmp(o->explain, "shard-all") == 0};
}

/* Runs the stages [first, last] on what is on its way to the target. */
static bool run_stages(Job *j, int first, int last) {
  if (last < first) return true;
  bool from = is_ir(j) || first > 1;
  Pipeline p = {.options = pass_options(j),
                .from = from ? pass_info[first - 1].name : NULL,
                .stop_after = pass_info[last - 1].name,
                .time_passes = j->o.time_passes,
                .after = keep_stage,
                .user = j};
  return pass_run(&p, j->ways[j->target].m);
}

/* Nobody has asked for it by name: the library may be without. */
static bool may_lack(const Job *j, int target) {
  return !j->o.target && !is_about_gpus(&j->o) && target != TARGET_CPU;
}

/* The rest of the way to one target; false: diagnostics. */
static bool run_target(Job *j, int target, int first) {
  uint32_t before = j->cx.diags.len;
  Way *w = &j->ways[target];
  j->target = target;
  if (!w->m || run_stages(j, first, j->last)) return true;
  if (!may_lack(j, target)) return false;
  Diag why = diag_take(&j->cx, before);
  cg_warn_of_lack(&j->cx, &why);
  w->m = NULL;
  return true;
}

/* What is the same for all targets, then the rest for each of them. */
static bool run_targets(Job *j) {
  int first = pass_find(FIRST_OF_TARGET) + 1;
  if (first < j->first) first = j->first;
  if (first > j->last + 1) first = j->last + 1;
  if (!run_stages(j, j->first, first - 1)) return false;
  PassTarget one = j->target;
  for (int t = one + 1; t < TARGET_COUNT; t++)
    if (asks_for(j, t)) {
      const Way *from = &j->ways[one];
      j->ways[t].m = ir_module_clone(from->m);
      for (uint32_t i = 0; i < from->stages.len; i++)
        vec_push(&j->cx.perm, &j->ways[t].stages, from->stages.data[i]);
    }
  for (int t = 0; t < TARGET_COUNT; t++)
    if (!run_target(j, t, first)) return false;
  j->target = one;
  return true;
}

static bool run_passes(Job *j) {
  if (j->first <= pass_count) return run_targets(j);
  if (pass_facts(j->ways[j->target].m, FACT_PLANNED)) return run_targets(j);
  diag_error(&j->cx, (Span){0},
             "cannot start from codegen: the module has values without a "
             "place");
  return false;
}

/* ---- results ------------------------------------------------------------ */

/* Over every source's text and the flags: the same program, the same hash. */
static Sym source_hash(Job *j, Sym flags) {
  uint64_t h = hash_bytes(0, flags, strlen(flags));
  for (uint32_t i = 0; i < j->cx.sources.len; i++)
    h = hash_bytes(h, j->cx.sources.data[i].text, j->cx.sources.data[i].len);
  return sym_fmt(&j->cx, "%016llx", (unsigned long long)h);
}

static CgScan scan_of(const char *word) {
  if (!word || !strcmp(word, "auto")) return CG_SCAN_AUTO;
  if (!strcmp(word, "graph")) return CG_SCAN_GRAPH;
  if (!strcmp(word, "persistent")) return CG_SCAN_PERSISTENT;
  internal_error("--scan=%s", word);
}

static CodegenOptions codegen_options(Job *j) {
  Sym flags = options_flags(&j->cx, &j->o);
  return (CodegenOptions){
      .cpu = j->o.mcpu ? j->o.mcpu : "native",
      .arch = j->o.arch ? j->o.arch : "sm_80",
      .scan = scan_of(j->o.scan),
      .tf32 = j->o.tf32,
      .opt_level = j->o.level && strcmp(j->o.level, "0") == 0 ? 0 : 2,
      .flags = flags,
      .source_hash = source_hash(j, flags)};
}

static CgPrograms programs(Job *j) {
  static_assert((int)TARGET_CUDA == (int)MOERT_CUDA, "ORDER DEVICE");
  CgPrograms p = {0};
  for (int t = 0; t < TARGET_COUNT; t++) {
    const Way *w = &j->ways[t];
    StageText *texts = NEW_ARRAY(&j->cx.perm, StageText, w->stages.len + 1);
    for (uint32_t i = 0; i < w->stages.len; i++)
      texts[i] = (StageText){w->stages.data[i].name, w->stages.data[i].text};
    p.of[t] = (CgProgram){w->m, texts, (int)w->stages.len, may_lack(j, t)};
  }
  return p;
}

static bool write_file(Job *j, const char *path, const char *text) {
  bool ok = file_write(path, text, strlen(text));
  if (!ok)
    diag_error(&j->cx, (Span){0}, "cannot write '%s': %s", path,
               strerror(errno));
  return ok;
}

/* Dumps: one to standard output as it is, several under headings that the
 * reader takes for comments, or each to its file. */
static bool write_dumps(Job *j) {
  uint32_t n = 0;
  const Way *w = first_way(j);
  for (uint32_t i = 0; i < w->stages.len; i++)
    n += list_has(j->o.dump, w->stages.data[i].name);
  if (n && j->o.dump_dir && mkdir(j->o.dump_dir, 0777) != 0 &&
      errno != EEXIST) {
    diag_error(&j->cx, (Span){0}, "cannot make folder '%s': %s", j->o.dump_dir,
               strerror(errno));
    return false;
  }
  for (uint32_t i = 0; i < w->stages.len; i++) {
    const Stage *s = &w->stages.data[i];
    if (!list_has(j->o.dump, s->name)) continue;
    if (!j->o.dump_dir) {
      if (n > 1) buf_fmt(&j->out, "# %02d %s\n", s->number, s->name);
      buf_add(&j->out, s->text);
      continue;
    }
    Sym path =
        sym_fmt(&j->cx, "%s/%02d-%s.ir", j->o.dump_dir, s->number, s->name);
    if (!write_file(j, path, s->text)) return false;
  }
  return true;
}

/* The text that --emit or --stop-after asks for. */
static bool emit_text(Job *j, Buf *text) {
  buf_add(text, "");
  if (emits(j, "ir")) {
    ir_print(first_way(j)->m, (PrintOptions){.loc = j->o.loc}, text);
    return true;
  }
  if (emits(j, "ast")) {
    FeOptions fe = fe_options(j);
    return fe_print_ast(&j->cx, &fe, text);
  }
  CodegenOptions c = codegen_options(j);
  CgPrograms p = programs(j);
  return cg_emit_text(&p, &c, j->emit, text);
}

static bool write_emit(Job *j) {
  if (!j->emit) return true;
  if (strcmp(j->output, "-") == 0) return emit_text(j, &j->out);
  Buf text = {0};
  bool ok = emit_text(j, &text) && write_file(j, j->output, text.data);
  buf_free(&text);
  return ok;
}

static bool write_library(Job *j) {
  if (!j->library) return true;
  double start = now_ms();
  CodegenOptions c = codegen_options(j);
  CgPrograms p = programs(j);
  bool ok = cg_library(&p, &c, j->output);
  tell_time(j, "codegen", start);
  return ok;
}

static void write_explained(Job *j) {
  if (!j->o.explain) return;
  if (j->out.len) buf_add(&j->out, "\n");
  buf_add(&j->out, j->explained.len ? j->explained.data
                                    : "one device: nothing is split\n");
}

static bool report_kernels(Job *j) {
  if (!list_has(j->o.report, "kernels")) return true;
  CodegenOptions c = codegen_options(j);
  CgPrograms p = programs(j);
  if (j->out.len) buf_add(&j->out, "\n");
  return cg_kernel_report(&p, &c, &j->out);
}

/* The module as it would be if nothing were marked by `recompute`, for what
 * that saves; NULL: nothing is, or nobody asks. */
static Module *without_recompute(Job *j) {
  if (!list_has(j->o.report, "memory") || j->first > stage_find("recompute"))
    return NULL;
  Module *m = ir_module_clone(first_way(j)->m);
  return recompute_forget(m) ? m : NULL;
}

/* Its mistakes and warnings are those of the module itself, told already. */
static bool report_memory(Job *j, Module *kept) {
  if (!list_has(j->o.report, "memory")) return true;
  if (j->out.len) buf_add(&j->out, "\n");
  memory_report(first_way(j)->m, &j->out);
  if (!kept) return true;
  uint32_t told = j->cx.diags.len;
  Pipeline p = {.options = pass_options(j),
                .from = is_ir(j) ? pass_info[j->first - 1].name : NULL};
  p.options.explain = NULL;
  if (!pass_run(&p, kept)) return false;
  diag_take(&j->cx, told);
  memory_saved(first_way(j)->m, kept, &j->out);
  return true;
}

static bool compile(Job *j) {
  if (emits(j, "ast")) return write_emit(j);
  if (j->o.plan_only) {
    FeOptions fe = fe_options(j);
    PassOptions passes = pass_options(j);
    return plan_only_run(&j->cx, &j->plan, &fe, &passes, &j->out);
  }
  if (!load(j)) return false;
  if (list_has(j->o.report, "cost")) {
    Module *m = first_way(j)->m;
    Entry *e = ir_main_entry(m);
    if (!e) {
      diag_error(&j->cx, (Span){0}, "--report=cost: the model has no entry");
      return false;
    }
    cost_report(m, e, &j->out);
  }
  Module *kept = without_recompute(j);
  if (!run_passes(j)) return false;
  write_explained(j);
  return report_memory(j, kept) && report_kernels(j) && write_dumps(j) &&
         write_emit(j) && write_library(j);
}

/* ---- the program -------------------------------------------------------- */

static void print_ops(void) {
  Buf out = {0};
  ir_print_ops(&out);
  fputs(out.data, stdout);
  buf_free(&out);
}

/* A failed assert is our mistake, and its status says so. */
static void on_abort(int signal_number) {
  (void)signal_number;
  static const char text[] =
      "moec: this is a mistake in moec, not in your model\n";
  ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
  (void)ignored;
  _exit(EXIT_OURS);
}

static int flush_out(const Buf *out) {
  if (out->data) fwrite(out->data, 1, out->len, stdout);
  if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_OK;
  fprintf(stderr, "moec: cannot write to standard output: %s\n",
          strerror(errno));
  return EXIT_MISTAKE;
}

static int run(Job *j) {
  if (!decide(j)) return EXIT_USAGE;
  bool ok = compile(j);
  diag_print(&j->cx, stderr);
  return ok && j->cx.errors == 0 ? flush_out(&j->out) : EXIT_MISTAKE;
}

int main(int argc, char **argv) {
  signal(SIGABRT, on_abort);
  Job j = {0};
  int status = EXIT_USAGE;
  if (!options_parse(&j.cx, argc, argv, &j.o)) {
    status = EXIT_USAGE;
  } else if (j.o.help || j.o.version || j.o.ops) {
    if (j.o.help) options_help(stdout);
    if (j.o.version) puts("moec " MOEC_VERSION);
    if (j.o.ops) print_ops();
    status = flush_out(&j.out);
  } else {
    status = run(&j);
  }
  buf_free(&j.out);
  buf_free(&j.explained);
  ctx_free(&j.cx);
  return status;
}
