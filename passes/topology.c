/* topology.c: reads the description of a cluster, a line a fact:
 *
 *   # a comment, to the end of the line
 *   device       four cores of a Xeon       what people call it
 *   memory       20 GB
 *   bandwidth    85 GB/s                    of memory, reads and writes
 *   product f32  760 GFLOP/s                large products, by dtype
 *   elementwise  200 GFLOP/s                one operation each
 *   launch       3 us                       what each launch takes besides
 *   link shared    4 6 GB/s 20 us           joins groups of 4 neighbours
 *   link ethernet any 1.2 GB/s 50 us        any number of them
 *
 * A link's bandwidth is what one device sends over it at once, its latency what
 * each message takes besides its bytes. Links go from the inside out. What a
 * word may be followed by is in the table below. */
#include "planner.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- units --------------------------------------------------------------- */

static const double most = 1e9; /* of any unit */

typedef enum Quantity { Q_BYTES, Q_RATE, Q_FLOPS, Q_SECONDS } Quantity;

static const struct {
  Quantity q;
  const char *unit;
  double value;
} units[] = {
    {Q_BYTES, "MB", 1e6},        {Q_BYTES, "GB", 1e9},
    {Q_BYTES, "TB", 1e12},       {Q_BYTES, "MiB", 0x1p20},
    {Q_BYTES, "GiB", 0x1p30},    {Q_BYTES, "TiB", 0x1p40},
    {Q_RATE, "MB/s", 1e6},       {Q_RATE, "GB/s", 1e9},
    {Q_RATE, "TB/s", 1e12},      {Q_FLOPS, "GFLOP/s", 1e9},
    {Q_FLOPS, "TFLOP/s", 1e12},  {Q_FLOPS, "PFLOP/s", 1e15},
    {Q_SECONDS, "ns", 1e-9},     {Q_SECONDS, "us", 1e-6},
    {Q_SECONDS, "ms", 1e-3},
};

static const char *const quantity_names[] = {[Q_BYTES] = "a size",
                                             [Q_RATE] = "a rate",
                                             [Q_FLOPS] = "a rate",
                                             [Q_SECONDS] = "a time"};

/* "MB/s, GB/s or TB/s" */
static Sym units_text(Ctx *cx, Quantity q) {
  Buf b = {0};
  size_t last = 0, n = 0;
  for (size_t i = 0; i < COUNT_OF(units); i++)
    if (units[i].q == q) last = i;
  for (size_t i = 0; i <= last; i++)
    if (units[i].q == q)
      buf_fmt(&b, "%s%s", !n++ ? "" : i == last ? " or " : ", ",
              units[i].unit);
  Sym text = sym(cx, b.data);
  buf_free(&b);
  return text;
}

/* ---- words --------------------------------------------------------------- */

typedef struct Reader {
  Ctx *cx;
  uint32_t file;
  const char *text;
  uint32_t at, end; /* of what is left of the line */
  Topology *out;
} Reader;

typedef struct Word {
  Sym text; /* NULL: the line has ended */
  Span span;
} Word;

static Word next_word(Reader *r) {
  while (r->at < r->end && isspace((unsigned char)r->text[r->at]))
    r->at++;
  uint32_t lo = r->at;
  while (r->at < r->end && !isspace((unsigned char)r->text[r->at]))
    r->at++;
  Word w = {.span = {r->file, lo, r->at}};
  if (r->at > lo) w.text = sym_n(r->cx, r->text + lo, r->at - lo);
  return w;
}

static bool fail(Reader *r, Span at, const char *text) {
  diag_error(r->cx, at, "%s", text);
  return false;
}

/* A number above 0 and its unit, which may stand beside it: "20 GB", "20GB". */
static bool read_quantity(Reader *r, Quantity q, double *out) {
  Word w = next_word(r), unit;
  char *rest = NULL;
  double x = w.text ? strtod(w.text, &rest) : 0;
  if (!w.text || rest == w.text)
    return fail(r, w.span,
                sym_fmt(r->cx, "%s in %s should stand here",
                        quantity_names[q], units_text(r->cx, q)));
  if (!(x > 0) || x > most)
    return fail(r, w.span, sym_fmt(r->cx, "'%.*s' is not above 0 and at most "
                                          "%g",
                                   (int)(rest - w.text), w.text, most));
  uint32_t lo = w.span.lo + (uint32_t)(rest - w.text);
  unit = *rest ? (Word){sym(r->cx, rest), {r->file, lo, w.span.hi}}
               : next_word(r);
  for (size_t i = 0; unit.text && i < COUNT_OF(units); i++) {
    if (units[i].q != q || strcmp(units[i].unit, unit.text) != 0) continue;
    *out = x * units[i].value;
    return true;
  }
  return fail(r, unit.span,
              unit.text ? sym_fmt(r->cx, "'%s' is no unit here: %s", unit.text,
                                  units_text(r->cx, q))
                        : sym_fmt(r->cx, "a unit is missing: %s",
                                  units_text(r->cx, q)));
}

/* ---- facts --------------------------------------------------------------- */

/* Words with one quantity behind them; a needed one must be there. */
static const struct {
  const char *word;
  Quantity q;
  size_t field;
  bool needed;
} facts[] = {
    {"memory", Q_BYTES, offsetof(Topology, memory), true},
    {"bandwidth", Q_RATE, offsetof(Topology, bandwidth), true},
    {"elementwise", Q_FLOPS, offsetof(Topology, elementwise), true},
    {"launch", Q_SECONDS, offsetof(Topology, launch), false},
};

static double *field(Topology *t, size_t at) {
  return (double *)((char *)t + at);
}

