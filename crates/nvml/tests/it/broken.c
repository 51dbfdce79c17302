/* Management libraries that are wrong in one way each: the macro says which.
 *
 * NOT_NVML        another library under the name
 * FAILS=n         initialisation and everything else gives the code n
 * HANGS           counting the GPUs never returns
 * HANGS_IN="dir"  a call about GPU n does not return while the file n is in the directory; nor does one about the
 *                 driver as a whole while the file `driver` is
 * POOR            has only what a GPU is found by
 * LOST            GPU 1 has fallen off the bus; GPU 0 works
 * NO_HANDLE       not even a handle of GPU 1 is given
 * STORM           every wait says that a GPU is lost
 * MIG_EMPTY       MIG is on, and there is no instance
 * DEVICE="path"   opened while initialised, as a driver's device node is
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct device *device_t;
struct device {
    unsigned index;
};
static struct device devices[2] = {{0}, {1}};

#ifndef VERSION
#define VERSION "580.159.04"
#endif

#ifdef NOT_NVML
int something_else(void) { return 0; }
#else

#ifdef FAILS
#define CHECK(device) return FAILS
#elif defined(LOST) || defined(NO_HANDLE)
#define CHECK(device) \
    if ((device)->index == 1) return 15
#else
#define CHECK(device) (void)(device)
#endif

/* Returns when the file is gone. */
static void hang_while(const char *name) {
#ifdef HANGS_IN
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", HANGS_IN, name);
    while (access(path, F_OK) == 0) usleep(2000);
#else
    (void)name;
#endif
}

static void hang_at(device_t device) {
    char name[16];
    snprintf(name, sizeof name, "%u", device->index);
    hang_while(name);
}

static int descriptor = -1;
/* As NVIDIA's counts it. */
static int initialised;

unsigned nvmlInit_v2(void) {
#ifdef FAILS
    return FAILS;
#endif
#ifdef DEVICE
    if (initialised == 0) descriptor = open(DEVICE, O_RDONLY);
    if (descriptor < 0) return 9;
#endif
    initialised++;
    return 0;
}

unsigned nvmlShutdown(void) {
    if (--initialised > 0) return 0;
    if (descriptor >= 0) close(descriptor);
    descriptor = -1;
    return 0;
}

unsigned nvmlDeviceGetCount_v2(unsigned *count) {
#ifdef HANGS
    for (;;) pause();
#endif
    hang_while("driver");
    *count = 2;
    return 0;
}

unsigned nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if (index > 1) return 2;
#ifdef NO_HANDLE
    if (index == 1) return 15;
#endif
    *device = &devices[index];
    return 0;
}

struct pci {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem;
    char id[32];
};

unsigned nvmlDeviceGetPciInfo_v3(device_t device, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = 1 + device->index;
    pci->device_id = 0x233010de;
    pci->subsystem = 0x16c110de;
    snprintf(pci->id, sizeof pci->id, "00000000:%02X:00.0", pci->bus);
    return 0;
}

unsigned nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-00000000-0000-4000-8000-00000000000%u", device->index);
    return 0;
}

unsigned nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device) {
    char last = strlen(uuid) ? uuid[strlen(uuid) - 1] : 0;
    if (strncmp(uuid, "GPU-", 4) || last < '0' || last > '1') return 6;
    *device = &devices[last - '0'];
    return 0;
}

#ifndef POOR
unsigned nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, VERSION);
    return 0;
}

unsigned nvmlDeviceGetName(device_t device, char *name, unsigned length) {
    CHECK(device);
    snprintf(name, length, "NVIDIA H100 80GB HBM3");
    return 0;
}

unsigned nvmlDeviceGetTemperature(device_t device, unsigned sensor, unsigned *celsius) {
    CHECK(device);
    hang_at(device);
    (void)sensor;
    *celsius = (unsigned)-5;
    return 0;
}

/* Says version 1 of the struct only. */
unsigned nvmlDeviceGetMemoryInfo_v2(device_t device, void *memory) {
    (void)device, (void)memory;
    return 25;
}

unsigned nvmlDeviceGetMemoryInfo(device_t device, unsigned long long memory[3]) {
    CHECK(device);
    memory[0] = 80, memory[1] = 70, memory[2] = 10;
    return 0;
}

/* Never says how many there are. */
unsigned nvmlDeviceGetComputeRunningProcesses_v3(device_t device, unsigned *count, void *list) {
    (void)device, (void)list;
    *count = 0;
    return 7;
}

#ifdef MIG_EMPTY
unsigned nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    (void)device;
    *current = *pending = 1;
    return 0;
}

unsigned nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) {
    (void)device;
    *count = 7;
    return 0;
}

unsigned nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *mig) {
    (void)device, (void)index, (void)mig;
    return 6;
}
#endif

unsigned nvmlDeviceGetSupportedEventTypes(device_t device, unsigned long long *events) {
    (void)device;
    *events = 0xffff;
    return 0;
}

struct event {
    device_t device;
    unsigned long long kind, data;
    unsigned gpu_instance, compute_instance;
};
static unsigned registered;

unsigned nvmlEventSetCreate(void **set) {
    *set = &registered;
    registered = 0;
    return 0;
}

unsigned nvmlDeviceRegisterEvents(device_t device, unsigned long long events, void *set) {
    (void)set;
    if (events & ~0xbULL) return 3; /* only XIDs and ECC errors are for us */
    registered |= 1u << device->index;
    return 0;
}

unsigned nvmlEventSetFree(void *set) {
    (void)set;
    return 0;
}

/* An XID of GPU 0 in no instance, then one of its instance 3, and nothing more; or lost, as long as GPU 1 is in. */
unsigned nvmlEventSetWait_v2(void *set, struct event *event, unsigned milliseconds) {
    static unsigned told;
    (void)set, (void)milliseconds;
#ifdef LOST
    if (registered & 2) return 15;
#endif
#ifdef STORM
    return 15;
#endif
    if (told == 2) return 10;
    event->device = &devices[0];
    event->kind = 8;
    event->data = told ? 43 : 79;
    event->gpu_instance = told ? 3 : 0xffffffff;
    event->compute_instance = told ? 0 : 0xffffffff;
    told++;
    return 0;
}
#endif
#endif
