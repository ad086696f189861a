/* Streams, copies, events and graphs.

   What is put on a stream is done at once; or, if the emulator is lazy (EMULATOR_LAZY=1), only when the host waits, so
   that a program which reads too early reads the wrong numbers; or it is kept for the graph that is being captured.
   One queue serves all streams: a legal order, and the same in each run. */
#include "emulator.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct Work {
  struct Work *next;
  Action run, release;
  void *what;
} Work;
typedef struct {
  Work *first, **last;
} Queue;
typedef struct {
  void *to;
  const void *from;
  size_t size;
  int value;
} Copy;
typedef struct {
  int64_t due;
  int in_graph; /* recorded on a stream that is being captured */
} Event;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Queue queue = {NULL, &queue.first};
static int64_t put, done;
static int lazy = -1, failed;
static Queue *graph; /* being captured, from the streams below: the first, and those that wait for its events */
#define STREAMS 16
static void *graph_streams[STREAMS];
static int graph_stream_count;

static int in_graph(void *stream) {
  for (int i = 0; graph && i < graph_stream_count; i++)
    if (graph_streams[i] == stream) return 1;
  return 0;
}

static int is_lazy(void) {
  if (lazy < 0) lazy = getenv("EMULATOR_LAZY") && atoi(getenv("EMULATOR_LAZY"));
  return lazy;
}

static void append(Queue *to, Action run, Action release, void *what) {
  Work *work = calloc(1, sizeof *work);
  work->run = run, work->release = release, work->what = what;
  *to->last = work, to->last = &work->next;
}

int emulator_put(void *stream, Action run, Action release, void *what) {
  if (in_graph(stream)) {
    append(graph, run, NULL, what); /* never released: the graph may be replayed */
    return 0;
  }
  if (graph) emulator_note("OUTSIDE the graph that is being captured");
  if (!is_lazy()) {
    int status = run(what);
    if (release) release(what);
    return status;
  }
  pthread_mutex_lock(&lock);
  append(&queue, run, release, what);
  put++;
  pthread_mutex_unlock(&lock);
  return 0;
}

static int nothing(void *what) { return 0; }
int emulator_after(Action release, void *what) {
  if (graph) return 0;
  return is_lazy() ? emulator_put(NULL, nothing, release, what) : release(what);
}

static int drain_until(int64_t until) {
  for (;;) {
    pthread_mutex_lock(&lock);
    Work *work = done < until ? queue.first : NULL;
    if (work && !(queue.first = work->next)) queue.last = &queue.first;
    pthread_mutex_unlock(&lock);
    if (!work) break;
    int status = work->run(work->what);
    if (status) failed = status;
    if (work->release) work->release(work->what);
    free(work);
    pthread_mutex_lock(&lock);
    done++;
    pthread_mutex_unlock(&lock);
  }
  int status = failed;
  failed = 0;
  return status;
}
int emulator_drain(void) { return drain_until(INT64_MAX); }
void emulator_lazy(int yes) { emulator_drain(); lazy = yes; }

/* -- copies ------------------------------------------------------------------------------------------------------- */

static int copy(void *what) { Copy *c = what; memmove(c->to, c->from, c->size); return 0; }
static int fill(void *what) { Copy *c = what; memset(c->to, c->value, c->size); return 0; }
static int release(void *what) { free(what); return 0; }
static void *new_copy(void *to, const void *from, size_t size, int value) {
  Copy *c = malloc(sizeof *c);
  *c = (Copy){to, from, size, value};
  return c;
}
static const char *direction(int kind) { /* aclrtMemcpyKind */
  static const char *names[] = {"host to host", "host to device", "device to host", "device to device"};
  return kind >= 0 && kind < 4 ? names[kind] : "unknown";
}
int aclrtMemcpy(void *to, size_t room, const void *from, size_t size, int kind) {
  emulator_note("COPY and wait, %s, %zu", direction(kind), size);
  int status = emulator_drain();
  memmove(to, from, size);
  return status;
}
int aclrtMemset(void *to, size_t room, int32_t value, size_t size) {
  int status = emulator_drain();
  memset(to, value, size);
  return status;
}
int aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t size, int kind, void *stream) {
  emulator_note("COPY %s, %zu", direction(kind), size);
  return emulator_put(stream, copy, release, new_copy(to, from, size, 0));
}
int aclrtMemsetAsync(void *to, size_t room, int32_t value, size_t size, void *stream) {
  return emulator_put(stream, fill, release, new_copy(to, NULL, size, value));
}
typedef struct { void (*function)(void *); void *argument; } HostCall;
static int call_host(void *what) { HostCall *c = what; c->function(c->argument); return 0; }
int aclrtLaunchHostFunc(void *stream, void (*function)(void *), void *argument) {
  HostCall *c = malloc(sizeof *c);
  *c = (HostCall){function, argument};
  return emulator_put(stream, call_host, release, c);
}

