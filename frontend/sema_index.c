/* sema_index.c: index form, let y[.., n] = x[.., d] * w[d, n] + b[n].
 *
 * The right side is a sum of terms, a term a product of factors. Letters that
 * the left side lacks are summed, term by term: a letter of one factor only by
 * a reduction, one of several by contracting the factors pairwise from the
 * left. Inside of a factor (functions, brackets, divisors) everything is
 * elementwise over the union of the letters. */
#include "sema.h"

#include <string.h>

enum { MAX_FACTORS = 16 };

static const Term term_error = {.val = {.kind = VAL_ERROR}};

/* ---- elementwise factors ------------------------------------------------- */

static Term eval_factor(Form *f, const Expr *e);
static Term eval_sum(Form *f, const Expr *e);

/* Brings all tensors to one order of the union of their letters. */
static bool align(Form *f, Span s, Term *terms, uint32_t n, Term *out) {
  uint64_t mask = 0;
  const Term *widest = NULL;
  for (uint32_t i = 0; i < n; i++) {
    if (terms[i].val.kind == VAL_ERROR) return false;
    if (terms[i].val.kind != VAL_TENSOR) continue;
    mask |= term_mask(&terms[i]);
    if (!widest || terms[i].n > widest->n) widest = &terms[i];
  }
  *out = (Term){.span = s};
  if (widest && term_mask(widest) == mask) { /* keep its order */
    out->n = widest->n;
    memcpy(out->letters, widest->letters, sizeof out->letters);
  } else {
    out->n = form_order(f, mask, out->letters);
  }
  if (out->n < 0) {
    fe_error(f->S, s, "more than %d dims", MAX_RANK);
    return false;
  }
  for (uint32_t i = 0; i < n; i++) {
    if (terms[i].val.kind != VAL_TENSOR) continue;
    Value *v = form_arrange(f, terms[i], out->letters, out->n);
    if (!v) return false;
    terms[i].val = val_tensor(v);
  }
  return true;
}

static Item item_of(const Term *t) {
  return (Item){.val = t->val, .span = t->span};
}

static Term combine(Form *f, Span s, BinaryOp op, Term a, Term b) {
  Term both[2] = {a, b}, out;
  if (!align(f, s, both, 2, &out)) return term_error;
  out.val = fe_binary(f->S, s, op, item_of(&both[0]), item_of(&both[1]));
  return out;
}

/* A function of tensors with letters: applied to the aligned tensors, it must
 * keep their dims. */
static Term eval_call_factor(Form *f, const Expr *e, const Name *as) {
  Sema *S = f->S;
  uint32_t n = e->call.args.len;
  Item callee = fe_item(S, e->call.callee);
  Term *terms = NEW_ARRAY(&S->cx->perm, Term, n + 1), out;
  ItemVec args = {0};
  for (uint32_t i = 0; i < n; i++)
    terms[i] = eval_factor(f, e->call.args.data[i].value);
  if (callee.val.kind == VAL_ERROR || !align(f, e->span, terms, n, &out))
    return term_error;
  for (uint32_t i = 0; i < n; i++) {
    Item it = item_of(&terms[i]);
    it.name = e->call.args.data[i].name;
    vec_push(&S->cx->perm, &args, it);
  }
  out.val = fe_apply(S, e, callee, &args, as);
  if (out.val.kind != VAL_TENSOR) {
    if (val_is_number(out.val) && out.n == 0) return out;
    if (out.val.kind != VAL_ERROR)
      fe_error(S, e->span, "in index form a function must give one tensor");
    return term_error;
  }
  Type want = form_type(f, out.val.tensor->type.dtype, out.letters, out.n);
  if (type_same_dims(&want, &out.val.tensor->type)) return out;
  fe_error(S, e->span, "in index form a function must keep dims: %s became %s",
           type_text(S->cx, &want), val_text(S, out.val));
  return term_error;
}

static Term eval_tensor_factor(Form *f, const Expr *e) {
  Term t = {.span = e->span};
  Item it = fe_item(f->S, e->index.base);
  if (it.val.kind == VAL_ERROR) return term_error;
  if (it.val.kind != VAL_TENSOR) {
    fe_error(f->S, e->span, "only tensors have subscripts, this is %s",
             val_text(f->S, it.val));
    return term_error;
  }
  t.val = it.val;
  const Type *type = &it.val.tensor->type;
  if (!form_read(f, &e->index.subs, type->rank, e->span, &t)) return term_error;
  for (int i = 0; i < t.n; i++)
    if (!form_bind(f, t.letters[i], type->dims[i], e->span)) return term_error;
  return t;
}

