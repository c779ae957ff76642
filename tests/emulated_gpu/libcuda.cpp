// libcuda.so.1 of the emulated GPU: the part of the driver API that this project's crates call.
//
// Settings, by environment: EMULATED_GPU_MEMORY (bytes of the card), EMULATED_GPU_TENANT (a file with the number of
// bytes that somebody else holds, read at each use), EMULATED_GPU_CAPABILITY ("8.6"), EMULATED_GPU_DRIVER ("13000"),
// EMULATED_GPU_COUNT (cards), EMULATED_GPU_LAUNCH_FAILS (the n-th launch of the process returns an error; "n!": and the
// card is lost from then on).
// Never: run a kernel that the given PTX does not hold, or with other arguments or threads than it declares there.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <set>
#include <string>
#include <vector>

#include "device.h"
#include "emulated_kernels.h"

using namespace device;

#define API extern "C" __attribute__((visibility("default"))) int
// The calls of an entry point that needs a context: one at a time, none after a fault.
#define WITH_CONTEXT                                          \
    const std::lock_guard<std::recursive_mutex> guard(lock);  \
    if (!initialised) return NOT_INITIALIZED;                 \
    if (current_context == nullptr) return INVALID_CONTEXT;   \
    if (lost != SUCCESS) return lost

namespace {

struct Function {
    const emulated::Kernel* kernel;
    uint32_t max_threads;
};

struct Module {
    std::string ptx;
    std::vector<Function*> functions;
};

bool initialised;
int primary_uses;
// Its address is the handle.
char primary_context;
thread_local void* current_context;
std::set<Module*> modules;
std::set<Function*> functions;
uint64_t launches;

bool is_device(int ordinal) {
    return ordinal >= 0 && ordinal < device_count();
}

// The text from a kernel's name to the beginning of its body, or nothing.
std::string declaration(const std::string& ptx, const std::string& name) {
    const std::string entry = ".entry " + name;
    const size_t at = ptx.find(entry + "(");
    return at == std::string::npos ? std::string() : ptx.substr(at, ptx.find('{', at) - at);
}

// The number after `word`, or `otherwise`.
uint32_t number_after(const std::string& text, const std::string& word, uint32_t otherwise) {
    const size_t at = text.find(word);
    return at == std::string::npos ? otherwise : static_cast<uint32_t>(atoi(text.c_str() + at + word.size()));
}

// The PTX declares the arguments that the kernel was compiled with for the CPU: `.param .u64 ..., .param .f32 ...`.
bool same_arguments(const std::string& text, const emulated::Kernel& kernel) {
    size_t at = 0, index = 0;
    while ((at = text.find(".param .", at)) != std::string::npos) {
        at += strlen(".param .");
        if (kernel.argument_bytes[index] == 0 || atoi(text.c_str() + at + 1) != 8 * kernel.argument_bytes[index]) {
            return false;
        }
        ++index;
    }
    return kernel.argument_bytes[index] == 0;
}

Result load_module(Module** module, const char* image) {
    const std::string ptx = image;
    const size_t version_at = ptx.find(".version ");
    if (version_at == std::string::npos) {
        return refuse(INVALID_IMAGE, "the module is not PTX text");
    }
    int ptx_major = 0, ptx_minor = 0, major = 0, minor = 0;
    sscanf(ptx.c_str() + version_at, ".version %d.%d", &ptx_major, &ptx_minor);
    // CUDA 13.x speaks PTX 9.x, CUDA 12.x PTX 8.x (PTX ISA, "Release Notes").
    const int driver = driver_version();
    if (ptx_major > driver / 1000 - 4 || (ptx_major == driver / 1000 - 4 && ptx_minor > driver % 1000 / 10)) {
        return refuse(UNSUPPORTED_PTX_VERSION, "the PTX is newer than the driver");
    }
    capability(major, minor);
    const uint32_t target = number_after(ptx, ".target sm_", 0);
    if (target == 0 || target > static_cast<uint32_t>(10 * major + minor)) {
        return refuse(NO_BINARY_FOR_GPU, "the PTX is for compute capability " + std::to_string(target));
    }
    for (size_t index = 0; index < emulated::KERNEL_COUNT; ++index) {
        const emulated::Kernel& kernel = emulated::KERNELS[index];
        const std::string text = declaration(ptx, kernel.name);
        if (text.empty()) {
            return refuse(INVALID_PTX, std::string("the PTX has no kernel ") + kernel.name);
        }
        if (!same_arguments(text, kernel)) {
            return refuse(INVALID_PTX, std::string("the PTX declares other arguments for ") + kernel.name);
        }
    }
    *module = new Module{ptx, {}};
    modules.insert(*module);
    return SUCCESS;
}

Result launch_fails() {
    const char* const setting = getenv("EMULATED_GPU_LAUNCH_FAILS");
    if (setting != nullptr && ++launches == strtoull(setting, nullptr, 10)) {
        if (strchr(setting, '!') != nullptr) {
            lost = LAUNCH_FAILED;
        }
        return LAUNCH_FAILED;
    }
    return SUCCESS;
}

Result launch(const Function& function, const emulated::Grid& grid, Stream* stream, void** arguments) {
    const emulated::Kernel& kernel = *function.kernel;
    const std::string name = kernel.name;
    if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0 || grid.blocks.x > 0x7fffffff ||
        grid.blocks.y > 65535 || grid.blocks.z > 65535) {
        return refuse(INVALID_VALUE, name + ": the grid is empty or too large");
    }
    const uint32_t threads = grid.threads.x * grid.threads.y * grid.threads.z;
    if (threads > function.max_threads) {
        return refuse(LAUNCH_OUT_OF_RESOURCES, name + ": more threads than .maxntid");
    }
    if (threads != kernel.threads || grid.threads.x != threads) {
        return refuse(INVALID_VALUE, name + ": is written for blocks of " + std::to_string(kernel.threads));
    }
    const Result failure = launch_fails();
    if (failure != SUCCESS) {
        return failure;
    }
    // The arguments are read now, the memory behind them later.
    std::vector<uint64_t> values;
    for (size_t index = 0; kernel.argument_bytes[index] != 0; ++index) {
        values.push_back(0);
        memcpy(&values.back(), arguments[index], kernel.argument_bytes[index]);
    }
    return put(stream, [&kernel, grid, values] {
        std::vector<void*> pointers;
        for (size_t index = 0; index < values.size(); ++index) {
            if (kernel.argument_bytes[index] == 8 && !is_allocated(values[index], 1)) {
                return refuse(ILLEGAL_ADDRESS, std::string(kernel.name) + ": argument " + std::to_string(index) +
                                                   " is not a device pointer");
            }
            pointers.push_back(const_cast<uint64_t*>(&values[index]));
        }
        kernel.run(grid, pointers.data());
        return SUCCESS;
    });
}

