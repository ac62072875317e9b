/* gated.c: a step whose loss is not finite leaves every bit of parameters and
 * optimiser state as it was, also where gradients are computed twice and never
 * stored. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../codegen/codegen.h"
#include "../../frontend/frontend.h"
#include "../../passes/pass.h"
#include "check.h"

static const char table[] = "e/embed/table";

/* Launches of products with something behind them. */
static int products(Module *m) {
  const Region *r = ir_entry(m, "train")->region;
  int n = 0;
  for (uint32_t i = 0; i < r->nodes.len; i++)
    n += r->nodes.data[i]->op == OP_fused &&
         !strcmp(attr_sym(r->nodes.data[i], "kind"), "product");
  return n;
}

static bool compile(Dtype precision, const char *path) {
  Ctx cx = {0};
  FeOptions o = {.path = "tests/models/many_experts.dsl"};
  Pipeline p = {.options = {.opt_level = 2, .precision = precision}};
  CodegenOptions c = {
      .cpu = "native", .opt_level = 2, .flags = "", .source_hash = "0"};
  Module *m = fe_compile(&cx, &o);
  bool ok = m && pass_run(&p, m) && products(m) >= 4 &&
            cg_library(&(CgPrograms){{{.m = m}}}, &c, path);
  if (cx.errors) diag_print(&cx, stdout);
  ctx_free(&cx);
  return ok;
}

static size_t bytes_of(const MoertSlot *s) {
  size_t bytes = dtype_info[s->dtype].bytes;
  for (int i = 0; i < s->rank; i++)
    bytes *= (size_t)s->dims[i];
  return bytes;
}

/* All slots, one behind the other; the caller frees them. */
static char *content(MoertSession *s, const MoertDesc *d, size_t *out_bytes) {
  *out_bytes = 0;
  for (int i = 0; i < d->n_slots; i++)
    *out_bytes += bytes_of(&d->slots[i]);
  char *all = malloc(*out_bytes), *at = all;
  for (int i = 0; all && i < d->n_slots; i++) {
    if (moert_get(s, d->slots[i].path, at, bytes_of(&d->slots[i]))) abort();
    at += bytes_of(&d->slots[i]);
  }
  return all;
}

/* Takes a step; whether any bit of any slot is another after it. */
static bool changes(MoertSession *s, const MoertDesc *d, MoertStatus *status) {
  size_t bytes;
  char *before = content(s, d, &bytes);
  *status = moert_step(s, "train");
  char *after = content(s, d, &bytes);
  bool differ = !before || !after || memcmp(before, after, bytes) != 0;
  free(before);
  free(after);
  return differ;
}

/* Makes the loss of tokens 0, which the inputs are full of, no number. */
static void spoil(MoertSession *s, const MoertDesc *d) {
  for (int i = 0; i < d->n_slots; i++) {
    size_t bytes = bytes_of(&d->slots[i]);
    float *w = malloc(bytes);
    if (strcmp(d->slots[i].path, table) == 0) {
      if (!w || moert_get(s, table, w, bytes)) abort();
      w[0] = NAN;
      if (moert_put(s, table, w, bytes)) abort();
    }
    free(w);
  }
}

static void check(Dtype precision) {
  const char *dir = getenv("TMPDIR");
  char path[256], name[64];
  MoertModel *model = NULL;
  MoertSession *s = NULL;
  MoertSessionOptions options = {.threads = 2};
  snprintf(path, sizeof path, "%s/moec-gated-%d.so", dir ? dir : "/tmp",
           (int)getpid());
  snprintf(name, sizeof name, "gated %s", dtype_info[precision].name);
  bool open = compile(precision, path) && !moert_open(path, &model) &&
              !moert_session(model, &options, &s);
  if (open) {
    MoertStatus good, bad;
    const MoertDesc *d = moert_desc(model);
    bool moved = changes(s, d, &good);
    spoil(s, d);
    bool kept = !changes(s, d, &bad);
    CHECK(name, !good && moved && bad == MOERT_NOT_FINITE && kept,
          "status %d then %d, changed %d, kept %d", good, bad, moved, kept);
  } else {
    CHECK(name, false, "it does not open: %s", moert_error());
  }
  moert_session_free(s);
  moert_close(model);
  unlink(path);
}

int main(void) {
  check(DT_f32);
  check(DT_bf16);
  return failures != 0;
}
