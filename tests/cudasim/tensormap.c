/* tensormap.c: cuTensorMapEncodeTiled, with the rules of its documentation. */
#include "device.h"
#include "tensormap.h"

#include <string.h>

enum {
  BOX_MOST = 256,
  NO_INTERLEAVE = 0,
  SWIZZLES = 4,
  ZERO_FILL = 0,
  L2_PROMOTIONS = 4
};

/* Of an element, by the number of the type. */
static const uint8_t type_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};

/* Bytes of the box's first dim at most, by the number of the swizzle. */
static const int swizzle_span[SWIZZLES] = {BOX_MOST * 8, 32, 64, 128};

static bool dims_fit(TensorMap *m, const uint64_t *dims,
                     const uint64_t *strides) {
  for (int d = 0; d < m->rank; d++) {
    if (!dims[d] || dims[d] > UINT64_C(1) << 32) return false;
    m->last[d] = (uint32_t)(dims[d] - 1);
    if (!d) continue;
    uint64_t s = m->strides[d - 1] = strides[d - 1];
    if (s % 16 || !s || s >= UINT64_C(1) << 40) return false;
    if (d > 1 && s % m->strides[d - 2]) return false;
  }
  return true;
}

static bool box_fits(TensorMap *m, const uint32_t *box,
                     const uint32_t *steps) {
  for (int d = 0; d < m->rank; d++) {
    if (!box[d] || box[d] > BOX_MOST || steps[d] != 1) return false;
    m->box[d] = (uint16_t)box[d];
  }
  int inner = m->box[0] * m->bytes;
  return inner % 16 == 0 && inner <= swizzle_span[m->swizzle];
}

/* Steps between elements other than 1, interleaved layouts and a fill with
 * NaNs are refused: nobody asks for them. */
EXPORT CUresult cuTensorMapEncodeTiled(
    CUtensorMap *map, CUtensorMapDataType type, unsigned rank, void *address,
    const uint64_t *dims, const uint64_t *strides, const uint32_t *box,
    const uint32_t *steps, CUtensorMapInterleave interleave,
    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
    CUtensorMapFloatOOBfill fill) {
  TensorMap m = {.magic = TENSOR_MAGIC,
                 .address = (uint64_t)(uintptr_t)address,
                 .rank = (uint8_t)rank,
                 .swizzle = (uint8_t)swizzle};
  Device *d;
  CUresult r = current_device(&d);
  if (r) return r;
  if (d->arch < 90) return CUDA_ERROR_NOT_SUPPORTED;
  if (!map || (uintptr_t)map % TENSOR_MAP_ALIGN || type >= sizeof type_bytes ||
      !rank || rank > TENSOR_RANK || m.address % 16 ||
      interleave != NO_INTERLEAVE || swizzle >= SWIZZLES ||
      promotion >= L2_PROMOTIONS || fill != ZERO_FILL)
    return CUDA_ERROR_INVALID_VALUE;
  m.bytes = type_bytes[type];
  if (!dims_fit(&m, dims, strides) || !box_fits(&m, box, steps))
    return CUDA_ERROR_INVALID_VALUE;
  memset(map, 0, TENSOR_MAP_BYTES);
  memcpy(map, &m, sizeof m);
  return CUDA_SUCCESS;
}
