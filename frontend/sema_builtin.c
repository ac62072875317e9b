/* sema_builtin.c: the functions of the language. Those that are an elementwise
 * op have no row here: their name, arity and meaning are the op's. */
#include "sema.h"

#include <math.h>
#include <string.h>

/* ---- the table ----------------------------------------------------------- */

/* BUILTIN(name, parameters): '?' marks one that may be missing, '*' one that
 * takes all that is left, what follows it can only be named. */
#define BUILTINS(X)                       \
  X(sum, "x dim? keep?")                  \
  X(mean, "x dim? keep?")                 \
  X(max, "x y? dim? keep?")               \
  X(min, "x y? dim? keep?")               \
  X(cumsum, "x exclusive? reverse?")      \
  X(top_k, "x k")                         \
  X(sort, "x")                            \
  X(iota, "like dim")                     \
  X(iota_like, "like n")                  \
  X(zeros_like, "like")                   \
  X(ones_like, "like")                    \
  X(zeros, "type")                        \
  X(ones, "type")                         \
  X(full, "type value")                   \
  X(expand, "x")                          \
  X(reshape, "x dims*")                   \
  X(transpose, "x order*")                \
  X(concat, "parts* dim")                 \
  X(pad, "x dim lo? hi?")                 \
  X(gather, "table ids")                  \
  X(scatter_add, "x ids rows")            \
  X(take, "x ids")                        \
  X(put, "x ids size")                    \
  X(dispatch, "x ids experts gates? drops? most?") \
  X(combine, "y ids gates?")              \
  X(row_dot, "y d ids")                   \
  X(attention, "q k v causal? scale? mask?") \
  X(stop_gradient, "x")                   \
  X(random_bits, "like")                  \
  X(require, "condition message values*") \
  X(size, "x dim")                        \
  X(rank, "x")

static const Builtin builtins[] = {
#define BUILTIN(name, params) {#name, params, builtin_##name},
    BUILTINS(BUILTIN)
#undef BUILTIN
};

/* Elementwise ops with attributes or types of their own are reached otherwise:
 * cast by a dtype's name, threefry by random_bits. */
static bool is_callable(OpKind op) {
  return op_is(op, TRAIT_EW) && op != OP_cast && op != OP_bitcast &&
         op != OP_threefry;
}

bool builtin_find(Sym name, Fn *out) {
  OpKind op;
  *out = (Fn){0};
  for (size_t i = 0; i < COUNT_OF(builtins); i++)
    if (strcmp(builtins[i].name, name) == 0) {
      out->builtin = &builtins[i];
      return true;
    }
  if (op_find(name, &op) && is_callable(op)) {
    out->is_op = true;
    out->op = op;
    return true;
  }
  out->is_cast = dtype_find(name, &out->dtype);
  return out->is_cast;
}

const char *builtin_name(const Fn *fn) {
  return fn->builtin   ? fn->builtin->name
         : fn->is_cast ? dtype_info[fn->dtype].name
                       : op_info[fn->op].name;
}

const char *const *builtin_names(Sema *S, uint32_t *out_n) {
  static const char *const words[] = {"step", "seed", "training", "freeze",
                                      "grad_norm"};
  VEC(const char *) all = {0};
  Arena *a = &S->cx->perm;
  for (size_t i = 0; i < COUNT_OF(builtins); i++)
    vec_push(a, &all, builtins[i].name);
  for (int op = 0; op < OP_COUNT; op++)
    if (is_callable((OpKind)op)) vec_push(a, &all, op_info[op].name);
  for (int d = 0; d < DTYPE_COUNT; d++)
    vec_push(a, &all, dtype_info[d].name);
  for (size_t i = 0; i < COUNT_OF(words); i++)
    vec_push(a, &all, words[i]);
  *out_n = all.len;
  return all.data;
}

/* ---- arguments ----------------------------------------------------------- */

typedef struct BuiltinParam {
  Sym name;
  bool optional, rest;
} BuiltinParam;

enum { MAX_BUILTIN_PARAMS = 6 };

