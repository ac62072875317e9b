/* cuda_exchange.c: collectives between GPUs, by NCCL.
 *
 * An exchange is work in a stream of its own, between two events: behind what
 * its operands need, and before what waits for its results. So it can be
 * captured like a kernel, and what is computed meanwhile runs beside it.
 *
 * A tensor that is cut into pieces of many runs is put together piece after
 * piece first, or taken apart afterwards, in a staging area. Rows of experts
 * travel in messages of one width, the same between all ranks of a group:
 *
 *   tokens     rows of rank 0's experts | of rank 1's | ...
 *   message    of each rank `width` rows, the first ones used
 *   experts    expert by expert, in each the rows of rank 0, rank 1, ...
 *
 * How wide they must be is known when the model gives experts a capacity: the
 * host need not ask. Otherwise the longest message of all ranks is found on the
 * GPUs and told to the host: in shares of what it could be at most, so that
 * steps with about as many rows are the same. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

/* ---- sizes --------------------------------------------------------------- */

static bool is_rows(const MoertCollective *k) {
  return k->kind == MOERT_ROWS_SEND || k->kind == MOERT_ROWS_RETURN;
}

static int64_t ref_bytes(const MoertRef *r) {
  return r->elements * rt_dtype[r->dtype].bytes;
}

static const MoertRef *last_arg(const MoertRecord *r) {
  return &r->args[r->n_args - 1];
}

static int64_t row_bytes(const MoertRecord *r) {
  return r->collective->in_run * rt_dtype[r->args[RT_X].dtype].bytes;
}

static int64_t rows_in(const MoertRecord *r, const MoertRef *ref) {
  return ref_bytes(ref) / row_bytes(r);
}

/* Rows that there is room for where the tokens, and where the experts are. */
static int64_t token_rows(const MoertRecord *r) {
  bool back = r->collective->kind == MOERT_ROWS_RETURN;
  return rows_in(r, back ? last_arg(r) : &r->args[RT_X]);
}
static int64_t expert_rows(const MoertRecord *r) {
  bool back = r->collective->kind == MOERT_ROWS_RETURN;
  return rows_in(r, back ? &r->args[RT_X] : last_arg(r));
}

static int64_t most_rows(const MoertRecord *r) {
  int64_t a = token_rows(r), b = expert_rows(r);
  return a < b ? a : b;
}

static bool has_some(const MoertRecord *r) {
  return r->n_args - 1 > RT_SOME; /* the last arg is the result */
}

/* Where experts take fewer rows than could come, and none goes in rounds, the
 * model has bounded them. */
static bool is_counted(const MoertRecord *r, int places) {
  if (most_rows(r) == 0) return false;
  return has_some(r) || expert_rows(r) >= token_rows(r) * places;
}

/* Bytes of the two staging areas. */
static void staging_of(const MoertRecord *r, int places, int64_t bytes[2]) {
  const MoertCollective *k = r->collective;
  bytes[0] = bytes[1] = 0;
  if (is_rows(k)) {
    bytes[0] = bytes[1] = most_rows(r) * row_bytes(r) * places;
    return;
  }
  if (k->in_rows > 1) bytes[0] = ref_bytes(&r->args[0]);
  if (k->out_rows > 1) bytes[1] = ref_bytes(last_arg(r));
}

static int64_t experts_of(const MoertRecord *r) {
  return r->args[RT_MINE].elements - 1;
}

/* Bytes of an exchange's tables. */
static int64_t table_bytes(const MoertRecord *r, int places) {
  if (!is_rows(r->collective)) return 0;
  return rt_cu_round_up(2 * experts_of(r) * (int64_t)sizeof(int32_t)) +
         rt_cu_round_up(2 * places * (int64_t)sizeof(int32_t));
}

/* ---- all exchanges ------------------------------------------------------- */

/* Called for each exchange of the session. */
typedef MoertStatus Each(MoertSession *s, int entry, int index, void *user);

