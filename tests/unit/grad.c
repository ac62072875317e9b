/* grad.c: gradients of single ops and of loops against central differences.
 *
 * A case is an entry in IR text that reports values of its inputs. `<..>` in it
 * is a dim: a sum of products of numbers and the letters A to F, which get
 * random sizes. An input's source says how it is drawn: "normal"; "positive",
 * in [0.5, 2]; "ids N", in [0, N); "first N", N first of a permutation a row.
 * The loss is a random weighing of all results; its gradient with respect to
 * every float input must equal central differences in f64, per tensor by norm,
 * with comparisons and choices the same at both points. The gradient, and what
 * `simplify` and its successors make of it, must agree too.
 *
 * Every op that has a derivative must occur in some case. */
#include "../../passes/pass.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 20, MAX_TRIES = 20 };
static const double STEP = 1e-5, LIMIT = 1e-6;

typedef struct Case {
  const char *name, *text;
} Case;

#define IN(name, type, source) "%" name ": " type " = input \"" source "\""

static const Case cases[] = {
    {"add, sub, mul, div",
     "(" IN("a", "f32[<A>, <B>]", "normal") ", "
     IN("b", "f32[<A>, <B>]", "positive") ") {\n"
     "  %c = add %a, %b : f32[<A>, <B>]\n"
     "  %d = sub %a, %b : f32[<A>, <B>]\n"
     "  %e = mul %c, %d : f32[<A>, <B>]\n"
     "  %f = div %e, %b : f32[<A>, <B>]\n"
     "  %g = mul %f, %f : f32[<A>, <B>]\n"
     "  return report \"g\" = %g, report \"f\" = %f\n}\n"},
    {"max, min, abs, neg, fma, select",
     "(" IN("a", "f32[<A>, <B>]", "normal") ", "
     IN("b", "f32[<A>, <B>]", "normal") ", "
     IN("c", "f32[<A>, <B>]", "normal") ") {\n"
     "  %d = max %a, %b : f32[<A>, <B>]\n"
     "  %e = min %d, %c : f32[<A>, <B>]\n"
     "  %f = abs %e : f32[<A>, <B>]\n"
     "  %g = neg %f : f32[<A>, <B>]\n"
     "  %h = fma %g, %a, %c : f32[<A>, <B>]\n"
     "  %p = lt %a, %c : bool[<A>, <B>]\n"
     "  %i = select %p, %h, %b : f32[<A>, <B>]\n"
     "  return report \"i\" = %i, report \"f\" = %f\n}\n"},
    {"exp, log, log1p, sqrt",
     "(" IN("a", "f32[<A>, <B>]", "positive") ") {\n"
     "  %b = log %a : f32[<A>, <B>]\n"
     "  %c = exp %b : f32[<A>, <B>]\n"
     "  %d = sqrt %c : f32[<A>, <B>]\n"
     "  %e = log1p %d : f32[<A>, <B>]\n"
     "  return report \"e\" = %e, report \"b\" = %b\n}\n"},
    {"tanh, sigmoid, erf",
     "(" IN("a", "f32[<A>, <B>]", "normal") ") {\n"
     "  %b = tanh %a : f32[<A>, <B>]\n"
     "  %c = sigmoid %a : f32[<A>, <B>]\n"
     "  %d = erf %a : f32[<A>, <B>]\n"
     "  %e = mul %b, %c : f32[<A>, <B>]\n"
     "  return report \"e\" = %e, report \"d\" = %d\n}\n"},
    {"cast",
     "(" IN("a", "f32[<A>]", "normal") ", "
     IN("n", "i32[<A>]", "ids 5") ") {\n"
     "  %b = cast %a : f64[<A>]\n"
     "  %c = mul %b, %b : f64[<A>]\n"
     "  %d = cast %c : f32[<A>]\n"
     "  %e = cast %n : f32[<A>]\n"
     "  %f = mul %d, %e : f32[<A>]\n"
     "  return report \"f\" = %f\n}\n"},
    {"stop_gradient",
     "(" IN("a", "f32[<A>]", "normal") ", "
     IN("b", "f32[<A>]", "fixed") ") {\n"
     "  %c = stop_gradient %b : f32[<A>]\n"
     "  %d = mul %a, %c : f32[<A>]\n"
     "  return report \"d\" = %d\n}\n"},
    {"annotate",
     "(" IN("a", "f32[<A>]", "normal") ") {\n"
     "  %b = annotate %a : f32[<A> @_]\n"
     "  %c = mul %a, %b : f32[<A>]\n"
     "  return report \"c\" = %c\n}\n"},
    {"broadcast, transpose, reshape",
     "(" IN("a", "f32[<A>, <B>]", "normal") ", "
     IN("s", "f32[]", "normal") ") {\n"
     "  %b = broadcast %a {map=\"ab->bca\"} : f32[<B>, <C>, <A>]\n"
     "  %c = transpose %b {map=\"bca->abc\"} : f32[<A>, <B>, <C>]\n"
     "  %d = mul %c, %c : f32[<A>, <B>, <C>]\n"
     "  %e = reshape %d : f32[<A*B>, <C>]\n"
     "  %f = broadcast %s {map=\"->xy\"} : f32[<A*B>, <C>]\n"
     "  %g = mul %e, %f : f32[<A*B>, <C>]\n"
     "  %h = broadcast %a {map=\"ab->ba\"} : f32[<B>, <A>]\n"
     "  return report \"g\" = %g, report \"h\" = %h\n}\n"},
    {"slice, concat, pad",
     "(" IN("a", "f32[<A>, <B+2>]", "normal") ", "
     IN("b", "f32[<A>, <C>]", "normal") ") {\n"
     "  %c = slice %a {dim=1, start=1, size=<B>} : f32[<A>, <B>]\n"
     "  %d = concat %b, %c, %b {dim=1} : f32[<A>, <B+2*C>]\n"
     "  %e = pad %d {dim=0, lo=1, hi=2} : f32[<A+3>, <B+2*C>]\n"
     "  %f = mul %e, %e : f32[<A+3>, <B+2*C>]\n"
     "  return report \"f\" = %f\n}\n"},
    {"slices of everything",
     "(" IN("a", "f32[<A>, 4, <B>]", "normal") ") {\n"
     "  %b = slice %a {dim=1, start=0, size=1} : f32[<A>, 1, <B>]\n"
     "  %c = slice %a {dim=1, start=1, size=2} : f32[<A>, 2, <B>]\n"
     "  %d = slice %a {dim=1, start=3, size=1} : f32[<A>, 1, <B>]\n"
     "  %e = mul %b, %d : f32[<A>, 1, <B>]\n"
     "  %f = tanh %c : f32[<A>, 2, <B>]\n"
     "  return report \"e\" = %e, report \"f\" = %f\n}\n"},
    {"gather, scatter_add",
     "(" IN("a", "f32[<A>, <B>]", "normal") ", "
     IN("i", "i32[<C>, <D>]", "ids <A>") ", "
     IN("j", "i32[<C>, <D>]", "ids <E>") ") {\n"
     "  %b = gather %a, %i : f32[<C>, <D>, <B>]\n"
     "  %c = mul %b, %b : f32[<C>, <D>, <B>]\n"
     "  %d = scatter_add %j, %c {rows=<E>} : f32[<E>, <B>]\n"
     "  %e = mul %d, %d : f32[<E>, <B>]\n"
     "  return report \"e\" = %e\n}\n"},
    {"take, put",
     "(" IN("a", "f32[<A>, <B>]", "normal") ", "
     IN("i", "i32[<A>, <C>]", "ids <B>") ", "
     IN("j", "i32[<A>, <C>]", "ids <D>") ") {\n"
     "  %b = take %a, %i : f32[<A>, <C>]\n"
     "  %c = mul %b, %b : f32[<A>, <C>]\n"
     "  %d = put %c, %j {size=<D>} : f32[<A>, <D>]\n"
     "  %e = mul %d, %d : f32[<A>, <D>]\n"
     "  return report \"e\" = %e\n}\n"},
    {"reduce_sum, reduce_max, reduce_min",
     "(" IN("a", "f32[<A>, <B>, <C>]", "normal") ") {\n"
     "  %b = reduce_sum %a {map=\"abc->ac\"} : f32[<A>, <C>]\n"
     "  %c = reduce_max %a {map=\"abc->b\"} : f32[<B>]\n"
     "  %d = reduce_min %a {map=\"abc->\"} : f32[]\n"
     "  %e = mul %b, %b : f32[<A>, <C>]\n"
     "  return report \"e\" = %e, report \"c\" = %c, report \"d\" = %d\n}\n"},
    {"cumsum",
     "(" IN("a", "f32[<A>, <B+1>]", "normal") ") {\n"
     "  %b = cumsum %a {exclusive=false, reverse=false} : f32[<A>, <B+1>]\n"
     "  %c = cumsum %b {exclusive=true, reverse=true} : f32[<A>, <B+1>]\n"
     "  %d = mul %c, %b : f32[<A>, <B+1>]\n"
     "  return report \"d\" = %d\n}\n"},
    {"top_k, sort",
     "(" IN("a", "f32[<A>, <B+3>]", "normal") ") {\n"
     "  %b, %i = top_k %a {k=3} : f32[<A>, 3], i32[<A>, 3]\n"
     "  %c, %j = sort %a : f32[<A>, <B+3>], i32[<A>, <B+3>]\n"
     "  %d = mul %b, %b : f32[<A>, 3]\n"
     "  %e = mul %c, %c : f32[<A>, <B+3>]\n"
     "  return report \"d\" = %d, report \"e\" = %e\n}\n"},
    {"contract",
     "(" IN("a", "f32[<A>, <B>, <C>]", "normal") ", "
     IN("w", "f32[<C>, <D>]", "normal") ", "
     IN("v", "f32[<A>, <B>]", "normal") ") {\n"
     "  %b = contract %a, %w {map=\"btd,dn->nbt\"} : f32[<D>, <A>, <B>]\n"
     "  %c = contract %b, %v {map=\"nbt,bt->bn\"} : f32[<A>, <D>]\n"
     "  %d = contract %c, %c {map=\"bn,cn->bc\"} : f32[<A>, <A>]\n"
     "  %e = contract %v, %v {map=\"ab,ab->\"} : f32[]\n"
     "  return report \"d\" = %d, report \"c\" = %c, report \"e\" = %e\n}\n"},
    {"contract with a broadcast, outer product",
     "(" IN("a", "f32[<A>]", "normal") ", "
     IN("w", "f32[<B>, <C>]", "normal") ") {\n"
     "  %b = broadcast %a {map=\"a->abd\"} : f32[<A>, <B>, <D>]\n"
     "  %c = contract %b, %w {map=\"abd,bc->cda\"} : f32[<C>, <D>, <A>]\n"
     "  %d = contract %a, %w {map=\"a,bc->cab\"} : f32[<C>, <A>, <B>]\n"
     "  %e = mul %d, %d : f32[<C>, <A>, <B>]\n"
     "  return report \"c\" = %c, report \"e\" = %e\n}\n"},
    {"dispatch, experts, combine",
     "(" IN("x", "f32[<A>, <B>, <C>]", "normal") ", "
     IN("ids", "i32[<A>, <B>, 2]", "first <D+1>") ", "
     IN("gates", "f32[<A>, <B>, 2]", "normal") ", "
     IN("w1", "f32[<D+1>, <C>, <E>]", "normal") ", "
     IN("w2", "f32[<D+1>, <E>, <C>]", "normal") ") {\n"
     "  %d = dispatch %x, %ids {experts=<D+1>} "
     ": f32[<D+1>, r<=<A*B*2>, <C>]\n"
     "  %h = contract %d, %w1 {map=\"nrd,ndh->nrh\"} "
     ": f32[<D+1>, r<=<A*B*2>, <E>]\n"
     "  %a = tanh %h : f32[<D+1>, r<=<A*B*2>, <E>]\n"
     "  %y = contract %a, %w2 {map=\"nrh,nhd->nrd\"} "
     ": f32[<D+1>, r<=<A*B*2>, <C>]\n"
     "  %z = combine %y, %ids, %gates : f32[<A>, <B>, <C>]\n"
     "  return report \"z\" = %z\n}\n"},
    {"dispatch that drops",
     "(" IN("x", "f32[<A>, <C>]", "normal") ", "
     IN("ids", "i32[<A>, 3]", "ids <D+1>") ", "
     IN("gates", "f32[<A>, 3]", "normal") ", "
     IN("w", "f32[<D>, <C>, <E>]", "normal") ", "
     IN("b", "f32[<E>]", "normal") ") {\n"
     "  %d = dispatch %x, %ids {experts=<D>, drops=true} "
     ": f32[<D>, r<=<A*3>, <C>]\n"
     "  %h = contract %d, %w {map=\"nrd,ndh->nrh\"} "
     ": f32[<D>, r<=<A*3>, <E>]\n"
     "  %c = broadcast %b {map=\"h->nrh\"} : f32[<D>, r<=<A*3>, <E>]\n"
     "  %k = add %h, %c : f32[<D>, r<=<A*3>, <E>]\n"
     "  %a = sigmoid %k : f32[<D>, r<=<A*3>, <E>]\n"
     "  %z = combine %a, %ids, %gates {drops=true} : f32[<A>, <E>]\n"
     "  %e = mul %z, %z : f32[<A>, <E>]\n"
     "  return report \"e\" = %e\n}\n"},
    {"dispatch with gates, combine without",
     "(" IN("x", "f32[<A>, <C>]", "normal") ", "
     IN("ids", "i32[<A>, 3]", "ids <D>") ", "
     IN("gates", "f32[<A>, 3]", "normal") ") {\n"
     "  %d = dispatch %x, %ids, %gates {experts=<D>} "
     ": f32[<D>, r<=<A*3>, <C>]\n"
     "  %a = mul %d, %d : f32[<D>, r<=<A*3>, <C>]\n"
     "  %z = combine %a, %ids : f32[<A>, <C>]\n"
     "  return report \"z\" = %z\n}\n"},
    {"row_dot",
     "(" IN("x", "f32[<A>, <C>]", "normal") ", "
     IN("d", "f32[<A>, <C>]", "normal") ", "
     IN("ids", "i32[<A>, 2]", "ids <D>") ") {\n"
     "  %y = dispatch %x, %ids {experts=<D>} : f32[<D>, r<=<A*2>, <C>]\n"
     "  %a = tanh %y : f32[<D>, r<=<A*2>, <C>]\n"
     "  %z = row_dot %a, %d, %ids : f32[<A>, 2]\n"
     "  %e = mul %z, %z : f32[<A>, 2]\n"
     "  return report \"e\" = %e\n}\n"},
    {"sums over rows",
     "(" IN("x", "f32[<A>, <C>]", "normal") ", "
     IN("b", "f32[<C>]", "normal") ", "
     IN("ids", "i32[<A>, 2]", "ids <D>") ") {\n"
     "  %y = dispatch %x, %ids {experts=<D>} : f32[<D>, r<=<A*2>, <C>]\n"
     "  %c = broadcast %b {map=\"d->nrd\"} : f32[<D>, r<=<A*2>, <C>]\n"
     "  %e = mul %y, %c : f32[<D>, r<=<A*2>, <C>]\n"
     "  %f = mul %e, %e : f32[<D>, r<=<A*2>, <C>]\n"
     "  %s = reduce_sum %f {map=\"nrd->nr\"} : f32[<D>, r<=<A*2>]\n"
     "  %g = contract %s, %y {map=\"nr,nrd->nd\"} : f32[<D>, <C>]\n"
     "  %h = reduce_sum %f {map=\"nrd->d\"} : f32[<C>]\n"
     "  return report \"g\" = %g, report \"h\" = %h\n}\n"},
    {"attention",
     "(" IN("q", "f32[<A>, <B>, <2*C>, <D>]", "normal") ", "
     IN("k", "f32[<A>, <E>, <C>, <D>]", "normal") ", "
     IN("v", "f32[<A>, <E>, <C>, <F>]", "normal") ") {\n"
     "  %a, %l = attention %q, %k, %v {causal=false, scale=0.7} "
     ": f32[<A>, <B>, <2*C>, <F>], f32[<A>, <B>, <2*C>]\n"
     "  %b = mul %a, %a : f32[<A>, <B>, <2*C>, <F>]\n"
     "  return report \"b\" = %b, report \"l\" = %l\n}\n"},
    {"attention, causal, with a mask",
     "(" IN("q", "f32[<A>, <B>, <C>, <D>]", "normal") ", "
     IN("k", "f32[<A>, <B+E>, <C>, <D>]", "normal") ", "
     IN("v", "f32[<A>, <B+E>, <C>, <F>]", "normal") ", "
     IN("i", "i32[<A>, <B+E>]", "ids 3") ") {\n"
     "  %zero = const {value=0} : i32[<A>, <B+E>]\n"
     "  %m = ne %i, %zero : bool[<A>, <B+E>]\n"
     "  %a, %l = attention %q, %k, %v, %m {causal=true, scale=0.5} "
     ": f32[<A>, <B>, <C>, <F>], f32[<A>, <B>, <C>]\n"
     "  %b = tanh %a : f32[<A>, <B>, <C>, <F>]\n"
     "  return report \"b\" = %b\n}\n"},
    {"attention in a loop, logarithms only",
     "(" IN("q", "f32[<C>, <B>, 1, <D>]", "normal") ", "
     IN("k", "f32[<E>, 1, <D>]", "normal") ") {\n"
     "  %ys = scan %q, %k {carries=0, scanned=1, length=<C>, reverse=false} "
     "(%t: i32[], %qq: f32[<B>, 1, <D>], %kk: f32[<E>, 1, <D>]) {\n"
     "    %a, %l = attention %qq, %kk, %kk {causal=false, scale=1} "
     ": f32[<B>, 1, <D>], f32[<B>, 1]\n"
     "    yield %l\n"
     "  } : f32[<C>, <B>, 1]\n"
     "  return report \"y\" = %ys\n}\n"},
    {"scan: carry, scanned, invariant, stacked",
     "(" IN("h0", "f32[<A>, <B>]", "normal") ", "
     IN("xs", "f32[<C>, <A>, <D>]", "normal") ", "
     IN("w", "f32[<D>, <B>]", "normal") ", "
     IN("u", "f32[<B>, <B>]", "normal") ", "
     IN("bias", "f32[<B>]", "normal") ") {\n"
     "  %hn, %ys = scan %h0, %xs, %w, %u, %bias {carries=1, scanned=1, "
     "length=<C>, reverse=false} (%t: i32[], %h: f32[<A>, <B>], "
     "%x: f32[<A>, <D>], %ww: f32[<D>, <B>], %uu: f32[<B>, <B>], "
     "%bb: f32[<B>]) {\n"
     "    %zx = contract %x, %ww {map=\"bd,dn->bn\"} : f32[<A>, <B>]\n"
     "    %zh = contract %h, %uu {map=\"bm,mn->bn\"} : f32[<A>, <B>]\n"
     "    %z = add %zx, %zh : f32[<A>, <B>]\n"
     "    %bc = broadcast %bb {map=\"n->bn\"} : f32[<A>, <B>]\n"
     "    %zb = add %z, %bc : f32[<A>, <B>]\n"
     "    %h1 = tanh %zb : f32[<A>, <B>]\n"
     "    yield %h1, %h1\n"
     "  } : f32[<A>, <B>], f32[<C>, <A>, <B>]\n"
     "  return report \"hn\" = %hn, report \"ys\" = %ys\n}\n"},
    {"scan: reverse, index, two carries, idle parts",
     "(" IN("a0", "f32[<A>]", "normal") ", "
     IN("b0", "f32[<A>]", "normal") ", "
     IN("n0", "i32[]", "ids 3") ", "
     IN("xs", "f32[<C>, <A>]", "normal") ", "
     IN("k", "f32[<A>]", "normal") ") {\n"
     "  %an, %bn, %nn, %ys, %zs = scan %a0, %b0, %n0, %xs, %k {carries=3, "
     "scanned=1, length=<C>, reverse=true} (%t: i32[], %a: f32[<A>], "
     "%b: f32[<A>], %n: i32[], %x: f32[<A>], %kk: f32[<A>]) {\n"
     "    %tf = cast %t : f32[]\n"
     "    %tb = broadcast %tf {map=\"->a\"} : f32[<A>]\n"
     "    %p = mul %a, %kk : f32[<A>]\n"
     "    %q = add %p, %x : f32[<A>]\n"
     "    %a1 = tanh %q : f32[<A>]\n"
     "    %r = mul %b, %tb : f32[<A>]\n"
     "    %b1 = add %r, %x : f32[<A>]\n"
     "    %s = mul %x, %kk : f32[<A>]\n"
     "    %one = const {value=1} : i32[]\n"
     "    %n1 = add %n, %one : i32[]\n"
     "    yield %a1, %b1, %n1, %s, %a\n"
     "  } : f32[<A>], f32[<A>], i32[], f32[<C>, <A>], f32[<C>, <A>]\n"
     "  return report \"ys\" = %ys, report \"zs\" = %zs, report \"b\" = %bn, "
     "report \"n\" = %nn\n}\n"},
    {"scan in scan",
     "(" IN("h0", "f32[<A>]", "normal") ", "
     IN("xs", "f32[<C>, <D>, <A>]", "normal") ", "
     IN("w", "f32[<A>, <A>]", "normal") ") {\n"
     "  %hn, %ys = scan %h0, %xs, %w {carries=1, scanned=1, length=<C>, "
     "reverse=false} (%t: i32[], %h: f32[<A>], %x: f32[<D>, <A>], "
     "%ww: f32[<A>, <A>]) {\n"
     "    %g0 = tanh %h : f32[<A>]\n"
     "    %g, %zs = scan %g0, %x, %ww, %h {carries=1, scanned=1, length=<D>, "
     "reverse=true} (%s: i32[], %p: f32[<A>], %xx: f32[<A>], "
     "%w2: f32[<A>, <A>], %hh: f32[<A>]) {\n"
     "      %q = contract %p, %w2 {map=\"a,ab->b\"} : f32[<A>]\n"
     "      %r = mul %q, %xx : f32[<A>]\n"
     "      %v = add %r, %hh : f32[<A>]\n"
     "      %p1 = sigmoid %v : f32[<A>]\n"
     "      yield %p1, %r\n"
     "    } : f32[<A>], f32[<D>, <A>]\n"
     "    %z = reduce_sum %zs {map=\"da->a\"} : f32[<A>]\n"
     "    yield %g, %z\n"
     "  } : f32[<A>], f32[<C>, <A>]\n"
     "  return report \"hn\" = %hn, report \"ys\" = %ys\n}\n"},
    {"scan with routing and a recompute group",
     "(" IN("h0", "f32[<A>, <B>]", "normal") ", "
     IN("ids", "i32[<C>, <A>, 2]", "ids <D>") ", "
     IN("w", "f32[<D>, <B>, <B>]", "normal") ") {\n"
     "  %hn, %ys = scan %h0, %ids, %w {carries=1, scanned=1, length=<C>, "
     "reverse=false} (%t: i32[], %h: f32[<A>, <B>], %i: i32[<A>, 2], "
     "%ww: f32[<D>, <B>, <B>]) {\n"
     "    %d = dispatch %h, %i {experts=<D>} : f32[<D>, r<=<A*2>, <B>]\n"
     "    %e = contract %d, %ww {map=\"nrd,ndh->nrh\"} "
     ": f32[<D>, r<=<A*2>, <B>]\n"
     "    %f = tanh %e : f32[<D>, r<=<A*2>, <B>]\n"
     "    %g = combine %f, %i : f32[<A>, <B>]\n"
     "    %s = sigmoid %g : f32[<A>, <B>] remat(1)\n"
     "    %q = mul %s, %s : f32[<A>, <B>] remat(1)\n"
     "    %h1 = add %q, %h : f32[<A>, <B>]\n"
     "    yield %h1, %q\n"
     "  } : f32[<A>, <B>], f32[<C>, <A>, <B>]\n"
     "  return report \"hn\" = %hn, report \"ys\" = %ys\n}\n"},
    {"scan over rows from outside",
     "(" IN("x", "f32[<A>, <B>]", "normal") ", "
     IN("ids", "i32[<A>, 2]", "ids <D>") ", "
     IN("w", "f32[<C>, <B>]", "normal") ") {\n"
     "  %d = dispatch %x, %ids {experts=<D>} : f32[<D>, r<=<A*2>, <B>]\n"
     "  %hn = scan %x, %w, %d, %ids {carries=1, scanned=1, length=<C>, "
     "reverse=false} (%t: i32[], %h: f32[<A>, <B>], %v: f32[<B>], "
     "%r: f32[<D>, r<=<A*2>, <B>], %i: i32[<A>, 2]) {\n"
     "    %a = broadcast %v {map=\"d->nrd\"} : f32[<D>, r<=<A*2>, <B>]\n"
     "    %b = mul %a, %r : f32[<D>, r<=<A*2>, <B>]\n"
     "    %e = tanh %b : f32[<D>, r<=<A*2>, <B>]\n"
     "    %g = combine %e, %i : f32[<A>, <B>]\n"
     "    %s = sigmoid %h : f32[<A>, <B>]\n"
     "    %h1 = add %s, %g : f32[<A>, <B>]\n"
     "    yield %h1\n"
     "  } : f32[<A>, <B>]\n"
     "  return report \"hn\" = %hn\n}\n"},
    {"recompute group, random mask",
     "(" IN("x", "f32[<A>, <B>]", "normal") ", %seed: u32[] = seed) {\n"
     "  %i = iota {dim=1} : u32[<A>, <B>]\n"
     "  %k = broadcast %seed {map=\"->ab\"} : u32[<A>, <B>]\n"
     "  %o = const {value=0} : u32[<A>, <B>]\n"
     "  %p = threefry %k, %i, %o, %o {site=3} : u32[<A>, <B>]\n"
     "  %u = uniform %p : f32[<A>, <B>]\n"
     "  %c = const {value=0.5} : f32[<A>, <B>]\n"
     "  %m = lt %c, %u : bool[<A>, <B>]\n"
     "  %z = const {value=0} : f32[<A>, <B>]\n"
     "  %a = tanh %x : f32[<A>, <B>] remat(1)\n"
     "  %b = mul %a, %a : f32[<A>, <B>] remat(1)\n"
     "  %d = exp %b : f32[<A>, <B>] remat(1)\n"
     "  %e = select %m, %d, %z : f32[<A>, <B>]\n"
     "  return report \"e\" = %e\n}\n"},
};

