/* HCCL between the processes of one machine, through shared memory. Sums are taken in the order of the ranks, so all
   ranks get the same bits. */
#define _GNU_SOURCE
#include "emulator.h"
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SLOT (4u << 20) /* bytes that a rank hands over at once */
#define HEAD 4096
#define PATIENCE 300 /* seconds */
enum { TIMEOUT = 9, UNSUPPORTED = 5 };

typedef struct {
  atomic_int here, round;
} Head;
typedef struct {
  char name[128];
  uint32_t size, rank;
  Head *head;
  char *slots;
} Comm;

/* -- communicators ------------------------------------------------------------------------------------------------- */

static int meet(Comm *c) {
  int round = c->head->round;
  if (atomic_fetch_add(&c->head->here, 1) + 1 == (int)c->size) {
    c->head->here = 0;
    c->head->round++;
    return 0;
  }
  for (time_t start = time(NULL); c->head->round == round; sched_yield())
    if (time(NULL) - start > PATIENCE) {
      emulator_error("HCCL: the other ranks do not come");
      return TIMEOUT;
    }
  return 0;
}

static int join(const char *name, uint32_t size, uint32_t rank, void **into) {
  Comm *c = calloc(1, sizeof *c);
  snprintf(c->name, sizeof c->name, "%s", name);
  c->size = size, c->rank = rank;
  size_t bytes = HEAD + (size_t)size * SLOT;
  int file = shm_open(name, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, bytes)) return TIMEOUT;
  c->head = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  c->slots = (char *)c->head + HEAD;
  close(file);
  *into = c;
  int status = meet(c);
  if (!rank) shm_unlink(name);
  return status;
}

int HcclGetRootInfo(char *root) {
  static int count;
  memset(root, 0, 128);
  snprintf(root, 128, "/emulated-hccl-%d-%d", getpid(), count++);
  return 0;
}
int HcclCommInitRootInfo(uint32_t size, const char *root, uint32_t rank, void **into) {
  emulator_note("HCCL init");
  return join(root, size, rank, into);
}
int HcclCommInitRootInfoConfig(uint32_t size, const char *root, uint32_t rank, void *config, void **into) {
  return HcclCommInitRootInfo(size, root, rank, into);
}
int HcclCreateSubCommConfig(Comm **of, uint32_t size, uint32_t *ranks, uint64_t id, uint32_t rank, void *config,
                            void **into) {
  char name[160];
  snprintf(name, sizeof name, "%.90s-%lu", (*of)->name, (unsigned long)id);
  return join(name, size, rank, into);
}
int HcclCommDestroy(Comm *c) {
  emulator_note("HCCL destroy");
  munmap(c->head, HEAD + (size_t)c->size * SLOT);
  free(c);
  return 0;
}
int HcclGetCommName(Comm *c, char *name) { strcpy(name, c->name); return 0; }
int HcclGetCommAsyncError(void *c, int *error) { *error = 0; return 0; }
uint32_t HcclGetCommConfigCapability(void) { return 10; }
const char *HcclGetErrorString(int code) { return "emulated HCCL"; }

/* -- arithmetic ----------------------------------------------------------------------------------------------------- */

static const int sizes[] = {1, 2, 4, 2, 4, 8, 8, 1, 2, 4, 8, 2}; /* HcclDataType */
enum { BF16 = 11, TYPES };

