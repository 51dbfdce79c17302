/* What a program with a GPU does first: load the driver's libraries by name, ask them something, open its nodes. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void *load(const char *name) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        printf("%s: not loaded: %s\n", name, dlerror());
    return library;
}

static void ask(const char *name, const char *function) {
    void *library = load(name);
    if (!library)
        return;
    int (*get)(int *) = (int (*)(int *))dlsym(library, function);
    int value = -1;
    if (get && get(&value) == 0)
        printf("%s: %s says %d\n", name, function, value);
    else
        printf("%s: %s fails\n", name, function);
}

/* No driver is behind the nodes of an imaginary GPU: the kernel says so only to who may open them. */
static void look(const char *path) {
    int file = open(path, O_RDWR);
    printf("%s: %s\n", path, file >= 0 || errno == ENXIO || errno == ENODEV ? "allowed" : strerror(errno));
    if (file >= 0)
        close(file);
}

int main(void) {
    ask("libcuda.so.1", "cuDriverGetVersion");
    ask("libcuda.so", "cuDriverGetVersion");
    void *nvml = load("libnvidia-ml.so.1");
    if (nvml) {
        int (*init)(void) = (int (*)(void))dlsym(nvml, "nvmlInit_v2");
        if (init && init() == 0)
            ask("libnvidia-ml.so.1", "nvmlDeviceGetCount_v2");
        else
            puts("libnvidia-ml.so.1: nvmlInit_v2 fails");
    }
    DIR *dev = opendir("/dev");
    for (struct dirent *entry = dev ? readdir(dev) : NULL; entry; entry = readdir(dev)) {
        if (strncmp(entry->d_name, "nvidia", 6) != 0)
            continue;
        char path[300];
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        look(path);
    }
    /* Another GPU's, which nobody gave. */
    if (mknod("/dev/other", S_IFCHR | 0666, makedev(195, 7)) == 0)
        look("/dev/other");
    return 0;
}
