/* ckpt_dir.c: directories of checkpoints.
 *
 *   DIR/step-00001234/   a checkpoint
 *       latest           the name of the newest one
 *
 * A checkpoint is written under another name, synced and renamed, so one that
 * has its name is whole. What a process that is gone has left half written is
 * removed when the next one saves. */
#include "rt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE ".saving-" /* ASIDE<pid>-<name> is not a checkpoint yet */

MoertStatus rt_join(const char *dir, const char *name, RtPath *out) {
  int n = snprintf(out->text, sizeof out->text, "%s/%s", dir, name);
  if (n > 0 && (size_t)n < sizeof out->text) return MOERT_OK;
  return rt_fail(MOERT_INVALID, "%s: the path is too long", dir);
}

/* ---- directories --------------------------------------------------------- */

MoertStatus rt_sync_dir(const char *path) {
  int fd = -1;
  RT_TRY(RT_SYS(fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), path));
  MoertStatus st = RT_SYS(fsync(fd), path);
  close(fd);
  return st;
}

MoertStatus rt_make_dirs(const char *path) {
  RtPath p;
  RT_TRY(rt_join(path, "", &p));
  for (char *q = p.text + 1; *q; q++) {
    if (*q != '/') continue;
    *q = 0;
    RT_TRY(RT_SYS(mkdir(p.text, 0777) < 0 && errno != EEXIST ? -1 : 0, p.text));
    *q = '/';
  }
  return MOERT_OK;
}

void rt_remove_dir(const char *path) {
  DIR *d = opendir(path);
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
  closedir(d);
  rmdir(path);
}

/* Removes what processes that are gone have left half written. */
static void remove_leftovers(const char *dir) {
  DIR *d = opendir(dir);
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));) {
    if (strncmp(e->d_name, ASIDE, strlen(ASIDE)) != 0) continue;
    pid_t pid = (pid_t)atol(e->d_name + strlen(ASIDE));
    RtPath p;
    if (pid > 0 && kill(pid, 0) < 0 && errno == ESRCH &&
        rt_join(dir, e->d_name, &p) == MOERT_OK) {
      rt_remove_dir(p.text);
      unlink(p.text);
    }
  }
  closedir(d);
}

/* Gives a directory its name; what had it before is removed. */
static MoertStatus put_in_place(const char *aside, const char *name) {
  if (rename(aside, name) == 0) return MOERT_OK;
  if (errno != ENOTEMPTY && errno != EEXIST)
    return rt_fail_errno(errno, name, "rename(aside, name)", __FILE__,
                         __LINE__);
  RT_TRY(RT_SYS(renameat2(AT_FDCWD, aside, AT_FDCWD, name, RENAME_EXCHANGE),
                name));
  rt_remove_dir(aside);
  return MOERT_OK;
}

/* ---- a new checkpoint ---------------------------------------------------- */

MoertStatus rt_set_aside(const char *dir, const char *name, RtPath *out) {
  char aside[80];
  snprintf(aside, sizeof aside, ASIDE "%ld-%s", (long)getpid(), name);
  RT_TRY(rt_make_dirs(dir));
  remove_leftovers(dir);
  RT_TRY(rt_join(dir, aside, out));
  rt_remove_dir(out->text);
  return RT_SYS(mkdir(out->text, 0777), out->text);
}

static MoertStatus point_latest(const char *dir, const char *name) {
  RtPath aside, latest;
  char file[64];
  snprintf(file, sizeof file, ASIDE "%ld-latest", (long)getpid());
  RT_TRY(rt_join(dir, file, &aside));
  RT_TRY(rt_join(dir, "latest", &latest));
  MoertStatus st = rt_write_file(aside.text, name, strlen(name));
  if (st == MOERT_OK) st = RT_SYS(rename(aside.text, latest.text), latest.text);
  if (st != MOERT_OK) unlink(aside.text);
  return st == MOERT_OK ? rt_sync_dir(dir) : st;
}

MoertStatus rt_put_in_place(const char *aside, const char *dir,
                            const char *name) {
  RtPath final;
  RT_TRY(rt_join(dir, name, &final));
  RT_TRY(put_in_place(aside, final.text));
  RT_TRY(rt_sync_dir(dir));
  return point_latest(dir, name);
}

/* ---- finding the newest, removing old ones ------------------------------- */

static int is_checkpoint(const struct dirent *e) {
  return strncmp(e->d_name, "step-", 5) == 0;
}

static int by_step(const struct dirent **a, const struct dirent **b) {
  long long x = atoll((*a)->d_name + 5), y = atoll((*b)->d_name + 5);
  return (x > y) - (x < y);
}

/* The checkpoint of the latest step, where nothing points at it. */
static MoertStatus find_latest(const char *dir, char *out, size_t out_bytes) {
  struct dirent **list;
  int n;
  RT_TRY(RT_SYS(n = scandir(dir, &list, is_checkpoint, by_step), dir));
  if (n) snprintf(out, out_bytes, "%s", list[n - 1]->d_name);
  for (int i = 0; i < n; i++)
    free(list[i]);
  free(list);
  return n ? MOERT_OK
           : rt_fail(MOERT_NOT_FOUND, "%s: no checkpoint there", dir);
}

/* Fills the name that DIR/latest holds. */
static MoertStatus read_latest(const char *dir, char *out, size_t out_bytes) {
  RtPath p;
  const char *data;
  size_t bytes;
  RT_TRY(rt_join(dir, "latest", &p));
  MoertStatus st = rt_map_file(p.text, &data, &bytes);
  if (st == MOERT_NOT_FOUND) return find_latest(dir, out, out_bytes);
  RT_TRY(st);
  size_t len = 0;
  while (len < bytes && len + 1 < out_bytes && data[len] > ' ')
    len++;
  if (len) memcpy(out, data, len);
  out[len] = 0;
  rt_unmap(data, bytes);
  if (strncmp(out, "step-", 5) == 0 && !strchr(out, '/')) return MOERT_OK;
  return rt_fail(MOERT_BAD_DATA, "%s: does not name a checkpoint", p.text);
}

MoertStatus rt_find_checkpoint(const char *dir, RtPath *out) {
  RtPath meta;
  struct stat info;
  char name[256];
  RT_TRY(RT_SYS(stat(dir, &info), dir));
  RT_TRY(rt_join(dir, "meta.json", &meta));
  if (stat(meta.text, &info) == 0) {
    snprintf(out->text, sizeof out->text, "%s", dir);
    return MOERT_OK;
  }
  RT_TRY(read_latest(dir, name, sizeof name));
  return rt_join(dir, name, out);
}

MoertStatus moert_prune(const char *dir, int keep) {
  char latest[256];
  RT_TRY(read_latest(dir, latest, sizeof latest));
  struct dirent **list;
  int n;
  RT_TRY(RT_SYS(n = scandir(dir, &list, is_checkpoint, by_step), dir));
  for (int i = 0; i < n; i++) {
    RtPath p, aside;
    char name[320];
    snprintf(name, sizeof name, ASIDE "%ld-%s", (long)getpid(),
             list[i]->d_name);
    /* Renamed first: one that is half removed must not look whole. */
    if (i < n - keep && strcmp(list[i]->d_name, latest) != 0 &&
        rt_join(dir, list[i]->d_name, &p) == MOERT_OK &&
        rt_join(dir, name, &aside) == MOERT_OK &&
        rename(p.text, aside.text) == 0)
      rt_remove_dir(aside.text);
    free(list[i]);
  }
  free(list);
  return MOERT_OK;
}
