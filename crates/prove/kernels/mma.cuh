// GEMM and loop by `mma.sync`, for every tensor core from Volta on.
//
// Eight warps make a tile, two above each other by four side by side (four by two for f64). Operands are fetched in pieces of
// ROW_BYTES along K (64 or 128) into a ring in shared memory; a row is chunks of 16 bytes, whose places are swapped so that
// reads of eight rows meet no conflict. A step is 32 bytes along K: one m16n8k16 of 16-bit operands, or what an older or other
// instruction makes of it.
#include "common.cuh"

#define CHUNKS (ROW_BYTES / 16)
#define MMA_THREADS 256

DEVICE u32 shared_address(const void *pointer) {
    u32 address;
    asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(address) : "l"(pointer));
    return address;
}

// What the chunks of a row are swapped by. Two rows of 64 bytes lie side by side in the banks; of 128 bytes those of f64
// do, half of each at a time.
DEVICE u32 swap_of(u32 row) { return (row >> 1 & 3) | (ROW_BYTES == 128 ? (row & 1) << 2 : 0); }

DEVICE u32 swizzled(u32 row, u32 chunk) { return row * ROW_BYTES + ((chunk ^ swap_of(row)) << 4); }

DEVICE void load_matrices(u32 address, u32 *to) {
#ifdef LDMATRIX
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
#endif
}

DEVICE uint4 load_chunk(u32 address) {
    uint4 got;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(got.x), "=r"(got.y), "=r"(got.z), "=r"(got.w)
                 : "r"(address)
                 : "memory");
    return got;
}

DEVICE void store_chunk(u32 address, uint4 chunk) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(address), "r"(chunk.x), "r"(chunk.y), "r"(chunk.z), "r"(chunk.w)
                 : "memory");
}

// What an instruction of 16 rows, 8 columns and 32 bytes along K does.
template <int FORMAT> struct Multiply;

#define MMA_FLOAT(NAME)                                                                                                \
    asm volatile(NAME " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                               \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

#ifdef MMA_K16
template <> struct Multiply<BF16> {
    static DEVICE_MEMBER void run(float *c, const u32 *a, const u32 *b) {
        MMA_FLOAT("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
    }
};
template <> struct Multiply<FP16> {
    static DEVICE_MEMBER void run(float *c, const u32 *a, const u32 *b) {
        MMA_FLOAT("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
    }
};
template <> struct Multiply<TF32> {
    static DEVICE_MEMBER void run(float *c, const u32 *a, const u32 *b) {
        MMA_FLOAT("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
    }
};
template <> struct Multiply<INT8> {
    static DEVICE_MEMBER void run(int *c, const u32 *a, const u32 *b) {
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};
#endif

#ifdef MMA_FP8
template <> struct Multiply<FP8> {
    static DEVICE_MEMBER void run(float *c, const u32 *a, const u32 *b) {
        MMA_FLOAT("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32");
    }
};
#endif

#ifdef MMA_K8
// The registers of m16n8k16 are those of two m16n8k8, one after the other along K; those of m16n8k32 of signed bytes are
// those of four m8n8k16.
template <> struct Multiply<FP16> {
    static DEVICE_MEMBER void half(float *c, u32 a0, u32 a1, u32 b) {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(b));
    }
    static DEVICE_MEMBER void run(float *c, const u32 *a, const u32 *b) {
        half(c, a[0], a[1], b[0]);
        half(c, a[2], a[3], b[1]);
    }
};
template <> struct Multiply<INT8> {
    static DEVICE_MEMBER void quarter(int *c, u32 a, u32 b) {
        asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                     : "+r"(c[0]), "+r"(c[1])
                     : "r"(a), "r"(b));
    }
    static DEVICE_MEMBER void run(int *c, const u32 *a, const u32 *b) {
        quarter(c, a[0], b[0]);
        quarter(c + 2, a[1], b[0]);
        quarter(c, a[2], b[1]);
        quarter(c + 2, a[3], b[1]);
    }
};
#endif

// 64 x 64 sums of a warp by instructions of 16 x 8: lane l has rows l / 4 and 8 more, columns 2 * (l % 4) and 1 more.
template <int FORMAT> struct Wide {
    typedef typename Traits<FORMAT>::Sum Sum;
    enum { tile_rows = 128, tile_columns = 256, registers = 128, rows = 8, columns = 16, steps = ROW_BYTES / 32 };
    struct Held {
        u32 a[4][4], b[4][4];
    };
    u32 row0, column0, a_at, b_at, a_swap, b_swap;

    DEVICE_MEMBER Wide() {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        row0 = warp % 2 * 64 + lane / 4;
        column0 = warp / 2 * 64 + lane % 4 * 2;
        // The eight lanes of a matrix give its rows: of A rows 0-7, 8-15, then the same 16 bytes on; of B first along K.
        u32 a_row = warp % 2 * 64 + lane % 16;
        u32 b_row = warp / 2 * 64 + lane % 8 + lane / 16 * 8;
        a_at = a_row * ROW_BYTES;
        b_at = b_row * ROW_BYTES;
        a_swap = (lane / 16) ^ swap_of(a_row);
        b_swap = (lane / 8 % 2) ^ swap_of(b_row);
    }
    DEVICE_MEMBER u32 row(u32 i) const { return row0 + i * 8; }
    DEVICE_MEMBER u32 column(u32 j) const { return column0 + j / 2 * 8 + j % 2; }
    static DEVICE_MEMBER u32 index(u32 i, u32 j) { return (i / 2 * 8 + j / 2) * 4 + i % 2 * 2 + j % 2; }

    DEVICE_MEMBER void load(u32 a_base, u32 b_base, u32 step, Held &held) const {
        u32 a_from = a_base + a_at + ((a_swap ^ (2 * step)) << 4);
        u32 b_from = b_base + b_at + ((b_swap ^ (2 * step)) << 4);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            load_matrices(a_from + i * 16 * ROW_BYTES, held.a[i]);
        }
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            load_matrices(b_from + j * 16 * ROW_BYTES, held.b[j]);
        }
    }
    static DEVICE_MEMBER void multiply(const Held &held, Sum *sums) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
#pragma unroll
            for (u32 j = 0; j < 8; ++j) {
                Multiply<FORMAT>::run(sums + (i * 8 + j) * 4, held.a[i], held.b[j / 2] + j % 2 * 2);
            }
        }
    }
};

