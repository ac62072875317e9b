/* table.c: a planned module as constant data: the step table.
 *
 * A program is a MoertDesc (runtime/moert.h), built here as LLVM constants,
 * next to the kernels that its records point to, or with the text of those of
 * another device in it. The library's one symbol, `moert_model`, is the first.
 * Nodes become records one by one: a contraction that a gemm can do is a GEMM,
 * a reshape is nothing or a COPY, a scan is LOOP, its body's records, END, an
 * exchange between ranks is START, and WAIT where its `wait` stands or at once,
 * and everything else is a LAUNCH of the kernel that cg_lower makes. Kernels
 * with equal text are emitted once; those that differ in the keys of their
 * random draws alone share their code. */
#include "table.h"

#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <string.h>

#ifndef MOEC_VERSION
#error "MOEC_VERSION is set by CMakeLists.txt"
#endif

/* ---- constants ---------------------------------------------------------- */

LLVMValueRef tb_i32(Table *t, int64_t x) {
  return LLVMConstInt(t->i32, (uint64_t)x, true);
}

LLVMValueRef tb_i64(Table *t, int64_t x) {
  return LLVMConstInt(t->i64, (uint64_t)x, true);
}

LLVMValueRef tb_null(Table *t) {
  return LLVMConstPointerNull(t->ptr);
}

LLVMValueRef tb_i64s(Table *t, const int64_t *x, unsigned n) {
  LLVMValueRef all[16];
  assert(n <= COUNT_OF(all));
  for (unsigned i = 0; i < n; i++)
    all[i] = tb_i64(t, x[i]);
  return LLVMConstArray2(t->i64, all, n);
}

/* A struct of moert.h, which must be `bytes` long: the layouts agree. */
LLVMValueRef tb_struct(Table *t, size_t bytes, LLVMValueRef *fields,
                             unsigned n) {
  LLVMValueRef s = LLVMConstStructInContext(t->c, fields, n, false);
  LLVMTargetDataRef layout = LLVMGetModuleDataLayout(t->m);
  if (LLVMABISizeOfType(layout, LLVMTypeOf(s)) != bytes)
    internal_error("a struct of the step table differs from moert.h");
  return s;
}

/* A constant of its own; the linker sees no name. */
LLVMValueRef tb_place(Table *t, LLVMValueRef v) {
  LLVMValueRef g = LLVMAddGlobal(t->m, LLVMTypeOf(v), "");
  LLVMSetInitializer(g, v);
  LLVMSetGlobalConstant(g, true);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  return g;
}

/* Pointer to an array of equal structs; NULL for an empty one. */
LLVMValueRef tb_array(Table *t, const ConstVec *v) {
  if (!v->len) return tb_null(t);
  LLVMTypeRef type = LLVMTypeOf(v->data[0]);
  return tb_place(t, LLVMConstArray2(type, v->data, v->len));
}

/* Pointer to text; NULL is "". A stage's is not interned here, and is a struct:
 * LLVM goes through an array byte by byte to see whether linkers may merge it,
 * which for many layers took a tenth of compiling. */
LLVMValueRef tb_text(Table *t, const char *text) {
  text = text ? text : "";
  size_t n = strlen(text);
  bool is_long = n > 200;
  Sym s = is_long ? NULL : sym(t->ir->cx, text);
  LLVMValueRef g = is_long ? NULL : map_get(&t->strings, s);
  if (!g) {
    LLVMValueRef bytes = LLVMConstStringInContext2(t->c, text, n, false);
    if (is_long) bytes = LLVMConstStructInContext(t->c, &bytes, 1, false);
    g = tb_place(t, bytes);
    LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
    if (s) map_put(t->a, &t->strings, s, g);
  }
  return g;
}

/* ---- places ------------------------------------------------------------- */

LLVMValueRef tb_ref(Table *t, const Type *type, const Place *p) {
  static_assert((int)MAX_LOOPS == (int)MOERT_MAX_LOOPS, "ORDER SLAB");
  static_assert((int)SLAB_ARENA - 1 == (int)MOERT_SLAB_ARENA, "ORDER SLAB");
  assert(p->slab != SLAB_NONE);
  LLVMValueRef f[] = {tb_i32(t, (int)p->slab - 1), tb_i32(t, type->dtype),
                      tb_i64(t, type_elements(type)), tb_i64(t, p->offset),
                      tb_i64s(t, p->stride, MAX_LOOPS)};
  return TB_STRUCT(t, MoertRef, f);
}