static MoertStatus each_exchange(MoertSession *s, Each *each, void *user) {
  for (int i = 0; i < s->desc->n_entries; i++)
    for (int k = 0; k < s->desc->entries[i].n_records; k++) {
      const MoertRecord *r = &s->desc->entries[i].records[k];
      if (r->kind == MOERT_START && r->collective->kind != MOERT_PLACE)
        RT_TRY(each(s, i, k, user));
    }
  return MOERT_OK;
}

typedef struct Sizes {
  int64_t staging[2], tables;
  int n;
} Sizes;

static MoertStatus add_sizes(MoertSession *s, int entry, int index,
                             void *user) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  int places = s->entries[entry].pending[index].group.n;
  Sizes *all = user;
  int64_t bytes[2];
  staging_of(r, places, bytes);
  for (int i = 0; i < 2; i++)
    all->staging[i] = rt_larger(all->staging[i], rt_cu_round_up(bytes[i]));
  all->tables += table_bytes(r, places);
  all->n++;
  return MOERT_OK;
}

static Sizes sizes_of(const MoertSession *s) {
  Sizes all = {.n = 0};
  each_exchange((MoertSession *)(uintptr_t)s, add_sizes, &all);
  return all;
}

int64_t rt_cuda_exchange_bytes(const MoertSession *s) {
  Sizes all = sizes_of(s);
  if (all.n == 0) return 0;
  return all.staging[0] + all.staging[1] + all.tables + RT_CU_ALIGNED;
}

/* ---- making ready -------------------------------------------------------- */

static MoertStatus put_table(RtCuda *c, const int32_t *from, int64_t n,
                             char **at, char **out) {
  int64_t bytes = n * (int64_t)sizeof *from;
  *out = *at;
  *at += rt_cu_round_up(bytes);
  if (bytes == 0) return MOERT_OK;
  RT_TRY(RT_CU(c, cuMemcpyHtoDAsync(rt_cu_address(*out), from, (size_t)bytes,
                                    c->stream)));
  return RT_CU(c, cuStreamSynchronize(c->stream)); /* `from` goes */
}

/* Where each expert is, and which ones each place has. */
static MoertStatus make_tables(RtCuda *c, const RtPending *p,
                               const MoertRecord *r, char **at,
                               RtCudaExchange *x) {
  int64_t n = experts_of(r), n_seats = 2 * n;
  int places = p->group.n, n_bounds = 2 * places;
  int32_t *seats, *bounds = NULL;
  RT_TRY(RT_NEW(&seats, n_seats));
  MoertStatus st = RT_NEW(&bounds, n_bounds);
  for (int place = 0; st == MOERT_OK && place < places; place++) {
    int64_t first, end;
    rt_experts_of(p->k, &p->group, n, place, &first, &end);
    bounds[2 * place] = (int32_t)first;
    bounds[2 * place + 1] = (int32_t)end;
    for (int64_t e = first; e < end; e++) {
      seats[2 * e] = place;
      seats[2 * e + 1] = (int32_t)first;
    }
  }
  if (st == MOERT_OK) st = put_table(c, seats, n_seats, at, &x->seats);
  if (st == MOERT_OK) st = put_table(c, bounds, n_bounds, at, &x->bounds);
  free(seats);
  free(bounds);
  return st;
}

static MoertStatus make_exchange(MoertSession *s, int entry, int index,
                                 void *user) {
  RtCuda *c = s->cuda;
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  const RtPending *p = &s->entries[entry].pending[index];
  RtCudaExchange *x = &c->entries[entry].exchanges[index];
  char **at = user;
  *x = (RtCudaExchange){.wire = rt_cuda_wire(c, r->collective),
                        .number = c->n_names + 1};
  c->names[c->n_names++] = p->what;
  RT_TRY(RT_CU(c, cuEventCreate(&x->done, CU_EVENT_DISABLE_TIMING)));
  if (!is_rows(r->collective)) return MOERT_OK;
  x->bound = most_rows(r);
  x->counted = is_counted(r, p->group.n);
  return make_tables(c, p, r, at, x);
}