#ifdef MMA_DOUBLE
// 32 x 64 sums of a warp by instructions of f64. Which operands along K make one instruction is free, as long as A and B
// agree: each lane takes a chunk of two, so that a row's four lanes take 64 bytes, and the two make one m16n8k8
// (Hopper) or two m8n8k4.
struct Double {
    typedef double Sum;
    enum { tile_rows = 128, tile_columns = 128, registers = 64, rows = 4, columns = 16, steps = ROW_BYTES / 64 };
    struct Held {
        double a[4][2], b[8][2];
    };
    u32 row0, column0, a_at, b_at, a_swap, b_swap;

    DEVICE_MEMBER Double() {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        row0 = warp % 4 * 32 + lane / 4;
        column0 = warp / 4 * 64 + lane % 4 * 2;
        u32 b_row = warp / 4 * 64 + lane / 4;
        a_at = row0 * ROW_BYTES;
        b_at = b_row * ROW_BYTES;
        a_swap = lane % 4 ^ swap_of(row0);
        b_swap = lane % 4 ^ swap_of(b_row);
    }
    DEVICE_MEMBER u32 row(u32 i) const { return row0 + i * 8; }
    DEVICE_MEMBER u32 column(u32 j) const { return column0 + j / 2 * 8 + j % 2; }
    static DEVICE_MEMBER u32 index(u32 i, u32 j) { return (i * 8 + j / 2) * 2 + j % 2; }

    DEVICE_MEMBER void load(u32 a_base, u32 b_base, u32 step, Held &held) const {
        u32 a_from = a_base + a_at + ((a_swap ^ (4 * step)) << 4);
        u32 b_from = b_base + b_at + ((b_swap ^ (4 * step)) << 4);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            load_doubles(a_from + i * 8 * ROW_BYTES, held.a[i]);
        }
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
            load_doubles(b_from + j * 8 * ROW_BYTES, held.b[j]);
        }
    }
    static DEVICE_MEMBER void load_doubles(u32 from, double *to) {
        asm volatile("ld.shared.v2.f64 {%0, %1}, [%2];" : "=d"(to[0]), "=d"(to[1]) : "r"(from) : "memory");
    }
    static DEVICE_MEMBER void multiply(const Held &held, double *sums) {
#ifdef MMA_DOUBLE_K8
#pragma unroll
        for (u32 i = 0; i < 4; i += 2) {
#pragma unroll
            for (u32 j = 0; j < 8; ++j) {
                double *upper = sums + (i * 8 + j) * 2, *lower = sums + ((i + 1) * 8 + j) * 2;
                asm volatile("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                             "{%8, %9}, {%0, %1, %2, %3};"
                             : "+d"(upper[0]), "+d"(upper[1]), "+d"(lower[0]), "+d"(lower[1])
                             : "d"(held.a[i][0]), "d"(held.a[i + 1][0]), "d"(held.a[i][1]), "d"(held.a[i + 1][1]),
                               "d"(held.b[j][0]), "d"(held.b[j][1]));
            }
        }
#else
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
#pragma unroll
                for (u32 j = 0; j < 8; ++j) {
                    double *c = sums + (i * 8 + j) * 2;
                    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                                 : "+d"(c[0]), "+d"(c[1])
                                 : "d"(held.a[i][half]), "d"(held.b[j][half]));
                }
            }
        }
