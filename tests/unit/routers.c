/* routers.c: every gate of models/lib on random tokens, in training and not,
 * against plain loops over its paper's formulas: gates as a table of tokens and
 * experts, the loss, and what the gate sets. Evaluated in doubles. */
#include "../../passes/pass.h"
#include "check.h"
#include "model_text.h"
#include "random_graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { S = 16, D = 5, N = 4, A = 2 }; /* tokens, their width, experts, groups */

typedef double Table[S][N];

/* One gate in one entry: what goes in, and what has to come out. */
typedef struct Run {
  Entry *e;
  Tensor **ins, **outs;
  bool training, noisy;
  Table got;  /* what came out, for what is drawn at random */
  const double *there; /* 0 for tokens that are padding; NULL: none is */
  Table want; /* gates, 0 where an expert is not chosen */
  double loss;
} Run;

typedef struct Case {
  const char *gate; /* in the language; hash_gate's tokens are `t`, and `there`
                       is 0 for padding */
  void (*reference)(Run *);
} Case;

/* ---- what there is in a run ---------------------------------------------- */

static const double *input(const Run *r, const char *name) {
  for (uint32_t i = 0; i < r->e->ins.len; i++)
    if (strcmp(r->e->ins.data[i].name, name) == 0) return r->ins[i]->data;
  internal_error("no input %s", name);
}

static const double *output(const Run *r, const char *name) {
  for (uint32_t i = 0; i < r->e->outs.len; i++)
    if (strcmp(r->e->outs.data[i].name, name) == 0) return r->outs[i]->data;
  internal_error("no output %s", name);
}

/* x . w for tokens of width d and m columns. */
static void product(const double *x, const double *w, int d, int m,
                    double *out) {
  for (int s = 0; s < S; s++)
    for (int j = 0; j < m; j++) {
      out[s * m + j] = 0;
      for (int i = 0; i < d; i++)
        out[s * m + j] += x[s * d + i] * w[i * m + j];
    }
}

static void logits(const Run *r, Table z) {
  product(input(r, "x"), input(r, "gate/w"), D, N, &z[0][0]);
}

static void softmax(const double *z, int n, double *p) {
  double sum = 0;
  for (int i = 0; i < n; i++)
    sum += p[i] = exp(z[i]);
  for (int i = 0; i < n; i++)
    p[i] /= sum;
}

static void softmax_all(Table z, Table p) {
  for (int s = 0; s < S; s++)
    softmax(z[s], N, p[s]);
}

static void sigmoid_all(Table z, Table p) {
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++)
      p[s][i] = 1 / (1 + exp(-z[s][i]));
}

/* How many of n values, `stride` apart, come before number i in order. */
static int rank_of(const double *v, int n, int stride, int i) {
  int before = 0;
  for (int j = 0; j < n; j++) {
    double a = v[j * stride], b = v[i * stride];
    before += a > b || (a == b && j < i);
  }
  return before;
}

/* p where it is among the k largest of its token by `by`, else 0. */
static void keep_largest(Table p, Table by, int k, Table out) {
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++)
      out[s][i] = rank_of(by[s], N, 1, i) < k ? p[s][i] : 0;
}

/* p where it is among the m largest of its expert in its group, else 0. */
static void keep_columns(Table p, int groups, int m, Table out) {
  int size = S / groups;
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++)
      out[s][i] =
          rank_of(&p[s / size * size][i], size, N, s % size) < m ? p[s][i] : 0;
}

static void make_shares(Table p) {
  for (int s = 0; s < S; s++) {
    double sum = 0;
    for (int i = 0; i < N; i++)
      sum += p[s][i];
    for (int i = 0; i < N && sum > 0; i++)
      p[s][i] /= sum;
  }
}

static int rows_of(Table gates, int expert) {
  int n = 0;
  for (int s = 0; s < S; s++)
    n += gates[s][expert] > 0;
  return n;
}

/* n times the sum of the shares of choices and the mean probabilities. */
static double share_loss(Table p, Table gates) {
  double loss = 0, all = 0;
  for (int i = 0; i < N; i++)
    all += rows_of(gates, i);
  for (int i = 0; i < N; i++) {
    double mean = 0;
    for (int s = 0; s < S; s++)
      mean += p[s][i] / S;
    loss += N * rows_of(gates, i) / all * mean;
  }
  return loss;
}

