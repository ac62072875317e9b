/* lines.c: which line of the model a kernel is for, in its code.
 *
 * PTX says it by `.loc`, and profilers show it. A kernel is for one line, that
 * of its launch, so all its instructions have the same, and get it once they
 * are optimised, which need not know of it then:
 *
 *   .file 1 "models/lib/moe.dsl"
 *   .loc 1 22 9
 *
 * Files have the names that the compiler was given: none is made absolute. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <stdlib.h>
#include <string.h>

/* LLVM's number of a kind that its C interface does not name: `.file` and
 * `.loc` alone, no sections for debuggers. */
enum { DIRECTIVES_ONLY = 3 };

typedef struct Lines {
  LLVMContextRef c;
  LLVMDIBuilderRef b;
  LLVMMetadataRef type; /* of all functions */
} Lines;

static LLVMMetadataRef file_of(const Lines *l, const char *path, size_t len) {
  return LLVMDIBuilderCreateFile(l->b, path, len, "", 0);
}

static void open_unit(Lines *l, LLVMModuleRef m) {
  static const char version[] = "Debug Info Version", producer[] = "moec";
  LLVMTypeRef i32 = LLVMInt32TypeInContext(l->c);
  LLVMValueRef number = LLVMConstInt(i32, LLVMDebugMetadataVersion(), false);
  LLVMAddModuleFlag(m, LLVMModuleFlagBehaviorWarning, version,
                    sizeof version - 1, LLVMValueAsMetadata(number));
  LLVMMetadataRef file = file_of(l, "model", strlen("model"));
  LLVMDIBuilderCreateCompileUnit(l->b, LLVMDWARFSourceLanguageC, file, producer,
                                 sizeof producer - 1, true, "", 0, 0, "", 0,
                                 (LLVMDWARFEmissionKind)DIRECTIVES_ONLY, 0,
                                 false, false, "", 0, "", 0);
  l->type = LLVMDIBuilderCreateSubroutineType(l->b, file, NULL, 0,
                                              LLVMDIFlagZero);
}

static void set_all(LLVMValueRef function, LLVMMetadataRef location) {
  for (LLVMBasicBlockRef b = LLVMGetFirstBasicBlock(function); b;
       b = LLVMGetNextBasicBlock(b))
    for (LLVMValueRef i = LLVMGetFirstInstruction(b); i;
         i = LLVMGetNextInstruction(i))
      LLVMInstructionSetDebugLoc(i, location);
}

/* "path:line:column" */
static void set_line(const Lines *l, const CgLine *line) {
  const char *end = line->where + strlen(line->where), *column, *number;
  for (column = end; column > line->where && *column != ':'; column--)
    continue;
  if (column == line->where) return; /* the place is not known */
  for (number = column - 1; number > line->where && *number != ':'; number--)
    continue;
  if (number == line->where) return;
  LLVMMetadataRef file =
      file_of(l, line->where, (size_t)(number - line->where));
  unsigned row = (unsigned)strtoul(number + 1, NULL, 10);
  size_t len;
  const char *name = LLVMGetValueName2(line->function, &len);
  LLVMMetadataRef scope = LLVMDIBuilderCreateFunction(
      l->b, file, name, len, "", 0, file, row, l->type, false, true, row,
      LLVMDIFlagZero, true);
  LLVMSetSubprogram(line->function, scope);
  set_all(line->function,
          LLVMDIBuilderCreateDebugLocation(
              l->c, row, (unsigned)strtoul(column + 1, NULL, 10), scope, NULL));
}

void cg_lines(LLVMModuleRef m, const CgLineVec *all) {
  Lines l = {.c = LLVMGetModuleContext(m), .b = LLVMCreateDIBuilder(m)};
  open_unit(&l, m);
  for (uint32_t i = 0; i < all->len; i++)
    set_line(&l, &all->data[i]);
  LLVMDIBuilderFinalize(l.b);
  LLVMDisposeDIBuilder(l.b);
}
