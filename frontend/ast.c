/* ast.c: makers and printer of the syntax tree.
 *
 * Every node knows the depth of the tree below it, so that a tree too deep to
 * walk is refused here, once, and nobody who walks it has to count. */
#include "ast.h"

const char *const binary_text[BIN_COUNT] = {
#define BINARY(name, text, prec) text,
    BINARY_OPS(BINARY)
#undef BINARY
};

/* ---- makers -------------------------------------------------------------- */

static uint32_t deeper(uint32_t a, uint32_t b) {
  return a > b ? a : b;
}

static uint32_t expr_depth(const Expr *e) {
  return e ? e->depth : 0;
}

static uint32_t body_depth(const StmtVec *body) {
  uint32_t depth = 0;
  for (uint32_t i = 0; i < body->len; i++)
    depth = deeper(depth, body->data[i]->depth);
  return depth;
}

static uint32_t named_depth(const NamedVec *named) {
  uint32_t depth = 0;
  for (uint32_t i = 0; i < named->len; i++)
    depth = deeper(depth, expr_depth(named->data[i].value));
  return depth;
}

static uint32_t subs_depth(const SubVec *subs) {
  uint32_t depth = 0;
  for (uint32_t i = 0; i < subs->len; i++)
    depth = deeper(depth, deeper(expr_depth(subs->data[i].lo),
                                 expr_depth(subs->data[i].hi)));
  return depth;
}

static uint32_t type_depth(const TypeExpr *t) {
  if (!t) return 0;
  uint32_t depth = expr_depth(t->like);
  for (uint32_t i = 0; i < t->dims.len; i++)
    depth = deeper(depth, expr_depth(t->dims.data[i].size));
  return depth;
}

/* Says once a file that a tree is too deep; true where it is. */
static bool too_deep(Parser *ps, Span s, uint32_t depth) {
  if (depth <= MAX_DEPTH) return false;
  if (!ps->too_deep)
    diag_error(ps->cx, s, "this is nested more than %d deep", MAX_DEPTH);
  ps->too_deep = true;
  return true;
}

/* A node over children of at most `below`. */
static Expr *expr_new(Parser *ps, Span s, ExprKind kind, uint32_t below) {
  Expr *e = NEW(&ps->cx->perm, Expr);
  bool bad = too_deep(ps, s, below + 1);
  e->kind = bad ? EX_ERROR : kind;
  e->span = s;
  e->depth = bad ? 1 : below + 1;
  return e;
}

Expr *ast_error(Parser *ps, Span s) {
  return expr_new(ps, s, EX_ERROR, 0);
}

Expr *ast_int(Parser *ps, Span s, int64_t i) {
  Expr *e = expr_new(ps, s, EX_INT, 0);
  e->i = i;
  return e;
}

Expr *ast_float(Parser *ps, Span s, double f) {
  Expr *e = expr_new(ps, s, EX_FLOAT, 0);
  e->f = f;
  return e;
}

Expr *ast_bool(Parser *ps, Span s, bool b) {
  Expr *e = expr_new(ps, s, EX_BOOL, 0);
  e->b = b;
  return e;
}

Expr *ast_string(Parser *ps, Span s, Sym text) {
  Expr *e = expr_new(ps, s, EX_STRING, 0);
  e->s = text;
  return e;
}

Expr *ast_name(Parser *ps, Span s, Sym text) {
  Expr *e = expr_new(ps, s, EX_NAME, 0);
  e->s = text;
  return e;
}

Expr *ast_unary(Parser *ps, Span s, UnaryOp op, Expr *a) {
  Expr *e = expr_new(ps, s, EX_UNARY, a->depth);
  e->unary.op = op;
  e->unary.a = a;
  return e;
}

Expr *ast_binary(Parser *ps, Span s, BinaryOp op, Expr *a, Expr *b) {
  Expr *e = expr_new(ps, s, EX_BINARY, deeper(a->depth, b->depth));
  e->binary.op = op;
  e->binary.a = a;
  e->binary.b = b;
  return e;
}