static double log_sum(const double *z) {
  double sum = 0;
  for (int i = 0; i < N; i++)
    sum += exp(z[i]);
  return log(sum);
}

/* ---- by token ------------------------------------------------------------ */

static void ref_switch(Run *r) {
  Table z, p;
  logits(r, z);
  softmax_all(z, p);
  keep_largest(p, p, 1, r->want);
  r->loss = 0.01 * share_loss(p, r->want);
  for (int s = 0; s < S; s++)
    r->loss += 0.5 * log_sum(z[s]) * log_sum(z[s]) / S;
}

/* Second choices are dropped at random in training: those that came out may be
 * 0, and some are. */
static void gshard(Run *r, const bool *there) {
  Table z, p;
  int dropped = 0, groups = r->training ? A : 1, size = S / groups;
  double shares[A][N] = {{0}}, means[A][N] = {{0}}, tokens[A] = {0};
  logits(r, z);
  softmax_all(z, p);
  keep_largest(p, p, 2, r->want);
  make_shares(r->want);
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++) {
      int at = rank_of(p[s], N, 1, i);
      bool gone = r->training && at == 1 && r->got[s][i] == 0;
      if (gone || !there[s]) r->want[s][i] = 0;
      dropped += gone;
      shares[s / size][i] += at == 0 && there[s];
      means[s / size][i] += there[s] ? p[s][i] : 0;
      tokens[s / size] += at == 0 && there[s];
    }
  for (int g = 0; g < groups; g++)
    for (int i = 0; i < N && tokens[g] > 0; i++)
      r->loss += 0.01 * N * shares[g][i] / tokens[g] * means[g][i] /
                 tokens[g] / groups;
  if (r->training && (dropped == 0 || dropped == S)) r->loss = NAN;
}

static void ref_gshard(Run *r) {
  bool all[S];
  memset(all, true, sizeof all);
  gshard(r, all);
}

/* Some tokens are padding. */
static void ref_gshard_padded(Run *r) {
  bool there[S];
  for (int s = 0; s < S; s++)
    there[s] = (int)input(r, "t")[s] % 3 > 0;
  gshard(r, there);
}

/* 2 of 4, and losses over 2 devices of 2 experts. */
static void deepseek_losses(Run *r, Table s) {
  double f[N], p[N] = {0};
  for (int i = 0; i < N; i++) {
    f[i] = (double)N / (2 * S) * rows_of(r->want, i);
    for (int t = 0; t < S; t++)
      p[i] += s[t][i] / S;
    r->loss += 0.001 * f[i] * p[i];
  }
  for (int d = 0; d < N; d += 2)
    r->loss += 0.1 * (f[d] + f[d + 1]) / 2 * (p[d] + p[d + 1]);
}

static void ref_deepseek(Run *r) {
  Table z, p;
  logits(r, z);
  softmax_all(z, p);
  keep_largest(p, p, 2, r->want);
  deepseek_losses(r, p);
}

static void ref_deepseek_sigmoid(Run *r) {
  Table z, p;
  logits(r, z);
  sigmoid_all(z, p);
  keep_largest(p, p, 2, r->want);
  deepseek_losses(r, p);
  make_shares(r->want);
}

static void ref_loss_free(Run *r) {
  Table z, p, by;
  const double *bias = input(r, "gate/bias");
  logits(r, z);
  sigmoid_all(z, p);
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++)
      by[s][i] = p[s][i] + bias[i];
  keep_largest(p, by, 2, r->want);
  for (int i = 0; r->training && i < N; i++) {
    double off = 2.0 * S / N - rows_of(r->want, i);
    double next = bias[i] + 0.25 * ((off > 0) - (off < 0));
    r->loss += fabs(next - output(r, "gate/bias")[i]); /* is to be 0 */
  }
}

