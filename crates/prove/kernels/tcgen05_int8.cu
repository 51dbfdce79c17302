// Integers: 10.0 has them, the rest of its family has not.
#include "tcgen05.cuh"

TCGEN05_KERNELS(int8, INT8)
