/* partition_rows.c: rows of experts on virtual ranks against the same programs
 * on one: placements of tokens and experts, experts that do not divide, skewed
 * ids, and whole models. Run from the top of the project. */
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"
#include "ranks_run.h"

#include <stdlib.h>
#include <string.h>

enum { BELOW = 11 }; /* integers drawn */

/* ---- layers of experts --------------------------------------------------- */

/* Tokens f32[8, 4, 6] and their ids i32[8, 4, 2], placed; `experts` with their
 * weights, placed; what is done between "dispatch" and the results. */
typedef struct Case {
  const char *name, *mesh, *tokens;
  int experts;
  const char *n, *h; /* axes of the experts and of their width */
  const char *ids;   /* how they follow from a draw %d below 11; NULL: rest */
  const char *nodes, *results;
} Case;

/* The layer and its gradients: two products with something in between, gates,
 * weight gradients, as autodiff makes them. */
#define LAYER                                                                 \
  "  %x = dispatch %t, %ids {experts=@N} : f32[@N, r<=64, 6]\n"              \
  "  %h = contract %x, %w1 {map=\"nrd,ndh->nrh\"} : f32[@N, r<=64, 4]\n"     \
  "  %a = tanh %h : f32[@N, r<=64, 4]\n"                                     \
  "  %y = contract %a, %w2 {map=\"nrh,nhd->nrd\"} : f32[@N, r<=64, 6]\n"     \
  "  %o = combine %y, %ids, %g : f32[8, 4, 6]\n"                             \
  "  %do = mul %o, %t : f32[8, 4, 6]\n"                                      \
  "  %dy = dispatch %do, %ids, %g {experts=@N} : f32[@N, r<=64, 6]\n"        \
  "  %dg = row_dot %y, %do, %ids : f32[8, 4, 2]\n"                           \
  "  %da = contract %dy, %w2 {map=\"nrd,nhd->nrh\"} : f32[@N, r<=64, 4]\n"   \
  "  %d2 = contract %a, %dy {map=\"nrh,nrd->nhd\"} : f32[@N, 4, 6]\n"        \
  "  %dx = contract %da, %w1 {map=\"nrh,ndh->nrd\"} : f32[@N, r<=64, 6]\n"   \
  "  %d1 = contract %x, %da {map=\"nrd,nrh->ndh\"} : f32[@N, 6, 4]\n"        \
  "  %dt = combine %dx, %ids : f32[8, 4, 6]\n"
#define GRADIENTS                                                       \
  "slot \"w1\" = %d1, slot \"w2\" = %d2, probe \"o\" = %o, "            \
  "probe \"dg\" = %dg, probe \"dt\" = %dt"

