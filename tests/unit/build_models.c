/* build_models.c: compiled code against the interpreter, launch by launch:
 * models through the whole pipeline. */
#include <stdlib.h>
#include <string.h>

#include "../../frontend/frontend.h"
#include "build.h"

static void check_model(const char *path, const char *const *defines,
                        uint32_t n, int opt_level, Dtype precision) {
  Ctx cx = {0};
  char name[128];
  FeOptions o = {.path = path, .defines = defines, .n_defines = n};
  InputBound bounds[] = {{"x", 11}, {"y", 11}, {NULL, 0}};
  launches_bounds = bounds;
  Module *m = fe_compile(&cx, &o);
  if (m && !run_passes(m, NULL, opt_level, precision)) m = NULL;
  snprintf(name, sizeof name, "build %s %s %s -O%d %s", path,
           n ? defines[1] : "", n ? defines[n - 1] : "", opt_level,
           dtype_info[precision].name);
  check(&cx, name, m, "native", 3, precision == DT_f64 ? 1e-6 : 0);
  launches_bounds = NULL;
}

/* How models are compiled; which of these a model takes is a set of bits. */
enum { FUSED = 1, PLAIN = 2, F64 = 4, BF16 = 8, FAST = FUSED | BF16, ALL = 15 };
static const struct {
  int bit, level;
  Dtype precision;
} ways[] = {{FUSED, 2, DT_f32},
            {PLAIN, 0, DT_f32},
            {F64, 2, DT_f64},
            {BF16, 2, DT_bf16}};

#define D(...) \
  (const char *const[]){__VA_ARGS__}, COUNT_OF(((const char *[]){__VA_ARGS__}))
#define TEST(name) "tests/models/" name ".dsl", NULL, 0
static const struct {
  const char *path;
  const char *const *defines;
  uint32_t n;
  int ways;
} all[] = {
    {"models/lm_moe.dsl",
     D("V=19", "D=24", "N=5", "K=2", "H=40", "T=3", "B=5"), ALL},
    {"models/lm_moe.dsl",
     D("V=19", "D=24", "N=1", "K=1", "H=40", "T=3", "B=5", "P=0.5"), FAST},
    {"models/lm_moe.dsl",
     D("V=19", "D=24", "N=5", "K=2", "H=40", "T=3", "B=6", "CAPACITY=0.6",
       "GROUPS=3"),
     ALL},
    {"models/lm_moe.dsl",
     D("V=19", "D=24", "U=32", "N=12", "K=2", "H=40", "T=3", "B=5", "A=3"),
     FAST},
    {"models/lm_4lstm.dsl", D("V=19", "D=24", "T=3", "B=5"), FAST},
    {"models/lm_4lstm.dsl", D("V=19", "D=64", "T=5", "B=20"), FAST},
    {"models/lm_transformer.dsl",
     D("V=19", "T=7", "B=3", "D=24", "L=2", "HEADS=3", "F=40", "N=5", "H=8"),
     BF16},
    {"tests/models/attention.dsl", D("V=19", "T=7", "B=3"), PLAIN},
    {TEST("blocks"), ALL},
    {TEST("moe_recompute"), FAST},
    {TEST("moe_scan"), ALL},
    {TEST("hierarchical"), FAST},
    {TEST("nested_scans"), ALL},
    {TEST("halves"), ALL},
    {TEST("expert_dropout"), FAST},
    {TEST("many_experts"), FAST}, /* of launches of several ops */
};

static void models(void) {
  for (size_t w = 0; w < COUNT_OF(ways); w++)
    for (size_t i = 0; i < COUNT_OF(all); i++)
      if (all[i].ways & ways[w].bit & (SANITIZED ? FAST : ALL))
        check_model(all[i].path, all[i].defines, all[i].n, ways[w].level,
                    ways[w].precision);
}

/* The first two are routed in the two ways that differ most. */
static void gates(void) {
  static const char *const names[] = {"GATE=gshard",   "GATE=expert_choice",
                                      "GATE=loss_free", "GATE=hash",
                                      "GATE=top_p",     "GATE=base"};
  for (size_t i = 0; i < (SANITIZED ? 2 : COUNT_OF(names)); i++) {
    const char *gate[] = {"V=19", "D=24", "N=6", "K=2", "H=40",
                          "T=3",  "B=6",  "EXPERT_P=0.3", names[i]};
    check_model("models/lm_moe.dsl", gate, 9, 2, DT_f32);
  }
}

int main(void) {
  models();
  gates();
  return failures != 0;
}
