// What a container can do with the GPUs that it was given, asked from inside.
//
//   probe load LIBRARY...     loads each library as a program would: by its name, through the loader's own search
//   probe cuda [SECONDS]      computes on the first GPU through the driver's library alone, verifying every result
//   probe memory MIB          says whether so much of the first GPU's memory can be had
//
// Declarations are those of the driver's documented interface; there is no header of NVIDIA's here.

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int CUresult;
typedef int CUdevice;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream;
typedef uint64_t CUdeviceptr;

static CUresult (*cuInit)(unsigned);
static CUresult (*cuDriverGetVersion)(int *);
static CUresult (*cuDeviceGetCount)(int *);
static CUresult (*cuDeviceGet)(CUdevice *, int);
static CUresult (*cuDeviceGetName)(char *, int, CUdevice);
static CUresult (*cuDeviceGetAttribute)(int *, int, CUdevice);
static CUresult (*cuMemGetInfo)(size_t *, size_t *);
static CUresult (*cuCtxCreate)(CUcontext *, unsigned, CUdevice);
static CUresult (*cuModuleLoadData)(CUmodule *, const void *);
static CUresult (*cuModuleGetFunction)(CUfunction *, CUmodule, const char *);
static CUresult (*cuMemAlloc)(CUdeviceptr *, size_t);
static CUresult (*cuMemsetD32)(CUdeviceptr, unsigned, size_t);
static CUresult (*cuMemcpyDtoH)(void *, CUdeviceptr, size_t);
static CUresult (*cuLaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                  CUstream, void **, void **);
static CUresult (*cuCtxSynchronize)(void);
static CUresult (*cuGetErrorName)(CUresult, const char **);

// out[i] = 0; 4096 times out[i] = out[i] * 1664525 + i: wrong in one step is wrong at the end.
static const char KERNEL[] =
    ".version 6.0\n.target sm_50\n.address_size 64\n"
    ".visible .entry steps(.param .u64 out) {\n"
    ".reg .u64 %rd<4>; .reg .u32 %r<8>; .reg .pred %p;\n"
    "ld.param.u64 %rd0, [out]; cvta.to.global.u64 %rd1, %rd0;\n"
    "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r3, %r0, %r1, %r2;\n"
    "mul.wide.u32 %rd2, %r3, 4; add.u64 %rd3, %rd1, %rd2;\n"
    "mov.u32 %r4, 0; mov.u32 %r5, 0;\n"
    "again: mad.lo.u32 %r4, %r4, 1664525, %r3; add.u32 %r5, %r5, 1;\n"
    "setp.lt.u32 %p, %r5, 4096; @%p bra again;\n"
    "st.global.u32 [%rd3], %r4; ret;\n}\n";

enum { MULTIPROCESSOR_COUNT = 16 };
enum { STEPS = 4096, BLOCK = 256, GRID = 4096, COUNT = BLOCK * GRID };

static int failed(const char *what, CUresult result) {
    const char *name = "?";
    if (cuGetErrorName)
        cuGetErrorName(result, &name);
    printf("%s: %s (%d)\n", what, name, result);
    return 1;
}

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        CUresult result_ = call;                                                                                       \
        if (result_)                                                                                                   \
            return failed(#call, result_);                                                                             \
    } while (0)

