// Blackwell of data centres: `tcgen05.mma` from shared memory that TMA fills, sums in tensor memory. Untested: no such
// GPU was at hand. What it relies on is in the PTX ISA, chapter "TensorCore 5th Generation Family Instructions".
//
// A persistent CTA of ten warps: one thread of the ninth fetches, one of the tenth multiplies, the first eight take the
// sums out: each the 32 rows that a warp of its place in four may read, the first four the left half of the columns. A
// fetch is 128 bytes along K of all 384 rows, in a ring of four. Tensor memory has room for the sums of two tiles: while
// one is taken out, the next is begun.
//
// No wait is for ever: where one takes too long, all of the CTA give up and the records tell of wrong results, so that a
// self-test drops these kernels and nothing hangs.
#pragma once
#include "tma.cuh"

#define STAGES 4
#define TAKERS 256
#define FETCHER 8
#define MULTIPLIER 9
#define TCGEN05_THREADS 320
#define CHUNK 32

// In nanoseconds: how long a wait may take, how long it sleeps at most before it looks, and what a look counts at most:
// a CTA that was taken off its SM for a while has not waited.
#define WAIT_LIMIT 2000000000ull
#define SLEEP 1000000u
#define LOOK_LIMIT 10000000ull

// After the ring. `done` and `drained` hand over the two halves of tensor memory.
struct Control {
    u64 full[STAGES];
    u64 empty[STAGES];
    u64 done[2];
    u64 drained[2];
    u32 lost;
    u32 sums;
    u32 checksum[2];
    u32 weights[2][TILE_COLUMNS];
};

// The instruction descriptor (PTX ISA, "Instruction descriptor"): type of the sums from bit 4, of A from 7, of B from 10,
// N / 8 from 17, M / 16 from 24; A and B both along K, nothing negated, sparse or saturated.
#define INSTRUCTION(SUMS, TYPE)                                                                                        \
    ((u32)(SUMS) << 4 | (u32)(TYPE) << 7 | (u32)(TYPE) << 10 | (TILE_COLUMNS / 8u) << 17 | (TILE_ROWS / 16u) << 24)
#define SUMS_F32 1
#define SUMS_S32 2

// One instruction: 32 bytes along K. `add` is 0 for the first of a sum.
template <int FORMAT> struct Tcgen05;
#define TCGEN05(FORMAT, KIND, SUMS, TYPE)                                                                              \
    template <> struct Tcgen05<FORMAT> {                                                                               \
        static DEVICE_MEMBER void run(u32 sums, u64 a, u64 b, u32 add) {                                               \
            asm volatile("{ .reg .pred adds;\n"                                                                        \
                         "setp.ne.u32 adds, %4, 0;\n"                                                                  \
                         "tcgen05.mma.cta_group::1.kind::" KIND " [%0], %1, %2, %3, adds; }"                           \
                         :                                                                                             \
                         : "r"(sums), "l"(a), "l"(b), "r"(INSTRUCTION(SUMS, TYPE)), "r"(add)                           \
                         : "memory");                                                                                  \
        }                                                                                                              \
    }
TCGEN05(FP16, "f16", SUMS_F32, 0);
TCGEN05(BF16, "f16", SUMS_F32, 1);
TCGEN05(TF32, "tf32", SUMS_F32, 2);
TCGEN05(FP8, "f8f6f4", SUMS_F32, 0);
TCGEN05(INT8, "i8", SUMS_S32, 1);

// A matrix whose rows of 128 bytes are swizzled, eight of them after the other in 1024 bytes (PTX ISA, "Shared memory
// descriptor"): address / 16, from bit 32 the stride of eight rows / 16, 1 in bit 46, swizzle of 128 bytes (2) from 61.
// The leading dimension's stride from bit 16 is not used by this layout.
DEVICE u64 descriptor(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 46 | (u64)2 << 61;
}

// What this thread did in tensor memory is before what comes after the next barrier, and the other way round.
DEVICE void fence_before() { asm volatile("tcgen05.fence::before_thread_sync;" : : : "memory"); }
DEVICE void fence_after() { asm volatile("tcgen05.fence::after_thread_sync;" : : : "memory"); }

// The barrier is arrived at when all that this thread multiplied before is done.
DEVICE void commit(u32 barrier) {
    asm volatile("tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" : : "r"(barrier) : "memory");
}

DEVICE bool has_come(u32 barrier, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred done;\n"
                 "mbarrier.try_wait.parity.shared.b64 done, [%1], %2, %3;\n"
                 "selp.u32 %0, 1, 0, done; }"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity), "r"(SLEEP)
                 : "memory");
    return done != 0;
}

