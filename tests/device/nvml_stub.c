/* A small libnvidia-ml.so.1: what the tests need of it, driven by environment variables and by the
 * functions at the end. One GPU. Return codes are those of nvml.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4 };

static unsigned long long energy_mj;
static unsigned power_mw = 55000;
static unsigned long long violation_ns;

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
    case 21: return "No data";
    case 27: return "Not Ready";
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
    return (int)index == number("STUB_BAD", -1) ? number("STUB_BAD_CODE", NO_PERMISSION) : SUCCESS;
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

/* How a GPU is set; STUB_MORE fails all of these. */
static int more(void) { return number("STUB_MORE", SUCCESS); }
int nvmlDeviceGetNumGpuCores(void *handle, unsigned *cores) {
    *cores = (unsigned)number("STUB_CORES", 3584);
    return more();
}
typedef struct { unsigned long long total, available, used; } Memory;
int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    memory->total = (unsigned long long)number("STUB_MIB", 11264) << 20;
    return more();
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    *current = *pending = (unsigned)number("STUB_MIG", 0);
    return more() ? more() : number("STUB_MIG", -1) < 0 ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceGetEccMode(void *handle, unsigned *current, unsigned *pending) {
    *current = *pending = (unsigned)number("STUB_ECC", 0);
    return more() ? more() : number("STUB_ECC", -1) < 0 ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceGetPersistenceMode(void *handle, unsigned *mode) {
    *mode = 1;
    return more();
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    *milliwatts = (unsigned)number("STUB_LIMIT_MW", 250000);
    return more();
}
int nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *milliwatts) {
    *milliwatts = 250000;
    return more();
}
typedef struct {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
} Process;
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *processes) {
    int pid = number("STUB_PROCESS", 0); /* -1: this program */
    unsigned room = *count;
    if (more())
        return more();
    *count = pid ? 1 : 0;
    if (room < *count)
        return 7; /* insufficient size */
    if (pid)
        processes[0] = (Process){.pid = pid < 0 ? (unsigned)getpid() : (unsigned)pid};
    return SUCCESS;
}
typedef struct { unsigned long long reference_us, violation_ns; } Violation;
int nvmlDeviceGetViolationStatus(void *handle, unsigned policy, Violation *violation) {
    violation->reference_us = 1;
    violation->violation_ns = policy == 0 ? violation_ns : 0; /* 0: power */
    return more();
}
typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned value_type;
    int code;
    union {
        unsigned ui;
        unsigned long long ull;
    } value;
} FieldValue;
int nvmlDeviceGetFieldValues(void *handle, int count, FieldValue *values) {
    int milliwatts = number("STUB_INSTANT_MW", 0);
    for (int i = 0; i < count; i++) {
        values[i].code = milliwatts && values[i].field == 186 ? SUCCESS : NOT_SUPPORTED;
        values[i].value_type = 1; /* unsigned int */
        values[i].value.ui = (unsigned)milliwatts;
    }
    return SUCCESS;
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
void stub_set_violation_ns(unsigned long long value) { violation_ns = value; }
