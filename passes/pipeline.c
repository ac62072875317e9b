/* pipeline.c: runs the passes of passes.def in order.
 *
 * The pipeline can be entered at any pass: what a pass needs is a fact about
 * the module, found by looking at the module and not by remembering what ran.
 * After each pass the verifier runs; output that fails it is our mistake, so
 * the graph and the pass are printed and the process ends. */
#include "pass.h"

#include <string.h>
#include <time.h>

#define GRADS    FACT_GRADS
#define EXPANDED FACT_EXPANDED
#define FUSED    FACT_FUSED
#define PLANNED  FACT_PLANNED
const PassInfo pass_info[] = {
#define P(name, entry, needs, gives, doc) \
  {#name, pass_##entry, needs, gives, doc},
#include "passes.def"
#undef P
};
#undef GRADS
#undef EXPANDED
#undef FUSED
#undef PLANNED
const int pass_count = COUNT_OF(pass_info);

static const struct {
  unsigned fact;
  const char *lacking; /* what a module without it has */
} facts[] = {
    {FACT_GRADS, "a grad op"},
    {FACT_EXPANDED, "an op that `expand` replaces"},
    {FACT_FUSED, "a node outside of any launch"},
    {FACT_PLANNED, "a value without a place"},
};

int pass_find(const char *name) {
  for (int i = 0; i < pass_count; i++)
    if (strcmp(pass_info[i].name, name) == 0) return i;
  return -1;
}

void pass_tally(const PassOptions *o, const char *rule) {
  PassStats *s = o->stats;
  if (!s) return;
  uint32_t i = 0;
  while (i < s->n && s->rules[i].rule != rule)
    i++;
  if (i == COUNT_OF(s->rules)) return;
  if (i == s->n) s->rules[s->n++] = (RuleCount){rule, 0};
  s->rules[i].count++;
}

/* ---- facts ------------------------------------------------------------- */

static bool is_launched(const Node *n) {
  if (n->op == OP_reshape) return true; /* costs nothing, or is a copy */
  switch (op_info[n->op].lower) {
  case LOWER_LAUNCH:
  case LOWER_CONTRACT:
  case LOWER_LOOP: return true;
  case LOWER_SCALAR:
  case LOWER_ACCESS:
  case LOWER_REDUCE:
  case LOWER_ROW:
  case LOWER_EXPAND:
  case LOWER_NONE: return false;
  }
  return false;
}

static bool has_places(const Node *n) {
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (n->outs.data[i]->place.slab == SLAB_NONE) return false;
  return true;
}

/* The facts in `wanted` that the nodes of a region, bodies included, allow.
 * Launch bodies are inside of one launch: FUSED and PLANNED stop there. */
static unsigned region_facts(const Region *r, unsigned wanted) {
  for (uint32_t i = 0; i < r->nodes.len && wanted; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op == OP_grad) wanted &= ~(unsigned)FACT_GRADS;
    if (op_is(n->op, TRAIT_HIGH)) wanted &= ~(unsigned)FACT_EXPANDED;
    if (!is_launched(n)) wanted &= ~(unsigned)FACT_FUSED;
    if (!has_places(n)) wanted &= ~(unsigned)FACT_PLANNED;
    if (!n->body) continue;
    unsigned outer =
        n->op == OP_fused ? wanted & (FACT_FUSED | FACT_PLANNED) : 0;
    wanted = region_facts(n->body, wanted & ~outer) | outer;
  }
  return wanted;
}

unsigned pass_facts(Module *m, unsigned wanted) {
  for (uint32_t i = 0; i < m->entries.len; i++)
    wanted = region_facts(m->entries.data[i]->region, wanted);
  return wanted;
}

/* Says what keeps pass `i` from running on a module that came from a file. */
static bool has_needs(Module *m, int i) {
  unsigned missing = pass_info[i].needs & ~pass_facts(m, pass_info[i].needs);
  for (size_t f = 0; f < COUNT_OF(facts); f++)
    if (missing & facts[f].fact)
      diag_error(m->cx, (Span){0}, "cannot start from %s: the module has %s",
                 pass_info[i].name, facts[f].lacking);
  return missing == 0;
}

/* ---- running ----------------------------------------------------------- */

static void check_output(Module *m, int i) {
  unsigned holds = pass_facts(m, ~0u);
  bool ok = ir_verify(m, (holds & FACT_EXPANDED) != 0);
  unsigned missing = pass_info[i].gives & ~holds;
  if (ok && !missing) return;
  Buf text = {0};
  ir_print(m, (PrintOptions){.loc = true}, &text);
  fputs(text.data ? text.data : "", stderr);
  buf_free(&text);
  diag_print(m->cx, stderr);
  for (size_t f = 0; f < COUNT_OF(facts); f++)
    if (missing & facts[f].fact)
      fprintf(stderr, "the module still has %s\n", facts[f].lacking);
  internal_error("pass %s: its output fails the verifier", pass_info[i].name);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void print_time(int i, double ms, const PassStats *s) {
  fprintf(stderr, "%-12s %8.1f ms", pass_info[i].name, ms);
  for (uint32_t k = 0; k < s->n; k++)
    fprintf(stderr, "%s %s %u", k ? "," : " ", s->rules[k].rule,
            s->rules[k].count);
  fputc('\n', stderr);
}

static bool run_one(Pipeline *p, Module *m, int i) {
  PassStats stats = {0};
  PassOptions options = p->options;
  if (p->time_passes) options.stats = &stats;
  double start = now_ms();
  bool ok = pass_info[i].run(m, &options);
  if (p->time_passes) print_time(i, now_ms() - start, &stats);
  if (ok) check_output(m, i);
  arena_reset(&m->cx->scratch);
  return ok;
}

bool pass_run(Pipeline *p, Module *m) {
  int first = p->from ? pass_find(p->from) : 0;
  int last = p->stop_after ? pass_find(p->stop_after) : pass_count - 1;
  assert(first >= 0 && last >= 0);
  if (p->from && !has_needs(m, first)) return false;
  for (int i = first; i <= last; i++) {
    if (!run_one(p, m, i)) return false;
    if (p->after) p->after(p->user, i + 1, pass_info[i].name, m);
  }
  return true;
}