/* Anything without letters: a number or a scalar. */
static Term eval_plain_factor(Form *f, const Expr *e) {
  Item it = fe_item(f->S, e);
  if (it.val.kind == VAL_ERROR) return term_error;
  bool scalar = it.val.kind == VAL_TENSOR && it.val.tensor->type.rank == 0;
  if (scalar || val_is_number(it.val) || it.val.kind == VAL_BOOL)
    return (Term){.val = it.val, .span = e->span};
  fe_error(f->S, e->span, "in index form this needs subscripts: it is %s",
           val_text(f->S, it.val));
  return term_error;
}

static Term eval_factor_kind(Form *f, const Expr *e) {
  switch (e->kind) {
  case EX_INDEX: return eval_tensor_factor(f, e);
  case EX_CALL: return eval_call_factor(f, e, NULL);
  case EX_AS:
    if (e->as.call->kind != EX_CALL) break;
    return eval_call_factor(f, e->as.call, &e->as.name);
  case EX_BINARY: {
    Term a = eval_factor(f, e->binary.a);
    return combine(f, e->span, e->binary.op, a, eval_factor(f, e->binary.b));
  }
  case EX_UNARY: {
    Term t = eval_factor(f, e->unary.a);
    t.val = fe_unary(f->S, e->span, e->unary.op, item_of(&t));
    return t;
  }
  case EX_COND: {
    bool cond;
    if (!fe_eval_bool(f->S, e->cond.cond, "the condition", &cond))
      return term_error;
    return eval_factor(f, cond ? e->cond.yes : e->cond.no);
  }
  case EX_ERROR:
  case EX_INT:
  case EX_FLOAT:
  case EX_BOOL:
  case EX_STRING:
  case EX_NAME:
  case EX_SCAN:
  case EX_FOR: break;
  }
  return eval_plain_factor(f, e);
}

static Term eval_factor(Form *f, const Expr *e) {
  f->S->depth++;
  Term t = fe_step(f->S, e->span) ? eval_factor_kind(f, e) : term_error;
  f->S->depth--;
  return t;
}

/* ---- terms --------------------------------------------------------------- */

/* The factors of one product: a * b / c * d. */
typedef struct Product {
  const Expr *over[MAX_FACTORS], *under[MAX_FACTORS];
  int n_over, n_under;
  bool negative;
  Span span;
} Product;

static bool add_factor(Form *f, Product *p, const Expr *e) {
  if (e->kind == EX_BINARY && e->binary.op == BIN_MUL)
    return add_factor(f, p, e->binary.a) && add_factor(f, p, e->binary.b);
  if (e->kind == EX_UNARY && e->unary.op == UN_NEG) {
    p->negative = !p->negative;
    return add_factor(f, p, e->unary.a);
  }
  bool divides = e->kind == EX_BINARY && e->binary.op == BIN_DIV;
  if (divides && !add_factor(f, p, e->binary.a)) return false;
  if (p->n_over == MAX_FACTORS || p->n_under == MAX_FACTORS) {
    fe_error(f->S, e->span, "more than %d factors", MAX_FACTORS);
    return false;
  }
  if (divides)
    p->under[p->n_under++] = e->binary.b;
  else
    p->over[p->n_over++] = e;
  return true;
}

/* Sums the letters of one factor that nobody else has. */
static bool sum_alone(Form *f, Term *t, uint64_t keep) {
  uint8_t out[MAX_RANK] = {0};
  int n = 0;
  for (int i = 0; i < t->n; i++)
    if (keep >> t->letters[i] & 1) out[n++] = t->letters[i];
  if (n == t->n) return true;
  Value *v = t->val.tensor;
  Node *node = fe_node(f->S, t->span, OP_reduce_sum, NULL, &v, 1, "map",
                       form_map(f, t, NULL, out, n), NULL);
  if (!node) return false;
  t->val = val_tensor(node->outs.data[0]);
  t->n = n;
  memcpy(t->letters, out, sizeof out);
  return true;
}

/* a * b, summed over what `keep` lacks. */
static bool multiply(Form *f, Span s, Term *a, Term b, uint64_t keep) {
  uint64_t all = term_mask(a) | term_mask(&b);
  if (!(all & ~keep)) {
    *a = combine(f, s, BIN_MUL, *a, b);
    return a->val.kind != VAL_ERROR;
  }
  Term out = {.span = s};
  out.n = form_order(f, all & keep, out.letters);
  if (out.n < 0) {
    fe_error(f->S, s, "more than %d dims", MAX_RANK);
    return false;
  }
  Node *node = fe_node(f->S, s, OP_contract, NULL,
                       (Value *[]){a->val.tensor, b.val.tensor}, 2, "map",
                       form_map(f, a, &b, out.letters, out.n), NULL);
  if (!node) return false;
  out.val = val_tensor(node->outs.data[0]);
  *a = out;
  return true;
}