Result check_range(uint64_t pointer, size_t bytes) {
    return bytes == 0 || is_allocated(pointer, bytes) ? SUCCESS
                                                      : refuse(INVALID_VALUE, "a copy or fill leaves its allocation");
}

Result to_device(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    if (check_range(to, bytes) != SUCCESS) {
        return INVALID_VALUE;
    }
    if (is_pinned(from, bytes)) {
        return put(stream, [to, from, bytes] {
            memcpy(reinterpret_cast<void*>(to), from, bytes);
            return check_range(to, bytes);
        });
    }
    // Pageable memory has been read when the call returns.
    const std::string staged(static_cast<const char*>(from), bytes);
    return put(stream, [to, staged] {
        memcpy(reinterpret_cast<void*>(to), staged.data(), staged.size());
        return SUCCESS;
    });
}

Result to_host(void* to, uint64_t from, size_t bytes, Stream* stream) {
    if (check_range(from, bytes) != SUCCESS) {
        return INVALID_VALUE;
    }
    const bool late = is_pinned(to, bytes);
    if (late) {
        memset(to, 0xff, bytes);
    }
    const Result result = put(stream, [to, from, bytes] {
        memcpy(to, reinterpret_cast<const void*>(from), bytes);
        return SUCCESS;
    });
    // Pageable memory has been written when the call returns.
    return late || result != SUCCESS ? result : run_all(stream);
}

Result within(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    if (check_range(to, bytes) != SUCCESS || check_range(from, bytes) != SUCCESS) {
        return INVALID_VALUE;
    }
    return put(stream, [to, from, bytes] {
        memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
        return SUCCESS;
    });
}

