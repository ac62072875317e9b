/* shard_explain.c: the words of --explain=shard: why a value lives where it
 * does, and why it has to move. shard_table.c lays them out. */
#include "pass.h"

#include <string.h>

enum { REPORT_WIDTH = 100 };

/* ---- names --------------------------------------------------------------- */

/* "mul at m.dsl:3:7" */
static void node_text(const Shard *s, const Node *n, const char *what,
                      Buf *out) {
  Sym loc = node_loc(s->cx, n);
  buf_fmt(out, "%s%s%s%s", what, n->backward ? " (gradient)" : "",
          *loc ? " at " : "", loc);
}

/* "%h", or what makes it. */
void shard_value_text(const Shard *s, const Value *v, Buf *out) {
  if (v->name)
    buf_fmt(out, "%%%s", v->name);
  else if (v->def)
    node_text(s, v->def, op_info[v->def->op].name, out);
  else
    buf_add(out, "a parameter");
}

static void unit_text(const Shard *s, const ShardUnit *u, Buf *out) {
  if (u->slot)
    buf_add(out, u->slot->path);
  else if (u->n && u->n->op == OP_scan)
    node_text(s, u->n, sym_fmt(s->cx, "%s of scan", u->what), out);
  else if (u->n)
    node_text(s, u->n, u->what, out);
  else
    buf_add(out, u->what);
}

/* ---- one axis of one factor ---------------------------------------------- */

static const char *const level_words[LEVEL_COUNT + 1] = {
    [LEVEL_SAID] = "said",
    [LEVEL_SAME] = "alike",
    [LEVEL_BATCH] = "batch letter",
    [LEVEL_KEPT] = "kept letter",
    [LEVEL_SUM] = "summed letter",
    [LEVEL_LAST] = "what is left",
    [LEVEL_COST] = "cheapest letter"};

static void beaten_text(const ShardUnit *u, const ShardWhy *w, Buf *out) {
  char bytes[16], other[16];
  if (!w->n_beaten) return;
  bytes_text(w->bytes, bytes);
  buf_fmt(out, " (%s", bytes);
  for (int i = 0; i < w->n_beaten; i++) {
    bytes_text(w->beaten[i].bytes, other);
    buf_fmt(out, "%s letter %c: %s", i ? "," : "; beat",
            u->factors[w->beaten[i].factor].letter, other);
  }
  buf_add(out, ")");
}

/* "kept letter b, from %e, said at m.dsl:3:7". */
static void why_text(const Shard *s, const ShardUnit *u, const ShardFactor *f,
                     const ShardWhy *w, Buf *out) {
  Sym origin = span_text(s->cx, w->origin);
  if (w->level == LEVEL_SAID) {
    buf_fmt(out, "said at %s", origin);
    return;
  }
  buf_add(out, level_words[w->level]);
  if (w->level > LEVEL_SAME) buf_fmt(out, " %c", f->letter);
  if (w->level == LEVEL_COST) {
    ; /* no neighbour had it there */
  } else if (w->backward) {
    buf_add(out, ", for ");
    unit_text(s, w->unit, out);
  } else {
    buf_add(out, ", from ");
    shard_value_text(s, w->from, out);
  }
  beaten_text(u, w, out);
  if (!*origin) return;
  const char *line = memrchr(out->data, '\n', out->len);
  size_t used = line ? (size_t)(out->data + out->len - line) : out->len;
  bool fits = used + strlen(", said at ") + strlen(origin) <= REPORT_WIDTH;
  buf_fmt(out, "%ssaid at %s", fits ? ", " : ",\n        ", origin);
}