Expr *ast_cond(Parser *ps, Span s, Expr *yes, Expr *cond, Expr *no) {
  uint32_t below = deeper(cond->depth, deeper(yes->depth, no->depth));
  Expr *e = expr_new(ps, s, EX_COND, below);
  e->cond.cond = cond;
  e->cond.yes = yes;
  e->cond.no = no;
  return e;
}

Expr *ast_call(Parser *ps, Span s, Expr *callee, const ArgVec *args) {
  uint32_t below = callee->depth;
  for (uint32_t i = 0; args && i < args->len; i++)
    below = deeper(below, args->data[i].value->depth);
  Expr *e = expr_new(ps, s, EX_CALL, below);
  e->call.callee = callee;
  if (args) e->call.args = *args;
  return e;
}

Expr *ast_index(Parser *ps, Span s, Expr *base, const SubVec *subs) {
  uint32_t below = deeper(base->depth, subs ? subs_depth(subs) : 0);
  Expr *e = expr_new(ps, s, EX_INDEX, below);
  e->index.base = base;
  if (subs) e->index.subs = *subs;
  return e;
}

Expr *ast_as(Parser *ps, Span s, Expr *call, Name name) {
  Expr *e = expr_new(ps, s, EX_AS, call->depth);
  e->as.call = call;
  e->as.name = name;
  return e;
}

Expr *ast_loop(Parser *ps, Span s, ExprKind kind, const Loop *loop) {
  uint32_t below = deeper(expr_depth(loop->along), body_depth(&loop->body));
  for (uint32_t i = 0; i < loop->each.len; i++)
    below = deeper(below, deeper(expr_depth(loop->each.data[i].lo),
                                 expr_depth(loop->each.data[i].hi)));
  Expr *e = expr_new(ps, s, kind, deeper(below, named_depth(&loop->with)));
  e->loop = arena_copy(&ps->cx->perm, loop, sizeof *loop);
  return e;
}

TypeExpr *ast_type(Parser *ps, Span s, Name dtype, const DimExprVec *dims,
                   Expr *like) {
  TypeExpr *t = NEW(&ps->cx->perm, TypeExpr);
  t->dtype = dtype;
  t->like = like;
  t->span = s;
  if (dims) t->dims = *dims;
  return t;
}

static uint32_t stmt_below(const Stmt *s) {
  uint32_t below = 0;
  switch (s->kind) {
  case ST_LET:
    for (uint32_t i = 0; i < s->let.targets.len; i++) {
      const Target *t = &s->let.targets.data[i];
      below = deeper(below, deeper(type_depth(t->type), subs_depth(&t->subs)));
    }
    return deeper(below, s->let.value->depth);
  case ST_PARAM:
  case ST_STATE:
    return deeper(type_depth(s->slot.type), expr_depth(s->slot.init));
  case ST_SET:
  case ST_NEXT:
  case ST_REPORT:
  case ST_PROBE: return named_depth(&s->named);
  case ST_YIELD:
  case ST_RETURN:
    for (uint32_t i = 0; i < s->values.len; i++)
      below = deeper(below, s->values.data[i]->depth);
    return below;
  case ST_MINIMIZE:
    for (uint32_t i = 0; i < s->minimize.rules.len; i++)
      below = deeper(below, s->minimize.rules.data[i].optimiser->depth);
    return deeper(below, s->minimize.loss->depth);
  case ST_IF:
  case ST_WHERE:
    below = deeper(body_depth(&s->branch.yes), body_depth(&s->branch.no));
    return deeper(below, s->branch.cond->depth);
  case ST_RECOMPUTE: return body_depth(&s->body);
  case ST_EXPR: return s->expr->depth;
  }
  return below;
}