static uint32_t mix(uint32_t h) { /* of MurmurHash3 */
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

static void ref_hash(Run *r) {
  const double *t = input(r, "t");
  for (int s = 0; s < S; s++)
    for (uint32_t k = 0; k < 3; k++) {
      uint32_t h = mix(mix((uint32_t)t[s]) + k);
      r->want[s][(uint64_t)h * N >> 32] += 1.0 / 3;
    }
}

static void ref_multi_hash(Run *r) {
  const double *t = input(r, "t");
  for (int s = 0; s < S; s++)
    for (uint32_t k = 0; k < 2; k++) {
      uint64_t h = mix(mix((uint32_t)t[s]) + k);
      r->want[s][k * N / 2 + (h * (N / 2) >> 32)] = 1;
    }
}

/* Words as they were dealt when the model started. */
static void ref_even_hash(Run *r) {
  const double *t = input(r, "t"), *table = input(r, "gate/table");
  for (int s = 0; s < S; s++)
    r->want[s][(int)table[(int)t[s]]] = 1;
}

static void ref_top_p(Run *r) {
  Table z, p;
  logits(r, z);
  softmax_all(z, p);
  for (int s = 0; s < S; s++) {
    double sum = 0;
    for (int k = 0; k < 3; k++) /* at most three */
      for (int i = 0; i < N; i++) {
        if (rank_of(p[s], N, 1, i) != k || sum >= 0.7) continue;
        r->want[s][i] = p[s][i];
        sum += p[s][i];
        break;
      }
    for (int i = 0; i < N; i++)
      r->loss -= 0.5 * p[s][i] * log(p[s][i]) / S;
  }
  r->loss += 0.01 * share_loss(p, r->want);
}

static void ref_cosine(Run *r) {
  Table score, p, frozen;
  const double *v = input(r, "gate/vectors"), tau = input(r, "gate/tau")[0];
  double low[S][3];
  product(input(r, "x"), input(r, "gate/w"), D, 3, &low[0][0]);
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++) {
      double dot = 0, a = 0, b = 0;
      for (int c = 0; c < 3; c++) {
        dot += low[s][c] * v[i * 3 + c];
        a += low[s][c] * low[s][c];
        b += v[i * 3 + c] * v[i * 3 + c];
      }
      score[s][i] = dot / sqrt(a) / sqrt(b) / tau;
      frozen[s][i] = score[s][i] * tau / 0.3;
    }
  softmax_all(score, p);
  softmax_all(frozen, frozen);
  keep_largest(p, p, 2, r->want);
  r->loss = 0.01 * share_loss(frozen, r->want);
}

/* ---- by batch ------------------------------------------------------------ */

static void expert_choice(Run *r, int most) {
  Table z, p;
  int groups = r->training ? A : 1;
  logits(r, z);
  softmax_all(z, p);
  keep_columns(p, groups, (int)(1.5 * S / groups / N), r->want);
  keep_largest(r->want, r->want, most, r->want);
}

static void ref_expert_choice(Run *r) {
  expert_choice(r, N);
}

static void ref_expert_choice_one(Run *r) {
  expert_choice(r, 1);
}

static bool is_there(const Run *r, int token) {
  return !r->there || r->there[token] > 0;
}

/* p where it is among the k / N largest of its expert in its group, of the
 * tokens that are there. */
static void keep_share(const Run *r, Table p, int k, Table out) {
  Table columns;
  for (int g = 0; g < A; g++) {
    int tokens = 0;
    for (int s = g * S / A; s < (g + 1) * S / A; s++)
      tokens += is_there(r, s);
    keep_columns(p, A, k * tokens / N, columns);
    memcpy(out[g * S / A], columns[g * S / A], sizeof(Table) / A);
  }
}

static void ref_balanced(Run *r) {
  Table z, p;
  const double *limit = input(r, "gate/threshold");
  logits(r, z);
  softmax_all(z, p);
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++)
      p[s][i] = is_there(r, s) ? p[s][i] : 0;
  keep_share(r, p, 2, r->want);
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++) {
      double over = p[s][i] - limit[i];
      int mask = (over > 0) - (r->want[s][i] > 0);
      if (!is_there(r, s)) continue;
      if (r->training)
        r->loss += 0.5 * mask * over;
      else
        r->want[s][i] = over > 0 ? p[s][i] : 0;
    }
  make_shares(r->want);
}

