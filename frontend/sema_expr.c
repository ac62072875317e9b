/* sema_expr.c: expressions. Operators on known values are worked out here, with
 * integers checked for overflow; with a tensor among the operands they become
 * nodes. */
#include "sema.h"

#include <math.h>
#include <string.h>

/* ---- limits -------------------------------------------------------------- */

bool fe_step(Sema *S, Span s) {
  if (S->stopped) return false;
  if (++S->steps > MAX_STEPS)
    fe_error(S, s, "the model takes more than %d steps to work out", MAX_STEPS);
  else if (S->depth > MAX_EVAL_DEPTH)
    fe_error(S, s, "calls and expressions are nested more than %d deep",
             MAX_EVAL_DEPTH);
  else
    return true;
  S->stopped = true;
  return false;
}

/* ---- known values -------------------------------------------------------- */

static Val fold_failed(Sema *S, Span s, const char *why) {
  fe_error(S, s, "%s", why);
  return val_error;
}

/* a / b is exact: an integer where it divides, else a float. */
static Val fold_int_div(Sema *S, Span s, int64_t a, int64_t b) {
  if (b == 0) return fold_failed(S, s, "division by zero");
  if (b == -1 && a == INT64_MIN) return fold_failed(S, s, "integer overflow");
  return a % b == 0 ? val_int(a / b) : val_float((double)a / (double)b);
}

static Val fold_ints(Sema *S, Span s, BinaryOp op, int64_t a, int64_t b) {
  int64_t r = 0;
  bool over = false;
  switch (op) {
  case BIN_ADD: over = __builtin_add_overflow(a, b, &r); break;
  case BIN_SUB: over = __builtin_sub_overflow(a, b, &r); break;
  case BIN_MUL: over = __builtin_mul_overflow(a, b, &r); break;
  case BIN_DIV: return fold_int_div(S, s, a, b);
  case BIN_REM:
    if (b == 0) return fold_failed(S, s, "division by zero");
    return val_int(b == -1 ? 0 : a % b);
  case BIN_EQ: return val_bool(a == b);
  case BIN_NE: return val_bool(a != b);
  case BIN_LT: return val_bool(a < b);
  case BIN_LE: return val_bool(a <= b);
  case BIN_GT: return val_bool(a > b);
  case BIN_GE: return val_bool(a >= b);
  case BIN_AND:
  case BIN_OR:
  case BIN_COUNT: return fold_failed(S, s, "'and' and 'or' take true or false");
  }
  return over ? fold_failed(S, s, "integer overflow") : val_int(r);
}

static Val fold_floats(Sema *S, Span s, BinaryOp op, double a, double b) {
  switch (op) {
  case BIN_ADD: return val_float(a + b);
  case BIN_SUB: return val_float(a - b);
  case BIN_MUL: return val_float(a * b);
  case BIN_DIV:
    if (b == 0) return fold_failed(S, s, "division by zero");
    return val_float(a / b);
  case BIN_REM: return fold_failed(S, s, "'%' takes integers");
  case BIN_EQ: return val_bool(a == b);
  case BIN_NE: return val_bool(a != b);
  case BIN_LT: return val_bool(a < b);
  case BIN_LE: return val_bool(a <= b);
  case BIN_GT: return val_bool(a > b);
  case BIN_GE: return val_bool(a >= b);
  case BIN_AND:
  case BIN_OR:
  case BIN_COUNT: break;
  }
  return fold_failed(S, s, "'and' and 'or' take true or false");
}

/* Two bools or two strings. */
static Val fold_others(Sema *S, Span s, BinaryOp op, Val a, Val b) {
  bool bools = a.kind == VAL_BOOL && b.kind == VAL_BOOL;
  bool strings = a.kind == VAL_STRING && b.kind == VAL_STRING;
  bool equal = bools ? a.b == b.b : strings ? a.s == b.s : false;
  if ((bools || strings) && op == BIN_EQ) return val_bool(equal);
  if ((bools || strings) && op == BIN_NE) return val_bool(!equal);
  if (bools && op == BIN_AND) return val_bool(a.b && b.b);
  if (bools && op == BIN_OR) return val_bool(a.b || b.b);
  fe_error(S, s, "'%s' does not apply to %s and %s", binary_text[op],
           val_text(S, a), val_text(S, b));
  return val_error;
}

static const struct {
  OpKind op;
  bool swap; /* a > b is b < a */
} binary_ops[BIN_COUNT] = {
    [BIN_ADD] = {OP_add, false}, [BIN_SUB] = {OP_sub, false},
    [BIN_MUL] = {OP_mul, false}, [BIN_DIV] = {OP_div, false},
    [BIN_REM] = {OP_rem, false}, [BIN_EQ] = {OP_eq, false},
    [BIN_NE] = {OP_ne, false},   [BIN_LT] = {OP_lt, false},
    [BIN_LE] = {OP_le, false},   [BIN_GT] = {OP_lt, true},
    [BIN_GE] = {OP_le, true},    [BIN_AND] = {OP_and, false},
    [BIN_OR] = {OP_or, false},
};

Val fe_binary(Sema *S, Span s, BinaryOp op, Item a, Item b) {
  if (a.val.kind == VAL_ERROR || b.val.kind == VAL_ERROR) return val_error;
  if (a.val.kind == VAL_TENSOR || b.val.kind == VAL_TENSOR) {
    bool swap = binary_ops[op].swap;
    Item items[2] = {swap ? b : a, swap ? a : b};
    return fe_elementwise(S, s, binary_ops[op].op, items, 2);
  }
  if (a.val.kind == VAL_INT && b.val.kind == VAL_INT)
    return fold_ints(S, s, op, a.val.i, b.val.i);
  if (val_is_number(a.val) && val_is_number(b.val))
    return fold_floats(S, s, op, val_number(a.val), val_number(b.val));
  return fold_others(S, s, op, a.val, b.val);
}

