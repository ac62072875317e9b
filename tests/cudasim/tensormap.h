/* tensormap.h: what the 128 bytes of a tensor map hold here. A driver's are
 * opaque: it alone writes them, and the hardware alone reads them. */
#ifndef MOEC_CUDASIM_TENSORMAP_H
#define MOEC_CUDASIM_TENSORMAP_H

#include <stdint.h>

enum { TENSOR_MAP_BYTES = 128, TENSOR_MAP_ALIGN = 64, TENSOR_RANK = 5 };
#define TENSOR_MAGIC UINT64_C(0x70616d726f736e65)

typedef struct TensorMap {
  uint64_t magic, address;
  uint64_t strides[TENSOR_RANK - 1]; /* bytes, of the dims behind the first */
  uint32_t last[TENSOR_RANK];        /* greatest index of each dim */
  uint16_t box[TENSOR_RANK];
  uint8_t rank, bytes, swizzle; /* bytes of an element */
} TensorMap;

_Static_assert(sizeof(TensorMap) <= TENSOR_MAP_BYTES, "a map's size");

#endif