static LLVMValueRef value_ref(Table *t, const Value *v) {
  return tb_ref(t, &v->type, &v->place);
}

static LLVMValueRef c_dims(Table *t, const Type *type, int *out_rank) {
  int64_t dims[MAX_RANK] = {0};
  static_assert((int)MAX_RANK == (int)MOERT_MAX_RANK, "ranks");
  *out_rank = type_stored_dims(type, dims);
  return tb_i64s(t, dims, MAX_RANK);
}

/* ---- kernels ------------------------------------------------------------ */

static LLVMValueRef c_stage(Table *t, const KStage *s, LLVMValueRef body) {
  LLVMValueRef f[] = {body,
                      tb_i64(t, s->count),
                      tb_i64(t, s->grain),
                      tb_i64(t, s->scratch_bytes),
                      tb_i32(t, s->uneven),
                      tb_i32(t, 0),
                      tb_i32(t, 0),
                      tb_i32(t, 0),
                      tb_i64(t, 0),
                      tb_text(t, ""),
                      tb_null(t)};
  return TB_STRUCT(t, MoertStage, f);
}

static LLVMValueRef c_maps(Table *t, const KStage *s) {
  ConstVec all = {0};
  for (uint32_t i = 0; i < s->maps.len; i++) {
    const KMap *m = &s->maps.data[i];
    int64_t bytes = dtype_info[DT_bf16].bytes;
    int64_t strides[2] = {m->step[0] * bytes, m->step[1] * bytes};
    LLVMValueRef box[3] = {tb_i32(t, m->box[0]), tb_i32(t, m->box[1]),
                           tb_i32(t, 1)};
    LLVMValueRef f[] = {tb_i64s(t, m->size, 3), tb_i64s(t, strides, 2),
                        LLVMConstArray2(t->i32, box, 3), tb_i32(t, m->arg)};
    vec_push(t->a, &all, TB_STRUCT(t, MoertMap, f));
  }
  return tb_array(t, &all);
}

LLVMValueRef tb_launch(Table *t, const KStage *s, const WarpGrid *g,
                       const char *symbol) {
  LLVMValueRef f[] = {tb_null(t),
                      tb_i64(t, s->count),
                      tb_i64(t, 1),
                      tb_i64(t, 0),
                      tb_i32(t, 0),
                      tb_i32(t, g->threads),
                      tb_i32(t, g->shared_bytes),
                      tb_i32(t, s->maps.len),
                      tb_i64(t, g->blocks),
                      tb_text(t, symbol),
                      c_maps(t, s)};
  return TB_STRUCT(t, MoertStage, f);
}

/* A function a stage, emitted once for all kernels of this code. */
static LLVMValueRef *code_for(Table *t, const Kernel *k, const char *name) {
  const void *key = (const void *)(uintptr_t)k->code;
  LLVMValueRef *bodies = t->t->ways->shares_code ? map_get(&t->code_of, key)
                                                 : NULL;
  if (bodies) return bodies;
  for (uint32_t i = 0; i < k->stages.len; i++)
    t->needs |= k->stages.data[i].needs;
  bodies = NEW_ARRAY(t->a, LLVMValueRef, k->stages.len);
  cg_llvm_kernel(t->code, t->t, k, name, bodies);
  map_put(t->a, &t->code_of, key, bodies);
  return bodies;
}

void tb_symbol(Table *t, const char *name, char *out, size_t cap) {
  snprintf(out, cap, "k%u_%.80s", t->n_kernels++, name);
  for (char *c = out; *c; c++)
    if (*c == '.') *c = '_';
}

LLVMValueRef tb_kernel(Table *t, const char *name, int64_t workspace,
                       const ConstVec *stages) {
  LLVMValueRef f[] = {tb_text(t, name), tb_i64(t, workspace),
                      tb_i32(t, (int)stages->len), tb_array(t, stages)};
  return tb_place(t, TB_STRUCT(t, MoertKernel, f));
}