static int read_params(Sema *S, const char *text, BuiltinParam *out) {
  int n = 0;
  while (*text) {
    size_t len = strcspn(text, " ?*");
    out[n] = (BuiltinParam){.name = sym_n(S->cx, text, len)};
    text += len;
    if (*text == '?') out[n].optional = true, text++;
    if (*text == '*') out[n].rest = true, text++;
    if (*text == ' ') text++;
    n++;
  }
  return n;
}

/* The parameter that argument `it` is for; -1: none, reported. */
static int param_for(BuiltinCall *c, const BuiltinParam *params, int n,
                     const Item *it, int *next) {
  const char *names[MAX_BUILTIN_PARAMS];
  if (!it->name.text) {
    if (*next < n && params[*next].rest) return *next;
    for (int i = 0; i < *next && i < n; i++)
      if (params[i].rest) return i;
    if (*next < n) return (*next)++;
    fe_error(c->S, it->span, "%s takes %d argument%s at most", c->name, n,
             n == 1 ? "" : "s");
    return -1;
  }
  for (int i = 0; i < n; i++) {
    if (params[i].name == it->name.text && !params[i].rest) return i;
    names[i] = params[i].name;
  }
  const char *near = nearest_word(it->name.text, names, (size_t)n);
  if (near)
    fe_error(c->S, it->name.span,
             "%s has no parameter '%s'; did you mean "
             "'%s'?",
             c->name, it->name.text, near);
  else
    fe_error(c->S, it->name.span, "%s has no parameter '%s'", c->name,
             it->name.text);
  return -1;
}

static bool bind_args(BuiltinCall *c, const BuiltinParam *params, int n,
                      const ItemVec *args) {
  int next = 0;
  for (uint32_t i = 0; i < args->len; i++) {
    const Item *it = &args->data[i];
    int p = param_for(c, params, n, it, &next);
    if (p < 0 || it->val.kind == VAL_ERROR) return false;
    if (params[p].rest) {
      vec_push(&c->S->cx->perm, &c->rest, *it);
      continue;
    }
    if (c->given[p]) {
      fe_error(c->S, it->span, "%s got '%s' twice", c->name, params[p].name);
      return false;
    }
    c->args[p] = *it;
    c->given[p] = true;
  }
  for (int i = 0; i < n; i++) {
    if (c->given[i] || params[i].optional || params[i].rest) continue;
    fe_error(c->S, c->span, "%s lacks an argument for '%s'", c->name,
             params[i].name);
    return false;
  }
  return true;
}

Value *arg_tensor(BuiltinCall *c, int i) {
  return fe_tensor(c->S, c->args[i]);
}

bool arg_int(BuiltinCall *c, int i, int64_t *out) {
  Val v = c->args[i].val;
  if (v.kind == VAL_INT) {
    *out = v.i;
    return true;
  }
  fe_error(c->S, c->args[i].span,
           "%s: an integer known when compiling is needed here, not %s",
           c->name, val_text(c->S, v));
  return false;
}

bool arg_bool(BuiltinCall *c, int i, bool *out) {
  Val v = c->args[i].val;
  *out = false;
  if (!c->given[i]) return true;
  if (v.kind == VAL_BOOL) {
    *out = v.b;
    return true;
  }
  fe_error(c->S, c->args[i].span, "%s: true or false is needed here, not %s",
           c->name, val_text(c->S, v));
  return false;
}

bool arg_dim(BuiltinCall *c, int i, int rank, int *out) {
  int64_t d;
  if (!arg_int(c, i, &d)) return false;
  int64_t at = d < 0 ? d + rank : d;
  if (at < 0 || at >= rank) {
    fe_error(c->S, c->args[i].span, "%s: no dim %lld in %d dims", c->name,
             (long long)d, rank);
    return false;
  }
  *out = (int)at;
  return true;
}

/* ---- elementwise ops and casts ------------------------------------------- */

/* Ops that also work on known numbers. */
static double fold_abs(double x) {
  return fabs(x);
}
static double fold_sigmoid(double x) {
  return 1.0 / (1.0 + exp(-x));
}

static const struct {
  OpKind op;
  double (*fold)(double);
} folds[] = {
    {OP_abs, fold_abs}, {OP_sqrt, sqrt}, {OP_floor, floor},
    {OP_exp, exp},      {OP_log, log},   {OP_log1p, log1p},
    {OP_tanh, tanh},    {OP_erf, erf},   {OP_sigmoid, fold_sigmoid},
};

