// The emulated streaming multiprocessor: lanes as fibers, collectives, shared memory that shows what is missing.
//
// One block runs at a time. Its warps run one after the other, each until all its lanes stand at a barrier or have
// ended; within a warp, lanes run in turn to the next collective, upwards and downwards alternately, so that no code
// may rely on an order. Fibers are made once (makecontext) and switched by _setjmp and _longjmp, without system calls.
//
// Never: let a grid end well that the hardware might end badly: two warps that use the same place without a barrier
// between are an error whatever comes out. Misuse is an error message and abort().
#include "cuda_on_cpu.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

namespace emulated {

uint3 current_thread, current_block;
Exchange* current_exchange;
int current_lane;
uint64_t bank_conflicts;

namespace {

constexpr size_t STACK_BYTES = 128 << 10;
constexpr size_t GUARD_BYTES = 4 << 10;
// Two NaNs as halves, one as a float.
constexpr unsigned char NOTHING = 0xff;

struct Write {
    uint32_t to, bytes, group;
    int line;
    const void* from;
    unsigned char value[16];
};

struct Access {
    int line;
    uint32_t at, bytes;
};

struct Lane {
    jmp_buf context;
    ucontext_t start;
    bool started;
    uint3 thread;
    std::vector<Write> stores, copies;
    uint32_t group;
    // Since the last collective, to count bank conflicts over the warp.
    std::vector<Access> accesses;
};

struct Warp {
    Exchange exchange;
    // Lanes that came to the collective at hand, which one that is, and the caller's line.
    int arrived;
    Collective collective;
    int line;
    bool upwards;
};

// Who touched four bytes of shared memory last, and in which stretch between barriers.
struct Touch {
    uint64_t written, read;
    // Numbers of warps; readers may be several.
    uint32_t writer, reader;
};

struct SharedArray {
    int line;
    size_t offset, bytes;
};

std::vector<Lane*> lanes;
std::vector<Warp> warps;
size_t warp_at;
// A lane of the running warp touched shared memory since the last collective.
bool accessed;
jmp_buf scheduler;
void (*kernel)(const void*);
const void* kernel_arguments;

alignas(1024) unsigned char shared[MAX_SHARED];
std::vector<SharedArray> shared_arrays;
size_t shared_used;
constexpr uint32_t SEVERAL = UINT32_MAX;
Touch touches[MAX_SHARED / 4];
// Counts the barriers of all blocks; starts above the zeros in `touches`.
uint64_t stretch = 1;

[[noreturn]] void fail(const char* what, int line, int other = 0) {
    fprintf(stderr, "emulated GPU: block (%u, %u), thread %u: %s (line %d, %d)\n", current_block.x, current_block.y,
            current_thread.x, what, line, other);
    abort();
}

Lane& lane_now() {
    return *lanes[warp_at * WARP_LANES + static_cast<size_t>(current_lane)];
}

void switch_to(int lane_index) {
    current_lane = lane_index;
    Lane& lane = lane_now();
    current_thread = lane.thread;
    if (lane.started) {
        _longjmp(lane.context, 1);
    }
    lane.started = true;
    setcontext(&lane.start);
}

void fiber() {
    for (;;) {
        kernel(kernel_arguments);
        meet(Collective::Exit, 0);
    }
}

void check_range(uint32_t at, uint32_t bytes, int line) {
    if (at % bytes != 0 || at + bytes > shared_used) {
        fail("a shared access is misaligned or out of bounds", line);
    }
}

// What another warp wrote, or is to write what it reads, needs a barrier between: the hardware keeps no order there.
void touch(uint32_t at, uint32_t bytes, bool writes, int line) {
    const uint32_t warp = static_cast<uint32_t>(warp_at);
    for (uint32_t word = at / 4; word < (at + bytes + 3) / 4; ++word) {
        Touch& last = touches[word];
        if ((last.written == stretch && last.writer != warp) ||
            (writes && last.read == stretch && last.reader != warp)) {
            fail("two warps use the same shared memory without a barrier between them", line);
        }
        if (writes) {
            last.written = stretch;
            last.writer = warp;
        } else {
            last.reader = last.read == stretch && last.reader != warp ? SEVERAL : warp;
            last.read = stretch;
        }
    }
}

void land(std::vector<Write>& writes, uint32_t groups_before) {
    size_t kept = 0;
    for (Write& write : writes) {
        if (write.group >= groups_before) {
            writes[kept++] = write;
            continue;
        }
        if (write.from != nullptr) {
            memcpy(write.value, write.from, write.bytes);
            // A copy takes from its start to its wait.
            touch(write.to, 16, true, write.line);
        }
        memcpy(shared + write.to, write.value, write.from != nullptr ? 16 : write.bytes);
    }
    writes.resize(kept);
}

void note_access(Lane& lane, int line, uint32_t at, uint32_t bytes) {
    lane.accesses.push_back({line, at, bytes});
    accessed = true;
}

// Extra cycles of one access by `count` lanes: the hardware serves 128 bytes a cycle if no bank is asked twice for
// different words.
uint64_t conflicts(const uint32_t* at, int count, uint32_t bytes) {
    const int phase = static_cast<int>(128 / bytes);
    uint64_t extra = 0;
    for (int first = 0; first < count; first += phase) {
        uint64_t worst = 1;
        for (int i = first; i < first + phase && i < count; ++i) {
            uint64_t same_bank = 0;
            for (int j = first; j <= i; ++j) {
                bool counted = at[j] % 128 == at[i] % 128;
                for (int k = first; k < j; ++k) {
                    counted = counted && at[k] != at[j];
                }
                same_bank += counted;
            }
            worst = same_bank > worst ? same_bank : worst;
        }
        extra += worst - 1;
    }
    return extra;
}

// Accesses that all lanes made since the last collective, in the same order.
void count_conflicts() {
    if (!accessed) {
        return;
    }
    accessed = false;
    Lane** const first = &lanes[warp_at * WARP_LANES];
    for (size_t index = 0; index < first[0]->accesses.size(); ++index) {
        uint32_t at[WARP_LANES];
        int count = 0;
        for (int lane = 0; lane < WARP_LANES; ++lane) {
            const std::vector<Access>& accesses = first[lane]->accesses;
            if (accesses.size() == first[0]->accesses.size() &&
                accesses[index].line == first[0]->accesses[index].line) {
                at[count++] = accesses[index].at;
            }
        }
        bank_conflicts += conflicts(at, count, first[0]->accesses[index].bytes);
    }
    for (int lane = 0; lane < WARP_LANES; ++lane) {
        first[lane]->accesses.clear();
    }
}

// The fragments' layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". Lane 4g + t holds
// rows g and g + 8, columns 2t, 2t + 1 (and + 8) of a; rows 2t, 2t + 1 (and + 8), column g of b.
void mma(Exchange& all) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < WARP_LANES; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) {
            const int row = g + i % 2 * 8, column = 2 * t + i / 2 * 8;
            a[row][column] = from_half(all.in[i][lane] & 0xffff);
            a[row][column + 1] = from_half(all.in[i][lane] >> 16);
        }
        for (int i = 0; i < 2; ++i) {
            b[2 * t + 8 * i][g] = from_half(all.in[4 + i][lane] & 0xffff);
            b[2 * t + 8 * i + 1][g] = from_half(all.in[4 + i][lane] >> 16);
        }
        for (int i = 0; i < 4; ++i) {
            d[g + i / 2 * 8][2 * t + i % 2] = float_of(all.in[6 + i][lane]);
        }
    }
    for (int row = 0; row < 16; ++row) {
        for (int k = 0; k < 16; ++k) {
            for (int column = 0; column < 8; ++column) {
                d[row][column] += a[row][k] * b[k][column];
            }
        }
    }
    for (int lane = 0; lane < WARP_LANES; ++lane) {
        for (int i = 0; i < 4; ++i) {
            all.out[i][lane] = bits_of(d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2]);
        }
    }
}

