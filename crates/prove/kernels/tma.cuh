// What the kernels share whose operands TMA fetches: tiles, the barriers of a ring in shared memory, and fetches.
#pragma once
#include "common.cuh"

#define TILE_ROWS 128
#define TILE_COLUMNS 256
#define ROW_BYTES 128
#define A_BYTES (TILE_ROWS * ROW_BYTES)
#define B_BYTES (TILE_COLUMNS * ROW_BYTES)
#define STAGE_BYTES (A_BYTES + B_BYTES)

struct __align__(64) TensorMap {
    u64 words[16];
};

extern __shared__ u8 dynamic[];

DEVICE u32 shared_address(const void *pointer) {
    u32 address;
    asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(address) : "l"(pointer));
    return address;
}

DEVICE void barrier_init(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" : : "r"(barrier), "r"(count) : "memory");
}

DEVICE void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" : : "r"(barrier), "r"(bytes) : "memory");
}

DEVICE void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" : : "r"(barrier) : "memory");
}

DEVICE void fetch(u32 to, const TensorMap *map, u32 x, u32 y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 :
                 : "r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}

DEVICE void named_barrier(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

DEVICE u32 pack_bfloats(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// 512 bytes along K stay in shared memory.
#define LOOP_SLOTS 4

// Both operands of a loop, as TMA would lay them: the 16 bytes of a row of 128 in an order that its number gives.
template <int FORMAT> DEVICE void fill_ring(const Loop &loop, u32 ring) {
    const u32 rows = TILE_ROWS + TILE_COLUMNS;
    for (u32 at = threadIdx.x; at < LOOP_SLOTS * rows * 8; at += blockDim.x) {
        u32 chunk = at % 8, row = at / 8 % rows, slot = at / 8 / rows;
        bool of_b = row >= TILE_ROWS;
        u32 key = row_key(of_b ? loop.seed_b : loop.seed_a, of_b ? row - TILE_ROWS : row);
        uint4 made = operands16<FORMAT>(key, (slot * ROW_BYTES + chunk * 16) / Traits<FORMAT>::bytes);
        u32 to = ring + slot * STAGE_BYTES + row * ROW_BYTES + ((chunk ^ (row % 8)) << 4);
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                     :
                     : "r"(to), "r"(made.x), "r"(made.y), "r"(made.z), "r"(made.w)
                     : "memory");
    }
}