static bool fold_number(Sema *S, Span s, OpKind op, Val x, Val *out) {
  for (size_t i = 0; i < COUNT_OF(folds); i++) {
    if (folds[i].op != op) continue;
    double y = folds[i].fold(val_number(x));
    bool whole = op == OP_floor || (op == OP_abs && x.kind == VAL_INT);
    if (!isfinite(y) || (whole && fabs(y) > 9e15)) {
      fe_error(S, s, "%s of %s is not finite", op_info[op].name,
               val_text(S, x));
      *out = val_error;
    } else {
      *out = whole ? val_int((int64_t)y) : val_float(y);
    }
    return true;
  }
  return false;
}

static Val call_op(BuiltinCall *c, OpKind op, const ItemVec *args) {
  Sema *S = c->S;
  int want = op_info[op].max_ins;
  Val out;
  for (uint32_t i = 0; i < args->len; i++)
    if (args->data[i].name.text) {
      fe_error(S, args->data[i].name.span, "%s has no named parameters",
               c->name);
      return val_error;
    }
  if ((int)args->len != want) {
    fe_error(S, c->span, "%s takes %d argument%s, not %u", c->name, want,
             want == 1 ? "" : "s", args->len);
    return val_error;
  }
  bool number = want == 1 && val_is_number(args->data[0].val);
  if (number && fold_number(S, c->span, op, args->data[0].val, &out))
    return out;
  return fe_elementwise(S, c->span, op, args->data, args->len);
}

static Val call_cast(BuiltinCall *c, Dtype dtype, const ItemVec *args) {
  Sema *S = c->S;
  if (args->len != 1 || args->data[0].name.text) {
    fe_error(S, c->span, "%s takes one argument", c->name);
    return val_error;
  }
  Item it = args->data[0];
  DtypeKind kind = dtype_info[dtype].kind;
  if (!val_is_number(it.val))
    return val_tensor(fe_cast(S, c->span, fe_tensor(S, it), dtype));
  double x = val_number(it.val);
  if (kind == DK_FLOAT) return val_float(x);
  if (kind == DK_BOOL) return val_bool(x != 0);
  if (fabs(x) < 9e15) return val_int((int64_t)x);
  fe_error(S, c->span, "%s is no element of %s[]", val_text(S, it.val),
           dtype_info[dtype].name);
  return val_error;
}

Val builtin_call(Sema *S, const Fn *fn, Span s, const ItemVec *args) {
  BuiltinParam params[MAX_BUILTIN_PARAMS];
  Item values[MAX_BUILTIN_PARAMS] = {0};
  bool given[MAX_BUILTIN_PARAMS] = {0};
  BuiltinCall c = {.S = S,
                   .span = s,
                   .name = builtin_name(fn),
                   .args = values,
                   .given = given};
  for (uint32_t i = 0; i < args->len; i++)
    if (args->data[i].val.kind == VAL_ERROR) return val_error;
  if (fn->is_op) return call_op(&c, fn->op, args);
  if (fn->is_cast) return call_cast(&c, fn->dtype, args);
  int n = read_params(S, fn->builtin->params, params);
  return bind_args(&c, params, n, args) ? fn->builtin->run(&c) : val_error;
}

/* ---- sums and orders ----------------------------------------------------- */

/* A reduction over `dim` (argument d), or over all dims. */
static Val reduce(BuiltinCall *c, OpKind op, int d, bool mean) {
  Sema *S = c->S;
  Value *v = arg_tensor(c, 0);
  bool keep;
  int dim = -1;
  if (!v || !arg_bool(c, d + 1, &keep)) return val_error;
  if (c->given[d] && !arg_dim(c, d, v->type.rank, &dim)) return val_error;
  Type kept = v->type;
  double count = 1;
  unsigned mask = 0;
  for (int i = 0; i < v->type.rank; i++) {
    if (dim >= 0 && i != dim) continue;
    mask |= 1u << i;
    count *= (double)v->type.dims[i].size;
    kept.dims[i] = (Dim){1, false};
  }
  if (mean && type_is_ragged(&v->type)) {
    fe_error(S, c->span, "mean: how many rows %s has is not known",
             type_text(S->cx, &v->type));
    return val_error;
  }
  Value *r = fe_reduce(S, c->span, op, v, mask);
  if (r && keep) r = fe_reshape(S, c->span, r, kept);
  if (!r || !mean) return val_tensor(r);
  Item items[2] = {{.val = val_tensor(r), .span = c->span},
                   {.val = val_float(count), .span = c->span}};
  return fe_elementwise(S, c->span, OP_div, items, 2);
}

