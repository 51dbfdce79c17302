// What all kernels share. No CUDA header is included: NVRTC knows the built-in types by itself.
//
// Operands, weights and patterns are those of `src/operands.rs`, to the bit; records and logs are those of
// `src/device.rs`. Sizes in memory are in bytes.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define NONE 0xFFFFFFFFu

// In the order of `device::Format`.
enum Format { BF16, FP16, TF32, FP8, INT8, FP32, FP64 };

struct Gemm {
    const u8 *a;
    const u8 *b;
    u8 *c;
    uint2 *records;
    u32 m, n, k;
    u32 row_seed, column_seed;
    u32 rotation;
    u32 fault_sm, fault_place, fault_bit;
    u32 stages;
};

struct Loop {
    u64 *records;
    u32 rounds;
    u32 seed_a, seed_b;
    u32 fault_sm, fault_place, fault_bit;
};

#define LOOP_WARPS 16
#define LOOP_RECORD_WORDS (LOOP_WARPS + 4)
#define HASH_MULTIPLIER 0x9E3779B97F4A7C15ull

DEVICE u32 mix(u32 x) {
    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    return x ^ (x >> 16);
}

DEVICE u32 row_key(u32 seed, u32 row) { return mix(seed ^ row * 0x9E3779B1u); }

DEVICE u32 weight(u32 seed, u32 index) { return mix(seed ^ index * 0x9E3779B1u) | 1u; }

DEVICE int operand(u32 limit, u32 key, u32 k) {
    u32 hash = mix(key ^ k * 0x85EBCA77u);
    return (int)(((hash >> 16) * (2u * limit + 1u)) >> 16) - (int)limit;
}

