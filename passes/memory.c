/* memory.c: the memory report of a planned module.
 *
 * It reads places alone, so it also serves a module that came from a file: what
 * is alive when follows from the text's order, and values that share bytes are
 * counted once. */
#include "pass.h"

#include <stdlib.h>

enum { BIGGEST = 10, ALIVE = 20 };

/* Bytes of the arena that some value holds from `start` to `end`. */
typedef struct Piece {
  int64_t offset, bytes;
  int start, end;
  const Value *value;
} Piece;
typedef VEC(Piece) PieceVec;

typedef struct Report {
  Ctx *cx;
  Buf *out;
  Life life;
  PieceVec pieces;
} Report;

static void add_piece(Report *r, const Value *v, int start) {
  if (v->place.slab != SLAB_ARENA) return;
  for (int i = 0; i < MAX_LOOPS; i++)
    if (v->place.stride[i]) return; /* a row of something that is counted */
  Piece p = {v->place.offset, type_bytes(&v->type), start,
             life_last(&r->life, v), v};
  vec_push(&r->cx->scratch, &r->pieces, p);
}

static void collect(Report *r, const Region *region) {
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = region->nodes.data[i];
    for (uint32_t j = 0; j < n->outs.len; j++)
      add_piece(r, n->outs.data[j], life_start(&r->life, n));
    if (n->op == OP_scan) collect(r, n->body);
  }
}

static int by_place(const void *x, const void *y) {
  const Piece *a = x, *b = y;
  if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
  return a->start - b->start;
}

static int by_bytes(const void *x, const void *y) {
  const Piece *a = x, *b = y;
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
  return by_place(x, y);
}

/* Pieces alive at a position, those within others left out. */
static PieceVec alive_at(Report *r, int position) {
  PieceVec v = {0};
  for (uint32_t i = 0; i < r->pieces.len; i++) {
    const Piece *p = &r->pieces.data[i];
    if (p->start <= position && position <= p->end)
      vec_push(&r->cx->scratch, &v, *p);
  }
  if (v.len) qsort(v.data, v.len, sizeof *v.data, by_place);
  uint32_t n = 0;
  int64_t end = 0;
  for (uint32_t i = 0; i < v.len; i++) {
    Piece p = v.data[i];
    if (p.offset + p.bytes <= end) continue;
    end = p.offset + p.bytes;
    v.data[n++] = p;
  }
  v.len = n;
  return v;
}

static int64_t sum_of(const PieceVec *v) {
  int64_t sum = 0;
  for (uint32_t i = 0; i < v->len; i++)
    sum += v->data[i].bytes;
  return sum;
}

/* The pieces of the entry, in r->pieces; returns those that are alive when most
 * is, in order of their offsets. */
static PieceVec find_peak(Report *r, Entry *e, int64_t *peak) {
  ir_number(e);
  life_of(e, &r->cx->scratch, &r->life);
  r->pieces = (PieceVec){0};
  collect(r, e->region);
  int peak_at = 0;
  *peak = -1;
  for (int t = 0; t <= r->life.end; t++) {
    PieceVec alive = alive_at(r, t);
    int64_t sum = sum_of(&alive);
    if (sum > *peak) {
      *peak = sum;
      peak_at = t;
    }
  }
  return alive_at(r, peak_at);
}

ConstValueVec memory_peak(Ctx *cx, Entry *e) {
  Report r = {.cx = cx};
  ConstValueVec out = {0};
  int64_t peak;
  PieceVec alive = find_peak(&r, e, &peak);
  for (uint32_t i = 0; i < alive.len; i++)
    vec_push(&cx->scratch, &out, alive.data[i].value);
  return out;
}

/* A line, unless there is nothing to tell. */
static void print_bytes(Buf *out, const char *what, int64_t bytes) {
  char text[16];
  if (!bytes) return;
  bytes_text(bytes, text);
  buf_fmt(out, "  %-34s %14lld  %11s\n", what, (long long)bytes, text);
}

static void print_value(Report *r, const Value *v, const char *more) {
  Sym type = type_text(r->cx, &v->type);
  Sym name =
      v->name ? sym_fmt(r->cx, "%%%s", v->name) : sym_fmt(r->cx, "%%%u", v->id);
  Sym at = node_loc(r->cx, v->def);
  buf_fmt(r->out, "    %14lld  %-24s %-26s %s%s%s%s\n",
          (long long)type_bytes(&v->type), name, type, op_info[v->def->op].name,
          at[0] ? " " : "", at, more);
}

static void print_pieces(Report *r, const PieceVec *v, uint32_t most) {
  for (uint32_t i = 0; i < v->len && i < most; i++)
    print_value(r, v->data[i].value, "");
  if (v->len > most) buf_fmt(r->out, "    and %u more\n", v->len - most);
}

/* ---- products that no memory holds --------------------------------------- */

/* The contraction that a launch computes and does not store, or NULL. */
static const Node *unstored_product(const Node *launch) {
  for (uint32_t i = 0; launch->op == OP_fused && i < launch->body->nodes.len;
       i++) {
    const Node *n = launch->body->nodes.data[i];
    bool stored = n->op != OP_contract;
    for (uint32_t j = 0; j < launch->body->results.len && !stored; j++)
      stored = launch->body->results.data[j] == n->outs.data[0];
    if (!stored) return n;
  }
  return NULL;
}