/* One line for each axis that a result of a unit has. */
void shard_why_text(const Shard *s, const Value *v, const char *indent,
                    Buf *out) {
  ShardReader by = shard_value(s, v)->by;
  const ShardEnd *e = &by.unit->outs.data[by.end];
  Placement p = shard_made(by.unit, by.end);
  for (int axis = 0; axis < (int)s->m->mesh.len; axis++) {
    int d = placement_of_axis(&p, axis);
    if (d == PLACED_NOWHERE) continue;
    buf_fmt(out, "%s@%s ", indent, s->m->mesh.data[axis].name);
    if (d == PLACED_PARTIAL)
      buf_fmt(out, "%s: ", partial_names[p.kind]);
    else
      buf_fmt(out, "dim %d: ", d);
    bool found = false;
    for (int f = 0; f < by.unit->n_factors; f++) {
      const ShardFactor *x = &by.unit->factors[f];
      bool here = d == PLACED_PARTIAL ? x->kind != FACTOR_KEPT
                                      : e->factor[d] == f;
      for (int k = 0; here && k < axes_count(x->axes); k++)
        if (axes_at(x->axes, k) == axis) {
          why_text(s, by.unit, x, &x->why[k], out);
          found = true;
        }
    }
    if (!found) buf_add(out, "all operands are such parts; one sum will do");
    buf_add(out, "\n");
  }
}

/* ---- moves --------------------------------------------------------------- */

/* Why a reader wants what it wants: the first axis that is there and was not,
 * or was and is not. */
static void wants_text(const Shard *s, const ShardMove *m, Buf *out) {
  const ShardUnit *u = m->reader;
  buf_add(out, "for ");
  unit_text(s, u, out);
  if (m->n_readers > 1) buf_fmt(out, " and %d more", m->n_readers - 1);
  const MoveStep *last = &m->move.steps[m->move.n - 1];
  for (int f = 0; f < u->n_factors; f++)
    for (int k = 0; k < axes_count(u->factors[f].axes); k++) {
      if (axes_at(u->factors[f].axes, k) != last->axis) continue;
      const ShardWhy *w = &u->factors[f].why[k];
      buf_fmt(out, ", which has @%s on %s %c: ",
              s->m->mesh.data[last->axis].name,
              u->n ? "letter" : "dim", u->factors[f].letter);
      if (w->level == LEVEL_SAID)
        buf_fmt(out, "said at %s", span_text(s->cx, w->origin));
      else
        buf_fmt(out, "%s", level_words[w->level]);
      return;
    }
  if (last->from == PLACED_PARTIAL)
    buf_add(out, ", which needs the finished sum");
  else if (!last->to)
    return;
  else if (last->kind == MOVE_ALL_GATHER)
    buf_fmt(out, ", which has nothing split over @%s here",
            s->m->mesh.data[last->axis].name);
}

/* Other ways to the same placement, or to one that would do with less. */
static void other_ways(const Shard *s, const ShardMove *m, Buf *out) {
  char bytes[16];
  const MoveStep *first = &m->move.steps[0];
  Move whole = reshard_through_whole(s->m, &m->from->type, &m->from->placement,
                                     &m->to->placement);
  bool moves = false;
  for (int k = 0; k < m->move.n; k++)
    moves |= m->move.steps[k].kind == MOVE_ALL_TO_ALL ||
             m->move.steps[k].kind == MOVE_REDUCE_SCATTER;
  if (moves && whole.bytes > m->move.bytes) {
    bytes_text(whole.bytes * m->times, bytes);
    buf_fmt(out, "by way of the whole value: %s", bytes);
  }
  if (first->kind != MOVE_ALL_REDUCE) return;
  int64_t n = axes_parts(s->m, first->axes);
  for (int d = 0; d < m->from->type.rank; d++) {
    Axes have = m->to->placement.dims[d];
    if (have || m->from->type.dims[d].size % n) continue;
    bytes_text(first->bytes / 2 * m->times, bytes);
    buf_fmt(out, "%sreduce_scatter for a reader split over",
            out->len ? "; " : "");
    axes_text(s->m, first->axes, out);
    buf_fmt(out, " on dim %d: %s", d, bytes);
    return;
  }
}

void shard_move_text(const Shard *s, const ShardMove *m, const char *indent,
                     Buf *out) {
  Buf ways = {0};
  buf_add(out, indent);
  wants_text(s, m, out);
  buf_add(out, "\n");
  other_ways(s, m, &ways);
  if (ways.len) buf_fmt(out, "%sother ways: %s\n", indent, ways.data);
  buf_free(&ways);
}