// False where it took too long, here or in another thread.
DEVICE bool wait_for(u32 barrier, u32 parity, volatile u32 *lost) {
    if (has_come(barrier, parity)) {
        return true;
    }
    u64 last = global_timer(), waited = 0;
    while (!has_come(barrier, parity)) {
        u64 now = global_timer(), look = now - last;
        waited += look < LOOK_LIMIT ? look : LOOK_LIMIT;
        last = now;
        if (waited > WAIT_LIMIT) {
            *lost = 1;
        }
        if (*lost) {
            return false;
        }
    }
    return true;
}

// As `wait_for`, of a whole warp that does what comes after as one: that lets its addresses be in uniform registers.
DEVICE bool warp_waits_for(u32 barrier, u32 parity, volatile u32 *lost) {
    return __all_sync(0xFFFFFFFFu, wait_for(barrier, parity, lost));
}

// True in one thread of the warp, always the same.
DEVICE bool is_elected() {
    u32 elected;
    asm volatile("{ .reg .pred elected;\n"
                 "elect.sync _|elected, 0xFFFFFFFF;\n"
                 "selp.u32 %0, 1, 0, elected; }"
                 : "=r"(elected)
                 :
                 : "memory");
    return elected != 0;
}

// A ring's or tensor memory's next place, and the parity of the barriers there.
template <u32 PLACES> struct Turn {
    u32 at = 0, parity = 0;
    DEVICE_MEMBER void next() {
        if (++at == PLACES) {
            at = 0;
            parity ^= 1;
        }
    }
};

// 32 columns of the warp's 32 rows, a row to a lane. The wait is in the same statement, so that nothing is read before it.
DEVICE void take(u32 *bits, u32 from) {
    asm volatile("tcgen05.ld.sync.aligned.32x32b.x32.b32 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, [%32];\n"
                 "tcgen05.wait::ld.sync.aligned;"
                 : "=r"(bits[0]), "=r"(bits[1]), "=r"(bits[2]), "=r"(bits[3]), "=r"(bits[4]), "=r"(bits[5]),
                   "=r"(bits[6]), "=r"(bits[7]), "=r"(bits[8]), "=r"(bits[9]), "=r"(bits[10]), "=r"(bits[11]),
                   "=r"(bits[12]), "=r"(bits[13]), "=r"(bits[14]), "=r"(bits[15]), "=r"(bits[16]), "=r"(bits[17]),
                   "=r"(bits[18]), "=r"(bits[19]), "=r"(bits[20]), "=r"(bits[21]), "=r"(bits[22]), "=r"(bits[23]),
                   "=r"(bits[24]), "=r"(bits[25]), "=r"(bits[26]), "=r"(bits[27]), "=r"(bits[28]), "=r"(bits[29]),
                   "=r"(bits[30]), "=r"(bits[31])
                 : "r"(from)
                 : "memory");
}

DEVICE void from_bits(u32 bits, float &value) { value = __uint_as_float(bits); }
DEVICE void from_bits(u32 bits, int &value) { value = (int)bits; }

// Barriers, all of tensor memory, and what the threads must see of each other before they part. All threads call it.
DEVICE void set_up(Control *control) {
    if (threadIdx.x == 0) {
        for (u32 slot = 0; slot < STAGES; ++slot) {
            barrier_init(shared_address(control->full + slot), 1);
            barrier_init(shared_address(control->empty + slot), 1);
        }
        for (u32 half = 0; half < 2; ++half) {
            barrier_init(shared_address(control->done + half), 1);
            barrier_init(shared_address(control->drained + half), TAKERS);
        }
        control->lost = 0;
        asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    }
    if (threadIdx.x / 32 == MULTIPLIER) {
        __syncwarp();
        asm volatile("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], 512;"
                     :
                     : "r"(shared_address(&control->sums))
                     : "memory");
        asm volatile("tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;" : : : "memory");
    }
    fence_before();
    __syncthreads();
    fence_after();
}

// Gives tensor memory back: by the warp that has it, when no thread uses it any more. All threads call it.
DEVICE void tear_down(Control *control) {
    fence_before();
    __syncwarp();
    __syncthreads();
    fence_after();
    if (threadIdx.x / 32 == MULTIPLIER) {
        asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, 512;"
                     :
                     : "r"(*(volatile u32 *)&control->sums)
                     : "memory");
    }
}

