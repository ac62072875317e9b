# test: %s --mesh dve=2 --mesh dev=0 --mesh dev=many --mesh model=2,dev=2 --mesh model=4 --stop-after=frontend
mesh dev, model
entry eval(x: f32[8 @dev] from text) { report a = x }

# >>> out
# <<<
# >>> err
# error: --mesh dve=2: the model has no axis 'dve'; did you mean 'dev'?
# error: --mesh dev=0: an axis has 1 to 2147483647 devices
# error: --mesh dev=many: must be AXIS=SIZE
# error: --mesh model=4: there is --mesh model=2 already
# <<<
# >>> exit 1
