/* Stands for libcuda: it loads another library of the driver by name, as the real one loads its compiler. */
#include <dlfcn.h>

int cuDriverGetVersion(int *version) {
    void *compiler = dlopen("libnvidia-ptxjitcompiler.so.1", RTLD_NOW);
    if (!compiler || !dlsym(compiler, "compiler"))
        return 1;
    *version = VERSION;
    return 0;
}