void ldmatrix(Exchange& all, bool transposed, int line) {
    for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t elements[8][8];
        for (int row = 0; row < 8; ++row) {
            const uint32_t at = all.in[0][8 * matrix + row];
            check_range(at, 16, line);
            touch(at, 16, false, line);
            memcpy(elements[row], shared + at, 16);
        }
        bank_conflicts += conflicts(&all.in[0][8 * matrix], 8, 16);
        for (int lane = 0; lane < WARP_LANES; ++lane) {
            const int row = lane / 4, column = 2 * (lane % 4);
            const uint32_t low = transposed ? elements[column][row] : elements[row][column];
            const uint32_t high = transposed ? elements[column + 1][row] : elements[row][column + 1];
            all.out[matrix][lane] = low | high << 16;
        }
    }
}

// All lanes have come: what the collective does.
void perform(Warp& warp) {
    Exchange& all = warp.exchange;
    count_conflicts();
    switch (warp.collective) {
        case Collective::WarpBarrier:
        case Collective::Barrier:
            for (int lane = 0; lane < WARP_LANES; ++lane) {
                land(lanes[warp_at * WARP_LANES + static_cast<size_t>(lane)]->stores, 1);
            }
            break;
        case Collective::Shuffle:
            for (int lane = 0; lane < WARP_LANES; ++lane) {
                if (all.in[1][lane] != all.in[1][0] || all.in[1][lane] >= WARP_LANES) {
                    fail("lanes shuffle over different distances", warp.line);
                }
                all.out[0][lane] = all.in[0][static_cast<uint32_t>(lane) ^ all.in[1][lane]];
            }
            break;
        case Collective::Any: {
            uint32_t any = 0;
            for (int lane = 0; lane < WARP_LANES; ++lane) {
                any |= all.in[0][lane];
            }
            for (int lane = 0; lane < WARP_LANES; ++lane) {
                all.out[0][lane] = any;
            }
            break;
        }
        case Collective::Mma:
            mma(all);
            break;
        case Collective::Ldmatrix:
        case Collective::LdmatrixTransposed:
            ldmatrix(all, warp.collective == Collective::LdmatrixTransposed, warp.line);
            break;
        case Collective::Exit:
            break;
    }
}

