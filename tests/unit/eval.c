/* eval.c: the interpreter, op by op, against values worked out by hand, and its
 * f32 arithmetic against the machine's. */
#include "../../ir/ir.h"
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- cases --------------------------------------------------------------- */

/* An entry with parameters %a, %b, ... of the types in `ins`, its nodes, and
 * the values to look at; numbers of its operands and of those values in order,
 * '|' between tensors. */
typedef struct Case {
  const char *name, *ins, *nodes, *results, *operands, *expected;
  uint32_t clamped;
} Case;

/* 0 to 63; two rows of them pair by pair; two columns, one after the other. */
#define COUNTED \
  "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 " \
  "25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 " \
  "47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63"
#define PAIRED \
  "0 32 1 33 2 34 3 35 4 36 5 37 6 38 7 39 8 40 9 41 10 42 11 43 12 " \
  "44 13 45 14 46 15 47 16 48 17 49 18 50 19 51 20 52 21 53 22 54 23 " \
  "55 24 56 25 57 26 58 27 59 28 60 29 61 30 62 31 63"
#define BY_COLUMN \
  "0 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 32 34 36 38 40 42 44 " \
  "46 48 50 52 54 56 58 60 62 1 3 5 7 9 11 13 15 17 19 21 23 25 27 " \
  "29 31 33 35 37 39 41 43 45 47 49 51 53 55 57 59 61 63"