Stmt *ast_stmt(Parser *ps, Stmt s) {
  s.depth = stmt_below(&s) + 1;
  if (too_deep(ps, s.span, s.depth))
    s = (Stmt){.kind = ST_EXPR,
               .span = s.span,
               .depth = 1,
               .expr = ast_error(ps, s.span)};
  return arena_copy(&ps->cx->perm, &s, sizeof s);
}

void ast_decl(Parser *ps, Decl d) {
  Decl *copy = arena_copy(&ps->cx->perm, &d, sizeof d);
  vec_push(&ps->cx->perm, &ps->decls, copy);
}

/* ---- printer ------------------------------------------------------------- */

static void print_expr(const Expr *e, int indent, Buf *out);
static void print_body(const StmtVec *body, int indent, Buf *out);

static void print_indent(int indent, Buf *out) {
  for (int i = 0; i < indent; i++)
    buf_add(out, "  ");
}

static void print_comma(uint32_t i, Buf *out) {
  if (i) buf_add(out, ", ");
}

static void print_exprs(const ExprVec *list, int indent, Buf *out) {
  for (uint32_t i = 0; i < list->len; i++) {
    print_comma(i, out);
    print_expr(list->data[i], indent, out);
  }
}

static void print_args(const ArgVec *args, int indent, Buf *out) {
  buf_add(out, "(");
  for (uint32_t i = 0; i < args->len; i++) {
    print_comma(i, out);
    if (args->data[i].name.text) buf_fmt(out, "%s = ", args->data[i].name.text);
    print_expr(args->data[i].value, indent, out);
  }
  buf_add(out, ")");
}

static void print_axes(const NameVec *axes, Buf *out) {
  for (uint32_t i = 0; i < axes->len; i++)
    buf_fmt(out, " @%s", axes->data[i].text);
}

static void print_subs(const SubVec *subs, int indent, Buf *out) {
  buf_add(out, "[");
  for (uint32_t i = 0; i < subs->len; i++) {
    const Sub *s = &subs->data[i];
    print_comma(i, out);
    if (s->kind == SUB_LEAD) buf_add(out, "..");
    if (s->lo) print_expr(s->lo, indent, out);
    if (s->kind == SUB_RANGE) buf_add(out, ":");
    if (s->hi) print_expr(s->hi, indent, out);
    print_axes(&s->axes, out);
  }
  buf_add(out, "]");
}

static void print_named(const NamedVec *named, int indent, Buf *out) {
  for (uint32_t i = 0; i < named->len; i++) {
    print_comma(i, out);
    buf_fmt(out, "%s = ", named->data[i].name.text);
    print_expr(named->data[i].value, indent, out);
  }
}

static void print_type(const TypeExpr *t, int indent, Buf *out) {
  buf_fmt(out, "%s[", t->dtype.text);
  if (t->like) {
    buf_add(out, "like ");
    print_expr(t->like, indent, out);
  }
  for (uint32_t i = 0; i < t->dims.len; i++) {
    const DimExpr *d = &t->dims.data[i];
    print_comma(i, out);
    if (d->size)
      print_expr(d->size, indent, out);
    else
      buf_add(out, "..");
    print_axes(&d->axes, out);
  }
  buf_add(out, "]");
}

void ast_print_type(const TypeExpr *t, Buf *out) {
  print_type(t, 0, out);
}

static void print_loop(const Expr *e, int indent, Buf *out) {
  const Loop *l = e->loop;
  buf_add(out, e->kind == EX_SCAN ? "scan " : "for ");
  for (uint32_t i = 0; i < l->each.len; i++) {
    print_comma(i, out);
    buf_fmt(out, "%s in ", l->each.data[i].name.text);
    print_expr(l->each.data[i].lo, indent, out);
    if (!l->each.data[i].hi) continue;
    buf_add(out, " .. ");
    print_expr(l->each.data[i].hi, indent, out);
  }
  if (l->along) {
    buf_add(out, " along ");
    print_expr(l->along, indent, out);
  }
  if (l->reverse) buf_add(out, " reverse");
  if (l->with.len) buf_add(out, " with ");
  print_named(&l->with, indent, out);
  print_body(&l->body, indent, out);
}

