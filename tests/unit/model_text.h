/* model_text.h: models that tests carry with them. */
#ifndef MOEC_MODEL_TEXT_H
#define MOEC_MODEL_TEXT_H

#include <string.h>

#include "../../frontend/frontend.h"

/* Of models/lib it may import what it wants. NULL: diagnostics. */
static inline Module *compile_text(Ctx *cx, const char *name,
                                   const char *text) {
  static const char *const includes[] = {"models"};
  FeOptions o = {.path = name,
                 .file = source_add(cx, name, text, strlen(text)),
                 .includes = includes,
                 .n_includes = 1};
  return fe_compile(cx, &o);
}

#endif