static const Case cases[] = {
    /* scalar bodies */
    {"add wraps", "i32[2] i32[2]", "%y = add %a, %b : i32[2]", "%y",
     "2147483647 3 | 1 4", "-2147483648 7", 0},
    {"sub wraps", "u32[2] u32[2]", "%y = sub %a, %b : u32[2]", "%y",
     "0 9 | 1 4", "4294967295 5", 0},
    {"mul wraps", "u32[2] u32[2]", "%y = mul %a, %b : u32[2]", "%y",
     "3528531795 65536 | 3449720151 65536", "4094450741 0", 0},
    {"mul wraps signed", "i32[2] i32[2]", "%y = mul %a, %b : i32[2]", "%y",
     "65536 -3 | 32768 7", "-2147483648 -21", 0},
    {"mulhi", "u32[3] u32[3]", "%y = mulhi %a, %b : u32[3]", "%y",
     "4294967295 65536 3 | 4294967295 65536 4", "4294967294 1 0", 0},
    {"div of integers", "i32[5] i32[5]", "%y = div %a, %b : i32[5]", "%y",
     "7 -7 7 5 -2147483648 | 2 2 -2 0 -1", "3 -3 -3 0 -2147483648", 0},
    {"div of floats", "f32[3] f32[3]", "%y = div %a, %b : f32[3]", "%y",
     "1 1 0 | 4 0 0", "0.25 inf nan", 0},
    {"rem", "i32[5] i32[5]", "%y = rem %a, %b : i32[5]", "%y",
     "7 -7 7 5 -2147483648 | 3 3 -3 0 -1", "1 -1 1 0 0", 0},
    {"max", "f32[4] f32[4]", "%y = max %a, %b : f32[4]", "%y",
     "1 5 nan 2 | 3 2 7 nan", "3 5 7 nan", 0},
    {"min", "f32[4] f32[4]", "%y = min %a, %b : f32[4]", "%y",
     "1 5 nan 2 | 3 2 7 nan", "1 2 7 nan", 0},
    {"fma rounds once", "f32[1] f32[1] f32[1]", "%y = fma %a, %b, %c : f32[1]",
     "%y", "1.00000011920928955 | 1.00000011920928955 | -1.0000002384185791",
     "1.4210854715202004e-14", 0},
    {"neg abs", "i32[2]", "%x = neg %a : i32[2]\n%y = abs %a : i32[2]", "%x %y",
     "-2147483648 5", "-2147483648 -5 | -2147483648 5", 0},
    {"sqrt floor", "f32[3]", "%x = sqrt %a : f32[3]\n%y = floor %a : f32[3]",
     "%x %y", "2 -0.5 6.25", "1.41421354 nan 2.5 | 2 -1 6", 0},
    {"exp log log1p", "f32[2]",
     "%x = exp %a : f32[2]\n%y = log %a : f32[2]\n%z = log1p %a : f32[2]",
     "%x %y %z", "1 0", "2.71828175 1 | 0 -inf | 0.693147182 0", 0},
    {"tanh erf sigmoid", "f32[2]",
     "%x = tanh %a : f32[2]\n%y = erf %a : f32[2]\n%z = sigmoid %a : f32[2]",
     "%x %y %z", "0.5 -1000", "0.462117165 -1 | 0.520499885 -1 | 0.622459352 0",
     0},
    {"normal uniform", "u32[3]",
     "%x = normal %a : f32[3]\n%y = uniform %a : f32[3]", "%x %y",
     "0 2147483648 4294967295",
     "-5.41998339 7.4703344e-08 5.41998339 | 0 0.5 0.999999940395355", 0},
    {"comparisons", "f32[3] f32[3]",
     "%x = lt %a, %b : bool[3]\n%y = le %a, %b : bool[3]\n"
     "%z = eq %a, %b : bool[3]\n%w = ne %a, %b : bool[3]",
     "%x %y %z %w", "1 2 nan | 2 2 nan", "1 0 0 | 1 1 0 | 0 1 0 | 1 0 1", 0},
    {"bits of integers", "u32[2] u32[2]",
     "%x = and %a, %b : u32[2]\n%y = or %a, %b : u32[2]\n"
     "%z = xor %a, %b : u32[2]\n%w = not %a : u32[2]",
     "%x %y %z %w", "12 4294967295 | 10 1",
     "8 1 | 14 4294967295 | 6 4294967294 | 4294967283 0", 0},
    {"bits of bools", "bool[4] bool[4]",
     "%x = and %a, %b : bool[4]\n%y = or %a, %b : bool[4]\n"
     "%z = xor %a, %b : bool[4]\n%w = not %a : bool[4]",
     "%x %y %z %w", "0 0 1 1 | 0 1 0 1",
     "0 0 0 1 | 0 1 1 1 | 0 1 1 0 | 1 1 0 0", 0},
    {"shifts of u32", "u32[4] u32[4]",
     "%x = shl %a, %b : u32[4]\n%y = shr %a, %b : u32[4]", "%x %y",
     "3 3 2147483648 5 | 1 31 31 32", "6 2147483648 0 0 | 1 0 1 0", 0},
    {"shifts of i32", "i32[4] i32[4]",
     "%x = shl %a, %b : i32[4]\n%y = shr %a, %b : i32[4]", "%x %y",
     "3 -8 -8 8 | 30 1 40 40", "-1073741824 -16 0 0 | 0 -4 -1 0", 0},
    {"is_finite select", "f32[4]",
     "%x = is_finite %a : bool[4]\n%z = const {value=0} : f32[4]\n"
     "%y = select %x, %a, %z : f32[4]",
     "%x %y", "1 inf -inf nan", "1 0 0 0 | 1 0 0 0", 0},
    {"cast to integers", "f32[6]",
     "%x = cast %a : i32[6]\n%y = cast %a : u32[6]\n%z = cast %a : bool[6]",
     "%x %y %z", "1.9 -1.9 3000000000 -inf nan 1e20",
     "1 -1 2147483647 -2147483648 0 2147483647 |"
     "1 0 3000000000 0 0 4294967295 | 1 1 1 1 1 1",
     0},
    {"cast of integers", "i32[3]",
     "%x = cast %a : u32[3]\n%y = cast %a : bool[3]\n%z = cast %a : f32[3]",
     "%x %y %z", "-1 0 16777217",
     "4294967295 0 16777217 | 1 0 1 | "
     "-1 0 16777216",
     0},
    {"cast to bf16", "f32[5]", "%x = cast %a : bf16[5]", "%x",
     "1.00390625 1.01171875 3.3e38 1e39 1e-40",
     "1 1.015625 3.29648543e38 inf 9.18355e-41", 0},
    {"bitcast", "f32[3] u32[1]",
     "%x = bitcast %a : u32[3]\n%y = bitcast %b : f32[1]\n"
     "%z = bitcast %b : i32[1]",
     "%x %y %z", "1 -0.0 inf | 3212836864",
     "1065353216 2147483648 2139095040 | -1 | -1082130432", 0},
    {"threefry, zeros", "u32[]",
     "%y = threefry %a, %a, %a, %a {site=0} : u32[]", "%y", "0", "0x638fe962",
     0},
    {"threefry, ones", "u32[]",
     "%y = threefry %a, %a, %a, %a {site=4294967295} : u32[]", "%y",
     "4294967295", "0x884861c6", 0},
    {"threefry, digits of pi", "u32[] u32[] u32[] u32[]",
     "%y = threefry %a, %b, %c, %d {site=698298832} : u32[]", "%y",
     "0xa4093822 | 0x243f6a88 | 0x85a308d3 | 0x13198a2e", "0x5d5a41bc", 0},

    /* making and moving data */
    {"const iota", "f32[]",
     "%x = const {value=0.1} : f32[2]\n%y = iota {dim=1} : i32[2, 3]\n"
     "%z = iota {dim=0} : f32[2, 3]",
     "%x %y %z", "0", "0.100000001 0.100000001 | 0 1 2 0 1 2 | 0 0 0 1 1 1", 0},
    {"broadcast", "f32[2]",
     "%x = broadcast %a {map=\"d->bd\"} : f32[2, 2]\n"
     "%y = broadcast %a {map=\"d->db\"} : f32[2, 3]",
     "%x %y", "1 2", "1 2 1 2 | 1 1 1 2 2 2", 0},
    {"broadcast with reordered dims", "f32[2, 3]",
     "%x = broadcast %a {map=\"ab->bca\"} : f32[3, 2, 2]", "%x", "1 2 3 4 5 6",
     "1 4 1 4 2 5 2 5 3 6 3 6", 0},
    {"transpose reshape", "f32[2, 3]",
     "%x = transpose %a {map=\"ab->ba\"} : f32[3, 2]\n"
     "%y = reshape %x : f32[6]",
     "%x %y", "1 2 3 4 5 6", "1 4 2 5 3 6 | 1 4 2 5 3 6", 0},
    {"slice concat pad", "f32[2, 3]",
     "%x = slice %a {dim=1, start=1, size=2} : f32[2, 2]\n"
     "%y = concat %a, %x {dim=1} : f32[2, 5]\n"
     "%z = pad %x {dim=0, lo=1, hi=0} : f32[3, 2]",
     "%x %y %z", "1 2 3 4 5 6", "2 3 5 6 | 1 2 3 2 3 4 5 6 5 6 | 0 0 2 3 5 6",
     0},
    {"gather", "f32[3, 2] i32[2, 2]", "%x = gather %a, %b : f32[2, 2, 2]", "%x",
     "1 2 3 4 5 6 | 2 0 1 1", "5 6 1 2 3 4 3 4", 0},
    {"gather clamps", "f32[3] i32[3]", "%x = gather %a, %b : f32[3]", "%x",
     "1 2 3 | -1 1 7", "1 2 3", 2},
    {"scatter_add", "i32[3] f32[3, 2]",
     "%x = scatter_add %a, %b {rows=3} : f32[3, 2]", "%x",
     "2 0 2 | 1 2 3 4 5 6", "3 4 0 0 6 8", 0},
    {"take put", "f32[2, 3] i32[2, 2]",
     "%x = take %a, %b : f32[2, 2]\n%y = put %x, %b {size=3} : f32[2, 3]",
     "%x %y", "1 2 3 4 5 6 | 2 0 1 1", "3 1 5 5 | 1 0 3 0 10 0", 0},
    {"put clamps", "f32[2] i32[2]", "%x = put %a, %b {size=2} : f32[2]", "%x",
     "3 4 | -5 9", "3 4", 2},
    {"pack", "f32[2, 32] f32[32, 2]",
     "%x = pack %a {group=1, turned=false} : f32[1, 2, 32, 1]\n"
     "%y = pack %a {group=2, turned=false} : f32[1, 1, 32, 2]\n"
     "%z = pack %b {group=1, turned=true} : f32[1, 2, 32, 1]\n"
     "%w = pack %b {group=2, turned=true} : f32[1, 1, 32, 2]",
     "%x %y %z %w", COUNTED " | " COUNTED,
     COUNTED " | " PAIRED " | " BY_COLUMN " | " COUNTED, 0},

    /* sums and orders */
    {"reductions", "f32[2, 3]",
     "%x = reduce_sum %a {map=\"ab->b\"} : f32[3]\n"
     "%y = reduce_max %a {map=\"ab->a\"} : f32[2]\n"
     "%z = reduce_min %a {map=\"ab->\"} : f32[]",
     "%x %y %z", "1 -2 3 4 5 -6", "5 3 -3 | 3 5 | -6", 0},
    {"a sum is rounded once", "f32[3]",
     "%x = reduce_sum %a {map=\"a->\"} : f32[]", "%x", "16777216 1 1",
     "16777218", 0},
    {"cumsum", "f32[2, 3]",
     "%x = cumsum %a {exclusive=false, reverse=false} : f32[2, 3]\n"
     "%y = cumsum %a {exclusive=true, reverse=false} : f32[2, 3]\n"
     "%z = cumsum %a {exclusive=false, reverse=true} : f32[2, 3]\n"
     "%w = cumsum %a {exclusive=true, reverse=true} : f32[2, 3]",
     "%x %y %z %w", "1 2 3 4 5 6",
     "1 3 6 4 9 15 | 0 1 3 0 4 9 | 6 5 3 15 11 6 | 5 3 0 11 6 0", 0},
    {"top_k", "f32[2, 4]", "%x, %y = top_k %a {k=3} : f32[2, 3], i32[2, 3]",
     "%x %y", "1 3 3 2 nan -inf 0 nan", "3 3 2 0 -inf nan | 1 2 3 2 1 0", 0},
    {"sort", "f32[5]", "%x, %y = sort %a : f32[5], i32[5]", "%x %y",
     "nan 2 nan 2 7", "7 2 2 nan nan | 4 1 3 0 2", 0},
    {"contract", "f32[2, 3] f32[3, 2]",
     "%x = contract %a, %b {map=\"mk,kn->mn\"} : f32[2, 2]\n"
     "%y = contract %a, %b {map=\"mk,kn->nm\"} : f32[2, 2]",
     "%x %y", "1 2 3 4 5 6 | 1 0 0 1 1 1", "4 5 10 11 | 4 10 5 11", 0},
    {"contract of bf16 gives f32", "bf16[1, 2] bf16[2, 1]",
     "%x = contract %a, %b {map=\"mk,kn->mn\"} : f32[1, 1]", "%x",
     "1.0078125 1 | 1.0078125 256", "257.015686", 0},
    {"contract, batched, sum to a scalar, outer", "f32[2, 2] f32[2, 2]",
     "%x = contract %a, %b {map=\"bk,bk->b\"} : f32[2]\n"
     "%y = contract %a, %b {map=\"ab,ab->\"} : f32[]\n"
     "%z = contract %x, %x {map=\"a,b->ab\"} : f32[2, 2]",
     "%x %y %z", "1 2 3 4 | 1 1 2 2", "3 14 | 17 | 9 42 42 196", 0},

    /* routing: 3 tokens, 2 choices, 3 experts; expert 1 has no rows */
    {"route", "i32[3, 2]",
     "%x, %y, %z = route %a {experts=3} : i32[4], i32[3, 2], i32[6]",
     "%x %y %z", "2 0 0 2 0 2", "0 3 3 6 | 3 0 1 4 2 5 | 1 2 4 0 3 5", 0},
    {"route clamps", "i32[2, 1]",
     "%x, %y, %z = route %a {experts=2} : i32[3], i32[2, 1], i32[2]",
     "%x %y %z", "5 -1", "0 1 2 | 1 0 | 1 0", 2},
    {"dispatch combine row_dot", "f32[3, 1] i32[3, 2] f32[3, 2]",
     "%x = dispatch %a, %b {experts=3} : f32[3, r<=6, 1]\n"
     "%y = combine %x, %b, %c : f32[3, 1]\n"
     "%z = row_dot %x, %a, %b : f32[3, 2]\n"
     "%w = dispatch %a, %b, %c {experts=3} : f32[3, r<=6, 1]\n"
     "%v = combine %w, %b : f32[3, 1]",
     "%x %y %z %w %v", "1 2 3 | 2 0 0 2 0 2 | 10 20 30 40 50 60",
     "1 2 3 1 2 3 | 30 140 330 | 1 1 4 4 9 9 |"
     "20 60 150 10 80 180 | 30 140 330",
     0},
    {"choices that are dropped", "f32[3, 1] i32[3, 2] f32[3, 2]",
     "%x = dispatch %a, %b {experts=2, drops=true} : f32[2, r<=6, 1]\n"
     "%y = combine %x, %b, %c {drops=true} : f32[3, 1]\n"
     "%z = row_dot %x, %a, %b {drops=true} : f32[3, 2]\n"
     "%w = exp %x : f32[2, r<=6, 1]\n"
     "%v = reduce_sum %w {map=\"nrd->d\"} : f32[1]\n"
     "%u = reduce_max %x {map=\"nrd->d\"} : f32[1]",
     "%x %y %z %v %u", "-1 -2 0 | 2 0 0 2 1 2 | 10 20 30 40 50 60",
     "-1 -2 0 0 0 0 | -20 -60 0 | 0 1 4 0 0 0 | 1.50321472 | 0", 0},
    {"rows_gather rows_combine rows_dot", "f32[3, 1] i32[3, 2] f32[3, 2]",
     "%o, %s, %r = route %b {experts=3} : i32[4], i32[3, 2], i32[6]\n"
     "%x = rows_gather %a, %r, %o {choices=2} : f32[3, r<=6, 1]\n"
     "%y = rows_combine %x, %s, %c : f32[3, 1]\n"
     "%z = rows_dot %x, %a, %s : f32[3, 2]\n"
     "%w = rows_gather %a, %r, %o, %c {choices=2} : f32[3, r<=6, 1]\n"
     "%v = rows_combine %w, %s : f32[3, 1]",
     "%x %y %z %w %v", "1 2 3 | 2 0 0 2 0 2 | 10 20 30 40 50 60",
     "1 2 3 1 2 3 | 30 140 330 | 1 1 4 4 9 9 |"
     "20 60 150 10 80 180 | 30 140 330",
     0},
    {"ragged contractions and sums", "f32[3, 1] i32[3, 2] f32[3, 1, 2]",
     "%d = dispatch %a, %b {experts=3} : f32[3, r<=6, 1]\n"
     "%x = contract %d, %c {map=\"nrd,ndh->nrh\"} : f32[3, r<=6, 2]\n"
     "%y = contract %d, %x {map=\"nrd,nrh->ndh\"} : f32[3, 1, 2]\n"
     "%z = reduce_sum %x {map=\"nrh->nh\"} : f32[3, 2]\n"
     "%w = reduce_sum %x {map=\"nrh->n\"} : f32[3]\n"
     "%v = reduce_sum %x {map=\"nrh->nr\"} : f32[3, r<=6]\n"
     "%u = contract %d, %x {map=\"nrd,nrh->dh\"} : f32[1, 2]",
     "%x %y %z %w %v %u", "1 2 3 | 2 0 0 2 0 2 | 1 10 5 5 2 20",
     "1 10 2 20 3 30 2 20 4 40 6 60 | 14 140 0 0 28 280 |"
     "6 60 0 0 12 120 | 66 0 132 | 11 22 33 22 44 66 | 42 420",
     0},
    {"ragged contraction after expand", "f32[3, 1] i32[3, 2] f32[3, 1, 2]",
     "%o, %s, %r = route %b {experts=3} : i32[4], i32[3, 2], i32[6]\n"
     "%d = rows_gather %a, %r, %o {choices=2} : f32[3, r<=6, 1]\n"
     "%x = contract %d, %c {map=\"nrd,ndh->nrh\"} : f32[3, r<=6, 2]",
     "%x", "1 2 3 | 2 0 0 2 0 2 | 1 10 5 5 2 20",
     "1 10 2 20 3 30 2 20 4 40 6 60", 0},
    {"sum of squares of a contraction", "f32[2, 1] i32[2, 1] f32[3, 2]",
     "%o, %s, %r = route %b {experts=2} : i32[3], i32[2, 1], i32[2]\n"
     "%d = rows_gather %a, %r, %o {choices=1} : f32[2, r<=2, 1]\n"
     "%x = square_sum %d, %d {map=\"nrd,nrh->ndh\"} : f32[]\n"
     "%y = square_sum %d, %d, %o {map=\"nrd,nrh->ndh\"} : f32[]\n"
     "%z = square_sum %c, %c {map=\"ka,kb->ab\"} : f32[]",
     "%x %y %z", "2 3 | 0 0 | 1 2 3 4 5 6", "169 | 169 | 8233", 0},
    {"ragged contraction with its offsets", "f32[2, 1] i32[2, 1] f32[2, 1, 1]",
     "%o, %s, %r = route %b {experts=2} : i32[3], i32[2, 1], i32[2]\n"
     "%d = rows_gather %a, %r, %o {choices=1} : f32[2, r<=2, 1]\n"
     "%x = contract %d, %c, %o {map=\"nrd,ndh->nrh\"} : f32[2, r<=2, 1]",
     "%x", "3 4 | 1 0 | 10 100", "40 300", 0},

    /* attention: two queries, three keys, the last one hidden in the second
     * case; query 0 of four of three keys sees nothing in the third. exp(log 2)
     * and exp(log 3) make weights of 1/4 and 3/4, 1/3 and 2/3. */
    {"attention", "f32[1, 2, 1, 1] f32[1, 2, 1, 1] f32[1, 2, 1, 2]",
     "%x, %l = attention %a, %b, %c {causal=false, scale=2} : "
     "f32[1, 2, 1, 2], f32[1, 2, 1]\n"
     "%y, %m = attention %a, %b, %c {causal=true, scale=2} : "
     "f32[1, 2, 1, 2], f32[1, 2, 1]",
     "%x %y %l %m",
     "1 0 | 0.54930614433405485 0 | 4 8 8 0",
     "5 6 6 4 | 4 8 6 4 | 1.3862943611198906 0.69314718055994531 |"
     "1.0986122886681097 0.69314718055994531",
     0},
    {"attention with a mask, more queries than keys",
     "f32[3, 2, 1] f32[2, 1, 1] f32[2, 1, 1] bool[2]",
     "%x, %l = attention %a, %b, %c {causal=true, scale=1} : "
     "f32[3, 2, 1], f32[3, 2]\n"
     "%y, %m = attention %a, %b, %c, %d {causal=true, scale=1} : "
     "f32[3, 2, 1], f32[3, 2]",
     "%x %l %y %m", "0 0 0 0 0 0 | 1 1 | 2 4 | 0 1",
     "0 0 2 2 3 3 | -inf -inf 0 0 0.69314718055994531 0.69314718055994531 |"
     "0 0 0 0 4 4 | -inf -inf -inf -inf 0 0",
     0},
    {"gradient of attention", "f32[1, 1, 1] f32[2, 1, 1] f32[2, 1, 1]",
     "%x, %l = attention %a, %b, %c {causal=false, scale=3} : "
     "f32[1, 1, 1], f32[1, 1]\n"
     "%d = reshape %x : f32[1, 1]\n"
     "%e = const {value=1} : f32[1, 1, 1]\n"
     "%q, %k, %v = attention_grad %a, %b, %c, %e, %l, %d {causal=false, "
     "scale=3} : f32[1, 1, 1], f32[2, 1, 1], f32[2, 1, 1]",
     "%x %q %k %v", "2 | 1 1 | 2 4", "3 | 0 | -3 3 | 0.5 0.5", 0},

    /* ranks: one alone; tests/unit/ranks.c has more */
    {"exchanges of one rank", "f32[2, 2] f32[2]",
     "%r = rank {axes=\"dev\"} : i32[]\n"
     "%s = local_slice %a, %r {dim=0, parts=2} : f32[1, 2]\n"
     "%t = all_reduce %a {axes=\"dev\", op=\"sum\"} : f32[2, 2]\n"
     "%u = all_gather %b {axes=\"dev\", dim=0} : f32[2]\n"
     "%v = reduce_scatter %b {axes=\"dev\", dim=0, op=\"max\"} : f32[2]\n"
     "%w = all_to_all %a {axes=\"dev\", split=0, concat=1} : f32[2, 2]\n"
     "%x = permute %b {axes=\"dev\", to=[0]} : f32[2]",
     "%r %s %t %u %v %w %x", "1 2 3 4 | 5 6",
     "0 | 1 2 | 1 2 3 4 | 5 6 | 5 6 | 1 2 3 4 | 5 6", 0},
    {"a wait of one rank", "f32[2, 2] f32[2]",
     "%p, %q = all_reduce %a, %b {axes=\"dev\", op=\"sum\"}"
     " : f32[2, 2], f32[2]\n"
     "%x, %y = wait %p, %q : f32[2, 2], f32[2]",
     "%x %y", "1 2 3 4 | 5 6", "1 2 3 4 | 5 6", 0},
    {"rows of one rank", "f32[2, 1] i32[2, 1] i32[1, 2]",
     "%o, %s, %r = route %b {experts=2} : i32[3], i32[2, 1], i32[2]\n"
     "%d = rows_gather %a, %r, %o {choices=1} : f32[2, r<=2, 1]\n"
     "%x = rows_send %d, %o, %c, %o {axes=\"dev\", rows=3}"
     " : f32[2, r<=3, 1]\n"
     "%y = rows_return %x, %o, %c, %o {axes=\"dev\", rows=2}"
     " : f32[2, r<=2, 1]",
     "%x %y", "3 4 | 1 0 | 1 1", "4 3 0 | 4 3", 0},

    /* structure */
    {"stop_gradient", "f32[2]", "%x = stop_gradient %a : f32[2]", "%x", "1 2",
     "1 2", 0},
    {"annotate, reshard", "bool[2]",
     "%x = annotate %a : bool[2 @_]\n%y = reshard %a : bool[2]", "%x %y",
     "1 0", "1 0 | 1 0", 0},
    {"scan", "f32[] f32[3] f32[]",
     "%x, %y = scan %a, %b, %c {carries=1, scanned=1, length=3, "
     "reverse=false} (%t: i32[], %h: f32[], %s: f32[], %u: f32[]) {\n"
     "%p = mul %h, %u : f32[]\n%q = add %p, %s : f32[]\n"
     "yield %q, %p\n} : f32[], f32[3]",
     "%x %y", "1 | 1 2 3 | 10", "1123 | 10 110 1120", 0},
    {"scan backwards, with its index", "i32[2]",
     "%x, %y, %z = scan %a, %a {carries=2, scanned=0, length=3, "
     "reverse=true} (%t: i32[], %h: i32[2], %g: i32[2]) {\n"
     "%i = broadcast %t {map=\"->a\"} : i32[2]\n"
     "%p = add %h, %i : i32[2]\nyield %g, %p, %t\n}"
     " : i32[2], i32[2], i32[3]",
     "%x %y %z", "10 20", "11 21 | 12 22 | 0 1 2", 0},
    {"scan in a scan", "f32[] f32[2, 2]",
     "%x = scan %a, %b {carries=1, scanned=1, length=2, reverse=false} "
     "(%t: i32[], %h: f32[], %r: f32[2]) {\n"
     "%y = scan %h, %r {carries=1, scanned=1, length=2, reverse=false} "
     "(%t2: i32[], %g: f32[], %e: f32[]) {\n"
     "%z = fma %g, %e, %e : f32[]\nyield %z\n} : f32[]\n"
     "yield %y\n} : f32[]",
     "%x", "1 | 1 2 3 4", "88", 0},
    {"scan that counts its turns", "f32[] i32[] i32[]",
     "%x = scan %a, %b {carries=1, scanned=0, length=3, reverse=false, "
     "counted=true} (%t: i32[], %h: f32[], %n: i32[]) {\n"
     "%u = cast %t : f32[]\n%v = add %h, %u : f32[]\n%w = add %v, %v : f32[]\n"
     "yield %w\n} : f32[]\n"
     "%y = scan %a, %c {carries=1, scanned=0, length=3, reverse=false, "
     "counted=true} (%t2: i32[], %h2: f32[], %n2: i32[]) {\n"
     "%w2 = add %h2, %h2 : f32[]\nyield %w2\n} : f32[]",
     "%x %y", "10 | 2 | 7", "42 | 80", 0},
    {"scan of no turns", "f32[] i32[]",
     "%x = scan %a, %b {carries=1, scanned=0, length=3, reverse=false, "
     "counted=true} (%t: i32[], %h: f32[], %n: i32[]) {\n"
     "%v = add %h, %h : f32[]\nyield %v\n} : f32[]",
     "%x", "10 | -1", "10", 0},
    {"fused", "f32[2] f32[2]",
     "%x, %y = fused %a, %b {kind=\"loop\", rows=1} "
     "(%p: f32[2], %q: f32[2]) {\n"
     "%s = add %p, %q : f32[2]\n%r = mul %s, %q : f32[2]\n"
     "yield %s, %r\n} : f32[2], f32[2]",
     "%x %y", "1 2 | 3 4", "4 6 | 12 24", 0},
    {"fused, ragged", "f32[3, 1] i32[3, 2] f32[3, 1, 1]",
     "%o, %s, %r = route %b {experts=3} : i32[4], i32[3, 2], i32[6]\n"
     "%x = fused %a, %r, %o, %c {kind=\"loop\", rows=1} "
     "(%p: f32[3, 1], %q: i32[6], %f: i32[4], %w: f32[3, 1, 1]) {\n"
     "%d = rows_gather %p, %q, %f {choices=2} : f32[3, r<=6, 1]\n"
     "%e = contract %d, %w {map=\"nrd,ndh->nrh\"} : f32[3, r<=6, 1]\n"
     "yield %e\n} : f32[3, r<=6, 1]",
     "%x", "1 2 3 | 2 0 0 2 0 2 | 1 5 10", "1 2 3 10 20 30", 0},
};