/* ---- text with dims ---------------------------------------------------- */

static uint64_t state;

static uint64_t bits(void) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static double uniform(void) { return (double)(bits() >> 11) * 0x1p-53; }

static double normal(void) {
  return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

static int64_t factor(const char **p, const int64_t *dims) {
  if (isupper((unsigned char)**p)) return dims[*(*p)++ - 'A'];
  return strtoll(*p, (char **)p, 10);
}

static int64_t product(const char **p, const int64_t *dims) {
  int64_t v = factor(p, dims);
  while (**p == '*') {
    ++*p;
    v *= factor(p, dims);
  }
  return v;
}

static void instantiate(const char *text, const int64_t *dims, Buf *out) {
  while (*text) {
    bool is_dim = *text == '<' && text[1] != '=';
    if (!is_dim) {
      buf_add_n(out, text++, 1);
      continue;
    }
    int64_t v = 0;
    do {
      text++;
      v += product(&text, dims);
    } while (*text == '+');
    assert(*text == '>');
    text++;
    buf_fmt(out, "%lld", (long long)v);
  }
}

/* ---- a loss and its gradient ------------------------------------------- */

typedef struct Probe {
  Ctx cx;
  Module *m;
  Entry *e;        /* results: loss, then the gradient of each wrt */
  uint32_t wrt[8]; /* parameters, by position */
  uint32_t n_wrt;
  Tensor *ins[16];
  Tensor *outs[16];
  Arena a;
  uint64_t choices; /* hash of all integers computed */
} Probe;

static bool is_float(const Value *v) {
  return dtype_info[v->type.dtype].kind == DK_FLOAT;
}

/* sum of all results, each times a fixed pattern of weights */
static Value *weigh(Builder *b, const ValueVec *results) {
  Value *loss = ir_const(b, type_scalar(DT_f32), 0);
  for (uint32_t i = 0; i < results->len; i++) {
    Value *v = results->data[i];
    if (!is_float(v)) continue;
    int64_t n = type_elements(&v->type);
    Value *at = ir_iota(b, type_of(DT_f32, 1, &n), 0);
    Value *w = ir_unary(
        b, OP_sigmoid,
        ir_binary(b, OP_sub, at,
                  ir_const_like(b, at, 0.3 * (double)n + (double)i)));
    Value *flat = ir_reshape(b, v, type_of(DT_f32, 1, &n));
    loss = ir_binary(b, OP_add, loss, ir_contract(b, flat, w, "a,a->"));
  }
  return loss;
}

/* Replaces the entry's results by the loss and its gradients. */
static void add_gradients(Probe *p) {
  Region *r = p->e->region;
  Builder b = ir_builder(&p->cx, r);
  Value *ins[9] = {weigh(&b, &r->results)};
  for (uint32_t i = 0; i < r->params.len; i++) {
    const char *source = p->e->ins.data[i].source;
    if (!is_float(r->params.data[i]) || strcmp(source, "fixed") == 0)
      continue;
    assert(p->n_wrt < COUNT_OF(p->wrt));
    p->wrt[p->n_wrt++] = i;
    ins[p->n_wrt] = r->params.data[i];
  }
  Node *g = ir_node(&b, OP_grad, NULL, ins, p->n_wrt + 1, NULL);
  p->e->outs.len = r->results.len = 0;
  ir_bind_out(p->e, (Binding){.kind = BIND_REPORT, .name = sym(&p->cx, "l")},
              ins[0]);
  for (uint32_t i = 0; i < p->n_wrt; i++)
    ir_bind_out(p->e,
                (Binding){.kind = BIND_REPORT,
                          .name = sym_fmt(&p->cx, "g%u", i)},
                g->outs.data[i]);
}

static bool probe_open(Probe *p, const Case *c, const int64_t *dims) {
  Buf text = {0};
  *p = (Probe){0};
  buf_fmt(&text, "moec-ir 1\nentry @f");
  instantiate(c->text, dims, &text);
  uint32_t file = source_add(&p->cx, c->name, text.data, text.len);
  p->m = ir_read(&p->cx, file);
  buf_free(&text);
  if (!p->m) {
    diag_print(&p->cx, stdout);
    return false;
  }
  p->e = p->m->entries.data[0];
  add_gradients(p);
  return true;
}

static void probe_close(Probe *p) {
  arena_reset(&p->a);
  ctx_free(&p->cx);
}

/* ---- inputs ------------------------------------------------------------ */

static void draw_ids(Tensor *t, int64_t n) {
  for (int64_t i = 0; i < type_elements(&t->type); i++)
    t->data[i] = (double)(bits() % (uint64_t)n);
}

/* Each row of the last dim holds different ids. */
static void draw_first(Tensor *t, int64_t n) {
  int64_t k = t->type.dims[t->type.rank - 1].size, pool[64];
  assert(n <= 64 && k <= n);
  for (int64_t row = 0; row < type_elements(&t->type); row += k) {
    for (int64_t i = 0; i < n; i++)
      pool[i] = i;
    for (int64_t i = 0; i < k; i++) {
      int64_t j = i + (int64_t)(bits() % (uint64_t)(n - i)), picked = pool[j];
      pool[j] = pool[i];
      t->data[row + i] = (double)picked;
    }
  }
}

static void draw(Tensor *t, const char *source) {
  if (strncmp(source, "ids ", 4) == 0) {
    draw_ids(t, strtoll(source + 4, NULL, 10));
  } else if (strncmp(source, "first ", 6) == 0) {
    draw_first(t, strtoll(source + 6, NULL, 10));
  } else {
    bool positive = strcmp(source, "positive") == 0;
    for (int64_t i = 0; i < type_elements(&t->type); i++)
      t->data[i] = positive ? 0.5 + 1.5 * uniform() : normal();
  }
}

static void draw_inputs(Probe *p) {
  for (uint32_t i = 0; i < p->e->ins.len; i++) {
    const Binding *b = &p->e->ins.data[i];
    p->ins[i] = tensor_new(&p->a, p->e->region->params.data[i]->type);
    if (b->kind == BIND_SEED)
      p->ins[i]->data[0] = 7;
    else
      draw(p->ins[i], b->source);
  }
}

/* ---- evaluation -------------------------------------------------------- */

static void note_choices(void *user, const Node *n, const Tensor *const *ins,
                         Tensor *const *outs) {
  Probe *p = user;
  (void)ins;
  for (uint32_t i = 0; i < n->outs.len; i++)
    if (!is_float(n->outs.data[i]))
      p->choices = hash_bytes(p->choices, outs[i]->data,
                              sizeof(double) *
                                  (size_t)type_elements(&outs[i]->type));
}

static void run(Probe *p) {
  Eval ev = {.cx = &p->cx, .mode = EVAL_F64, .hook = note_choices, .user = p};
  p->choices = 0;
  if (ir_eval(&ev, p->e, p->ins, p->outs, &p->a))
    internal_error("ids outside of their table");
}

/* The loss with one element moved; false when a choice changed. */
static bool loss_at(Probe *p, double *x, double to, uint64_t choices,
                    double *out) {
  double was = *x;
  *x = to;
  run(p);
  *x = was;
  *out = p->outs[0]->data[0];
  return p->choices == choices;
}

static double distance(const double *a, const double *b, int64_t n) {
  double diff = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    diff += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  return sqrt(diff) / (sqrt(size) + 1e-12);
}

/* Central differences by tensor `k`: the forward program is in `f`, analytic
 * gradients in g->outs. -1: a choice changed between the two points. */
static double error_of(Probe *f, const Probe *g, uint32_t k) {
  const Tensor *grad = g->outs[k + 1];
  double *x = f->ins[f->wrt[k]]->data;
  int64_t n = type_elements(&grad->type);
  double *numeric = NEW_ARRAY(&f->a, double, (size_t)n + 1);
  run(f);
  uint64_t choices = f->choices;
  for (int64_t i = 0; i < n; i++) {
    double up, down;
    if (!loss_at(f, &x[i], x[i] + STEP, choices, &up) ||
        !loss_at(f, &x[i], x[i] - STEP, choices, &down))
      return -1;
    numeric[i] = (up - down) / (2 * STEP);
  }
  return distance(numeric, grad->data, n);
}

/* ---- checks ------------------------------------------------------------ */

static int failures;

static bool report(const char *name, bool ok, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static bool report(const char *name, bool ok, const char *fmt, ...) {
  if (ok) return true;
  va_list args;
  va_start(args, fmt);
  printf("not ok grad %s: ", name);
  vprintf(fmt, args);
  printf("\n");
  va_end(args);
  failures++;
  return false;
}

/* Passes after autodiff change no value beyond rounding. */
static bool same_after(const char *name, Probe *g, PassFn *pass,
                       const char *pass_name) {
  Tensor *before[16];
  memcpy(before, g->outs, sizeof before);
  pass(g->m, &(PassOptions){.precision = DT_f64});
  if (!ir_verify(g->m, false)) {
    diag_print(&g->cx, stdout);
    return report(name, false, "%s breaks the program", pass_name);
  }
  run(g);
  for (uint32_t i = 0; i <= g->n_wrt; i++) {
    double e = distance(before[i]->data, g->outs[i]->data,
                        type_elements(&before[i]->type));
    if (!report(name, e < 1e-12, "result %u differs by %g after %s", i, e,
                pass_name))
      return false;
  }
  return true;
}

static bool check_passes(const char *name, Probe *g) {
  static const struct {
    PassFn *run;
    const char *name;
  } passes[] = {{pass_simplify, "simplify"},
                {pass_hoist, "hoist"},
                {pass_simplify, "simplify"},
                {pass_recompute, "recompute"},
                {pass_simplify, "simplify"}};
  for (size_t i = 0; i < COUNT_OF(passes); i++)
    if (!same_after(name, g, passes[i].run, passes[i].name)) return false;
  return true;
}

/* f stays without gradients: their nodes are dropped with the grad op. */
static void forward_only(Probe *f) {
  f->e->region->results.len = f->e->outs.len = 1;
  ir_sweep(f->e);
}

/* 1: passed, 0: failed, -1: drawn too near to a corner. */
static int check_once(const Case *c, const int64_t *dims, bool early) {
  Probe f, g;
  int ok = 0;
  if (!probe_open(&f, c, dims) || !probe_open(&g, c, dims))
    return report(c->name, false, "does not parse");
  forward_only(&f);
  PassOptions o = {.precision = DT_f64};
  if (early && pass_simplify(g.m, &o)) pass_hoist(g.m, &o);
  if (!pass_autodiff(g.m, &o) || !ir_verify(g.m, false)) {
    diag_print(&g.cx, stdout);
    return report(c->name, false, "autodiff fails");
  }
  draw_inputs(&f);
  memcpy(g.ins, f.ins, sizeof f.ins);
  run(&g);
  ok = 1;
  for (uint32_t k = 0; k < f.n_wrt && ok == 1; k++) {
    double e = error_of(&f, &g, k);
    if (e < 0)
      ok = -1;
    else if (!report(c->name, e < LIMIT, "gradient of %s is off by %g",
                     g.e->region->params.data[g.wrt[k]]->name, e))
      ok = 0;
  }
  if (ok == 1) ok = check_passes(c->name, &g);
  probe_close(&g);
  probe_close(&f);
  return ok;
}

static void check_case(const Case *c) {
  for (int seed = 0; seed < SEEDS; seed++) {
    int ok = -1;
    for (int try = 0; try < MAX_TRIES && ok < 0; try++) {
      int64_t dims[6];
      state = (uint64_t)(seed * 1000 + try);
      for (size_t i = 0; i < COUNT_OF(dims); i++)
        dims[i] = 1 + (int64_t)(bits() % 4);
      ok = check_once(c, dims, seed % 2);
    }
    if (!report(c->name, ok >= 0, "every draw is near to a corner") || !ok)
      return;
  }
  printf("ok grad %s\n", c->name);
}

/* ---- every op has a case ----------------------------------------------- */

static void mark_ops(const Region *r, bool *seen) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    seen[r->nodes.data[i]->op] = true;
    if (r->nodes.data[i]->body) mark_ops(r->nodes.data[i]->body, seen);
  }
}

static void check_coverage(void) {
  bool seen[OP_COUNT] = {false};
  const int64_t dims[] = {2, 2, 2, 2, 2, 2};
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Probe p;
    if (probe_open(&p, &cases[i], dims)) {
      forward_only(&p);
      mark_ops(p.e->region, seen);
    }
    probe_close(&p);
  }
  bool all = true;
  for (OpKind op = 0; op < OP_COUNT; op++)
    if (vjp_rules[op] != vjp_zero && vjp_rules[op] != vjp_none)
      all &= report("of every op", seen[op], "no case has %s",
                    op_info[op].name);
  if (all) printf("ok grad of every op\n");
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    check_case(&cases[i]);
  check_coverage();
  return failures != 0;
}