Val fe_unary(Sema *S, Span s, UnaryOp op, Item a) {
  switch (a.val.kind) {
  case VAL_ERROR: return val_error;
  case VAL_TENSOR:
    return fe_elementwise(S, s, op == UN_NEG ? OP_neg : OP_not, &a, 1);
  case VAL_INT:
    if (op == UN_NOT) break;
    if (a.val.i == INT64_MIN) return fold_failed(S, s, "integer overflow");
    return val_int(-a.val.i);
  case VAL_FLOAT:
    if (op == UN_NOT) break;
    return val_float(-a.val.f);
  case VAL_BOOL:
    if (op == UN_NEG) break;
    return val_bool(!a.val.b);
  case VAL_STRING:
  case VAL_FN:
  case VAL_TUPLE:
  case VAL_TYPE:
  case VAL_FREEZE: break;
  }
  fe_error(S, s, "'%s' does not apply to %s", op == UN_NEG ? "-" : "not",
           val_text(S, a.val));
  return val_error;
}

/* ---- expressions --------------------------------------------------------- */

/* `and` and `or` do not look at what cannot matter. */
static Val eval_binary(Sema *S, const Expr *e) {
  BinaryOp op = e->binary.op;
  Item a = fe_item(S, e->binary.a);
  if (a.val.kind == VAL_BOOL && op == BIN_AND && !a.val.b) return a.val;
  if (a.val.kind == VAL_BOOL && op == BIN_OR && a.val.b) return a.val;
  return fe_binary(S, e->span, op, a, fe_item(S, e->binary.b));
}

static Val eval_cond(Sema *S, const Expr *e) {
  bool cond;
  if (!fe_eval_bool(S, e->cond.cond, "the condition", &cond)) return val_error;
  return fe_eval(S, cond ? e->cond.yes : e->cond.no);
}

static Val eval_index(Sema *S, const Expr *e) {
  const Expr *base = e->index.base;
  Dtype dtype;
  Type t;
  if (base->kind == EX_NAME && dtype_find(base->s, &dtype) &&
      !scope_find(S, base->s))
    return type_from_expr(S, e, &t) ? val_type(S, t) : val_error;
  Item it = fe_item(S, base);
  if (it.val.kind == VAL_ERROR) return val_error;
  if (it.val.kind != VAL_TENSOR) {
    fe_error(S, base->span, "only tensors have subscripts, this is %s",
             val_text(S, it.val));
    return val_error;
  }
  return fe_slice(S, e, it.val);
}

static Val eval_as(Sema *S, const Expr *e) {
  if (e->as.call->kind == EX_CALL) return fe_call(S, e->as.call, &e->as.name);
  fe_error(S, e->span, "'as' names a call, and this is none");
  return val_error;
}

static Val eval(Sema *S, const Expr *e) {
  switch (e->kind) {
  case EX_ERROR: return val_error;
  case EX_INT: return val_int(e->i);
  case EX_FLOAT: return val_float(e->f);
  case EX_BOOL: return val_bool(e->b);
  case EX_STRING: return val_string(e->s);
  case EX_NAME:
    return val_here(S, name_value(S, (Name){e->s, e->span}), e->span);
  case EX_UNARY:
    return fe_unary(S, e->span, e->unary.op, fe_item(S, e->unary.a));
  case EX_BINARY: return eval_binary(S, e);
  case EX_COND: return eval_cond(S, e);
  case EX_CALL: return fe_call(S, e, NULL);
  case EX_INDEX: return eval_index(S, e);
  case EX_AS: return eval_as(S, e);
  case EX_SCAN: return fe_scan(S, e);
  case EX_FOR: return fe_for(S, e);
  }
  return val_error;
}

Val fe_eval(Sema *S, const Expr *e) {
  S->depth++;
  Val v = fe_step(S, e->span) ? eval(S, e) : val_error;
  S->depth--;
  return v;
}

Item fe_item(Sema *S, const Expr *e) {
  Item it = {.val = fe_eval(S, e), .span = e->span};
  if (it.val.kind != VAL_TUPLE) return it;
  fe_error(S, e->span, "one value is needed here, but this gives %s",
           val_text(S, it.val));
  it.val = val_error;
  return it;
}

bool fe_eval_int(Sema *S, const Expr *e, const char *what, int64_t *out) {
  Item it = fe_item(S, e);
  if (it.val.kind == VAL_INT) {
    *out = it.val.i;
    return true;
  }
  if (it.val.kind != VAL_ERROR)
    fe_error(S, e->span,
             "%s must be an integer known when compiling, but "
             "this is %s",
             what, val_text(S, it.val));
  return false;
}

bool fe_eval_bool(Sema *S, const Expr *e, const char *what, bool *out) {
  Item it = fe_item(S, e);
  if (it.val.kind == VAL_BOOL) {
    *out = it.val.b;
    return true;
  }
  if (it.val.kind == VAL_TENSOR) {
    fe_error(S, e->span, "%s must be known when compiling, but this is %s",
             what, val_text(S, it.val));
    fe_note(S, e->span, "select(condition, a, b) chooses by element");
  } else if (it.val.kind != VAL_ERROR) {
    fe_error(S, e->span, "%s must be true or false, but this is %s", what,
             val_text(S, it.val));
  }
  return false;
}