/* ---- running them -------------------------------------------------------- */

enum { MAX_RESULTS = 8 };

/* What the hook has seen. */
typedef struct Watch {
  Arena *arena;
  uint32_t calls;
  const char *names; /* "%x %y": values to keep */
  Tensor *kept[MAX_RESULTS];
} Watch;

static bool seen[OP_COUNT];

/* Which of the names a value has, -1 for none; a body's values have none. */
static int index_of(const char *names, const Value *v) {
  if (v->region->owner) return -1;
  for (int i = 0; *names; i++) {
    size_t n = strcspn(names, " ");
    if (strlen(v->name) + 1 == n && !strncmp(names + 1, v->name, n - 1))
      return i;
    names += n + (names[n] == ' ');
  }
  return -1;
}

static void see(void *user, const Node *n, const Tensor *const *ins,
                Tensor *const *outs) {
  (void)ins;
  Watch *w = user;
  seen[n->op] = true;
  w->calls++;
  for (uint32_t i = 0; i < n->outs.len && w->names; i++) {
    int k = index_of(w->names, n->outs.data[i]);
    if (k >= 0) w->kept[k] = tensor_copy(w->arena, outs[i]);
  }
}

static Module *read_text(Ctx *cx, const char *text) {
  Module *m = ir_read(cx, source_add(cx, "case.ir", text, strlen(text)));
  if (!m) {
    diag_print(cx, stdout);
    printf("%s", text);
    exit(1);
  }
  return m;
}

