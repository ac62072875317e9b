/* moerun_doctor.c: what was found on this machine, and what is missing. */
#include "moerun.h"

int run_doctor(const RunArgs *a) {
  MoertFinding found[64];
  int n = moert_doctor(found, (int)COUNT_OF(found));
  (void)a;
  for (int i = 0; i < n; i++)
    printf("%-12s %s%s%s%s\n", found[i].what,
           found[i].found ? "" : "missing: ", found[i].text,
           found[i].found ? "" : "; it is for ",
           found[i].found ? "" : found[i].gives);
  return 0;
}
