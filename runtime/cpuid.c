/* cpuid.c: which CPU features this machine has, by LLVM's names.
 *
 * A feature counts only when the operating system keeps the registers it needs
 * across task switches: XCR0 says so. */
#include "rt.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EAX, EBX, ECX, EDX };
enum { /* bits of XCR0 */
       ANY = 0,
       YMM = 0x6,
       ZMM = 0xe6,
       TILE = 0x60000
};

typedef struct Feature {
  const char *name;
  unsigned leaf, subleaf, reg, bit, state;
} Feature;

static const Feature table[] = {
    {"x87", 1, 0, EDX, 0, ANY},
    {"cx8", 1, 0, EDX, 8, ANY},
    {"cmov", 1, 0, EDX, 15, ANY},
    {"mmx", 1, 0, EDX, 23, ANY},
    {"fxsr", 1, 0, EDX, 24, ANY},
    {"sse", 1, 0, EDX, 25, ANY},
    {"sse2", 1, 0, EDX, 26, ANY},
    {"sse3", 1, 0, ECX, 0, ANY},
    {"pclmul", 1, 0, ECX, 1, ANY},
    {"ssse3", 1, 0, ECX, 9, ANY},
    {"fma", 1, 0, ECX, 12, YMM},
    {"cx16", 1, 0, ECX, 13, ANY},
    {"sse4.1", 1, 0, ECX, 19, ANY},
    {"sse4.2", 1, 0, ECX, 20, ANY},
    {"crc32", 1, 0, ECX, 20, ANY},
    {"movbe", 1, 0, ECX, 22, ANY},
    {"popcnt", 1, 0, ECX, 23, ANY},
    {"aes", 1, 0, ECX, 25, ANY},
    {"xsave", 1, 0, ECX, 26, ANY},
    {"avx", 1, 0, ECX, 28, YMM},
    {"f16c", 1, 0, ECX, 29, YMM},
    {"rdrnd", 1, 0, ECX, 30, ANY},
    {"fsgsbase", 7, 0, EBX, 0, ANY},
    {"sgx", 7, 0, EBX, 2, ANY},
    {"bmi", 7, 0, EBX, 3, ANY},
    {"avx2", 7, 0, EBX, 5, YMM},
    {"bmi2", 7, 0, EBX, 8, ANY},
    {"invpcid", 7, 0, EBX, 10, ANY},
    {"rtm", 7, 0, EBX, 11, ANY},
    {"avx512f", 7, 0, EBX, 16, ZMM},
    {"evex512", 7, 0, EBX, 16, ZMM},
    {"avx512dq", 7, 0, EBX, 17, ZMM},
    {"rdseed", 7, 0, EBX, 18, ANY},
    {"adx", 7, 0, EBX, 19, ANY},
    {"avx512ifma", 7, 0, EBX, 21, ZMM},
    {"clflushopt", 7, 0, EBX, 23, ANY},
    {"clwb", 7, 0, EBX, 24, ANY},
    {"avx512cd", 7, 0, EBX, 28, ZMM},
    {"sha", 7, 0, EBX, 29, ANY},
    {"avx512bw", 7, 0, EBX, 30, ZMM},
    {"avx512vl", 7, 0, EBX, 31, ZMM},
    {"avx512vbmi", 7, 0, ECX, 1, ZMM},
    {"pku", 7, 0, ECX, 4, ANY},
    {"waitpkg", 7, 0, ECX, 5, ANY},
    {"avx512vbmi2", 7, 0, ECX, 6, ZMM},
    {"shstk", 7, 0, ECX, 7, ANY},
    {"gfni", 7, 0, ECX, 8, ANY},
    {"vaes", 7, 0, ECX, 9, YMM},
    {"vpclmulqdq", 7, 0, ECX, 10, YMM},
    {"avx512vnni", 7, 0, ECX, 11, ZMM},
    {"avx512bitalg", 7, 0, ECX, 12, ZMM},
    {"avx512vpopcntdq", 7, 0, ECX, 14, ZMM},
    {"rdpid", 7, 0, ECX, 22, ANY},
    {"kl", 7, 0, ECX, 23, ANY},
    {"cldemote", 7, 0, ECX, 25, ANY},
    {"movdiri", 7, 0, ECX, 27, ANY},
    {"movdir64b", 7, 0, ECX, 28, ANY},
    {"enqcmd", 7, 0, ECX, 29, ANY},
    {"uintr", 7, 0, EDX, 5, ANY},
    {"avx512vp2intersect", 7, 0, EDX, 8, ZMM},
    {"serialize", 7, 0, EDX, 14, ANY},
    {"tsxldtrk", 7, 0, EDX, 16, ANY},
    {"pconfig", 7, 0, EDX, 18, ANY},
    {"amx-bf16", 7, 0, EDX, 22, TILE},
    {"avx512fp16", 7, 0, EDX, 23, ZMM},
    {"amx-tile", 7, 0, EDX, 24, TILE},
    {"amx-int8", 7, 0, EDX, 25, TILE},
    {"sha512", 7, 1, EAX, 0, YMM},
    {"sm3", 7, 1, EAX, 1, YMM},
    {"sm4", 7, 1, EAX, 2, YMM},
    {"raoint", 7, 1, EAX, 3, ANY},
    {"avxvnni", 7, 1, EAX, 4, YMM},
    {"avx512bf16", 7, 1, EAX, 5, ZMM},
    {"cmpccxadd", 7, 1, EAX, 7, ANY},
    {"amx-fp16", 7, 1, EAX, 21, TILE},
    {"hreset", 7, 1, EAX, 22, ANY},
    {"avxifma", 7, 1, EAX, 23, YMM},
    {"avxvnniint8", 7, 1, EDX, 4, YMM},
    {"avxneconvert", 7, 1, EDX, 5, YMM},
    {"amx-complex", 7, 1, EDX, 8, TILE},
    {"avxvnniint16", 7, 1, EDX, 10, YMM},
    {"prefetchi", 7, 1, EDX, 14, ANY},
    {"usermsr", 7, 1, EDX, 15, ANY},
    {"xsaveopt", 0xd, 1, EAX, 0, ANY},
    {"xsavec", 0xd, 1, EAX, 1, ANY},
    {"xsaves", 0xd, 1, EAX, 3, ANY},
    {"ptwrite", 0x14, 0, EBX, 4, ANY},
    {"widekl", 0x19, 0, EBX, 2, ANY},
    {"sahf", 0x80000001, 0, ECX, 0, ANY},
    {"lzcnt", 0x80000001, 0, ECX, 5, ANY},
    {"sse4a", 0x80000001, 0, ECX, 6, ANY},
    {"prfchw", 0x80000001, 0, ECX, 8, ANY},
    {"xop", 0x80000001, 0, ECX, 11, YMM},
    {"lwp", 0x80000001, 0, ECX, 15, ANY},
    {"fma4", 0x80000001, 0, ECX, 16, YMM},
    {"tbm", 0x80000001, 0, ECX, 21, ANY},
    {"mwaitx", 0x80000001, 0, ECX, 29, ANY},
    {"64bit", 0x80000001, 0, EDX, 29, ANY},
    {"clzero", 0x80000008, 0, EBX, 0, ANY},
    {"rdpru", 0x80000008, 0, EBX, 4, ANY},
    {"wbnoinvd", 0x80000008, 0, EBX, 9, ANY},
};

/* The register states that the operating system saves. */
static unsigned xcr0(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return 0;
  unsigned lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return lo;
}

bool rt_cpu_has(const char *feature) {
  for (size_t i = 0; i < COUNT_OF(table); i++) {
    const Feature *f = &table[i];
    if (strcmp(f->name, feature) != 0) continue;
    unsigned r[4];
    if (!__get_cpuid_count(f->leaf, f->subleaf, &r[EAX], &r[EBX], &r[ECX],
                           &r[EDX]))
      return false;
    if (!(r[f->reg] >> f->bit & 1)) return false;
    return f->state == ANY || (xcr0() & f->state) == f->state;
  }
  return false;
}

MoertStatus rt_cpu_permit(const char *feature) {
  enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
  if (strncmp(feature, "amx-", 4) != 0 ||
      syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0)
    return MOERT_OK;
  return rt_fail(MOERT_UNSUPPORTED,
                 "the system does not let this process use the matrix tiles "
                 "that the model was compiled for (%s): %s; compile it again "
                 "with --mcpu=x86-64-v4",
                 feature, strerror(errno));
}
