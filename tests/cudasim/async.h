/* async.h: what works behind the threads on sm_90: products of warpgroups
 * (wgmma.c), barriers that count arrivals and bytes (mbarrier.c), copies of
 * boxes (bulk.c). They reach shared memory by another way than the threads do,
 * the asynchronous proxy (proxy.c): what a thread wrote may still be on its
 * way when they look, unless a fence stands in between.
 *
 * Everything is as late as a device could have it: a copy arrives when all
 * warps wait for something, and what a product makes or still reads may not be
 * touched until a wait says that it is over. */
#ifndef MOEC_CUDASIM_ASYNC_H
#define MOEC_CUDASIM_ASYNC_H

#include "cudasim.h"

enum { UNIT = 16 }; /* bytes of shared memory of which one fact is known */

/* ---- the proxy (proxy.c) ------------------------------------------------- */

/* UNIT bytes of shared memory, as the proxy has them. */
typedef struct Unit {
  uint64_t written; /* clock of the last write by a thread, 0: none since */
  uint64_t fenced;  /* clock of its fence behind that, 0: none */
  const Ins *by;    /* who reads it */
  uint16_t writer;  /* thread of the block */
  uint16_t readers; /* products under way */
} Unit;

Unit *unit_at(const Block *b, uint64_t offset);
/* A thread writes, or by TOUCH_TAKE begins a copy. */
void proxy_write(Warp *w, const Ins *i, int lane, uint64_t offset, int bytes,
                 Touch kind);
/* The proxy is to use what threads may have written; false after a fault. */
bool proxy_use(Warp *w, const Ins *i, int lane, uint64_t offset, int bytes);
bool decode_proxy_fence(Decoder *d, Ins *i, const Stmt *s, Str rest);

/* What a block has of all this, where its kernel needs it: memory for it, a new
 * block, and that at its end all is over. */
bool async_new(Block *b);
void async_start(Block *b);
void async_over(Block *b);
void async_free(Block *b);

/* ---- swizzles (proxy.c) -------------------------------------------------- */

/* Groups of 16 bytes change places within `span` bytes: of an address the bits
 * from 4 on are turned by those from 7 on, as many as it takes. */
typedef struct Swizzle {
  int descriptor, map; /* its numbers in a descriptor and in a tensor map */
  int span;
} Swizzle;

const Swizzle *swizzle_of_descriptor(uint64_t number);
const Swizzle *swizzle_of_map(int number); /* NULL when there is none */
uint64_t swizzled(const Swizzle *z, uint64_t address);

/* ---- products (wgmma.c) -------------------------------------------------- */

/* Registers that products write are looked at by what uses them. */
void products_guard(Kernel *k);
bool products_new(Block *b);
void products_start(Warp *w);
/* A fault where some are under way, or warps of a group did different ones. */
void products_over(Block *b);
void products_free(Block *b);

/* ---- copies (bulk.c) ----------------------------------------------------- */

bool decode_bulk(Decoder *d, Ins *i, const Stmt *s, Str rest);
/* The oldest copy of a block arrives; false when there is none. */
bool bulk_arrives(Block *b);
const Ins *bulk_coming(const Block *b);
void bulk_free(Block *b);

void gates_start(Block *b);
void gates_free(Block *b);
/* Counts bytes of a copy at a barrier in shared memory (mbarrier.c). */
bool barrier_bytes(Warp *w, const Ins *i, int lane, uint64_t at, int bytes);

#endif
