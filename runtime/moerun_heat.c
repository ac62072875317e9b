/* moerun_heat.c: experts against the most frequent tokens, as an SVG picture.
 *
 * A column is a token of the text, the most frequent ones, a row an expert,
 * those with most choices. The darker a square, the larger the share of the
 * token's choices that are this expert's; it says how large where the pointer
 * rests. Rows are in the order of the column in which each is darkest, so that
 * experts of like tokens stand together. */
#include "moerun.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 60, ROWS = 128, CELL = 14, LEFT = 60, TOP = 66, GAP = 30 };

typedef struct Row {
  int32_t expert;
  int darkest;         /* column */
  int64_t n;           /* choices in all */
  double part[COLUMNS]; /* of a column's choices */
} Row;

typedef struct Heat {
  const Run *run;
  const MoertText *text;
  int64_t columns[COLUMNS]; /* tokens */
  int n_columns;
  int16_t *column_of; /* by token, -1: none */
  int64_t n_tokens;   /* that column_of has */
} Heat;

/* ---- columns ------------------------------------------------------------- */

/* The most frequent first, of equally frequent ones the smaller first. */
static void choose_columns(Heat *h, int64_t *counts) {
  while (h->n_columns < COLUMNS) {
    int64_t best = 0;
    for (int64_t t = 1; t < h->n_tokens; t++)
      if (counts[t] > counts[best]) best = t;
    if (counts[best] == 0) break;
    h->column_of[best] = (int16_t)h->n_columns;
    h->columns[h->n_columns++] = best;
    counts[best] = 0;
  }
}

static int find_columns(Heat *h) {
  int64_t n = moert_text_tokens(h->text);
  for (int64_t i = 0; i < n; i++) {
    int64_t t = moert_text_token(h->text, i);
    if (t >= h->n_tokens) h->n_tokens = t + 1;
  }
  int64_t *counts = calloc((size_t)h->n_tokens, sizeof *counts);
  h->column_of = calloc((size_t)h->n_tokens, sizeof *h->column_of);
  if (!counts || !h->column_of) {
    free(counts);
    return run_error("out of memory");
  }
  for (int64_t t = 0; t < h->n_tokens; t++)
    h->column_of[t] = -1;
  for (int64_t i = 0; i < n; i++)
    counts[moert_text_token(h->text, i)]++;
  choose_columns(h, counts);
  free(counts);
  return 0;
}

static int column_at(const Heat *h, int64_t at) {
  return h->column_of[moert_text_token(h->text, at)];
}

/* ---- rows ---------------------------------------------------------------- */

static int by_choices(const void *x, const void *y) {
  const Row *a = x, *b = y;
  if (a->n != b->n) return a->n > b->n ? -1 : 1;
  return a->expert - b->expert;
}

static int by_darkest(const void *x, const void *y) {
  const Row *a = x, *b = y;
  if (a->darkest != b->darkest) return a->darkest - b->darkest;
  return a->expert - b->expert;
}

/* All rows, with numbers of choices in the place of parts. */
static void count_rows(const Heat *h, const RunLayer *l, Row *rows,
                          double *of_column) {
  int64_t n = 0, end;
  for (int64_t i = 0; i < l->n; i = end, n++) {
    end = run_choices_end(l, i);
    rows[n].expert = l->choices[i].expert;
    rows[n].n = end - i;
    for (int64_t j = i; j < end; j++) {
      int c = column_at(h, l->choices[j].at);
      if (c < 0) continue;
      rows[n].part[c]++;
      of_column[c]++;
    }
  }
}

/* The rows to draw, in order; how many. */
static int find_rows(const Heat *h, const RunLayer *l, Row **out) {
  double of_column[COLUMNS] = {0};
  int64_t n = 0;
  for (int64_t i = 0; i < l->n; i = run_choices_end(l, i))
    n++;
  Row *rows = *out = calloc((size_t)n, sizeof *rows);
  if (!rows) return 0;
  count_rows(h, l, rows, of_column);
  qsort(rows, (size_t)n, sizeof *rows, by_choices);
  if (n > ROWS) n = ROWS;
  for (int64_t i = 0; i < n; i++)
    for (int c = 0; c < h->n_columns; c++) {
      if (of_column[c] > 0) rows[i].part[c] /= of_column[c];
      if (rows[i].part[c] > rows[i].part[rows[i].darkest]) rows[i].darkest = c;
    }
  qsort(rows, (size_t)n, sizeof *rows, by_darkest);
  return (int)n;
}

