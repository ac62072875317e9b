/* tables.c: whether the tables of a program hold together: every ref within its
 * slab, in every turn of the loops around it; loops that nest; inputs and
 * reports where programs can reach them. A library that was edited or made by
 * hand must not make the runtime write elsewhere. */
#include "rt.h"

static int64_t slab_bytes(const MoertDesc *d, const MoertEntry *e, int slab) {
  switch ((MoertSlab)slab) {
  case MOERT_SLAB_PARAM:
  case MOERT_SLAB_OPTIM:
  case MOERT_SLAB_STATE: return d->slab_bytes[slab];
  case MOERT_SLAB_INPUT: return e->input_bytes;
  case MOERT_SLAB_REPORT: return e->report_bytes;
  case MOERT_SLAB_ARENA: return e->arena_bytes;
  case MOERT_SLAB_COUNT: break;
  }
  return -1;
}

/* Whether a ref stays in its slab over all turns of the loops around it. */
static bool ref_fits(const MoertDesc *d, const MoertEntry *e, const MoertRef *r,
                     const int64_t *counts) {
  if (r->dtype < 0 || r->dtype >= MOERT_DTYPE_COUNT || r->elements < 0)
    return false;
  int64_t lo = r->offset,
          hi = r->offset + r->elements * rt_dtype[r->dtype].bytes;
  for (int i = 0; i < MOERT_MAX_LOOPS; i++) {
    int64_t far = (counts[i] - 1) * r->stride[i];
    if (counts[i] > 0) *(far < 0 ? &lo : &hi) += far;
  }
  return lo >= 0 && hi <= slab_bytes(d, e, r->slab);
}

/* Whether a binding is where programs can reach it. */
static bool is_in_reach(const MoertBinding *b) {
  switch ((MoertBindKind)b->kind) {
  case MOERT_BIND_SLOT: return true;
  case MOERT_BIND_INPUT:
  case MOERT_BIND_OPTION:
  case MOERT_BIND_STEP:
  case MOERT_BIND_SEED: return b->ref.slab == MOERT_SLAB_INPUT;
  case MOERT_BIND_REPORT:
  case MOERT_BIND_PROBE: return b->ref.slab == MOERT_SLAB_REPORT;
  }
  return false;
}

static MoertStatus check_bindings(const MoertDesc *d, const MoertEntry *e,
                                  const MoertBinding *all, int n) {
  static const int64_t none[MOERT_MAX_LOOPS];
  for (int i = 0; i < n; i++)
    if (!is_in_reach(&all[i]) || !ref_fits(d, e, &all[i].ref, none))
      return rt_fail(MOERT_BAD_DATA, "entry %s: '%s' lies outside of its slab",
                     e->name, all[i].name);
  return MOERT_OK;
}

static MoertStatus check_records(const MoertDesc *d, const MoertEntry *e) {
  int64_t counts[MOERT_MAX_LOOPS] = {0};
  int depth = 0;
  for (int i = 0; i < e->n_records; i++) {
    const MoertRecord *r = &e->records[i];
    if (r->kind == MOERT_LOOP && depth < MOERT_MAX_LOOPS)
      counts[depth++] = r->count;
    else if (r->kind == MOERT_LOOP || (r->kind == MOERT_END && depth == 0))
      return rt_fail(MOERT_BAD_DATA, "entry %s: record %d: loops do not nest",
                     e->name, i);
    else if (r->kind == MOERT_END)
      counts[--depth] = 0;
    if (r->dtype < 0 || r->dtype >= MOERT_DTYPE_COUNT)
      return rt_fail(MOERT_BAD_DATA, "entry %s: record %d: no dtype %d",
                     e->name, i, r->dtype);
    if (r->kind == MOERT_WAIT &&
        (r->count < 0 || r->count >= i ||
         e->records[r->count].kind != MOERT_START))
      return rt_fail(MOERT_BAD_DATA,
                     "entry %s: record %d waits for what has not started",
                     e->name, i);
    for (int k = 0; k < r->n_args; k++)
      if (!ref_fits(d, e, &r->args[k], counts))
        return rt_fail(MOERT_BAD_DATA,
                       "entry %s: record %d (%s): argument %d lies outside of "
                       "its slab",
                       e->name, i, r->name, k);
  }
  if (depth == 0) return MOERT_OK;
  return rt_fail(MOERT_BAD_DATA, "entry %s: a loop has no end", e->name);
}

static bool slot_fits(const MoertDesc *d, const MoertSlot *x) {
  bool ok = x->kind >= 0 && x->kind < 3 && x->dtype >= 0 &&
            x->dtype < MOERT_DTYPE_COUNT && x->rank >= 0 &&
            x->rank <= MOERT_MAX_RANK;
  for (int k = 0; ok && k < x->rank; k++)
    for (int i = 0; i < MOERT_MAX_MESH; i++)
      ok &= x->axes[k][i] >= 0 && x->axes[k][i] <= d->n_axes;
  return ok && x->offset >= 0 &&
         x->offset + rt_part_bytes(d, x) <= d->slab_bytes[x->kind];
}

MoertStatus rt_check_tables(const MoertDesc *d) {
  for (int i = 0; i < d->n_slots; i++)
    if (!slot_fits(d, &d->slots[i]))
      return rt_fail(MOERT_BAD_DATA, "slot '%s' lies outside of its slab",
                     d->slots[i].path);
  for (int i = 0; i < d->n_entries; i++) {
    const MoertEntry *e = &d->entries[i];
    RT_TRY(check_bindings(d, e, e->ins, e->n_ins));
    RT_TRY(check_bindings(d, e, e->outs, e->n_outs));
    RT_TRY(check_records(d, e));
  }
  return MOERT_OK;
}
