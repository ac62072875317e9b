/* parts.c: slots that are cut over ranks: which rank has what, wholes gathered
 * and put, checkpoints from one mesh loaded on others, and what goes wrong
 * while several ranks save or load. Models by hand, without any code. */
#include "tiny.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { MOST_RANKS = 8, WHY = 1024 };

/* ---- models -------------------------------------------------------------- */

/* A slot's dims, and the axes of each: "01" is cut by axis 0, then by 1. */
typedef struct Cut {
  const char *path;
  int kind, dtype, rank;
  int64_t dims[4];
  const char *axes[4];
} Cut;

typedef struct Model {
  MoertDesc desc;
  MoertModel model;
  MoertEntry init;
  MoertAxis mesh[3];
  MoertSlot slots[8];
} Model;

static MoertSlot slot_of(const Cut *c) {
  MoertSlot s = {
      .path = c->path, .kind = c->kind, .dtype = c->dtype, .rank = c->rank};
  for (int k = 0; k < c->rank; k++) {
    s.dims[k] = c->dims[k];
    for (int i = 0; c->axes[k] && c->axes[k][i]; i++)
      s.axes[k][i] = (int8_t)(c->axes[k][i] - '0' + 1);
  }
  return s;
}

static void add_slot(Model *m, const Cut *c) {
  MoertSlot *s = &m->slots[m->desc.n_slots++];
  *s = slot_of(c);
  s->offset = m->desc.slab_bytes[s->kind];
  m->desc.slab_bytes[s->kind] += rt_part_bytes(&m->desc, s) + 64;
}

static void new_model(Model *m, const int *mesh, const Cut *cuts, int n) {
  static const char *const names[] = {"a", "b", "c"};
  memset(m, 0, sizeof *m);
  m->init = (MoertEntry){.name = "init"};
  m->desc = (MoertDesc){.compiler = "by hand", .source_hash = "0", .flags = "",
                        .n_entries = 1, .entries = &m->init,
                        .slots = m->slots, .mesh = m->mesh};
  for (int i = 0; mesh[i]; i++)
    m->mesh[m->desc.n_axes++] = (MoertAxis){names[i], mesh[i]};
  for (int i = 0; i < n; i++)
    add_slot(m, &cuts[i]);
  m->model.desc = &m->desc;
}

static int ranks_of(const Model *m) {
  int n = 1;
  for (int i = 0; i < m->desc.n_axes; i++)
    n *= (int)m->mesh[i].size;
  return n;
}

/* ---- which rank has what ------------------------------------------------- */

static uint32_t random_state = 7;

static int random_below(int n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (int)((random_state >> 8) % (uint32_t)n);
}

/* Each axis in a dim at most, in any order. */
static void random_case(Model *m, Cut *c, char axes[4][4]) {
  int mesh[4] = {0}, n_axes = 1 + random_below(3);
  for (int i = 0; i < n_axes; i++)
    mesh[i] = 1 + random_below(4);
  *c = (Cut){.path = "w", .dtype = MOERT_f32, .rank = random_below(5)};
  memset(axes, 0, 16);
  for (int k = 0; k < c->rank; k++) {
    c->dims[k] = 1 + random_below(7);
    c->axes[k] = axes[k];
  }
  for (int i = 0, at = random_below(n_axes); i < n_axes && c->rank; i++) {
    char *to = axes[random_below(c->rank)];
    if (random_below(4)) to[strlen(to)] = (char)('0' + (at + i) % n_axes);
  }
  new_model(m, mesh, c, 1);
}

/* Where element `whole` is in the part, -1: elsewhere. */
static int64_t place_in(const RtPart *p, int64_t whole) {
  int64_t at = 0, step = 1;
  for (int k = p->rank - 1; k >= 0; k--) {
    int64_t i = whole % p->whole[k] - p->lo[k];
    if (i < 0 || i >= p->n[k]) return -1;
    at += i * step;
    step *= p->size[k];
    whole /= p->whole[k];
  }
  return at;
}

/* Elements [from, to) of the rank's walk are those that are in its part. */
static bool walks_right(const RtPart *p, int64_t from, int64_t to) {
  RtWalk w = rt_walk(p, from, to);
  int64_t at = from;
  for (RtRun r; rt_walk_next(&w, &r); at = r.whole + r.n) {
    if (r.whole < at || r.n < 1 || r.whole + r.n > to) return false;
    for (; at < r.whole; at++)
      if (place_in(p, at) >= 0) return false;
    for (int64_t i = 0; i < r.n; i++)
      if (place_in(p, r.whole + i) != r.slab + i) return false;
  }
  for (; at < to; at++)
    if (place_in(p, at) >= 0) return false;
  return true;
}