static Emitted *emit_kernel(Table *t, const Kernel *k) {
  char name[96], stage[128];
  Emitted *e = NEW(t->a, Emitted);
  tb_symbol(t, k->name, name, sizeof name);
  bool host = t->code == t->m;
  LLVMValueRef *bodies = code_for(t, k, name);
  ConstVec stages = {0};
  for (uint32_t i = 0; i < k->stages.len; i++) {
    const KStage *s = &k->stages.data[i];
    LLVMValueRef body = bodies[i];
    ll_stage_name(name, i, stage, sizeof stage - sizeof ".keyed");
    if (host && k->keys.len)
      body = cg_llvm_keyed(t->m, k, strcat(stage, ".keyed"), body);
    if (!host) vec_push(t->a, &t->lines, ((CgLine){body, k->where}));
    WarpGrid g = host ? (WarpGrid){0} : cg_warp_grid(s);
    vec_push(t->a, &stages,
             host ? c_stage(t, s, body) : tb_launch(t, s, &g, stage));
  }
  int64_t workspace = host ? k->workspace_bytes : cg_warp_workspace(k);
  e->kernel = tb_kernel(t, k->name, workspace, &stages);
  e->symbol = sym(t->ir->cx, name);
  return e;
}

int64_t cg_place_alignment(const Place *p, int64_t most) {
  int64_t at = p->offset | most;
  for (int i = 0; i < MAX_LOOPS; i++)
    at |= p->stride[i];
  return at & -at;
}

static uint8_t alignment(const Value *v) {
  return (uint8_t)cg_place_alignment(&v->place, 16);
}

static bool overlap(const Value *x, const Value *y) {
  const Place *a = &x->place, *b = &y->place;
  return a->slab == b->slab && a->offset < b->offset + type_bytes(&y->type) &&
         b->offset < a->offset + type_bytes(&x->type);
}

void tb_note_places(Table *t, const Node *n, Kernel *k) {
  uint8_t *all = NEW_ARRAY(t->a, uint8_t, n->ins.len + n->outs.len + 1);
  for (uint32_t i = 0; i < n->ins.len; i++)
    all[i] = alignment(n->ins.data[i]);
  for (uint32_t i = 0; i < n->outs.len; i++)
    all[n->ins.len + i] = alignment(n->outs.data[i]);
  k->aligned = all;
  for (uint32_t i = 0; i < n->outs.len; i++)
    for (uint32_t j = 0; j < n->ins.len; j++)
      k->in_place |= overlap(n->ins.data[j], n->outs.data[i]);
}

/* One that was emitted before when its text is the same. */
static const Emitted *kernel_for(Table *t, const Kernel *k) {
  uint64_t hash = k->hash;
  if (k->aligned) {
    hash = hash_bytes(hash, k->aligned, (size_t)k->n_args);
    hash = hash_bytes(hash, &k->in_place, sizeof k->in_place);
  }
  const void *key = (const void *)(uintptr_t)hash;
  Emitted *e = map_get(&t->kernels, key);
  if (!e) {
    e = emit_kernel(t, k);
    map_put(t->a, &t->kernels, key, e);
  }
  return e;
}

/* ---- records ------------------------------------------------------------ */

void tb_add_record(Table *t, Record *r) {
  LLVMValueRef f[] = {tb_i32(t, r->kind),
                      tb_i32(t, r->args.len),
                      tb_i32(t, r->n_outs),
                      tb_i32(t, r->reverse),
                      tb_i64(t, r->count),
                      tb_text(t, r->name),
                      tb_text(t, r->where),
                      tb_array(t, &r->args),
                      r->kernel ? r->kernel : tb_null(t),
                      r->gemm ? r->gemm : tb_null(t),
                      r->collective ? r->collective : tb_null(t),
                      tb_i64(t, r->flops),
                      tb_i64(t, r->needed),
                      tb_i64(t, r->bytes),
                      tb_i32(t, r->dtype)};
  vec_push(t->a, &t->records, TB_STRUCT(t, MoertRecord, f));
}

int64_t tb_flops(const Node *n) {
  return (int64_t)(2 * ir_usual_macs(n));
}

int64_t tb_bytes(const Node *n) {
  return (int64_t)ir_usual_bytes(n);
}

