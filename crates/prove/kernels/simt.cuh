// GEMM and loop on the plain cores: FFMA, DFMA, IMAD, or dp4a.
//
// A CTA of 16 x 16 threads makes a tile of 16 * SIDE squared; each thread has SIDE x SIDE sums, in two halves of rows
// and of columns so that shared memory is read 16 bytes at a time without conflicts. Operands lie there as words of 4
// bytes (8 for f64), turned round: a line for each word along K.
#include "common.cuh"

template <int FORMAT> struct Word { typedef u32 Type; };
template <> struct Word<FP64> { typedef double Type; };

DEVICE int signed_byte(u32 word, u32 byte) { return (int)(word << (24 - 8 * byte)) >> 24; }

template <int FORMAT, int SIDE> struct Multiply {
    // What one word holds, as floats.
    static DEVICE_MEMBER float part(u32 word, u32 at) {
        if (FORMAT == BF16) {
            return __uint_as_float(at == 0 ? word << 16 : word & 0xFFFF0000u);
        }
        if (FORMAT == FP16) {
            return half_value((u16)(word >> (16 * at)));
        }
        if (FORMAT == FP8) {
            return fp8_value((u8)(word >> (8 * at)));
        }
        return __uint_as_float(word);
    }
    static DEVICE_MEMBER void run(const u32 *a, const u32 *b, float *sums) {
#pragma unroll
        for (u32 at = 0; at < 4 / Traits<FORMAT>::bytes; ++at) {
            float a_part[SIDE], b_part[SIDE];
#pragma unroll
            for (u32 i = 0; i < SIDE; ++i) {
                a_part[i] = part(a[i], at);
                b_part[i] = part(b[i], at);
            }
#pragma unroll
            for (u32 i = 0; i < SIDE; ++i) {
#pragma unroll
                for (u32 j = 0; j < SIDE; ++j) {
                    sums[i * SIDE + j] = fmaf(a_part[i], b_part[j], sums[i * SIDE + j]);
                }
            }
        }
    }
    static DEVICE_MEMBER void run(const double *a, const double *b, double *sums) {
#pragma unroll
        for (u32 i = 0; i < SIDE; ++i) {
#pragma unroll
            for (u32 j = 0; j < SIDE; ++j) {
                sums[i * SIDE + j] = fma(a[i], b[j], sums[i * SIDE + j]);
            }
        }
    }
    static DEVICE_MEMBER void run(const u32 *a, const u32 *b, int *sums) {
#ifdef DP4A
#pragma unroll
        for (u32 i = 0; i < SIDE; ++i) {
#pragma unroll
            for (u32 j = 0; j < SIDE; ++j) {
                asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sums[i * SIDE + j]) : "r"(a[i]), "r"(b[j]));
            }
        }
#else
#pragma unroll
        for (u32 at = 0; at < 4; ++at) {
            int a_part[SIDE], b_part[SIDE];
#pragma unroll
            for (u32 i = 0; i < SIDE; ++i) {
                a_part[i] = signed_byte(a[i], at);
                b_part[i] = signed_byte(b[i], at);
            }
#pragma unroll
            for (u32 i = 0; i < SIDE; ++i) {
#pragma unroll
                for (u32 j = 0; j < SIDE; ++j) {
                    sums[i * SIDE + j] += a_part[i] * b_part[j];
                }
            }
        }
#endif
    }
};

// 16 bytes of shared memory at once.
DEVICE void load(u32 *to, const u32 *from) {
    uint4 held = *(const uint4 *)from;
    to[0] = held.x;
    to[1] = held.y;
    to[2] = held.z;
    to[3] = held.w;
}
DEVICE void load(double *to, const double *from) {
    double2 held = *(const double2 *)from;
    to[0] = held.x;
    to[1] = held.y;
}

