/* loops_print.c: kernel loops as text.
 *
 * Values are numbered in the order in which the text first names them, so that
 * kernels which do the same have the same text, and by it the same hash. */
#include "fragment.h"

typedef struct Printer {
  Buf *out;
  uint32_t *names; /* by id; 0: none yet. Results at n_vals + id of their acc */
  uint32_t n_vals, n_names;
  int indent;
  KBlock *keys;       /* where they are collected, not printed; or NULL */
  uint32_t *key_of;   /* by id, from 1 */
  Arena *a;
} Printer;

static uint32_t name_slot(const Printer *p, const KVal *v) {
  if (v->kind != K_RESULT) return v->id;
  return p->n_vals + v->loop->accs.data[v->number]->id;
}

static uint32_t name_of(Printer *p, uint32_t slot) {
  if (!p->names[slot]) p->names[slot] = ++p->n_names;
  return p->names[slot] - 1;
}

static void print_type(Printer *p, const KVal *v) {
  if (v->index) {
    buf_add(p->out, "index");
    return;
  }
  buf_add(p->out, dtype_info[v->dtype].name);
  if (v->lanes > 1) buf_fmt(p->out, "x%d", v->lanes);
}

static void print_use(Printer *p, const KVal *v) {
  if (v->kind == K_INDEX) {
    buf_fmt(p->out, "%lld", (long long)v->number);
  } else if (v->kind == K_CONST) {
    char text[32];
    format_double(v->value, text);
    print_type(p, v);
    buf_fmt(p->out, "(%s)", text);
  } else {
    buf_fmt(p->out, "%%%u", name_of(p, name_slot(p, v)));
  }
}

bool cg_is_key(const KVal *user, int operand) {
  const KVal *v = user->a[operand];
  return user->kind == K_SCALAR && user->op == OP_xor && v->kind == K_CONST &&
         v->dtype == DT_u32;
}

/* The key's number instead of its value. */
static void print_key(Printer *p, KVal *v) {
  if (!p->key_of[v->id]) {
    vec_push(p->a, p->keys, v);
    p->key_of[v->id] = p->keys->len;
  }
  print_type(p, v);
  buf_fmt(p->out, "(key %u)", p->key_of[v->id]);
}

static const char *const base_names[] = {"arg", "scratch", "workspace",
                                         "held"};

static void print_base(Printer *p, const KVal *v) {
  buf_fmt(p->out, "%s%lld[", base_names[v->base.kind],
          (long long)v->base.number);
  print_use(p, v->a[0]);
  if (v->kind == K_STORE && v->a[2]) {
    buf_add(p->out, " to ");
    print_use(p, v->a[2]);
  }
  if (v->kind == K_LOAD && v->a[1]) {
    buf_add(p->out, v->a[1]->index ? " to " : " + ");
    print_use(p, v->a[1]);
  }
  buf_add(p->out, "]");
}

static void print_indent(Printer *p) {
  for (int i = 0; i < p->indent; i++)
    buf_add(p->out, "  ");
}

static void print_block(Printer *p, const KBlock *block);

static void print_for(Printer *p, const KVal *v) {
  buf_fmt(p->out, "for %%%u = ", name_of(p, v->loop->id));
  print_use(p, v->a[0]);
  buf_add(p->out, " to ");
  print_use(p, v->a[1]);
  buf_fmt(p->out, " step %lld", (long long)v->number);
  for (uint32_t i = 0; i < v->accs.len; i++) {
    const KVal *acc = v->accs.data[i];
    buf_fmt(p->out, "%s%%%u = ", i ? ", " : " carry ", name_of(p, acc->id));
    print_use(p, acc->a[0]);
  }
  buf_add(p->out, " {\n");
  print_block(p, &v->body);
  print_indent(p);
  buf_add(p->out, "}");
  for (uint32_t i = 0; i < v->accs.len; i++) {
    buf_add(p->out, i ? ", " : " next ");
    print_use(p, v->updates.data[i]);
    buf_fmt(p->out, " -> %%%u", name_of(p, p->n_vals + v->accs.data[i]->id));
  }
  buf_add(p->out, "\n");
}