/* A literal that the scanner takes for a number with a point. */
static void print_float(double f, Buf *out) {
  char text[40];
  format_double(f, text);
  bool plain = true;
  for (const char *p = text; *p; p++)
    if ((*p < '0' || *p > '9') && *p != '-') plain = false;
  buf_fmt(out, plain ? "%s.0" : "%s", text);
}

static void print_expr(const Expr *e, int indent, Buf *out) {
  switch (e->kind) {
  case EX_ERROR: buf_add(out, "<error>"); break;
  case EX_INT: buf_fmt(out, "%lld", (long long)e->i); break;
  case EX_FLOAT: print_float(e->f, out); break;
  case EX_BOOL: buf_add(out, e->b ? "true" : "false"); break;
  case EX_STRING: buf_fmt(out, "\"%s\"", e->s); break;
  case EX_NAME: buf_add(out, e->s); break;
  case EX_UNARY:
    buf_add(out, e->unary.op == UN_NEG ? "(-" : "(not ");
    print_expr(e->unary.a, indent, out);
    buf_add(out, ")");
    break;
  case EX_BINARY:
    buf_add(out, "(");
    print_expr(e->binary.a, indent, out);
    buf_fmt(out, " %s ", binary_text[e->binary.op]);
    print_expr(e->binary.b, indent, out);
    buf_add(out, ")");
    break;
  case EX_COND:
    buf_add(out, "(");
    print_expr(e->cond.yes, indent, out);
    buf_add(out, " if ");
    print_expr(e->cond.cond, indent, out);
    buf_add(out, " else ");
    print_expr(e->cond.no, indent, out);
    buf_add(out, ")");
    break;
  case EX_CALL:
    print_expr(e->call.callee, indent, out);
    print_args(&e->call.args, indent, out);
    break;
  case EX_INDEX:
    print_expr(e->index.base, indent, out);
    print_subs(&e->index.subs, indent, out);
    break;
  case EX_AS:
    print_expr(e->as.call, indent, out);
    buf_fmt(out, " as \"%s\"", e->as.name.text);
    break;
  case EX_SCAN:
  case EX_FOR:
    buf_add(out, "(");
    print_loop(e, indent, out);
    buf_add(out, ")");
    break;
  }
}

static void print_let(const Stmt *s, int indent, Buf *out) {
  buf_add(out, "let ");
  for (uint32_t i = 0; i < s->let.targets.len; i++) {
    const Target *t = &s->let.targets.data[i];
    print_comma(i, out);
    buf_add(out, t->name.text);
    if (t->indexed) print_subs(&t->subs, indent, out);
    if (!t->type) continue;
    buf_add(out, ": ");
    print_type(t->type, indent, out);
  }
  buf_add(out, " = ");
  print_expr(s->let.value, indent, out);
}

static void print_slot(const char *word, const Stmt *s, int indent, Buf *out) {
  buf_fmt(out, "%s %s: ", word, s->slot.name.text);
  print_type(s->slot.type, indent, out);
  if (!s->slot.init) return;
  buf_add(out, " = ");
  print_expr(s->slot.init, indent, out);
}

static void print_minimize(const Stmt *s, int indent, Buf *out) {
  buf_add(out, "minimize ");
  print_expr(s->minimize.loss, indent, out);
  buf_add(out, " with {");
  for (uint32_t i = 0; i < s->minimize.rules.len; i++) {
    const Rule *r = &s->minimize.rules.data[i];
    buf_fmt(out, "%s \"%s\": ", i ? "," : "", r->pattern.text);
    print_expr(r->optimiser, indent, out);
  }
  buf_add(out, " }");
}