template <int FORMAT, int SIDE> struct Simt {
    typedef typename Traits<FORMAT>::Sum Sum;
    typedef typename Word<FORMAT>::Type Operand;
    enum {
        tile = 16 * SIDE,
        line = tile + 4,
        words = 32 / sizeof(Operand), // along K, for each fetch
        rows = SIDE,
        columns = SIDE,
        fetches = tile * 4 / 256
    };

    u32 row0, column0;

    DEVICE_MEMBER Simt() {
        row0 = threadIdx.x / 16 * (SIDE / 2);
        column0 = threadIdx.x % 16 * (SIDE / 2);
    }

    DEVICE_MEMBER u32 row(u32 i) const { return i / (SIDE / 2) * (tile / 2) + row0 + i % (SIDE / 2); }
    DEVICE_MEMBER u32 column(u32 j) const { return j / (SIDE / 2) * (tile / 2) + column0 + j % (SIDE / 2); }
    static DEVICE_MEMBER u32 index(u32 i, u32 j) { return i * SIDE + j; }

    // One word along K.
    DEVICE_MEMBER void step(const Operand *a_line, const Operand *b_line, Sum *sums) const {
        Operand a[SIDE], b[SIDE];
        load(a, a_line + row0);
        load(a + SIDE / 2, a_line + tile / 2 + row0);
        load(b, b_line + column0);
        load(b + SIDE / 2, b_line + tile / 2 + column0);
        Multiply<FORMAT, SIDE>::run(a, b, sums);
    }
};

// A chunk of 16 bytes along K, into the lines of its words.
DEVICE void scatter(u32 *to, u32 line, uint4 chunk) {
    to[0] = chunk.x;
    to[line] = chunk.y;
    to[2 * line] = chunk.z;
    to[3 * line] = chunk.w;
}
DEVICE void scatter(double *to, u32 line, uint4 chunk) {
    to[0] = __hiloint2double((int)chunk.y, (int)chunk.x);
    to[line] = __hiloint2double((int)chunk.w, (int)chunk.z);
}

template <int FORMAT, int SIDE> DEVICE void simt_gemm(const Gemm &gemm) {
    typedef Simt<FORMAT, SIDE> Layout;
    typedef typename Layout::Sum Sum;
    typedef typename Layout::Operand Operand;
    __shared__ __align__(16) Operand held[2][2][Layout::words][Layout::line];
    __shared__ u32 checksum;
    Layout layout;
    u32 rows = gemm.m / Layout::tile, columns = gemm.n / Layout::tile;
    u64 pitch = (u64)gemm.k * Traits<FORMAT>::bytes;
    u32 fetches = (u32)(pitch / 32);
    for (u32 at = blockIdx.x; at < rows * columns; at += gridDim.x) {
        u32 tile_row, tile_column;
        tile_at(at, gemm.rotation, rows, columns, 8, tile_row, tile_column);
        u32 row0 = tile_row * Layout::tile, column0 = tile_column * Layout::tile;
        if (threadIdx.x == 0) {
            checksum = 0;
        }
        Sum sums[SIDE * SIDE];
#pragma unroll
        for (u32 i = 0; i < SIDE * SIDE; ++i) {
            sums[i] = 0;
        }
        // Thread by thread: two chunks of each row, first those of A, then those of B.
        const u8 *from[Layout::fetches];
        u32 half = threadIdx.x % 2 * (Layout::words / 2);
        Operand *to[Layout::fetches];
#pragma unroll
        for (u32 i = 0; i < Layout::fetches; ++i) {
            u32 row = (threadIdx.x + 256 * i) / 2;
            bool of_b = row >= Layout::tile;
            row %= Layout::tile;
            from[i] = (of_b ? gemm.b + (column0 + row) * pitch : gemm.a + (row0 + row) * pitch) + threadIdx.x % 2 * 16;
            to[i] = &held[0][of_b][half][row];
        }
        const u32 buffer = 2 * Layout::words * Layout::line;
        uint4 next[Layout::fetches];
#pragma unroll
        for (u32 i = 0; i < Layout::fetches; ++i) {
            scatter(to[i], Layout::line, *(const uint4 *)from[i]);
        }
        __syncthreads();
        for (u32 fetch = 0; fetch < fetches; ++fetch) {
            u32 now = fetch % 2;
            if (fetch + 1 < fetches) {
#pragma unroll
                for (u32 i = 0; i < Layout::fetches; ++i) {
                    next[i] = *(const uint4 *)(from[i] + (u64)(fetch + 1) * 32);
                }
            }
#pragma unroll
            for (u32 word = 0; word < Layout::words; ++word) {
                layout.step(held[now][0][word], held[now][1][word], sums);
            }
            if (fetch + 1 < fetches) {
#pragma unroll
                for (u32 i = 0; i < Layout::fetches; ++i) {
                    scatter(to[i] + (now == 0 ? buffer : 0), Layout::line, next[i]);
                }
            }
            __syncthreads();
        }
        u32 tile = tile_row * columns + tile_column;
        if (threadIdx.x == 0 && planted(gemm.fault_sm, gemm.fault_place, gemm.fault_bit, smid(), tile)) {
            flip(sums[0], gemm.fault_bit);
        }
        u32 mine = checksum_and_store<FORMAT>(layout, sums, gemm, row0, column0);
        atomicAdd(&checksum, mine);
        __syncthreads();
        if (threadIdx.x == 0) {
            gemm.records[tile] = make_uint2(checksum, smid());
        }
        __syncthreads();
    }
}

