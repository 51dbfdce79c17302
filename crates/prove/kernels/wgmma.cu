// Hopper: `wgmma` from shared memory that TMA fills.
//
// A persistent CTA of three warpgroups: one thread of the first fetches, the other two multiply, each 64 of a tile's 128
// rows by all of its 256 columns. A fetch is 128 bytes along K of all 384 rows, in a ring whose slots are handed over by
// two barriers each. Two CTAs of a cluster have tiles above each other: each fetches its own A and half of their common
// B, for both. C of 16 bits leaves through shared memory while the next tile is begun.
#include "tma.cuh"
#include "wgmma_instructions.cuh"

#define SUMS 128

template <int FORMAT> struct Ring {
    // C leaves by way of shared memory where it has 16 bits; else there is room for one stage more.
    enum {
        staged = FORMAT == BF16 || FORMAT == FP16 || FORMAT == FP8,
        stages = staged ? 3 : 4,
        stored_bytes = staged ? TILE_ROWS * TILE_COLUMNS * 2 : 0
    };
};

// After the ring and C: barriers, weights of columns twice, checksums.
struct Control {
    u64 full[4];
    u64 empty[4];
    u32 checksum[2];
    u32 pad[14];
    u32 weights[2][TILE_COLUMNS];
};

DEVICE void barrier_wait(u32 barrier, u32 parity) {
    asm volatile("{ .reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@!done bra again; }"
                 :
                 : "r"(barrier), "r"(parity)
                 : "memory");
}

// The barrier at the same place in a CTA of the cluster. What is released was only read: no wider scope is asked for, as
// that would wait for all of the thread's memory accesses on the whole GPU.
DEVICE void barrier_arrive_at(u32 barrier, u32 cta) {
    asm volatile("{ .reg .u32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there]; }"
                 :
                 : "r"(barrier), "r"(cta)
                 : "memory");
}

DEVICE void fetch_for_both(u32 to, const TensorMap *map, u32 x, u32 y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;"
                 :
                 : "r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier), "h"((u16)3)
                 : "memory");
}

DEVICE void store(const TensorMap *map, u32 x, u32 y, u32 from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];"
                 :
                 : "l"(map), "r"(x), "r"(y), "r"(from)
                 : "memory");
}

template <int PAIRED> DEVICE void whole_sync() {
    if (PAIRED) {
        asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" : : : "memory");
    } else {
        __syncthreads();
    }
}

