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

const TargetFacts target_facts[TARGET_COUNT] = {
    [TARGET_CPU] = {"cpu", .packs = true, .remakes = true},
    [TARGET_CUDA] = {"cuda", .packs = false, .remakes = false},
};

static const struct {
  unsigned fact;
  const char *lacking; /* what a node is that rules it out */
} facts[] = {
    {FACT_GRADS, "an op that `autodiff` replaces"},
    {FACT_EXPANDED, "an op that `expand` replaces"},
    {FACT_FUSED, "outside of any launch"},
    {FACT_PLANNED, "without a place"},
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

bool pass_same(const PassOptions *o) {
  if (o->same) *o->same = true;
  return true;
}

/* ---- facts ------------------------------------------------------------- */

static bool is_launched(const Node *n) {
  if (n->op == OP_reshape) return true; /* costs nothing, or is a copy */
  switch (op_info[n->op].lower) {
  case LOWER_LAUNCH:
  case LOWER_CONTRACT:
  case LOWER_COMM:
  case LOWER_WAIT:
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

/* The facts that a module with this node does not have. */
static unsigned rules_out(const Node *n) {
  unsigned out = 0;
  if (n->op == OP_grad) out |= FACT_GRADS;
  if (op_is(n->op, TRAIT_HIGH)) out |= FACT_EXPANDED;
  if (!is_launched(n)) out |= FACT_FUSED;
  if (!has_places(n)) out |= FACT_PLANNED;
  return out;
}

/* The first node that rules out one of the facts, NULL when all of them hold.
 * A launch's body is inside of one launch: FUSED and PLANNED stop there. */
static const Node *offender(const Region *r, unsigned facts_wanted) {
  unsigned inside = FACT_FUSED | FACT_PLANNED;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (rules_out(n) & facts_wanted) return n;
    unsigned left = n->op == OP_fused ? facts_wanted & ~inside : facts_wanted;
    const Node *inner = n->body ? offender(n->body, left) : NULL;
    if (inner) return inner;
  }
  return NULL;
}

/* The facts that the region does not have. */
static unsigned ruled_out(const Region *r) {
  unsigned out = 0, inside = FACT_FUSED | FACT_PLANNED;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    out |= rules_out(n);
    if (n->body)
      out |= ruled_out(n->body) & ~(n->op == OP_fused ? inside : 0);
  }
  return out;
}

static const Node *first_offender(const Module *m, unsigned fact) {
  const Node *n = NULL;
  for (uint32_t i = 0; i < m->entries.len && !n; i++)
    n = offender(m->entries.data[i]->region, fact);
  return n;
}

unsigned pass_facts(Module *m, unsigned wanted) {
  unsigned holds = 0;
  for (size_t f = 0; f < COUNT_OF(facts); f++)
    holds |= facts[f].fact;
  for (uint32_t i = 0; i < m->entries.len; i++)
    holds &= ~ruled_out(m->entries.data[i]->region);
  return holds & wanted;
}

/* Says what keeps pass `i` from running on a module that came from a file. */
static bool has_needs(Module *m, int i) {
  bool ok = true;
  for (size_t f = 0; f < COUNT_OF(facts); f++) {
    if (!(pass_info[i].needs & facts[f].fact)) continue;
    const Node *n = first_offender(m, facts[f].fact);
    if (!n) continue;
    diag_error(m->cx, n->span, "cannot start from %s: %s is %s",
               pass_info[i].name, op_info[n->op].name, facts[f].lacking);
    ok = false;
  }
  return ok;
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
      fprintf(stderr, "a node is still %s\n", facts[f].lacking);
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
  bool same = false;
  options.same = &same;
  if (p->time_passes) options.stats = &stats;
  double start = now_ms();
  bool ok = pass_info[i].run(m, &options);
  if (p->time_passes) print_time(i, now_ms() - start, &stats);
  if (ok && !same) check_output(m, i);
  arena_reset(&m->cx->scratch);
  if (ok && p->after) p->after(p->user, i + 1, pass_info[i].name, m, same);
  return ok;
}

bool pass_run(Pipeline *p, Module *m) {
  int first = p->from ? pass_find(p->from) : 0;
  int last = p->stop_after ? pass_find(p->stop_after) : pass_count - 1;
  assert(first >= 0 && last >= 0);
  if (p->from && !has_needs(m, first)) return false;
  for (int i = first; i <= last; i++)
    if (!run_one(p, m, i)) return false;
  return true;
}
