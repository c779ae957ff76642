// Runs each kernel on the emulated GPU against a plain reference in double precision.
//
// Rows that a kernel must not read are NaN, rows that it must not write hold a pattern that is looked for afterwards,
// and after an array's end comes a page that nobody may touch; attention must also cause no bank conflict. Prints one
// line a check, ends with 1 if any failed.
// Never: take a tolerance from what the kernel happens to give. Each is derived from fp16's and fp32's roundings.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <random>
#include <string>
#include <vector>

#include "emulated_kernels.h"

using emulated::from_half;
using emulated::to_half;

namespace {

// Half a unit in the last place, relative.
constexpr double HALF_ROUNDING = 1.0 / 2048;
// Queries of a tile of the attention kernels.
constexpr uint32_t TILE = 128;
constexpr uint16_t CANARY = 0x5a5a;
constexpr uint16_t HALF_NAN = 0x7e00;

int failures = 0;
std::mt19937 generator(7);

double normal(double deviation) {
    return std::normal_distribution<double>(0, deviation)(generator);
}

// Memory that ends where a page begins that may not be touched: to access an array beyond its end is a crash. Aligned
// to 16 bytes, which is all that the kernels ask for.
template <typename T>
struct Guarded {
    using value_type = T;

    static size_t pages(size_t count) {
        return (count * sizeof(T) + 4095) / 4096 * 4096;
    }