/* The same without products that a record before has computed. */
static int64_t needed_flops(Table *t, const Node *n) {
  const Node *c = n->op == OP_fused ? ir_product_node(n) : n;
  return c && c->op == OP_contract && cg_again(&t->again, c) ? 0
                                                             : tb_flops(n);
}

Dtype cg_product_dtype(const Node *n) {
  const Node *largest = n;
  if (n->op == OP_fused)
    for (uint32_t i = 0; i < n->body->nodes.len; i++)
      if (ir_macs(n->body->nodes.data[i]) > ir_macs(largest))
        largest = n->body->nodes.data[i];
  return ir_macs(largest) ? largest->ins.data[0]->type.dtype : DT_bool;
}

/* "%h1, %c1: fused rows"; a contraction by the name of its kernel. */
static const char *record_name(Table *t, const Node *n, const char *kernel) {
  Buf b = {0};
  for (uint32_t i = 0; i < n->outs.len; i++) {
    const Value *v = n->outs.data[i];
    if (v->name)
      buf_fmt(&b, "%s%%%s", i ? ", " : "", v->name);
    else
      buf_fmt(&b, "%s%%%u", i ? ", " : "", v->id);
  }
  buf_fmt(&b, ": %s", kernel ? kernel : op_info[n->op].name);
  if (n->op == OP_fused) buf_fmt(&b, " %s", attr_sym(n, "kind"));
  Sym s = sym(t->ir->cx, b.data);
  buf_free(&b);
  return s;
}

Record tb_record_of(Table *t, MoertRecordKind kind, const Node *n) {
  return (Record){.kind = kind,
                  .name = record_name(t, n, NULL),
                  .where = node_loc(t->ir->cx, n)};
}

static LLVMValueRef c_gemm(Table *t, const MoertGemm *g) {
  LLVMValueRef f[] = {tb_i64(t, g->batch),
                      tb_i64(t, g->m),
                      tb_i64(t, g->n),
                      tb_i64(t, g->k),
                      tb_i64s(t, g->a_stride, 3),
                      tb_i64s(t, g->b_stride, 3),
                      tb_i64s(t, g->c_stride, 3),
                      tb_i32(t, g->dtype),
                      tb_i32(t, g->c_dtype),
                      tb_i32(t, g->accumulate),
                      tb_i32(t, g->tf32)};
  return tb_place(t, TB_STRUCT(t, MoertGemm, f));
}

/* The first n_ins operands, then results. */
void tb_add_args(Table *t, Record *r, const Node *n, uint32_t n_ins) {
  for (uint32_t i = 0; i < n_ins; i++)
    vec_push(t->a, &r->args, value_ref(t, n->ins.data[i]));
  for (uint32_t i = 0; i < n->outs.len; i++)
    vec_push(t->a, &r->args, value_ref(t, n->outs.data[i]));
  r->n_outs = n->outs.len;
}

/* A GPU's kernel has 4 KiB of parameters: addresses, the workspace's too. */
static bool takes_args(Table *t, const Node *n, const Kernel *k) {
  enum { MOST = MOERT_PARAM_BYTES / 8 - 1 };
  if (t->code == t->m || k->n_args <= MOST) return true;
  diag_error(t->ir->cx, n->span,
             "a launch with %d operands and results, of which a GPU takes %d; "
             "-O0 makes smaller ones",
             (int)k->n_args, (int)MOST);
  return false;
}

void tb_tell(const Table *t, CgLaunch l, const Record *r) {
  l.entry = t->entry;
  l.times = t->times;
  l.name = r ? r->name : "";
  if (r) {
    l.flops = r->flops;
    l.bytes = r->bytes;
    l.dtype = r->dtype;
  }
  if (t->o->launched && !t->quiet) t->o->launched(t->o->user, &l);
}