static const Case cases[] = {
    {"tokens split, all experts on each", "dev=2", "@dev", 4, "", "", NULL,
     LAYER, GRADIENTS},
    {"tokens and experts split over one axis", "dev=4", "@dev", 4, "@dev", "",
     NULL, LAYER, GRADIENTS},
    {"tokens on each, experts split", "dev=4", "", 4, "@dev", "", NULL, LAYER,
     GRADIENTS},
    {"tokens over both axes, experts over one", "data=2, expert=2",
     "@data @expert", 4, "@expert", "", NULL, LAYER, GRADIENTS},
    {"tokens over one axis, experts over the other", "data=2, expert=2",
     "@data", 4, "@expert", "", NULL, LAYER, GRADIENTS},
    {"tokens and experts over both axes", "a=2, b=2", "@a @b", 4, "@a @b", "",
     NULL, LAYER, GRADIENTS},
    {"axes in another order", "a=2, b=2", "@b @a", 4, "@a @b", "", NULL, LAYER,
     GRADIENTS},
    {"experts over the major axis", "a=2, b=2", "@a @b", 4, "@a", "", NULL,
     LAYER, GRADIENTS},
    {"the width of experts split", "model=2", "", 4, "", "@model", NULL, LAYER,
     GRADIENTS},
    {"tokens, experts and their width split", "dev=2, model=2", "@dev", 4,
     "@dev", "@model", NULL, LAYER, GRADIENTS},
    {"all there is", "data=2, dev=2, model=2", "@data @dev", 4, "@dev",
     "@model", NULL, LAYER, GRADIENTS},
    {"experts that do not divide", "dev=4", "@dev", 5, "@dev", "", NULL, LAYER,
     GRADIENTS},
    {"experts that do not divide, tokens on each", "dev=4", "", 5, "@dev", "",
     NULL, LAYER, GRADIENTS},
    {"experts that do not divide over two axes", "a=2, b=2", "@a @b", 5,
     "@a @b", "", NULL, LAYER, GRADIENTS},
    {"more ranks than experts", "dev=4", "@dev", 2, "@dev", "", NULL, LAYER,
     GRADIENTS},
    {"more ranks than experts, two axes", "a=2, b=4", "@a @b", 3, "@a @b", "",
     NULL, LAYER, GRADIENTS},
    {"one expert", "dev=4", "@dev", 1, "@dev", "",
     "const {value=0} : i32[8, 4, 2]", LAYER, GRADIENTS},
    {"one token a rank", "dev=8", "@dev", 4, "@dev", "", NULL, LAYER,
     GRADIENTS},
    {"all tokens to one expert", "dev=4", "@dev", 4, "@dev", "",
     "const {value=2} : i32[8, 4, 2]", LAYER, GRADIENTS},
    {"all tokens to the last expert of those that do not divide", "dev=4",
     "@dev", 5, "@dev", "", "const {value=4} : i32[8, 4, 2]", LAYER,
     GRADIENTS},
    {"experts without a token", "dev=4", "@dev", 32, "@dev", "", NULL, LAYER,
     GRADIENTS},
    {"sums over rows", "dev=4", "@dev", 5, "@dev", "", NULL,
     LAYER "  %s1 = reduce_sum %a {map=\"nrd->nd\"} : f32[@N, 4]\n"
           "  %e = exp %a : f32[@N, r<=64, 4]\n"
           "  %s2 = reduce_sum %e {map=\"nrd->d\"} : f32[4]\n"
           "  %s3 = reduce_max %h {map=\"nrd->\"} : f32[]\n"
           "  %s4 = contract %e, %e {map=\"nrd,nrh->dh\"} : f32[4, 4]\n"
           "  %s5 = reduce_sum %dx {map=\"nrd->d\"} : f32[6]\n",
     "probe \"s1\" = %s1, probe \"s2\" = %s2, probe \"s3\" = %s3, "
     "probe \"s4\" = %s4, probe \"s5\" = %s5"},
    {"sums over rows, tokens on each", "dev=2", "", 3, "@dev", "", NULL,
     LAYER "  %e = exp %a : f32[@N, r<=64, 4]\n"
           "  %s1 = reduce_sum %e {map=\"nrd->nd\"} : f32[@N, 4]\n"
           "  %s2 = reduce_sum %e {map=\"nrd->d\"} : f32[4]\n"
           "  %s3 = reduce_min %h {map=\"nrd->d\"} : f32[4]\n",
     "probe \"s1\" = %s1, probe \"s2\" = %s2, probe \"s3\" = %s3"},
    {"rows for all to see", "data=2, dev=2", "@data @dev", 5, "@dev", "", NULL,
     LAYER "  %z = const {value=0} : f32[@N, r<=64, 4]\n"
           "  %p = lt %z, %h : bool[@N, r<=64, 4]\n",
     "probe \"x\" = %x, probe \"h\" = %h, probe \"p\" = %p, probe \"y\" = %y, "
     "probe \"dx\" = %dx"},
};

/* `text` with @N for the number of experts. */
static void add_text(Buf *b, const char *text, int experts) {
  for (const char *p; (p = strstr(text, "@N")); text = p + 2)
    buf_fmt(b, "%.*s%d", (int)(p - text), text, experts);
  buf_add(b, text);
}

static void module_of(const Case *c, Buf *b) {
  buf_fmt(b,
          "moec-ir 1\nmesh {%s}\n"
          "slot \"w1\" param f32[%d %s, 6, 4 %s]\n"
          "slot \"w2\" param f32[%d %s, 4 %s, 6]\n"
          "entry @f(%%t: f32[8 %s, 4, 6] = input \"t\", "
          "%%d: i32[8 %s, 4, 2] = input \"d\", "
          "%%g: f32[8 %s, 4, 2] = input \"g\", "
          "%%w1: f32[%d %s, 6, 4 %s] = slot \"w1\", "
          "%%w2: f32[%d %s, 4 %s, 6] = slot \"w2\") {\n"
          "  %%n = const {value=%d} : i32[8, 4, 2]\n"
          "  %%ids = %s\n",
          c->mesh, c->experts, c->n, c->h, c->experts, c->n, c->h, c->tokens,
          c->tokens, c->tokens, c->experts, c->n, c->h, c->experts, c->n, c->h,
          c->experts, c->ids ? c->ids : "rem %d, %n : i32[8, 4, 2]");
  add_text(b, c->nodes, c->experts);
  buf_fmt(b, "  return %s\n}\n", c->results);
}

