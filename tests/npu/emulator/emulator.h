/* What the parts of the emulated CANN share. Status codes: 0 is success, as in acl_base.h. */
#ifndef EMULATOR_H
#define EMULATOR_H
#include <stddef.h>
#include <stdint.h>

enum {
  OUT_OF_MEMORY = 207001,
  WAIT_IN_CAPTURE = 107030, /* a number of ours: which one CANN gives is not known */
  NOT_EMULATED = 561003,
  OLD_OPERATOR = 500003,
};

typedef int (*Action)(void *what);

/* Write a line to the log, if one is kept. */
void emulator_note(const char *format, ...);
/* Keep the text of aclGetRecentErrMsg. */
void emulator_error(const char *text);
/* Fail: note and error text "NAME is not emulated". */
int emulator_refuse(const char *name);

/* Run `run(what)` in the order of the stream, then `release(what)`. A graph that is being captured keeps both. */
int emulator_put(void *stream, Action run, Action release, void *what);
/* Call `release(what)` once everything put before is done. */
int emulator_after(Action release, void *what);
/* Do what was put. */
int emulator_drain(void);
#endif