void grow(size_t threads) {
    while (lanes.size() < threads) {
        // A page that may not be touched before each stack: an overflow ends the process there and then.
        void* memory = mmap(nullptr, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) {
            perror("emulated GPU: stack of a lane");
            abort();
        }
        lanes.push_back(new Lane());
        ucontext_t& start = lanes.back()->start;
        getcontext(&start);
        start.uc_stack.ss_sp = static_cast<char*>(memory) + GUARD_BYTES;
        start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&start, fiber, 0);
    }
}

// Runs a warp until its lanes stand at a barrier or have ended.
void run_warp(size_t index) {
    warp_at = index;
    Warp& warp = warps[index];
    current_exchange = &warp.exchange;
    if (_setjmp(scheduler) == 0) {
        switch_to(warp.upwards ? 0 : WARP_LANES - 1);
    }
}

void run_block(size_t warp_count, bool upwards) {
    memset(shared, NOTHING, sizeof shared);
    shared_arrays.clear();
    shared_used = 0;
    for (size_t index = 0; index < warp_count; ++index) {
        warps[index].arrived = 0;
        warps[index].upwards = upwards;
    }
    for (;;) {
        ++stretch;
        for (size_t turn = 0; turn < warp_count; ++turn) {
            run_warp(upwards ? turn : warp_count - 1 - turn);
        }
        for (size_t index = 1; index < warp_count; ++index) {
            if (warps[index].collective != warps[0].collective || warps[index].line != warps[0].line) {
                fail("warps stand at different barriers, or have ended", warps[0].line, warps[index].line);
            }
        }
        if (warps[0].collective == Collective::Exit) {
            return;
        }
    }
}

}  // namespace

