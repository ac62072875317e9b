/* plan_report.c: what plan_point.c found, as text and as JSON. */
#include "planner.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 12 };

static double exposed(const PlanPoint *p) {
  return plan_computing(p) + p->exchanging;
}

static double hidden(const PlanPoint *p) {
  double computing = plan_computing(p);
  return computing > p->exchanging ? computing : p->exchanging;
}

static double all_flops(const PlanPoint *p) {
  double sum = 0;
  for (int d = 0; d < DTYPE_COUNT; d++)
    sum += p->flops[d];
  return sum;
}

/* ---- text ---------------------------------------------------------------- */

static void add_bytes(Buf *out, double bytes, int width) {
  char text[16];
  bytes_text((int64_t)bytes, text);
  buf_fmt(out, "%*s", width, text);
}

static void add_memory_row(Buf *out, const char *what, int64_t bytes) {
  if (!bytes) return;
  buf_fmt(out, "  %-38s", what);
  add_bytes(out, (double)bytes, 12);
  buf_add(out, "\n");
}

static void add_memory(const PlanPoint *p, const Topology *t, Buf *out) {
  buf_fmt(out, "\n  %-38s%12s\n", "memory", "a device");
  add_memory_row(out, "parameters", p->params);
  add_memory_row(out, "optimiser", p->optim);
  add_memory_row(out, "gradients, when most is alive", p->gradients);
  add_memory_row(out, "activations and all else of a step", p->activations);
  add_memory_row(out, "states", p->states);
  add_memory_row(out, "inputs and reports", p->ends);
  add_memory_row(out, "together", p->memory);
  buf_fmt(out, "  %-38s", "of");
  add_bytes(out, t->memory, 12);
  buf_fmt(out, "   %.0f %%\n", 100 * (double)p->memory / t->memory);
}

static void add_traffic(const PlanPoint *p, Buf *out) {
  buf_fmt(out, "\n  %-14s  %-20s%8s%12s  %-12s%12s\n", "exchanges", "over",
          "a step", "sent", "by", "ms");
  for (int i = 0; i < p->n_traffic; i++) {
    const PlanTraffic *x = &p->traffic[i];
    buf_fmt(out, "  %-14s  %-20s%8lld", op_info[x->op].name, x->axes,
            (long long)x->times);
    add_bytes(out, (double)x->bytes, 12);
    buf_fmt(out, "  %-12s%12.3f\n", x->link, x->seconds * 1e3);
  }
  if (!p->n_traffic) buf_add(out, "  nothing moves\n");
  if (!p->n_traffic) return;
  buf_fmt(out, "  %-14s  %-20s%8s", "together", "", "");
  add_bytes(out, (double)p->sent, 12);
  buf_fmt(out, "  %-12s%12.3f\n", "", p->exchanging * 1e3);
}

static void add_computing(const PlanPoint *p, Buf *out) {
  buf_fmt(out, "\n  %-38s%12s%12s\n", "computing", "a step", "ms");
  for (int d = 0; d < DTYPE_COUNT; d++)
    if (p->flops[d] > 0)
      buf_fmt(out, "  GFLOP of products in %-17s%12.4g\n", dtype_info[d].name,
              p->flops[d] / 1e9);
  buf_fmt(out, "  %-38s%12.4g\n", "10^9 elementwise operations",
          p->ops / 1e9);
  buf_fmt(out, "  %-38s%12.4g\n", "GB read and written", p->bytes / 1e9);
  buf_fmt(out, "  %-38s%12s%12.3f\n", "launches bound by products", "",
          p->seconds[BOUND_PRODUCTS] * 1e3);
  buf_fmt(out, "  %-38s%12s%12.3f\n", "launches bound by elementwise work",
          "", p->seconds[BOUND_ELEMENTWISE] * 1e3);
  buf_fmt(out, "  %-38s%12s%12.3f\n", "launches bound by memory", "",
          p->seconds[BOUND_MEMORY] * 1e3);
  buf_fmt(out, "  %-38s%12lld%12.3f\n", "what each launch takes besides",
          (long long)p->launches, p->launching * 1e3);
  buf_fmt(out, "  %-38s%12s%12.3f\n", "together", "",
          plan_computing(p) * 1e3);
}

static int by_seconds(const void *x, const void *y) {
  double a = ((const PlanLayer *)x)->seconds;
  double b = ((const PlanLayer *)y)->seconds;
  return (a < b) - (a > b);
}

