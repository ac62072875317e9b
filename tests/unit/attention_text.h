/* attention_text.h: a module with attentions, forward and back. */
#include "../../ir/ir.h"

#include <string.h>

enum { ATTENTION_SIZES = 7 };

/* B sequences of T queries and U keys, H heads of queries, G of keys, D wide,
 * values E wide. Letters behind a $ are sizes, F is the operands' dtype, S that
 * of sums; K is the kind, M and C what it says. */
static const char attention_head[] =
    "moec-ir 1\n"
    "entry @f(%q: $F[$B, $T, $H, $D] = input \"q\", "
    "%k: $F[$B, $U, $G, $D] = input \"k\", "
    "%v: $F[$B, $U, $G, $E] = input \"v\", "
    "%d: $F[$B, $T, $H, $E] = input \"d\", "
    "%t: $S[$B, $T, $H] = input \"t\", %m: bool[$B, $U] = input \"m\") {\n";
static const char attention_kind[] =
    "  %o$K, %l$K = attention %q, %k, %v$M {causal=$C, scale=0.4}"
    " : $S[$B, $T, $H, $E], $S[$B, $T, $H]\n"
    "  %q$K, %k$K, %v$K = attention_grad %q, %k, %v, %d, %l$K, %t$M"
    " {causal=$C, scale=0.4}"
    " : $S[$B, $T, $H, $D], $S[$B, $U, $G, $D], $S[$B, $U, $G, $E]\n";
static const char attention_end[] =
    "probe \"o$K\" = %o$K, probe \"q$K\" = %q$K, probe \"k$K\" = %k$K, "
    "probe \"v$K\" = %v$K";

static void attention_fill(const char *text, const int *sizes,
                           const char *dtype, char kind, Buf *out) {
  static const char letters[] = "BTUHGDE";
  bool causal = kind == 'b' || kind == 'c', masked = kind >= 'c';
  Dtype d;
  if (!dtype_find(dtype, &d)) internal_error("no dtype %s", dtype);
  for (const char *c = text; *c; c++) {
    if (*c != '$') {
      buf_add_n(out, c, 1);
      continue;
    }
    switch (*++c) {
    case 'F': buf_add(out, dtype); break;
    case 'S': buf_add(out, dtype_info[dtype_info[d].sums].name); break;
    case 'K': buf_add_n(out, &kind, 1); break;
    case 'M': buf_add(out, masked ? ", %m" : ""); break;
    case 'C': buf_add(out, causal ? "true" : "false"); break;
    default: buf_fmt(out, "%d", sizes[strchr(letters, *c) - letters]);
    }
  }
}

/* `kinds`: letters, a for one over all keys, b a causal one, c and d the causal
 * one and the other with a mask. */
static void attention_text(const int *sizes, const char *dtype,
                           const char *kinds, Buf *out) {
  attention_fill(attention_head, sizes, dtype, 'a', out);
  for (const char *k = kinds; *k; k++)
    attention_fill(attention_kind, sizes, dtype, *k, out);
  for (const char *k = kinds; *k; k++) {
    buf_add(out, k == kinds ? "  return " : ", ");
    attention_fill(attention_end, sizes, dtype, *k, out);
  }
  buf_add(out, "\n}\n");
}

static void attention_name(char out[160], const char *how, const int *s,
                           const char *dtype) {
  snprintf(out, 160,
           "attention %s: %d times %d by %d, %d of %d heads, %d wide, values "
           "%d, %s",
           how, s[0], s[1], s[2], s[3], s[4], s[5], s[6], dtype);
}
