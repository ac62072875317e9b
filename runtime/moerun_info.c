/* moerun_info.c: what is in a compiled model. */
#include "moerun.h"

#include <inttypes.h>
#include <string.h>

static void type_text(int dtype, int rank, const int64_t *dims, char *out,
                      size_t bytes) {
  size_t used = (size_t)snprintf(out, bytes, "%s[", run_dtype_name[dtype]);
  for (int i = 0; i < rank && used < bytes; i++)
    used += (size_t)snprintf(out + used, bytes - used, "%s%" PRId64,
                             i ? ", " : "", dims[i]);
  if (used < bytes) snprintf(out + used, bytes - used, "]");
}

/* "f32[32 @dev, 512]", and how many elements of it a rank has. */
static int64_t slot_text(const MoertDesc *d, const MoertSlot *s, char *out,
                         size_t bytes) {
  int64_t elements = 1;
  size_t used =
      (size_t)snprintf(out, bytes, "%s[", run_dtype_name[s->dtype]);
  for (int k = 0; k < s->rank && used < bytes; k++) {
    int64_t part = s->dims[k];
    used += (size_t)snprintf(out + used, bytes - used, "%s%" PRId64,
                             k ? ", " : "", part);
    for (int i = 0; i < MOERT_MAX_MESH && s->axes[k][i] && used < bytes; i++) {
      const MoertAxis *a = &d->mesh[s->axes[k][i] - 1];
      used += (size_t)snprintf(out + used, bytes - used, " @%s", a->name);
      part = (part + a->size - 1) / a->size;
    }
    elements *= part;
  }
  if (used < bytes) snprintf(out + used, bytes - used, "]");
  return elements;
}

static bool has_ranks(const MoertDesc *d) {
  int64_t n = 1;
  for (int i = 0; i < d->n_axes; i++)
    n *= d->mesh[i].size;
  return n > 1;
}

/* Of all entries. */
static int count_records(const MoertDesc *d, int kind) {
  int n = 0;
  for (int i = 0; i < d->n_entries; i++)
    for (int k = 0; k < d->entries[i].n_records; k++)
      n += d->entries[i].records[k].kind == kind;
  return n;
}

/* "cpu, cuda (sm_80, 61 kernels, 2 of 4 loops as one kernel each)" */
static void print_devices(const MoertDesc *d) {
  const char *between = "";
  printf("devices    ");
  for (; d; d = d->next, between = ", ") {
    if (d->device == MOERT_CPU) {
      printf("%scpu", between);
      continue;
    }
    int kernels = 0;
    for (const char *p = d->ptx; (p = strstr(p, ".entry ")); p++)
      kernels++;
    printf("%scuda (%s, %d kernels", between, d->arch, kernels);
    int loops = count_records(d, MOERT_LOOP);
    if (loops)
      printf(", %d of %d loops as one kernel each",
             count_records(d, MOERT_TURNS), loops);
    printf(")");
  }
  printf("\n");
}

static void print_model(const RunArgs *a, const MoertDesc *d) {
  printf("model      %s\ncompiler   %s, options: %s\nsource     %s\n",
         a->model, d->compiler, d->flags[0] ? d->flags : "none",
         d->source_hash);
  print_devices(d);
  if (d->n_features) printf("needs     ");
  for (int i = 0; i < d->n_features; i++)
    printf(" %s", d->features[i]);
  if (d->n_features) printf("\n");
  if (d->n_axes) printf("mesh      ");
  for (int i = 0; i < d->n_axes; i++)
    printf(" %s=%" PRId64, d->mesh[i].name, d->mesh[i].size);
  if (d->n_axes) printf("\n");
  printf("memory     %sparameters %s, optimiser state %s, recurrent state "
         "%s\n",
         has_ranks(d) ? "of each rank: " : "",
         run_bytes_text(d->slab_bytes[MOERT_SLOT_PARAM]),
         run_bytes_text(d->slab_bytes[MOERT_SLOT_OPTIM]),
         run_bytes_text(d->slab_bytes[MOERT_SLOT_STATE]));
}

static void print_binding(const char *what, const MoertBinding *b,
                          const char *from) {
  char type[160];
  type_text(b->dtype, b->rank, b->dims, type, sizeof type);
  if (from[0])
    printf("    %-7s %-32s %-16s from %s\n", what, b->name, type, from);
  else
    printf("    %-7s %-32s %s\n", what, b->name, type);
}