static void add_layers(const PlanPoint *p, Buf *out) {
  PlanLayer sorted[MAX_PLAN_LAYERS];
  memcpy(sorted, p->layers, sizeof sorted);
  qsort(sorted, (size_t)p->n_layers, sizeof *sorted, by_seconds);
  buf_fmt(out, "\n  %-38s%12s%12s%12s\n", "computing, by layer", "GFLOP", "GB",
          "ms");
  double rest = 0;
  for (int i = 0; i < p->n_layers; i++) {
    const PlanLayer *l = &sorted[i];
    if (i >= MOST_LAYERS) rest += l->seconds;
    if (i < MOST_LAYERS)
      buf_fmt(out, "  %-38s%12.4g%12.4g%12.3f\n", l->name, l->flops / 1e9,
              l->bytes / 1e9, l->seconds * 1e3);
  }
  if (p->n_layers > MOST_LAYERS)
    buf_fmt(out, "  %-38s%36.3f\n", "the others", rest * 1e3);
}

static void add_step(const PlanPoint *p, Buf *out) {
  double tokens = (double)p->tokens;
  buf_fmt(out, "\n  %-38s%12s%12s\n", "a step", "ms", "tokens/s");
  buf_fmt(out, "  %-38s%12.3f%12.0f\n", "if exchanges overlap with nothing",
          exposed(p) * 1e3, tokens / exposed(p));
  if (!(p->exchanging > 0)) return;
  buf_fmt(out, "  %-38s%12.3f%12.0f\n", "as the program overlaps them",
          p->scheduled * 1e3, tokens / p->scheduled);
  buf_fmt(out, "  %-38s%12.3f%12.0f\n", "if all overlap with all launches",
          hidden(p) * 1e3, tokens / hidden(p));
}

static void add_title(const char *model, const PlanPoint *p, const Topology *t,
                      Buf *out) {
  buf_fmt(out, "%s on %lld device%s", model, (long long)p->devices,
          p->devices > 1 ? "s" : "");
  if (p->devices > 1) buf_fmt(out, ", %s", p->mesh);
  if (*p->fitted) buf_fmt(out, ", with %s", p->fitted);
  buf_fmt(out, "; %s: %s\n", t->name, t->device);
  buf_fmt(out,
          "%lld parameters and %lld biases, %.0f multiply-adds a token "
          "forward;\nwithout embedding and softmax %lld and %.0f; %lld tokens "
          "a step\n",
          (long long)p->cost.params, (long long)p->cost.biases,
          (double)p->cost.macs / (double)p->tokens,
          (long long)p->cost.core_params,
          (double)p->cost.core_macs / (double)p->tokens,
          (long long)p->tokens);
}

void plan_report(const char *model, const PlanPoint *p, const Topology *t,
                 Buf *out) {
  add_title(model, p, t, out);
  add_memory(p, t, out);
  add_traffic(p, out);
  add_computing(p, out);
  add_layers(p, out);
  add_step(p, out);
}

/* ---- how it scales ------------------------------------------------------- */

void plan_table(const char *model, const PlanPoint *p, int n,
                const Topology *t, Buf *out) {
  buf_fmt(out, "%s; %s: %s\n", model, t->name, t->device);
  buf_fmt(out,
          "\n%8s %9s %15s %11s %11s %10s %10s %10s %12s %7s\n", "devices",
          "tokens", "parameters", "memory", "sent", "computing", "exchanges",
          "ms a step", "tokens/s", "a dev.");
  for (int i = 0; i < n; i++) {
    const PlanPoint *x = &p[i];
    double rate = (double)x->tokens / x->scheduled;
    double first = (double)p->tokens / p->scheduled / (double)p->devices;
    buf_fmt(out, "%8lld %9lld %15lld ", (long long)x->devices,
            (long long)x->tokens,
            (long long)(x->cost.params + x->cost.biases));
    add_bytes(out, (double)x->memory, 11);
    add_bytes(out, (double)x->sent, 12);
    buf_fmt(out, " %10.2f %10.2f %10.2f %12.0f %5.0f %%%s%s%s\n",
            plan_computing(x) * 1e3, x->exchanging * 1e3, x->scheduled * 1e3,
            rate, 100 * rate / (double)x->devices / first,
            *x->fitted ? "  with " : "", x->fitted,
            (double)x->memory > t->memory ? "  too little memory" : "");
  }
  buf_add(out, "\nMemory, sent bytes and times are those of each device, "
               "and a step overlaps exchanges as\nthe program does; a dev.: "
               "tokens/s of a device against the first row. Memory of a "
               "device: ");
  add_bytes(out, t->memory, 0);
  buf_add(out, ".\n");
}