/* ---- drawing ------------------------------------------------------------- */

static void put_token(FILE *f, const Heat *h, int64_t token) {
  RunToken t = run_token(h->run, token);
  if (t.n == 1 && run_token_text(&t)[0] == ' ')
    fputs("\xe2\x90\xa3", f); /* an open box */
  else
    run_put_escaped(f, run_token_text(&t), t.n, true);
}

static void put_heading(FILE *f, const Heat *h, const RunLayer *l, int y) {
  fprintf(f, "<text x=\"4\" y=\"%d\" font-weight=\"bold\">", y + 14);
  run_put_escaped(f, l->title, strlen(l->title), true);
  fprintf(f, "</text>\n");
  for (int c = 0; c < h->n_columns; c++) {
    int x = LEFT + c * CELL + CELL / 2 + 4;
    fprintf(f, "<text transform=\"translate(%d %d) rotate(-60)\">", x,
            y + TOP - 4);
    put_token(f, h, h->columns[c]);
    fprintf(f, "</text>\n");
  }
}

/* A square is as dark as the root of its share: most are small. */
static void put_row(FILE *f, const Heat *h, const Row *r, int y) {
  fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n",
          LEFT - 4, y + CELL - 4, r->expert);
  for (int c = 0; c < h->n_columns; c++) {
    if (r->part[c] < 5e-4) continue;
    fprintf(f,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
            "fill-opacity=\"%.2f\"><title>",
            LEFT + c * CELL, y, CELL - 1, CELL - 1, sqrt(r->part[c]));
    put_token(f, h, h->columns[c]);
    fprintf(f, ": %.1f %% to expert %d</title></rect>\n", 100 * r->part[c],
            r->expert);
  }
}

/* A layer from `y` on; where the next one begins. */
static int put_layer(FILE *f, const Heat *h, const RunLayer *l,
                     const Row *rows, int n_rows, int y) {
  put_heading(f, h, l, y);
  y += TOP;
  for (int i = 0; i < n_rows; i++, y += CELL)
    put_row(f, h, &rows[i], y);
  return y + GAP;
}

static void put_picture(FILE *f, const Heat *h, const RunLayer *layers,
                        int n_layers, Row *const *rows, const int *n_rows) {
  int height = 0, y = 0;
  for (int i = 0; i < n_layers; i++)
    height += TOP + n_rows[i] * CELL + GAP;
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
          "height=\"%d\" font-family=\"monospace\" font-size=\"10\" "
          "fill=\"#08306b\">\n"
          "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
          LEFT + h->n_columns * CELL + GAP, height);
  for (int i = 0; i < n_layers; i++)
    y = put_layer(f, h, &layers[i], rows[i], n_rows[i], y);
  fprintf(f, "</svg>\n");
}

static int write_picture(const Heat *h, const RunLayer *layers, int n_layers,
                         Row *const *rows, const int *n_rows,
                         const char *path) {
  FILE *f = fopen(path, "w");
  if (!f) return run_error("%s: %s", path, strerror(errno));
  put_picture(f, h, layers, n_layers, rows, n_rows);
  int why = fflush(f) == 0 && !ferror(f) ? 0 : errno;
  if (fclose(f) != 0 && !why) why = errno;
  if (!why) return 0;
  return run_error("%s: cannot be written: %s", path, strerror(why));
}

int run_draw_heat(const Run *r, const MoertText *text, const RunLayer *layers,
                  int n_layers, const char *path) {
  Heat h = {.run = r, .text = text};
  Row **rows = calloc((size_t)n_layers, sizeof *rows);
  int *n_rows = calloc((size_t)n_layers, sizeof *n_rows);
  int status = rows && n_rows ? find_columns(&h) : run_error("out of memory");
  for (int i = 0; i < n_layers && !status; i++)
    if (!(n_rows[i] = find_rows(&h, &layers[i], &rows[i])))
      status = run_error("out of memory");
  if (!status) status = write_picture(&h, layers, n_layers, rows, n_rows, path);
  for (int i = 0; rows && i < n_layers; i++)
    free(rows[i]);
  free(rows);
  free(n_rows);
  free(h.column_of);
  return status;
}