/* Every element is with just one owner; other ranks have what theirs has. */
static bool shares_out(const Model *m, int64_t n) {
  const MoertSlot *s = &m->slots[0];
  for (int64_t i = 0; i < n; i++) {
    int owners = 0;
    for (int r = 0; r < ranks_of(m); r++) {
      int owner = rt_part_owner(&m->desc, s, r);
      RtPart own = rt_part(&m->desc, s, r), his = rt_part(&m->desc, s, owner);
      bool has = place_in(&own, i) >= 0;
      owners += has && owner == r;
      if (has != (place_in(&his, i) >= 0) || owner > r) return false;
    }
    if (owners != 1) return false;
  }
  return true;
}

static void test_walks(void) {
  char why[WHY] = "", axes[4][4];
  Model m;
  Cut c;
  for (int turn = 0; turn < 2000 && !why[0]; turn++) {
    uint32_t seed = random_state;
    random_case(&m, &c, axes);
    int64_t n = rt_elements(c.rank, c.dims);
    if (!shares_out(&m, n)) snprintf(why, WHY, "case %u: shares", seed);
    int64_t a = random_below((int)n + 1), b = random_below((int)n + 1);
    for (int r = 0; r < ranks_of(&m); r++) {
      RtPart p = rt_part(&m.desc, &m.slots[0], r);
      if (!walks_right(&p, 0, n) ||
          !walks_right(&p, a < b ? a : b, a < b ? b : a))
        snprintf(why, WHY, "case %u: rank %d walks elsewhere", seed, r);
    }
  }
  CHECK("parts: every element is in one part, and found there", !why[0], "%s",
        why);
}

/* ---- ranks --------------------------------------------------------------- */

typedef struct Rank {
  Model *m;
  MoertComm *comm;
  MoertSession *s;
  int rank;
  char *why;
} Rank;

/* How a rank says what is wrong; the first time counts. */
#define WRONG(r, ...)                                             \
  do {                                                            \
    if (!(r)->why[0]) snprintf((r)->why, WHY, __VA_ARGS__);       \
  } while (0)