static float from_bf16(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* HcclReduceOp: sum, product, maximum, minimum */
#define COMBINE(a, b) (op == 0 ? (a) + (b) : op == 1 ? (a) * (b) : op == 2 ? ((a) > (b) ? (a) : (b)) : ((a) < (b) ? (a) : (b)))
#define EACH(code, T)                                        \
  case code: {                                               \
    T *x = to;                                               \
    const T *y = with;                                       \
    for (size_t i = 0; i < n; i++) x[i] = COMBINE(x[i], y[i]); \
    break;                                                   \
  }
static void combine(void *to, const void *with, size_t n, int type, int op) {
  switch (type) {
    EACH(0, int8_t) EACH(1, int16_t) EACH(2, int32_t) EACH(3, _Float16) EACH(4, float) EACH(5, int64_t)
    EACH(6, uint64_t) EACH(7, uint8_t) EACH(8, uint16_t) EACH(9, uint32_t) EACH(10, double)
    case BF16: {
      uint16_t *x = to;
      const uint16_t *y = with;
      for (size_t i = 0; i < n; i++) {
        float a = from_bf16(x[i]), b = from_bf16(y[i]);
        x[i] = to_bf16(COMBINE(a, b));
      }
    }
  }
}

/* -- collectives: each rank writes its slot, all meet, each reads what it needs, all meet ---------------------------- */

typedef struct {
  enum { REDUCE, BROADCAST, GATHER, SCATTER, BARRIER } what;
  const char *from;
  char *to;
  size_t count;
  int type, op;
  uint32_t root; /* UINT32_MAX: all ranks take the result */
  Comm *comm;
} Call;

static void hand_over(const Call *k, char *mine, size_t at, size_t n, size_t one) {
  Comm *c = k->comm;
  if (k->what == SCATTER)
    for (uint32_t r = 0; r < c->size; r++) memcpy(mine + r * n * one, k->from + (r * k->count + at) * one, n * one);
  else if (k->what != BROADCAST || c->rank == k->root)
    memcpy(mine, k->from + at * one, n * one);
}

static void take(const Call *k, size_t at, size_t n, size_t one) {
  Comm *c = k->comm;
  size_t bytes = n * one;
  char *to = k->to ? k->to + at * one : NULL;
  if (k->what == BROADCAST) {
    if (c->rank != k->root) memcpy(to, c->slots + (size_t)k->root * SLOT, bytes);
  } else if (k->what == GATHER) {
    for (uint32_t r = 0; r < c->size; r++)
      memcpy(k->to + (r * k->count + at) * one, c->slots + (size_t)r * SLOT, bytes);
  } else if (k->root == UINT32_MAX || k->root == c->rank) {
    for (uint32_t r = 0; r < c->size; r++) {
      const char *other = c->slots + (size_t)r * SLOT + (k->what == SCATTER ? c->rank * bytes : 0);
      if (r) combine(to, other, n, k->type, k->op);
      else memcpy(to, other, bytes);
    }
  }
}

static int run(void *what) {
  Call *k = what;
  Comm *c = k->comm;
  if (k->what == BARRIER) return meet(c);
  size_t one = sizes[k->type], most = SLOT / one / (k->what == SCATTER ? c->size : 1);
  for (size_t at = 0; at < k->count; at += most) {
    size_t n = k->count - at < most ? k->count - at : most;
    hand_over(k, c->slots + (size_t)c->rank * SLOT, at, n, one);
    if (meet(c)) return TIMEOUT;
    take(k, at, n, one);
    if (meet(c)) return TIMEOUT;
  }
  return 0;
}

static int release(void *what) { free(what); return 0; }
static int call(Call k, void *stream, const char *name) {
  if (k.what != BARRIER && (k.type < 0 || k.type >= TYPES)) return UNSUPPORTED;
  emulator_note("HCCL %s", name);
  Call *copy = malloc(sizeof k);
  *copy = k;
  return emulator_put(stream, run, release, copy);
}
int HcclAllReduce(void *from, void *to, uint64_t n, int type, int op, void *comm, void *stream) {
  return call((Call){REDUCE, from, to, n, type, op, UINT32_MAX, comm}, stream, "AllReduce");
}
int HcclReduce(void *from, void *to, uint64_t n, int type, int op, uint32_t root, void *comm, void *stream) {
  return call((Call){REDUCE, from, to, n, type, op, root, comm}, stream, "Reduce");
}
int HcclBroadcast(void *buffer, uint64_t n, int type, uint32_t root, void *comm, void *stream) {
  return call((Call){BROADCAST, buffer, buffer, n, type, 0, root, comm}, stream, "Broadcast");
}
int HcclAllGather(void *from, void *to, uint64_t n, int type, void *comm, void *stream) {
  return call((Call){GATHER, from, to, n, type, 0, 0, comm}, stream, "AllGather");
}
int HcclReduceScatter(void *from, void *to, uint64_t n, int type, int op, void *comm, void *stream) {
  return call((Call){SCATTER, from, to, n, type, op, UINT32_MAX, comm}, stream, "ReduceScatter");
}
int HcclBarrier(void *comm, void *stream) { return call((Call){.what = BARRIER, .comm = comm}, stream, "Barrier"); }

#define REFUSE(name) int name(void) { emulator_refuse(#name); return UNSUPPORTED; }
REFUSE(HcclSend) REFUSE(HcclRecv) REFUSE(HcclBatchSendRecv) REFUSE(HcclAlltoAll) REFUSE(HcclAlltoAllV)
REFUSE(HcclAlltoAllVC) REFUSE(HcclScatter) REFUSE(HcclCommInitClusterInfo) REFUSE(HcclCommInitAll)
#define ACCEPT(name) int name(void) { return 0; }
ACCEPT(HcclSetConfig) ACCEPT(HcclGetConfig) ACCEPT(HcclCommResume) ACCEPT(HcclCommSetMemoryRange)
ACCEPT(HcclCommUnsetMemoryRange) ACCEPT(HcclCommActivateCommMemory) ACCEPT(HcclCommDeactivateCommMemory)
ACCEPT(HcclCommWorkingDevNicSet)