/* The text of a case's module. `ins` splits at blanks behind a ']'. */
static void case_text(const Case *c, Buf *b) {
  buf_add(b, "moec-ir 1\nmesh {dev=1}\nentry @f(");
  char name = 'a';
  for (const char *p = c->ins; *p; name++) {
    const char *end = strchr(p, ']') + 1;
    buf_fmt(b, "%s%%%c: %.*s = input \"%c\"", name == 'a' ? "" : ", ", name,
            (int)(end - p), p, name);
    p = *end ? end + 1 : end;
  }
  buf_fmt(b, ") {\n%s\nreturn report \"r\" = %%a\n}\n", c->nodes);
}

/* Reads the numbers of one tensor from a list; moves behind its '|'. */
static void read_numbers(const char **list, double *to, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    char *end;
    to[i] = strtod(*list, &end);
    if (end == *list) internal_error("too few numbers: %s", *list);
    *list = end;
  }
  *list += strspn(*list, " ");
  if (**list == '|') ++*list;
}

static bool near(double x, double y, Dtype dtype) {
  if (isnan(y)) return isnan(x);
  if (x == y) return true;
  bool is_float = dtype_info[dtype].kind == DK_FLOAT;
  return is_float && fabs(x - y) <= 2e-8 * fabs(y) + 1e-44;
}

