# test: %s
const L = 3
entry eval(x: f32[2, 3] from text, y: f32[2, 4] from text) {
  if x > 0.0 { let a = 1 }
  if L { let a = 1 }
  let b = x if y > 0.0 else y
  for i in 0..x { let a = i }
  let c = for i in 0..L with h = x { let d = h }
  let e, f = scan a in x, b in y along 1 with h = 0.0 { next h = h + 1.0; yield a }
  let g = scan a in x with h = x { next h = a; yield a }
  let i = scan a in x along 2 { yield a }
  let j = scan a in x with h = x[0, :] {
    next h = h, h = a
    next q = h
    yield a
    yield a
    report inside = a
  }
  next h = x
  yield x
  return x
  let b = 3
  let m = scan t in 0..0 { yield t }
}

# >>> err
# tests/parse/control.dsl:4:6: error: the condition of 'if' must be known when compiling, but this is bool[2, 3]
#     4 |   if x > 0.0 { let a = 1 }
#       |      ^~~~~~~
# tests/parse/control.dsl:4:6: note: select(condition, a, b) chooses by element
#     4 |   if x > 0.0 { let a = 1 }
#       |      ^~~~~~~
# tests/parse/control.dsl:5:6: error: the condition of 'if' must be true or false, but this is the integer 3
#     5 |   if L { let a = 1 }
#       |      ^
# tests/parse/control.dsl:6:16: error: the condition must be known when compiling, but this is bool[2, 4]
#     6 |   let b = x if y > 0.0 else y
#       |                ^~~~~~~
# tests/parse/control.dsl:6:16: note: select(condition, a, b) chooses by element
#     6 |   let b = x if y > 0.0 else y
#       |                ^~~~~~~
# tests/parse/control.dsl:7:15: error: the end of 'for' must be an integer known when compiling, but this is f32[2, 3]
#     7 |   for i in 0..x { let a = i }
#       |               ^
# tests/parse/control.dsl:8:30: error: 'h' never gets a next value
#     8 |   let c = for i in 0..L with h = x { let d = h }
#       |                              ^
# tests/parse/control.dsl:9:32: error: this scan has 4 turns here, but 3 before
#     9 |   let e, f = scan a in x, b in y along 1 with h = 0.0 { next h = h + 1.0; yield a }
#       |                                ^
# tests/parse/control.dsl:9:24: note: 3 turns here
#     9 |   let e, f = scan a in x, b in y along 1 with h = 0.0 { next h = h + 1.0; yield a }
#       |                        ^
# tests/parse/control.dsl:10:45: error: 'h' is carried as f32[2, 3], but gets f32[3]
#    10 |   let g = scan a in x with h = x { next h = a; yield a }
#       |                                             ^
# tests/parse/control.dsl:10:32: note: it starts as f32[2, 3] here
#    10 |   let g = scan a in x with h = x { next h = a; yield a }
#       |                                ^
# tests/parse/control.dsl:11:21: error: f32[2, 3] has no dim 2 to scan along
#    11 |   let i = scan a in x along 2 { yield a }
#       |                     ^
# tests/parse/control.dsl:12:11: error: 1 name, but this gives 2 values
#    12 |   let j = scan a in x with h = x[0, :] {
#       |           ^~~~
# tests/parse/control.dsl:13:17: error: 'h' got its next value already
#    13 |     next h = h, h = a
#       |                 ^
# tests/parse/control.dsl:13:14: note: it got it here
#    13 |     next h = h, h = a
#       |              ^
# tests/parse/control.dsl:14:10: error: the loop carries no 'q'
#    14 |     next q = h
#       |          ^
# tests/parse/control.dsl:16:5: error: this scan yields already
#    16 |     yield a
#       |     ^~~~~~~
# tests/parse/control.dsl:15:5: note: it yields here
#    15 |     yield a
#       |     ^~~~~~~
# tests/parse/control.dsl:17:12: error: a report cannot stand inside of a scan; yield the value and report it after
#    17 |     report inside = a
#       |            ^~~~~~
# tests/parse/control.dsl:19:3: error: 'next' belongs into a loop
#    19 |   next h = x
#       |   ^~~~~~~~~~
# tests/parse/control.dsl:20:3: error: 'yield' belongs into a scan
#    20 |   yield x
#       |   ^~~~~~~
# tests/parse/control.dsl:21:3: error: only functions return; an entry reports
#    21 |   return x
#       |   ^~~~~~~~
# tests/parse/control.dsl:22:7: error: 'b' has a value already
#    22 |   let b = 3
#       |       ^
# tests/parse/control.dsl:6:7: note: it was given here
#     6 |   let b = x if y > 0.0 else y
#       |       ^
# tests/parse/control.dsl:23:21: error: a scan cannot run from 0 to 0
#    23 |   let m = scan t in 0..0 { yield t }
#       |                     ^~~~
# <<<
# >>> exit 1
