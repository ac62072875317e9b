# test: %s
fn scale(x: f32[.., n], by, plus = 0.0) -> f32[.., n] { return x * by + plus }
fn two(x) { return x, x }
fn nothing(x) { let y = x }
fn curried(a)(x) { return x * a }
fn wrong(x: f32[n]) -> f32[n, n] { return x }
fn self(x) { return self(x) }
fn late(x) {
  return x
  let y = x
}
entry eval(x: f32[3] from text) {
  report a = scale(x)
  report b = scale(x, 1, 2, 3)
  report c = scale(x, by = 1, by = 2)
  report d = scale(3, 2.0)
  report e = two(x)
  let f, g, h = two(x)
  let i = nothing(x)
  report j = curried(2)
  report k = curried(2) as "c"
  report l = sum(x) as "s"
  report m = x(3)
  report n = wrong(x)
  report o = self(x)
  report p = late(x)
  scale(x, 2)
  report q = x as "x"
  report r = two(x)[0]
}

# >>> err
# tests/parse/calls.dsl:6:36: error: the result must be f32[n, n], but is f32[3]: it has 1 dim
#     6 | fn wrong(x: f32[n]) -> f32[n, n] { return x }
#       |                                    ^~~~~~~~
# tests/parse/calls.dsl:6:24: note: the type is written here
#     6 | fn wrong(x: f32[n]) -> f32[n, n] { return x }
#       |                        ^~~~~~~~~
# tests/parse/calls.dsl:24:14: note: in 'wrong', called here
#    24 |   report n = wrong(x)
#       |              ^~~~~~~~
# tests/parse/calls.dsl:7:21: error: calls are nested more than 64 deep: does 'self' call itself?
#     7 | fn self(x) { return self(x) }
#       |                     ^~~~~~~
# tests/parse/calls.dsl:25:14: note: in 'self', called here
#    25 |   report o = self(x)
#       |              ^~~~~~~
# tests/parse/calls.dsl:10:3: warning: nothing gets here
#    10 |   let y = x
#       |   ^~~~~~~~~
# tests/parse/calls.dsl:9:3: note: the function returns here
#     9 |   return x
#       |   ^~~~~~~~
# tests/parse/calls.dsl:13:14: error: 'scale' lacks an argument for 'by'
#    13 |   report a = scale(x)
#       |              ^~~~~~~~
# tests/parse/calls.dsl:2:1: note: 'scale' is declared here
#     2 | fn scale(x: f32[.., n], by, plus = 0.0) -> f32[.., n] { return x * by + plus }
#       | ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/calls.dsl:14:29: error: 'scale' takes 3 arguments, not 4
#    14 |   report b = scale(x, 1, 2, 3)
#       |                             ^
# tests/parse/calls.dsl:2:1: note: 'scale' is declared here
#     2 | fn scale(x: f32[.., n], by, plus = 0.0) -> f32[.., n] { return x * by + plus }
#       | ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# tests/parse/calls.dsl:15:36: error: 'scale' got 'by' twice
#    15 |   report c = scale(x, by = 1, by = 2)
#       |                                    ^
# tests/parse/calls.dsl:15:28: note: the first is here
#    15 |   report c = scale(x, by = 1, by = 2)
#       |                            ^
# tests/parse/calls.dsl:16:20: error: 'x' must be f32[.., n], but is the integer 3
#    16 |   report d = scale(3, 2.0)
#       |                    ^
# tests/parse/calls.dsl:2:13: note: the type is written here
#     2 | fn scale(x: f32[.., n], by, plus = 0.0) -> f32[.., n] { return x * by + plus }
#       |             ^~~~~~~~~~
# tests/parse/calls.dsl:17:14: error: one value is needed here, but this gives 2 values
#    17 |   report e = two(x)
#       |              ^~~~~~
# tests/parse/calls.dsl:18:17: error: 3 names, but this gives 2 values
#    18 |   let f, g, h = two(x)
#       |                 ^~~~~~
# tests/parse/calls.dsl:19:11: error: 1 name, but this gives nothing
#    19 |   let i = nothing(x)
#       |           ^~~~~~~~~~
# tests/parse/calls.dsl:20:14: error: a tensor is needed here, not a function
#    20 |   report j = curried(2)
#       |              ^~~~~~~~~~
# tests/parse/calls.dsl:21:28: error: 'as' names a call that runs a function of the model; this one waits for its second arguments
#    21 |   report k = curried(2) as "c"
#       |                            ^~~
# tests/parse/calls.dsl:22:24: error: 'as' names a call that runs a function of the model; this one is built in
#    22 |   report l = sum(x) as "s"
#       |                        ^~~
# tests/parse/calls.dsl:23:14: error: this is f32[3], not a function
#    23 |   report m = x(3)
#       |              ^
# tests/parse/calls.dsl:27:3: error: this gives f32[3] that nothing uses
#    27 |   scale(x, 2)
#       |   ^~~~~~~~~~~
# tests/parse/calls.dsl:28:14: error: 'as' names a call, and this is none
#    28 |   report q = x as "x"
#       |              ^~~~~~~~
# tests/parse/calls.dsl:29:14: error: one value is needed here, but this gives 2 values
#    29 |   report r = two(x)[0]
#       |              ^~~~~~
# <<<
# >>> exit 1