static void ref_balanced_there(Run *r) {
  r->there = input(r, "there");
  ref_balanced(r);
}

/* Rows and columns of exp(z) scaled by turns, in place. */
static void sinkhorn(Table z, int first, int size, Table out) {
  double columns[N] = {1, 1, 1, 1};
  for (int turn = 0; turn < 8; turn++) {
    double sums[N] = {0};
    for (int s = first; s < first + size; s++) {
      double across = 0;
      for (int i = 0; i < N; i++)
        across += exp(z[s][i]) * columns[i];
      for (int i = 0; i < N; i++) {
        out[s][i] = exp(z[s][i]) / (size * across);
        sums[i] += out[s][i];
      }
    }
    for (int i = 0; i < N; i++)
      columns[i] = 1 / (N * sums[i]);
  }
  for (int s = first; s < first + size; s++)
    for (int i = 0; i < N; i++)
      out[s][i] *= columns[i];
}

static void any_sinkhorn(Run *r, int k) {
  Table z, p, by;
  logits(r, z);
  if (k == 1)
    sigmoid_all(z, p);
  else
    softmax_all(z, p);
  memcpy(by, p, sizeof by);
  for (int g = 0; g < A && r->training; g++)
    sinkhorn(z, g * S / A, S / A, by);
  keep_largest(p, by, k, r->want);
}

static void ref_sinkhorn(Run *r) {
  any_sinkhorn(r, 1);
}

static void ref_sinkhorn_two(Run *r) {
  any_sinkhorn(r, 2);
}

/* The best sum of scores of tokens [s, end) where each expert may take `left`
 * more. */
static double best_sum(Table z, int s, int end, int left[N]) {
  double best = -INFINITY;
  if (s == end) return 0;
  for (int i = 0; i < N; i++) {
    if (left[i] == 0) continue;
    left[i]--;
    best = fmax(best, z[s][i] + best_sum(z, s + 1, end, left));
    left[i]++;
  }
  return best;
}

/* In training any even choice whose scores add up to nearly the best. */
static void ref_base(Run *r) {
  Table z, p;
  logits(r, z);
  sigmoid_all(z, p);
  keep_largest(p, p, 1, r->want);
  for (int g = 0; g < A && r->training; g++) {
    int left[N] = {S / A / N, S / A / N, S / A / N, S / A / N}, tokens = 0;
    double sum = 0;
    for (int s = g * S / A; s < (g + 1) * S / A; s++)
      for (int i = 0; i < N; i++) {
        bool chosen = r->got[s][i] > 0;
        r->want[s][i] = chosen ? p[s][i] : 0;
        sum += chosen ? z[s][i] : 0;
        left[i] -= chosen;
        tokens += chosen;
      }
    for (int i = 0; i < N; i++)
      if (left[i]) r->loss = NAN;
    int all[N] = {S / A / N, S / A / N, S / A / N, S / A / N};
    double best = best_sum(z, g * S / A, (g + 1) * S / A, all);
    if (tokens != S / A || !(sum >= best - 0.01 * fabs(best))) r->loss = NAN;
  }
}

/* ---- two levels ---------------------------------------------------------- */

static double cv_squared(const double *v) {
  double mean = 0, square = 0;
  for (int i = 0; i < N; i++)
    mean += v[i] / N;
  for (int i = 0; i < N; i++)
    square += (v[i] - mean) * (v[i] - mean) / N;
  return square / (mean * mean);
}

/* Where noise is nothing, loads are numbers of rows. */
static void ref_noisy_there(Run *r) {
  const double *x = input(r, "x"), *w = input(r, "gate/w");
  double importance[N] = {0}, load[N] = {0};
  r->there = input(r, "there");
  for (int s = 0; s < S; s++) {
    double z[N] = {0}, p[N];
    for (int i = 0; i < N; i++)
      for (int d = 0; d < D; d++)
        z[i] += x[s * D + d] * w[d * 2 * N + i];
    for (int i = 0; i < N; i++)
      p[i] = rank_of(z, N, 1, i) < 2 ? z[i] : -INFINITY;
    softmax(p, N, p);
    for (int i = 0; i < N && is_there(r, s); i++) {
      r->want[s][i] = p[i];
      importance[i] += p[i];
      load[i] += p[i] > 0;
    }
  }
  r->loss = 0.1 * cv_squared(importance) + 0.2 * cv_squared(load);
}

