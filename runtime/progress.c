/* progress.c: exchanges that go on behind computation.
 *
 * What a communicator has started stands in a queue and is worked off strictly
 * in order, one exchange to its end before the next begins: the order of starts
 * is the same in all ranks, so messages need no names, and sums may share one
 * staging area. Who waits works the queue off itself. Where a program computes
 * between start and wait, a helper thread does so meanwhile: it sleeps while
 * there is nothing to move, and while somebody waits. It never looks for what
 * is wrong: that is for whoever waits, and as long as nobody does, no one is
 * late. Where all cores compute it takes their time, which was measured to cost
 * more than it saves; so there is one only where a core is left, or where ranks
 * are on other machines. Else a start does what can be done at once: others can
 * read from there.
 *
 * `list` guards the queue and the helper's orders, `engine` is held by the one
 * thread that moves bytes. Results do not depend on who that is. */
#include "rt.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct RtQueue {
  pthread_mutex_t list, engine;
  pthread_cond_t changed;
  RtPending *first, *last;
  pthread_t helper;
  bool helped, waiting, closing;
};

MoertStatus rt_queue_new(MoertComm *c) {
  RtQueue *q;
  RT_TRY(RT_NEW(&q, 1));
  pthread_mutex_init(&q->list, NULL);
  pthread_mutex_init(&q->engine, NULL);
  pthread_cond_init(&q->changed, NULL);
  c->queue = q;
  return MOERT_OK;
}

/* ---- the queue ----------------------------------------------------------- */

static RtPending *first_of(RtQueue *q) {
  pthread_mutex_lock(&q->list);
  RtPending *p = q->first;
  pthread_mutex_unlock(&q->list);
  return p;
}

static void take_out(RtQueue *q, RtPending *p) {
  pthread_mutex_lock(&q->list);
  RtPending **at = &q->first, *before = NULL;
  while (*at && *at != p) {
    before = *at;
    at = &before->next;
  }
  if (*at) {
    *at = p->next;
    if (q->last == p) q->last = before;
  }
  pthread_mutex_unlock(&q->list);
}

/* The failure is for whoever waits, in another thread perhaps. */
static void end(MoertComm *c, RtPending *p, MoertStatus st) {
  p->status = st;
  if (st != MOERT_OK) p->why = strdup(moert_error());
  if (!p->uncounted) c->busy += rt_seconds() - p->since;
  take_out(c->queue, p);
  atomic_store_explicit(&p->over, true, memory_order_release);
}

/* Does what can be done now for the exchange at the front. Holds the engine. */
static RtMoved drive(MoertComm *c) {
  RtPending *p = first_of(c->queue);
  RtMoved moved = RT_NOTHING;
  if (!p) return RT_NOTHING;
  if (p->since == 0) p->since = rt_seconds();
  MoertStatus st = rt_pending_advance(p, &moved);
  if (st != MOERT_OK || moved == RT_DONE) {
    end(c, p, st);
    moved = RT_MOVED;
  }
  return moved;
}

void rt_queue_start(MoertComm *c, RtPending *p) {
  RtQueue *q = c->queue;
  p->next = NULL;
  p->since = 0;
  pthread_mutex_lock(&q->list);
  if (q->first)
    q->last->next = p;
  else
    q->first = p;
  q->last = p;
  pthread_mutex_unlock(&q->list);
}

static void set_waiting(RtQueue *q, bool waiting) {
  pthread_mutex_lock(&q->list);
  q->waiting = waiting;
  if (!waiting && q->first && q->helped) pthread_cond_signal(&q->changed);
  pthread_mutex_unlock(&q->list);
}

static MoertStatus work_off(MoertComm *c, RtPending *p) {
  while (!atomic_load(&p->over))
    if (drive(c) == RT_NOTHING)
      RT_TRY(c->transport->rest(c, &first_of(c->queue)->x));
  return MOERT_OK;
}

MoertStatus rt_queue_wait(MoertComm *c, RtPending *p) {
  if (atomic_load_explicit(&p->over, memory_order_acquire)) return MOERT_OK;
  double since = rt_seconds();
  set_waiting(c->queue, true);
  pthread_mutex_lock(&c->queue->engine);
  MoertStatus st = work_off(c, p);
  pthread_mutex_unlock(&c->queue->engine);
  set_waiting(c->queue, false);
  if (!p->uncounted) c->waited += rt_seconds() - since;
  return st;
}

MoertStatus rt_exchange(MoertComm *c, RtExchange *x) {
  RtMoved moved = RT_NOTHING;
  pthread_mutex_lock(&c->queue->engine);
  MoertStatus st = c->transport->start(c, x);
  while (st == MOERT_OK && moved != RT_DONE) {
    st = c->transport->move(c, x, &moved);
    if (st == MOERT_OK && moved == RT_NOTHING) st = c->transport->rest(c, x);
  }
  pthread_mutex_unlock(&c->queue->engine);
  return st;
}

void rt_queue_drop(MoertComm *c, RtPending *p) {
  pthread_mutex_lock(&c->queue->engine);
  take_out(c->queue, p);
  pthread_mutex_unlock(&c->queue->engine);
}

/* ---- the helper ---------------------------------------------------------- */

static void help(MoertComm *c) {
  pthread_mutex_lock(&c->queue->engine);
  RtMoved moved = drive(c);
  unsigned news = c->news;
  pthread_mutex_unlock(&c->queue->engine);
  if (moved == RT_NOTHING) c->transport->nap(c, news);
}

static void *be_helper(void *arg) {
  MoertComm *c = arg;
  RtQueue *q = c->queue;
  pthread_mutex_lock(&q->list);
  while (!q->closing) {
    if (q->waiting || !q->first) {
      pthread_cond_wait(&q->changed, &q->list);
      continue;
    }
    pthread_mutex_unlock(&q->list);
    help(c);
    pthread_mutex_lock(&q->list);
  }
  pthread_mutex_unlock(&q->list);
  return NULL;
}

/* Signals are for the program's own threads. */
static MoertStatus new_helper(MoertComm *c) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&c->queue->helper, NULL, be_helper, c);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  c->queue->helped = !failed;
  return failed ? rt_fail_errno(failed, "a thread for exchanges",
                                "pthread_create", __FILE__, __LINE__)
                : MOERT_OK;
}

MoertStatus rt_comm_behind(MoertComm *c) {
  if (!c->queue || !c->may_help || !first_of(c->queue)) return MOERT_OK;
  if (!c->queue->helped) RT_TRY(new_helper(c));
  pthread_mutex_lock(&c->queue->list);
  pthread_cond_signal(&c->queue->changed);
  pthread_mutex_unlock(&c->queue->list);
  return MOERT_OK;
}

void rt_comm_poke(MoertComm *c) {
  if (!c->queue) return;
  double since = rt_seconds();
  pthread_mutex_lock(&c->queue->engine);
  drive(c);
  pthread_mutex_unlock(&c->queue->engine);
  c->waited += rt_seconds() - since;
}

void rt_queue_free(MoertComm *c) {
  RtQueue *q = c->queue;
  if (!q) return;
  pthread_mutex_lock(&q->list);
  q->closing = true;
  pthread_cond_signal(&q->changed);
  pthread_mutex_unlock(&q->list);
  if (q->helped) pthread_join(q->helper, NULL);
  pthread_mutex_destroy(&q->list);
  pthread_mutex_destroy(&q->engine);
  pthread_cond_destroy(&q->changed);
  free(q);
  c->queue = NULL;
}