/* The product of tensors, all letters but `keep` summed. */
static Term contract(Form *f, Span s, Term *terms, int n, uint64_t keep) {
  for (int i = 0; i < n; i++) {
    uint64_t others = keep;
    for (int j = 0; j < n; j++)
      if (j != i) others |= term_mask(&terms[j]);
    if (!sum_alone(f, &terms[i], others)) return term_error;
  }
  Term t = terms[0];
  for (int i = 1; i < n; i++) {
    uint64_t later = keep;
    for (int j = i + 1; j < n; j++)
      later |= term_mask(&terms[j]);
    if (!multiply(f, s, &t, terms[i], later)) return term_error;
  }
  return t;
}

/* A product's factors by what becomes of them. */
typedef struct Factors {
  Term tensors[MAX_FACTORS];
  Term under[MAX_FACTORS];
  Term scale; /* the numbers' product */
  int n_tensors, n_under;
  bool scaled;
} Factors;

static bool eval_factors(Form *f, const Product *p, Factors *out) {
  for (int i = 0; i < p->n_over; i++) {
    Term t = eval_factor(f, p->over[i]);
    if (t.val.kind == VAL_ERROR) return false;
    if (t.val.kind == VAL_TENSOR)
      out->tensors[out->n_tensors++] = t;
    else
      out->scale =
          out->scaled ? combine(f, p->span, BIN_MUL, out->scale, t) : t;
    out->scaled |= t.val.kind != VAL_TENSOR;
  }
  for (int i = 0; i < p->n_under; i++) {
    Term t = eval_factor(f, p->under[i]);
    if (t.val.kind == VAL_ERROR) return false;
    out->under[out->n_under++] = t;
  }
  return true;
}

/* Divides before the sum where a divisor's letters are summed: a factor that
 * has them all, else the first. */
static void divide_early(Form *f, Span s, Factors *fs, uint64_t keep) {
  int left = 0;
  for (int i = 0; i < fs->n_under; i++) {
    uint64_t mask = term_mask(&fs->under[i]);
    int best = 0;
    if (!fs->n_tensors || !(mask & ~keep)) {
      fs->under[left++] = fs->under[i];
      continue;
    }
    for (int k = fs->n_tensors - 1; k >= 0; k--)
      if (!(mask & ~term_mask(&fs->tensors[k]))) best = k;
    fs->tensors[best] = combine(f, s, BIN_DIV, fs->tensors[best], fs->under[i]);
  }
  fs->n_under = left;
}

static Term eval_product(Form *f, const Expr *e) {
  Product p = {.span = e->span};
  Factors fs = {0};
  if (!add_factor(f, &p, e) || !eval_factors(f, &p, &fs)) return term_error;
  uint64_t keep = form_left(f);
  divide_early(f, p.span, &fs, keep);
  for (int i = 0; i < fs.n_tensors; i++)
    if (fs.tensors[i].val.kind == VAL_ERROR) return term_error;
  Term t = fs.scale;
  if (fs.n_tensors) {
    t = contract(f, p.span, fs.tensors, fs.n_tensors, keep);
    if (fs.scaled) t = combine(f, p.span, BIN_MUL, t, fs.scale);
  }
  for (int i = 0; i < fs.n_under; i++)
    t = combine(f, p.span, BIN_DIV, t, fs.under[i]);
  if (p.negative) t.val = fe_unary(f->S, p.span, UN_NEG, item_of(&t));
  return t;
}

static Term eval_sum_kind(Form *f, const Expr *e) {
  bool cond;
  if (e->kind == EX_BINARY &&
      (e->binary.op == BIN_ADD || e->binary.op == BIN_SUB)) {
    Term a = eval_sum(f, e->binary.a);
    return combine(f, e->span, e->binary.op, a, eval_sum(f, e->binary.b));
  }
  if (e->kind != EX_COND) return eval_product(f, e);
  if (!fe_eval_bool(f->S, e->cond.cond, "the condition", &cond))
    return term_error;
  return eval_sum(f, cond ? e->cond.yes : e->cond.no);
}

static Term eval_sum(Form *f, const Expr *e) {
  f->S->depth++;
  Term t = fe_step(f->S, e->span) ? eval_sum_kind(f, e) : term_error;
  f->S->depth--;
  return t;
}

/* ---- the statement ------------------------------------------------------- */

Val fe_index_form(Sema *S, const Target *target, const Expr *e) {
  Form *f = NEW(&S->cx->perm, Form);
  f->S = S;
  f->left = &target->subs;
  Span s = target->name.span;
  if (!form_read_left(f, s)) return val_error;
  Term t = eval_sum(f, e);
  if (t.val.kind == VAL_ERROR || !form_left_known(f, s)) return val_error;
  form_left(f);
  Item it = item_of(&t);
  t.val = val_tensor(fe_tensor(S, it));
  if (t.val.kind == VAL_ERROR) return val_error;
  return val_tensor(form_arrange(f, t, f->out, f->n_out));
}