static MoertStatus make_host_words(RtCuda *c, int n) {
  CUdeviceptr device;
  size_t bytes = sizeof *c->host + 2 * (size_t)n * sizeof *c->over;
  void *data;
  RT_TRY(RT_CU(c, cuMemHostAlloc(&data, bytes, CU_MEMHOSTALLOC_DEVICEMAP)));
  memset(data, 0, bytes);
  c->host = data;
  c->over = (int32_t *)(void *)(c->host + 1);
  RT_TRY(RT_CU(c, cuMemHostGetDevicePointer(&device, data, 0)));
  c->host_address = (char *)(uintptr_t)device;
  return MOERT_OK;
}

MoertStatus rt_cuda_exchanges_open(MoertSession *s, char *block) {
  enum { SHARES_A_RANK = 4 };
  RtCuda *c = s->cuda;
  Sizes all = sizes_of(s);
  RT_TRY(rt_cuda_wires(s));
  if (all.n == 0) return MOERT_OK;
  c->shares = SHARES_A_RANK * s->comm->size;
  c->staging[0] = block;
  c->staging[1] = block + all.staging[0];
  c->most = c->staging[1] + all.staging[1];
  char *tables = c->most + RT_CU_ALIGNED;
  RT_TRY(RT_NEW(&c->names, all.n));
  RT_TRY(rt_cuda_rows_open(c));
  RT_TRY(make_host_words(c, all.n));
  RT_TRY(RT_CU(c, cuStreamCreate(&c->wire_stream, CU_STREAM_NON_BLOCKING)));
  RT_TRY(RT_CU(c, cuEventCreate(&c->go, CU_EVENT_DISABLE_TIMING)));
  return each_exchange(s, make_exchange, &tables);
}

void rt_cuda_exchanges_free(MoertSession *s) {
  RtCuda *c = s->cuda;
  rt_cuda_wires_free(c);
  for (int i = 0; c->entries && i < s->desc->n_entries; i++) {
    RtCudaExchange *all = c->entries[i].exchanges;
    for (int k = 0; all && k < s->desc->entries[i].n_records; k++)
      if (all[k].done) c->cu.cuEventDestroy(all[k].done);
    free(all);
  }
  if (c->go) c->cu.cuEventDestroy(c->go);
  if (c->host) c->cu.cuMemFreeHost(c->host);
  if (c->wire_stream) c->cu.cuStreamDestroy(c->wire_stream);
  rt_cuda_rows_free(c);
  free(c->names);
}

/* ---- groups of calls ----------------------------------------------------- */

static MoertStatus end_group(RtCuda *c, MoertStatus st) {
  MoertStatus ended = RT_NCCL(c, ncclGroupEnd());
  return st == MOERT_OK ? ended : st;
}

/* `bytes` go to each place and come from it, side by side. */
static MoertStatus swap_all(RtCuda *c, const RtWire *w, char *from, char *to,
                            int64_t bytes) {
  MoertStatus st = MOERT_OK;
  RT_TRY(RT_NCCL(c, ncclGroupStart()));
  for (int i = 0; i < w->n && st == MOERT_OK; i++) {
    st = RT_NCCL(c, ncclSend(from + i * bytes, (size_t)bytes, ncclUint8, i,
                             w->comm, c->wire_stream));
    if (st == MOERT_OK)
      st = RT_NCCL(c, ncclRecv(to + i * bytes, (size_t)bytes, ncclUint8, i,
                               w->comm, c->wire_stream));
  }
  c->came += (w->n - 1) * bytes;
  return end_group(c, st);
}

/* ---- tensors ------------------------------------------------------------- */

static int combined(const MoertCollective *k) {
  static const int ops[] = {[MOERT_SUM] = ncclSum,
                            [MOERT_MAX] = ncclMax,
                            [MOERT_MIN] = ncclMin};
  return ops[k->combine];
}

static MoertStatus all_reduce(RtCuda *c, const RtWire *w, const MoertRecord *r,
                              char *const *args) {
  MoertStatus st = MOERT_OK;
  int n = r->n_args / 2;
  RT_TRY(RT_NCCL(c, ncclGroupStart()));
  for (int i = 0; i < n && st == MOERT_OK; i++) {
    const MoertRef *x = &r->args[i];
    st = RT_NCCL(c, ncclAllReduce(args[i], args[n + i], (size_t)x->elements,
                                  rt_dtype[x->dtype].nccl,
                                  combined(r->collective), w->comm,
                                  c->wire_stream));
    c->came += 2 * ref_bytes(x) * (w->n - 1) / w->n;
  }
  return end_group(c, st);
}

