/* A small libnvidia-ml.so.1: what the tests need of it, driven by environment variables and by the two
 * functions at the end. One GPU. Return codes are those of nvml.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4 };

static unsigned long long energy_mj;
static unsigned power_mw = 55000;

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? (int)strtol(text, NULL, 0) : otherwise;
}

static void record(const char *text) {
    const char *path = getenv("STUB_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", text);
        fclose(file);
    }
}

int nvmlInitWithFlags(unsigned flags) { return number("STUB_INIT", SUCCESS); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
    record("shutdown");
    return SUCCESS;
}
const char *nvmlErrorString(int code) {
    switch (code) {
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "550.54.14");
    return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion(int *version) {
    *version = number("STUB_CUDA", 12040);
    return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)number("STUB_COUNT", 1);
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(size_t)(index + 1);
    return SUCCESS;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    const char *name = getenv("STUB_NAME");
    snprintf(text, length, "%s", name ? name : "NVIDIA GeForce GTX 1080 Ti");
    return SUCCESS;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    snprintf(text, length, "GPU-00000000-1111-2222-3333-%012zu", (size_t)handle);
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    *major = number("STUB_MAJOR", 6);
    *minor = number("STUB_MINOR", 1);
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *clock_mhz) {
    *clock_mhz = type == 1 ? (unsigned)number("STUB_CLOCK", 1582) : 5505; /* 1 = SM, 2 = memory */
    return number("STUB_STATE", SUCCESS);
}
int nvmlDeviceGetMaxClockInfo(void *handle, int type, unsigned *clock_mhz) {
    *clock_mhz = 1911;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    *celsius = 64;
    return number("STUB_STATE", SUCCESS);
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    *milliwatts = power_mw;
    return number("STUB_POWER", SUCCESS);
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    *millijoules = energy_mj;
    return number("STUB_ENERGY", SUCCESS);
}
#ifndef OLD_DRIVER
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    *reasons = (unsigned long long)number("STUB_REASONS", 0);
    return number("STUB_STATE", SUCCESS);
}
#endif
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    *reasons = (unsigned long long)number("STUB_REASONS", 0);
    return number("STUB_STATE", SUCCESS);
}

static int lock(const char *what, unsigned low_mhz, unsigned high_mhz, int code) {
    char text[80];
    snprintf(text, sizeof text, "lock %s %u %u", what, low_mhz, high_mhz);
    if (code == SUCCESS)
        record(text);
    return code;
}
int nvmlDeviceSetGpuLockedClocks(void *handle, unsigned low_mhz, unsigned high_mhz) {
    return lock("sm", low_mhz, high_mhz, number("STUB_LOCK", SUCCESS));
}
int nvmlDeviceSetMemoryLockedClocks(void *handle, unsigned low_mhz, unsigned high_mhz) {
    return lock("memory", low_mhz, high_mhz, number("STUB_LOCK_MEMORY", SUCCESS));
}
int nvmlDeviceResetGpuLockedClocks(void *handle) {
    record("reset sm");
    return number("STUB_RESET", SUCCESS);
}
int nvmlDeviceResetMemoryLockedClocks(void *handle) {
    record("reset memory");
    return SUCCESS;
}

/* Not of NVML: the tests move the meters with these. */
void stub_set_energy_mj(unsigned long long value) { energy_mj = value; }
void stub_set_power_mw(unsigned value) { power_mw = value; }