void meet(Collective collective, int line) {
    Warp& warp = warps[warp_at];
    if (warp.arrived == 0) {
        warp.collective = collective;
        warp.line = line;
    } else if (warp.collective != collective || warp.line != line) {
        fail("lanes of a warp stand at different collectives", line, warp.line);
    }
    ++warp.arrived;
    const bool all = warp.arrived == WARP_LANES;
    if (all) {
        perform(warp);
        warp.arrived = 0;
        // The last lane goes on: the next round runs the other way.
        warp.upwards = !warp.upwards;
        if (collective != Collective::Barrier && collective != Collective::Exit) {
            return;
        }
    }
    if (_setjmp(lane_now().context) == 0) {
        if (all) {
            _longjmp(scheduler, 1);
        }
        switch_to(current_lane + (warp.upwards ? 1 : -1));
    }
}

void* shared_bytes(size_t bytes, int line) {
    for (const SharedArray& array : shared_arrays) {
        if (array.line == line) {
            return shared + array.offset;
        }
    }
    const size_t offset = (shared_used + 127) / 128 * 128;
    if (offset + bytes > MAX_SHARED) {
        fail("more static shared memory than 48 KB", line);
    }
    shared_arrays.push_back({line, offset, bytes});
    shared_used = offset + bytes;
    return shared + offset;
}

uint32_t shared_offset(const void* pointer) {
    return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - shared);
}

void store_shared(uint32_t to, const void* from, uint32_t bytes, int line) {
    check_range(to, bytes, line);
    touch(to, bytes, true, line);
    Write write{to, bytes, 0, line, nullptr, {}};
    memcpy(write.value, from, bytes);
    memset(shared + to, NOTHING, bytes);
    Lane& lane = lane_now();
    lane.stores.push_back(write);
    note_access(lane, line, to, bytes);
}

void load_shared(void* to, uint32_t from, uint32_t bytes, int line) {
    check_range(from, bytes, line);
    touch(from, bytes, false, line);
    Lane& lane = lane_now();
    // A lane sees its own stores at once.
    land(lane.stores, 1);
    memcpy(to, shared + from, bytes);
    note_access(lane, line, from, bytes);
}

void start_copy(uint32_t to, const void* from, uint32_t bytes, int line) {
    check_range(to, 16, line);
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0 || (bytes != 0 && bytes != 16)) {
        fail("a cp.async is misaligned or of a strange size", line);
    }
    touch(to, 16, true, line);
    memset(shared + to, NOTHING, 16);
    Lane& lane = lane_now();
    lane.copies.push_back({to, bytes, lane.group, line, from, {}});
    note_access(lane, line, to, 16);
}

void commit_copies() {
    ++lane_now().group;
}

void wait_for_copies(uint32_t pending_groups) {
    Lane& lane = lane_now();
    land(lane.copies, lane.group > pending_groups ? lane.group - pending_groups : 0);
}

void run(const Grid& grid, void (*body)(const void*), const void* arguments) {
    const size_t threads = grid.threads.x;
    if (threads == 0 || threads % WARP_LANES != 0 || grid.threads.y != 1 || grid.threads.z != 1) {
        fprintf(stderr, "emulated GPU: a block of %ux%ux%u threads is not whole warps in one dimension\n",
                grid.threads.x, grid.threads.y, grid.threads.z);
        abort();
    }
    grow(threads);
    warps.resize(threads / WARP_LANES);
    kernel = body;
    kernel_arguments = arguments;
    bool upwards = true;
    for (uint32_t z = 0; z < grid.blocks.z; ++z) {
        for (uint32_t y = 0; y < grid.blocks.y; ++y) {
            for (uint32_t x = grid.first_block; x < grid.blocks.x; ++x) {
                current_block = {x, y, z};
                for (size_t index = 0; index < threads; ++index) {
                    lanes[index]->thread = {static_cast<uint32_t>(index), 0, 0};
                    lanes[index]->stores.clear();
                    lanes[index]->copies.clear();
                    lanes[index]->accesses.clear();
                    lanes[index]->group = 0;
                }
                run_block(threads / WARP_LANES, upwards);
                upwards = !upwards;
            }
        }
    }
}

}  // namespace emulated