static void launch(Table *t, Node *n) {
  MoertGemm g;
  Kernel *k = NULL;
  const Emitted *e = NULL;
  bool swapped = false;
  bool gemm = n->op == OP_contract && cg_gemm(n, &t->t->isa, &g, &swapped);
  Record r = tb_record_of(t, gemm ? MOERT_GEMM : MOERT_LAUNCH, n);
  tb_add_args(t, &r, n, gemm ? 2 : n->ins.len); /* of all rows: no offsets */
  if (swapped) {
    LLVMValueRef left = r.args.data[1];
    r.args.data[1] = r.args.data[0];
    r.args.data[0] = left;
  }
  r.flops = tb_flops(n);
  r.needed = needed_flops(t, n);
  t->flops += r.needed;
  r.bytes = tb_bytes(n);
  r.dtype = cg_product_dtype(n);
  if (gemm) {
    r.gemm = c_gemm(t, &g);
  } else {
    k = cg_lower_once(&t->lowered, n);
    if (!k || !takes_args(t, n, k)) return; /* no table comes of it */
    if (t->code != t->m) tb_note_places(t, n, k);
    k->where = r.where;
    e = kernel_for(t, k);
    r.kernel = e->kernel;
    if (n->op == OP_contract) r.name = record_name(t, n, k->name);
  }
  CgLaunch told = {.node = n, .kernel = k, .symbol = e ? e->symbol : ""};
  tb_tell(t, told, &r);
  tb_add_record(t, &r);
}

bool cg_same_start(const Place *a, const Place *b) {
  return a->slab == b->slab && a->offset == b->offset;
}

bool cg_is_in_place(const Node *n, uint32_t i) {
  for (uint32_t k = 0; k < n->ins.len; k++)
    if (cg_same_start(&n->ins.data[k]->place, &n->outs.data[i]->place))
      return true;
  return false;
}

bool cg_same_place(const Place *a, const Place *b) {
  return cg_same_start(a, b) &&
         !memcmp(a->stride, b->stride, sizeof a->stride);
}

/* Reshaped data stays as it is: a copy where the plan wants it elsewhere. */
static void reshape(Table *t, const Node *n) {
  if (cg_same_place(&n->ins.data[0]->place, &n->outs.data[0]->place)) return;
  Record r = tb_record_of(t, MOERT_COPY, n);
  tb_add_args(t, &r, n, n->ins.len);
  r.bytes = tb_bytes(n);
  tb_add_record(t, &r);
}

/* ---- the rest ------------------------------------------------------------ */

static void region(Table *t, const Region *r);

static bool is_read(const Region *r, const Value *v) {
  for (uint32_t i = 0; i < r->nodes.len; i++)
    for (uint32_t k = 0; k < r->nodes.data[i]->ins.len; k++)
      if (r->nodes.data[i]->ins.data[k] == v) return true;
  return false;
}

static void scan(Table *t, Node *n) {
  const Value *index = n->body->params.data[0];
  Record r = tb_record_of(t, MOERT_LOOP, n);
  r.count = attr_int(n, "length");
  r.reverse = attr_bool(n, "reverse");
  if (attr_bool(n, "counted"))
    vec_push(t->a, &r.args, value_ref(t, n->ins.data[n->ins.len - 1]));
  if (is_read(n->body, index)) {
    vec_push(t->a, &r.args, value_ref(t, index));
    r.n_outs = 1;
  }
  bool quiet = t->quiet;
  t->quiet |= tb_turns(t, n);
  tb_add_record(t, &r);
  int64_t before = t->flops, turns = (int64_t)ir_usual_turns(n);
  int64_t times = t->times;
  t->flops = 0;
  t->times *= turns;
  region(t, n->body);
  t->times = times;
  t->quiet = quiet;
  t->flops = before + t->flops * turns;
  Record end = tb_record_of(t, MOERT_END, n);
  tb_add_record(t, &end);
}

static void region(Table *t, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    Node *n = r->nodes.data[i];
    if (n->op == OP_scan)
      scan(t, n);
    else if (n->op == OP_reshape)
      reshape(t, n);
    else if (op_info[n->op].lower == LOWER_COMM)
      tb_exchange(t, n);
    else if (n->op == OP_wait)
      tb_wait_for(t, ir_waited(n));
    else
      launch(t, n);
  }
}

/* ---- entries and the descriptor ----------------------------------------- */

static LLVMValueRef c_binding(Table *t, const Binding *b, const Value *v) {
  int rank;
  LLVMValueRef dims = c_dims(t, &v->type, &rank);
  LLVMValueRef f[] = {
      tb_i32(t, b->kind),  tb_i32(t, v->type.dtype), tb_i32(t, rank), dims,
      tb_text(t, b->name), tb_text(t, b->source),    value_ref(t, v)};
  return TB_STRUCT(t, MoertBinding, f);
}

