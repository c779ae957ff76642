// The emulated card behind libcuda.so.1: memory with limits and bounds, streams whose work runs late.
//
// Work put on a stream runs when somebody waits for it (synchronize, an event, a synchronous copy), in order, on the
// thread that waits: a program that forgets to wait sees the old bytes, every time. Pinned memory that a copy will
// write is filled with 0xff at once, and pinned memory that a copy will read is read late.
// Never: answer with success what the driver would refuse.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace device {

// CUresult, from cuda.h.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    NO_BINARY_FOR_GPU = 209,
};

using Task = std::function<Result()>;

struct Stream {
    // Waits for the legacy stream's work and is waited for by it.
    bool blocking = true;
    int priority = 0;
    std::deque<Task> queue;
    uint64_t put = 0, done = 0;
};

struct Event {
    Stream* stream = nullptr;
    // How far the stream must have come; 0: never recorded.
    uint64_t position = 0;
    // When the stream came there; written by the stream's work, so it outlives the event.
    std::shared_ptr<double> milliseconds;
};

// Every entry point holds it. The same thread comes again through a task.
extern std::recursive_mutex lock;
// After a fault every call returns it, until the context is destroyed.
extern Result lost;

// The settings, read from the environment at each use.
size_t card_bytes();
size_t tenant_bytes();
int driver_version();
int device_count();
void capability(int& major, int& minor);

Result allocate(uint64_t& pointer, size_t bytes);
Result release(uint64_t pointer);
void release_all();
size_t used_bytes();
size_t free_bytes();
// The allocation that holds all of these bytes exists.
bool is_allocated(uint64_t pointer, size_t bytes);

Result allocate_pinned(void** pointer, size_t bytes);
Result release_pinned(void* pointer);
bool is_pinned(const void* pointer, size_t bytes);

Stream* new_stream(bool blocking, int priority);
// Null, CU_STREAM_LEGACY and CU_STREAM_PER_THREAD are the legacy stream; nothing is an unknown handle.
Stream* find_stream(void* handle);
Result destroy_stream(Stream* stream);
Result put(Stream* stream, Task task);
Result run_until(Stream* stream, uint64_t position);
Result run_all(Stream* stream);
Result run_everything();
// Runs one piece of work, if there is one.
Result run_one(Stream* stream);
// For how long work has run since the process began.
uint64_t busy_nanoseconds();

Event* new_event();
Event* find_event(void* handle);
void destroy_event(Event* event);
Result record(Event* event, Stream* stream);

// Says on standard error what the driver would keep to itself.
Result refuse(Result result, const std::string& why);

}  // namespace device