/* The operand piece after piece, where it is not so. */
static MoertStatus pack(RtCuda *c, const RtWire *w, const MoertRecord *r,
                        char **data) {
  const MoertCollective *k = r->collective;
  if (k->in_rows <= 1) return MOERT_OK;
  RT_TRY(rt_cuda_move_pieces(c, *data, c->staging[0], k->in_rows,
                             k->in_run * rt_dtype[r->args[0].dtype].bytes,
                             w->n, false));
  *data = c->staging[0];
  return MOERT_OK;
}

/* Where pieces come in one after the other, and from there to the result. */
static char *landing(const RtCuda *c, const MoertRecord *r, char *result) {
  return r->collective->out_rows > 1 ? c->staging[1] : result;
}
static MoertStatus unpack(RtCuda *c, const RtWire *w, const MoertRecord *r,
                          char *result) {
  const MoertCollective *k = r->collective;
  if (k->out_rows <= 1) return MOERT_OK;
  return rt_cuda_move_pieces(c, result, c->staging[1], k->out_rows,
                             k->out_run * rt_dtype[last_arg(r)->dtype].bytes,
                             w->n, true);
}

static MoertStatus all_gather(RtCuda *c, const RtWire *w, const MoertRecord *r,
                              char *const *args) {
  const MoertRef *x = &r->args[0];
  RT_TRY(RT_NCCL(c, ncclAllGather(args[0], landing(c, r, args[1]),
                                  (size_t)x->elements,
                                  rt_dtype[x->dtype].nccl, w->comm,
                                  c->wire_stream)));
  c->came += (w->n - 1) * ref_bytes(x);
  return unpack(c, w, r, args[1]);
}

static MoertStatus reduce_scatter(RtCuda *c, const RtWire *w,
                                  const MoertRecord *r, char *const *args) {
  const MoertRef *x = last_arg(r);
  char *from = args[0];
  RT_TRY(pack(c, w, r, &from));
  c->came += (w->n - 1) * ref_bytes(x);
  return RT_NCCL(c, ncclReduceScatter(from, args[1], (size_t)x->elements,
                                      rt_dtype[x->dtype].nccl,
                                      combined(r->collective), w->comm,
                                      c->wire_stream));
}

static MoertStatus all_to_all(RtCuda *c, const RtWire *w, const MoertRecord *r,
                              char *const *args) {
  char *from = args[0];
  RT_TRY(pack(c, w, r, &from));
  RT_TRY(swap_all(c, w, from, landing(c, r, args[1]),
                  ref_bytes(&r->args[0]) / w->n));
  return unpack(c, w, r, args[1]);
}

/* A place may get its own, and one's own may go nowhere else. */
static MoertStatus permute(RtCuda *c, const RtWire *w, const MoertRecord *r,
                           char *const *args) {
  const int32_t *to = r->collective->to;
  size_t bytes = (size_t)ref_bytes(&r->args[0]);
  MoertStatus st = MOERT_OK;
  RT_TRY(RT_NCCL(c, ncclGroupStart()));
  for (int i = 0; i < w->n && st == MOERT_OK; i++) {
    if (to[i] != w->me) continue;
    st = RT_NCCL(c, ncclRecv(args[1], bytes, ncclUint8, i, w->comm,
                             c->wire_stream));
    if (i != w->me) c->came += (int64_t)bytes;
  }
  if (st == MOERT_OK)
    st = RT_NCCL(c, ncclSend(args[0], bytes, ncclUint8, to[w->me], w->comm,
                             c->wire_stream));
  return end_group(c, st);
}

/* ---- rows of experts ----------------------------------------------------- */