static int load(int count, char **names) {
    int status = 0;
    for (int i = 0; i < count; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        printf("%s: %s\n", names[i], library ? "loaded" : dlerror());
        status |= !library;
    }
    return status;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

// Finds the functions of the driver's library, and makes a context on the first GPU.
static int begin(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) {
        printf("libcuda.so.1: %s\n", dlerror());
        return 1;
    }
    struct {
        void *pointer;
        const char *name;
    } functions[] = {
        {&cuInit, "cuInit"},
        {&cuDriverGetVersion, "cuDriverGetVersion"},
        {&cuDeviceGetCount, "cuDeviceGetCount"},
        {&cuDeviceGet, "cuDeviceGet"},
        {&cuDeviceGetName, "cuDeviceGetName"},
        {&cuDeviceGetAttribute, "cuDeviceGetAttribute"},
        {&cuMemGetInfo, "cuMemGetInfo_v2"},
        {&cuCtxCreate, "cuCtxCreate_v2"},
        {&cuModuleLoadData, "cuModuleLoadData"},
        {&cuModuleGetFunction, "cuModuleGetFunction"},
        {&cuMemAlloc, "cuMemAlloc_v2"},
        {&cuMemsetD32, "cuMemsetD32_v2"},
        {&cuMemcpyDtoH, "cuMemcpyDtoH_v2"},
        {&cuLaunchKernel, "cuLaunchKernel"},
        {&cuCtxSynchronize, "cuCtxSynchronize"},
        {&cuGetErrorName, "cuGetErrorName"},
    };
    for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *found = dlsym(driver, functions[i].name);
        if (!found) {
            printf("libcuda.so.1 has no %s\n", functions[i].name);
            return 1;
        }
        memcpy(functions[i].pointer, &found, sizeof found);
    }
    int version, count, multiprocessors;
    TRY(cuInit(0));
    TRY(cuDriverGetVersion(&version));
    TRY(cuDeviceGetCount(&count));
    printf("CUDA %d.%d, %d GPU%s\n", version / 1000, version % 1000 / 10, count, count == 1 ? "" : "s");
    CUdevice device;
    char name[128];
    CUcontext context;
    size_t available, total;
    TRY(cuDeviceGet(&device, 0));
    TRY(cuDeviceGetName(name, sizeof name, device));
    TRY(cuCtxCreate(&context, 0, device));
    TRY(cuDeviceGetAttribute(&multiprocessors, MULTIPROCESSOR_COUNT, device));
    TRY(cuMemGetInfo(&available, &total));
    printf("%s: %d multiprocessors, %zu of %zu MiB free\n", name, multiprocessors, available >> 20, total >> 20);
    return 0;
}

static int memory(size_t mib) {
    if (begin())
        return 1;
    CUdeviceptr all;
    CUresult result = cuMemAlloc(&all, mib << 20);
    const char *name = "had";
    if (result)
        cuGetErrorName(result, &name);
    printf("%zu MiB: %s\n", mib, name);
    return 0;
}

static int cuda(double seconds) {
    if (begin())
        return 1;
    CUmodule module;
    CUfunction kernel;
    CUdeviceptr out;
    TRY(cuModuleLoadData(&module, KERNEL));
    TRY(cuModuleGetFunction(&kernel, module, "steps"));
    TRY(cuMemAlloc(&out, COUNT * sizeof(uint32_t)));

    uint32_t *expected = malloc(COUNT * sizeof *expected), *got = malloc(COUNT * sizeof *got);
    if (!expected || !got)
        return 1;
    for (uint32_t i = 0; i < COUNT; i++) {
        expected[i] = 0;
        for (int step = 0; step < STEPS; step++)
            expected[i] = expected[i] * 1664525u + i;
    }
    unsigned long rounds = 0;
    double start = now(), spent;
    do {
        void *parameters[] = {&out};
        TRY(cuMemsetD32(out, 0xffffffff, COUNT));
        TRY(cuLaunchKernel(kernel, GRID, 1, 1, BLOCK, 1, 1, 0, NULL, parameters, NULL));
        TRY(cuCtxSynchronize());
        TRY(cuMemcpyDtoH(got, out, COUNT * sizeof *got));
        if (memcmp(expected, got, COUNT * sizeof *got)) {
            printf("round %lu: a result is wrong\n", rounds);
            return 1;
        }
        rounds++;
        spent = now() - start;
    } while (spent < seconds);
    printf("%lu rounds of %d results, all right, in %.1f s\n", rounds, COUNT, spent);
    return 0;
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count > 2 && !strcmp(arguments[1], "load"))
        return load(count - 2, arguments + 2);
    if (count > 1 && !strcmp(arguments[1], "cuda"))
        return cuda(count > 2 ? atof(arguments[2]) : 0);
    if (count > 2 && !strcmp(arguments[1], "memory"))
        return memory(strtoul(arguments[2], NULL, 10));
    fprintf(stderr, "usage: probe load LIBRARY... | probe cuda [SECONDS] | probe memory MIB\n");
    return 64;
}
