// A fake of NVIDIA's management library, with two GPUs, for tests on machines without one.
//
// The file "state" beside it lists the faults of each GPU: a line "0 lost", "1 errors 3", "0 xid
// 79", "1 unreadable" or "0 silent" (raises no alarms), or "9 undriven" (no driver is loaded).
// Every call reads it again, so that a test can break a GPU while a worker has it.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMED_OUT = 10, LOST = 15, UNKNOWN = 999
};

typedef struct { int number; } *Device;
static struct { int number; } devices[2] = {{0}, {1}};
static const char *uuids[2] = {
    "GPU-00000000-aaaa-bbbb-cccc-000000000000",
    "GPU-11111111-aaaa-bbbb-cccc-111111111111",
};
static const char *names[2] = {"NVIDIA H100 80GB HBM3", "Tesla T4"};
static const unsigned long long memory[2] = {80ull << 30, 16ull << 30};

// Returns whether the file lists `word` for this GPU, and stores the number after it in `value`.
static int says(int number, const char *word, unsigned long long *value) {
  Dl_info own;
  if (!dladdr((void *)says, &own)) return 0;
  char path[4096];
  snprintf(path, sizeof path, "%s", own.dli_fname);
  char *slash = strrchr(path, '/');
  if (!slash) return 0;
  strcpy(slash + 1, "state");
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  char line[200], said[100];
  int found = 0, of;
  while (fgets(line, sizeof line, file)) {
    unsigned long long amount = 0;
    if (sscanf(line, "%d %99s %llu", &of, said, &amount) >= 2
            && of == number && !strcmp(said, word)) {
      found = 1;
      if (value) *value = amount;
    }
  }
  fclose(file);
  return found;
}

static int state(Device device) {
  if (says(device->number, "lost", NULL)) return LOST;
  if (says(device->number, "unreadable", NULL)) return UNKNOWN;
  return OK;
}

static int text(const char *from, char *to, unsigned room) {
  if (strlen(from) >= room) return 7;
  strcpy(to, from);
  return OK;
}

int nvmlInit_v2(void) { return says(9, "undriven", NULL) ? 9 : OK; }
#ifndef WITHOUT_END
int nvmlShutdown(void) { return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }
#endif
int nvmlSystemGetDriverVersion(char *to, unsigned room) { return text("550.54.15", to, room); }
#ifndef WITHOUT_COUNT
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
#endif
int nvmlDeviceGetHandleByIndex_v2(unsigned number, Device *device) {
  if (number > 1) return INVALID;
  *device = (Device)&devices[number];
  return state(*device) == LOST ? LOST : OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
  for (int number = 0; number < 2; number++)
    if (!strcmp(uuid, uuids[number])) { *device = (Device)&devices[number]; return OK; }
  return NOT_FOUND;
}
int nvmlDeviceGetUUID(Device device, char *to, unsigned room) {
    return text(uuids[device->number], to, room);
}
int nvmlDeviceGetName(Device device, char *to, unsigned room) {
    return text(names[device->number], to, room);
}

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
#ifndef WITHOUT_MEMORY
int nvmlDeviceGetMemoryInfo_v2(Device device, Memory *to) {
  if (state(device)) return state(device);
  to->total = memory[device->number];
  to->used = 1ull << 30;
  to->free = to->total - to->used;
  return OK;
}
#endif
typedef struct { unsigned gpu, memory; } Utilisation;
int nvmlDeviceGetUtilizationRates(Device device, Utilisation *to) {
  if (state(device)) return state(device);
  to->gpu = device->number ? 0 : 37;
  return device->number ? NOT_SUPPORTED : OK;
}
int nvmlDeviceGetTotalEccErrors(Device device, int kind, int counter, unsigned long long *to) {
  if (kind != 1 || counter != 0) return INVALID;
  *to = device->number ? 0 : 5; // raised before the worker started
  says(device->number, "errors", to);
  return OK;
}

// Events. One event set is enough for the tests.
static int watched[2];
int nvmlEventSetCreate(void **set) { *set = watched; watched[0] = watched[1] = 0; return OK; }
int nvmlDeviceRegisterEvents(Device device, unsigned long long kinds, void *set) {
  if (says(device->number, "silent", NULL)) return NOT_SUPPORTED;
  ((int *)set)[device->number] = kinds == 8;
  return OK;
}
typedef struct { Device device; unsigned long long kind, data; unsigned instance, compute; } Event;
int nvmlEventSetWait_v2(void *set, Event *event, unsigned timeout_ms) {
  static unsigned long long told[2];
  for (unsigned waited = 0;; waited += 10) {
    for (int number = 0; number < 2; number++) {
      unsigned long long xid;
      if (((int *)set)[number] && says(number, "xid", &xid) && told[number] != xid) {
        told[number] = xid;
        memset(event, 0, sizeof *event);
        event->device = (Device)&devices[number];
        event->kind = 8;
        event->data = xid;
        return OK;
      }
    }
    if (waited >= timeout_ms) return TIMED_OUT;
    usleep(10000);
  }
}
