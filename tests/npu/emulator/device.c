/* Devices, memory and the log. Device memory is host memory, filled with NaN so that a forgotten output shows. */
#include "emulator.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -- the log: a text in memory while a program asks for one, and a file if EMULATOR_LOG names one ----------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *text;
static size_t used, room;
static int keeping;

void emulator_note(const char *format, ...) {
  const char *name = getenv("EMULATOR_LOG");
  if (!keeping && !name) return;
  char line[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  pthread_mutex_lock(&lock);
  if (keeping) {
    size_t size = strlen(line) + 1;
    if (used + size + 1 > room) text = realloc(text, room = 2 * (room + size) + 4096);
    used += sprintf(text + used, "%s\n", line);
  }
  if (name) {
    FILE *file = fopen(name, "a");
    if (file) fprintf(file, "%s\n", line), fclose(file);
  }
  pthread_mutex_unlock(&lock);
}

/* Begin a new log in memory (yes), or end it; return what was written. */
const char *emulator_log(int yes) {
  static char *last;
  pthread_mutex_lock(&lock);
  free(last);
  last = text ? text : calloc(1, 1);
  text = NULL, used = room = 0, keeping = yes;
  pthread_mutex_unlock(&lock);
  return last;
}

static __thread char last_error[8192];
void emulator_error(const char *message) { snprintf(last_error, sizeof last_error, "%s", message); }
const char *aclGetRecentErrMsg(void) { return last_error; }

int emulator_refuse(const char *name) {
  char message[200];
  snprintf(message, sizeof message, "%s is not emulated", name);
  emulator_note("REFUSED %s", name);
  emulator_error(message);
  return NOT_EMULATED;
}

/* -- devices: EMULATOR_NPUS of the chip EMULATOR_SOC ---------------------------------------------------------- */

#define DEVICES 16
static __thread int32_t current;
static int active[DEVICES]; /* by this process */
static char context[64];

static int number(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

int aclInit(const char *config) { return 0; }
int aclFinalize(void) { return 0; }
int aclrtGetDeviceCount(uint32_t *count) { *count = number("EMULATOR_NPUS", 1); return 0; }
int aclrtGetDevice(int32_t *device) { *device = current; return 0; }
int aclrtSetDevice(int32_t device) { current = device, active[device % DEVICES] = 1; emulator_note("DEVICE %d process %d", device, (int)getpid()); return 0; }
int aclrtResetDevice(int32_t device) { return 0; }
int aclrtGetCurrentContext(void **into) { *into = context; return 0; }
int aclrtSetCurrentContext(void *to) { return 0; }
int aclrtGetPrimaryCtxState(int32_t device, uint32_t *flags, int32_t *is_active) {
  if (flags) *flags = 0;
  *is_active = active[device % DEVICES];
  return 0;
}
const char *aclrtGetSocName(void) { return getenv("EMULATOR_SOC") ? getenv("EMULATOR_SOC") : "Ascend910B2"; }
int aclrtDeviceCanAccessPeer(int32_t *can, int32_t device, int32_t peer) { *can = 1; return 0; }
int aclrtDeviceGetBareTgid(int32_t *process) { *process = 1; return 0; }
int aclGetDeviceCapability(uint32_t device, int what, int64_t *value) { *value = 1; return 0; }
int aclGetCannAttribute(int attribute, int32_t *value) { *value = 1; return 0; }
int aclrtGetDeviceInfo(uint32_t device, int attribute, int64_t *value) { *value = 24; return 0; } /* cores */
uint32_t aclrtGetDeviceUtilizationRate(int32_t device, void *into) { return 0; }
int aclrtGetSysParamOpt(int option, int64_t *value) { *value = 0; return 0; }
int aclrtGetStreamOverflowSwitch(void *stream, uint32_t *flag) { *flag = 0; return 0; }
int aclrtPointerGetAttributes(const void *pointer, void *into) { memset(into, 0, 16); return 0; }
int aclsysGetVersionStr(char *name, char *version) { strcpy(version, "9.1.0"); return 0; }
int aclsysGetCANNVersion(int name, char *version) { strcpy(version, "9.1.0"); return 0; }

/* -- memory ----------------------------------------------------------------------------------------------------- */

int aclrtMalloc(void **into, size_t size, int policy) {
  if (posix_memalign(into, 512, size ? size : 512)) return OUT_OF_MEMORY;
  memset(*into, 0xFF, size);
  return 0;
}
int aclrtMallocAlign32(void **into, size_t size, int policy) { return aclrtMalloc(into, size, policy); }
int aclrtMallocHost(void **into, size_t size) { return aclrtMalloc(into, size, 0); }
int aclrtMallocHostWithCfg(void **into, uint64_t size, void *config) { return aclrtMalloc(into, size, 0); }
int aclrtFree(void *memory) { emulator_drain(); free(memory); return 0; }
int aclrtFreeHost(void *memory) { return aclrtFree(memory); }
int aclrtGetMemInfo(int kind, size_t *free, size_t *total) {
  *free = (size_t)60 << 30, *total = (size_t)64 << 30;
  return 0;
}

/* -- the old operators (aclop): torch_npu falls back to them without a word if it finds no aclnn function ------- */

static void *handle(void) { return calloc(1, 64); }
void *aclCreateTensorDesc(int type, int dims, const int64_t *sizes, int format) { return handle(); }
void *aclCreateDataBuffer(void *data, size_t size) { return handle(); }
void *aclopCreateAttr(void) { return handle(); }
int aclDestroyDataBuffer(void *what) { free(what); return 0; }
int aclDestroyTensorDesc(void *what) { free(what); return 0; }
int aclrtGetOpCompileopt(void) { return 0; }
int aclSetCompileopt(int option, const char *value) { return 0; }
int aclGetCompileopt(int option, char *value, size_t room) { if (value && room) *value = 0; return 0; }
size_t aclGetCompileoptSize(int option) { return 8; }

int aclopCompileAndExecute(const char *name) {
  char message[200];
  snprintf(message, sizeof message, "the operator %s (aclop)", name);
  emulator_refuse(message);
  return OLD_OPERATOR;
}
int aclopCompileAndExecuteV2(const char *name) { return aclopCompileAndExecute(name); }