Val builtin_sum(BuiltinCall *c) {
  return reduce(c, OP_reduce_sum, 1, false);
}
Val builtin_mean(BuiltinCall *c) {
  return reduce(c, OP_reduce_sum, 1, true);
}

/* The larger or smaller of two, or of all elements. */
static Val extreme(BuiltinCall *c, OpKind two, OpKind all) {
  if (!c->given[1]) return reduce(c, all, 2, false);
  if (c->given[2] || c->given[3]) {
    fe_error(c->S, c->span, "%s of two values has no dim to reduce", c->name);
    return val_error;
  }
  Val a = c->args[0].val, b = c->args[1].val;
  if (!val_is_number(a) || !val_is_number(b))
    return fe_elementwise(c->S, c->span, two, c->args, 2);
  bool first = (val_number(a) > val_number(b)) == (two == OP_max);
  return first ? a : b;
}

Val builtin_max(BuiltinCall *c) {
  return extreme(c, OP_max, OP_reduce_max);
}
Val builtin_min(BuiltinCall *c) {
  return extreme(c, OP_min, OP_reduce_min);
}

Val builtin_cumsum(BuiltinCall *c) {
  bool exclusive, reverse;
  Value *v = arg_tensor(c, 0);
  if (!arg_bool(c, 1, &exclusive) || !arg_bool(c, 2, &reverse))
    return val_error;
  Node *n = fe_node(c->S, c->span, OP_cumsum, NULL, &v, 1, "exclusive",
                    (int64_t)exclusive, "reverse", (int64_t)reverse, NULL);
  return val_tensor(n ? n->outs.data[0] : NULL);
}

/* A node with two results as a pair. */
static Val pair(Sema *S, const Node *n) {
  if (!n) return val_error;
  Val both[2] = {val_tensor(n->outs.data[0]), val_tensor(n->outs.data[1])};
  return val_tuple(S, both, 2);
}

Val builtin_top_k(BuiltinCall *c) {
  int64_t k;
  Value *v = arg_tensor(c, 0);
  if (!v || !arg_int(c, 1, &k)) return val_error;
  int64_t n = v->type.rank ? v->type.dims[v->type.rank - 1].size : 0;
  if (n && (k < 1 || k > n)) {
    fe_error(c->S, c->args[1].span,
             "top_k: k is %lld, but there are %lld to "
             "choose from",
             (long long)k, (long long)n);
    fe_note(c->S, c->args[0].span, "%s here", type_text(c->S->cx, &v->type));
    return val_error;
  }
  return pair(c->S,
              fe_node(c->S, c->span, OP_top_k, NULL, &v, 1, "k", k, NULL));
}

Val builtin_sort(BuiltinCall *c) {
  Value *v = arg_tensor(c, 0);
  return pair(c->S, fe_node(c->S, c->span, OP_sort, NULL, &v, 1, NULL));
}

/* ---- what must hold ------------------------------------------------------ */

/* Stops a function whose arguments do not go together: the message, then
 * values. What follows would only fail in its own way. */
Val builtin_require(BuiltinCall *c) {
  Sema *S = c->S;
  Val message = c->args[1].val;
  bool holds;
  if (!arg_bool(c, 0, &holds)) return val_error;
  if (message.kind != VAL_STRING) {
    fe_error(S, c->args[1].span, "require: a message is needed here, not %s",
             val_text(S, message));
    return val_error;
  }
  if (holds) return val_tuple(S, NULL, 0);
  Buf b = {0};
  buf_add(&b, message.s);
  for (uint32_t i = 0; i < c->rest.len; i++)
    buf_fmt(&b, "%s%s", i ? ", " : ": ", val_plain(S, c->rest.data[i].val));
  fe_error(S, c->span, "%s", b.data);
  buf_free(&b);
  S->frame->returned = true;
  S->frame->result = val_error;
  return val_error;
}
