/* runtime_team.c: loops that the whole team walks, as a table by hand: a loop
 * in a loop, indices in memory, stages of uneven chunks, copies, scratch. */
#include "tiny.h"

enum { N = 23, OUTER = 3, INNER = 4 };
enum { /* bytes of the arena */
  AT_OUTER = 0,
  AT_INNER = 64,
  AT_X = 128,
  AT_Y = AT_X + 4 * N,
  AT_ROWS = AT_Y + 4 * N,
  ARENA = AT_ROWS + 4 * N * OUTER * INNER
};

#define F(i) ((float *)args[i])
#define INDEX(i) (*(const int32_t *)args[i])

/* x[i] from y's neighbours and both indices, by way of scratch. */
static void mix(void *const *args, int64_t lo, int64_t hi, void *scratch,
                void *workspace) {
  (void)workspace;
  float *t = scratch;
  for (int64_t i = lo; i < hi; i++)
    t[i - lo] = F(2)[(i + 1) % N] + 0.5f * F(2)[(i + N - 1) % N];
  for (int64_t i = lo; i < hi; i++)
    F(3)[i] = 0.25f * t[i - lo] + (float)(10 * INDEX(0) + INDEX(1));
}

/* Stage 0 to the workspace, stage 1 turns its order around into y. */
static void put(void *const *args, int64_t lo, int64_t hi, void *scratch,
                void *workspace) {
  (void)scratch;
  for (int64_t i = lo; i < hi; i++)
    ((float *)workspace)[i] = F(0)[i];
}
static void turn(void *const *args, int64_t lo, int64_t hi, void *scratch,
                 void *workspace) {
  (void)scratch;
  for (int64_t i = lo; i < hi; i++)
    F(1)[i] = ((float *)workspace)[N - 1 - i];
}

static const MoertStage mix_stages[] = {
    {.body = mix, .count = N, .grain = 2, .scratch_bytes = 8, .uneven = 1}};
static const MoertKernel mix_kernel = {"mix", 0, 1, mix_stages};
static const MoertStage turn_stages[] = {
    {.body = put, .count = N, .grain = 5},
    {.body = turn, .count = N, .grain = 3}};
static const MoertKernel turn_kernel = {"turn", 4 * N, 2, turn_stages};

#define REF(n, type, at, ...)                                       \
  {.slab = MOERT_SLAB_ARENA, .dtype = MOERT_##type, .elements = (n), \
   .offset = (at), .stride = {__VA_ARGS__}}
#define X REF(N, f32, AT_X, 0)
#define Y REF(N, f32, AT_Y, 0)
static const MoertRef a_outer[] = {REF(1, i32, AT_OUTER, 0)};
static const MoertRef a_inner[] = {REF(1, i32, AT_INNER, 0)};
static const MoertRef a_mix[] = {REF(1, i32, AT_OUTER, 0),
                                 REF(1, i32, AT_INNER, 0), Y, X};
static const MoertRef a_copy[] = {
    X, REF(N, f32, AT_ROWS, 4 * N * INNER, 4 * N)};
static const MoertRef a_turn[] = {X, Y};

#define LOOP(times, back, arg)                                         \
  {.kind = MOERT_LOOP, .n_args = 1, .n_outs = 1, .reverse = (back), \
   .count = (times), .name = "loop", .where = "", .args = (arg)}
#define END {.kind = MOERT_END, .name = "end", .where = ""}
static const MoertRecord records[] = {
    LOOP(OUTER, 0, a_outer),
    LOOP(INNER, 1, a_inner),
    {.kind = MOERT_LAUNCH, .n_args = 4, .n_outs = 1, .name = "mix",
     .where = "", .args = a_mix, .kernel = &mix_kernel},
    {.kind = MOERT_COPY, .n_args = 2, .n_outs = 1, .name = "copy",
     .where = "", .args = a_copy},
    {.kind = MOERT_LAUNCH, .n_args = 2, .n_outs = 1, .name = "turn",
     .where = "", .args = a_turn, .kernel = &turn_kernel},
    END,
    END};
static const MoertEntry entry = {.name = "main",
                                 .n_records = (int32_t)COUNT_OF(records),
                                 .records = records,
                                 .arena_bytes = ARENA};
static const MoertDesc desc = {.magic = MOERT_MAGIC,
                               .abi_version = MOERT_ABI_VERSION,
                               .compiler = "by hand",
                               .n_entries = 1,
                               .entries = &entry};

/* Runs the entry with so many threads; the arena after it. */
static void run(int threads, int profile, char *out, int64_t *out_calls) {
  MoertModel model = {.desc = &desc};
  MoertSession *s;
  const double *seconds;
  const int64_t *calls;
  CHECK_OK("session", moert_session(&model,
                                    &(MoertSessionOptions){.threads = threads,
                                                           .profile = profile},
                                    &s));
  CHECK_OK("step", moert_step(s, "main"));
  memcpy(out, s->arena, ARENA);
  CHECK_OK("profile", moert_profile(s, 0, &seconds, &calls));
  for (size_t i = 0; i < COUNT_OF(records); i++)
    out_calls[i] = calls[i];
  moert_session_free(s);
}

int main(void) {
  static char one[ARENA], team[ARENA];
  int64_t calls[COUNT_OF(records)];
  run(1, 1, one, calls);
  const float *rows = (const float *)(one + AT_ROWS);
  CHECK("one thread: first turn", rows[N * (INNER - 1)] == INNER - 1, "%g",
        (double)rows[N * (INNER - 1)]);
  for (int threads = 2; threads <= 5; threads++) {
    run(threads, threads % 2, team, calls);
    CHECK("team: the same bits", memcmp(one, team, ARENA) == 0,
          "%d threads differ", threads);
    int64_t want = threads % 2 ? OUTER * INNER : 0;
    CHECK("team: calls", calls[2] == want && calls[3] == want && calls[0] == 0,
          "%lld of %lld", (long long)calls[2], (long long)want);
  }
  return failures != 0;
}
