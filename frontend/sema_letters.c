/* sema_letters.c: the letters of index form, and bringing tensors to an order
 * of letters.
 *
 * Letters are numbers here: the left side's first, in its order, then others as
 * they come. `..` counts as one letter for each dim that it stands for. */
#include "sema.h"

#include <string.h>

static uint64_t letter_bit(int letter) {
  return UINT64_C(1) << letter;
}

static uint64_t mask_of(const uint8_t *letters, int n) {
  uint64_t m = 0;
  for (int i = 0; i < n; i++)
    m |= letter_bit(letters[i]);
  return m;
}

uint64_t term_mask(const Term *t) {
  return mask_of(t->letters, t->n);
}

/* ---- letters ------------------------------------------------------------- */

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
int form_letter(Form *f, Sym name, Span s) {
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
bool form_bind(Form *f, int l, Dim d, Span s) {
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
    int l = form_letter(f, NULL, s);
    if (l < 0) return false;
    f->lead[i] = (uint8_t)l;
  }
  return true;
}

static bool add_letter(Form *f, Term *t, int l, Span s) {
  if (l < 0) return false;
  for (int i = 0; i < t->n; i++)
    if (t->letters[i] == l) {
      fe_error(f->S, s, "'%s' stands twice in one tensor", f->letters[l].name);
      return false;
    }
  t->letters[t->n++] = (uint8_t)l;
  return true;
}

/* How often `..` stands among subscripts, once at most; -1: they are no
 * letters, reported. */
static int count_leads(Form *f, const SubVec *subs) {
  int leads = 0;
  for (uint32_t i = 0; i < subs->len; i++) {
    const Sub *sub = &subs->data[i];
    bool letter = sub->kind == SUB_AT && sub->lo->kind == EX_NAME;
    leads += sub->kind == SUB_LEAD;
    if ((letter || sub->kind == SUB_LEAD) && leads <= 1) continue;
    fe_error(f->S, sub->span,
             leads > 1 ? "'..' may stand here only once"
                       : "in index form subscripts are letters");
    return -1;
  }
  return leads;
}

/* The letters of subscripts for a tensor of `rank` dims. */
bool form_read(Form *f, const SubVec *subs, int rank, Span s, Term *out) {
  int leads = count_leads(f, subs), named = (int)subs->len - leads;
  if (leads < 0) return false;
  if (leads ? rank < named : rank != named) {
    fe_error(f->S, s, "%u subscript%s for a tensor of %d dim%s", subs->len,
             subs->len == 1 ? "" : "s", rank, rank == 1 ? "" : "s");
    return false;
  }
  for (uint32_t i = 0; i < subs->len; i++) {
    const Sub *sub = &subs->data[i];
    if (sub->kind == SUB_AT) {
      if (!add_letter(f, out, form_letter(f, sub->lo->s, sub->span), sub->span))
        return false;
      continue;
    }
    if (!lead_bind(f, rank - named, sub->span)) return false;
    for (int l = 0; l < f->lead_n; l++)
      if (!add_letter(f, out, f->lead[l], sub->span)) return false;
  }
  return true;
}

/* ---- arranging dims ------------------------------------------------------ */

Sym form_map(Form *f, const Term *a, const Term *b, const uint8_t *out,
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

Type form_type(Form *f, Dtype dtype, const uint8_t *letters, int n) {
  Type t = {.dtype = dtype, .rank = (uint8_t)n};
  for (int i = 0; i < n; i++)
    t.dims[i] = f->letters[letters[i]].dim;
  return t;
}

/* `t` with exactly these letters in this order, repeated where it lacks one. */
Value *form_arrange(Form *f, Term t, const uint8_t *letters, int n) {
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
int form_order(Form *f, uint64_t mask, uint8_t *out) {
  int n = 0;
  for (int i = 0; i < f->n_out; i++)
    if (mask & letter_bit(f->out[i]))
      out[n++] = f->out[i], mask &= ~letter_bit(f->out[i]);
  for (int l = 0; l < f->n_letters; l++)
    if (mask & letter_bit(l)) {
      if (n == MAX_RANK) return -1;
      out[n++] = (uint8_t)l;
    }
  return n;
}

/* ---- the left side ------------------------------------------------------- */

/* The letters of the left side as far as they are known by now. */
uint64_t form_left(Form *f) {
  f->n_out = 0;
  for (uint32_t i = 0; i < f->left->len; i++) {
    const Sub *sub = &f->left->data[i];
    if (sub->kind == SUB_AT && f->n_out < MAX_RANK)
      f->out[f->n_out++] = (uint8_t)form_letter(f, sub->lo->s, sub->span);
    else if (sub->kind == SUB_LEAD)
      for (int l = 0; l < f->lead_n && f->n_out < MAX_RANK; l++)
        f->out[f->n_out++] = f->lead[l];
  }
  return mask_of(f->out, f->n_out);
}

/* Makes the letters of the left side the first ones. */
bool form_read_left(Form *f, Span s) {
  f->leads = count_leads(f, f->left);
  if (f->leads < 0) return false;
  for (uint32_t i = 0; i < f->left->len; i++) {
    const Sub *sub = &f->left->data[i];
    int before = f->n_letters;
    if (sub->kind == SUB_LEAD) continue;
    if (form_letter(f, sub->lo->s, sub->span) < before) {
      fe_error(f->S, sub->span, "'%s' stands twice on the left", sub->lo->s);
      return false;
    }
  }
  if (f->n_letters <= MAX_RANK) return true;
  fe_error(f->S, s, "more than %d dims", MAX_RANK);
  return false;
}

/* Every letter on the left must have got a size on the right. */
bool form_left_known(Form *f, Span s) {
  int rank = (int)f->left->len - f->leads + (f->leads ? f->lead_n : 0);
  if (rank > MAX_RANK) {
    fe_error(f->S, s, "more than %d dims", MAX_RANK);
    return false;
  }
  for (uint32_t i = 0; i < f->left->len; i++) {
    const Sub *sub = &f->left->data[i];
    bool lead = sub->kind == SUB_LEAD;
    int l = lead ? 0 : form_letter(f, sub->lo->s, sub->span);
    if (lead ? f->lead_known : f->letters[l].dim.size != 0) continue;
    fe_error(f->S, sub->span, "'%s' stands on the left only",
             lead ? ".." : sub->lo->s);
    return false;
  }
  return true;
}
