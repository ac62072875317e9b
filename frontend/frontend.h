/* frontend.h: the frontend's door: from model text to IR. The room's own
 * headers are ast.h (syntax) and sema.h (meaning). */
#ifndef MOEC_FRONTEND_H
#define MOEC_FRONTEND_H

#include "../ir/ir.h"

typedef VEC(Sym) SymVec;

typedef struct FeOptions {
  const char *path; /* the model; also names it where `file` is given */
  uint32_t file;    /* a registered source to compile; 0: read `path` */
  bool sealed;      /* imports are refused: the text is not to be trusted */
  const char *const *includes; /* -I, searched in order */
  const char *const *defines;  /* -D, each NAME=VALUE */
  const char *const *mesh;     /* --mesh, each axis=size */
  uint32_t n_includes, n_defines, n_mesh;
  /* Where it is not NULL, an integer const without a -D that says the size of
   * an input's split dim is the next one that the devices divide. Each that
   * changes is warned of, and added as "B=128". */
  SymVec *fitted;
} FeOptions;

/* The model with everything it imports, as a module that has passed ir_verify:
 * entries init and reset, then its own in order. NULL: diagnostics were
 * reported. */
Module *fe_compile(Ctx *cx, const FeOptions *o);

/* Names of the mesh axes that the model declares, those of one device too.
 * False: diagnostics were reported. */
bool fe_axes(Ctx *cx, const FeOptions *o, SymVec *out);

/* The canonical text of the model's own file, imports not followed. False:
 * diagnostics were reported. */
bool fe_print_ast(Ctx *cx, const FeOptions *o, Buf *out);

#endif
