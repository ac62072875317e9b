# test: %s --plan-only=2..7 --mesh dev=2
# Numbers of devices that no doubling reaches.
mesh dev
entry train(x: i32[8 @dev] from tokens) { report y = sum(f32(x)) }

# >>> err
# moec: --plan-only takes numbers of devices, 32 at most, as 16,64 or 16..2048, not '2..7'
# <<<
# >>> exit 2