// K of the loop: 32 words (16 of f64).
template <int FORMAT, int SIDE> DEVICE void simt_loop(const Loop &loop) {
    typedef Simt<FORMAT, SIDE> Layout;
    typedef typename Layout::Sum Sum;
    typedef typename Layout::Operand Operand;
    const u32 words = 128 / sizeof(Operand);
    const u32 k = 128 / Traits<FORMAT>::bytes;
    const u32 repeats = 1024 / k;
    __shared__ __align__(16) Operand held[2][words][Layout::line];
    __shared__ u64 hashes[LOOP_WARPS];
    Layout layout;
    u32 warp = threadIdx.x / 32;
    for (u32 at = threadIdx.x; at < 2 * Layout::tile * 8; at += 256) {
        u32 chunk = at % 8, row = at / 8 % Layout::tile, of_b = at / 8 / Layout::tile;
        uint4 made = operands16<FORMAT>(row_key(of_b ? loop.seed_b : loop.seed_a, row), chunk * (k / 8));
        scatter(&held[of_b][chunk * (words / 8)][row], Layout::line, made);
    }
    if (threadIdx.x < LOOP_WARPS) {
        hashes[threadIdx.x] = 0;
    }
    __syncthreads();
    u64 hash = pattern_word(0, threadIdx.x);
    u64 time0 = global_timer(), clock0 = (u64)clock64();
    bool fault = threadIdx.x % 32 == 0 && planted(loop.fault_sm, loop.fault_place, loop.fault_bit, smid(), warp);
    for (u32 round = 0; round < loop.rounds; ++round) {
        Sum sums[SIDE * SIDE];
#pragma unroll
        for (u32 i = 0; i < SIDE * SIDE; ++i) {
            sums[i] = 0;
        }
        for (u32 repeat = 0; repeat < repeats; ++repeat) {
#pragma unroll 4
            for (u32 word = 0; word < words; ++word) {
                layout.step(held[0][word], held[1][word], sums);
            }
        }
        if (fault) {
            flip(sums[0], loop.fault_bit);
        }
#pragma unroll
        for (u32 i = 0; i < SIDE * SIDE; ++i) {
            hash = (hash ^ raw_bits(sums[i])) * HASH_MULTIPLIER;
        }
    }
    write_loop_record(loop, hashes, 8, warp, hash, time0, clock0);
}

#define SIMT(NAME, FORMAT, SIDE)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256, 2) gemm_##NAME(Gemm gemm) { simt_gemm<FORMAT, SIDE>(gemm); }        \
    extern "C" __global__ void __launch_bounds__(256, 2) loop_##NAME(Loop loop) { simt_loop<FORMAT, SIDE>(loop); }
