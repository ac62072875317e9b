/* sema_index.c: index form, let y[.., n] = x[.., d] * w[d, n] + b[n].
 *
 * The right side is a sum of terms, a term a product of factors. Letters that
 * the left side lacks are summed, term by term: a letter of one factor only by
 * a reduction, one of several by contracting the factors pairwise from the
 * left. Inside of a factor (functions, brackets, divisors) everything is
 * elementwise over the union of the letters.
 *
 * Letters are numbers here: `..` counts as one letter a dim it stands for. */
#include "sema.h"

#include <string.h>

enum { MAX_LETTERS = 52, MAX_FACTORS = 16 };

typedef struct Letter {
  Sym name; /* NULL: a dim of `..` */
  char in_map;
  Dim dim;
  Span span; /* the tensor that gave it its size */
} Letter;

/* A tensor whose dims are letters, or a number. */
typedef struct Term {
  Val val; /* VAL_TENSOR with `n` letters, or a number */
  int n;
  uint8_t letters[MAX_RANK];
  Span span;
} Term;

typedef struct Form {
  Sema *S;
  Letter letters[MAX_LETTERS];
  int n_letters;
  bool lead_known;
  int lead_n;
  uint8_t lead[MAX_RANK];
  Span lead_span;
  const SubVec *left;
  uint8_t out[MAX_RANK]; /* the left side's letters, see settle_left */
  int n_out;
} Form;

static const Term term_error = {.val = {.kind = VAL_ERROR}};

static uint64_t bit(int letter) { return UINT64_C(1) << letter; }

static uint64_t mask_of(const uint8_t *letters, int n) {
  uint64_t m = 0;
  for (int i = 0; i < n; i++)
    m |= bit(letters[i]);
  return m;
}

static uint64_t term_mask(const Term *t) { return mask_of(t->letters, t->n); }

/* ---- letters ----------------------------------------------------------------------- */

static char free_char(const Form *f, Sym name) {
  char used[128] = {0};
  for (int i = 0; i < f->n_letters; i++)
    used[(int)f->letters[i].in_map] = 1;
  if (name && !name[1] && name[0] >= 'a' && name[0] <= 'z' &&
      !used[(int)name[0]])
    return name[0];
  for (const char *c = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
       *c; c++)
    if (!used[(int)*c]) return *c;
  internal_error("an index form uses every letter");
}

/* A letter by name, a new one if need be; -1: too many, reported. */
static int letter_of(Form *f, Sym name, Span s) {
  for (int i = 0; name && i < f->n_letters; i++)
    if (f->letters[i].name == name) return i;
  if (f->n_letters == MAX_LETTERS) {
    fe_error(f->S, s, "more than %d letters in one index form", MAX_LETTERS);
    return -1;
  }
  f->letters[f->n_letters] =
      (Letter){.name = name, .in_map = free_char(f, name)};
  return f->n_letters++;
}

/* Gives letter `l` its size, or compares. */
static bool letter_bind(Form *f, int l, Dim d, Span s) {
  Letter *letter = &f->letters[l];
  if (!letter->dim.size) {
    letter->dim = d;
    letter->span = s;
    return true;
  }
  if (letter->dim.size == d.size && letter->dim.ragged == d.ragged) return true;
  const char *kind[] = {"", "r<="};
  fe_error(f->S, s, "'%s' is %s%lld here, but %s%lld before",
           letter->name ? letter->name : "..", kind[d.ragged],
           (long long)d.size, kind[letter->dim.ragged],
           (long long)letter->dim.size);
  fe_note(f->S, letter->span, "it got its size here");
  return false;
}

/* The letters that `..` stands for: `n` of them. */
static bool lead_bind(Form *f, int n, Span s) {
  if (f->lead_known) {
    if (f->lead_n == n) return true;
    fe_error(f->S, s, "'..' stands for %d dims here, but for %d before", n,
             f->lead_n);
    fe_note(f->S, f->lead_span, "it got its dims here");
    return false;
  }
  f->lead_known = true;
  f->lead_n = n;
  f->lead_span = s;
  for (int i = 0; i < n; i++) {
    int l = letter_of(f, NULL, s);
    if (l < 0) return false;
    f->lead[i] = (uint8_t)l;
  }
  return true;
}

static bool add_letter(Form *f, Term *t, int l, Span s) {
  if (l < 0) return false;
  for (int i = 0; i < t->n; i++)
    if (t->letters[i] == l) {
      fe_error(f->S, s, "'%s' stands twice in one tensor",
               f->letters[l].name);
      return false;
    }
  t->letters[t->n++] = (uint8_t)l;
  return true;
}

