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

static void models(void) {
  static const char *const moe[] = {"V=19", "D=24", "N=5", "K=2",
                                    "H=40", "T=3",  "B=5"};
  static const char *const one[] = {"V=19", "D=24", "N=1", "K=1",
                                    "H=40", "T=3",  "B=5", "P=0.5"};
  static const char *const capacity[] = {"V=19", "D=24", "N=5", "K=2", "H=40",
                                         "T=3",  "B=6",  "CAPACITY=0.6",
                                         "GROUPS=3"};
  static const char *const levels[] = {"V=19", "D=24", "U=32", "N=12", "K=2",
                                       "H=40", "T=3",  "B=5",  "A=3"};
  static const char *const plain[] = {"V=19", "D=24", "T=3", "B=5"};
  static const char *const packed[] = {"V=19", "D=64", "T=5", "B=20"};
  static const char *const small[] = {"V=19", "T=7", "B=3"};
  static const char *const layers[] = {"V=19", "T=7", "B=3", "D=24", "L=2",
                                       "HEADS=3", "F=40", "N=5", "H=8"};
  static const char *const others[] = {
      "tests/models/blocks.dsl",       "tests/models/moe_recompute.dsl",
      "tests/models/moe_scan.dsl",     "tests/models/hierarchical.dsl",
      "tests/models/nested_scans.dsl", "tests/models/halves.dsl",
      "tests/models/expert_dropout.dsl",
  };
  static const char *const gates[] = {"GATE=gshard", "GATE=loss_free",
                                      "GATE=hash", "GATE=top_p",
                                      "GATE=expert_choice", "GATE=base"};
  static const struct {
    int level;
    Dtype precision;
  } ways[] = {{2, DT_f32}, {0, DT_f32}, {2, DT_f64}, {2, DT_bf16}};
  for (size_t p = 0; p < COUNT_OF(ways); p++) {
    int level = ways[p].level;
    if (SANITIZED && p % 3) continue; /* the others take minutes more */
    Dtype precision = ways[p].precision;
    check_model("models/lm_moe.dsl", moe, 7, level, precision);
    check_model("models/lm_moe.dsl", one, 8, level, precision);
    check_model("models/lm_moe.dsl", capacity, 9, level, precision);
    check_model("models/lm_moe.dsl", levels, 9, level, precision);
    check_model("models/lm_4lstm.dsl", plain, 4, level, precision);
    check_model("models/lm_4lstm.dsl", packed, 4, level, precision);
    if (precision == DT_bf16)
      check_model("models/lm_transformer.dsl", layers, 9, level, precision);
    if (!level)
      check_model("tests/models/attention.dsl", small, 3, level, precision);
    for (size_t i = 0; i < COUNT_OF(others); i++)
      check_model(others[i], NULL, 0, level, precision);
    if (level) /* what it is for happens to launches of several ops */
      check_model("tests/models/many_experts.dsl", NULL, 0, level, precision);
  }
  for (size_t i = 0; i < COUNT_OF(gates); i++) {
    const char *gate[] = {"V=19", "D=24", "N=6", "K=2", "H=40",
                          "T=3",  "B=6",  "EXPERT_P=0.3", gates[i]};
    check_model("models/lm_moe.dsl", gate, 9, 2, DT_f32);
  }
}

int main(void) {
  models();
  return failures != 0;
}
