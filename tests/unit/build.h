/* build.h: a case of build.c, build_models.c and build_random.c. */
#include "../../passes/pass.h"
#include "check.h"
#include "launches.h"

static inline bool run_passes(Module *m, const char *from, int opt_level,
                       Dtype precision) {
  Pipeline p = {.options = {.opt_level = opt_level, .precision = precision},
                .from = from};
  return pass_run(&p, m);
}

/* One case: launches and a whole step agree. */
static inline void check(Ctx *cx, const char *name, Module *m, const char *cpu,
                  uint64_t seed, double step_tol) {
  Buf why = {0};
  bool ok = m && launches_agree(m, cpu, seed, step_tol, &why);
  if (cx->errors) diag_print(cx, stdout);
  CHECK(name, ok, "%s", why.data ? why.data : "it is no module");
  fflush(stdout);
  buf_free(&why);
  ctx_free(cx);
}

/* Zeros, by a launch. */
static inline Value *zeros(Ctx *cx, Entry *e, Type t) {
  Builder b = ir_builder(cx, e->region);
  Attr attrs[MAX_ATTRS] = {{.s = sym(cx, "map"), .present = true},
                           {.present = true}};
  Node *n = ir_node_raw(&b, OP_fused, NULL, 0, attrs, &t, 1);
  n->body = ir_region(cx, e, n);
  Builder in = ir_builder(cx, n->body);
  vec_push(&cx->perm, &n->body->results, ir_const(&in, t, 0));
  return n->outs.data[0];
}

/* A session starts by running `init`: zeros for every slot. */
static inline void add_init(Module *m, bool launches) {
  Entry *e = ir_entry_new(m, sym(m->cx, "init"), (Span){0});
  Builder b = ir_builder(m->cx, e->region);
  for (uint32_t i = 0; i < m->slots.len; i++) {
    const Slot *s = m->slots.data[i];
    Binding to = {.kind = BIND_SLOT, .name = s->path};
    ir_bind_out(e, to,
                launches ? zeros(m->cx, e, s->type) : ir_const(&b, s->type, 0));
  }
}