/* The letters of subscripts for a tensor of `rank` dims. */
static bool read_letters(Form *f, const SubVec *subs, int rank, Span s,
                         Term *out) {
  int leads = 0;
  for (uint32_t i = 0; i < subs->len; i++) {
    const Sub *sub = &subs->data[i];
    bool letter = sub->kind == SUB_AT && sub->lo->kind == EX_NAME;
    if (!letter && sub->kind != SUB_LEAD) {
      fe_error(f->S, sub->span, "in index form subscripts are letters");
      return false;
    }
    leads += sub->kind == SUB_LEAD;
  }
  int named = (int)subs->len - leads;
  if (leads > 1 || (leads ? rank < named : rank != named)) {
    fe_error(f->S, s, "%u subscript%s for a tensor of %d dim%s", subs->len,
             subs->len == 1 ? "" : "s", rank, rank == 1 ? "" : "s");
    return false;
  }
  for (uint32_t i = 0; i < subs->len; i++) {
    const Sub *sub = &subs->data[i];
    if (sub->kind == SUB_AT) {
      if (!add_letter(f, out, letter_of(f, sub->lo->s, sub->span), sub->span))
        return false;
      continue;
    }
    if (!lead_bind(f, rank - named, sub->span)) return false;
    for (int l = 0; l < f->lead_n; l++)
      if (!add_letter(f, out, f->lead[l], sub->span)) return false;
  }
  return true;
}

/* ---- arranging dims -------------------------------------------------------------------- */

static Sym form_map(Form *f, const Term *a, const Term *b, const uint8_t *out,
                    int n_out) {
  IndexMap m = {.n_ins = b ? 2 : 1};
  for (int i = 0; i < a->n; i++)
    m.ins[0][i] = f->letters[a->letters[i]].in_map;
  for (int i = 0; b && i < b->n; i++)
    m.ins[1][i] = f->letters[b->letters[i]].in_map;
  for (int i = 0; i < n_out; i++)
    m.out[i] = f->letters[out[i]].in_map;
  return map_text(f->S->cx, &m);
}

static Type form_type(Form *f, Dtype dtype, const uint8_t *letters, int n) {
  Type t = {.dtype = dtype, .rank = (uint8_t)n};
  for (int i = 0; i < n; i++)
    t.dims[i] = f->letters[letters[i]].dim;
  return t;
}

/* `t` with exactly these letters in this order, repeated where it lacks one. */
static Value *arrange(Form *f, Term t, const uint8_t *letters, int n) {
  Value *v = t.val.tensor;
  if (t.n == n && memcmp(t.letters, letters, (size_t)n) == 0) return v;
  bool moved = t.n == n;
  Type to = form_type(f, v->type.dtype, letters, n);
  Sym map = form_map(f, &t, NULL, letters, n);
  Node *node = fe_node(f->S, t.span, moved ? OP_transpose : OP_broadcast,
                       moved ? NULL : &to, &v, 1, "map", map, NULL);
  return node ? node->outs.data[0] : NULL;
}

/* Letters of `mask` in the order of the left side, then the others. */
static int ordered(Form *f, uint64_t mask, uint8_t *out) {
  int n = 0;
  for (int i = 0; i < f->n_out; i++)
    if (mask & bit(f->out[i])) out[n++] = f->out[i], mask &= ~bit(f->out[i]);
  for (int l = 0; l < f->n_letters; l++)
    if (mask & bit(l)) {
      if (n == MAX_RANK) return -1;
      out[n++] = (uint8_t)l;
    }
  return n;
}

/* ---- elementwise factors ------------------------------------------------------------------ */

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
    out->n = ordered(f, mask, out->letters);
  }
  if (out->n < 0) {
    fe_error(f->S, s, "more than %d dims", MAX_RANK);
    return false;
  }
  for (uint32_t i = 0; i < n; i++) {
    if (terms[i].val.kind != VAL_TENSOR) continue;
    Value *v = arrange(f, terms[i], out->letters, out->n);
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
  if (!read_letters(f, &e->index.subs, type->rank, e->span, &t))
    return term_error;
  for (int i = 0; i < t.n; i++)
    if (!letter_bind(f, t.letters[i], type->dims[i], e->span))
      return term_error;
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
  case EX_ERROR: case EX_INT: case EX_FLOAT: case EX_BOOL: case EX_STRING:
  case EX_NAME: case EX_SCAN: case EX_FOR: break;
  }
  return eval_plain_factor(f, e);
}