/* -- streams and events ------------------------------------------------------------------------------------------- */

static int wait(void *stream, const char *what) {
  emulator_note("WAIT %s", what);
  if (graph && (!stream || in_graph(stream))) {
    emulator_error("the host waits while a graph is captured");
    return WAIT_IN_CAPTURE;
  }
  return emulator_drain();
}
int aclrtSynchronizeStream(void *stream) { return wait(stream, "stream"); }
int aclrtSynchronizeStreamWithTimeout(void *stream, int32_t limit) { return wait(stream, "stream"); }
int aclrtSynchronizeDevice(void) { return wait(NULL, "device"); }
int aclrtSynchronizeDeviceWithTimeout(int32_t limit) { return wait(NULL, "device"); }
int aclrtCreateStream(void **into) { *into = calloc(1, 64); return 0; }
int aclrtCreateStreamWithConfig(void **into, uint32_t priority, uint32_t flags) { return aclrtCreateStream(into); }
int aclrtDestroyStream(void *stream) { return 0; }
int aclrtDestroyStreamForce(void *stream) { return 0; }
int aclrtStreamGetId(void *stream, int32_t *id) { *id = 1; return 0; }
int aclrtStreamQuery(void *stream, int *status) { *status = done < put; return 0; }

int aclrtCreateEvent(void **into) { *into = calloc(1, sizeof(Event)); return 0; }
int aclrtCreateEventWithFlag(void **into, uint32_t flag) { return aclrtCreateEvent(into); }
int aclrtCreateEventExWithFlag(void **into, uint32_t flag) { return aclrtCreateEvent(into); }
int aclrtDestroyEvent(void *event) { free(event); return 0; }
int aclrtRecordEvent(Event *event, void *stream) {
  event->due = put, event->in_graph = in_graph(stream);
  return 0;
}
int aclrtResetEvent(void *event, void *stream) { return 0; }
int aclrtStreamWaitEvent(void *stream, Event *event) { /* one queue: it has its turn already */
  if (graph && event->in_graph && !in_graph(stream) && graph_stream_count < STREAMS)
    graph_streams[graph_stream_count++] = stream;
  return 0;
}
int aclrtSynchronizeEvent(Event *event) { emulator_note("WAIT event"); return drain_until(event->due); }
int aclrtQueryEventStatus(Event *event, int *status) { *status = done >= event->due; return 0; }
int aclrtQueryEventWaitStatus(Event *event, int *status) { *status = done < event->due; return 0; }
int aclrtEventElapsedTime(float *milliseconds, void *start, void *end) { *milliseconds = 1; return 0; }
int aclrtEventGetTimestamp(void *event, uint64_t *time) { *time = 1; return 0; }

/* -- graphs -------------------------------------------------------------------------------------------------------- */

int aclmdlRICaptureBegin(void *stream, int mode) {
  emulator_note("CAPTURE begins");
  graph = calloc(1, sizeof *graph);
  graph->last = &graph->first, graph_streams[0] = stream, graph_stream_count = 1;
  return 0;
}
int aclmdlRICaptureEnd(void *stream, void **into) {
  emulator_note("CAPTURE ends");
  *into = graph, graph = NULL;
  return 0;
}
int aclmdlRICaptureGetInfo(void *stream, int *status, void **into) {
  *status = in_graph(stream);
  if (into) *into = graph;
  return 0;
}
int aclmdlRIExecuteAsync(Queue *captured, void *stream) {
  emulator_note("GRAPH");
  int status = 0;
  for (Work *work = captured->first; work; work = work->next)
    status |= emulator_put(stream, work->run, NULL, work->what);
  return status;
}
int aclmdlRIDestroy(void *captured) { return emulator_drain(); }