// The four steps of 32 bytes of one fetch.
template <int FORMAT> DEVICE void multiply_fetch(u32 sums, u32 from, bool is_first) {
    u64 a = descriptor(from), b = descriptor(from + A_BYTES);
#pragma unroll
    for (u32 step = 0; step < ROW_BYTES / 32; ++step) {
        Tcgen05<FORMAT>::run(sums, a + 2 * step, b + 2 * step, is_first && step == 0 ? 0 : 1);
    }
}

struct Walk {
    u32 columns, rows, units, at;

    DEVICE_MEMBER Walk(const Gemm &gemm) {
        at = blockIdx.x;
        rows = gemm.m / TILE_ROWS;
        columns = gemm.n / TILE_COLUMNS;
        units = rows * columns;
    }
    DEVICE_MEMBER bool more() const { return at < units; }
    DEVICE_MEMBER void next() { at += gridDim.x; }
    DEVICE_MEMBER void place(const Gemm &gemm, u32 &row, u32 &column) const {
        tile_at(at, gemm.rotation, rows, columns, 16, row, column);
    }
};

template <int FORMAT>
DEVICE void fetch_all(const Gemm &gemm, const TensorMap *a, const TensorMap *b, Control *control, u32 ring) {
    u32 fetches = gemm.k * Traits<FORMAT>::bytes / ROW_BYTES;
    u32 full = shared_address(control->full), empty = shared_address(control->empty);
    Turn<STAGES> slot;
    for (Walk walk(gemm); walk.more(); walk.next()) {
        u32 row, column;
        walk.place(gemm, row, column);
#pragma unroll 1
        for (u32 at = 0; at < fetches; ++at) {
            u32 to = ring + slot.at * STAGE_BYTES, barrier = full + slot.at * 8;
            if (!warp_waits_for(empty + slot.at * 8, slot.parity ^ 1, &control->lost)) {
                return;
            }
            if (is_elected()) {
                u32 b_row = column * TILE_COLUMNS;
                barrier_expect(barrier, STAGE_BYTES);
                fetch(to, a, at * ROW_BYTES, row * TILE_ROWS, barrier);
                fetch(to + A_BYTES, b, at * ROW_BYTES, b_row, barrier);
                fetch(to + A_BYTES + B_BYTES / 2, b, at * ROW_BYTES, b_row + TILE_COLUMNS / 2, barrier);
            }
            slot.next();
        }
    }
    // No CTA goes while a barrier of it is still to be arrived at.
#pragma unroll 1
    for (u32 left = 0; left < STAGES; ++left) {
        if (!warp_waits_for(empty + slot.at * 8, slot.parity ^ 1, &control->lost)) {
            return;
        }
        slot.next();
    }
}

template <int FORMAT> DEVICE void multiply_all(const Gemm &gemm, Control *control, u32 ring, u32 tensor_memory) {
    u32 fetches = gemm.k * Traits<FORMAT>::bytes / ROW_BYTES;
    u32 full = shared_address(control->full), empty = shared_address(control->empty);
    u32 done = shared_address(control->done), drained = shared_address(control->drained);
    Turn<STAGES> slot;
    Turn<2> half;
    for (Walk walk(gemm); walk.more(); walk.next()) {
        u32 sums = tensor_memory + half.at * TILE_COLUMNS;
        if (!warp_waits_for(drained + half.at * 8, half.parity ^ 1, &control->lost)) {
            return;
        }
#pragma unroll 1
        for (u32 at = 0; at < fetches; ++at) {
            if (!warp_waits_for(full + slot.at * 8, slot.parity, &control->lost)) {
                return;
            }
            fence_after();
            if (is_elected()) {
                multiply_fetch<FORMAT>(sums, ring + slot.at * STAGE_BYTES, at == 0);
                commit(empty + slot.at * 8);
                if (at + 1 == fetches) {
                    commit(done + half.at * 8);
                }
            }
            slot.next();
        }
        half.next();
    }
}

// 32 sums of a row, their first at `index` of C.
template <int FORMAT> DEVICE void store_sums(const float *sums, u8 *c, u64 index) {
    if (FORMAT == BF16 || FORMAT == FP16 || FORMAT == FP8) {
#pragma unroll
        for (u32 at = 0; at < CHUNK; at += 8) {
            *(uint4 *)(c + 2 * (index + at)) =
                make_uint4(pack_bfloats(sums[at], sums[at + 1]), pack_bfloats(sums[at + 2], sums[at + 3]),
                           pack_bfloats(sums[at + 4], sums[at + 5]), pack_bfloats(sums[at + 6], sums[at + 7]));
        }
    } else {
#pragma unroll
        for (u32 at = 0; at < CHUNK; at += 4) {
            *(float4 *)(c + 4 * (index + at)) = make_float4(sums[at], sums[at + 1], sums[at + 2], sums[at + 3]);
        }
    }
}
template <int FORMAT> DEVICE void store_sums(const int *sums, u8 *c, u64 index) {
#pragma unroll
    for (u32 at = 0; at < CHUNK; at += 4) {
        *(int4 *)(c + 4 * (index + at)) = make_int4(sums[at], sums[at + 1], sums[at + 2], sums[at + 3]);
    }
}

