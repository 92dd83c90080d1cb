/* bf16 numbers as fp32, and the few functions that the kernels share. */
#pragma once
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef int64_t idx;

static inline float wide(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* To the nearest, ties to even. */
static inline bf16 narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* exp(x) = 2^n 2^f, f in [-1/2, 1/2] by its Taylor series; relative error 3e-7 near 0, growing
 * with |x| to 4e-6. */
static inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float t = x * 1.44269504f, n = __builtin_rintf(t), f = t - n;
    float p = 1.0f + f * (0.693147181f + f * (0.240226507f + f * (0.0555041087f +
              f * (0.00961812911f + f * (0.00133335581f + f * 0.000154035304f)))));
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}
