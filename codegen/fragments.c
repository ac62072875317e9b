/* fragments.c: building kernel loops on fragments of products. */
#include "fragment.h"

KVal *kb_take(KBuild *b, KfWay way, KBase base, KVal *index, KVal *last,
              int64_t run, int64_t step) {
  assert(base.dtype == DT_bf16 && run > 0);
  KVal p = {.kind = K_TAKE,
            .dtype = DT_u32,
            .lanes = KF_LANES,
            .number = way,
            .base = base,
            .a = {index, last, kb_index(b, run), kb_index(b, step)}};
  return kb_statement(b, p);
}

KVal *kb_take_numbers(KBuild *b, KfWay way, KBase base, KVal *index, KVal *last,
                      int64_t step) {
  assert(base.dtype == DT_f32 && (way == KF_ROW || way == KF_COLUMN));
  KVal p = {.kind = K_TAKE,
            .dtype = DT_f32,
            .lanes = way == KF_ROW ? KF_ROWS : KF_LANES,
            .number = way,
            .base = base,
            .a = {index, last, kb_index(b, 1), kb_index(b, step)}};
  return kb_statement(b, p);
}

KVal *kb_places(KBuild *b, KfWay way) {
  assert(way == KF_ROW || way == KF_COLUMN);
  KVal p = {
      .kind = K_PLACES, .dtype = DT_i32, .lanes = KF_LANES, .number = way};
  return kb_value(b, p);
}

KVal *kb_ahead(KBuild *b, KfWay way, KVal *most) {
  assert(most->index && (way == KF_ROW || way == KF_COLUMN));
  KVal p = {.kind = K_AHEAD,
            .dtype = DT_bool,
            .lanes = KF_LANES,
            .number = way,
            .a = {most}};
  return kb_value(b, p);
}

KVal *kb_mma(KBuild *b, KVal *sum, KVal *left, KVal *right) {
  assert(sum->lanes == KF_LANES && left->dtype == DT_u32);
  KVal p = {.kind = K_MMA,
            .dtype = DT_f32,
            .lanes = KF_LANES,
            .a = {sum, left, right}};
  return kb_value(b, p);
}

KVal *kb_pairs(KBuild *b, KVal *x) {
  assert(x->dtype == DT_f32 && x->lanes == KF_LANES);
  KVal p = {
      .kind = K_PAIRS, .dtype = DT_u32, .lanes = KF_LANES / 2, .a = {x}};
  return kb_value(b, p);
}

KVal *kb_join(KBuild *b, KVal *first, KVal *second) {
  assert(first->lanes == KF_LANES / 2 && second->lanes == KF_LANES / 2);
  KVal p = {.kind = K_JOIN,
            .dtype = DT_u32,
            .lanes = KF_LANES,
            .a = {first, second}};
  return kb_value(b, p);
}

KVal *kb_row_fold(KBuild *b, OpKind op, KVal *x) {
  assert(x->dtype == DT_f32 && x->lanes == KF_LANES);
  KVal p = {.kind = K_ROW_FOLD,
            .op = op,
            .dtype = DT_f32,
            .lanes = KF_ROWS,
            .a = {x}};
  return kb_value(b, p);
}

KVal *kb_by_row(KBuild *b, KVal *x) {
  assert(x->dtype == DT_f32 && x->lanes == KF_ROWS);
  KVal p = {
      .kind = K_BY_ROW, .dtype = DT_f32, .lanes = KF_LANES, .a = {x}};
  return kb_value(b, p);
}

void kb_pause(KBuild *b) {
  kb_statement(b, (KVal){.kind = K_PAUSE});
}

void kb_put(KBuild *b, KBase base, KVal *index, KVal *v, KVal *rows,
            int64_t run, int64_t step) {
  assert(base.dtype == DT_f32 && v->lanes == KF_LANES && run > 0);
  KVal p = {.kind = K_PUT,
            .base = base,
            .dtype = DT_f32,
            .lanes = v->lanes,
            .a = {index, v, rows, kb_index(b, run), kb_index(b, step)}};
  kb_statement(b, p);
}