/* Rounds that rows go in with room for so many times the mean. */
static const struct {
  const char *name;
  double room;
  int rounds;
} rounds[] = {
    {"tokens and experts split over one axis", 1, 2},
    {"tokens and experts split over one axis", 1.25, 2},
    {"tokens and experts split over one axis", 2, 1},
    {"experts that do not divide", 1, 2},
    {"experts that do not divide", 1.25, 1},
    {"one expert", 1, 1},
    {"all tokens to one expert", 1, 4},
    {"all tokens to one expert", 1.25, 4},
    {"all tokens to one expert", 2, 2},
    {"all tokens to the last expert of those that do not divide", 1, 3},
    {"all tokens to the last expert of those that do not divide", 2, 2},
    {"experts without a token", 1, 4},
};

/* Cases that no rounds can be made of: rows that go on from one rank to another
 * and rows for all to see. */
static const char *const all_at_once[] = {"axes in another order",
                                          "rows for all to see"};

static bool needs_all(const Case *c, double room) {
  for (size_t i = 0; i < COUNT_OF(all_at_once); i++)
    if (!strcmp(all_at_once[i], c->name)) return room > 0 && room < 2;
  return false;
}

static void check_rounds(Sides *s, const Case *c) {
  for (size_t i = 0; i < COUNT_OF(rounds); i++)
    if (!strcmp(rounds[i].name, c->name) && rounds[i].room == s->expert_rows)
      CHECK(sym_fmt(&s->cx, "%s, room for %g times the mean: rounds", c->name,
                    s->expert_rows),
            s->rounds == rounds[i].rounds, "%g, not %d", s->rounds,
            rounds[i].rounds);
}

/* With room for `room` times the mean of rows; 0: for all. */
static void test_case(const Case *c, double room) {
  Sides s = {.expert_rows = room};
  Buf b = {0};
  const char *why = "cannot be partitioned";
  RanksSlots slots = {0};
  module_of(c, &b);
  uint32_t file = source_add(&s.cx, c->name, b.data, b.len);
  if (sides_split(&s, ir_read(&s.cx, file), "shard"))
    why = sides_step(&s, "f", &slots, 0, EVAL_F64, BELOW, 1e-13);
  Sym name = c->name;
  if (room) name = sym_fmt(&s.cx, "%s, room for %g times the mean", name, room);
  if (needs_all(c, room)) {
    CHECK(name, s.cx.errors == 1, "%u errors", s.cx.errors);
    why = NULL;
  } else {
    CHECK(name, !why, "%s", why);
    check_rounds(&s, c);
  }
  if (getenv("VERBOSE")) printf("# %s: %g rounds\n", name, s.rounds);
  if (why) diag_print(&s.cx, stdout);
  if (why && getenv("VERBOSE")) printf("%s\n", b.data);
  if (why && getenv("VERBOSE") && s.part) {
    Buf t = {0};
    ir_print(s.part, (PrintOptions){0}, &t);
    printf("%s\n", t.data);
  }
  buf_free(&b);
  sides_free(&s);
}

/* ---- whole models -------------------------------------------------------- */

/* `sent`: how often rows go to their experts in a step, loops aside, and come
 * back. */
static const struct {
  const char *path, *mesh, *experts;
  int sent;
  const char *more; /* another const */
  int numbers;      /* of rows, that go to the experts with them */
  const char *gate; /* yet another */
} models[] = {
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "dev=4", "N=4", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "dev=8", "N=16", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "dev=4", "N=6", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "dev=8", "N=3", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "data=2,expert=4", "N=4", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "data=2,expert=2", "N=5", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "dev=2,model=2", "N=4", 2, NULL, 0, NULL},
    {"models/lm_moe.dsl", "data=2,model=2", "N=4", 0, NULL, 0, NULL},
    {"models/lm_moe.dsl", "dev=2,data=2,expert=2,model=2", "N=4", 2, NULL, 0,
     NULL},
    /* tokens go twice */
    {"models/lm_moe.dsl", "dev=4", "N=8", 4, "A=4", 0, NULL},
    {"models/lm_moe.dsl", "dev=2,model=2", "N=9", 4, "A=3", 0, NULL},
    {"models/lm_moe.dsl", "dev=4", "N=8", 2, "CAPACITY=0.7", 0, NULL},
    {"models/lm_moe.dsl", "data=2,expert=2", "N=6", 4, "A=2", 0, NULL},
    {"models/lm_moe.dsl", "dev=2,model=2", "N=4", 2, "SAMPLES=6", 0, NULL},
    {"models/lm_moe.dsl", "dev=4", "N=8", 4, "A=4", 0, "GATE=balanced"},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=switch", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=gshard", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=deepseek", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=loss_free", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=hash", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=top_p", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=cosine", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=expert_choice", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=balanced", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=sinkhorn", 0, NULL},
    {"models/lm_moe.dsl", "dev=2", "N=4", 2, "GATE=base", 0, NULL},
    {"tests/models/moe_recompute.dsl", "dev=2", NULL, 2, NULL, 0, NULL},
    {"tests/models/many_experts.dsl", "dev=2", NULL, 2, NULL, 0, NULL},
    {"tests/models/hierarchical.dsl", "dev=2", NULL, 2, NULL, 0, NULL},
    {"tests/models/moe_scan.dsl", "dev=2", NULL, 0, NULL, 0, NULL},
    {"tests/models/expert_dropout.dsl", "dev=2", NULL, 4, NULL, 2, NULL},
    {"tests/models/expert_dropout.dsl", "data=2,expert=2", NULL, 4, NULL, 2,
     NULL},
};

