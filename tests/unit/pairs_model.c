/* pairs_model.c: a model that takes pairs of sentences in three sizes and does
 * nothing with them: what the runtime writes into its inputs is the test.
 * PAIRS_SHIFT is that of `labels`. */
#include "../../runtime/moert.h"

#ifndef PAIRS_SHIFT
#define PAIRS_SHIFT "1"
#endif

enum { PAD = 64 }; /* one input of any size below */

#define IN(n, from, t, b, s, at)                                               \
  {.kind = MOERT_BIND_INPUT,                                                   \
   .dtype = MOERT_##t,                                                         \
   .rank = 2,                                                                  \
   .dims = {b, s},                                                             \
   .name = (n),                                                                \
   .source = (from),                                                           \
   .ref = {.slab = MOERT_SLAB_INPUT,                                           \
           .dtype = MOERT_##t,                                                 \
           .elements = (b) * (s),                                              \
           .offset = 4 * PAD * (at)}}
#define INS(b, s)                                                              \
  {IN("x", "pairs.source(below=200)", i32, b, s, 0),                           \
   IN("x_there", "pairs.source(mask)", f32, b, s, 1),                          \
   IN("y", "pairs.target", i32, b, s, 2),                                      \
   IN("labels", "pairs.target(shift=" PAIRS_SHIFT ")", i32, b, s, 3),          \
   IN("y_there", "pairs.target(mask, shift=1)", f32, b, s, 4)}
static const MoertBinding ins4[] = INS(3, 4);
static const MoertBinding ins8[] = INS(2, 8);
static const MoertBinding ins16[] = INS(2, 16);

#define ENTRY(n, in, trained)                                                  \
  {.name = (n), .n_ins = 5, .trains = (trained), .ins = (in),                  \
   .input_bytes = 4 * PAD * 5}
static const MoertEntry entries[] = {
    {.name = "init"},
    {.name = "reset"},
    ENTRY("train.S16", ins16, 1),
    ENTRY("train.S4", ins4, 1),
    ENTRY("train.S8", ins8, 1),
    ENTRY("eval.S16", ins16, 0),
    ENTRY("eval.S4", ins4, 0),
    ENTRY("eval.S8", ins8, 0),
    {.name = "bare", .n_ins = 2, .ins = ins8, .input_bytes = 4 * PAD * 5}};

extern const MoertDesc moert_model;
MOERT_API const MoertDesc moert_model = {
    .magic = MOERT_MAGIC,
    .abi_version = MOERT_ABI_VERSION,
    .compiler = "by hand",
    .source_hash = "0123456789abcdef",
    .flags = "",
    .n_entries = sizeof entries / sizeof *entries,
    .entries = entries};
