// libnvidia-ml.so.1 of the emulated GPU: how busy the card is, and how full, as this process has made it.
//
// Utilisation is the share of the time since the last question in which work of the emulated card ran, as NVML's is of
// its own sample period. Never: make a number up. What a CPU cannot know (watts, degrees, clocks) is NOT_SUPPORTED.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define API extern "C" __attribute__((visibility("default"))) int

// Entry points of libcuda.so.1, the last three of the emulated one alone.
extern "C" int cuDeviceTotalMem_v2(size_t* bytes, int device);
extern "C" int cuDeviceGetName(char* name, int length, int device);
extern "C" int cuDeviceGetPCIBusId(char* id, int length, int device);
extern "C" uint64_t emulated_gpu_busy_nanoseconds();
extern "C" size_t emulated_gpu_free_bytes();
extern "C" int emulated_gpu_count();

namespace {

// nvmlReturn_t, from nvml.h.
enum Return { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

struct Utilization {
    unsigned gpu, memory;
};

struct Memory {
    unsigned long long total, free, used;
};

/// What newer programs ask for.
struct MemoryV2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

bool initialised;
uint64_t busy_before, asked_before;

uint64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1000000000 + static_cast<uint64_t>(time.tv_nsec);
}

// A device's handle is its number plus one.
int ordinal(void* device) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(device)) - 1;
}

int check(void* device) {
    return !initialised ? UNINITIALIZED
                        : ordinal(device) >= 0 && ordinal(device) < emulated_gpu_count() ? SUCCESS : INVALID_ARGUMENT;
}

}  // namespace

API nvmlInit_v2() {
    initialised = true;
    busy_before = emulated_gpu_busy_nanoseconds();
    asked_before = now();
    return SUCCESS;
}

API nvmlInitWithFlags(unsigned) {
    return nvmlInit_v2();
}

API nvmlShutdown() {
    initialised = false;
    return SUCCESS;
}

extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(int error) {
    switch (error) {
        case SUCCESS: return "Success";
        case UNINITIALIZED: return "Uninitialized";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        default: return "Unknown Error";
    }
}

API nvmlDeviceGetCount_v2(unsigned* count) {
    *count = static_cast<unsigned>(emulated_gpu_count());
    return initialised ? SUCCESS : UNINITIALIZED;
}

API nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
    *device = reinterpret_cast<void*>(static_cast<uintptr_t>(index) + 1);
    return check(*device);
}

API nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
    for (int index = 0; index < emulated_gpu_count(); ++index) {
        char own[32];
        cuDeviceGetPCIBusId(own, sizeof own, index);
        // NVML writes the domain with eight digits, CUDA with four.
        if (strlen(id) >= strlen(own) && strcmp(id + strlen(id) - strlen(own), own) == 0) {
            return nvmlDeviceGetHandleByIndex_v2(static_cast<unsigned>(index), device);
        }
    }
    return NOT_FOUND;
}

API nvmlDeviceGetName(void* device, char* name, unsigned length) {
    cuDeviceGetName(name, static_cast<int>(length), ordinal(device));
    return check(device);
}

API nvmlDeviceGetUtilizationRates(void* device, Utilization* utilization) {
    const uint64_t busy = emulated_gpu_busy_nanoseconds(), asked = now();
    const uint64_t share = asked > asked_before ? (busy - busy_before) * 100 / (asked - asked_before) : 0;
    busy_before = busy;
    asked_before = asked;
    *utilization = {share < 100 ? static_cast<unsigned>(share) : 100, 0};
    return check(device);
}

API nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
    size_t total = 0;
    cuDeviceTotalMem_v2(&total, ordinal(device));
    *memory = {total, emulated_gpu_free_bytes(), total - emulated_gpu_free_bytes()};
    return check(device);
}

API nvmlDeviceGetMemoryInfo_v2(void* device, MemoryV2* memory) {
    size_t total = 0;
    cuDeviceTotalMem_v2(&total, ordinal(device));
    *memory = {memory->version, total, 0, emulated_gpu_free_bytes(), total - emulated_gpu_free_bytes()};
    return check(device);
}

API nvmlDeviceGetPowerUsage(void*, unsigned*) {
    return NOT_SUPPORTED;
}

API nvmlDeviceGetTemperature(void*, int, unsigned*) {
    return NOT_SUPPORTED;
}

API nvmlDeviceGetClockInfo(void*, int, unsigned*) {
    return NOT_SUPPORTED;
}
