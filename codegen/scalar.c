/* scalar.c: scalar-body ops of ops.def as LLVM instructions, one function a
 * row.
 *
 * Every function serves scalars and vectors alike, so a vector body and its
 * tail compute the same bits. Nothing here may be undefined: shifts by too
 * much, division by zero and casts out of range give what ops.def says, and no
 * instruction carries a fast-math flag.
 *
 * A bf16 is an i16 to LLVM, which would otherwise call functions to round it.
 * Every op widens it to f32, which is exact, computes that, and rounds a result
 * of bf16 once, by integer operations: instructions for it lose subnormals. */
#include "codegen.h"

#include <llvm-c/Core.h>
#include <math.h>
#include <string.h>

enum { MAX_SCALAR_INS = 3 };

typedef struct Emit {
  LLVMBuilderRef b;
  Dtype in, out; /* of the first operand, of the result */
} Emit;

typedef LLVMValueRef LlFn(const Emit *e, LLVMValueRef const *a);

typedef LLVMTypeRef LlTypeOf(LLVMContextRef);
static LlTypeOf *const ll_types[DTYPE_COUNT] = {
#define DT(name, bytes, kind, llvm, ...) LLVM##llvm##TypeInContext,
#include "../runtime/dtypes.def"
#undef DT
};

LLVMTypeRef cg_llvm_type(LLVMContextRef c, Dtype dtype, int lanes) {
  LLVMTypeRef t = ll_types[dtype](c);
  return lanes > 1 ? LLVMVectorType(t, (unsigned)lanes) : t;
}

/* ---- helpers ------------------------------------------------------------ */

static DtypeKind kind_in(const Emit *e) {
  return dtype_info[e->in].kind;
}
static bool is_float(const Emit *e) {
  return kind_in(e) == DK_FLOAT;
}
static bool is_signed(const Emit *e) {
  return kind_in(e) == DK_INT;
}

static int lanes_of(LLVMValueRef v) {
  LLVMTypeRef t = LLVMTypeOf(v);
  return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t)
                                                  : 1;
}

static LLVMTypeRef element_type(LLVMTypeRef t) {
  return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
}

/* Type of `dtype` with the lanes of `like`. */
static LLVMTypeRef type_like(LLVMValueRef like, Dtype dtype) {
  return cg_llvm_type(LLVMGetTypeContext(LLVMTypeOf(like)), dtype,
                      lanes_of(like));
}

static LLVMValueRef repeat(LLVMValueRef element, int lanes) {
  LLVMValueRef all[256];
  if (lanes == 1) return element;
  assert(lanes <= (int)COUNT_OF(all));
  for (int i = 0; i < lanes; i++)
    all[i] = element;
  return LLVMConstVector(all, (unsigned)lanes);
}

static LLVMValueRef int_like(LLVMValueRef like, uint64_t x) {
  LLVMTypeRef t = element_type(LLVMTypeOf(like));
  return repeat(LLVMConstInt(t, x, false), lanes_of(like));
}

static LLVMValueRef real_like(LLVMValueRef like, double x) {
  LLVMTypeRef t = element_type(LLVMTypeOf(like));
  return repeat(LLVMConstReal(t, x), lanes_of(like));
}

LLVMValueRef cg_llvm_const(LLVMContextRef c, Dtype dtype, int lanes, double x) {
  LLVMTypeRef t = ll_types[dtype](c);
  LLVMValueRef v = NULL;
  switch (dtype_info[dtype].kind) {
  case DK_BOOL: v = LLVMConstInt(t, x != 0, false); break;
  case DK_INT: v = LLVMConstInt(t, (uint64_t)(int64_t)x, true); break;
  case DK_UINT: v = LLVMConstInt(t, (uint64_t)x, false); break;
  case DK_FLOAT:
    v = LLVMConstReal(dtype == DT_bf16 ? LLVMBFloatTypeInContext(c) : t, x);
    v = LLVMConstBitCast(v, t);
    break;
  }
  return repeat(v, lanes);
}

/* A call of an intrinsic that is overloaded by `types`. */
static LLVMValueRef intrinsic(const Emit *e, const char *name,
                              LLVMTypeRef *types, size_t n_types,
                              LLVMValueRef const *a, unsigned n) {
  LLVMValueRef fn = LLVMGetBasicBlockParent(LLVMGetInsertBlock(e->b));
  LLVMModuleRef m = LLVMGetGlobalParent(fn);
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  LLVMValueRef f = LLVMGetIntrinsicDeclaration(m, id, types, n_types);
  LLVMValueRef args[4];
  memcpy(args, a, n * sizeof *a);
  return LLVMBuildCall2(e->b, LLVMGlobalGetValueType(f), f, args, n, "");
}