#endif
    }
};
#endif

#ifdef MMA_VOLTA
// 64 x 64 sums of a warp by m8n8k4 of Volta. Its four quad pairs (lanes 4q..4q+3 and 16 more) each make a tile of 8 x 8:
// here two by two of them make 16 x 16, their rows and columns interleaved by four so that the lanes of a quarter warp
// read eight neighbouring rows.
struct QuadPairs {
    typedef float Sum;
    enum { tile_rows = 128, tile_columns = 256, registers = 128, rows = 8, columns = 16, steps = ROW_BYTES / 16 };
    struct Held {
        uint4 a[4], b[4];
    };
    u32 row0, column0, a_at, b_at, a_swap, b_swap;

    DEVICE_MEMBER QuadPairs() {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        u32 pair = lane / 4 % 4, upper = lane / 16;
        u32 a_row = warp % 2 * 64 + lane % 4 + pair % 2 * 4 + upper * 8;
        u32 b_row = warp / 2 * 64 + lane % 4 + pair / 2 * 4 + upper * 8;
        a_at = a_row * ROW_BYTES;
        b_at = b_row * ROW_BYTES;
        a_swap = swap_of(a_row);
        b_swap = swap_of(b_row);
        row0 = warp % 2 * 64 + lane % 2 + pair % 2 * 4 + upper * 8;
        column0 = warp / 2 * 64 + (lane & 2) + pair / 2 * 4;
    }
    DEVICE_MEMBER u32 row(u32 i) const { return row0 + i / 2 * 16 + i % 2 * 2; }
    DEVICE_MEMBER u32 column(u32 j) const { return column0 + j / 4 * 16 + j / 2 % 2 * 8 + j % 2; }
    static DEVICE_MEMBER u32 index(u32 i, u32 j) {
        return (i / 2 * 4 + j / 4) * 8 + i % 2 * 2 + j / 2 % 2 * 4 + j % 2;
    }

    DEVICE_MEMBER void load(u32 a_base, u32 b_base, u32 step, Held &held) const {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            held.a[i] = load_chunk(a_base + a_at + i * 16 * ROW_BYTES + ((a_swap ^ step) << 4));
            held.b[i] = load_chunk(b_base + b_at + i * 16 * ROW_BYTES + ((b_swap ^ step) << 4));
        }
    }
    static DEVICE_MEMBER void multiply(const Held &held, float *sums) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                float *c = sums + (i * 4 + j) * 8;
                one(c, held.a[i].x, held.a[i].y, held.b[j].x, held.b[j].y);
                one(c, held.a[i].z, held.a[i].w, held.b[j].z, held.b[j].w);
            }
        }
    }
    static DEVICE_MEMBER void one(float *c, u32 a0, u32 a1, u32 b0, u32 b1) {
        asm volatile("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, "
                     "{%10, %11}, {%0, %1, %2, %3, %4, %5, %6, %7};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
                     : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
    }
};
#endif

extern __shared__ __align__(128) u8 ring[];