static RtRows rows_of(const RtCuda *c, const RtCudaExchange *x,
                      const MoertRecord *r, char *const *args) {
  return (RtRows){.mine = args[RT_MINE], .got = args[RT_GOT],
                  .theirs = args[RT_THEIRS],
                  .some = has_some(r) ? args[RT_SOME] : NULL,
                  .seats = x->seats, .bounds = x->bounds,
                  .over = c->host_address + sizeof *c->host +
                          2 * sizeof *c->over * (size_t)(x->number - 1),
                  .experts = experts_of(r),
                  .own = r->args[RT_THEIRS].elements - 1,
                  .width = x->bound, .row_bytes = row_bytes(r),
                  .places = x->wire->n};
}

/* What no message fills is 0, or as it was. */
static MoertStatus fill_rest(RtCuda *c, const MoertRecord *r,
                             char *const *args) {
  char *out = args[r->n_args - 1];
  size_t bytes = (size_t)ref_bytes(last_arg(r));
  bool kept = r->n_args - 1 > RT_OTHERS;
  if (bytes == 0 || (kept && args[RT_OTHERS] == out)) return MOERT_OK;
  if (kept)
    return RT_CU(c, cuMemcpyDtoDAsync(rt_cu_address(out),
                                      rt_cu_address(args[RT_OTHERS]), bytes,
                                      c->wire_stream));
  return RT_CU(c, cuMemsetD8Async(rt_cu_address(out), 0, bytes,
                                  c->wire_stream));
}

static int64_t width_of(const RtCuda *c, const RtCudaExchange *x) {
  if (!x->counted) return x->bound;
  return (x->bound * c->share + c->shares - 1) / c->shares;
}

static MoertStatus move_rows(RtCuda *c, const RtCudaExchange *x,
                             const MoertRecord *r, char *const *args) {
  bool back = r->collective->kind == MOERT_ROWS_RETURN;
  RtRows rows = rows_of(c, x, r, args), there = rows;
  char *out = args[r->n_args - 1];
  rows.width = there.width = width_of(c, x);
  rows.stage = c->staging[0];
  there.stage = c->staging[1];
  int64_t room = expert_rows(r);
  if (back)
    RT_TRY(rt_cuda_move_experts(c, &rows, args[RT_X], room, false));
  else
    RT_TRY(rt_cuda_move_tokens(c, &rows, args[RT_X], false));
  if (rows.width > 0)
    RT_TRY(swap_all(c, x->wire, rows.stage, there.stage,
                    rows.width * rows.row_bytes));
  RT_TRY(fill_rest(c, r, args));
  if (back) return rt_cuda_move_tokens(c, &there, out, true);
  return rt_cuda_move_experts(c, &there, out, room, true);
}

/* ---- in the streams ------------------------------------------------------ */

/* What comes next in the stream of exchanges is behind what stands in the
 * other. */
static MoertStatus go(RtCuda *c, int number) {
  RT_TRY(RT_CU(c, cuEventRecord(c->go, c->stream)));
  RT_TRY(RT_CU(c, cuStreamWaitEvent(c->wire_stream, c->go, 0)));
  return rt_cuda_mark(c, c->host_address + offsetof(RtHostWords, at), number);
}

static MoertStatus await_one(RtCuda *c, RtCudaExchange *x) {
  if (!x->flying) return MOERT_OK;
  x->flying = false;
  return RT_CU(c, cuStreamWaitEvent(c->stream, x->done, 0));
}

static MoertStatus land(RtCuda *c, RtCudaExchange *x) {
  x->flying = true;
  return RT_CU(c, cuEventRecord(x->done, c->wire_stream));
}

static MoertStatus put(RtCuda *c, const RtCudaExchange *x,
                       const MoertRecord *r, char *const *args) {
  const RtWire *w = x->wire;
  switch ((MoertCollectiveKind)r->collective->kind) {
  case MOERT_ALL_REDUCE: return all_reduce(c, w, r, args);
  case MOERT_ALL_GATHER: return all_gather(c, w, r, args);
  case MOERT_REDUCE_SCATTER: return reduce_scatter(c, w, r, args);
  case MOERT_ALL_TO_ALL: return all_to_all(c, w, r, args);
  case MOERT_PERMUTE: return permute(c, w, r, args);
  case MOERT_ROWS_SEND:
  case MOERT_ROWS_RETURN: return move_rows(c, x, r, args);
  case MOERT_PLACE: break;
  }
  return rt_fail(MOERT_BAD_DATA, "no exchange of kind %d",
                 r->collective->kind);
}

