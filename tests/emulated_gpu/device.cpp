// Memory, streams and events of the emulated card; see device.h.
//
// Never: touch a byte outside an allocation. Each ends at a page that may not be touched, so a kernel's or a matrix
// product's access beyond it ends the process; new memory holds 0xff (NaN) as far as that is cheap.
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <fstream>
#include <map>
#include <set>

namespace device {

std::recursive_mutex lock;
Result lost = SUCCESS;

namespace {

constexpr size_t PAGE = 4096;
// As cuMemAlloc aligns.
constexpr size_t ALIGNMENT = 256;
// Larger allocations are filled with NaN at their beginning only, to leave the rest untouched by the kernel's pages.
constexpr size_t FILLED_BYTES = 64 << 20;

struct Allocation {
    size_t bytes;
    void* map;
    size_t map_bytes;
};

std::map<uint64_t, Allocation> allocations;
std::map<uintptr_t, size_t> pinned;
size_t used;
bool working;
uint64_t busy;
Stream legacy;
std::set<Stream*> streams;
std::set<Event*> events;

size_t round_up(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

uint64_t monotonic_nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

const char* setting(const char* name, const char* otherwise) {
    const char* const value = getenv(name);
    return value != nullptr && *value != 0 ? value : otherwise;
}

template <typename Map, typename Address>
typename Map::const_iterator holding(const Map& map, Address address) {
    auto next = map.upper_bound(address);
    return next == map.begin() ? map.end() : std::prev(next);
}

// The first error of a stream's work is the card's from then on.
Result fault(Result result) {
    if (result != SUCCESS && lost == SUCCESS) {
        lost = result;
    }
    return lost;
}

}  // namespace

size_t card_bytes() {
    return strtoull(setting("EMULATED_GPU_MEMORY", "2147483648"), nullptr, 10);
}

size_t tenant_bytes() {
    size_t bytes = 0;
    std::ifstream(setting("EMULATED_GPU_TENANT", "/nonexistent")) >> bytes;
    return bytes;
}

int driver_version() {
    return atoi(setting("EMULATED_GPU_DRIVER", "13000"));
}

int device_count() {
    return atoi(setting("EMULATED_GPU_COUNT", "1"));
}

void capability(int& major, int& minor) {
    major = minor = 0;
    sscanf(setting("EMULATED_GPU_CAPABILITY", "8.6"), "%d.%d", &major, &minor);
}

Result allocate(uint64_t& pointer, size_t bytes) {
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    if (bytes > free_bytes()) {
        // Memory that queued work gives back is waited for, as the driver does.
        run_everything();
        if (bytes > free_bytes()) {
            return OUT_OF_MEMORY;
        }
    }
    const size_t pages = round_up(bytes, PAGE);
    void* const map = mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0);
    if (map == MAP_FAILED || mprotect(static_cast<char*>(map) + pages, PAGE, PROT_NONE) != 0) {
        return OUT_OF_MEMORY;
    }
    char* const start = static_cast<char*>(map) + pages - round_up(bytes, ALIGNMENT);
    memset(start, 0xff, bytes < FILLED_BYTES ? round_up(bytes, ALIGNMENT) : FILLED_BYTES);
    pointer = reinterpret_cast<uint64_t>(start);
    allocations[pointer] = {bytes, map, pages + PAGE};
    used += bytes;
    return SUCCESS;
}

Result release(uint64_t pointer) {
    const auto found = allocations.find(pointer);
    if (found == allocations.end()) {
        return refuse(INVALID_VALUE, "memory is freed that is not allocated");
    }
    munmap(found->second.map, found->second.map_bytes);
    used -= found->second.bytes;
    allocations.erase(found);
    return SUCCESS;
}

void release_all() {
    while (!allocations.empty()) {
        release(allocations.begin()->first);
    }
}

size_t used_bytes() {
    return used;
}

size_t free_bytes() {
    const size_t taken = used + tenant_bytes();
    return taken < card_bytes() ? card_bytes() - taken : 0;
}

bool is_allocated(uint64_t pointer, size_t bytes) {
    const auto found = holding(allocations, pointer);
    return found != allocations.end() && pointer - found->first <= found->second.bytes &&
           bytes <= found->second.bytes - (pointer - found->first);
}

Result allocate_pinned(void** pointer, size_t bytes) {
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    *pointer = aligned_alloc(PAGE, round_up(bytes, PAGE));
    if (*pointer == nullptr) {
        return OUT_OF_MEMORY;
    }
    memset(*pointer, 0xff, bytes);
    pinned[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
    return SUCCESS;
}

Result release_pinned(void* pointer) {
    if (pinned.erase(reinterpret_cast<uintptr_t>(pointer)) == 0) {
        return refuse(INVALID_VALUE, "host memory is freed that is not pinned");
    }
    // As the driver: the work that may still use it ends first.
    run_everything();
    free(pointer);
    return SUCCESS;
}

bool is_pinned(const void* pointer, size_t bytes) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    const auto found = holding(pinned, address);
    return found != pinned.end() && address - found->first <= found->second &&
           bytes <= found->second - (address - found->first);
}

Stream* new_stream(bool blocking, int priority) {
    Stream* const stream = new Stream();
    stream->blocking = blocking;
    stream->priority = priority;
    streams.insert(stream);
    return stream;
}

Stream* find_stream(void* handle) {
    if (reinterpret_cast<uintptr_t>(handle) <= 2) {
        return &legacy;
    }
    Stream* const stream = static_cast<Stream*>(handle);
    return streams.count(stream) != 0 ? stream : nullptr;
}

Result destroy_stream(Stream* stream) {
    if (streams.erase(stream) == 0) {
        return INVALID_HANDLE;
    }
    run_all(stream);
    for (Event* const event : events) {
        if (event->stream == stream) {
            event->stream = nullptr;
        }
    }
    delete stream;
    return lost;
}

Result put(Stream* stream, Task task) {
    if (lost != SUCCESS) {
        return lost;
    }
    if (stream == &legacy) {
        for (Stream* const other : streams) {
            if (other->blocking) {
                run_all(other);
            }
        }
    } else if (stream->blocking) {
        run_all(&legacy);
    }
    stream->queue.push_back(std::move(task));
    ++stream->put;
    return lost;
}

Result run_one(Stream* stream) {
    if (!stream->queue.empty()) {
        Task task = std::move(stream->queue.front());
        stream->queue.pop_front();
        ++stream->done;
        if (lost == SUCCESS) {
            // A task may run another stream's work; only the outermost is counted.
            const bool outermost = !working;
            working = true;
            const uint64_t started = monotonic_nanoseconds();
            fault(task());
            if (outermost) {
                working = false;
                busy += monotonic_nanoseconds() - started;
            }
        }
    }
    return lost;
}

uint64_t busy_nanoseconds() {
    return busy;
}

Result run_until(Stream* stream, uint64_t position) {
    while (stream->done < position) {
        run_one(stream);
    }
    return lost;
}

Result run_all(Stream* stream) {
    return run_until(stream, stream->put);
}

Result run_everything() {
    run_all(&legacy);
    for (Stream* const stream : streams) {
        run_all(stream);
    }
    return lost;
}

Event* new_event() {
    Event* const event = new Event();
    events.insert(event);
    return event;
}

Event* find_event(void* handle) {
    Event* const event = static_cast<Event*>(handle);
    return events.count(event) != 0 ? event : nullptr;
}

void destroy_event(Event* event) {
    events.erase(event);
    delete event;
}

Result record(Event* event, Stream* stream) {
    const auto milliseconds = std::make_shared<double>(0);
    const Result result = put(stream, [milliseconds] {
        *milliseconds = static_cast<double>(monotonic_nanoseconds()) / 1e6;
        return SUCCESS;
    });
    if (result == SUCCESS) {
        *event = {stream, stream->put, milliseconds};
    }
    return result;
}

Result refuse(Result result, const std::string& why) {
    fprintf(stderr, "emulated GPU: %s\n", why.c_str());
    return result;
}

}  // namespace device
