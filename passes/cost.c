/* cost.c: what a model costs by layer: parameters, multiply-adds a token,
 * bytes.
 *
 * It counts as the 2017 paper does: only the products, forward only, each token
 * once; biases are told apart. A layer is the path that its parameters share,
 * "lm/moe/gate" for "lm/moe/gate/w"; a product belongs to the layer that its
 * node's path lies in. The paper gives its sizes without embedding and softmax,
 * so the last line leaves out layers of these names.
 *
 *   layer        parameters  operations  their bytes    moved
 *   lm/moe/gate       32768       32768    128.0 KiB  4.6 MiB
 */
#include "pass.h"

#include <string.h>

typedef struct Layer {
  Sym path;
  int64_t params, param_bytes;
  int64_t macs;  /* of one step */
  int64_t moved; /* bytes that its products read and write in one step */
} Layer;

typedef struct Cost {
  Ctx *cx;
  VEC(Layer) layers;
  int64_t biases;
  int64_t tokens; /* in one step */
} Cost;

/* ---- layers ------------------------------------------------------------- */

static Sym parent_path(Ctx *cx, Sym path) {
  const char *slash = strrchr(path, '/');
  return slash ? sym_n(cx, path, (size_t)(slash - path)) : sym(cx, "");
}

/* Whether `path` is `layer` or lies below it. */
static bool lies_in(Sym path, Sym layer) {
  size_t n = strlen(layer);
  return strncmp(path, layer, n) == 0 &&
         (n == 0 || path[n] == '\0' || path[n] == '/');
}

static bool has_component(Sym path, const char *name) {
  for (const char *p = path; *p;) {
    size_t n = strcspn(p, "/");
    if (n == strlen(name) && strncmp(p, name, n) == 0) return true;
    p += n + (p[n] != '\0');
  }
  return false;
}

static Layer *layer_named(Cost *c, Sym path) {
  for (uint32_t i = 0; i < c->layers.len; i++)
    if (c->layers.data[i].path == path) return &c->layers.data[i];
  vec_push(&c->cx->scratch, &c->layers, (Layer){.path = path});
  return &c->layers.data[c->layers.len - 1];
}

/* The innermost layer with parameters that the path lies in; a layer of its own
 * where there is none. */
static Layer *layer_of(Cost *c, Sym path) {
  Layer *best = NULL;
  for (uint32_t i = 0; i < c->layers.len; i++) {
    Layer *l = &c->layers.data[i];
    if (l->params && lies_in(path, l->path) &&
        (!best || strlen(l->path) > strlen(best->path)))
      best = l;
  }
  return best ? best : layer_named(c, path);
}

/* ---- parameters --------------------------------------------------------- */

/* Ops that hand a weight on, in another shape. */
static bool hands_on(OpKind op) {
  return op == OP_reshape || op == OP_transpose || op == OP_slice ||
         op == OP_cast || op == OP_concat || op == OP_pad;
}

/* Whether `v` gets into a product, or is a table that rows are taken from. */
static bool is_weight(const Value *v, const Region *r) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    for (uint32_t k = 0; k < n->ins.len; k++) {
      if (n->ins.data[k] != v) continue;
      if (n->op == OP_contract || (n->op == OP_gather && k == 0)) return true;
      if (hands_on(n->op) && is_weight(n->outs.data[0], r)) return true;
      uint32_t first =
          n->op == OP_scan; /* a scan's body starts with its index */
      if (n->body && is_weight(n->body->params.data[k + first], n->body))
        return true;
    }
  }
  return false;
}

static void count_params(Cost *c, Module *m, const Entry *e) {
  for (uint32_t i = 0; i < e->ins.len; i++) {
    if (e->ins.data[i].kind != BIND_SLOT) continue;
    const Slot *slot = ir_slot(m, e->ins.data[i].name);
    if (slot->kind != SLOT_PARAM) continue;
    int64_t n = type_elements(&slot->type);
    if (!is_weight(e->region->params.data[i], e->region)) {
      c->biases += n;
      continue;
    }
    Layer *l = layer_named(c, parent_path(c->cx, slot->path));
    l->params += n;
    l->param_bytes += type_bytes(&slot->type);
  }
}

/* ---- operations --------------------------------------------------------- */

/* Executions of a node's body for one of the node. */
static int64_t body_times(const Node *n) {
  return n->op == OP_scan ? attr_int(n, "length") : 1;
}

/* Counts products of the forward part: what comes before `grad`, and is not a
 * gradient where autodiff has run already. */