/* ---- JSON ---------------------------------------------------------------- */

/* A text between quotes. */
static void add_text(Buf *out, const char *text) {
  buf_add(out, "\"");
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\')
      buf_fmt(out, "\\%c", c);
    else if (c < ' ')
      buf_fmt(out, "\\u%04x", c);
    else
      buf_add_n(out, text, 1);
  }
  buf_add(out, "\"");
}

static void add_int(Buf *out, const char *name, int64_t x) {
  buf_fmt(out, ", \"%s\": %lld", name, (long long)x);
}

static void add_double(Buf *out, const char *name, double x) {
  buf_fmt(out, ", \"%s\": %.9g", name, x);
}

static void json_traffic(const PlanPoint *p, Buf *out) {
  buf_add(out, ", \"exchanges\": [");
  for (int i = 0; i < p->n_traffic; i++) {
    const PlanTraffic *x = &p->traffic[i];
    buf_fmt(out, "%s{\"kind\": \"%s\", \"axes\": ", i ? ", " : "",
            op_info[x->op].name);
    add_text(out, x->axes);
    buf_add(out, ", \"link\": ");
    add_text(out, x->link);
    add_int(out, "times", x->times);
    add_int(out, "bytes", x->bytes);
    add_double(out, "ms", x->seconds * 1e3);
    buf_add(out, "}");
  }
  buf_add(out, "]");
}

static void json_point(const char *model, const PlanPoint *p,
                       const Topology *t, Buf *out) {
  buf_add(out, "{\"model\": ");
  add_text(out, model);
  buf_add(out, ", \"topology\": ");
  add_text(out, t->name);
  buf_add(out, ", \"mesh\": ");
  add_text(out, p->mesh);
  buf_add(out, ", \"with\": ");
  add_text(out, p->fitted);
  add_int(out, "devices", p->devices);
  add_int(out, "tokens", p->tokens);
  add_int(out, "parameters", p->cost.params);
  add_int(out, "biases", p->cost.biases);
  add_int(out, "macs", p->cost.macs);
  add_int(out, "core_parameters", p->cost.core_params);
  add_int(out, "core_macs", p->cost.core_macs);
  add_int(out, "parameter_bytes", p->params);
  add_int(out, "optimiser_bytes", p->optim);
  add_int(out, "gradient_bytes", p->gradients);
  add_int(out, "activation_bytes", p->activations);
  add_int(out, "state_bytes", p->states);
  add_int(out, "input_bytes", p->ends);
  add_int(out, "memory_bytes", p->memory);
  add_double(out, "device_memory_bytes", t->memory);
  add_int(out, "sent_bytes", p->sent);
  add_double(out, "flops", all_flops(p));
  add_double(out, "elementwise", p->ops);
  add_double(out, "moved_bytes", p->bytes);
  add_int(out, "launches", p->launches);
  add_double(out, "products_ms", p->seconds[BOUND_PRODUCTS] * 1e3);
  add_double(out, "elementwise_ms", p->seconds[BOUND_ELEMENTWISE] * 1e3);
  add_double(out, "memory_ms", p->seconds[BOUND_MEMORY] * 1e3);
  add_double(out, "launch_ms", p->launching * 1e3);
  add_double(out, "computing_ms", plan_computing(p) * 1e3);
  add_double(out, "exchanging_ms", p->exchanging * 1e3);
  add_double(out, "step_ms", p->scheduled * 1e3);
  add_double(out, "exposed_step_ms", exposed(p) * 1e3);
  add_double(out, "hidden_step_ms", hidden(p) * 1e3);
  json_traffic(p, out);
  buf_add(out, "}");
}

void plan_json(const char *model, const PlanPoint *p, int n, const Topology *t,
               Buf *out) {
  if (n != 1) buf_add(out, "[");
  for (int i = 0; i < n; i++) {
    if (i) buf_add(out, ",\n ");
    json_point(model, &p[i], t, out);
  }
  buf_add(out, n != 1 ? "]\n" : "\n");
}