    T* allocate(size_t count) {
        char* const map = static_cast<char*>(mmap(nullptr, pages(count) + 4096, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (map == MAP_FAILED || mprotect(map + pages(count), 4096, PROT_NONE) != 0) {
            perror("mmap");
            exit(1);
        }
        return reinterpret_cast<T*>(map + pages(count) - (count * sizeof(T) + 15) / 16 * 16);
    }

    void deallocate(T* array, size_t count) {
        const uintptr_t page = reinterpret_cast<uintptr_t>(array) / 4096 * 4096;
        munmap(reinterpret_cast<void*>(page), pages(count) + 4096);
    }

    bool operator==(const Guarded&) const {
        return true;
    }

    bool operator!=(const Guarded&) const {
        return false;
    }
};

using Halves = std::vector<uint16_t, Guarded<uint16_t>>;
using Floats = std::vector<float, Guarded<float>>;
using Numbers = std::vector<uint32_t, Guarded<uint32_t>>;

Halves random_halves(size_t count, double deviation) {
    Halves halves(count);
    for (uint16_t& half : halves) {
        half = emulated::to_finite_half(static_cast<float>(normal(deviation)));
    }
    return halves;
}

Floats random_floats(size_t count, double deviation, double mean = 0) {
    Floats floats(count);
    for (float& x : floats) {
        x = static_cast<float>(mean + normal(deviation));
    }
    return floats;
}

template <typename... Arguments>
void launch_from(uint32_t first_block, const std::string& name, uint32_t blocks_x, uint32_t blocks_y,
                 Arguments... arguments) {
    void* pointers[] = {&arguments...};
    for (size_t index = 0; index < emulated::KERNEL_COUNT; ++index) {
        const emulated::Kernel& kernel = emulated::KERNELS[index];
        if (kernel.name == name) {
            kernel.run({{blocks_x, blocks_y, 1}, {kernel.threads, 1, 1}, first_block}, pointers);
            return;
        }
    }
    fprintf(stderr, "no kernel is named %s\n", name.c_str());
    exit(1);
}

template <typename... Arguments>
void launch(const std::string& name, uint32_t blocks_x, uint32_t blocks_y, Arguments... arguments) {
    launch_from(0, name, blocks_x, blocks_y, arguments...);
}

// The largest error of a check in units of what is allowed there.
class Check {
  public:
    explicit Check(std::string name) : name(std::move(name)) {}

    void compare(double value, double expected, double allowed, const char* what, size_t row, size_t column) {
        const double share = fabs(value - expected) / allowed;
        if (!(share <= 1) && failed++ == 0) {
            printf("  %s [%zu, %zu] is %.9g, not %.9g (allowed %.3g)\n", what, row, column, value, expected, allowed);
        }
        worst = share > worst ? share : worst;
        ++compared;
    }

    void same(bool is, const char* what) {
        if (!is && failed++ == 0) {
            printf("  %s\n", what);
        }
    }

    ~Check() {
        printf("%-7s %s: %zu numbers, largest error %.2f of the allowed\n", failed == 0 ? "ok" : "FAILED", name.c_str(),
               compared, worst);
        failures += failed != 0;
    }

  private:
    std::string name;
    double worst = 0;
    size_t compared = 0, failed = 0;
};

double round_to_half(double x) {
    return from_half(emulated::to_finite_half(static_cast<float>(x)));
}

// A number as the kernels' sums take it: what overflowed before counts as the largest finite number.
double finite(uint16_t half) {
    return fmax(fmin(from_half(half), 65504.0), -65504.0);
}

bool holds_canary(const Halves& halves, size_t from, size_t to) {
    for (size_t index = from; index < to; ++index) {
        if (halves[index] != CANARY) {
            return false;
        }
    }
    return true;
}

// ---------------------------------------------------------------------------------------------- attention

struct AttentionCase {
    std::vector<uint32_t> lengths;
    uint32_t head_size, heads;
    double query, key, value;
};

void check_attention(const AttentionCase& at) {
    std::string name = "attention, head size " + std::to_string(at.head_size) + ", lengths";
    for (const uint32_t length : at.lengths) {
        name += " " + std::to_string(length);
    }
    char scales[80];
    snprintf(scales, sizeof scales, ", deviations %g %g %g", at.query, at.key, at.value);
    Check check(name + scales);

    // Three rows of NaN stand before and between the texts; after the last there is nothing.
    constexpr uint32_t GAP = 3;
    const size_t hidden = at.heads * at.head_size, stride = 3 * hidden;
    Numbers tiles;
    std::vector<uint32_t> starts;
    uint32_t rows = GAP;
    for (const uint32_t length : at.lengths) {
        starts.push_back(rows);
        for (uint32_t query = 0; query < length; query += TILE) {
            tiles.insert(tiles.end(), {rows, length, query});
        }
        rows += length + GAP;
    }
    rows -= GAP;
    Halves qkv(rows * stride, HALF_NAN), context(rows * hidden, CANARY);
    const Floats bias = random_floats(hidden, at.query / 2);
    for (size_t text = 0; text < at.lengths.size(); ++text) {
        for (size_t row = starts[text]; row < starts[text] + at.lengths[text]; ++row) {
            for (size_t column = 0; column < stride; ++column) {
                const double deviation = column < hidden ? at.query : column < 2 * hidden ? at.key : at.value;
                qkv[row * stride + column] = emulated::to_finite_half(static_cast<float>(normal(deviation)));
            }
        }
    }
    const uint64_t conflicts = emulated::bank_conflicts;
    launch(at.head_size == 32 ? "attention_head32" : "attention_head64", static_cast<uint32_t>(tiles.size() / 3),
           at.heads, reinterpret_cast<__half*>(context.data()), reinterpret_cast<const __half*>(qkv.data()),
           bias.data(), static_cast<const uint32_t*>(tiles.data()), at.heads);
    check.same(emulated::bank_conflicts == conflicts, "shared memory had bank conflicts");

    size_t written_to = 0;
    for (size_t text = 0; text < at.lengths.size(); ++text) {
        const size_t length = at.lengths[text], start = starts[text];
        check.same(holds_canary(context, written_to * hidden, start * hidden), "a row before a text was written");
        written_to = start + length;
        std::vector<double> weights(length), query(at.head_size), expected(at.head_size), size(at.head_size);
        for (size_t head = 0; head < at.heads; ++head) {
            const uint16_t* const text_qkv = &qkv[start * stride + head * at.head_size];
            double largest_value = 0;
            for (size_t row = 0; row < length; ++row) {
                for (size_t d = 0; d < at.head_size; ++d) {
                    largest_value = fmax(largest_value, fabs(from_half(text_qkv[row * stride + 2 * hidden + d])));
                }
            }
            // Long texts are compared in every third query, the first and the last: 3 does not divide 16 or 128.
            for (size_t row = 0; row < length; row += length > 200 && row + 3 < length ? 3 : 1) {
                // The kernel's one rounding of the query belongs to the function: at large scores it decides.
                for (size_t d = 0; d < at.head_size; ++d) {
                    const float biased = from_half(text_qkv[row * stride + d]) + bias[head * at.head_size + d];
                    query[d] = round_to_half(biased * 1.44269504f);
                }
                double maximum = -INFINITY, sum = 0, largest_score = 0;
                for (size_t key = 0; key < length; ++key) {
                    weights[key] = 0;
                    double terms = 0;
                    for (size_t d = 0; d < at.head_size; ++d) {
                        const double term = query[d] * from_half(text_qkv[key * stride + hidden + d]);
                        weights[key] += term;
                        terms += fabs(term);
                    }
                    maximum = fmax(maximum, weights[key]);
                    largest_score = fmax(largest_score, terms);
                }
                for (size_t d = 0; d < at.head_size; ++d) {
                    expected[d] = size[d] = 0;
                }
                for (size_t key = 0; key < length; ++key) {
                    const double weight = exp2(weights[key] - maximum);
                    sum += weight;
                    for (size_t d = 0; d < at.head_size; ++d) {
                        const double value = from_half(text_qkv[key * stride + 2 * hidden + d]);
                        expected[d] += weight * value;
                        size[d] += weight * fabs(value);
                    }
                }
                // fp32 sums of `head size` products, in the exponent, on both sides of the quotient.
                const double exponent = largest_score * static_cast<double>(at.head_size + 4) * ldexp(1, -24);
                for (size_t d = 0; d < at.head_size; ++d) {
                    const double roundings = 2.2 * HALF_ROUNDING * size[d] / sum;
                    const double subnormals = (static_cast<double>(length) / sum * ldexp(1, -25)) * largest_value;
                    const double allowed = roundings + subnormals + ldexp(1, -24) +
                                           fmin(1, 2 * expm1(fmin(exponent, 1))) * (size[d] / sum + largest_value / 64);
                    check.compare(from_half(context[(start + row) * hidden + head * at.head_size + d]),
                                  expected[d] / sum, allowed, "context", row, head * at.head_size + d);
                }
            }
        }
    }
}

// One key outweighs all others by far: its value comes out as it is, however large the numbers are.
void check_attention_extremes(uint32_t head_size) {
    Check check("attention, head size " + std::to_string(head_size) + ", the largest finite numbers");
    const size_t stride = 3 * head_size, length = 70;
    Halves qkv(length * stride), context(length * head_size, CANARY);
    for (size_t row = 0; row < length; ++row) {
        for (size_t d = 0; d < head_size; ++d) {
            qkv[row * stride + d] = to_half(65504);
            qkv[row * stride + head_size + d] = to_half(row == 66 ? 65504 : -60000);
            qkv[row * stride + 2 * head_size + d] = to_half(row == 66 ? -65504 : 65504);
        }
    }
    const Floats bias(head_size, 1e9f);
    const uint32_t tiles[] = {0, 70, 0};
    launch(head_size == 32 ? "attention_head32" : "attention_head64", 1, 1, reinterpret_cast<__half*>(context.data()),
           reinterpret_cast<const __half*>(qkv.data()), bias.data(), static_cast<const uint32_t*>(tiles), 1u);
    for (size_t index = 0; index < context.size(); ++index) {
        check.compare(from_half(context[index]), -65504, 1e-3, "context", index / head_size, index % head_size);
    }
}

// ---------------------------------------------------------------------------------------------- layer norm

// `sums` is what is normalised; `sizes` the sum of the terms' sizes, which fp32's roundings are relative to.
void compare_normalised(Check& check, const std::vector<double>& sums, const std::vector<double>& sizes,
                        const float* gain, const float* shift, float eps, const uint16_t* row, size_t index) {
    const double count = static_cast<double>(sums.size());
    double mean = 0, variance = 0, size = 0;
    for (size_t column = 0; column < sums.size(); ++column) {
        mean += sums[column] / count;
        size = fmax(size, sizes[column]);
    }
    for (const double x : sums) {
        variance += (x - mean) * (x - mean) / count;
    }
    const double scale = 1 / sqrt(variance + static_cast<double>(eps));
    for (size_t column = 0; column < sums.size(); ++column) {
        const double normalised = (sums[column] - mean) * scale;
        const double expected = normalised * gain[column] + shift[column];
        const double single = ldexp(8, -24) * (size * scale * (1 + fabs(normalised)) * fabs(gain[column]) +
                                               fabs(normalised * gain[column]) + fabs(shift[column]));
        const double allowed = HALF_ROUNDING * fabs(expected) + single + ldexp(1, -24);
        check.compare(from_half(row[column]), fmax(fmin(expected, 65504), -65504), allowed, "row", index, column);
    }
}

void check_layer_norm(uint32_t tokens, uint32_t hidden, double deviation) {
    Check check("bias_residual_layer_norm, " + std::to_string(tokens) + " rows of " + std::to_string(hidden) +
                ", deviation " + std::to_string(deviation));
    const size_t count = static_cast<size_t>(tokens) * hidden;
    Halves x = random_halves(count, deviation), residual = random_halves(count, deviation);
    if (deviation > 1e4) {
        // A matrix product that overflowed.
        x[0] = 0x7c00;
        x[count - 1] = 0xfc00;
    }
    const Halves before = x;
    Floats parameters = random_floats(hidden, deviation / 10);
    for (const float gain : random_floats(hidden, 0.5, 1)) {
        parameters.push_back(gain);
    }
    for (const float shift : random_floats(hidden, 0.5)) {
        parameters.push_back(shift);
    }
    launch("bias_residual_layer_norm", (tokens + 7) / 8, 1, reinterpret_cast<__half*>(x.data()),
           reinterpret_cast<const __half*>(residual.data()), static_cast<const float*>(parameters.data()), tokens,
           hidden, 1e-12f);
    std::vector<double> sums(hidden), sizes(hidden);
    for (size_t row = 0; row < tokens; ++row) {
        for (size_t column = 0; column < hidden; ++column) {
            const double own = finite(before[row * hidden + column]), other = finite(residual[row * hidden + column]);
            sums[column] = own + other + parameters[column];
            sizes[column] = fabs(own) + fabs(other) + fabs(parameters[column]);
        }
        compare_normalised(check, sums, sizes, &parameters[hidden], &parameters[2 * hidden], 1e-12f, &x[row * hidden],
                           row);
    }
}

void check_embed_layer_norm(uint32_t tokens, uint32_t hidden) {
    Check check("embed_layer_norm, " + std::to_string(tokens) + " rows of " + std::to_string(hidden));
    const uint32_t vocabulary = 50, places = 20;
    const Halves words = random_halves(vocabulary * hidden, 0.1), positions = random_halves(places * hidden, 0.1);
    Halves out(tokens * hidden, CANARY);
    Numbers ids(tokens), position_ids(tokens);
    for (size_t token = 0; token < tokens; ++token) {
        ids[token] = generator() % vocabulary;
        position_ids[token] = generator() % places;
    }
    ids[0] = vocabulary - 1;
    position_ids[0] = places - 1;
    Floats parameters(hidden, 0);
    for (const float gain : random_floats(2 * hidden, 0.5, 1)) {
        parameters.push_back(gain);
    }
    launch("embed_layer_norm", (tokens + 7) / 8, 1, reinterpret_cast<__half*>(out.data()),
           reinterpret_cast<const __half*>(words.data()), reinterpret_cast<const __half*>(positions.data()),
           static_cast<const uint32_t*>(ids.data()), static_cast<const uint32_t*>(position_ids.data()),
           static_cast<const float*>(parameters.data()), tokens, hidden, 1e-5f);
    std::vector<double> sums(hidden), sizes(hidden);
    for (size_t row = 0; row < tokens; ++row) {
        for (size_t column = 0; column < hidden; ++column) {
            const double word = from_half(words[ids[row] * hidden + column]);
            const double position = from_half(positions[position_ids[row] * hidden + column]);
            sums[column] = word + position;
            sizes[column] = fabs(word) + fabs(position);
        }
        compare_normalised(check, sums, sizes, &parameters[hidden], &parameters[2 * hidden], 1e-5f, &out[row * hidden],
                           row);
    }
}

// ---------------------------------------------------------------------------------------------- GELU, pooling

double gelu(double x) {
    return 0.5 * x * erfc(-x / sqrt(2.0));
}

void check_gelu(uint32_t rows, uint32_t columns, bool every_half) {
    Check check("bias_gelu, " + std::to_string(rows) + " rows of " + std::to_string(columns));
    const size_t count = static_cast<size_t>(rows) * columns;
    Halves x = random_halves(count, 2);
    Floats bias = random_floats(columns, 1);
    if (every_half) {
        // 2^16 of them: all numbers and both infinities; the NaNs become zeros.
        for (size_t index = 0; index < count; ++index) {
            const uint16_t bits = static_cast<uint16_t>(index);
            x[index] = (bits & 0x7fff) > 0x7c00 ? 0 : bits;
        }
        bias.assign(columns, 0);
    }
    const Halves before = x;
    launch("bias_gelu", static_cast<uint32_t>((count / 8 + 255) / 256), 1, reinterpret_cast<__half*>(x.data()),
           static_cast<const float*>(bias.data()), rows, columns);
    for (size_t index = 0; index < count; ++index) {
        const double sum = finite(before[index]) + bias[index % columns];
        // The polynomial is within 1.5e-7 of erfc, of which half, times x, is taken; fp32's roundings are less.
        const double allowed = HALF_ROUNDING * fabs(gelu(sum)) + 2e-7 * fmin(fabs(sum), 8) + ldexp(1, -24);
        check.compare(from_half(x[index]), fmin(gelu(sum), 65504), allowed, "gelu", index / columns, index % columns);
    }
}

void check_pooling(const std::vector<uint32_t>& lengths, uint32_t hidden, bool cls, double deviation) {
    Check check("pool_normalise, " + std::to_string(lengths.size()) + " texts of " + std::to_string(hidden) +
                (cls ? ", first token" : ", mean") + ", deviation " + std::to_string(deviation));
    Numbers starts = {2};
    for (const uint32_t length : lengths) {
        starts.push_back(starts.back() + length);
    }
    Halves states(static_cast<size_t>(starts.back()) * hidden, HALF_NAN);
    for (size_t index = 2 * hidden; index < states.size(); ++index) {
        states[index] = emulated::to_finite_half(static_cast<float>(normal(deviation) + deviation / 4));
    }
    Floats out(lengths.size() * hidden);
    launch("pool_normalise", static_cast<uint32_t>(lengths.size()), 1, out.data(),
           reinterpret_cast<const __half*>(states.data()), static_cast<const uint32_t*>(starts.data()), hidden,
           cls ? 1u : 0u);
    std::vector<double> pooled(hidden), sizes(hidden);
    for (size_t text = 0; text < lengths.size(); ++text) {
        const size_t rows = cls ? 1 : lengths[text];
        double squares = 0;
        for (size_t column = 0; column < hidden; ++column) {
            pooled[column] = sizes[column] = 0;
            for (size_t row = 0; row < rows; ++row) {
                const double x = finite(states[(starts[text] + row) * hidden + column]);
                pooled[column] += x / static_cast<double>(rows);
                sizes[column] += fabs(x) / static_cast<double>(rows);
            }
            squares += pooled[column] * pooled[column];
        }
        const double scale = squares > 0 ? 1 / sqrt(squares) : 0;
        for (size_t column = 0; column < hidden; ++column) {
            const double expected = pooled[column] * scale;
            // Sums in fp32 of `rows` numbers by one thread or a few, and of the squares by 256.
            const double allowed = ldexp(static_cast<double>(rows) / 2 + 32, -24) *
                                       (sizes[column] * scale + fabs(expected)) + 1e-12;
            check.compare(out[text * hidden + column], expected, allowed, "pooled", text, column);
        }
    }
}

// ---------------------------------------------------------------------------------------------- huge arrays

// Address space for an array of which only a few rows are touched.
uint16_t* far_halves(size_t count) {
    void* const map = mmap(nullptr, count * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0);
    if (map == MAP_FAILED) {
        perror("address space for a huge array");
        exit(1);
    }
    return static_cast<uint16_t*>(map);
}

// Rows whose first number's index is beyond 2^32 give what the same rows give at the beginning.
void check_far_rows() {
    Check check("rows beyond 2^32 numbers");
    const uint32_t hidden = 1024, heads = 16, rows = 24, far = (1u << 22) + 8;
    const size_t at = static_cast<size_t>(far) * hidden, numbers = static_cast<size_t>(rows) * hidden;
    const auto same = [&](const char* what, const uint16_t* far_out, const Halves& near_out) {
        for (size_t index = 0; index < near_out.size(); ++index) {
            check.compare(from_half(far_out[index]), from_half(near_out[index]), 1e-30, what, index / hidden,
                          index % hidden);
        }
    };
    const auto half_pointer = [](const uint16_t* halves) {
        return reinterpret_cast<__half*>(const_cast<uint16_t*>(halves));
    };
    uint16_t* const big = far_halves(3 * (at + numbers));
    uint16_t* const big_out = far_halves(at + numbers);
    const Floats parameters = random_floats(4 * hidden, 1);

    const Halves qkv = random_halves(3 * numbers, 1);
    memcpy(big + 3 * at, qkv.data(), qkv.size() * 2);
    Halves near_out(numbers);
    const uint32_t near_tile[] = {0, rows, 0}, far_tile[] = {far, rows, 0};
    launch("attention_head64", 1, heads, half_pointer(near_out.data()), half_pointer(qkv.data()), parameters.data(),
           static_cast<const uint32_t*>(near_tile), heads);
    launch("attention_head64", 1, heads, half_pointer(big_out), half_pointer(big), parameters.data(),
           static_cast<const uint32_t*>(far_tile), heads);
    same("context", big_out + at, near_out);

    // `qkv` holds three times as many numbers as rows of layer norm need: x, residual, words.
    Halves x(qkv.begin(), qkv.begin() + static_cast<ptrdiff_t>(numbers));
    memcpy(big_out + at, x.data(), numbers * 2);
    memcpy(big + at, qkv.data() + numbers, numbers * 2);
    launch("bias_residual_layer_norm", rows / 8, 1, half_pointer(x.data()), half_pointer(qkv.data() + numbers),
           parameters.data(), rows, hidden, 1e-5f);
    launch_from(far / 8, "bias_residual_layer_norm", (far + rows) / 8, 1, half_pointer(big_out), half_pointer(big),
                parameters.data(), far + rows, hidden, 1e-5f);
    same("normalised row", big_out + at, x);

    launch("bias_gelu", rows * hidden / 2048, 1, half_pointer(x.data()), parameters.data(), rows, hidden);
    launch_from(far / 2, "bias_gelu", (far + rows) / 2, 1, half_pointer(big_out), parameters.data(), far + rows,
                hidden);
    same("gelu", big_out + at, x);

    const uint32_t near_ids[] = {3}, far_ids[] = {far + 3};
    Halves near_row(hidden), far_row(hidden);
    launch("embed_layer_norm", 1, 1, half_pointer(near_row.data()), half_pointer(qkv.data() + numbers),
           half_pointer(qkv.data()), near_ids, near_ids, parameters.data(), 1u, hidden, 1e-5f);
    launch("embed_layer_norm", 1, 1, half_pointer(far_row.data()), half_pointer(big), half_pointer(qkv.data()), far_ids,
           near_ids, parameters.data(), 1u, hidden, 1e-5f);
    same("embedded row", far_row.data(), near_row);

    const uint32_t near_starts[] = {0, rows}, far_starts[] = {far, far + rows};
    Floats near_vector(hidden), far_vector(hidden);
    launch("pool_normalise", 1, 1, near_vector.data(), half_pointer(x.data()),
           static_cast<const uint32_t*>(near_starts), hidden, 0u);
    launch("pool_normalise", 1, 1, far_vector.data(), half_pointer(big_out), static_cast<const uint32_t*>(far_starts),
           hidden, 0u);
    for (size_t column = 0; column < hidden; ++column) {
        check.compare(far_vector[column], near_vector[column], 1e-30, "pooled", 0, column);
    }
    munmap(big, 3 * (at + numbers) * 2);
    munmap(big_out, (at + numbers) * 2);
}

}  // namespace

int main() {
    const std::vector<uint32_t> lengths = {1, 2, 17, 63, 64, 65, 130, 511, 512, 513};
    for (const uint32_t head_size : {32u, 64u}) {
        for (const uint32_t length : lengths) {
            check_attention({{length}, head_size, length > 200 ? 1u : 3u, 1, 1, 1});
        }
        check_attention({{65, 1, 130, 64, 17, 200, 2}, head_size, 2, 0.7, 1, 2});
        check_attention({lengths, head_size, 1, 0.3, 0.5, 100});
        // Scores far apart, with new maxima late and below the slack; then beyond what fp32 sums exactly.
        check_attention({{190, 33}, head_size, 2, 3, 1, 1});
        check_attention({{190, 33}, head_size, 1, 300, 300, 20000});
        check_attention_extremes(head_size);
    }
    for (const uint32_t hidden : {384u, 768u, 1024u, 8u, 24u, 392u, 1032u, 4096u}) {
        check_layer_norm(13, hidden, 1);
        check_embed_layer_norm(hidden == 384 ? 21 : 3, hidden);
    }
    check_layer_norm(8, 384, 30000);
    check_layer_norm(1, 1048, 30000);
    check_gelu(64, 1024, true);
    check_gelu(13, 1536, false);
    check_gelu(3, 24, false);
    for (const bool cls : {false, true}) {
        for (const uint32_t hidden : {384u, 768u, 1024u, 8u, 392u, 2056u, 4096u}) {
            check_pooling({1, 2, 17, 130, 3}, hidden, cls, 1);
        }
        check_pooling({513, 9}, 384, cls, 30000);
    }
    check_pooling({3, 1}, 384, false, 0);
    check_far_rows();
    printf("%s\n", failures == 0 ? "all checks passed" : "checks failed");
    return failures != 0;
}