// `pattern` is `size` bytes, repeated `count` times.
Result fill(uint64_t to, uint32_t pattern, size_t size, size_t count, Stream* stream) {
    if (to % size != 0 || count > SIZE_MAX / size || check_range(to, size * count) != SUCCESS) {
        return INVALID_VALUE;
    }
    return put(stream, [to, pattern, size, count] {
        char* const bytes = reinterpret_cast<char*>(to);
        for (size_t index = 0; index < count; ++index) {
            memcpy(bytes + index * size, &pattern, size);
        }
        return SUCCESS;
    });
}

Result now(Result result) {
    return result == SUCCESS ? run_all(find_stream(nullptr)) : result;
}

}  // namespace

// ------------------------------------------------------------------------------ for libcublas and libnvidia-ml

// Puts work on a stream; `task` gets and frees `argument`, and returns a CUresult.
API emulated_gpu_put(void* stream, int (*task)(void*), void* argument) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE
                            : put(found, [task, argument] { return static_cast<Result>(task(argument)); });
}

API emulated_gpu_is_allocated(uint64_t pointer, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return is_allocated(pointer, bytes);
}

extern "C" __attribute__((visibility("default"))) uint64_t emulated_gpu_busy_nanoseconds() {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return busy_nanoseconds();
}

extern "C" __attribute__((visibility("default"))) size_t emulated_gpu_free_bytes() {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return free_bytes();
}

API emulated_gpu_count() {
    return device_count();
}

// ---------------------------------------------------------------------------------------------- device, context

API cuInit(unsigned) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (device_count() <= 0) {
        return NO_DEVICE;
    }
    initialised = true;
    return SUCCESS;
}

API cuDriverGetVersion(int* version) {
    *version = driver_version();
    return SUCCESS;
}

API cuDeviceGetCount(int* count) {
    *count = device_count();
    return initialised ? SUCCESS : NOT_INITIALIZED;
}

API cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return !initialised ? NOT_INITIALIZED : is_device(ordinal) ? SUCCESS : INVALID_DEVICE;
}

API cuDeviceGetName(char* name, int length, int device) {
    snprintf(name, static_cast<size_t>(length), "Emulated GPU");
    return is_device(device) ? SUCCESS : INVALID_DEVICE;
}

API cuDeviceGetUuid_v2(char* uuid, int device) {
    memcpy(uuid, "emulated-gpu-00", 16);
    uuid[15] = static_cast<char>('0' + device);
    return is_device(device) ? SUCCESS : INVALID_DEVICE;
}

API cuDeviceGetUuid(char* uuid, int device) {
    return cuDeviceGetUuid_v2(uuid, device);
}

API cuDeviceTotalMem_v2(size_t* bytes, int device) {
    *bytes = card_bytes();
    return is_device(device) ? SUCCESS : INVALID_DEVICE;
}

API cuDeviceGetPCIBusId(char* id, int length, int device) {
    snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
    return is_device(device) ? SUCCESS : INVALID_DEVICE;
}

API cuDeviceGetAttribute(int* value, int attribute, int device) {
    int major, minor;
    capability(major, minor);
    // CUdevice_attribute, from cuda.h; the numbers of an RTX A2000 12GB.
    switch (attribute) {
        case 1: *value = 1024; break;              // MAX_THREADS_PER_BLOCK
        case 2: case 3: *value = 1024; break;      // MAX_BLOCK_DIM_X, Y
        case 4: *value = 64; break;                // MAX_BLOCK_DIM_Z
        case 5: *value = 0x7fffffff; break;        // MAX_GRID_DIM_X
        case 6: case 7: *value = 65535; break;     // MAX_GRID_DIM_Y, Z
        case 8: *value = 49152; break;             // MAX_SHARED_MEMORY_PER_BLOCK
        case 10: *value = 32; break;               // WARP_SIZE
        case 12: case 82: *value = 65536; break;   // MAX_REGISTERS_PER_BLOCK, _PER_MULTIPROCESSOR
        case 13: *value = 1200000; break;          // CLOCK_RATE, kHz
        case 16: *value = 26; break;               // MULTIPROCESSOR_COUNT
        case 31: case 41: case 78: *value = 1; break;  // CONCURRENT_KERNELS, UNIFIED_ADDRESSING, STREAM_PRIORITIES
        case 36: *value = 6001000; break;          // MEMORY_CLOCK_RATE, kHz
        case 37: *value = 192; break;              // GLOBAL_MEMORY_BUS_WIDTH, bits
        case 38: *value = 3 << 20; break;          // L2_CACHE_SIZE
        case 39: *value = 1536; break;             // MAX_THREADS_PER_MULTIPROCESSOR
        case 75: *value = major; break;            // COMPUTE_CAPABILITY_MAJOR
        case 76: *value = minor; break;            // COMPUTE_CAPABILITY_MINOR
        case 81: *value = 102400; break;           // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        case 97: *value = 101376; break;           // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        case 115: *value = 1; break;               // MEMORY_POOLS_SUPPORTED
        default: *value = 0;
    }
    return is_device(device) ? SUCCESS : INVALID_DEVICE;
}