/* Where noise is nothing, loads are numbers of rows: 1 of 2 groups of 2 and the
 * better of its experts, or all. Eq. 12 to 14 by token. */
static void two_levels(Run *r, int k) {
  const double *x = input(r, "x"), *first = input(r, "gate/primary/w");
  const double *second = input(r, "gate/secondary/w");
  double importance[N] = {0}, load[N] = {0};
  for (int s = 0; s < S; s++) {
    double z[A] = {0}, own[A][N / A] = {{0}}, p[A], q[N / A];
    for (int d = 0; d < D; d++)
      for (int a = 0; a < A; a++) {
        z[a] += x[s * D + d] * first[d * 2 * A + a];
        for (int b = 0; b < N / A; b++)
          own[a][b] += x[s * D + d] * second[(a * D + d) * 2 * (N / A) + b];
      }
    softmax(z, A, p);
    for (int a = 0; a < A && is_there(r, s); a++) {
      if (k == 1) p[a] = z[a] > z[!a];
      softmax(own[a], N / A, q);
      for (int b = 0; b < N / A; b++) {
        if (k == 1) q[b] = own[a][b] > own[a][!b];
        r->want[s][a * 2 + b] = p[a] * q[b];
        importance[a * 2 + b] += p[a] * q[b];
        load[a * 2 + b] += p[a] * q[b] > 0;
      }
    }
  }
  r->loss = 0.1 * cv_squared(importance) + 0.2 * cv_squared(load);
}

static void ref_two_levels(Run *r) {
  two_levels(r, 1);
}

static void ref_two_levels_all(Run *r) {
  two_levels(r, 2);
}

static void ref_two_levels_there(Run *r) {
  r->there = input(r, "there");
  two_levels(r, 1);
}

/* The best of one expert's column is 1 of a group's tokens that are its own. */
static void keep_in_group(double q[S][A][N / A], bool own[S][A], int m,
                          double out[S][A][N / A]) {
  for (int a = 0; a < A; a++)
    for (int b = 0; b < N / A; b++)
      for (int s = 0; s < S; s++) {
        int before = 0;
        for (int o = 0; o < S; o++)
          before += own[o][a] && (q[o][a][b] > q[s][a][b] ||
                                  (q[o][a][b] == q[s][a][b] && o < s));
        out[s][a][b] = own[s][a] && before < m ? q[s][a][b] : 0;
      }
}

/* The softmax of each token's logits of its groups' own gates. */
static void own_gates(const Run *r, double q[S][A][N / A]) {
  const double *x = input(r, "x"), *w = input(r, "gate/secondary/w");
  for (int s = 0; s < S; s++)
    for (int a = 0; a < A; a++) {
      double z[N / A] = {0};
      for (int d = 0; d < D; d++)
        for (int b = 0; b < N / A; b++)
          z[b] += x[s * D + d] * w[(a * D + d) * (N / A) + b];
      softmax(z, N / A, q[s][a]);
    }
}

/* 1 of 2 groups in the mean, and 1 of the 2 experts of each. */
static void ref_balanced_levels(Run *r) {
  double z[S][A], p[S][A], q[S][A][N / A], kept[S][A][N / A];
  const double *limit = input(r, "gate/threshold");
  const double *own_limit = input(r, "gate/own_threshold");
  bool own[S][A];
  product(input(r, "x"), input(r, "gate/primary/w"), D, A, &z[0][0]);
  for (int s = 0; s < S; s++)
    softmax(z[s], A, p[s]);
  own_gates(r, q);
  for (int s = 0; s < S; s++)
    for (int a = 0; a < A; a++) {
      double over = p[s][a] - limit[a];
      own[s][a] = r->training ? rank_of(&p[0][a], S, A, s) < S / A : over > 0;
      if (r->training) r->loss += 0.5 * ((over > 0) - own[s][a]) * over;
    }
  keep_in_group(q, own, r->training ? S / A / (N / A) : S, kept);
  for (int s = 0; s < S; s++) {
    double first = 0;
    for (int a = 0; a < A; a++)
      first += own[s][a] ? p[s][a] : 0;
    for (int a = 0; a < A; a++) {
      double second = 0;
      for (int b = 0; b < N / A; b++) {
        double over = q[s][a][b] - own_limit[a * (N / A) + b];
        if (r->training && own[s][a])
          r->loss += 0.5 * ((over > 0) - (kept[s][a][b] > 0)) * over;
        if (!r->training && over <= 0) kept[s][a][b] = 0;
        second += kept[s][a][b];
      }
      for (int b = 0; b < N / A && second > 0; b++)
        r->want[s][a * (N / A) + b] =
            p[s][a] / first * kept[s][a][b] / second;
    }
  }
}