// Fetches of one stage: this thread's chunks, so many rows apart.
template <class Layout> struct Fetch {
    enum { apart = MMA_THREADS / CHUNKS, chunks = (Layout::tile_rows + Layout::tile_columns) / apart };
    const u8 *a;
    const u8 *b;
    u64 pitch;
    u32 at;

    DEVICE_MEMBER Fetch(const u8 *a_tile, const u8 *b_tile, u64 row_bytes) {
        u32 row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        pitch = row_bytes;
        a = a_tile + row * pitch + chunk * 16;
        b = b_tile + row * pitch + chunk * 16;
        at = swizzled(row, chunk);
    }
    DEVICE_MEMBER const u8 *from(u32 i) const {
        const u32 of_a = Layout::tile_rows / apart;
        return i < of_a ? a + i * apart * pitch : b + (i - of_a) * apart * pitch;
    }
    // The rows of B follow those of A in a stage.
    DEVICE_MEMBER u32 to(u32 stage, u32 i) const { return stage + at + i * apart * ROW_BYTES; }
    DEVICE_MEMBER void advance() {
        a += ROW_BYTES;
        b += ROW_BYTES;
    }
#ifdef CP_ASYNC
    // Begins one stage; past the end along K it only counts.
    DEVICE_MEMBER void begin(u32 stage, bool more) {
        if (more) {
#pragma unroll
            for (u32 i = 0; i < chunks; ++i) {
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(to(stage, i)), "l"(from(i)) : "memory");
            }
            advance();
        }
        asm volatile("cp.async.commit_group;" : : : "memory");
    }
#endif
};

#ifdef CP_ASYNC
// Waits until the oldest stage but those begun after it has come, for all threads.
DEVICE void wait_for_stage(u32 stages) {
    if (stages == 4) {
        asm volatile("cp.async.wait_group 2;" : : : "memory");
    } else if (stages == 3) {
        asm volatile("cp.async.wait_group 1;" : : : "memory");
    } else {
        asm volatile("cp.async.wait_group 0;" : : : "memory");
    }
    __syncthreads();
}
#endif