static void count_products(Cost *c, const Region *r, int64_t times) {
  for (uint32_t i = 0; i < r->nodes.len; i++) {
    const Node *n = r->nodes.data[i];
    if (n->op == OP_grad) return;
    if (n->backward) continue;
    if (ir_macs(n)) {
      Layer *l = layer_of(c, n->layer ? n->layer : sym(c->cx, ""));
      l->macs += times * ir_macs(n);
      l->moved += times * ir_bytes(n);
    }
    if (n->body) count_products(c, n->body, times * body_times(n));
  }
}

/* Tokens of one step: elements of the first input of integers. */
static int64_t count_tokens(const Entry *e) {
  for (uint32_t i = 0; i < e->ins.len; i++) {
    const Type *t = &e->region->params.data[i]->type;
    if (e->ins.data[i].kind == BIND_INPUT &&
        dtype_info[t->dtype].kind == DK_INT)
      return type_elements(t);
  }
  return 1;
}

/* ---- the table ---------------------------------------------------------- */

void bytes_text(int64_t bytes, char out[16]) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double x = (double)bytes;
  size_t u = 0;
  while (x >= 1023.95 && u + 1 < COUNT_OF(units))
    x /= 1024, u++;
  snprintf(out, 16, u ? "%.1f %s" : "%.0f %s", x, units[u]);
}

static void add_bytes(Buf *out, int64_t bytes) {
  char text[16];
  bytes_text(bytes, text);
  buf_fmt(out, "  %11s", text);
}

/* Multiply-adds a token; a fraction only where they do not divide. */
static void add_ops(Buf *out, int64_t macs, int64_t tokens) {
  if (macs % tokens == 0)
    buf_fmt(out, "  %12lld", (long long)(macs / tokens));
  else
    buf_fmt(out, "  %12.1f", (double)macs / (double)tokens);
}

static void add_row(const Cost *c, Buf *out, int width, const Layer *l) {
  buf_fmt(out, "%-*s  %14lld", width, l->path[0] ? l->path : "(no layer)",
          (long long)l->params);
  add_ops(out, l->macs, c->tokens);
  add_bytes(out, l->param_bytes);
  add_bytes(out, l->moved);
  buf_add(out, "\n");
}

static void add_total(Layer *total, const Layer *l) {
  total->params += l->params;
  total->param_bytes += l->param_bytes;
  total->macs += l->macs;
  total->moved += l->moved;
}

static void sum_layers(const Cost *c, Layer *all, Layer *core) {
  for (uint32_t i = 0; i < c->layers.len; i++) {
    const Layer *l = &c->layers.data[i];
    add_total(all, l);
    if (!has_component(l->path, "embed") && !has_component(l->path, "softmax"))
      add_total(core, l);
  }
}

static void add_table(Cost *c, Buf *out) {
  Layer all = {.path = "all layers"};
  Layer core = {.path = "without embedding and softmax"};
  int width = (int)strlen(core.path);
  for (uint32_t i = 0; i < c->layers.len; i++)
    if ((int)strlen(c->layers.data[i].path) > width)
      width = (int)strlen(c->layers.data[i].path);
  sum_layers(c, &all, &core);
  buf_fmt(out, "%-*s  %14s  %12s  %11s  %11s\n", width, "layer", "parameters",
          "operations", "their bytes", "moved");
  for (uint32_t i = 0; i < c->layers.len; i++)
    add_row(c, out, width, &c->layers.data[i]);
  add_row(c, out, width, &all);
  add_row(c, out, width, &core);
  buf_fmt(out, "%-*s  %14lld\n", width, "biases, in no product",
          (long long)c->biases);
}

static Cost cost_of(Module *m, const Entry *e) {
  Cost c = {.cx = m->cx, .tokens = count_tokens(e)};
  count_params(&c, m, e);
  count_products(&c, e->region, 1);
  return c;
}

CostTotals cost_totals(Module *m, Entry *e) {
  Cost c = cost_of(m, e);
  Layer all = {0}, core = {0};
  sum_layers(&c, &all, &core);
  return (CostTotals){all.params,  all.macs, core.params,
                      core.macs,   c.biases, c.tokens};
}

void cost_report(Module *m, Entry *e, Buf *out) {
  Cost c = cost_of(m, e);
  buf_fmt(out,
          "cost of %s: forward, %lld tokens a step; operations are "
          "multiply-adds a token;\nmoved are the bytes that products read and "
          "write in one step\n\n",
          e->name, (long long)c.tokens);
  add_table(&c, out);
}