// A matrix whose rows of 128 bytes are swizzled, eight of them after the other in 1024 bytes.
DEVICE u64 descriptor(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// The four steps of 32 bytes of one fetch.
template <int FORMAT> DEVICE void multiply_fetch(typename Traits<FORMAT>::Sum *sums, u32 a, u32 b) {
    u64 a_at = descriptor(a), b_at = descriptor(b);
    asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
#pragma unroll
    for (u32 step = 0; step < 4; ++step) {
        Wgmma<FORMAT>::run(sums, a_at + 2 * step, b_at + 2 * step);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

template <int LEFT> DEVICE void wait_multiplied() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(LEFT) : "memory");
}

template <int FORMAT, int PAIRED> struct Walk {
    u32 columns, rows, units, at, step, rank;

    DEVICE_MEMBER Walk(const Gemm &gemm) {
        rank = PAIRED ? blockIdx.x % 2 : 0;
        at = PAIRED ? blockIdx.x / 2 : blockIdx.x;
        step = PAIRED ? gridDim.x / 2 : gridDim.x;
        rows = gemm.m / TILE_ROWS / (PAIRED ? 2 : 1);
        columns = gemm.n / TILE_COLUMNS;
        units = rows * columns;
    }
    DEVICE_MEMBER bool more() const { return at < units; }
    DEVICE_MEMBER void next() { at += step; }
    DEVICE_MEMBER void place(const Gemm &gemm, u32 &row, u32 &column) const {
        tile_at(at, gemm.rotation, rows, columns, PAIRED ? 8 : 16, row, column);
        row = PAIRED ? row * 2 + rank : row;
    }
};

template <int FORMAT, int PAIRED>
DEVICE void produce(const Gemm &gemm, const TensorMap *a, const TensorMap *b, u32 ring, u32 full, u32 empty) {
    u32 fetches = gemm.k * Traits<FORMAT>::bytes / ROW_BYTES;
    u32 slot = 0, parity = 0;
    for (Walk<FORMAT, PAIRED> walk(gemm); walk.more(); walk.next()) {
        u32 row, column;
        walk.place(gemm, row, column);
        for (u32 at = 0; at < fetches; ++at) {
            u32 to = ring + slot * STAGE_BYTES, barrier = full + slot * 8;
            barrier_wait(empty + slot * 8, parity ^ 1);
            barrier_expect(barrier, STAGE_BYTES);
            fetch(to, a, at * ROW_BYTES, row * TILE_ROWS, barrier);
            u32 b_row = column * TILE_COLUMNS;
            if (PAIRED) {
                u32 half = walk.rank * (TILE_COLUMNS / 2);
                fetch_for_both(to + A_BYTES + half * ROW_BYTES, b, at * ROW_BYTES, b_row + half, barrier);
            } else {
                fetch(to + A_BYTES, b, at * ROW_BYTES, b_row, barrier);
                fetch(to + A_BYTES + B_BYTES / 2, b, at * ROW_BYTES, b_row + TILE_COLUMNS / 2, barrier);
            }
            if (++slot == Ring<FORMAT>::stages) {
                slot = 0;
                parity ^= 1;
            }
        }
    }
}

// Checksum of a thread's sums: two rows, and two columns of each eight.
template <class Sum>
DEVICE u32 checksum_of(const Sum *sums, const Gemm &gemm, u32 weights, u32 row) {
    u32 upper = 0, lower = 0, all = 0;
    float off = 0.0f;
#pragma unroll
    for (u32 group = 0; group < SUMS / 4; ++group) {
        u32 first, second;
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(first), "=r"(second) : "r"(weights + group * 32));
        upper += first * integer_bits(sums[4 * group], off) + second * integer_bits(sums[4 * group + 1], off);
        lower += first * integer_bits(sums[4 * group + 2], off) + second * integer_bits(sums[4 * group + 3], off);
        all += first + second;
    }
    u32 bias = Bias<Sum>::value * all;
    u32 total = weight(gemm.row_seed, row) * (upper - bias) + weight(gemm.row_seed, row + 8) * (lower - bias);
    return off == 0.0f ? total : total + 1u;
}

template <int FORMAT> DEVICE void store_staged(const float *sums, const TensorMap *c, u32 staging, u32 group, u32 x, u32 y) {
    u32 thread = threadIdx.x % 128, lane = thread % 32;
    // What the last tile left there must have gone.
    if (thread == 0) {
        asm volatile("cp.async.bulk.wait_group.read 0;" : : : "memory");
    }
    named_barrier(2 + group, 128);
    u32 row = thread / 32 * 16 + lane % 16;
#pragma unroll
    for (u32 pair = 0; pair < SUMS / 8; ++pair) {
        u32 column = 2 * pair + lane / 16;
        u32 to = staging + column / 8 * (64 * 128) + row * 128 + (((column % 8) ^ (row % 8)) << 4);
        const float *from = sums + 8 * pair;
        u32 parts[4];
#pragma unroll
        for (u32 part = 0; part < 4; ++part) {
            parts[part] = pack_bfloats(from[2 * part], from[2 * part + 1]);
        }
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     :
                     : "r"(to), "r"(parts[0]), "r"(parts[1]), "r"(parts[2]), "r"(parts[3])
                     : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
    named_barrier(2 + group, 128);
    if (thread == 0) {
#pragma unroll
        for (u32 block = 0; block < 4; ++block) {
            store(c, x * 2 + block * 128, y, staging + block * (64 * 128));
        }
        asm volatile("cp.async.bulk.commit_group;" : : : "memory");
    }
}

template <int FORMAT, class Sum> DEVICE void store_direct(const Sum *sums, const Gemm &gemm, u32 row, u32 column) {
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u64 start = (u64)(row + 8 * half) * gemm.n + column;
#pragma unroll
        for (u32 group = 0; group < SUMS / 4; ++group) {
            store_pair<FORMAT>(gemm.c, start + group * 8, sums[4 * group + 2 * half], sums[4 * group + 2 * half + 1]);
        }
    }
}

DEVICE void put(const float *sums, const TensorMap *c, u32 staging, u32 group, u32 x, u32 y, float) {
    store_staged<BF16>(sums, c, staging, group, x, y);
}
DEVICE void put(const int *, const TensorMap *, u32, u32, u32, u32, int) {}