/* One that keeps its operands' type. */
static LLVMValueRef same_intrinsic(const Emit *e, const char *name,
                                   LLVMValueRef const *a, unsigned n) {
  LLVMTypeRef t = LLVMTypeOf(a[0]);
  return intrinsic(e, name, &t, 1, a, n);
}

static LLVMValueRef icmp(const Emit *e, LLVMIntPredicate p, LLVMValueRef x,
                         LLVMValueRef y) {
  return LLVMBuildICmp(e->b, p, x, y, "");
}

static LLVMValueRef fcmp(const Emit *e, LLVMRealPredicate p, LLVMValueRef x,
                         LLVMValueRef y) {
  return LLVMBuildFCmp(e->b, p, x, y, "");
}

/* A comparison by the operands' kind. */
static LLVMValueRef compare(const Emit *e, LLVMRealPredicate real,
                            LLVMIntPredicate sign, LLVMIntPredicate plain,
                            LLVMValueRef const *a) {
  if (is_float(e)) return fcmp(e, real, a[0], a[1]);
  return icmp(e, is_signed(e) ? sign : plain, a[0], a[1]);
}

static LLVMValueRef choose(const Emit *e, LLVMValueRef cond, LLVMValueRef yes,
                           LLVMValueRef no) {
  return LLVMBuildSelect(e->b, cond, yes, no, "");
}

/* ---- arithmetic --------------------------------------------------------- */

static LLVMValueRef ll_add(const Emit *e, LLVMValueRef const *a) {
  return is_float(e) ? LLVMBuildFAdd(e->b, a[0], a[1], "")
                     : LLVMBuildAdd(e->b, a[0], a[1], "");
}

static LLVMValueRef ll_sub(const Emit *e, LLVMValueRef const *a) {
  return is_float(e) ? LLVMBuildFSub(e->b, a[0], a[1], "")
                     : LLVMBuildSub(e->b, a[0], a[1], "");
}

static LLVMValueRef ll_mul(const Emit *e, LLVMValueRef const *a) {
  return is_float(e) ? LLVMBuildFMul(e->b, a[0], a[1], "")
                     : LLVMBuildMul(e->b, a[0], a[1], "");
}

/* The high half of the product of two u32. */
static LLVMValueRef ll_mulhi(const Emit *e, LLVMValueRef const *a) {
  LLVMTypeRef narrow = LLVMTypeOf(a[0]);
  LLVMTypeRef i64 = LLVMInt64TypeInContext(LLVMGetTypeContext(narrow));
  int lanes = lanes_of(a[0]);
  LLVMTypeRef wide = lanes > 1 ? LLVMVectorType(i64, (unsigned)lanes) : i64;
  LLVMValueRef x = LLVMBuildZExt(e->b, a[0], wide, "");
  LLVMValueRef y = LLVMBuildZExt(e->b, a[1], wide, "");
  LLVMValueRef p = LLVMBuildMul(e->b, x, y, "");
  p = LLVMBuildLShr(e->b, p, int_like(p, 32), "");
  return LLVMBuildTrunc(e->b, p, narrow, "");
}

/* Quotient and remainder share their guards: a divisor of 0, and of -1, where
 * the smallest integer has no quotient. */
static LLVMValueRef ll_div(const Emit *e, LLVMValueRef const *a) {
  if (is_float(e)) return LLVMBuildFDiv(e->b, a[0], a[1], "");
  LLVMValueRef zero = int_like(a[1], 0), one = int_like(a[1], 1);
  LLVMValueRef by_zero = icmp(e, LLVMIntEQ, a[1], zero);
  LLVMValueRef q;
  if (is_signed(e)) {
    LLVMValueRef minus = icmp(e, LLVMIntEQ, a[1], int_like(a[1], UINT64_MAX));
    LLVMValueRef odd = LLVMBuildOr(e->b, by_zero, minus, "");
    q = LLVMBuildSDiv(e->b, a[0], choose(e, odd, one, a[1]), "");
    q = choose(e, minus, LLVMBuildNeg(e->b, a[0], ""), q);
  } else {
    q = LLVMBuildUDiv(e->b, a[0], choose(e, by_zero, one, a[1]), "");
  }
  return choose(e, by_zero, zero, q);
}