/* ---- runs ---------------------------------------------------------------- */

static const Case cases[] = {
    {"switch_gate(w_z = 0.5)", ref_switch},
    {"gshard_gate(groups = 2)", ref_gshard},
    {"gshard_gate(groups = 2, there = f32(expand(t) % 3 > 0))",
     ref_gshard_padded},
    {"deepseek_gate(2, w_device = 0.1, devices = 2)", ref_deepseek},
    {"deepseek_gate(2, score = sigmoid, normalise = true, w_device = 0.1, "
     "devices = 2)",
     ref_deepseek_sigmoid},
    {"loss_free_gate(2, rate = 0.25)", ref_loss_free},
    {"hash_gate(t, k = 3)", ref_hash},
    {"multi_hash_gate(t, k = 2)", ref_multi_hash},
    {"even_hash_gate(t, 1000)", ref_even_hash},
    {"top_p_gate(0.7, most = 3, w_entropy = 0.5)", ref_top_p},
    {"cosine_gate(2, width = 3)", ref_cosine},
    {"expert_choice_gate(most = 4, c = 1.5, groups = 2)", ref_expert_choice},
    {"expert_choice_gate(most = 1, c = 1.5, groups = 2)",
     ref_expert_choice_one},
    {"balanced_gate(2, most = 4, w_threshold = 0.5, groups = 2)", ref_balanced},
    {"sinkhorn_gate(1, groups = 2)", ref_sinkhorn},
    {"sinkhorn_gate(2, groups = 2)", ref_sinkhorn_two},
    {"base_gate(groups = 2)", ref_base},
    {"hierarchical(groups = 2, k = 1, w_load = 0.2)", ref_two_levels},
    {"hierarchical(groups = 2, k = 2, w_load = 0.2)", ref_two_levels_all},
    {"balanced_levels(groups = 2, k = 1, most = 4, w_threshold = 0.5)",
     ref_balanced_levels},
    {"noisy_top_k(2, w_load = 0.2, there = expand(there))", ref_noisy_there},
    {"balanced_gate(2, most = 4, w_threshold = 0.5, groups = 2, "
     "there = expand(there))",
     ref_balanced_there},
    {"hierarchical(groups = 2, k = 1, w_load = 0.2, there = expand(there))",
     ref_two_levels_there},
};

static const char text[] =
    "import \"lib/balanced.dsl\"\n"
    "import \"lib/hierarchical.dsl\"\n"
    "import \"lib/optim.dsl\"\n"
    "entry train(x: f32[2, 8, 5] from text, t: i32[2, 8] from text,\n"
    "            there: f32[2, 8] from text(mask)) {\n"
    "  param scale: f32[] = 1.0\n"
    "  let g, i, aux = %s(x, 4) as \"gate\"\n"
    "  minimize scale * sum(g) + aux with { \"*\": sgd(0.1) }\n"
    "  probe gates = g, ids = i, aux = aux + 0.0\n"
    "}\n"
    "entry eval(x: f32[2, 8, 5] from text, t: i32[2, 8] from text,\n"
    "           there: f32[2, 8] from text(mask)) {\n"
    "  let g, i, aux = %s(x, 4) as \"gate\"\n"
    "  probe gates = g, ids = i, aux = aux + 0.0\n"
    "}\n";

static Random drawn;

static double draw(void) { /* about normal */
  double sum = 0;
  for (int i = 0; i < 6; i++)
    sum += random_unit(&drawn) - 0.5;
  return sum * sqrt(2);
}

