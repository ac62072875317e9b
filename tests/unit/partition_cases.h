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