static Term eval_factor(Form *f, const Expr *e) {
  f->S->depth++;
  Term t = fe_step(f->S, e->span) ? eval_factor_kind(f, e) : term_error;
  f->S->depth--;
  return t;
}

/* ---- terms ------------------------------------------------------------------------------- */

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
    if (keep & bit(t->letters[i])) out[n++] = t->letters[i];
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
  out.n = ordered(f, all & keep, out.letters);
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
      out->scale = out->scaled ? combine(f, p->span, BIN_MUL, out->scale, t) : t;
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
    fs->tensors[best] =
        combine(f, s, BIN_DIV, fs->tensors[best], fs->under[i]);
  }
  fs->n_under = left;
}

/* The letters of the left side as far as they are known by now. */
static uint64_t settle_left(Form *f) {
  f->n_out = 0;
  for (uint32_t i = 0; i < f->left->len; i++) {
    const Sub *sub = &f->left->data[i];
    if (sub->kind == SUB_AT && f->n_out < MAX_RANK)
      f->out[f->n_out++] = (uint8_t)letter_of(f, sub->lo->s, sub->span);
    else if (sub->kind == SUB_LEAD)
      for (int l = 0; l < f->lead_n && f->n_out < MAX_RANK; l++)
        f->out[f->n_out++] = f->lead[l];
  }
  return mask_of(f->out, f->n_out);
}

static Term eval_product(Form *f, const Expr *e) {
  Product p = {.span = e->span};
  Factors fs = {0};
  if (!add_factor(f, &p, e) || !eval_factors(f, &p, &fs)) return term_error;
  uint64_t keep = settle_left(f);
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

/* ---- the statement -------------------------------------------------------------------------- */

static bool read_left(Form *f, const Target *target) {
  int leads = 0;
  for (uint32_t i = 0; i < target->subs.len; i++) {
    const Sub *sub = &target->subs.data[i];
    bool letter = sub->kind == SUB_AT && sub->lo->kind == EX_NAME;
    leads += sub->kind == SUB_LEAD;
    if ((!letter && sub->kind != SUB_LEAD) || leads > 1) {
      fe_error(f->S, sub->span, letter || leads > 1
                                    ? "'..' may stand here only once"
                                    : "on the left, subscripts are letters");
      return false;
    }
    if (!letter) continue;
    int before = f->n_letters;
    letter_of(f, sub->lo->s, sub->span);
    if (f->n_letters == before) {
      fe_error(f->S, sub->span, "'%s' stands twice on the left", sub->lo->s);
      return false;
    }
  }
  if ((int)target->subs.len - leads <= MAX_RANK) return true;
  fe_error(f->S, target->name.span, "more than %d dims", MAX_RANK);
  return false;
}

/* Every letter on the left must have got a size on the right. */
static bool left_is_known(Form *f, const Target *target) {
  bool lead = false;
  for (uint32_t i = 0; i < target->subs.len; i++)
    lead |= target->subs.data[i].kind == SUB_LEAD;
  if ((int)target->subs.len - lead + (lead ? f->lead_n : 0) > MAX_RANK) {
    fe_error(f->S, target->name.span, "more than %d dims", MAX_RANK);
    return false;
  }
  for (uint32_t i = 0; i < target->subs.len; i++) {
    const Sub *sub = &target->subs.data[i];
    bool known = sub->kind == SUB_LEAD
                     ? f->lead_known
                     : f->letters[letter_of(f, sub->lo->s, sub->span)].dim.size;
    if (known) continue;
    fe_error(f->S, sub->span, "'%s' stands on the left only",
             sub->kind == SUB_LEAD ? ".." : sub->lo->s);
    return false;
  }
  return true;
}

Val fe_index_form(Sema *S, const Target *target, const Expr *e) {
  Form *f = NEW(&S->cx->perm, Form);
  f->S = S;
  f->left = &target->subs;
  if (!read_left(f, target)) return val_error;
  Term t = eval_sum(f, e);
  if (t.val.kind == VAL_ERROR || !left_is_known(f, target)) return val_error;
  settle_left(f);
  Item it = item_of(&t);
  t.val = val_tensor(fe_tensor(S, it));
  if (t.val.kind == VAL_ERROR) return val_error;
  return val_tensor(arrange(f, t, f->out, f->n_out));
}