static LLVMValueRef c_bindings(Table *t, const BindingVec *b,
                               const ValueVec *v) {
  ConstVec all = {0};
  for (uint32_t i = 0; i < b->len; i++)
    vec_push(t->a, &all, c_binding(t, &b->data[i], v->data[i]));
  return tb_array(t, &all);
}

/* `minimize` gives every entry that trains the report `ok`. */
static bool entry_trains(const Entry *e) {
  for (uint32_t i = 0; i < e->outs.len; i++)
    if (e->outs.data[i].kind == BIND_REPORT &&
        !strcmp(e->outs.data[i].name, "ok"))
      return true;
  return false;
}

static LLVMValueRef c_entry(Table *t, Entry *e) {
  t->records = (ConstVec){0};
  t->started = (Map){0};
  t->flops = 0;
  t->times = 1;
  t->entry = e;
  t->again = (CgAgain){.a = t->a};
  ir_number(e);
  region(t, e->region);
  LLVMValueRef f[] = {tb_text(t, e->name),
                      tb_i32(t, e->ins.len),
                      tb_i32(t, e->outs.len),
                      tb_i32(t, t->records.len),
                      tb_i32(t, entry_trains(e)),
                      c_bindings(t, &e->ins, &e->region->params),
                      c_bindings(t, &e->outs, &e->region->results),
                      tb_array(t, &t->records),
                      tb_i64(t, e->input_bytes),
                      tb_i64(t, e->report_bytes),
                      tb_i64(t, e->arena_bytes),
                      tb_i64(t, t->flops)};
  return TB_STRUCT(t, MoertEntry, f);
}

static LLVMValueRef c_entries(Table *t) {
  ConstVec all = {0};
  for (uint32_t i = 0; i < t->ir->entries.len; i++)
    vec_push(t->a, &all, c_entry(t, t->ir->entries.data[i]));
  return tb_array(t, &all);
}

/* Axes of the mesh that split a dim, from 1, the major one first, then 0. */
static LLVMValueRef c_split(Table *t, const Placement *p) {
  static_assert((int)MAX_AXES == (int)MOERT_MAX_MESH, "meshes");
  LLVMTypeRef i8 = LLVMInt8TypeInContext(t->c);
  LLVMValueRef dims[MAX_RANK], axes[MAX_AXES];
  for (int d = 0; d < MAX_RANK; d++) {
    int n = axes_count(p->dims[d]);
    for (int i = 0; i < MAX_AXES; i++) {
      int axis = i < n ? axes_at(p->dims[d], i) + 1 : 0;
      axes[i] = LLVMConstInt(i8, (uint64_t)axis, false);
    }
    dims[d] = LLVMConstArray2(i8, axes, MAX_AXES);
  }
  return LLVMConstArray2(LLVMTypeOf(dims[0]), dims, MAX_RANK);
}

static LLVMValueRef c_slots(Table *t) {
  ConstVec all = {0};
  for (uint32_t i = 0; i < t->ir->slots.len; i++) {
    const Slot *s = t->ir->slots.data[i];
    int rank;
    LLVMValueRef dims = c_dims(t, &s->type, &rank);
    LLVMValueRef f[] = {tb_text(t, s->path),
                        tb_i32(t, s->kind),
                        tb_i32(t, s->type.dtype),
                        tb_i32(t, rank),
                        dims,
                        c_split(t, &s->placement),
                        tb_i64(t, s->place.offset)};
    vec_push(t->a, &all, TB_STRUCT(t, MoertSlot, f));
  }
  return tb_array(t, &all);
}

static LLVMValueRef c_options(Table *t) {
  ConstVec all = {0};
  LLVMTypeRef real = LLVMDoubleTypeInContext(t->c);
  for (uint32_t i = 0; i < t->ir->options.len; i++) {
    const Option *o = &t->ir->options.data[i];
    LLVMValueRef f[] = {tb_text(t, o->name), LLVMConstReal(real, o->value)};
    vec_push(t->a, &all, TB_STRUCT(t, MoertOption, f));
  }
  return tb_array(t, &all);
}

