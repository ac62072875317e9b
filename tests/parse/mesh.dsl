# test: %s --mesh dev=8 --dump=partition
# A program for several devices is never quietly one for a single device.
mesh dev
entry eval(x: f32[8 @dev] from text) { report a = x }

# >>> out
# moec-ir 1
# mesh {dev=8}
#
# entry @init() {
#   return
# }
#
# entry @reset() {
#   return
# }
#
# entry @eval(%x: f32[1] = input "text(share=dev)") {
#   %x.1 = all_gather %x {axes="dev", dim=0} : f32[8]
#   return report "a" = %x.1
# }
# <<<
