/* CANN's operator library. It keeps what it is given of tensors and scalars and hands each launch to Python
   (emulator.py). build.py appends two functions for each operator, from the signatures in kernels.py. */
#define _GNU_SOURCE
#include "emulator.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR = 0x7e4501, SCALAR, INTS, FLOATS, BOOLS, TENSORS, SCALARS, LAUNCH, FREED = 0x0dead };
#define DIMS 8
#define ARGUMENTS 24

typedef struct {
  int32_t what, type;
  int64_t dims, sizes[DIMS], strides[DIMS], offset, storage;
  void *data;
} Tensor;
typedef struct {
  int32_t what, type;
  uint8_t value[16];
} Scalar;
typedef struct {
  int32_t what, unused;
  int64_t count;
  void *items;
} Array;
typedef union {
  void *p;
  int64_t i;
  double d;
} Value;
typedef struct {
  int32_t what, unused;
  const char *name, *kinds;
  Value arguments[ARGUMENTS];
} Launch;

static int (*compute)(Launch *);
void emulator_compute(int (*function)(Launch *)) { compute = function; }

static void *new(size_t size, int32_t what) {
  int32_t *object = calloc(1, size);
  *object = what;
  return object;
}

void *aclCreateTensor(const int64_t *sizes, uint64_t dims, int type, const int64_t *strides, int64_t offset, int format,
                      const int64_t *storage, uint64_t storage_dims, void *data) {
  if (dims > DIMS) return NULL;
  Tensor *t = new(sizeof *t, TENSOR);
  t->type = type, t->dims = dims, t->offset = offset, t->data = data, t->storage = 1;
  for (uint64_t i = 0; i < dims; i++) t->sizes[i] = sizes[i], t->strides[i] = strides[i];
  for (uint64_t i = 0; i < storage_dims; i++) t->storage *= storage[i];
  return t;
}

static size_t size_of(int type) { /* aclDataType */
  static const unsigned char sizes[] = {4, 2, 1, 4, 1, 0, 2, 2, 4, 8, 8, 8, 1, 0, 0, 0, 8, 16};
  return type == 27 ? 2 : type >= 0 && type < (int)sizeof sizes ? sizes[type] : 0;
}

void *aclCreateScalar(const void *value, int type) {
  Scalar *s = new(sizeof *s, SCALAR);
  s->type = type;
  memcpy(s->value, value, size_of(type));
  return s;
}

static void *new_array(int32_t what, const void *items, uint64_t count, size_t size) {
  Array *a = new(sizeof *a, what);
  a->count = count, a->items = malloc(count * size + 1);
  if (count) memcpy(a->items, items, count * size);
  return a;
}
void *aclCreateIntArray(const int64_t *v, uint64_t n) { return new_array(INTS, v, n, 8); }
void *aclCreateFloatArray(const float *v, uint64_t n) { return new_array(FLOATS, v, n, 4); }
void *aclCreateBoolArray(const char *v, uint64_t n) { return new_array(BOOLS, v, n, 1); }
void *aclCreateTensorList(void *const *v, uint64_t n) { return new_array(TENSORS, v, n, 8); }
void *aclCreateScalarList(void *const *v, uint64_t n) { return new_array(SCALARS, v, n, 8); }

static int destroy(void *handle) {
  int32_t *what = handle;
  if (!what) return 0;
  if (*what < TENSOR || *what > LAUNCH) {
    fprintf(stderr, "emulator: a handle is destroyed twice\n");
    abort();
  }
  if (*what >= INTS && *what <= SCALARS) {
    Array *a = handle;
    for (int64_t i = 0; a->what >= TENSORS && i < a->count; i++) destroy(((void **)a->items)[i]);
    free(a->items);
  }
  *what = FREED;
  free(handle);
  return 0;
}
int aclDestroyTensor(void *h) { return emulator_after(destroy, h); }
int aclDestroyScalar(void *h) { return emulator_after(destroy, h); }
int aclDestroyIntArray(void *h) { return emulator_after(destroy, h); }
int aclDestroyFloatArray(void *h) { return emulator_after(destroy, h); }
int aclDestroyBoolArray(void *h) { return emulator_after(destroy, h); }
int aclDestroyTensorList(void *h) { return emulator_after(destroy, h); }
int aclDestroyScalarList(void *h) { return emulator_after(destroy, h); }
int aclDestroyAclOpExecutor(void *h) { return emulator_after(destroy, h); }

int aclGetViewShape(const Tensor *t, int64_t **sizes, uint64_t *dims) {
  *dims = t->dims, *sizes = malloc(DIMS * 8);
  memcpy(*sizes, t->sizes, DIMS * 8);
  return 0;
}

/* The first launch of a process loads the kernels, so that child processes need nothing. */
static void load_kernels(void) {
  int (*ensure)(void) = dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
  void (*release)(int) = dlsym(RTLD_DEFAULT, "PyGILState_Release");
  int (*python)(const char *) = dlsym(RTLD_DEFAULT, "PyRun_SimpleString");
  if (!ensure || !release || !python) return;
  int state = ensure();
  if (!compute) python("import emulator; emulator.install()");
  release(state);
}

static int run(void *launch) {
  if (!compute) load_kernels();
  if (!compute) {
    emulator_error("the kernels cannot be loaded: is emulator.py on PYTHONPATH?");
    return NOT_EMULATED;
  }
  return compute(launch);
}

/* aclnnXGetWorkspaceSize keeps the arguments; aclnnX puts the launch on the stream. */
static int prepare(const char *name, const char *kinds, const Value *arguments, int count, uint64_t *workspace,
                   void **executor) {
  Launch *l = new(sizeof *l, LAUNCH);
  l->name = name, l->kinds = kinds;
  memcpy(l->arguments, arguments, count * sizeof *arguments);
  *workspace = 0, *executor = l;
  return 0;
}
static int launch(Launch *l, void *stream) {
  emulator_note("LAUNCH %s", l->name);
  return emulator_put(stream, run, destroy, l);
}
