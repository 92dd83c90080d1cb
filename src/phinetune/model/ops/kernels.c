/* Memory passes of a training step, fused, for bf16 on a CPU: each function reads its inputs once and writes its
 * outputs once, where a chain of tensor operations goes through memory five to ten times. Arithmetic is in fp32.
 *
 * The plain references are in plain.py. Compiled when first used (native.py); without a compiler the plain ones run.
 * Rows are divided among threads and never summed across them, so the result does not depend on their number.
 */
#include "numbers.h"

static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/* y = narrow(x scale) weight, scale = 1 / rms(x). */
void rms_norm(const bf16 *x, const bf16 *weight, float eps, bf16 *y, float *scale, idx rows, idx n) {
#pragma omp parallel for schedule(static)
    for (idx r = 0; r < rows; r++) {
        const bf16 *xr = x + r * n;
        bf16 *yr = y + r * n;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (idx i = 0; i < n; i++) sum += wide(xr[i]) * wide(xr[i]);
        float s = 1.0f / __builtin_sqrtf(sum / n + eps);
        scale[r] = s;
#pragma omp simd
        for (idx i = 0; i < n; i++) yr[i] = narrow(wide(narrow(wide(xr[i]) * s)) * wide(weight[i]));
    }
}

/* gx = s (g w - u mean(g w u)), u = x s. */
void rms_norm_backward(const bf16 *g, const bf16 *x, const bf16 *weight, const float *scale, bf16 *gx, idx rows,
                       idx n) {
#pragma omp parallel for schedule(static)
    for (idx r = 0; r < rows; r++) {
        const bf16 *gr = g + r * n, *xr = x + r * n;
        bf16 *out = gx + r * n;
        float s = scale[r], along = 0;
#pragma omp simd reduction(+ : along)
        for (idx i = 0; i < n; i++) along += wide(gr[i]) * wide(weight[i]) * wide(xr[i]);
        along *= s * s / n;
#pragma omp simd
        for (idx i = 0; i < n; i++) out[i] = narrow(s * (wide(gr[i]) * wide(weight[i]) - wide(xr[i]) * along));
    }
}

void gated_silu(const bf16 *gate, const bf16 *up, bf16 *y, idx n) {
#pragma omp parallel for simd schedule(static)
    for (idx i = 0; i < n; i++) {
        float x = wide(gate[i]);
        y[i] = narrow(x * sigmoid(x) * wide(up[i]));
    }
}

void gated_silu_backward(const bf16 *g, const bf16 *gate, const bf16 *up, bf16 *g_gate, bf16 *g_up, idx n) {
#pragma omp parallel for simd schedule(static)
    for (idx i = 0; i < n; i++) {
        float x = wide(gate[i]), s = sigmoid(x), gi = wide(g[i]);
        g_up[i] = narrow(gi * x * s);
        g_gate[i] = narrow(gi * wide(up[i]) * s * (1.0f + x * (1.0f - s)));
    }
}

/* gelu(x) = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3): (1 + tanh z) / 2 is sigmoid(2 z). */
#define GELU_A 1.5957691216f
#define GELU_B 0.044715f

void gelu(const bf16 *x, bf16 *y, idx n) {
#pragma omp parallel for simd schedule(static)
    for (idx i = 0; i < n; i++) {
        float v = wide(x[i]);
        y[i] = narrow(v * sigmoid(GELU_A * v * (1.0f + GELU_B * v * v)));
    }
}

void gelu_backward(const bf16 *g, const bf16 *x, bf16 *gx, idx n) {
#pragma omp parallel for simd schedule(static)
    for (idx i = 0; i < n; i++) {
        float v = wide(x[i]), s = sigmoid(GELU_A * v * (1.0f + GELU_B * v * v));
        float slope = s + v * s * (1.0f - s) * GELU_A * (1.0f + 3.0f * GELU_B * v * v);
        gx[i] = narrow(wide(g[i]) * slope);
    }
}

/* A 32-bit hash of (seed, place), the finaliser of MurmurHash3 applied twice; an element is dropped below `threshold`. */
static inline uint32_t mix(uint32_t h) {
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    return h ^ (h >> 16);
}

static inline int kept(uint32_t seed, idx i, uint32_t threshold) {
    return mix(mix((uint32_t)i ^ seed) + seed) >= threshold;
}

void drop(const bf16 *x, bf16 *y, uint32_t seed, uint32_t threshold, idx n) {
#pragma omp parallel for simd schedule(static)
    for (idx i = 0; i < n; i++) y[i] = kept(seed, i, threshold) ? x[i] : 0;
}

/* sum += drop(x) */
void add_dropped(bf16 *sum, const bf16 *x, uint32_t seed, uint32_t threshold, idx n) {
#pragma omp parallel for simd schedule(static)
    for (idx i = 0; i < n; i++)
        sum[i] = narrow(wide(sum[i]) + (kept(seed, i, threshold) ? wide(x[i]) : 0.0f));
}

/* A row of logits becomes softmax - onehot(target) in place; loss[r] = -log softmax[target]. */
void softmax_minus_onehot(bf16 *logits, const idx *targets, float *loss, idx rows, idx n) {
#pragma omp parallel for schedule(static)
    for (idx r = 0; r < rows; r++) {
        bf16 *row = logits + r * n;
        float highest = -3.4e38f, at = wide(row[targets[r]]), total = 0;
#pragma omp simd reduction(max : highest)
        for (idx i = 0; i < n; i++) {
            float v = wide(row[i]);
            highest = v > highest ? v : highest;
        }
#pragma omp simd reduction(+ : total)
        for (idx i = 0; i < n; i++) total += fast_exp(wide(row[i]) - highest);
        float inverse = 1.0f / total;
#pragma omp simd
        for (idx i = 0; i < n; i++) row[i] = narrow(fast_exp(wide(row[i]) - highest) * inverse);
        float p = fast_exp(at - highest) * inverse;
        row[targets[r]] = narrow(p - 1.0f);
        loss[r] = highest - at + __builtin_logf(total);
    }
}
