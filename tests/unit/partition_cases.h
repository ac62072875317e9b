/* partition_cases.h: small programs for partition.c, an op or two each. */
#define SLOT(name, type) "slot \"" name "\" param " type "\n"
#define F(ins, nodes, outs) \
  "entry @f(" ins ") {\n" nodes "  return " outs "\n}\n"

{"elementwise", "dev=2",
 F("%x: f32[4 @dev, 3] = input \"a\", %y: f32[4, 3] = input \"b\"",
   "  %z = mul %x, %y : f32[4, 3]\n", "probe \"z\" = %z")},
{"sums over a split dim", "dev=2",
 F("%x: f32[4 @dev, 3] = input \"a\"",
   "  %z = reduce_sum %x {map=\"ab->b\"} : f32[3]\n"
   "  %m = reduce_max %x {map=\"ab->a\"} : f32[4]\n"
   "  %n = reduce_max %x {map=\"ab->\"} : f32[]\n"
   "  %l = reduce_min %x {map=\"ab->b\"} : f32[3]\n",
   "probe \"z\" = %z, probe \"m\" = %m, probe \"n\" = %n, probe \"l\" = %l")},
{"sums over padding", "dev=4",
 SLOT("x", "f32[3, 5 @dev]") SLOT("w", "f32[5 @dev, 6]")
 F("%x: f32[3, 5 @dev] = slot \"x\", %w: f32[5 @dev, 6] = slot \"w\"",
   "  %z = contract %x, %w {map=\"ab,bc->ac\"} : f32[3, 6]\n"
   "  %e = exp %x : f32[3, 5]\n"
   "  %s = reduce_sum %e {map=\"ab->a\"} : f32[3]\n"
   "  %m = reduce_max %x {map=\"ab->\"} : f32[]\n"
   "  %l = reduce_min %e {map=\"ab->\"} : f32[]\n"
   "  %i = add %x, %x : f32[3, 5]\n",
   "slot \"x\" = %i, probe \"z\" = %z, probe \"s\" = %s, probe \"m\" = %m, "
   "probe \"l\" = %l, probe \"e\" = %e")},
{"positions", "a=2, b=3",
 SLOT("w", "f32[7 @a @b, 5]") SLOT("v", "bf16[300 @b]")
 F("%w: f32[7 @a @b, 5] = slot \"w\", %v: bf16[300 @b] = slot \"v\"",
   "  %i = iota {dim=0} : f32[7, 5]\n"
   "  %x = add %w, %i : f32[7, 5]\n"
   "  %k = iota {dim=0} : bf16[300]\n"
   "  %y = mul %v, %k : bf16[300]\n"
   "  %c = const {value=1} : u32[7, 5]\n"
   "  %u = iota {dim=0} : u32[7, 5]\n"
   "  %p = threefry %c, %u, %c, %c {site=5} : u32[7, 5]\n"
   "  %z = uniform %p : f32[7, 5]\n"
   "  %s = mul %z, %x : f32[7, 5]\n",
   "slot \"w\" = %x, slot \"v\" = %y, probe \"s\" = %s")},
{"a table in parts", "a=2, b=2",
 SLOT("t", "f32[13 @a @b, 3]") SLOT("b", "bool[13 @b]")
 F("%t: f32[13 @a @b, 3] = slot \"t\", %b: bool[13 @b] = slot \"b\", "
   "%ids: i32[4, 2] = input \"ids\"",
   "  %g = gather %t, %ids : f32[4, 2, 3]\n"
   "  %h = gather %b, %ids : bool[4, 2]\n"
   "  %d = scatter_add %ids, %g {rows=13} : f32[13, 3]\n",
   "slot \"t\" = %d, probe \"g\" = %g, probe \"h\" = %h")},
{"ids of tokens that are split", "a=2, b=2",
 SLOT("t", "f32[13 @b, 3]")
 F("%t: f32[13 @b, 3] = slot \"t\", %ids: i32[4 @a, 2] = input \"text\"",
   "  %g = gather %t, %ids : f32[4, 2, 3]\n"
   "  %d = scatter_add %ids, %g {rows=13} : f32[13, 3]\n"
   "  %n = sub %t, %d : f32[13, 3]\n",
   "slot \"t\" = %n, probe \"g\" = %g")},
{"chosen along a split dim", "a=3, b=2",
 SLOT("x", "f32[5 @b, 13 @a]") SLOT("y", "f32[5 @b, 13 @a]")
 F("%x: f32[5 @b, 13 @a] = slot \"x\", %y: f32[5 @b, 13 @a] = slot \"y\", "
   "%ids: i32[5, 2] = input \"ids\"",
   "  %t = take %x, %ids : f32[5, 2]\n"
   "  %p = put %t, %ids {size=13} : f32[5, 13]\n"
   "  %z = add %y, %p : f32[5, 13]\n",
   "slot \"y\" = %z, probe \"t\" = %t")},
{"extremes of integers", "dev=4",
 SLOT("i", "i32[5 @dev, 2]") SLOT("u", "u32[5 @dev]")
 F("%i: i32[5 @dev, 2] = slot \"i\", %u: u32[5 @dev] = slot \"u\"",
   "  %n = neg %i : i32[5, 2]\n"
   "  %p = reduce_max %n {map=\"ab->b\"} : i32[2]\n"
   "  %q = reduce_min %i {map=\"ab->\"} : i32[]\n"
   "  %r = reduce_min %u {map=\"a->\"} : u32[]\n"
   "  %s = reduce_max %u {map=\"a->\"} : u32[]\n"
   "  %x = reduce_sum %i {map=\"ab->\"} : i32[]\n",
   "probe \"p\" = %p, probe \"q\" = %q, probe \"r\" = %r, "
   "probe \"s\" = %s, probe \"x\" = %x")},
{"a loop over parts", "a=2, b=2",
 SLOT("h", "f32[3 @a]") SLOT("u", "f32[3, 3 @a]") SLOT("t", "f32[13 @b, 3]")
 F("%h: f32[3 @a] = slot \"h\", %u: f32[3, 3 @a] = slot \"u\", "
   "%t: f32[13 @b, 3] = slot \"t\", %ids: i32[4] = input \"ids\"",
   "  %e, %ys = scan %h, %ids, %u, %t "
   "{carries=1, scanned=1, length=4, reverse=false} (%k: i32[], "
   "%hp: f32[3], %id: i32[], %up: f32[3, 3], %tp: f32[13, 3]) {\n"
   "    %x = gather %tp, %id : f32[3]\n"
   "    %i = iota {dim=0} : f32[3]\n"
   "    %z = contract %hp, %up {map=\"m,mn->n\"} : f32[3]\n"
   "    %s = add %z, %x : f32[3]\n"
   "    %c = mul %s, %i : f32[3]\n"
   "    %n = tanh %c : f32[3]\n"
   "    yield %n, %s\n"
   "  } : f32[3], f32[4, 3]\n",
   "slot \"h\" = %e, probe \"ys\" = %ys")},
{"from place to place", "a=2, b=3",
 SLOT("x", "f32[7 @a @b, 5]") SLOT("y", "f32[7, 5 @b @a]")
 SLOT("z", "f32[7 @b, 5 @a]")
 F("%x: f32[7 @a @b, 5] = slot \"x\", %y: f32[7, 5 @b @a] = slot \"y\", "
   "%z: f32[7 @b, 5 @a] = slot \"z\"",
   "  %p = tanh %x : f32[7, 5]\n"
   "  %q = tanh %y : f32[7, 5]\n"
   "  %r = tanh %z : f32[7, 5]\n",
   "slot \"x\" = %q, slot \"y\" = %r, slot \"z\" = %p")},
{"parts change hands", "a=2, b=3, c=2",
 SLOT("x", "f32[12 @a @b, 12]") SLOT("y", "f32[12 @b @a, 12]")
 SLOT("z", "f32[12, 12 @a @b]") SLOT("w", "f32[12 @b, 12 @a]")
 SLOT("v", "f32[12 @a, 12 @c]") SLOT("u", "f32[12 @c, 12 @a]")
 SLOT("t", "f32[12 @b, 12]") SLOT("s", "f32[12 @c @b, 12]")
 F("%x: f32[12 @a @b, 12] = slot \"x\", %y: f32[12 @b @a, 12] = slot \"y\", "
   "%z: f32[12, 12 @a @b] = slot \"z\", %w: f32[12 @b, 12 @a] = slot \"w\", "
   "%v: f32[12 @a, 12 @c] = slot \"v\", %u: f32[12 @c, 12 @a] = slot \"u\", "
   "%t: f32[12 @b, 12] = slot \"t\", %s: f32[12 @c @b, 12] = slot \"s\"",
   "  %a = tanh %x : f32[12, 12]\n"
   "  %b = tanh %y : f32[12, 12]\n"
   "  %c = tanh %z : f32[12, 12]\n"
   "  %d = tanh %w : f32[12, 12]\n"
   "  %e = tanh %v : f32[12, 12]\n"
   "  %f = tanh %u : f32[12, 12]\n"
   "  %g = tanh %s : f32[12, 12]\n"
   "  %h = neg %x : f32[12, 12]\n",
   "slot \"x\" = %b, slot \"y\" = %a, slot \"z\" = %h, slot \"w\" = %c, "
   "slot \"v\" = %f, slot \"u\" = %e, slot \"t\" = %g, slot \"s\" = %d")},
{"more ranks than elements", "a=5",
 SLOT("x", "f32[2 @a]") SLOT("y", "f32[1 @a]")
 F("%x: f32[2 @a] = slot \"x\", %y: f32[1 @a] = slot \"y\"",
   "  %e = exp %x : f32[2]\n"
   "  %s = reduce_sum %e {map=\"a->\"} : f32[]\n"
   "  %m = reduce_max %y {map=\"a->\"} : f32[]\n"
   "  %z = mul %x, %e : f32[2]\n",
   "slot \"x\" = %z, slot \"y\" = %y, probe \"s\" = %s, "
   "probe \"m\" = %m")},
