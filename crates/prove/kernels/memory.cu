// Memory, operands, and the second opinion on a tile: everything that needs no matrix instruction.
#include "common.cuh"

template <int FORMAT> DEVICE void make_operands(uint4 *to, u32 rows, u32 k, u32 seed) {
    const u32 in_chunk = 16 / Traits<FORMAT>::bytes;
    u64 chunks = (u64)rows * k / in_chunk;
    u32 chunks_in_row = k / in_chunk;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < chunks; at += (u64)gridDim.x * blockDim.x) {
        u32 row = (u32)(at / chunks_in_row);
        u32 chunk = (u32)(at % chunks_in_row);
        to[at] = operands16<FORMAT>(row_key(seed, row), chunk * in_chunk);
    }
}

extern "C" __global__ void operands(uint4 *to, u32 format, u32 rows, u32 k, u32 seed) {
    switch (format) {
    case BF16: make_operands<BF16>(to, rows, k, seed); break;
    case FP16: make_operands<FP16>(to, rows, k, seed); break;
    case FP8: make_operands<FP8>(to, rows, k, seed); break;
    case INT8: make_operands<INT8>(to, rows, k, seed); break;
    case FP64: make_operands<FP64>(to, rows, k, seed); break;
    default: make_operands<FP32>(to, rows, k, seed); break;
    }
}

// Kinds of pattern: 0 none, 1 counter, 2 its complement, 3 constant.
struct March {
    u64 *words;
    u64 count;
    u64 *log;
    u64 read_seed, write_seed;
    u32 read_kind, write_kind;
    u32 descending;
};

DEVICE u64 word_of(u32 kind, u64 seed, u64 index) {
    if (kind == 3) {
        return seed;
    }
    u64 word = pattern_word(seed, index);
    return kind == 2 ? ~word : word;
}

static __device__ __noinline__ void log_word(u64 *log, const u64 *word, u64 index, u64 expected, u64 got) {
    u64 again;
    asm volatile("ld.global.cv.u64 %0, [%1];" : "=l"(again) : "l"(word));
    u64 entry = atomicAdd(log, 1ull);
    if (entry < 1000) {
        u64 *to = log + 1 + entry * 5;
        to[0] = index * 8;
        to[1] = expected;
        to[2] = got;
        to[3] = again;
        to[4] = smid();
    }
}

// Most work here is launched with a thread for each 16 bytes: CTAs that come and go in order keep DRAM's pages open
// better than a grid of as many as there is room for. The loops are for what is larger than a grid.

extern "C" __global__ void __launch_bounds__(1024) march(March job) {
    u64 pairs = job.count / 2;
    for (u64 up = (u64)blockIdx.x * blockDim.x + threadIdx.x; up < pairs; up += (u64)gridDim.x * blockDim.x) {
        u64 index = 2 * (job.descending ? pairs - 1 - up : up);
        u64 *at = job.words + index;
        if (job.read_kind != 0) {
            ulonglong2 got;
            asm volatile("ld.global.v2.u64 {%0, %1}, [%2];" : "=l"(got.x), "=l"(got.y) : "l"(at));
            u64 first = word_of(job.read_kind, job.read_seed, index);
            u64 second = word_of(job.read_kind, job.read_seed, index + 1);
            if (got.x != first) {
                log_word(job.log, at, index, first, got.x);
            }
            if (got.y != second) {
                log_word(job.log, at + 1, index + 1, second, got.y);
            }
        }
        if (job.write_kind != 0) {
            u64 first = word_of(job.write_kind, job.write_seed, index);
            u64 second = word_of(job.write_kind, job.write_seed, index + 1);
            asm volatile("st.global.v2.u64 [%0], {%1, %2};" : : "l"(at), "l"(first), "l"(second) : "memory");
        }
    }
}

// `chunks` of 16 bytes.
extern "C" __global__ void __launch_bounds__(1024) copy(uint4 *to, const uint4 *from, u64 chunks) {
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < chunks; at += (u64)gridDim.x * blockDim.x) {
        to[at] = from[at];
    }
}

extern "C" __global__ void __launch_bounds__(1024) triad(float4 *a, const float4 *b, const float4 *c, u64 chunks) {
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < chunks; at += (u64)gridDim.x * blockDim.x) {
        float4 left = b[at], right = c[at];
        a[at] = make_float4(left.x + 3.0f * right.x, left.y + 3.0f * right.y, left.z + 3.0f * right.z,
                            left.w + 3.0f * right.w);
    }
}