API cuDevicePrimaryCtxRetain(void** context, int device) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (!initialised || !is_device(device)) {
        return initialised ? INVALID_DEVICE : NOT_INITIALIZED;
    }
    if (lost != SUCCESS) {
        return lost;
    }
    ++primary_uses;
    *context = &primary_context;
    return SUCCESS;
}

API cuDevicePrimaryCtxReset_v2(int) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    run_everything();
    release_all();
    lost = SUCCESS;
    return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (primary_uses == 0) {
        return INVALID_CONTEXT;
    }
    return --primary_uses == 0 ? cuDevicePrimaryCtxReset_v2(device) : SUCCESS;
}

API cuCtxSetCurrent(void* context) {
    if (context != nullptr && context != &primary_context) {
        return INVALID_CONTEXT;
    }
    current_context = context;
    return SUCCESS;
}

API cuCtxGetCurrent(void** context) {
    *context = current_context;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}

API cuCtxSynchronize() {
    WITH_CONTEXT;
    return run_everything();
}

API cuCtxSetFlags(unsigned) {
    return SUCCESS;
}

API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

API cuGetErrorName(int error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case NOT_INITIALIZED: *name = "CUDA_ERROR_NOT_INITIALIZED"; break;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
        case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case NO_BINARY_FOR_GPU: *name = "CUDA_ERROR_NO_BINARY_FOR_GPU"; break;
        case INVALID_PTX: *name = "CUDA_ERROR_INVALID_PTX"; break;
        case UNSUPPORTED_PTX_VERSION: *name = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"; break;
        case FILE_NOT_FOUND: *name = "CUDA_ERROR_FILE_NOT_FOUND"; break;
        case INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case NOT_READY: *name = "CUDA_ERROR_NOT_READY"; break;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case LAUNCH_OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        case NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
        default: *name = nullptr; return INVALID_VALUE;
    }
    return SUCCESS;
}

API cuGetErrorString(int error, const char** text) {
    const int result = cuGetErrorName(error, text);
    // The driver's words where people meet them; else the name.
    if (error == OUT_OF_MEMORY) {
        *text = "out of memory";
    } else if (error == LAUNCH_FAILED) {
        *text = "unspecified launch failure";
    } else if (error == NO_DEVICE) {
        *text = "no CUDA-capable device is detected";
    }
    return result;
}

// ---------------------------------------------------------------------------------------------- memory

API cuMemGetInfo_v2(size_t* available, size_t* total) {
    WITH_CONTEXT;
    *available = free_bytes();
    *total = card_bytes();
    return SUCCESS;
}

API cuMemAlloc_v2(uint64_t* pointer, size_t bytes) {
    WITH_CONTEXT;
    return allocate(*pointer, bytes);
}

API cuMemFree_v2(uint64_t pointer) {
    WITH_CONTEXT;
    run_everything();
    return pointer == 0 ? SUCCESS : release(pointer);
}

API cuMemAllocAsync(uint64_t* pointer, size_t bytes, void*) {
    WITH_CONTEXT;
    return allocate(*pointer, bytes);
}

API cuMemFreeAsync(uint64_t pointer, void* stream) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE : put(found, [pointer] { return release(pointer); });
}

API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    WITH_CONTEXT;
    return allocate_pinned(pointer, bytes);
}

API cuMemAllocHost_v2(void** pointer, size_t bytes) {
    return cuMemHostAlloc(pointer, bytes, 0);
}

API cuMemFreeHost(void* pointer) {
    WITH_CONTEXT;
    return release_pinned(pointer);
}

API cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    WITH_CONTEXT;
    return now(to_device(to, from, bytes, find_stream(nullptr)));
}

API cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    WITH_CONTEXT;
    return now(to_host(to, from, bytes, find_stream(nullptr)));
}

API cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
    WITH_CONTEXT;
    return now(within(to, from, bytes, find_stream(nullptr)));
}

API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE : to_device(to, from, bytes, found);
}

API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE : to_host(to, from, bytes, found);
}

API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE : within(to, from, bytes, found);
}

// Which side an address is on shows in itself: device and host addresses are one space.
API cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    const bool to_card = is_allocated(to, bytes), from_card = is_allocated(from, bytes);
    if (to_card && from_card) {
        return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
    }
    if (to_card) {
        return cuMemcpyHtoDAsync_v2(to, reinterpret_cast<const void*>(from), bytes, stream);
    }
    return from_card ? cuMemcpyDtoHAsync_v2(reinterpret_cast<void*>(to), from, bytes, stream) : INVALID_VALUE;
}

API cuMemcpy(uint64_t to, uint64_t from, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return now(static_cast<Result>(cuMemcpyAsync(to, from, bytes, nullptr)));
}

API cuMemcpyPeerAsync(uint64_t to, void*, uint64_t from, void*, size_t bytes, void* stream) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

#define MEMSET(name, type)                                                                    \
    API name##_v2(uint64_t to, type pattern, size_t count) {                                  \
        WITH_CONTEXT;                                                                         \
        return now(fill(to, pattern, sizeof pattern, count, find_stream(nullptr)));           \
    }                                                                                         \
    API name##Async(uint64_t to, type pattern, size_t count, void* stream) {                  \
        WITH_CONTEXT;                                                                         \
        Stream* const found = find_stream(stream);                                            \
        return found == nullptr ? INVALID_HANDLE : fill(to, pattern, sizeof pattern, count, found); \
    }
MEMSET(cuMemsetD8, uint8_t)
MEMSET(cuMemsetD16, uint16_t)
MEMSET(cuMemsetD32, uint32_t)

// ---------------------------------------------------------------------------------------------- streams, events

API cuStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
    WITH_CONTEXT;
    // CU_STREAM_NON_BLOCKING is 1.
    *stream = new_stream((flags & 1) == 0, priority);
    return SUCCESS;
}

API cuStreamCreate(void** stream, unsigned flags) {
    return cuStreamCreateWithPriority(stream, flags, 0);
}

API cuStreamGetPriority(void* stream, int* priority) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    *priority = found == nullptr ? 0 : found->priority;
    return found == nullptr ? INVALID_HANDLE : SUCCESS;
}

API cuStreamDestroy_v2(void* stream) {
    WITH_CONTEXT;
    return destroy_stream(static_cast<Stream*>(stream));
}

API cuStreamSynchronize(void* stream) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE : run_all(found);
}

API cuStreamQuery(void* stream) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    if (found == nullptr || run_one(found) != SUCCESS) {
        return found == nullptr ? INVALID_HANDLE : lost;
    }
    return found->queue.empty() ? SUCCESS : NOT_READY;
}

API cuStreamIsCapturing(void* stream, int* status) {
    *status = 0;
    return find_stream(stream) == nullptr ? INVALID_HANDLE : SUCCESS;
}

API cuStreamWaitEvent(void* stream, void* event, unsigned) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    Event* const awaited = find_event(event);
    if (found == nullptr || awaited == nullptr) {
        return INVALID_HANDLE;
    }
    Stream* const other = awaited->stream;
    if (other == nullptr || other == found) {
        return SUCCESS;
    }
    const uint64_t position = awaited->position;
    return put(found, [other, position] {
        return find_stream(other) == nullptr ? SUCCESS : run_until(other, position);
    });
}

API cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    WITH_CONTEXT;
    Stream* const found = find_stream(stream);
    return found == nullptr ? INVALID_HANDLE : put(found, [function, data] {
        function(data);
        return SUCCESS;
    });
}

API cuEventCreate(void** event, unsigned) {
    WITH_CONTEXT;
    *event = new_event();
    return SUCCESS;
}

API cuEventRecord(void* event, void* stream) {
    WITH_CONTEXT;
    Event* const found = find_event(event);
    Stream* const on = find_stream(stream);
    return found == nullptr || on == nullptr ? INVALID_HANDLE : record(found, on);
}