static bool same_tensor(const Case *c, const Tensor *t, const char **list) {
  int64_t n = type_elements(&t->type);
  double want[64];
  read_numbers(list, want, n);
  for (int64_t i = 0; i < n; i++)
    if (!near(t->data[i], want[i], t->type.dtype)) {
      CHECK(c->name, false, "element %d is %.9g, not %.9g", (int)i, t->data[i],
            want[i]);
      return false;
    }
  return true;
}

static void run_case(const Case *c) {
  Ctx cx = {0};
  Buf text = {0};
  case_text(c, &text);
  Entry *e = read_text(&cx, text.data)->entries.data[0];
  Watch w = {.arena = &cx.perm, .names = c->results};
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED, .hook = see, .user = &w};
  Tensor *ins[8], *out;
  const char *list = c->operands;
  for (uint32_t i = 0; i < e->region->params.len; i++) {
    ins[i] = tensor_new(&cx.perm, e->region->params.data[i]->type);
    read_numbers(&list, ins[i]->data, type_elements(&ins[i]->type));
  }
  uint32_t clamped = ir_eval(&ev, e, ins, &out, &cx.perm);
  bool ok = clamped == c->clamped;
  if (!ok) CHECK(c->name, false, "%u ids clamped", clamped);
  list = c->expected;
  for (int i = 0; i < MAX_RESULTS && w.kept[i] && ok; i++)
    ok = same_tensor(c, w.kept[i], &list);
  if (ok) CHECK(c->name, !*list, "values missing: %s", list);
  buf_free(&text);
  ctx_free(&cx);
}