template <int FORMAT> DEVICE void take_all(const Gemm &gemm, Control *control, u32 tensor_memory) {
    typedef typename Traits<FORMAT>::Sum Sum;
    u32 thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    u32 row_in_tile = warp % 4 * 32 + lane, first = warp / 4 * (TILE_COLUMNS / 2);
    u32 done = shared_address(control->done), drained = shared_address(control->drained);
    volatile u32 *lost = &control->lost;
    u32 turn = 0, last = NONE, sm = smid();
    Turn<2> half;
    for (Walk walk(gemm); walk.more(); walk.next()) {
        u32 tile_row, tile_column;
        walk.place(gemm, tile_row, tile_column);
        u32 row = tile_row * TILE_ROWS + row_in_tile, column0 = tile_column * TILE_COLUMNS;
        u32 tile = tile_row * walk.columns + tile_column;
        control->weights[turn][thread] = weight(gemm.column_seed, column0 + thread);
        if (thread == 0) {
            control->checksum[turn] = 0;
        }
        // All have left the tile before: its checksum is whole, and weights and checksum of the one before that are free.
        named_barrier(1, TAKERS);
        if (thread == 0 && last != NONE) {
            gemm.records[last] = make_uint2(*lost ? NONE : control->checksum[turn ^ 1], sm);
        }
        last = tile;
        // A warp reads tensor memory as one, or not at all.
        if (warp_waits_for(done + half.at * 8, half.parity, lost)) {
            fence_after();
            u32 from = tensor_memory + half.at * TILE_COLUMNS + first + (warp % 4 * 32 << 16);
            u32 in_row = 0, all = 0;
            float off = 0.0f;
#pragma unroll 1
            for (u32 chunk = 0; chunk < TILE_COLUMNS / 2; chunk += CHUNK) {
                u32 bits[CHUNK];
                take(bits, from + chunk);
                if (chunk + CHUNK == TILE_COLUMNS / 2) {
                    fence_before();
                    barrier_arrive(drained + half.at * 8);
                }
                Sum sums[CHUNK];
#pragma unroll
                for (u32 i = 0; i < CHUNK; ++i) {
                    from_bits(bits[i], sums[i]);
                }
                if (thread == 0 && chunk == 0 && planted(gemm.fault_sm, gemm.fault_place, gemm.fault_bit, sm, tile)) {
                    flip(sums[0], gemm.fault_bit);
                }
                const uint4 *weights = (const uint4 *)(control->weights[turn] + first + chunk);
#pragma unroll
                for (u32 i = 0; i < CHUNK; i += 4) {
                    uint4 four = weights[i / 4];
                    in_row += four.x * integer_bits(sums[i], off) + four.y * integer_bits(sums[i + 1], off) +
                              four.z * integer_bits(sums[i + 2], off) + four.w * integer_bits(sums[i + 3], off);
                    all += four.x + four.y + four.z + four.w;
                }
                store_sums<FORMAT>(sums, gemm.c, (u64)row * gemm.n + column0 + first + chunk);
            }
            u32 total = weight(gemm.row_seed, row) * (in_row - Bias<Sum>::value * all);
            total = off == 0.0f ? total : total + 1u;
#pragma unroll
            for (u32 distance = 16; distance > 0; distance /= 2) {
                total += __shfl_xor_sync(0xFFFFFFFFu, total, distance);
            }
            if (lane == 0) {
                atomicAdd(&control->checksum[turn], total);
            }
        }
        half.next();
        turn ^= 1;
    }
    named_barrier(1, TAKERS);
    if (thread == 0 && last != NONE) {
        gemm.records[last] = make_uint2(*lost ? NONE : control->checksum[turn ^ 1], sm);
    }
}

DEVICE u32 ring_address() { return (shared_address(dynamic) + 1023) & ~1023u; }

DEVICE Control *control_of(u32 ring) {
    return (Control *)(dynamic + (ring - shared_address(dynamic)) + STAGES * STAGE_BYTES);
}