template <int FORMAT, int PAIRED>
DEVICE void consume(const Gemm &gemm, const TensorMap *c, Control *control, u32 ring, u32 full, u32 empty) {
    typedef typename Traits<FORMAT>::Sum Sum;
    u32 fetches = gemm.k * Traits<FORMAT>::bytes / ROW_BYTES;
    u32 thread = threadIdx.x - 128, group = thread / 128, lane = thread % 32;
    u32 staging = ring + Ring<FORMAT>::stages * STAGE_BYTES + group * (Ring<FORMAT>::stored_bytes / 2);
    u32 row_in_tile = group * 64 + thread % 128 / 32 * 16 + lane / 4;
    u32 slot = 0, parity = 0, turn = 0, last = NONE;
    u32 sm = smid();
    for (Walk<FORMAT, PAIRED> walk(gemm); walk.more(); walk.next()) {
        u32 tile_row, tile_column;
        walk.place(gemm, tile_row, tile_column);
        u32 row0 = tile_row * TILE_ROWS, column0 = tile_column * TILE_COLUMNS;
        u32 tile = tile_row * walk.columns + tile_column;
        control->weights[turn][thread] = weight(gemm.column_seed, column0 + thread);
        if (thread == 0) {
            control->checksum[turn] = 0;
        }
        // All have left the tile before: its checksum is whole, and weights and checksum of the one before that are free.
        named_barrier(1, 256);
        if (thread == 0 && last != NONE) {
            gemm.records[last] = make_uint2(control->checksum[turn ^ 1], sm);
        }
        last = tile;
        // `ptxas` lets instructions overlap only where nothing else writes these registers between them.
        Sum sums[SUMS];
#pragma unroll
        for (u32 i = 0; i < SUMS; ++i) {
            sums[i] = 0;
        }
        u32 before = 0, at = 0;
#pragma unroll 1
        do {
            u32 from = ring + slot * STAGE_BYTES;
            barrier_wait(full + slot * 8, parity);
            multiply_fetch<FORMAT>(sums, from + group * (64 * ROW_BYTES), from + A_BYTES);
            wait_multiplied<1>();
            if (at > 0 && (PAIRED ? thread % 128 < 2 : thread % 128 == 0)) {
                PAIRED ? barrier_arrive_at(empty + before * 8, thread % 128) : barrier_arrive(empty + before * 8);
            }
            before = slot;
            if (++slot == Ring<FORMAT>::stages) {
                slot = 0;
                parity ^= 1;
            }
        } while (++at < fetches);
        wait_multiplied<0>();
        if (PAIRED ? thread % 128 < 2 : thread % 128 == 0) {
            PAIRED ? barrier_arrive_at(empty + before * 8, thread % 128) : barrier_arrive(empty + before * 8);
        }
        if (thread == 0 && planted(gemm.fault_sm, gemm.fault_place, gemm.fault_bit, sm, tile)) {
            flip(sums[0], gemm.fault_bit);
        }
        if (Ring<FORMAT>::staged) {
            put(sums, c, staging, group, column0, row0 + group * 64, Sum());
        } else {
            store_direct<FORMAT>(sums, gemm, row0 + row_in_tile, column0 + lane % 4 * 2);
        }
        u32 weights = shared_address(control->weights[turn]) + lane % 4 * 8;
        u32 total = checksum_of(sums, gemm, weights, row0 + row_in_tile);
#pragma unroll
        for (u32 distance = 16; distance > 0; distance /= 2) {
            total += __shfl_xor_sync(0xFFFFFFFFu, total, distance);
        }
        if (lane == 0) {
            atomicAdd(&control->checksum[turn], total);
        }
        turn ^= 1;
    }
    named_barrier(1, 256);
    if (thread == 0 && last != NONE) {
        gemm.records[last] = make_uint2(control->checksum[turn ^ 1], sm);
    }
    if (thread % 128 == 0) {
        asm volatile("cp.async.bulk.wait_group 0;" : : : "memory");
    }
}

