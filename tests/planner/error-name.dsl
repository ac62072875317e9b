# test: %s --plan-only --topology h100-nod
# A name that is near one of those that come along.
entry train(x: i32[4] from tokens) { report y = sum(f32(x)) }

# >>> err
# error: cannot read topology 'h100-nod': No such file or directory
# note: there is a topology 'h100-node'
# <<<
# >>> exit 1