template <int FORMAT> DEVICE void tcgen05_gemm(const Gemm &gemm, const TensorMap *a, const TensorMap *b) {
    u32 ring = ring_address(), warp = threadIdx.x / 32;
    Control *control = control_of(ring);
    set_up(control);
    u32 tensor_memory = *(volatile u32 *)&control->sums;
    if (warp == FETCHER) {
        fetch_all<FORMAT>(gemm, a, b, control, ring);
    } else if (warp == MULTIPLIER) {
        multiply_all<FORMAT>(gemm, control, ring, tensor_memory);
    } else {
        take_all<FORMAT>(gemm, control, tensor_memory);
    }
    tear_down(control);
}

template <int FORMAT> DEVICE void multiply_rounds(const Loop &loop, Control *control, u32 ring, u32 tensor_memory) {
    const u32 repeats = 1024 * Traits<FORMAT>::bytes / (LOOP_SLOTS * ROW_BYTES);
    u32 done = shared_address(control->done), drained = shared_address(control->drained);
    Turn<2> half;
    for (u32 round = 0; round < loop.rounds; ++round) {
        if (!warp_waits_for(drained + half.at * 8, half.parity ^ 1, &control->lost)) {
            return;
        }
        fence_after();
        u32 sums = tensor_memory + half.at * TILE_COLUMNS;
        if (is_elected()) {
#pragma unroll 1
            for (u32 at = 0; at < repeats * LOOP_SLOTS; ++at) {
                multiply_fetch<FORMAT>(sums, ring + at % LOOP_SLOTS * STAGE_BYTES, at == 0);
            }
            commit(done + half.at * 8);
        }
        half.next();
    }
}

// The hash of a lane's sums over the rounds; 0 where it was given up.
template <int FORMAT> DEVICE u64 take_rounds(const Loop &loop, Control *control, u32 tensor_memory) {
    typedef typename Traits<FORMAT>::Sum Sum;
    u32 warp = threadIdx.x / 32;
    u32 done = shared_address(control->done), drained = shared_address(control->drained);
    u64 hash = pattern_word(0, threadIdx.x);
    bool fault = threadIdx.x % 32 == 0 && planted(loop.fault_sm, loop.fault_place, loop.fault_bit, smid(), warp);
    Turn<2> half;
    for (u32 round = 0; round < loop.rounds; ++round) {
        if (!warp_waits_for(done + half.at * 8, half.parity, &control->lost)) {
            return 0;
        }
        fence_after();
        u32 from = tensor_memory + half.at * TILE_COLUMNS + warp / 4 * (TILE_COLUMNS / 2) + (warp % 4 * 32 << 16);
#pragma unroll 1
        for (u32 chunk = 0; chunk < TILE_COLUMNS / 2; chunk += CHUNK) {
            u32 bits[CHUNK];
            take(bits, from + chunk);
            if (chunk + CHUNK == TILE_COLUMNS / 2) {
                fence_before();
                barrier_arrive(drained + half.at * 8);
            }
            if (fault && chunk == 0) {
                Sum sum;
                from_bits(bits[0], sum);
                flip(sum, loop.fault_bit);
                bits[0] = (u32)raw_bits(sum);
            }
#pragma unroll
            for (u32 i = 0; i < CHUNK; ++i) {
                hash = (hash ^ bits[i]) * HASH_MULTIPLIER;
            }
        }
        half.next();
    }
    return hash;
}

template <int FORMAT> DEVICE void tcgen05_loop(const Loop &loop) {
    __shared__ u64 hashes[LOOP_WARPS];
    u32 ring = ring_address(), warp = threadIdx.x / 32;
    Control *control = control_of(ring);
    fill_ring<FORMAT>(loop, ring);
    if (threadIdx.x < LOOP_WARPS) {
        hashes[threadIdx.x] = 0;
    }
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
    set_up(control);
    u32 tensor_memory = *(volatile u32 *)&control->sums;
    u64 time0 = global_timer(), clock0 = (u64)clock64(), hash = 0;
    if (warp < FETCHER) {
        hash = take_rounds<FORMAT>(loop, control, tensor_memory);
    } else if (warp == MULTIPLIER) {
        multiply_rounds<FORMAT>(loop, control, ring, tensor_memory);
    }
    __syncwarp();
    write_loop_record(loop, hashes, 8, warp % 8, hash, time0, clock0);
    tear_down(control);
}

#define TCGEN05_KERNELS(NAME, FORMAT)                                                                                  \
    extern "C" __global__ void __launch_bounds__(TCGEN05_THREADS, 1)                                                   \
        gemm_##NAME(Gemm gemm, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b) {             \
        tcgen05_gemm<FORMAT>(gemm, &a, &b);                                                                            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(TCGEN05_THREADS, 1) loop_##NAME(Loop loop) {                          \
        tcgen05_loop<FORMAT>(loop);                                                                                    \
    }