static LLVMValueRef ll_rem(const Emit *e, LLVMValueRef const *a) {
  LLVMValueRef one = int_like(a[1], 1);
  LLVMValueRef odd = icmp(e, LLVMIntEQ, a[1], int_like(a[1], 0));
  if (!is_signed(e))
    return choose(e, odd, int_like(a[0], 0),
                  LLVMBuildURem(e->b, a[0], choose(e, odd, one, a[1]), ""));
  LLVMValueRef minus = icmp(e, LLVMIntEQ, a[1], int_like(a[1], UINT64_MAX));
  odd = LLVMBuildOr(e->b, odd, minus, "");
  /* Modulo 1 is 0, which is right for both. */
  return LLVMBuildSRem(e->b, a[0], choose(e, odd, one, a[1]), "");
}

static LLVMValueRef ll_max(const Emit *e, LLVMValueRef const *a) {
  LLVMValueRef c = compare(e, LLVMRealOGT, LLVMIntSGT, LLVMIntUGT, a);
  return choose(e, c, a[0], a[1]);
}

static LLVMValueRef ll_min(const Emit *e, LLVMValueRef const *a) {
  LLVMValueRef c = compare(e, LLVMRealOLT, LLVMIntSLT, LLVMIntULT, a);
  return choose(e, c, a[0], a[1]);
}

static LLVMValueRef ll_fma(const Emit *e, LLVMValueRef const *a) {
  if (is_float(e)) return same_intrinsic(e, "llvm.fma", a, 3);
  LLVMValueRef p = LLVMBuildMul(e->b, a[0], a[1], "");
  return LLVMBuildAdd(e->b, p, a[2], "");
}

static LLVMValueRef ll_neg(const Emit *e, LLVMValueRef const *a) {
  return is_float(e) ? LLVMBuildFNeg(e->b, a[0], "")
                     : LLVMBuildNeg(e->b, a[0], "");
}

static LLVMValueRef ll_abs(const Emit *e, LLVMValueRef const *a) {
  if (is_float(e)) return same_intrinsic(e, "llvm.fabs", a, 1);
  if (!is_signed(e)) return a[0];
  LLVMValueRef less = icmp(e, LLVMIntSLT, a[0], int_like(a[0], 0));
  return choose(e, less, LLVMBuildNeg(e->b, a[0], ""), a[0]);
}

static LLVMValueRef ll_sqrt(const Emit *e, LLVMValueRef const *a) {
  return same_intrinsic(e, "llvm.sqrt", a, 1);
}

static LLVMValueRef ll_floor(const Emit *e, LLVMValueRef const *a) {
  return same_intrinsic(e, "llvm.floor", a, 1);
}

/* ---- comparisons and bits ----------------------------------------------- */

static LLVMValueRef ll_lt(const Emit *e, LLVMValueRef const *a) {
  return compare(e, LLVMRealOLT, LLVMIntSLT, LLVMIntULT, a);
}

static LLVMValueRef ll_le(const Emit *e, LLVMValueRef const *a) {
  return compare(e, LLVMRealOLE, LLVMIntSLE, LLVMIntULE, a);
}

static LLVMValueRef ll_eq(const Emit *e, LLVMValueRef const *a) {
  return compare(e, LLVMRealOEQ, LLVMIntEQ, LLVMIntEQ, a);
}

static LLVMValueRef ll_ne(const Emit *e, LLVMValueRef const *a) {
  return compare(e, LLVMRealUNE, LLVMIntNE, LLVMIntNE, a);
}

static LLVMValueRef ll_and(const Emit *e, LLVMValueRef const *a) {
  return LLVMBuildAnd(e->b, a[0], a[1], "");
}

static LLVMValueRef ll_or(const Emit *e, LLVMValueRef const *a) {
  return LLVMBuildOr(e->b, a[0], a[1], "");
}

static LLVMValueRef ll_xor(const Emit *e, LLVMValueRef const *a) {
  return LLVMBuildXor(e->b, a[0], a[1], "");
}

static LLVMValueRef ll_not(const Emit *e, LLVMValueRef const *a) {
  return LLVMBuildNot(e->b, a[0], "");
}