static bool read_fact(Reader *r, Word w, size_t i) {
  double *to = field(r->out, facts[i].field);
  if (*to > 0)
    return fail(r, w.span, sym_fmt(r->cx, "'%s' is given twice", w.text));
  return read_quantity(r, facts[i].q, to);
}

static bool read_device(Reader *r, Word w) {
  while (r->at < r->end && isspace((unsigned char)r->text[r->at]))
    r->at++;
  while (r->end > r->at && isspace((unsigned char)r->text[r->end - 1]))
    r->end--;
  if (r->at == r->end) return fail(r, w.span, "a device without a name");
  if (r->out->device) return fail(r, w.span, "'device' is given twice");
  r->out->device = sym_n(r->cx, r->text + r->at, r->end - r->at);
  r->at = r->end;
  return true;
}

static bool read_product(Reader *r) {
  Word w = next_word(r);
  Dtype d = DT_bool;
  if (!w.text || !dtype_find(w.text, &d) || dtype_info[d].kind != DK_FLOAT)
    return fail(r, w.span, "a dtype of floats should stand here, as in "
                           "'product f32 20 TFLOP/s'");
  if (r->out->products[d] > 0)
    return fail(r, w.span, sym_fmt(r->cx, "products in %s are given twice",
                                   dtype_info[d].name));
  return read_quantity(r, Q_FLOPS, &r->out->products[d]);
}

static bool read_devices(Reader *r, int64_t inside, int64_t *out) {
  Word w = next_word(r);
  char *end = NULL;
  *out = 0;
  if (w.text && strcmp(w.text, "any") == 0) return true;
  long long n = w.text ? strtoll(w.text, &end, 10) : 0;
  if (!w.text || *end || n < 1 || n > MAX_RANKS)
    return fail(r, w.span, "how many devices it joins should stand here, or "
                           "'any'");
  *out = n;
  if (n <= inside || n % (inside ? inside : 1))
    return fail(r, w.span,
                sym_fmt(r->cx, "a link joins whole groups of the link before "
                               "it, of %lld devices",
                        (long long)inside));
  return true;
}

static bool read_link(Reader *r, Word at) {
  Topology *t = r->out;
  TopologyLink *l = &t->links[t->n_links];
  TopologyLink *before = t->n_links ? l - 1 : NULL;
  if (t->n_links == MAX_LINKS)
    return fail(r, at.span, sym_fmt(r->cx, "more than %d links", MAX_LINKS));
  if (before && !before->devices) {
    fail(r, at.span, "no link can follow one that joins any number");
    diag_note(r->cx, before->span, "it is here");
    return false;
  }
  Word name = next_word(r);
  if (!name.text) return fail(r, name.span, "a link without a name");
  *l = (TopologyLink){.name = name.text, .span = name.span};
  if (!read_devices(r, before ? before->devices : 0, &l->devices) ||
      !read_quantity(r, Q_RATE, &l->bandwidth) ||
      !read_quantity(r, Q_SECONDS, &l->latency))
    return false;
  t->n_links++;
  return true;
}

static bool read_line(Reader *r) {
  const char *names[COUNT_OF(facts) + 3] = {"device", "product", "link"};
  Word w = next_word(r);
  if (!w.text) return true;
  if (strcmp(w.text, "device") == 0) return read_device(r, w);
  if (strcmp(w.text, "product") == 0) return read_product(r);
  if (strcmp(w.text, "link") == 0) return read_link(r, w);
  for (size_t i = 0; i < COUNT_OF(facts); i++)
    if (strcmp(w.text, facts[i].word) == 0) return read_fact(r, w, i);
  for (size_t i = 0; i < COUNT_OF(facts); i++)
    names[3 + i] = facts[i].word;
  const char *near = nearest_word(w.text, names, COUNT_OF(names));
  return fail(r, w.span,
              near ? sym_fmt(r->cx, "a topology has no '%s'; did you mean "
                                    "'%s'?",
                             w.text, near)
                   : sym_fmt(r->cx, "a topology has no '%s'", w.text));
}

/* ---- the file ------------------------------------------------------------ */

static void check_all(Reader *r) {
  Topology *t = r->out;
  for (size_t i = 0; i < COUNT_OF(facts); i++)
    if (facts[i].needed && !(*field(t, facts[i].field) > 0))
      fail(r, t->span, sym_fmt(r->cx, "the topology lacks '%s'",
                               facts[i].word));
  if (!(t->products[DT_f32] > 0))
    fail(r, t->span, "the topology lacks 'product f32'");
}

bool topology_read(Ctx *cx, uint32_t file, Topology *out) {
  const Source *s = &cx->sources.data[file - 1];
  uint32_t errors = cx->errors;
  *out = (Topology){.name = s->path, .span = {file, 0, 0}};
  Reader r = {.cx = cx, .file = file, .text = s->text, .out = out};
  if (strlen(s->text) != s->len) return fail(&r, out->span, "not a text");
  for (uint32_t lo = 0; lo < s->len;) {
    uint32_t hi = lo + (uint32_t)strcspn(s->text + lo, "\n");
    r.at = lo;
    r.end = lo + (uint32_t)strcspn(s->text + lo, "#\n");
    lo = s->text[hi] ? hi + 1 : (uint32_t)s->len;
    if (!read_line(&r)) continue;
    Word more = next_word(&r);
    if (more.text)
      fail(&r, more.span, sym_fmt(cx, "'%s' is too much here", more.text));
  }
  if (cx->errors == errors) check_all(&r);
  if (!out->device) out->device = out->name;
  return cx->errors == errors;
}
