/* stand_ins.h: tests that need a GPU's driver, or the stand-ins for it. */
#ifndef MOEC_STAND_INS_H
#define MOEC_STAND_INS_H

#include "tiny.h"

#include <dlfcn.h>

static inline int has_driver(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver) dlclose(driver);
  return driver != NULL;
}

/* Where the machine has no driver, starts again with the stand-ins of
 * tests/cudasim; returns where these give none. */
static inline void use_stand_ins(char **argv) {
  const char *dir = beside("../tests/cudasim");
  if (getenv("CUDASIM_CHECKED")) return;
  setenv("CUDASIM_CHECKED", "1", 1);
  setenv("LD_LIBRARY_PATH", dir, 1);
  fflush(stdout);
  execv("/proc/self/exe", argv);
}

/* What such a test says when it returned. */
static inline int no_stand_ins(const char *name) {
  printf("not ok %s: no CUDA driver, nor the stand-ins of tests/cudasim\n",
         name);
  return 1;
}

#endif