MoertStatus rt_cuda_count(MoertSession *s, int entry, int index) {
  RtCuda *c = s->cuda;
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  RtCudaExchange *x = &c->entries[entry].exchanges[index];
  RtRows rows = rows_of(c, x, r, (char *const *)s->args);
  RT_TRY(go(c, x->number));
  RT_TRY(rt_cuda_find_most(c, &rows, c->most));
  RT_TRY(RT_NCCL(c, ncclAllReduce(c->most, c->most, 1, ncclInt32, ncclMax,
                                  rt_cuda_wire(c, NULL)->comm,
                                  c->wire_stream)));
  RT_TRY(RT_CU(c, cuMemcpyDtoHAsync(&c->host->most, rt_cu_address(c->most),
                                    sizeof c->host->most, c->wire_stream)));
  RT_TRY(land(c, x));
  return await_one(c, x);
}

int rt_cuda_share(const RtCuda *c, int64_t bound) {
  int64_t most = c->host->most;
  int64_t share = (most * c->shares + bound - 1) / bound;
  return share < 1 ? 1 : share > c->shares ? c->shares : (int)share;
}

/* Without a graph each exchange asks for itself. */
static MoertStatus ask(MoertSession *s, int entry, int index) {
  RtCuda *c = s->cuda;
  RT_TRY(rt_cuda_count(s, entry, index));
  RT_TRY(rt_cuda_wait(c));
  s->last.counts++;
  c->share = rt_cuda_share(c, c->entries[entry].exchanges[index].bound);
  return MOERT_OK;
}

static MoertStatus place(MoertSession *s, int entry, int index) {
  RtCuda *c = s->cuda;
  int me = s->entries[entry].pending[index].group.me;
  return RT_CU(c, cuMemsetD32Async(rt_cu_address(s->args[0]), (unsigned)me, 1,
                                   c->stream));
}

MoertStatus rt_cuda_exchange(MoertSession *s, int entry, int index) {
  RtCuda *c = s->cuda;
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  RtCudaExchange *x = &c->entries[entry].exchanges[index];
  if (r->collective->kind == MOERT_PLACE) return place(s, entry, index);
  bool asks = x->counted && c->share == 0;
  if (asks) RT_TRY(ask(s, entry, index));
  MoertStatus st = go(c, x->number);
  if (st == MOERT_OK) st = put(c, x, r, (char *const *)s->args);
  if (asks) c->share = 0;
  RT_TRY(st);
  return land(c, x);
}

MoertStatus rt_cuda_exchanged(MoertSession *s, int entry, int index) {
  const MoertRecord *r = &s->desc->entries[entry].records[index];
  RtCuda *c = s->cuda;
  return await_one(c, &c->entries[entry].exchanges[r->count]);
}

MoertStatus rt_cuda_await_all(MoertSession *s, int entry) {
  RtCuda *c = s->cuda;
  for (int i = 0; i < s->desc->entries[entry].n_records; i++)
    if (c->entries[entry].exchanges[i].wire)
      RT_TRY(await_one(c, &c->entries[entry].exchanges[i]));
  return MOERT_OK;
}

MoertStatus rt_cuda_check_rows(RtCuda *c) {
  for (int i = 0; i < c->n_names; i++) {
    const volatile int32_t *over = &c->over[2 * i];
    if (over[1])
      return rt_fail(MOERT_INVALID,
                     "%s: rank %d gets %d rows for its experts and has no "
                     "room for them",
                     c->names[i], c->comm->rank, over[1]);
    if (over[0])
      return rt_fail(MOERT_INTERNAL,
                     "%s: rank %d has a message of %d rows, more than were "
                     "counted",
                     c->names[i], c->comm->rank, over[0]);
  }
  return MOERT_OK;
}