extern "C" __global__ void __launch_bounds__(512) read_cached(const uint4 *from, u64 chunks, u32 passes, u64 *sum) {
    u64 mine = 0;
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u32 pass = 0; pass < passes; ++pass) {
        u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
        for (; at + 3 * step < chunks; at += 4 * step) {
            ulonglong2 held[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                asm volatile("ld.global.cg.v2.u64 {%0, %1}, [%2];"
                             : "=l"(held[i].x), "=l"(held[i].y)
                             : "l"(from + at + i * step));
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                mine += held[i].x + held[i].y;
            }
        }
        for (; at < chunks; at += step) {
            ulonglong2 held;
            asm volatile("ld.global.cg.v2.u64 {%0, %1}, [%2];" : "=l"(held.x), "=l"(held.y) : "l"(from + at));
            mine += held.x + held.y;
        }
    }
    __shared__ u64 of_block;
    if (threadIdx.x == 0) {
        of_block = 0;
    }
    __syncthreads();
    atomicAdd(&of_block, mine);
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd(sum, of_block);
    }
}

extern "C" __global__ void spin(u64 nanoseconds) {
    u64 start = global_timer();
    while (global_timer() - start < nanoseconds) {
    }
}

template <int FORMAT> DEVICE int integer_at(const u8 *row, u32 k) {
    if (FORMAT == FP64) {
        return (int)((const double *)row)[k];
    }
    if (FORMAT == FP32 || FORMAT == TF32) {
        return (int)((const float *)row)[k];
    }
    if (FORMAT == BF16) {
        return (int)bfloat_value(((const u16 *)row)[k]);
    }
    if (FORMAT == FP16) {
        return (int)half_value(((const u16 *)row)[k]);
    }
    if (FORMAT == FP8) {
        return (int)fp8_value(row[k]);
    }
    return (int)(signed char)row[k];
}

DEVICE u64 stored(float value, bool as_bfloat) { return as_bfloat ? bfloat_bits(value) : float_bits(value); }

// Work is given out in pieces of 16 x 16 by a ticket, so that the CTAs of one SM can leave all of it to others.
template <int FORMAT>
DEVICE void recompute_tile(const Gemm &gemm, u32 row0, u32 column0, u32 tile_rows, u32 tile_columns, u32 avoid_sm,
                           u32 *ticket, u32 *log) {
    __shared__ u32 piece;
    if (smid() == avoid_sm) {
        return;
    }
    u32 across = tile_columns / 16;
    for (;;) {
        __syncthreads();
        if (threadIdx.x == 0) {
            piece = atomicAdd(ticket, 1u);
        }
        __syncthreads();
        if (piece >= tile_rows / 16 * across) {
            return;
        }
        u32 row = row0 + piece / across * 16 + threadIdx.x / 16;
        u32 column = column0 + piece % across * 16 + threadIdx.x % 16;
        const u8 *a = gemm.a + (u64)row * gemm.k * Traits<FORMAT>::bytes;
        const u8 *b = gemm.b + (u64)column * gemm.k * Traits<FORMAT>::bytes;
        int sum = 0;
#pragma unroll 4
        for (u32 k = 0; k < gemm.k; ++k) {
            sum += integer_at<FORMAT>(a, k) * integer_at<FORMAT>(b, k);
        }
        u64 expected;
        if (FORMAT == INT8) {
            expected = (u32)sum;
        } else if (FORMAT == FP64) {
            expected = raw_bits((double)sum);
        } else {
            expected = stored((float)sum, FORMAT == BF16 || FORMAT == FP16 || FORMAT == FP8);
        }
        typedef typename Traits<FORMAT>::Stored Stored;
        u64 got = ((volatile Stored *)gemm.c)[(u64)row * gemm.n + column];
        atomicAdd(log + 1, weight(gemm.row_seed, row) * weight(gemm.column_seed, column) * (u32)sum);
        if (got != expected) {
            u32 entry = atomicAdd(log, 1u);
            if (entry < 256) {
                u32 *to = log + 4 + entry * 6;
                to[0] = row;
                to[1] = column;
                to[2] = (u32)expected;
                to[3] = (u32)(expected >> 32);
                to[4] = (u32)got;
                to[5] = (u32)(got >> 32);
            }
        }
        if (threadIdx.x == 0) {
            log[2] = smid();
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
    recompute(Gemm gemm, u32 format, u32 row0, u32 column0, u32 tile_rows, u32 tile_columns, u32 avoid_sm, u32 *ticket,
              u32 *log) {
    switch (format) {
    case BF16: recompute_tile<BF16>(gemm, row0, column0, tile_rows, tile_columns, avoid_sm, ticket, log); break;
    case FP16: recompute_tile<FP16>(gemm, row0, column0, tile_rows, tile_columns, avoid_sm, ticket, log); break;
    case FP8: recompute_tile<FP8>(gemm, row0, column0, tile_rows, tile_columns, avoid_sm, ticket, log); break;
    case INT8: recompute_tile<INT8>(gemm, row0, column0, tile_rows, tile_columns, avoid_sm, ticket, log); break;
    case FP64: recompute_tile<FP64>(gemm, row0, column0, tile_rows, tile_columns, avoid_sm, ticket, log); break;
    default: recompute_tile<FP32>(gemm, row0, column0, tile_rows, tile_columns, avoid_sm, ticket, log); break;
    }
}