static void test_every_op_was_run(void) {
  for (int op = 0; op < OP_COUNT; op++)
    if (!seen[op] && op != OP_grad)
      CHECK("every op has a case", false, "%s has none", op_info[op].name);
}

/* ---- arithmetic against the machine's ------------------------------------ */

static uint32_t next_random(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 1 ^ *state << 13;
}

static float random_float(uint32_t *state) {
  uint32_t bits = next_random(state);
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static bool same_bits(double x, float y) {
  float f = (float)x;
  return f == x && memcmp(&f, &y, sizeof f) == 0;
}

static void test_f32_is_the_machines(void) {
  static const char *text =
      "moec-ir 1\nmesh {dev=1}\nentry @f(%a: f32[512] = input \"a\", "
      "%b: f32[512] = input \"b\", %c: f32[512] = input \"c\") {\n"
      "%0 = add %a, %b : f32[512]\n%1 = sub %a, %b : f32[512]\n"
      "%2 = mul %a, %b : f32[512]\n%3 = div %a, %b : f32[512]\n"
      "%4 = sqrt %a : f32[512]\n%5 = fma %a, %b, %c : f32[512]\n"
      "%6 = bitcast %a : u32[512]\n%7 = bitcast %6 : f32[512]\n"
      "return report \"0\" = %0, report \"1\" = %1, report \"2\" = %2, "
      "report \"3\" = %3, report \"4\" = %4, report \"5\" = %5, "
      "report \"6\" = %7\n}\n";
  Ctx cx = {0};
  Entry *e = read_text(&cx, text)->entries.data[0];
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  uint32_t state = 1, wrong = 0;
  for (int round = 0; round < 100; round++) {
    Arena a = {0};
    Tensor *in[3], *out[7];
    for (int k = 0; k < 3; k++) {
      in[k] = tensor_new(&a, e->region->params.data[k]->type);
      for (int i = 0; i < 512; i++)
        in[k]->data[i] = random_float(&state);
    }
    ir_eval(&ev, e, in, out, &a);
    for (int i = 0; i < 512; i++) {
      float x = (float)in[0]->data[i], y = (float)in[1]->data[i];
      float want[7] = {x + y, x - y,    x * y,
                       x / y, sqrtf(x), fmaf(x, y, (float)in[2]->data[i]),
                       x};
      for (int k = 0; k < 7; k++)
        wrong += !isnan(want[k]) && !same_bits(out[k]->data[i], want[k]);
    }
    arena_reset(&a);
  }
  CHECK("f32 arithmetic is the machine's", wrong == 0, "%u differ", wrong);
  ctx_free(&cx);
}

/* ---- modes, hooks, single nodes, bytes ----------------------------------- */

static void test_f64_mode_keeps_doubles(void) {
  Ctx cx = {0};
  Module *m = read_text(
      &cx, "moec-ir 1\nmesh {dev=1}\nentry @f(%a: f32[] = input \"a\", "
           "%b: f32[] = input \"b\") {\n%y = div %a, %b : f32[]\n"
           "return report \"y\" = %y\n}\n");
  Entry *e = m->entries.data[0];
  Eval ev = {.cx = &cx, .mode = EVAL_F64};
  Tensor *ins[2], *out;
  for (int i = 0; i < 2; i++)
    ins[i] = tensor_new(&cx.perm, e->region->params.data[i]->type);
  ins[0]->data[0] = 1;
  ins[1]->data[0] = 3;
  ir_eval(&ev, e, ins, &out, &cx.perm);
  CHECK("f64 mode keeps doubles", out->data[0] == 1.0 / 3, "%.17g",
        out->data[0]);
  ctx_free(&cx);
}

static void test_grad_is_refused(void) {
  Ctx cx = {0};
  Module *m = read_text(
      &cx, "moec-ir 1\nmesh {dev=1}\nentry @f(%a: f32[] = input \"a\") {\n"
           "%y = mul %a, %a : f32[]\n%g = grad %y, %a : f32[]\n"
           "return report \"g\" = %g\n}\n");
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED};
  Tensor *in = tensor_new(&cx.perm, type_scalar(DT_f32)), *out;
  uint32_t got = ir_eval(&ev, m->entries.data[0], &in, &out, &cx.perm);
  CHECK("grad is refused", got == EVAL_FAILED && !out && cx.errors == 1,
        "returned %u, %u errors", got, cx.errors);
  ctx_free(&cx);
}

