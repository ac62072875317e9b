/* table.h: what the files that make the step table share: table.c,
 * table_comm.c, table_turns.c. */
#ifndef MOEC_TABLE_H
#define MOEC_TABLE_H

#include "codegen.h"

typedef VEC(LlValue) ConstVec;

typedef struct Table {
  Module *ir;
  Arena *a;
  const Target *t;
  const CodegenOptions *o;
  const CgProgram *p;
  struct LLVMOpaqueModule *m; /* of the data */
  struct LLVMOpaqueModule *code; /* of kernels; m where they are the host's */
  struct LLVMOpaqueContext *c;
  LlType i32, i64, ptr;
  Map strings; /* Sym -> global */
  CgLowered lowered;
  Map kernels; /* hash -> Emitted */
  Map code_of; /* of kernels -> a function a stage */
  CgLineVec lines; /* of functions for another device */
  uint32_t n_kernels;
  unsigned needs; /* KN_..., of all of them */
  /* of the entry at hand */
  ConstVec records;
  Map started; /* exchange -> number of its record + 1 */
  int64_t flops; /* needed */
  int64_t times; /* that a step executes what comes next */
  bool quiet; /* that is not told of: it only stands in for something else */
  const Entry *entry;
  CgAgain again;
} Table;

/* A kernel in the table, and the name that its stages begin with. */
typedef struct Emitted {
  LlValue kernel;
  Sym symbol;
} Emitted;

/* Fields of a MoertRecord as they stand for any kind. */
typedef struct Record {
  MoertRecordKind kind;
  const char *name, *where;
  ConstVec args;
  uint32_t n_outs;
  bool reverse;
  int64_t count, flops, needed, bytes;
  Dtype dtype;
  LlValue kernel, gemm, collective;
} Record;

/* ---- table.c ------------------------------------------------------------- */

/* Constants; arrays and texts are pointers to them. */
LlValue tb_i32(Table *t, int64_t x);
LlValue tb_i64(Table *t, int64_t x);
LlValue tb_i64s(Table *t, const int64_t *x, unsigned n);
LlValue tb_null(Table *t);
LlValue tb_text(Table *t, const char *text); /* NULL is "" */
LlValue tb_array(Table *t, const ConstVec *v);
/* A constant of its own; the linker sees no name. */
LlValue tb_place(Table *t, LlValue v);
/* A struct of moert.h, which must be `bytes` long: the layouts agree. */
LlValue tb_struct(Table *t, size_t bytes, LlValue *fields, unsigned n);
#define TB_STRUCT(t, T, fields) \
  tb_struct((t), sizeof(T), (fields), COUNT_OF(fields))
LlValue tb_ref(Table *t, const Type *type, const Place *p);

Record tb_record_of(Table *t, MoertRecordKind kind, const Node *n);
/* The first n_ins operands, then results. */
void tb_add_args(Table *t, Record *r, const Node *n, uint32_t n_ins);
void tb_add_record(Table *t, Record *r);
/* Tells of a launch, for reports; `r`: its record, if it has one. */
void tb_tell(const Table *t, CgLaunch l, const Record *r);
/* A new one: "k12_row", what an assembler takes for a name. */
void tb_symbol(Table *t, const char *name, char *out, size_t cap);
/* A stage that warps run, and a kernel of stages. */
LlValue tb_launch(Table *t, const KStage *s, const WarpGrid *g,
                  const char *symbol);
LlValue tb_kernel(Table *t, const char *name, int64_t workspace,
                  const ConstVec *stages);
/* Notes what the kernel may take for granted of its arguments' addresses. */
void tb_note_places(Table *t, const Node *n, Kernel *k);
int64_t tb_flops(const Node *n);
int64_t tb_bytes(const Node *n);

/* ---- table_comm.c -------------------------------------------------------- */

void tb_exchange(Table *t, Node *n);
/* Ends an exchange, for people by its own name. */
void tb_wait_for(Table *t, Node *n);

/* ---- table_turns.c ------------------------------------------------------- */

/* A record in front of a loop that is one kernel; false: it is none. */
bool tb_turns(Table *t, Node *scan);

#endif