static const char *statement_word(const KVal *v) {
  static const char *const alus[] = {"add", "sub", "mul", "div", "rem",
                                     "min", "max", "lt",  "le",  "eq"};
  switch (v->kind) {
  case K_ALU: return alus[v->alu];
  case K_SCALAR: return op_info[v->op].name;
  case K_SPLAT: return "splat";
  case K_LANES: return "lanes";
  case K_LOAD: return "load";
  case K_STORE: return "store";
  case K_FETCH: return "fetch";
  case K_FOLD: return "fold";
  case K_ZIP: return v->value != 0 ? "zip upper" : "zip lower";
  case K_DOT: return "dot";
  case K_NARROW: return "narrow";
  case K_TAKE: {
    static const char *const ways[] = {"left", "right", "turned", "row",
                                       "column"};
    return ways[v->number];
  }
  case K_MMA: return "mma";
  case K_PLACES: return v->number == KF_ROW ? "row places" : "column places";
  case K_AHEAD: return v->number == KF_ROW ? "row ahead" : "column ahead";
  case K_PAIRS: return "pairs";
  case K_JOIN: return "join";
  case K_ROW_FOLD: return "rows";
  case K_BY_ROW: return "by row";
  case K_PAUSE: return "pause";
  case K_PUT: return "put";
  case K_TILE_ZERO: return "zero";
  case K_TILE_LOAD: return "load";
  case K_TILE_STORE: return "store";
  case K_TILE_TAKE: return v->value != 0 ? "right" : "left";
  case K_TILE_PICK: return v->value == 1 || v->value == 3 ? "right" : "left";
  case K_TILE_DOT: return "dot";
  case K_WARP: return "warp";
  case K_MEET: return "meet";
  case K_PANEL: return "panel";
  case K_PANEL_ROWS: return "panel rows";
  case K_BATCH: return "batch";
  case K_GROUP_DOT: return "dot";
  case K_GROUP_WAIT: return "wait";
  case K_GATES: return "gates";
  case K_BOX: return "box";
  case K_GATE_WAIT: return "gate";
  case K_FROM_I32: return "index";
  case K_TO_I32: return "i32";
  case K_FOR: return "for";
  case K_IF: return "if";
  case K_INDEX:
  case K_IV:
  case K_CONST:
  case K_ACC:
  case K_RESULT: break;
  }
  internal_error("kind %d is not a statement", (int)v->kind);
}

/* The rows in memory of a fragment. */
static void print_rows(Printer *p, const KVal *v, int first) {
  static const char *const what[] = {" last ", " run ", " step "};
  buf_fmt(p->out, " %s%lld[", base_names[v->base.kind],
          (long long)v->base.number);
  print_use(p, v->a[0]);
  buf_add(p->out, "]");
  for (int i = 0; i < 3; i++) {
    buf_add(p->out, first == 2 && !i ? " rows " : what[i]);
    print_use(p, v->a[first + i]);
  }
}

static void print_put(Printer *p, const KVal *v) {
  buf_add(p->out, statement_word(v));
  print_rows(p, v, 2);
  buf_add(p->out, ", ");
  print_use(p, v->a[1]);
  buf_add(p->out, "\n");
}

static void print_panel_rows(Printer *p, const KVal *v) {
  buf_fmt(p->out, " of %lld rows ", (long long)v->number);
  print_use(p, v->a[1]);
  buf_add(p->out, " by ");
  print_use(p, v->a[2]);
}

static void print_value(Printer *p, const KVal *v) {
  buf_fmt(p->out, "%%%u = %s", name_of(p, v->id), statement_word(v));
  if (v->kind == K_FOLD || v->kind == K_ROW_FOLD)
    buf_fmt(p->out, " %s", op_info[v->op].name);
  if (v->kind == K_ZIP) buf_fmt(p->out, " %lld", (long long)v->number);
  bool loads = v->kind == K_LOAD || v->kind == K_PANEL_ROWS;
  if (loads) {
    buf_add(p->out, " ");
    print_base(p, v);
  }
  if (v->kind == K_PANEL_ROWS) print_panel_rows(p, v);
  if (v->kind == K_TAKE) print_rows(p, v, 1);
  loads |= v->kind == K_TAKE;
  for (int i = 0; !loads && i < (int)COUNT_OF(v->a) && v->a[i]; i++) {
    buf_add(p->out, i ? ", " : " ");
    if (p->keys && cg_is_key(v, i))
      print_key(p, v->a[i]);
    else
      print_use(p, v->a[i]);
  }
  buf_add(p->out, " : ");
  print_type(p, v);
  buf_add(p->out, "\n");
}