static void test_hook_sees_every_iteration(void) {
  Ctx cx = {0};
  Module *m = read_text(
      &cx, "moec-ir 1\nmesh {dev=1}\nentry @f(%a: f32[] = input \"a\") {\n"
           "%y = scan %a {carries=1, scanned=0, length=5, reverse=false} "
           "(%t: i32[], %h: f32[]) {\n%z = add %h, %h : f32[]\nyield %z\n}"
           " : f32[]\nreturn report \"y\" = %y\n}\n");
  Watch w = {0};
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED, .hook = see, .user = &w};
  Tensor *in = tensor_new(&cx.perm, type_scalar(DT_f32)), *out;
  in->data[0] = 1;
  ir_eval(&ev, m->entries.data[0], &in, &out, &cx.perm);
  CHECK("the hook sees every iteration", w.calls == 6 && out->data[0] == 32,
        "%u calls, %g", w.calls, out->data[0]);
  ctx_free(&cx);
}

static const Tensor *the_ids(void *user, const Value *v) {
  (void)v;
  return user;
}

/* A node alone, with the ids of its ragged operand from outside; and a scan. */
static void test_single_nodes(void) {
  Case c = {"",
            "f32[2, 1] i32[2, 1] f32[2, 1, 1] f32[]",
            "%x = dispatch %a, %b {experts=2} : f32[2, r<=2, 1]\n"
            "%y = contract %x, %c {map=\"nrd,ndh->nrh\"} : f32[2, r<=2, 1]\n"
            "%z = scan %d {carries=1, scanned=0, length=3, reverse=false} "
            "(%t: i32[], %h: f32[]) {\n%w = add %h, %h : f32[]\nyield %w\n}"
            " : f32[]",
            "%y %z",
            "",
            "",
            0};
  Ctx cx = {0};
  Buf text = {0};
  case_text(&c, &text);
  Entry *e = read_text(&cx, text.data)->entries.data[0];
  Tensor *ids = tensor_new(&cx.perm, e->region->params.data[1]->type);
  ids->data[0] = 1; /* both tokens go to expert 1 */
  ids->data[1] = 1;
  Eval ev = {.cx = &cx, .mode = EVAL_TYPED, .user = ids, .outside = the_ids};
  Node *contract = e->region->nodes.data[1], *scan = e->region->nodes.data[2];
  Tensor *ins[2], *out;
  for (int i = 0; i < 2; i++) {
    ins[i] = tensor_new(&cx.perm, contract->ins.data[i]->type);
    ins[i]->data[0] = 2;
    ins[i]->data[1] = 3;
  }
  ir_eval_node(&ev, contract, ins, &out, &cx.perm);
  CHECK("a ragged node alone", out->data[0] == 6 && out->data[1] == 9, "%g %g",
        out->data[0], out->data[1]);
  ins[0] = tensor_new(&cx.perm, type_scalar(DT_f32));
  ins[0]->data[0] = 1;
  ir_eval_node(&ev, scan, ins, &out, &cx.perm);
  CHECK("a scan alone", out->data[0] == 8, "%g", out->data[0]);
  buf_free(&text);
  ctx_free(&cx);
}