template <int FORMAT, class Layout> DEVICE void mma_gemm(const Gemm &gemm) {
    typedef typename Layout::Sum Sum;
    typedef Fetch<Layout> Chunks;
    const u32 a_bytes = Layout::tile_rows * ROW_BYTES;
    const u32 stage_bytes = (Layout::tile_rows + Layout::tile_columns) * ROW_BYTES;
    __shared__ u32 checksum;
    Layout layout;
    u32 base = shared_address(ring);
    u32 rows = gemm.m / Layout::tile_rows, columns = gemm.n / Layout::tile_columns;
    u64 pitch = (u64)gemm.k * Traits<FORMAT>::bytes;
    u32 fetches = (u32)(pitch / ROW_BYTES);
    for (u32 at = blockIdx.x; at < rows * columns; at += gridDim.x) {
        u32 tile_row, tile_column;
        tile_at(at, gemm.rotation, rows, columns, 16, tile_row, tile_column);
        u32 row0 = tile_row * Layout::tile_rows, column0 = tile_column * Layout::tile_columns;
        if (threadIdx.x == 0) {
            checksum = 0;
        }
        Sum sums[Layout::registers];
#pragma unroll
        for (u32 i = 0; i < Layout::registers; ++i) {
            sums[i] = 0;
        }
        Chunks chunks(gemm.a + row0 * pitch, gemm.b + column0 * pitch, pitch);
#ifdef CP_ASYNC
        // Operands of the next step are loaded to registers before those of this one are multiplied.
        typename Layout::Held held[2];
        u32 ring_end = base + gemm.stages * stage_bytes;
        u32 write = base, read = base;
        for (u32 stage = 0; stage + 1 < gemm.stages; ++stage) {
            chunks.begin(write, stage < fetches);
            write += stage_bytes;
        }
        wait_for_stage(gemm.stages);
        layout.load(read, read + a_bytes, 0, held[0]);
        for (u32 fetch = 0; fetch < fetches; ++fetch) {
#pragma unroll
            for (u32 step = 0; step < Layout::steps; ++step) {
                bool last = step + 1 == Layout::steps;
                if (step == 0) {
                    // The slot that is written was read to its end before the last wait.
                    chunks.begin(write, fetch + gemm.stages - 1 < fetches);
                    write += stage_bytes;
                    write = write == ring_end ? base : write;
                }
                if (last) {
                    read += stage_bytes;
                    read = read == ring_end ? base : read;
                    wait_for_stage(gemm.stages);
                }
                layout.load(read, read + a_bytes, last ? 0 : step + 1, held[(step + 1) % 2]);
                layout.multiply(held[step % 2], sums);
            }
        }
        __syncthreads();
#else
        uint4 next[Chunks::chunks];
#pragma unroll
        for (u32 i = 0; i < Chunks::chunks; ++i) {
            store_chunk(chunks.to(base, i), *(const uint4 *)chunks.from(i));
        }
        chunks.advance();
        __syncthreads();
        for (u32 fetch = 0; fetch < fetches; ++fetch) {
            u32 read = base + fetch % 2 * stage_bytes, write = base + (fetch + 1) % 2 * stage_bytes;
            if (fetch + 1 < fetches) {
#pragma unroll
                for (u32 i = 0; i < Chunks::chunks; ++i) {
                    next[i] = *(const uint4 *)chunks.from(i);
                }
                chunks.advance();
            }
#pragma unroll
            for (u32 step = 0; step < Layout::steps; ++step) {
                typename Layout::Held held;
                layout.load(read, read + a_bytes, step, held);
                layout.multiply(held, sums);
            }
            if (fetch + 1 < fetches) {
#pragma unroll
                for (u32 i = 0; i < Chunks::chunks; ++i) {
                    store_chunk(chunks.to(write, i), next[i]);
                }
            }
            __syncthreads();
        }
#endif
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

// 128 bytes along K stay in shared memory.
#define LOOP_PIECES (128 / ROW_BYTES)

template <int FORMAT, class Layout> DEVICE void mma_loop(const Loop &loop) {
    typedef typename Layout::Sum Sum;
    const u32 rows = Layout::tile_rows + Layout::tile_columns;
    const u32 a_bytes = Layout::tile_rows * ROW_BYTES;
    const u32 k = LOOP_PIECES * ROW_BYTES / Traits<FORMAT>::bytes;
    const u32 repeats = 1024 / k;
    __shared__ u64 hashes[LOOP_WARPS];
    Layout layout;
    u32 base = shared_address(ring);
    u32 warp = threadIdx.x / 32;
    for (u32 at = threadIdx.x; at < LOOP_PIECES * rows * CHUNKS; at += MMA_THREADS) {
        u32 chunk = at % CHUNKS, row = at / CHUNKS % rows, piece = at / CHUNKS / rows;
        bool of_b = row >= Layout::tile_rows;
        u32 key = row_key(of_b ? loop.seed_b : loop.seed_a, of_b ? row - Layout::tile_rows : row);
        u32 first = (piece * ROW_BYTES + chunk * 16) / Traits<FORMAT>::bytes;
        store_chunk(base + piece * rows * ROW_BYTES + swizzled(row, chunk), operands16<FORMAT>(key, first));
    }
    if (threadIdx.x < LOOP_WARPS) {
        hashes[threadIdx.x] = 0;
    }
    __syncthreads();
    u64 hash = pattern_word(0, threadIdx.x);
    u64 time0 = global_timer(), clock0 = (u64)clock64();
    bool fault = threadIdx.x % 32 == 0 && planted(loop.fault_sm, loop.fault_place, loop.fault_bit, smid(), warp);
    for (u32 round = 0; round < loop.rounds; ++round) {
        Sum sums[Layout::registers];
#pragma unroll
        for (u32 i = 0; i < Layout::registers; ++i) {
            sums[i] = 0;
        }
        // Twice the same in registers: what is next is loaded while the rest is multiplied.
        const u32 steps = LOOP_PIECES * Layout::steps;
        typename Layout::Held held[2];
        layout.load(base, base + a_bytes, 0, held[0]);
#pragma unroll 1
        for (u32 repeat = 0; repeat < repeats; ++repeat) {
#pragma unroll
            for (u32 step = 0; step < steps; ++step) {
                u32 next = (step + 1) % steps;
                u32 from = base + next / Layout::steps * rows * ROW_BYTES;
                layout.load(from, from + a_bytes, next % Layout::steps, held[(step + 1) % 2]);
                layout.multiply(held[step % 2], sums);
            }
        }
        if (fault) {
            flip(sums[0], loop.fault_bit);
        }
#pragma unroll
        for (u32 i = 0; i < Layout::registers; ++i) {
            hash = (hash ^ raw_bits(sums[i])) * HASH_MULTIPLIER;
        }
    }
    write_loop_record(loop, hashes, MMA_THREADS / 32, warp, hash, time0, clock0);
}

#define MMA(NAME, FORMAT, LAYOUT)                                                                                      \
    extern "C" __global__ void __launch_bounds__(MMA_THREADS) gemm_##NAME(Gemm gemm) {                              \
        mma_gemm<FORMAT, LAYOUT>(gemm);                                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(MMA_THREADS) loop_##NAME(Loop loop) {                              \
        mma_loop<FORMAT, LAYOUT>(loop);                                                                                \
    }