#define WANT_OK(r, call)                                          \
  do {                                                            \
    if ((call) != MOERT_OK) WRONG(r, "%s: %s", #call, moert_error()); \
  } while (0)

typedef void RankFn(Rank *r);

static void be_rank(Model *m, MoertLocal *l, int rank, RankFn *run, char *why) {
  Rank r = {.m = m, .rank = rank, .why = why};
  MoertSessionOptions o = {.threads = 1, .poison = 1};
  snprintf(why, WHY, "it has not ended");
  if (moert_local_join(l, rank, 20, &r.comm)) _exit(1);
  o.comm = r.comm;
  why[0] = 0;
  WANT_OK(&r, moert_session(&m->model, &o, &r.s));
  if (!why[0]) run(&r);
  moert_session_free(r.s);
  moert_comm_close(r.comm);
  moert_local_free(l);
  _exit(0);
}

/* Runs the model's ranks; those in `gone` need not end well. */
static void run_ranks(const char *name, Model *m, RankFn *run, unsigned gone) {
  int n = ranks_of(m);
  MoertLocal *l;
  pid_t pids[MOST_RANKS];
  char(*whys)[WHY] = mmap(NULL, MOST_RANKS * WHY, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char text[WHY + 32] = "";
  if (whys == MAP_FAILED || moert_local_new(n, &l)) exit(1);
  fflush(stdout);
  for (int r = 0; r < n; r++)
    if ((pids[r] = fork()) == 0) be_rank(m, l, r, run, whys[r]);
  for (int r = 0; r < n; r++)
    waitpid(pids[r], NULL, 0);
  moert_local_free(l);
  for (int r = n - 1; r >= 0; r--)
    if (whys[r][0] && !(gone >> r & 1))
      snprintf(text, sizeof text, "rank %d: %s", r, whys[r]);
  CHECK(name, !text[0], "%s", text);
  munmap(whys, MOST_RANKS * WHY);
}

/* ---- one set of tensors on many meshes ----------------------------------- */

enum { N_SLOTS = 5, LONG = RT_PORTION / 4 / 7 * 5 / 4 };

/* Something of each kind; one does not divide, one has several portions, one is
 * everyone's, one has more parts than elements. */
#define SLOTS(A, B, AB)                                                       \
  {{"w", MOERT_SLOT_PARAM, MOERT_f32, 3, {5, 6, 3}, {A, B}},                  \
   {"long", MOERT_SLOT_PARAM, MOERT_f32, 2, {LONG, 7}, {B, A}},               \
   {"b", MOERT_SLOT_PARAM, MOERT_bf16, 1, {9}, {0}},                          \
   {"m", MOERT_SLOT_OPTIM, MOERT_f32, 2, {5, 3}, {AB}},                       \
   {"h", MOERT_SLOT_STATE, MOERT_i32, 2, {2, 4}, {A}}}
static const Cut one[] = SLOTS(0, 0, 0), cut_a[] = SLOTS("0", 0, "0"),
                 cut_both[] = SLOTS("0", "1", "10"),
                 cut_far[] = SLOTS("2", "1", "0");
static const int of_1[] = {0}, of_4[] = {4, 0}, of_2_3[] = {2, 3, 0},
                 of_2_2_2[] = {2, 2, 2, 0};

/* The bytes of slot `i`, other ones for other `turn`s. */
static char *content(const MoertSlot *s, int i, int turn, size_t *out_bytes) {
  *out_bytes = (size_t)rt_slot_bytes(s);
  char *data = malloc(*out_bytes);
  uint32_t x = (uint32_t)(i * 1000 + turn);
  for (size_t k = 0; k < *out_bytes; k++) {
    x = x * 1664525u + 1013904223u;
    data[k] = (char)(x >> 24);
  }
  return data;
}

static void put_all(Rank *r, int turn) {
  for (int i = 0; i < N_SLOTS; i++) {
    size_t bytes;
    char *data = content(&r->m->slots[i], i, turn, &bytes);
    WANT_OK(r, moert_put(r->s, r->m->slots[i].path, data, bytes));
    free(data);
  }
  moert_set_steps_done(r->s, turn);
}

static void want_all(Rank *r, int turn) {
  for (int i = 0; i < N_SLOTS; i++) {
    size_t bytes;
    char *data = content(&r->m->slots[i], i, turn, &bytes), *got;
    got = malloc(bytes);
    memset(got, 0, bytes);
    WANT_OK(r, moert_get(r->s, r->m->slots[i].path, got, bytes));
    if (memcmp(data, got, bytes) != 0)
      WRONG(r, "slot %s is not what it was", r->m->slots[i].path);
    free(data);
    free(got);
  }
  if (moert_steps_done(r->s) != turn)
    WRONG(r, "step %lld, not %d", (long long)moert_steps_done(r->s), turn);
}

/* A rank has memory for its parts, and no more. */
static void want_planned(Rank *r) {
  const int64_t *slabs = r->m->desc.slab_bytes;
  int64_t want = slabs[0] + slabs[1] + 2 * slabs[2], got = 0; /* one is kept */
  for (int i = 0; i < r->s->mem.n_blocks; i++)
    got += r->s->mem.blocks[i].bytes;
  if (got != want || moert_planned_bytes(r->s) != want)
    WRONG(r, "%lld bytes allocated, %lld planned, not %lld", (long long)got,
          (long long)moert_planned_bytes(r->s), (long long)want);
}

static void put_and_get(Rank *r) {
  int64_t before = moert_comm_bytes(r->comm);
  put_all(r, 3);
  want_all(r, 3);
  want_planned(r);
  if (moert_comm_bytes(r->comm) != before) WRONG(r, "bytes were counted");
}

static void save_3(Rank *r) {
  put_all(r, 3);
  WANT_OK(r, moert_save(r->s, scratch("ck"), 30));
}

static void load_3(Rank *r) {
  int64_t cursor = 0;
  WANT_OK(r, moert_load(r->s, scratch("ck"), NULL, &cursor));
  if (cursor != 30) WRONG(r, "cursor %lld", (long long)cursor);
  want_all(r, 3);
}

/* What has been loaded is saved again, for the files to be compared. */
static void load_and_save(Rank *r) {
  load_3(r);
  WANT_OK(r, moert_save(r->s, scratch("again"), 30));
}

static const struct Mesh {
  const char *name;
  const int *sizes;
  const Cut *cuts;
} meshes[] = {{"1", of_1, one},
              {"4", of_4, cut_a},
              {"2 x 3", of_2_3, cut_both},
              {"2 x 2 x 2", of_2_2_2, cut_far}};

static void load_what_was_saved(const struct Mesh *by, const struct Mesh *on) {
  char name[96], command[600];
  Model m;
  new_model(&m, on->sizes, on->cuts, N_SLOTS);
  snprintf(name, sizeof name, "parts: saved by %s, loaded by %s", by->name,
           on->name);
  run_ranks(name, &m, load_and_save, 0);
  snprintf(command, sizeof command, "cd %s && for f in params optim state; do "
           "cmp ck/step-00000003/$f.safetensors again/step-00000003/$f.* || "
           "exit 1; done", scratch_dir());
  CHECK("parts: the files are the same", system(command) == 0, "%s", name);
}

static void test_meshes(void) {
  Model m;
  char name[96];
  for (size_t i = 0; i < COUNT_OF(meshes); i++) {
    new_model(&m, meshes[i].sizes, meshes[i].cuts, N_SLOTS);
    snprintf(name, sizeof name, "parts: put and get on %s", meshes[i].name);
    run_ranks(name, &m, put_and_get, 0);
    snprintf(name, sizeof name, "parts: saved by %s", meshes[i].name);
    run_ranks(name, &m, save_3, 0);
    for (size_t k = 1; k < COUNT_OF(meshes); k++)
      load_what_was_saved(&meshes[i], &meshes[(i + k) % COUNT_OF(meshes)]);
  }
}

/* ---- what goes wrong ----------------------------------------------------- */

#define WANT_FAILS(r, call, status, text)                              \
  do {                                                                 \
    MoertStatus got_ = (call);                                         \
    if (got_ != (status) || strcmp(moert_error(), text) != 0)          \
      WRONG(r, "%s: %s", moert_status_name(got_), moert_error());      \
  } while (0)

/* The checkpoint of before is whole, and nothing else is there. */
static void check_old(const char *name) {
  char command[400];
  Model m;
  new_model(&m, of_1, one, N_SLOTS);
  run_ranks(name, &m, load_3, 0);
  snprintf(command, sizeof command, "test $(ls -A %s | wc -l) = 2",
           scratch("ck"));
  CHECK("parts: nothing half written is left", system(command) == 0, "%s",
        name);
}

static void save_full(Rank *r) {
  struct rlimit limit;
  put_all(r, 4);
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = 4 << 20; /* in the middle of a file */
  if (r->rank == 0) setrlimit(RLIMIT_FSIZE, &limit);
  MoertStatus st = moert_save(r->s, scratch("ck"), 40);
  const char *text = strstr(moert_error(), "checkpoint not saved: rank 0: ");
  if (st != MOERT_IO || !text || !strstr(text, "File too large"))
    WRONG(r, "%s: %s", moert_status_name(st), moert_error());
  put_and_get(r); /* it goes on */
}

static void save_differing(Rank *r) {
  put_all(r, 4);
  if (r->rank == 2) {
    const MoertSlot *b = &r->m->slots[2];
    char *data = rt_slot_data(r->s, b);
    data[5] ^= 1;
  }
  WANT_FAILS(r, moert_save(r->s, scratch("ck"), 40), MOERT_BAD_DATA,
             "checkpoint not saved: slot 'b': ranks 0 and 2 should have the "
             "same in it, and do not");
}

/* Of a part, along an axis that does not cut it. */
static void save_differing_part(Rank *r) {
  put_all(r, 4);
  if (r->rank == 4) *rt_slot_data(r->s, &r->m->slots[4]) ^= 1;
  WANT_FAILS(r, moert_save(r->s, scratch("ck"), 40), MOERT_BAD_DATA,
             "checkpoint not saved: slot 'h': ranks 3 and 4 should have the "
             "same in it, and do not");
}

/* Rank 2 ends in the middle: it gives its part of one portion. */
static void save_deserted(Rank *r) {
  put_all(r, 4);
  if (r->rank != 2) {
    MoertStatus st = moert_save(r->s, scratch("ck"), 40);
    if (st != MOERT_RANK_LOST || !strstr(moert_error(), "rank 2"))
      WRONG(r, "%s: %s", moert_status_name(st), moert_error());
    return;
  }
  const MoertDesc *d = &r->m->desc;
  uint64_t own[N_SLOTS], all[MOST_RANKS * N_SLOTS];
  for (int i = 0; i < N_SLOTS; i++) {
    RtPart p = rt_part(d, &d->slots[i], 2);
    own[i] = rt_part_hash(&d->slots[i], &p, rt_slot_data(r->s, &d->slots[i]));
  }
  RtGather g;
  WANT_OK(r, rt_comm_all(r->comm, "", own, sizeof own, all));
  WANT_OK(r, rt_comm_agree(r->comm, MOERT_OK));
  WANT_OK(r, rt_gather_open(r->s, false, &g));
  WANT_OK(r, rt_gather(&g, &d->slots[0], 0));
  WANT_OK(r, rt_gather(&g, &d->slots[1], 0));
  _exit(1);
}

static void load_wide(Rank *r) {
  MoertStatus st = moert_load(r->s, scratch("ck"), NULL, NULL);
  const char *why = "params.safetensors: tensor 'w' is F32[5, 6, 3] in the "
                    "file, F32[8, 6, 3] in the model";
  if (st != MOERT_BAD_DATA || !strstr(moert_error(), why) ||
      strstr(moert_error(), "rank"))
    WRONG(r, "%s: %s", moert_status_name(st), moert_error());
}

static void load_missing(Rank *r) {
  put_all(r, 5);
  const char *dir = r->rank == 1 ? "/nowhere/ck" : scratch("ck");
  MoertStatus st = moert_load(r->s, dir, NULL, NULL);
  if (st != MOERT_BAD_DATA || !strstr(moert_error(), "rank 1: /nowhere/ck"))
    WRONG(r, "%s: %s", moert_status_name(st), moert_error());
  want_all(r, 5);
  st = moert_load(r->s, "/nowhere/ck", NULL, NULL);
  if (st != MOERT_NOT_FOUND || strstr(moert_error(), "rank"))
    WRONG(r, "%s: %s", moert_status_name(st), moert_error());
}

static void load_other(Rank *r) {
  put_all(r, 5);
  WANT_OK(r, moert_save(r->s, scratch("other"), 0));
  put_all(r, 6);
  const char *dir = scratch(r->rank == 3 ? "other" : "ck");
  MoertStatus st = moert_load(r->s, dir, NULL, NULL);
  if (st != MOERT_BAD_DATA ||
      !strstr(moert_error(), "rank 3 finds another one there than rank 0"))
    WRONG(r, "%s: %s", moert_status_name(st), moert_error());
  want_all(r, 6);
}

static void test_failures(void) {
  Model m;
  new_model(&m, of_4, cut_a, N_SLOTS);
  run_ranks("parts: the first cannot write", &m, save_full, 0);
  check_old("parts: full disk, the old one is whole");
  run_ranks("parts: ranks differ", &m, save_differing, 0);
  check_old("parts: ranks differ, the old one is whole");
  run_ranks("parts: a rank ends while all save", &m, save_deserted, 4);
  check_old("parts: a rank ends, the old one is whole");
  run_ranks("parts: one rank finds no checkpoint", &m, load_missing, 0);
  run_ranks("parts: one rank finds another checkpoint", &m, load_other, 0);
  new_model(&m, of_2_3, cut_both, N_SLOTS);
  run_ranks("parts: ranks differ in a part", &m, save_differing_part, 0);
  Cut wide[N_SLOTS];
  memcpy(wide, cut_a, sizeof wide);
  wide[0].dims[0] = 8;
  new_model(&m, of_4, wide, N_SLOTS);
  run_ranks("parts: a checkpoint of other shapes, said by all alike", &m,
            load_wide, 0);
  m.slots[0].axes[0][0] = 2; /* of a mesh of one axis */
  MoertSession *s;
  MoertModel *model = &m.model;
  m.mesh[0].size = 1;
  CHECK_FAILS("parts: an axis that is not there",
              moert_session(model, NULL, &s), MOERT_BAD_DATA,
              "slot 'w' lies outside of its slab");
}

int main(void) {
  scratch_dir(); /* before there are ranks */
  test_walks();
  test_meshes();
  test_failures();
  return scratch_remove() || failures != 0;
}