static const char *small[] = {"V=16", "D=8", "B=8", "T=5", "P=0.25",
                              "H=12", "K=2", NULL,  NULL,  NULL};
enum { ALWAYS = COUNT_OF(small) - 3 };

/* The first step's moments are its gradients; the second starts with weights
 * that the first has moved. */
static const char *run_model(Sides *s) {
  RanksSlots slots = {0};
  const char *why = sides_step(s, "init", &slots, 0, EVAL_TYPED, BELOW, 0);
  for (int i = 0; i < 2 && !why; i++)
    why = sides_step(s, "train", &slots, i, EVAL_F64, BELOW, 1e-12);
  if (!why) why = sides_step(s, "train", &slots, 2, EVAL_TYPED, BELOW, 1e-5);
  if (!why && ir_entry(s->whole, "eval"))
    why = sides_step(s, "eval", &slots, 2, EVAL_F64, BELOW, 1e-12);
  if (!why && ir_entry(s->whole, "decode"))
    why = sides_step(s, "decode", &slots, 2, EVAL_F64, BELOW, 1e-12);
  return why;
}

/* Exchanges of rows, and of their numbers, in the entry that trains. */
static void count_exchanges(Sides *s, Sym name, size_t model) {
  int sent = 0, returned = 0, counts = 0, want = models[model].sent;
  const Region *r = ir_entry(s->part, "train")->region;
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    sent += n->op == OP_rows_send;
    returned += n->op == OP_rows_return;
    counts += n->op == OP_all_to_all && n->ins.data[0]->type.dtype == DT_i32;
  }
  CHECK(sym_fmt(&s->cx, "%s: exchanges", name),
        sent == want + models[model].numbers && returned == want &&
            counts == want / 2,
        "rows go %d times, come back %d times, are counted %d times", sent,
        returned, counts);
}

static void test_model(size_t i, double room) {
  Sides s = {.expert_rows = room};
  uint32_t n = ALWAYS + 1 + !!models[i].more + !!models[i].gate;
  small[ALWAYS] = models[i].experts;
  small[ALWAYS + 1] = models[i].more;
  small[ALWAYS + 2] = models[i].gate;
  FeOptions fe = {.path = models[i].path,
                  .mesh = &models[i].mesh,
                  .n_mesh = 1,
                  .defines = small,
                  .n_defines = models[i].experts ? n : 0};
  Sym name = sym_fmt(&s.cx, "%s %s %s %s on %s%s", models[i].path,
                     models[i].experts ? models[i].experts : "",
                     models[i].more ? models[i].more : "",
                     models[i].gate ? models[i].gate : "", models[i].mesh,
                     room ? ", in rounds" : "");
  const char *why = "cannot be partitioned";
  bool ok = sides_split(&s, fe_compile(&s.cx, &fe), NULL);
  if (ok) why = run_model(&s);
  CHECK(name, !why, "%s", why);
  if (ok && !room) count_exchanges(&s, name, i);
  if (why) diag_print(&s.cx, stdout);
  if (getenv("VERBOSE"))
    printf("# %s: %g, %g rounds\n", name, s.worst, s.rounds);
  sides_free(&s);
}

static const double rooms[] = {0, 1, 1.25, 2};

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    for (size_t k = 0; k < COUNT_OF(rooms); k++)
      test_case(&cases[i], rooms[k]);
  for (size_t i = 0; i < COUNT_OF(models); i++) {
    test_model(i, 0);
    if (models[i].sent) test_model(i, 1);
  }
  return failures != 0;
}