static void print_tile(Printer *p, const KVal *v) {
  buf_fmt(p->out, "tile%lld %s", (long long)v->number, statement_word(v));
  if (v->kind == K_TILE_LOAD || v->kind == K_TILE_STORE) {
    buf_add(p->out, " ");
    print_base(p, v);
    buf_fmt(p->out, " step %lld : %s", (long long)v->a[1]->number,
            dtype_info[v->base.dtype].name);
  } else if (v->kind == K_TILE_TAKE) {
    static const char *const what[] = {" ", " last ", " depth ", " step ",
                                       " along "};
    buf_add(p->out, " ");
    print_base(p, v);
    for (int i = 1; i < 5; i++) {
      buf_add(p->out, what[i]);
      print_use(p, v->a[i]);
    }
    buf_fmt(p->out, " : %s", dtype_info[v->base.dtype].name);
  } else if (v->kind == K_TILE_PICK) {
    buf_fmt(p->out, " of panel %d%s ", v->lanes, v->value >= 2 ? " down" : "");
    print_base(p, v);
    buf_add(p->out, " row ");
    print_use(p, v->a[1]);
    if (v->a[2]) {
      buf_add(p->out, " depth ");
      print_use(p, v->a[2]);
    }
    bool tf32 = v->dtype == DT_f32 && !v->a[2];
    buf_fmt(p->out, " : %s", tf32 ? "tf32" : dtype_info[v->dtype].name);
  } else if (v->kind == K_TILE_DOT) {
    buf_fmt(p->out, " tile%lld, tile%lld", (long long)v->a[0]->number,
            (long long)v->a[1]->number);
    if (v->dtype == DT_f32)
      buf_add(p->out, v->value != 0 ? " : tf32" : " : f32");
  }
  buf_add(p->out, "\n");
}

static bool is_tile(const KVal *v) {
  return v->kind == K_TILE_ZERO || v->kind == K_TILE_LOAD ||
         v->kind == K_TILE_STORE || v->kind == K_TILE_TAKE ||
         v->kind == K_TILE_PICK || v->kind == K_TILE_DOT;
}

static void print_panel(Printer *p, const KVal *v) {
  static const char *const what[] = {NULL, " rows ", " run ", " step ",
                                     " to scratch ", " of rows "};
  buf_fmt(p->out, "panel %lldx%d ", (long long)v->number, v->lanes);
  print_base(p, v);
  for (size_t i = 1; i < COUNT_OF(what) && v->a[i]; i++) {
    buf_add(p->out, what[i]);
    print_use(p, v->a[i]);
  }
  buf_fmt(p->out, " : %s\n", dtype_info[v->dtype].name);
}

static void print_group(Printer *p, const KVal *v) {
  static const char *const down[] = {"", " down"};
  buf_fmt(p->out, "group 64x%d %s", v->lanes, statement_word(v));
  if (v->kind == K_GROUP_WAIT) buf_fmt(p->out, " %lld", (long long)v->number);
  for (int i = 0; i < 2 && v->a[i]; i++) {
    buf_add(p->out, i ? ", " : " ");
    print_use(p, v->a[i]);
    buf_add(p->out, down[(int)v->value >> i & 1]);
  }
  buf_add(p->out, "\n");
}

static void print_gate(Printer *p, const KVal *v) {
  buf_fmt(p->out, "%s%s %lld of scratch%lld", v->value != 0 ? "end " : "",
          statement_word(v), (long long)v->number, (long long)v->base.number);
  for (int i = 0; i < 5 && v->a[i]; i++) {
    buf_add(p->out, i ? ", " : " ");
    print_use(p, v->a[i]);
  }
  buf_add(p->out, "\n");
}