/* Shift counts are read as unsigned: 32 or more, negative ones too, shift
 * everything out. */
static LLVMValueRef shift_guard(const Emit *e, LLVMValueRef count) {
  return icmp(e, LLVMIntULT, count, int_like(count, 32));
}

static LLVMValueRef ll_shl(const Emit *e, LLVMValueRef const *a) {
  LLVMValueRef x = LLVMBuildShl(e->b, a[0], a[1], "");
  return choose(e, shift_guard(e, a[1]), x, int_like(a[0], 0));
}

static LLVMValueRef ll_shr(const Emit *e, LLVMValueRef const *a) {
  LLVMValueRef fits = shift_guard(e, a[1]);
  if (is_signed(e)) {
    LLVMValueRef count = choose(e, fits, a[1], int_like(a[1], 31));
    return LLVMBuildAShr(e->b, a[0], count, "");
  }
  LLVMValueRef x = LLVMBuildLShr(e->b, a[0], a[1], "");
  return choose(e, fits, x, int_like(a[0], 0));
}

static LLVMValueRef ll_is_finite(const Emit *e, LLVMValueRef const *a) {
  LLVMValueRef x = same_intrinsic(e, "llvm.fabs", a, 1);
  return fcmp(e, LLVMRealOLT, x, real_like(x, INFINITY));
}

static LLVMValueRef ll_select(const Emit *e, LLVMValueRef const *a) {
  return choose(e, a[0], a[1], a[2]);
}

/* ---- casts -------------------------------------------------------------- */

/* A result of bf16 comes from these as the f32 that is yet to be rounded. */

/* f64 to the f32 next to it whose last bit is 1, or that equals it: rounding
 * that to fewer bits is rounding once. */
static LLVMValueRef odd_single(const Emit *e, LLVMValueRef x) {
  LLVMTypeRef f32 = type_like(x, DT_f32), u32 = type_like(x, DT_u32);
  LLVMValueRef near = LLVMBuildFPTrunc(e->b, x, f32, "");
  LLVMValueRef back = LLVMBuildFPExt(e->b, near, LLVMTypeOf(x), "");
  LLVMValueRef size = same_intrinsic(e, "llvm.fabs", &x, 1);
  LLVMValueRef back_size = same_intrinsic(e, "llvm.fabs", &back, 1);
  LLVMValueRef above = fcmp(e, LLVMRealOGT, back_size, size);
  LLVMValueRef inexact = fcmp(e, LLVMRealONE, back, x);
  LLVMValueRef bits = LLVMBuildBitCast(e->b, near, u32, "");
  above = LLVMBuildZExt(e->b, above, u32, "");
  inexact = LLVMBuildZExt(e->b, inexact, u32, "");
  bits = LLVMBuildOr(e->b, LLVMBuildSub(e->b, bits, above, ""), inexact, "");
  return LLVMBuildBitCast(e->b, bits, f32, "");
}

static LLVMValueRef float_to_float(const Emit *e, LLVMValueRef x) {
  if (e->out == DT_bf16) return e->in == DT_f64 ? odd_single(e, x) : x;
  return LLVMBuildFPCast(e->b, x, type_like(x, e->out), "");
}

/* To integers toward zero, clamped to their range; a NaN gives 0. */
static LLVMValueRef float_to_int(const Emit *e, LLVMValueRef x, bool sign) {
  LLVMTypeRef types[2] = {type_like(x, e->out), LLVMTypeOf(x)};
  return intrinsic(e, sign ? "llvm.fptosi.sat" : "llvm.fptoui.sat", types, 2,
                   &x, 1);
}

static LLVMValueRef from_float(const Emit *e, LLVMValueRef x) {
  switch (dtype_info[e->out].kind) {
  case DK_BOOL: return fcmp(e, LLVMRealUNE, x, real_like(x, 0));
  case DK_INT: return float_to_int(e, x, true);
  case DK_UINT: return float_to_int(e, x, false);
  case DK_FLOAT: return float_to_float(e, x);
  }
  return NULL;
}