/* Value k of an input: x begins with 1, so that the weights of noise, of two
 * levels the last 2 of 4, of one the last 4 of 8, can make it as good as
 * nothing. Four of five tokens are there. */
static double value_of(const Run *r, const char *name, const Type *t,
                       int64_t k) {
  double x = draw();
  if (name && strcmp(name, "gate/table") == 0) return (double)(k * 7 % N);
  if (dtype_info[t->dtype].kind != DK_FLOAT) return floor(fabs(x) * 100);
  if (strcmp(name, "x") == 0 && k % D == 0) return 1;
  if (r->noisy && strstr(name, "ary/w") && k % 4 >= 2)
    return k / 4 % D ? 0 : -40;
  if (t->rank == 3 && strcmp(name, "gate/w") == 0 && k % 8 >= 4)
    return k / 8 % D ? 0 : -40;
  if (strcmp(name, "there") == 0) return fabs(x) > 0.25;
  if (strcmp(name, "gate/threshold") == 0) return 0.25 + 0.1 * x;
  if (strcmp(name, "gate/own_threshold") == 0) return 0.5 + 0.1 * x;
  return strcmp(name, "gate/tau") == 0 ? 0.5 : x;
}

static void fill(Run *r, Arena *a) {
  r->ins = NEW_ARRAY(a, Tensor *, r->e->ins.len);
  r->outs = NEW_ARRAY(a, Tensor *, r->e->outs.len);
  for (uint32_t i = 0; i < r->e->ins.len; i++) {
    Tensor *t = r->ins[i] = tensor_new(a, r->e->region->params.data[i]->type);
    for (int64_t k = 0; k < type_elements(&t->type); k++)
      t->data[k] = value_of(r, r->e->ins.data[i].name, &t->type, k);
  }
}

/* The gates as a table; choices of one expert add up. */
static void tabulate(Run *r) {
  const double *g = output(r, "gates"), *ids = output(r, "ids");
  int64_t k = 0;
  for (uint32_t i = 0; i < r->e->outs.len; i++)
    if (strcmp(r->e->outs.data[i].name, "gates") == 0)
      k = type_elements(&r->outs[i]->type) / S;
  for (int64_t i = 0; i < k * S; i++)
    r->got[i / k][(int)ids[i]] += g[i];
}

static double worst_of(Run *r) {
  double worst = worse(0, fabs(r->loss - output(r, "aux")[0]));
  for (int s = 0; s < S; s++)
    for (int i = 0; i < N; i++)
      worst = worse(worst, fabs(r->got[s][i] - r->want[s][i]));
  return worst;
}

static void run(Ctx *cx, Module *m, const Case *c, bool training) {
  Arena a = {0};
  Eval ev = {.cx = cx, .mode = EVAL_F64};
  char name[120];
  double worst = 0;
  bool compared = true;
  snprintf(name, sizeof name, "%s%s", c->gate, training ? ", training" : "");
  for (uint64_t seed = 1; seed < 6 && worst < 1e-9; seed++) {
    Run r = {.e = ir_entry(m, training ? "train" : "eval"),
             .training = training,
             .noisy = strncmp(c->gate, "hierarchical", 12) == 0};
    drawn = (Random){seed};
    fill(&r, &a);
    compared = ir_eval(&ev, r.e, r.ins, r.outs, &a) == 0;
    if (!compared) break;
    tabulate(&r);
    c->reference(&r);
    worst = worse(worst, worst_of(&r));
    arena_reset(&a);
  }
  CHECK(name, compared && worst < 1e-9, "off by %.3g", worst);
}

static void check(const Case *c) {
  Ctx cx = {0};
  Sym source = sym_fmt(&cx, text, c->gate, c->gate);
  Module *m = compile_text(&cx, "routers.dsl", source);
  if (m && pass_autodiff(m, &(PassOptions){.precision = DT_f64})) {
    run(&cx, m, c, true);
    run(&cx, m, c, false);
  } else {
    CHECK(c->gate, false, "it does not compile");
    diag_print(&cx, stdout);
  }
  ctx_free(&cx);
}

int main(void) {
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    check(&cases[i]);
  return failures != 0;
}
