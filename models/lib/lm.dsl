# Training, evaluating and sampling a language model over tokens. A model brings
# `body`: from tokens i32[b, t] to what is said about the next ones, f32[b, t, d],
# the weights f32[V, d] and biases f32[V] of the softmax that says it, and an
# auxiliary loss.
import "mesh.dsl"
import "nn.dsl"
import "optim.dsl"
import "softmax.dsl"

const V = 256         # vocabulary: bytes, or the size of moerun's --vocab
const T = 32          # time steps per batch
const B = 64          # sequences per batch, over the whole mesh
const SAMPLES = 0     # words that the next one is told from in training; 0: all
const WARMUP = 1000   # steps until the learning rate is `lr`
option lr = 1e-3

entry train(x: i32[B @data @dev @expert, T] from text(below = V),
            y: i32[B @data @dev @expert, T] from text(shift = 1)) {
  let h, w, bias, aux = body(x) as "lm"
  let nll = mean(losses(h, w, bias, y, SAMPLES) as "lm/softmax")
  let rate = warmup_rsqrt(lr, WARMUP)
  minimize nll + aux with { "*": adam(rate) }
  report loss = nll
  report perplexity = exp(nll)
  report lr = rate
}

# Every token of a file: sums, so that the masked end of it does not count.
entry eval(x: i32[B @data @dev @expert, T] from text(below = V),
           y: i32[B @data @dev @expert, T] from text(shift = 1),
           counts: f32[B @data @dev @expert, T] from text(mask, shift = 1)) {
  let h, w, bias, aux = body(x) as "lm"
  report nll = sum((losses(h, w, bias, y) as "lm/softmax") * counts)
  report tokens = sum(counts)
}

# One token in, the distribution of the next one out.
entry decode(x: i32[1, 1] from tokens) {
  let h, w, bias, aux = body(x) as "lm"
  let z = logits(h, w, bias) as "lm/softmax"
  report logits = z[0, 0, :]
}