/* Of products alone; init and reset have none. */
static void print_flops(int64_t flops) {
  static const char *const units[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP",
                                      "TFLOP"};
  double x = (double)flops;
  size_t u = 0;
  while (x >= 999.95 && u + 1 < COUNT_OF(units))
    x /= 1000, u++;
  if (flops) printf(", %.1f %s a step", x, units[u]);
}

static void print_entry(const MoertEntry *e) {
  printf("\nentry %s: %d records", e->name, e->n_records);
  print_flops(e->flops);
  if (e->arena_bytes) printf(", arena %s", run_bytes_text(e->arena_bytes));
  printf("%s\n", e->trains ? ", trains" : "");
  for (int i = 0; i < e->n_ins; i++)
    if (e->ins[i].kind == MOERT_BIND_INPUT)
      print_binding("input", &e->ins[i], e->ins[i].source);
  for (int i = 0; i < e->n_ins; i++)
    if (e->ins[i].kind == MOERT_BIND_OPTION)
      print_binding("option", &e->ins[i], "");
  for (int i = 0; i < e->n_outs; i++)
    if (e->outs[i].kind == MOERT_BIND_REPORT)
      print_binding("report", &e->outs[i], "");
    else if (e->outs[i].kind == MOERT_BIND_PROBE)
      print_binding("probe", &e->outs[i], "");
}

static void print_slot(const MoertDesc *d, const MoertSlot *s, int64_t *total,
                       int64_t *total_part) {
  char type[256];
  int64_t elements = 1, part = slot_text(d, s, type, sizeof type);
  for (int k = 0; k < s->rank; k++)
    elements *= s->dims[k];
  printf("    %-40s %-24s %14s", s->path, type,
         run_bytes_text(elements * run_dtype_bytes[s->dtype]));
  if (has_ranks(d))
    printf(" %14s", run_bytes_text(part * run_dtype_bytes[s->dtype]));
  printf("\n");
  *total += elements;
  *total_part += part;
}

static void print_slots(const MoertDesc *d) {
  static const char *const titles[] = {[MOERT_SLOT_PARAM] = "parameters",
                                       [MOERT_SLOT_OPTIM] = "optimiser state",
                                       [MOERT_SLOT_STATE] = "recurrent state"};
  bool ranks = has_ranks(d);
  for (int kind = 0; kind < 3; kind++) {
    int64_t total = 0, part = 0;
    int n = 0;
    for (int i = 0; i < d->n_slots; i++) {
      if (d->slots[i].kind != kind) continue;
      if (n++ == 0 && ranks)
        printf("\n%-69s %14s %14s\n", titles[kind], "in all", "of each rank");
      else if (n == 1)
        printf("\n%s\n", titles[kind]);
      print_slot(d, &d->slots[i], &total, &part);
    }
    if (n) printf("    %-40s %39s", "all, elements", run_count_text(total));
    if (n && ranks) printf(" %14s", run_count_text(part));
    if (n) printf("\n");
  }
}

static void print_lists(const MoertDesc *d) {
  if (d->n_options) printf("\noptions (moerun --set NAME=X)\n");
  for (int i = 0; i < d->n_options; i++)
    printf("    %-40s %g\n", d->options[i].name, d->options[i].value);
  if (d->n_texts) printf("\nIR, by stage (moerun info --ir STAGE)\n   ");
  for (int i = 0; i < d->n_texts; i++)
    printf(" %s", d->texts[i].name);
  if (d->n_texts) printf("\n");
}

static int print_ir(const MoertDesc *d, const char *stage) {
  for (int i = 0; i < d->n_texts; i++)
    if (strcmp(d->texts[i].name, stage) == 0) {
      fputs(d->texts[i].text, stdout);
      return 0;
    }
  run_error("the model has no IR of a stage '%s'%s", stage,
            d->n_texts ? rt_did_you_mean(stage, &d->texts[0].name,
                                         (size_t)d->n_texts, sizeof d->texts[0])
                       : "");
  fprintf(stderr, "there are:");
  for (int i = 0; i < d->n_texts; i++)
    fprintf(stderr, " %s", d->texts[i].name);
  fprintf(stderr, "\n");
  return EXIT_USER;
}

int run_info(const RunArgs *a) {
  MoertModel *model;
  MoertStatus st = moert_open(a->model, &model);
  if (st != MOERT_OK) return run_failed(st);
  const MoertDesc *d = moert_desc(model);
  int status = 0;
  if (a->ir) {
    status = print_ir(d, a->ir);
  } else {
    print_model(a, d);
    for (int i = 0; i < d->n_entries; i++)
      print_entry(&d->entries[i]);
    print_slots(d);
    print_lists(d);
  }
  moert_close(model);
  return status;
}