/* Whether operands of products are the same, or cast or gathered from them. */
static bool same_operand(Value *x, Value *y) {
  const Node *n = x->def, *m = y->def;
  x = ir_outermost(x);
  y = ir_outermost(y);
  if (x == y) return true;
  if (!n || !m || n->op != m->op || n->ins.len != m->ins.len ||
      !type_equal(&n->outs.data[0]->type, &m->outs.data[0]->type))
    return false;
  for (uint32_t i = 0; i < n->ins.len; i++)
    if (ir_outermost(n->ins.data[i]) != ir_outermost(m->ins.data[i]))
      return false;
  return true;
}

static bool same_product(const Node *x, const Node *y) {
  for (uint32_t i = 0; i < 2; i++)
    if (!same_operand(x->ins.data[i], y->ins.data[i])) return false;
  return attr_sym(x, "map") == attr_sym(y, "map");
}

/* Each once, with how often it is computed. */
static void print_unstored(Report *r, const Region *region) {
  NodeVec all = {0};
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = unstored_product(region->nodes.data[i]);
    if (n) vec_push(&r->cx->scratch, &all, (Node *)n);
  }
  if (all.len) buf_add(r->out, "  products computed where they are read\n");
  for (uint32_t i = 0; i < all.len; i++) {
    int times = 1;
    bool seen = false;
    for (uint32_t j = 0; j < i && !seen; j++)
      seen = same_product(all.data[i], all.data[j]);
    for (uint32_t j = i + 1; j < all.len; j++)
      times += same_product(all.data[i], all.data[j]);
    if (!seen)
      print_value(r, all.data[i]->outs.data[0],
                  times > 1 ? sym_fmt(r->cx, ", %d times", times) : "");
  }
}

/* ---- rows in rounds ------------------------------------------------------ */

/* Rows that go to experts, of which not all that can be have room at once. */
static void print_rounds(Report *r, const Region *region, bool *any) {
  for (uint32_t i = 0; i < region->nodes.len; i++) {
    const Node *n = region->nodes.data[i];
    if (n->op == OP_scan && !attr_bool(n, "counted"))
      print_rounds(r, n->body, any);
    if (n->op != OP_rows_send || n->ins.len <= ROWS_SOME) continue;
    if (!*any) buf_add(r->out, "  rows that go to experts in rounds\n");
    *any = true;
    int64_t all = n->ins.data[ROWS_X]->type.dims[1].size *
                  n->ins.data[ROWS_GOT]->type.dims[0].size;
    print_value(r, n->outs.data[0],
                sym_fmt(r->cx, ", room for %lld of %lld rows",
                        (long long)attr_int(n, "rows"), (long long)all));
  }
}

static void report_entry(Report *r, Entry *e) {
  int64_t peak;
  PieceVec alive = find_peak(r, e, &peak);
  if (!r->pieces.len) return; /* init and reset, as a rule */
  PieceVec all = r->pieces;
  if (alive.len) qsort(alive.data, alive.len, sizeof *alive.data, by_bytes);
  qsort(all.data, all.len, sizeof *all.data, by_bytes);
  buf_fmt(r->out, "\nentry %s\n", e->name);
  print_bytes(r->out, "inputs", e->input_bytes);
  print_bytes(r->out, "reports", e->report_bytes);
  print_bytes(r->out, "arena", e->arena_bytes);
  print_bytes(r->out, "most alive at once", peak);
  buf_add(r->out, "  biggest buffers\n");
  all.len = all.len < BIGGEST ? all.len : BIGGEST;
  print_pieces(r, &all, BIGGEST);
  buf_add(r->out, "  alive at the peak\n");
  print_pieces(r, &alive, ALIVE);
  print_unstored(r, e->region);
  bool any = false;
  print_rounds(r, e->region, &any);
}

void memory_report(Module *m, Buf *out) {
  Report r = {.cx = m->cx, .out = out};
  int64_t arena = 0, ends = 0, all = 0;
  for (uint32_t i = 0; i < m->entries.len; i++) {
    const Entry *e = m->entries.data[i];
    if (e->arena_bytes > arena) arena = e->arena_bytes;
    ends += e->input_bytes + e->report_bytes;
  }
  for (int s = SLAB_PARAM; s <= SLAB_STATE; s++)
    all += m->slab_bytes[s];
  buf_add(out, "memory in bytes; threads add scratch of their own\n");
  print_bytes(out, "parameters", m->slab_bytes[SLAB_PARAM]);
  print_bytes(out, "optimiser state", m->slab_bytes[SLAB_OPTIM]);
  print_bytes(out, "recurrent state", m->slab_bytes[SLAB_STATE]);
  print_bytes(out, "inputs and reports", ends);
  print_bytes(out, "arena, of the largest entry", arena);
  print_bytes(out, "peak, all of these", all + ends + arena);
  for (uint32_t i = 0; i < m->entries.len; i++)
    report_entry(&r, m->entries.data[i]);
}

void memory_saved(const Module *m, Module *kept, Buf *out) {
  bool any = false;
  buf_add(out, "\nmarked by `recompute`, so not kept for the backward pass\n");
  for (uint32_t i = 0; i < m->entries.len; i++) {
    const Entry *e = m->entries.data[i], *all = ir_entry(kept, e->name);
    int64_t saved = all->arena_bytes - e->arena_bytes;
    if (!saved) continue;
    any = true;
    print_bytes(out, sym_fmt(m->cx, "arena of %s, if all is kept", e->name),
                all->arena_bytes);
    print_bytes(out, saved > 0 ? "saved" : "more than that", llabs(saved));
  }
  if (!any) buf_add(out, "  saved: nothing, most is alive elsewhere\n");
}
