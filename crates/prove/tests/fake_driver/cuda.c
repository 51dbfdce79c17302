// A driver's library that does nothing, and fails where it is told to when it is compiled: -DCU_INIT=802. -DCU_HANGS_IN=INIT
// has cuInit never return, likewise RETAIN and QUERY; -DCU_AFTER=n lets the first n questions for an event be answered well.
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#ifndef CU_INIT
#define CU_INIT 0
#endif
#ifndef CU_VERSION
#define CU_VERSION 12040
#endif
#ifndef CU_COUNT
#define CU_COUNT 1
#endif
#ifndef CU_RETAIN
#define CU_RETAIN 0
#endif
#ifndef CU_CUBIN
#define CU_CUBIN 0
#endif
#ifndef CU_PTX
#define CU_PTX 0
#endif
#ifndef CU_ALLOC
#define CU_ALLOC 0
#endif
#ifndef CU_LAUNCH
#define CU_LAUNCH 0
#endif
#ifndef CU_MAJOR
#define CU_MAJOR 8
#define CU_MINOR 9
#define CU_SHARED 101376
#endif
#ifndef CU_QUERY
#define CU_QUERY 0
#endif

#ifndef CU_AFTER
#define CU_AFTER 0
#endif
enum { NOTHING, INIT, RETAIN, QUERY };
#ifndef CU_HANGS_IN
#define CU_HANGS_IN NOTHING
#endif

static char handle[64];

static int unless_it_hangs(int call, int code) {
    while (CU_HANGS_IN == call) pause();
    return code;
}

int cuInit(unsigned flags) { return unless_it_hangs(INIT, CU_INIT); }
int cuDriverGetVersion(int *version) { return *version = CU_VERSION, 0; }
int cuGetErrorName(int code, const char **name) { return *name = code ? "CUDA_ERROR_TOLD" : "CUDA_SUCCESS", 0; }
int cuDeviceGetCount(int *count) { return *count = CU_COUNT, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char *name, int size, int device) { return strncpy(name, "NVIDIA Fake", size), 0; }
#ifdef CU_NVML
// That of GPU 0 of the management library of the tests of `pitcrew-nvml`.
int cuDeviceGetUuid(char *uuid, int device) { return memset(uuid, 0, 16), uuid[6] = 0x40, uuid[8] = 0x80, 0; }
#else
int cuDeviceGetUuid(char *uuid, int device) { return memset(uuid, 0x11, 16), 0; }
#endif
#ifdef CU_MIG
int cuDeviceGetUuid_v2(char *uuid, int device) { return memset(uuid, 0x22, 16), 0; }
#endif
int cuDeviceGetPCIBusId(char *id, int size, int device) { return strncpy(id, "0000:3B:00.0", size), 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = 1 << 30, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 13: *value = 1980000; break;
    case 16: *value = 4; break;
    case 36: *value = 2619000; break;
    case 75: *value = CU_MAJOR; break;
    case 76: *value = CU_MINOR; break;
    case 81: *value = CU_SHARED + 1024; break;
    case 97: *value = CU_SHARED; break;
    default: *value = 1 << 20;
    }
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = handle, unless_it_hangs(RETAIN, CU_RETAIN); }
int cuDevicePrimaryCtxRelease(int device) { return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuModuleLoadDataEx(void **module, const char *image, unsigned count, int *options, void **values) {
    *module = handle;
    int code = memcmp(image, "\177ELF", 4) == 0 ? CU_CUBIN : CU_PTX;
#ifdef CU_FIRST_PTX
    static int ptx;
    code = code == CU_PTX && !ptx++ ? CU_FIRST_PTX : code;
#endif
    if (code == 218) {
        strcpy(values[0], "ptxas fatal   : it said why\nand more");
    }
    return code;
}
int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = handle, 0; }
int cuFuncSetAttribute(void *function, int attribute, int value) { return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t bytes) {
    return *blocks = 2, 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned bytes, void *stream, void **arguments, void **extra) {
    return CU_LAUNCH;
}
#if CU_MAJOR >= 9
int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *sizes,
                           const uint64_t *strides, const unsigned *boxes, const unsigned *steps, int interleave,
                           int swizzle, int promotion, int fill) {
    return 0;
}
#endif
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    static uint64_t next = 1 << 20;
    *address = next;
    next += bytes + 4096;
    // The first is the device's own.
    return bytes > 256 ? CU_ALLOC : 0;
}
int cuMemFree_v2(uint64_t address) { return 0; }
int cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
    static char memory[1 << 16];
    return *address = memory, bytes <= sizeof memory ? 0 : 2;
}
int cuMemFreeHost(void *address) { return 0; }
int cuMemGetInfo_v2(size_t *left, size_t *all) { return *left = 1 << 29, *all = 1 << 30, 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) { return 0; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) { return 0; }
int cuMemcpyPeerAsync(uint64_t to, void *to_context, uint64_t from, void *from_context, size_t bytes, void *stream) {
    return 0;
}
int cuMemsetD32Async(uint64_t to, unsigned word, size_t words, void *stream) { return 0; }
int cuStreamCreate(void **stream, unsigned flags) { return *stream = handle, 0; }
int cuStreamDestroy_v2(void *stream) { return 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
int cuEventCreate(void **event, unsigned flags) { return *event = handle, 0; }
int cuEventDestroy_v2(void *event) { return 0; }
int cuEventRecord(void *event, void *stream) { return 0; }
int cuEventQuery(void *event) {
    static int asked;
    return asked++ < CU_AFTER ? 0 : unless_it_hangs(QUERY, CU_QUERY);
}
int cuEventElapsedTime(float *milliseconds, void *first, void *last) { return *milliseconds = 1.5f, 0; }
int cuDeviceCanAccessPeer(int *can, int device, int peer) { return *can = 0, 0; }
int cuCtxEnablePeerAccess(void *context, unsigned flags) { return 0; }