static void print_statement(Printer *p, const KVal *v) {
  print_indent(p);
  if (v->kind == K_FOR) {
    print_for(p, v);
  } else if (v->kind == K_IF) {
    buf_add(p->out, "if ");
    print_use(p, v->a[0]);
    buf_add(p->out, " {\n");
    print_block(p, &v->body);
    print_indent(p);
    buf_add(p->out, "}\n");
  } else if (is_tile(v)) {
    print_tile(p, v);
  } else if (v->kind == K_PANEL) {
    print_panel(p, v);
  } else if (v->kind == K_MEET) {
    buf_fmt(p->out, "meet %lld%s\n", (long long)v->number,
            v->value != 0 ? " for groups" : "");
  } else if (v->kind == K_BATCH) {
    buf_add(p->out, "batch\n");
  } else if (v->kind == K_GATES || v->kind == K_BOX || v->kind == K_GATE_WAIT) {
    print_gate(p, v);
  } else if (v->kind == K_GROUP_DOT || v->kind == K_GROUP_WAIT) {
    print_group(p, v);
  } else if (v->kind == K_PUT) {
    print_put(p, v);
  } else if (v->kind == K_PAUSE) {
    buf_fmt(p->out, "%s\n", statement_word(v));
  } else if (v->kind == K_FETCH) {
    buf_add(p->out, v->value != 0 ? "fetch far " : "fetch ");
    print_base(p, v);
    buf_add(p->out, "\n");
  } else if (v->kind == K_STORE) {
    buf_add(p->out, v->value != 0 ? "stream " : "store ");
    print_base(p, v);
    buf_add(p->out, ", ");
    print_use(p, v->a[1]);
    buf_add(p->out, " : ");
    print_type(p, v);
    buf_add(p->out, "\n");
  } else {
    print_value(p, v);
  }
}

static void print_block(Printer *p, const KBlock *block) {
  p->indent++;
  for (uint32_t i = 0; i < block->len; i++)
    print_statement(p, block->data[i]);
  p->indent--;
}

static void print_maps(Printer *p, const KStage *s) {
  for (uint32_t i = 0; i < s->maps.len; i++) {
    const KMap *m = &s->maps.data[i];
    buf_fmt(p->out, " map arg%d[%lld][%lld][%lld] steps %lld, %lld box %dx%d",
            m->arg, (long long)m->size[2], (long long)m->size[1],
            (long long)m->size[0], (long long)m->step[1],
            (long long)m->step[0], m->box[1], m->box[0]);
  }
}

static void print_stage(Printer *p, const KStage *s) {
  buf_fmt(p->out, "stage %%%u in %lld grain %lld scratch %lld%s",
          name_of(p, s->iv->id), (long long)s->count, (long long)s->grain,
          (long long)s->scratch_bytes, s->uneven ? " uneven" : "");
  if (s->team) buf_fmt(p->out, " team %d", s->team);
  if (s->once) buf_add(p->out, " once");
  print_maps(p, s);
  buf_add(p->out, " {\n");
  print_block(p, &s->body);
  buf_add(p->out, "}\n");
}

/* Collects the keys where `keys` is not NULL, from `key_arena`. */
static void print_body(const Kernel *k, Buf *out, KBlock *keys,
                       Arena *key_arena) {
  Arena a = {0};
  Printer p = {.out = out, .n_vals = k->n_vals, .keys = keys, .a = key_arena};
  p.names = NEW_ARRAY(&a, uint32_t, 2 * (size_t)k->n_vals + 1);
  p.key_of = NEW_ARRAY(&a, uint32_t, k->n_vals);
  buf_fmt(out, "args %d outs %d workspace %lld\n", k->n_args, k->n_outs,
          (long long)k->workspace_bytes);
  for (uint32_t i = 0; i < k->stages.len; i++)
    print_stage(&p, &k->stages.data[i]);
  arena_reset(&a);
}

void cg_print_kernel(const Kernel *k, Buf *out) {
  buf_fmt(out, "kernel %s ", k->name);
  print_body(k, out, NULL, NULL);
}

void cg_hash_kernel(Arena *a, Kernel *k) {
  Buf text = {0};
  print_body(k, &text, &k->keys, a);
  k->code = hash_bytes(0, text.data, text.len);
  k->hash = k->code;
  for (uint32_t i = 0; i < k->keys.len; i++)
    k->hash = hash_bytes(k->hash, &k->keys.data[i]->value,
                         sizeof k->keys.data[i]->value);
  buf_free(&text);
}