static LLVMValueRef from_int(const Emit *e, LLVMValueRef x) {
  LLVMTypeRef to = type_like(x, e->out);
  switch (dtype_info[e->out].kind) {
  case DK_BOOL: return icmp(e, LLVMIntNE, x, int_like(x, 0));
  case DK_INT:
  case DK_UINT:
    return is_signed(e) ? LLVMBuildSExtOrBitCast(e->b, x, to, "")
                        : LLVMBuildZExtOrBitCast(e->b, x, to, "");
  case DK_FLOAT: break;
  }
  if (e->out == DT_bf16) to = type_like(x, DT_f64); /* exact */
  LLVMValueRef r = is_signed(e) ? LLVMBuildSIToFP(e->b, x, to, "")
                                : LLVMBuildUIToFP(e->b, x, to, "");
  return e->out == DT_bf16 ? odd_single(e, r) : r;
}

static LLVMValueRef ll_cast(const Emit *e, LLVMValueRef const *a) {
  if (e->in == e->out) return a[0];
  return is_float(e) ? from_float(e, a[0]) : from_int(e, a[0]);
}

static LLVMValueRef ll_bitcast(const Emit *e, LLVMValueRef const *a) {
  return LLVMBuildBitCast(e->b, a[0], type_like(a[0], e->out), "");
}

/* ---- the table ---------------------------------------------------------- */

#define LL_SCALAR(name) [OP_##name] = ll_##name,
#define LL_ACCESS(name)
#define LL_REDUCE(name)
#define LL_ROW(name)
#define LL_CONTRACT(name)
#define LL_LAUNCH(name)
#define LL_LOOP(name)
#define LL_COMM(name)
#define LL_WAIT(name)
#define LL_EXPAND(name)
#define LL_NONE(name)
static LlFn *const ll_ops[OP_COUNT] = {
#define OP(name, min, max, outs, traits, attrs, infer, vjp, eval, lower, \
           batch, shard, doc)                                            \
  LL_##lower(name)
#include "../ir/ops.def"
#undef OP
};

/* ---- bf16 --------------------------------------------------------------- */

/* bf16 is the upper half of f32. */
static LLVMValueRef widen_bf16(LLVMBuilderRef b, LLVMValueRef x) {
  LLVMValueRef bits = LLVMBuildZExt(b, x, type_like(x, DT_u32), "");
  bits = LLVMBuildShl(b, bits, int_like(bits, 16), "");
  return LLVMBuildBitCast(b, bits, type_like(x, DT_f32), "");
}

/* To nearest, ties to even. A NaN stays one: its sign and the upper bits that
 * it has, and quiet. */
static LLVMValueRef narrow_bf16(LLVMBuilderRef b, LLVMValueRef x) {
  LLVMValueRef bits = LLVMBuildBitCast(b, x, type_like(x, DT_u32), "");
  LLVMValueRef odd = LLVMBuildLShr(b, bits, int_like(bits, 16), "");
  odd = LLVMBuildAnd(b, odd, int_like(bits, 1), "");
  LLVMValueRef up = LLVMBuildAdd(b, odd, int_like(bits, 0x7fff), "");
  up = LLVMBuildAdd(b, bits, up, "");
  LLVMValueRef quiet = LLVMBuildOr(b, bits, int_like(bits, 0x400000), "");
  LLVMValueRef is_nan = LLVMBuildFCmp(b, LLVMRealUNO, x, x, "");
  bits = LLVMBuildSelect(b, is_nan, quiet, up, "");
  bits = LLVMBuildLShr(b, bits, int_like(bits, 16), "");
  return LLVMBuildTrunc(b, bits, type_like(x, DT_bf16), "");
}

/* What leaves the bits of a bf16 as they are. */
static bool moves(OpKind op, Dtype in, Dtype out) {
  return op == OP_select || op == OP_bitcast || (op == OP_cast && in == out);
}

LLVMValueRef cg_llvm_scalar(LLVMBuilderRef b, OpKind op, Dtype in, Dtype out,
                            LLVMValueRef const *a) {
  Emit e = {b, in, out};
  LLVMValueRef wide[MAX_SCALAR_INS];
  if (!ll_ops[op]) internal_error("'%s' is not a scalar op", op_info[op].name);
  if (moves(op, in, out)) return ll_ops[op](&e, a);
  if (in == DT_bf16) {
    assert(op_info[op].max_ins <= MAX_SCALAR_INS);
    for (int i = 0; i < op_info[op].max_ins; i++)
      wide[i] = widen_bf16(b, a[i]);
    e.in = DT_f32;
    a = wide;
  }
  LLVMValueRef r = ll_ops[op](&e, a);
  return out == DT_bf16 ? narrow_bf16(b, r) : r;
}
