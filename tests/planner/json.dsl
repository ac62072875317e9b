# test: %s -I models --plan-only --json --topology tests/planner/round.topo
# One device, as JSON.
import "lib/nn.dsl"

entry score(x: i32[8 @dev, 4] from tokens) {
  let e = embed(x, 16, 8)
  report y = sum(ffn(e, 64))
}

# >>> out
# {"model": "tests/planner/json.dsl", "topology": "tests/planner/round.topo", "mesh": "one device", "with": "", "devices": 1, "tokens": 32, "parameters": 1152, "biases": 0, "macs": 32768, "core_parameters": 1024, "core_macs": 32768, "parameter_bytes": 4608, "optimiser_bytes": 0, "gradient_bytes": 0, "activation_bytes": 9216, "state_bytes": 0, "input_bytes": 256, "memory_bytes": 14080, "device_memory_bytes": 1e+09, "sent_bytes": 0, "flops": 65536, "elementwise": 4096, "moved_bytes": 41604, "launches": 5, "products_ms": 0.065536, "elementwise_ms": 0, "memory_ms": 0.019076, "launch_ms": 0.005, "computing_ms": 0.089612, "exchanging_ms": 0, "step_ms": 0.089612, "exposed_step_ms": 0.089612, "hidden_step_ms": 0.089612, "exchanges": []}
# <<<