DEVICE u64 pattern_word(u64 seed, u64 index) {
    u64 z = (index ^ seed) + 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

DEVICE u32 smid() {
    u32 id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}

DEVICE u64 global_timer() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

DEVICE u32 float_bits(float value) { return __float_as_uint(value); }

// Half of a small integer: exact.
DEVICE u16 half_bits(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

DEVICE float half_value(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// bfloat16 rounded to nearest even. No accumulator is NaN where all is well.
DEVICE u16 bfloat_bits(float value) {
    u32 bits = float_bits(value);
    return (u16)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

DEVICE float bfloat_value(u16 bits) { return __uint_as_float((u32)bits << 16); }

// e4m3 of -2..=2.
DEVICE u8 fp8_bits(int value) {
    u32 magnitude = value == 0 ? 0u : (value == 1 || value == -1 ? 0x38u : 0x40u);
    return (u8)(magnitude | (value < 0 ? 0x80u : 0u));
}

// e4m3 has the bias 7, f32 has 127: 2^120 between them.
DEVICE float fp8_value(u8 bits) {
    float magnitude = __uint_as_float((u32)(bits & 0x7F) << 20) * 1.329227995784916e36f;
    return bits & 0x80 ? -magnitude : magnitude;
}

template <int FORMAT> struct Traits;
template <> struct Traits<BF16> { enum { bytes = 2, limit = 127 }; typedef float Sum; typedef u16 Stored; };
template <> struct Traits<FP16> { enum { bytes = 2, limit = 127 }; typedef float Sum; typedef u16 Stored; };
template <> struct Traits<TF32> { enum { bytes = 4, limit = 127 }; typedef float Sum; typedef u32 Stored; };
template <> struct Traits<FP8> { enum { bytes = 1, limit = 2 }; typedef float Sum; typedef u16 Stored; };
template <> struct Traits<INT8> { enum { bytes = 1, limit = 127 }; typedef int Sum; typedef u32 Stored; };
template <> struct Traits<FP32> { enum { bytes = 4, limit = 127 }; typedef float Sum; typedef u32 Stored; };
template <> struct Traits<FP64> { enum { bytes = 8, limit = 127 }; typedef double Sum; typedef u64 Stored; };

// 16 bytes of operands of one row, the first of them at `k`.
template <int FORMAT> DEVICE uint4 operands16(u32 key, u32 k) {
    const u32 limit = Traits<FORMAT>::limit;
    u32 words[4];
#pragma unroll
    for (u32 word = 0; word < 4; ++word) {
        if (FORMAT == FP64) {
            u64 bits = (u64)__double_as_longlong((double)operand(limit, key, k + word / 2));
            words[word] = word % 2 == 0 ? (u32)bits : (u32)(bits >> 32);
        } else if (FORMAT == FP32 || FORMAT == TF32) {
            words[word] = float_bits((float)operand(limit, key, k + word));
        } else if (FORMAT == BF16 || FORMAT == FP16) {
            float low = (float)operand(limit, key, k + 2 * word);
            float high = (float)operand(limit, key, k + 2 * word + 1);
            u32 low_bits = FORMAT == BF16 ? bfloat_bits(low) : half_bits(low);
            u32 high_bits = FORMAT == BF16 ? bfloat_bits(high) : half_bits(high);
            words[word] = low_bits | high_bits << 16;
        } else {
            u32 bits = 0;
#pragma unroll
            for (u32 byte = 0; byte < 4; ++byte) {
                int value = operand(limit, key, k + 4 * word + byte);
                u32 one = FORMAT == FP8 ? fp8_bits(value) : (u32)value & 0xFFu;
                bits |= one << (8 * byte);
            }
            words[word] = bits;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// Checksums. A sum is an integer below 2^22 (2^51 in f64): adding 1.5 * 2^23 leaves it in the low bits of the mantissa,
// which costs less than a conversion. `off` becomes other than zero where a sum was no integer.
#define FLOAT_MAGIC 12582912.0f
#define FLOAT_BIAS 0x4B400000u
#define DOUBLE_MAGIC 6755399441055744.0

DEVICE u32 integer_bits(float value, float &off) {
    float shifted = value + FLOAT_MAGIC;
    off += fabsf((shifted - FLOAT_MAGIC) - value);
    return float_bits(shifted);
}
DEVICE u32 integer_bits(double value, float &off) {
    double shifted = value + DOUBLE_MAGIC;
    off += shifted - DOUBLE_MAGIC == value ? 0.0f : 1.0f;
    return (u32)__double2loint(shifted);
}
DEVICE u32 integer_bits(int value, float &off) { return (u32)value; }

template <class Sum> struct Bias { enum : u32 { value = 0 }; };
template <> struct Bias<float> { enum : u32 { value = FLOAT_BIAS }; };

DEVICE u64 raw_bits(float value) { return float_bits(value); }
DEVICE u64 raw_bits(int value) { return (u32)value; }
DEVICE u64 raw_bits(double value) { return (u64)__double_as_longlong(value); }

DEVICE void flip(float &value, u32 bit) { value = __uint_as_float(float_bits(value) ^ (1u << (bit & 31))); }
DEVICE void flip(int &value, u32 bit) { value = (int)((u32)value ^ (1u << (bit & 31))); }
DEVICE void flip(double &value, u32 bit) {
    value = __longlong_as_double(__double_as_longlong(value) ^ (long long)(1ull << (bit & 63)));
}

// Is a fault planted here?
DEVICE bool planted(u32 fault_sm, u32 fault_place, u32 fault_bit, u32 sm, u32 place) {
    return fault_bit != NONE && (fault_sm == NONE || fault_sm == sm) && (fault_place == NONE || fault_place == place);
}

// Tiles in an order that keeps those that run at one time near to each other, so that L2 holds their operands: bands
// of `band` rows of tiles, column by column.
DEVICE void tile_at(u32 index, u32 rotation, u32 rows, u32 columns, u32 band, u32 &row, u32 &column) {
    index = (u32)(((u64)index + rotation) % ((u64)rows * columns));
    u32 in_band = band * columns;
    u32 first = index / in_band * band;
    u32 height = rows - first < band ? rows - first : band;
    u32 rest = index % in_band;
    row = first + rest % height;
    column = rest / height;
}

// Two neighbours of a row of C.
template <int FORMAT> DEVICE void store_pair(u8 *c, u64 index, float low, float high) {
    if (FORMAT == BF16 || FORMAT == FP16 || FORMAT == FP8) {
        *(u32 *)(c + 2 * index) = (u32)bfloat_bits(low) | (u32)bfloat_bits(high) << 16;
    } else {
        *(float2 *)(c + 4 * index) = make_float2(low, high);
    }
}
template <int FORMAT> DEVICE void store_pair(u8 *c, u64 index, int low, int high) {
    *(int2 *)(c + 4 * index) = make_int2(low, high);
}
template <int FORMAT> DEVICE void store_pair(u8 *c, u64 index, double low, double high) {
    *(double2 *)(c + 8 * index) = make_double2(low, high);
}

// Checksum of a thread's sums, and the store of C. `Layout` says which rows and columns of the tile they are.
template <int FORMAT, class Layout, class Sum>
DEVICE u32 checksum_and_store(const Layout &layout, Sum *sums, const Gemm &gemm, u32 row0, u32 column0) {
    u32 column_weights[Layout::columns];
    u32 weights = 0;
#pragma unroll
    for (u32 j = 0; j < Layout::columns; ++j) {
        column_weights[j] = weight(gemm.column_seed, column0 + layout.column(j));
        weights += column_weights[j];
    }
    u32 total = 0;
    float off = 0.0f;
#pragma unroll
    for (u32 i = 0; i < Layout::rows; ++i) {
        u32 row = row0 + layout.row(i);
        u32 in_row = 0;
#pragma unroll
        for (u32 j = 0; j < Layout::columns; ++j) {
            in_row += column_weights[j] * integer_bits(sums[Layout::index(i, j)], off);
        }
        total += weight(gemm.row_seed, row) * (in_row - Bias<Sum>::value * weights);
        u64 start = (u64)row * gemm.n + column0;
#pragma unroll
        for (u32 j = 0; j < Layout::columns; j += 2) {
            store_pair<FORMAT>(gemm.c, start + layout.column(j), sums[Layout::index(i, j)],
                               sums[Layout::index(i, j + 1)]);
        }
    }
    return off == 0.0f ? total : total + 1u;
}

// Ends a loop: the hashes of the lanes become those of warps, and the record of the CTA.
DEVICE void write_loop_record(const Loop &loop, u64 *hashes, u32 warps, u32 warp, u64 hash, u64 time0, u64 clock0) {
    atomicXor((u32 *)&hashes[warp], (u32)hash);
    atomicXor((u32 *)&hashes[warp] + 1, (u32)(hash >> 32));
    __syncthreads();
    u64 *record = loop.records + (u64)blockIdx.x * LOOP_RECORD_WORDS;
    if (threadIdx.x < LOOP_WARPS) {
        record[threadIdx.x] = threadIdx.x < warps ? hashes[threadIdx.x] : 0;
    }
    if (threadIdx.x == 0) {
        record[LOOP_WARPS] = smid();
        record[LOOP_WARPS + 1] = time0;
        record[LOOP_WARPS + 2] = global_timer();
        record[LOOP_WARPS + 3] = (u64)clock64() - clock0;
    }
}
