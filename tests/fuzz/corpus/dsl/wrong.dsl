const N = 
fn f(x { return x[0, ..] }
entry e() { let a = f(1) report b = a + }