static LLVMValueRef c_texts(Table *t) {
  ConstVec all = {0};
  for (int i = 0; i < t->p->n_texts; i++) {
    LLVMValueRef f[] = {tb_text(t, t->p->texts[i].name),
                        tb_text(t, t->p->texts[i].text)};
    vec_push(t->a, &all, TB_STRUCT(t, MoertStageText, f));
  }
  return tb_array(t, &all);
}

static LLVMValueRef c_mesh(Table *t) {
  ConstVec all = {0};
  for (uint32_t i = 0; i < t->ir->mesh.len; i++) {
    const MeshAxis *a = &t->ir->mesh.data[i];
    LLVMValueRef f[] = {tb_text(t, a->name), tb_i64(t, a->size)};
    vec_push(t->a, &all, TB_STRUCT(t, MoertAxis, f));
  }
  return tb_array(t, &all);
}

/* What the kernels need of a machine; they are all emitted. */
static LLVMValueRef c_features(Table *t, uint32_t *out_n) {
  ConstVec all = {0};
  for (int i = 0; i < t->t->n_features; i++)
    vec_push(t->a, &all, tb_text(t, t->t->features[i]));
  for (int i = 0; t->code == t->m && i < CG_NEEDS; i++)
    if (t->needs & cg_needs[i].bits)
      vec_push(t->a, &all, tb_text(t, cg_needs[i].feature));
  *out_n = all.len;
  return tb_array(t, &all);
}

/* The text of kernels that are not the host's. That is made of a copy: whoever
 * wants it again should have the module as it was. */
static LLVMValueRef c_ptx(Table *t) {
  if (t->code == t->m) return tb_text(t, "");
  cg_optimise(t->t, t->code);
  cg_lines(t->code, &t->lines);
  LLVMModuleRef copy = LLVMCloneModule(t->code);
  LLVMMemoryBufferRef text = cg_machine_code(t->t, copy, true);
  LLVMDisposeModule(copy);
  LLVMValueRef v =
      LLVMConstStringInContext2(t->c, LLVMGetBufferStart(text),
                                LLVMGetBufferSize(text), false);
  LLVMDisposeMemoryBuffer(text);
  return tb_place(t, v);
}

static LLVMValueRef descriptor(Table *t, LLVMValueRef next) {
  const int64_t *slabs = &t->ir->slab_bytes[SLAB_PARAM];
  LLVMValueRef entries = c_entries(t);
  if (t->ir->cx->errors) return NULL;
  uint32_t n_features;
  LLVMValueRef features = c_features(t, &n_features);
  LLVMValueRef f[] = {tb_i32(t, MOERT_MAGIC),
                      tb_i32(t, MOERT_ABI_VERSION),
                      tb_i32(t, t->t->device),
                      tb_i32(t, t->ir->mesh.len),
                      tb_text(t, "moec " MOEC_VERSION),
                      tb_text(t, t->o->source_hash),
                      tb_text(t, t->o->flags),
                      tb_i32(t, n_features),
                      tb_i32(t, t->ir->slots.len),
                      tb_i32(t, t->ir->options.len),
                      tb_i32(t, t->ir->entries.len),
                      tb_i32(t, t->p->n_texts),
                      features,
                      c_slots(t),
                      c_options(t),
                      entries,
                      c_texts(t),
                      c_mesh(t),
                      tb_i64s(t, slabs, 3),
                      next ? next : tb_null(t),
                      c_ptx(t),
                      tb_text(t, t->code == t->m ? "" : t->t->cpu),
                      tb_null(t),
                      tb_i64(t, 0)};
  return tb_place(t, TB_STRUCT(t, MoertDesc, f));
}

LLVMValueRef cg_table(const CgProgram *p, const Target *target,
                      const CodegenOptions *o, LLVMModuleRef data,
                      LLVMModuleRef code, LLVMValueRef next) {
  Arena a = {0};
  LLVMContextRef c = LLVMGetModuleContext(data);
  Table t = {.ir = p->m,
             .p = p,
             .a = &a,
             .t = target,
             .o = o,
             .m = data,
             .code = code,
             .c = c,
             .lowered = {.cx = p->m->cx, .isa = &target->isa},
             .i32 = LLVMInt32TypeInContext(c),
             .i64 = LLVMInt64TypeInContext(c),
             .ptr = LLVMPointerTypeInContext(c, 0)};
  LLVMValueRef d = descriptor(&t, next);
  arena_reset(&a);
  return d;
}
