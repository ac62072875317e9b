/* source.c: what an input of an entry asks for: `text(shift=1)`, `text(mask)`,
 * `pairs.source`, `pairs.target(shift=1, share=dev)` ... */
#include "rt.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *p) {
  while (isspace((unsigned char)*p))
    p++;
  return p;
}

/* Takes `word` at *p, not as the start of a longer one. */
static bool take(const char **p, const char *word) {
  size_t len = strlen(word);
  const char *q = skip_space(*p);
  if (strncmp(q, word, len) != 0) return false;
  if (isalpha((unsigned char)word[0]) && isalnum((unsigned char)q[len]))
    return false;
  *p = q + len;
  return true;
}

static bool take_number(const char **p, int64_t *out) {
  char *end;
  if (!take(p, "=")) return false;
  *out = strtoll(*p, &end, 10);
  bool is_number = end != *p && *out >= 0;
  *p = end;
  return is_number;
}

/* "dev", "data*expert": axes of the mesh, the first outermost. */
static bool take_axes(const char **p, const MoertDesc *d, MoertCollective *k) {
  if (!take(p, "=")) return false;
  do {
    int axis = 0;
    while (axis < d->n_axes && !take(p, d->mesh[axis].name))
      axis++;
    if (axis == d->n_axes || k->n_axes == MOERT_MAX_MESH) return false;
    k->axes[k->n_axes++] = axis;
  } while (take(p, "*"));
  return true;
}

static bool take_argument(const char **p, const MoertDesc *d, RtSource *out) {
  if (take(p, "share")) return take_axes(p, d, &out->share);
  if (take(p, "mask")) return out->mask = true;
  if (take(p, "shift")) return take_number(p, &out->shift);
  if (take(p, "below")) return take_number(p, &out->below) && out->below > 0;
  return false;
}

static RtFrom take_from(const char **p) {
  static const char *const names[] = {[RT_FROM_TEXT] = "text",
                                      [RT_FROM_SOURCE] = "pairs.source",
                                      [RT_FROM_TARGET] = "pairs.target"};
  for (size_t i = RT_FROM_TEXT; i < COUNT_OF(names); i++)
    if (take(p, names[i])) return (RtFrom)i;
  return RT_FROM_ELSEWHERE;
}

/* False: arguments that are not understood. */
static bool parse(const char *p, const MoertDesc *d, RtSource *out) {
  *out = (RtSource){.below = INT32_MAX};
  out->from = take_from(&p);
  if (out->from == RT_FROM_ELSEWHERE) return true;
  if (take(&p, "(")) {
    do
      if (!take_argument(&p, d, out)) return false;
    while (take(&p, ","));
    if (!take(&p, ")")) return false;
  }
  return *skip_space(p) == 0;
}

MoertStatus rt_source_of(const MoertSession *s, const MoertEntry *e,
                         const MoertBinding *b, RtSource *out) {
  if (!parse(b->source, s->desc, out))
    return rt_fail(MOERT_UNSUPPORTED,
                   "entry %s: input '%s': this runtime does not know the "
                   "source '%s'",
                   e->name, b->name, b->source);
  if (out->from == RT_FROM_ELSEWHERE) return MOERT_OK;
  RtKind kind = out->mask ? RT_FLOAT : RT_INT;
  if (b->rank == 2 && rt_dtype[b->dtype].kind == kind) return MOERT_OK;
  return rt_fail(MOERT_INVALID,
                 "entry %s: input '%s' from %s must be %s[B, T]", e->name,
                 b->name, b->source, out->mask ? "f32" : "i32");
}

MoertStatus rt_source_share(const MoertSession *s, const RtSource *src,
                            int64_t *shares, int64_t *share) {
  const MoertDesc *d = s->desc;
  RtGroup g;
  MoertStatus st =
      rt_group_new(d->mesh, d->n_axes, &src->share, s->comm->rank, &g);
  *shares = g.n;
  *share = g.me;
  rt_group_free(&g);
  return st;
}