static void print_stmt(const Stmt *s, int indent, Buf *out) {
  static const char *const words[] = {
      [ST_SET] = "set ",     [ST_NEXT] = "next ",   [ST_REPORT] = "report ",
      [ST_PROBE] = "probe ", [ST_YIELD] = "yield ", [ST_RETURN] = "return "};
  switch (s->kind) {
  case ST_LET: print_let(s, indent, out); break;
  case ST_PARAM: print_slot("param", s, indent, out); break;
  case ST_STATE: print_slot("state", s, indent, out); break;
  case ST_SET:
  case ST_NEXT:
  case ST_REPORT:
  case ST_PROBE:
    buf_add(out, words[s->kind]);
    print_named(&s->named, indent, out);
    break;
  case ST_YIELD:
  case ST_RETURN:
    buf_add(out, s->values.len ? words[s->kind] : "return");
    print_exprs(&s->values, indent, out);
    break;
  case ST_MINIMIZE: print_minimize(s, indent, out); break;
  case ST_IF:
  case ST_WHERE:
    buf_add(out, s->kind == ST_IF ? "if " : "where ");
    print_expr(s->branch.cond, indent, out);
    print_body(&s->branch.yes, indent, out);
    if (!s->branch.no.len) break;
    buf_add(out, " else");
    print_body(&s->branch.no, indent, out);
    break;
  case ST_RECOMPUTE:
    buf_add(out, "recompute");
    print_body(&s->body, indent, out);
    break;
  case ST_EXPR: print_expr(s->expr, indent, out); break;
  }
}

static void print_body(const StmtVec *body, int indent, Buf *out) {
  buf_add(out, " {\n");
  for (uint32_t i = 0; i < body->len; i++) {
    print_indent(indent + 1, out);
    print_stmt(body->data[i], indent + 1, out);
    buf_add(out, "\n");
  }
  print_indent(indent, out);
  buf_add(out, "}");
}

static void print_params(const ParamVec *params, Buf *out) {
  buf_add(out, "(");
  for (uint32_t i = 0; i < params->len; i++) {
    const ParamDecl *p = &params->data[i];
    print_comma(i, out);
    buf_add(out, p->name.text);
    if (p->type) {
      buf_add(out, ": ");
      print_type(p->type, 0, out);
    }
    if (p->init) {
      buf_add(out, " = ");
      print_expr(p->init, 0, out);
    }
    if (p->source.text) buf_fmt(out, " from %s", p->source.text);
    if (p->source_args.len) print_args(&p->source_args, 0, out);
  }
  buf_add(out, ")");
}

static void print_fn(const Decl *d, Buf *out) {
  buf_fmt(out, "fn %s", d->name.text);
  print_params(&d->params, out);
  if (d->curried) print_params(&d->more, out);
  if (d->typed) {
    buf_add(out, " -> (");
    for (uint32_t i = 0; i < d->results.len; i++) {
      print_comma(i, out);
      print_type(d->results.data[i], 0, out);
    }
    buf_add(out, ")");
  }
  print_body(&d->body, 0, out);
}

static void print_entry(const Decl *d, Buf *out) {
  buf_fmt(out, "entry %s", d->name.text);
  if (d->size.text) {
    buf_fmt(out, " for %s in {", d->size.text);
    print_exprs(&d->sizes, 0, out);
    buf_add(out, "} ");
  }
  print_params(&d->params, out);
  print_body(&d->body, 0, out);
}

void ast_print(const DeclVec *decls, Buf *out) {
  for (uint32_t i = 0; i < decls->len; i++) {
    const Decl *d = decls->data[i];
    switch (d->kind) {
    case DECL_IMPORT: buf_fmt(out, "import \"%s\"", d->name.text); break;
    case DECL_CONST:
    case DECL_OPTION:
      buf_fmt(out, "%s %s = ", d->kind == DECL_CONST ? "const" : "option",
              d->name.text);
      print_expr(d->value, 0, out);
      break;
    case DECL_MESH: buf_fmt(out, "mesh %s", d->name.text); break;
    case DECL_FN: print_fn(d, out); break;
    case DECL_ENTRY: print_entry(d, out); break;
    }
    buf_add(out, "\n");
  }
}
