/* lower_warps.c: lower.c, where a vector is a warp. */
#define WARPS
#include "lower.c"