API cuEventSynchronize(void* event) {
    WITH_CONTEXT;
    Event* const found = find_event(event);
    if (found == nullptr) {
        return INVALID_HANDLE;
    }
    return found->stream == nullptr ? SUCCESS : run_until(found->stream, found->position);
}

API cuEventQuery(void* event) {
    WITH_CONTEXT;
    Event* const found = find_event(event);
    if (found == nullptr || found->stream == nullptr || found->stream->done >= found->position) {
        return found == nullptr ? INVALID_HANDLE : SUCCESS;
    }
    // Each question brings the work one step on, so that asking in a loop ends.
    run_one(found->stream);
    return lost != SUCCESS ? lost : found->stream->done >= found->position ? SUCCESS : NOT_READY;
}

API cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
    WITH_CONTEXT;
    Event* const from = find_event(start);
    Event* const to = find_event(end);
    if (from == nullptr || to == nullptr || from->milliseconds == nullptr || to->milliseconds == nullptr) {
        return INVALID_HANDLE;
    }
    *milliseconds = static_cast<float>(*to->milliseconds - *from->milliseconds);
    return *from->milliseconds > 0 && *to->milliseconds > 0 ? SUCCESS : NOT_READY;
}

API cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

API cuEventDestroy_v2(void* event) {
    WITH_CONTEXT;
    Event* const found = find_event(event);
    if (found == nullptr) {
        return INVALID_HANDLE;
    }
    destroy_event(found);
    return SUCCESS;
}

// ---------------------------------------------------------------------------------------------- modules, kernels

API cuModuleLoadData(void** module, const void* image) {
    WITH_CONTEXT;
    Module* loaded = nullptr;
    const Result result = load_module(&loaded, static_cast<const char*>(image));
    *module = loaded;
    return result;
}

API cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}

API cuModuleGetFunction(void** function, void* module, const char* name) {
    WITH_CONTEXT;
    Module* const found = static_cast<Module*>(module);
    if (modules.count(found) == 0) {
        return INVALID_HANDLE;
    }
    const std::string text = declaration(found->ptx, name);
    for (size_t index = 0; index < emulated::KERNEL_COUNT && !text.empty(); ++index) {
        if (strcmp(emulated::KERNELS[index].name, name) == 0) {
            Function* const made = new Function{&emulated::KERNELS[index], number_after(text, ".maxntid ", 1024)};
            found->functions.push_back(made);
            functions.insert(made);
            *function = made;
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

API cuModuleUnload(void* module) {
    WITH_CONTEXT;
    Module* const found = static_cast<Module*>(module);
    if (modules.erase(found) == 0) {
        return INVALID_HANDLE;
    }
    run_everything();
    for (Function* const function : found->functions) {
        functions.erase(function);
        delete function;
    }
    delete found;
    return SUCCESS;
}

API cuFuncGetAttribute(int* value, int attribute, void* function) {
    WITH_CONTEXT;
    Function* const found = static_cast<Function*>(function);
    if (functions.count(found) == 0) {
        return INVALID_HANDLE;
    }
    // CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK is 0; the others (shared memory, registers) are the assembler's to know.
    *value = attribute == 0 ? static_cast<int>(found->max_threads) : 0;
    return SUCCESS;
}

API cuFuncSetAttribute(void* function, int, int) {
    WITH_CONTEXT;
    return functions.count(static_cast<Function*>(function)) == 0 ? INVALID_HANDLE : SUCCESS;
}

API cuFuncSetCacheConfig(void* function, int) {
    WITH_CONTEXT;
    return functions.count(static_cast<Function*>(function)) == 0 ? INVALID_HANDLE : SUCCESS;
}

API cuLaunchKernel(void* function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned threads_x,
                   unsigned threads_y, unsigned threads_z, unsigned, void* stream, void** arguments, void** extra) {
    WITH_CONTEXT;
    Function* const found = static_cast<Function*>(function);
    Stream* const on = find_stream(stream);
    if (functions.count(found) == 0 || on == nullptr) {
        return INVALID_HANDLE;
    }
    if (extra != nullptr || arguments == nullptr) {
        return NOT_SUPPORTED;
    }
    return launch(*found, {{blocks_x, blocks_y, blocks_z}, {threads_x, threads_y, threads_z}, 0}, on, arguments);
}