template <int FORMAT, int PAIRED>
DEVICE void wgmma_gemm(const Gemm &gemm, const TensorMap *a, const TensorMap *b, const TensorMap *c) {
    u32 start = shared_address(dynamic);
    u32 ring = (start + 1023) & ~1023u;
    Control *control =
        (Control *)(dynamic + (ring - start) + Ring<FORMAT>::stages * STAGE_BYTES + Ring<FORMAT>::stored_bytes);
    u32 full = shared_address(control->full), empty = shared_address(control->empty);
    if (threadIdx.x == 0) {
        for (u32 slot = 0; slot < Ring<FORMAT>::stages; ++slot) {
            barrier_init(full + slot * 8, 1);
            barrier_init(empty + slot * 8, PAIRED ? 4 : 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    }
    whole_sync<PAIRED>();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            produce<FORMAT, PAIRED>(gemm, a, b, ring, full, empty);
        }
        __syncwarp();
        // No CTA goes while the other may still write into its shared memory.
        whole_sync<PAIRED>();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        consume<FORMAT, PAIRED>(gemm, c, control, ring, full, empty);
        __syncwarp();
        whole_sync<PAIRED>();
    }
}

template <int FORMAT> DEVICE void wgmma_loop(const Loop &loop) {
    typedef typename Traits<FORMAT>::Sum Sum;
    const u32 k = LOOP_SLOTS * ROW_BYTES / Traits<FORMAT>::bytes;
    const u32 repeats = 1024 / k;
    __shared__ u64 hashes[LOOP_WARPS];
    u32 start = shared_address(dynamic);
    u32 ring = (start + 1023) & ~1023u;
    fill_ring<FORMAT>(loop, ring);
    if (threadIdx.x < LOOP_WARPS) {
        hashes[threadIdx.x] = 0;
    }
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
    __syncthreads();
    u64 time0 = global_timer(), clock0 = (u64)clock64();
    if (threadIdx.x >= 128) {
        u32 thread = threadIdx.x - 128, group = thread / 128, warp = thread / 32;
        u64 hash = pattern_word(0, thread);
        bool fault = thread % 32 == 0 && planted(loop.fault_sm, loop.fault_place, loop.fault_bit, smid(), warp);
        // In turns, by two barriers: while one warpgroup folds, the other multiplies.
        if (group == 1) {
            asm volatile("bar.arrive 4, 256;" : : : "memory");
        }
        for (u32 round = 0; round < loop.rounds; ++round) {
            Sum sums[SUMS];
#pragma unroll
            for (u32 i = 0; i < SUMS; ++i) {
                sums[i] = 0;
            }
            named_barrier(4 + group, 256);
            u32 at = 0;
#pragma unroll 1
            do {
                u32 from = ring + at % LOOP_SLOTS * STAGE_BYTES;
                multiply_fetch<FORMAT>(sums, from + group * (64 * ROW_BYTES), from + A_BYTES);
                wait_multiplied<1>();
            } while (++at < repeats * LOOP_SLOTS);
            // The last of this round's are under way; the other's come behind them.
            if (group == 0) {
                asm volatile("bar.arrive 5, 256;" : : : "memory");
            } else if (round + 1 < loop.rounds) {
                asm volatile("bar.arrive 4, 256;" : : : "memory");
            }
            wait_multiplied<0>();
            if (fault) {
                flip(sums[0], loop.fault_bit);
            }
#pragma unroll
            for (u32 i = 0; i < SUMS; ++i) {
                hash = (hash ^ raw_bits(sums[i])) * HASH_MULTIPLIER;
            }
        }
        atomicXor((u32 *)&hashes[warp], (u32)hash);
        atomicXor((u32 *)&hashes[warp] + 1, (u32)(hash >> 32));
    }
    write_loop_record(loop, hashes, 8, 0, 0, time0, clock0);
}

#define WGMMA(NAME, FORMAT)                                                                                            \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)                                     \
        gemm_##NAME(Gemm gemm, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,               \
                    const __grid_constant__ TensorMap c) {                                                             \
        wgmma_gemm<FORMAT, 1>(gemm, &a, &b, &c);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(384, 1)                                                               \
        gemm_##NAME##_alone(Gemm gemm, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,       \
                            const __grid_constant__ TensorMap c) {                                                     \
        wgmma_gemm<FORMAT, 0>(gemm, &a, &b, &c);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(384, 1) loop_##NAME(Loop loop) { wgmma_loop<FORMAT>(loop); }

WGMMA(bf16, BF16)
WGMMA(fp16, FP16)
WGMMA(tf32, TF32)
WGMMA(fp8, FP8)
WGMMA(int8, INT8)
