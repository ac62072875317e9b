/* status.c: failures as a status code and a text.
 *
 * The text is this thread's last failure. Functions of other libraries are
 * converted where they are called, so that the text names the call and its
 * place; see RT_SYS and RT_DNNL in rt.h. */
#include "rt.h"

#include <errno.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdarg.h>
#include <string.h>

enum { TEXT_BYTES = 2048 };
static _Thread_local char error_text[TEXT_BYTES];

const char *moert_error(void) {
  return error_text;
}

const char *moert_status_name(MoertStatus s) {
  static const char *const names[] = {
      [MOERT_OK] = "ok",
      [MOERT_INVALID] = "invalid",
      [MOERT_NOT_FOUND] = "not found",
      [MOERT_BAD_DATA] = "bad data",
      [MOERT_UNSUPPORTED] = "unsupported",
      [MOERT_NO_MEMORY] = "no memory",
      [MOERT_IO] = "input or output failed",
      [MOERT_NOT_FINITE] = "not finite",
      [MOERT_RANK_LOST] = "a rank is lost",
      [MOERT_INTERNAL] = "internal",
  };
  return (size_t)s < COUNT_OF(names) ? names[s] : "unknown status";
}

MoertStatus rt_fail(MoertStatus st, const char *fmt, ...) {
  /* An argument may be the text itself. */
  char text[TEXT_BYTES];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  memcpy(error_text, text, sizeof text);
  return st;
}

MoertStatus rt_fail_prefix(MoertStatus st, const char *fmt, ...) {
  char text[TEXT_BYTES];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return rt_fail(st, "%s%s", text, error_text);
}

static const char *file_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

MoertStatus rt_fail_errno(int err, const char *subject, const char *call,
                          const char *file, int line) {
  MoertStatus st = err == ENOENT   ? MOERT_NOT_FOUND
                   : err == ENOMEM ? MOERT_NO_MEMORY
                                   : MOERT_IO;
  return rt_fail(st, "%s: %s (%s, runtime/%s:%d)", subject, strerror(err), call,
                 file_name(file), line);
}

MoertStatus rt_fail_dnnl(int status, const char *call, const char *file,
                         int line) {
  MoertStatus st = status == dnnl_out_of_memory   ? MOERT_NO_MEMORY
                   : status == dnnl_unimplemented ? MOERT_UNSUPPORTED
                                                  : MOERT_INTERNAL;
  return rt_fail(st, "oneDNN: %s (%s, runtime/%s:%d)",
                 dnnl_status2str((dnnl_status_t)status), call, file_name(file),
                 line);
}