static void test_bytes(void) {
  static const struct {
    Dtype dtype;
    double values[3];
  } rows[] = {{DT_bool, {0, 1, 1}},         {DT_i32, {-1, 0, 2147483647}},
              {DT_u32, {0, 7, 4294967295}}, {DT_bf16, {1.5, -0.0, 3e38}},
              {DT_f32, {0.1f, -2, 1e-40f}}, {DT_f64, {0.1, 1e300, -1}}};
  for (size_t r = 0; r < COUNT_OF(rows); r++) {
    int64_t three = 3;
    Arena a = {0};
    Tensor *t = tensor_new(&a, type_of(rows[r].dtype, 1, &three));
    Tensor *back = tensor_new(&a, t->type), *again = tensor_new(&a, t->type);
    memcpy(t->data, rows[r].values, sizeof rows[r].values);
    char bytes[24], more[24];
    tensor_to_bytes(t, bytes);
    tensor_from_bytes(back, bytes);
    tensor_to_bytes(back, more);
    tensor_from_bytes(again, more);
    bool ok = memcmp(back->data, again->data, 3 * sizeof(double)) == 0;
    for (int i = 0; i < 3; i++)
      ok = ok && fabs(back->data[i] - t->data[i]) <= fabs(t->data[i]) / 256;
    CHECK(dtype_info[rows[r].dtype].name, ok, "bytes change values");
    arena_reset(&a);
  }
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    run_case(&cases[i]);
  test_every_op_was_run();
  test_f32_is_the_machines();
  test_f64_mode_keeps_doubles();
  test_grad_is_refused();
  test_hook_sees_every_iteration();
  test_single_nodes();
  test_bytes();
  return failures != 0;
}
