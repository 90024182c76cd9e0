/* Causal attention with documents, bfloat16, head size 64, for CPUs with avx512_bf16.
 *
 * q  [B, T, NQ, 64]   k, v [B, T, NK, 64]   start [B, T] int32: the first key that query t may see.
 * A query sees the keys start[t] .. t. T is a multiple of 64. Query head h reads key head h / (NQ / NK).
 *
 * Every product is C[rows][64] = A[rows][K] * B[K][64] with vdpbf16ps: A gives pairs along K as one
 * 32-bit word, B is packed so that word [k / 2][column] holds the rows k and k + 1 of that column.
 */
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define D 64
#define QB 32
typedef uint16_t u16;
typedef uint32_t u32;

static inline __m512 dp(__m512 c, u32 a, __m512i b) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
}

/* C[4][64] (+)= A[4][2 * k2] * B[2 * k2][64]; lda and ldb count 32-bit words, ldc counts floats. */
static inline __attribute__((always_inline)) void gemm4(const u32 *a, long lda, const u32 *b, long ldb, float *c,
                                                        long ldc, long k2, int add) {
    __m512 r[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) r[i][j] = add ? _mm512_loadu_ps(c + i * ldc + 16 * j) : _mm512_setzero_ps();
    for (long k = 0; k < k2; k++) {
        __m512i w[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) w[j] = _mm512_loadu_si512(b + k * ldb + 16 * j);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u32 x = a[i * lda + k];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) r[i][j] = dp(r[i][j], x, w[j]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) _mm512_storeu_ps(c + i * ldc + 16 * j, r[i][j]);
}

static inline __m512 exp2v(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-126.f));
    __m512 n = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.3333558e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
    return _mm512_scalef_ps(p, n);
}

static inline __m256i bf(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

static inline __m512 up(const u16 *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}

/* x [n][64] bf16 rows, ld halves apart -> out [32][ldo] words, out[d][row] = the pair (2d, 2d + 1) of the row. */
static void pack_t(const u16 *x, long ld, u32 *out, long ldo, long n) {
    for (long r = 0; r < n; r++) {
        const u32 *p = (const u32 *)(x + r * ld);
        for (int d = 0; d < D / 2; d++) out[d * ldo + r] = p[d];
    }
}

/* x [n][64] bf16 rows -> out [n / 2][64] words, the rows 2r and 2r + 1 interleaved. */
static void pack_n(const u16 *x, long ld, u32 *out, long n) {
    for (long r = 0; r < n / 2; r++)
        for (int d = 0; d < D; d += 16) {
            __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(x + 2 * r * ld + d)));
            __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(x + (2 * r + 1) * ld + d)));
            _mm512_storeu_si512(out + r * D + d, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
        }
}

/* x [QB][64] bf16 rows -> out [64][QB / 2] words, the pair (2r, 2r + 1) of column d. */
static void pack_a(const u16 *x, long ld, u32 *out) {
    for (int r = 0; r < QB / 2; r++)
        for (int d = 0; d < D; d++)
            out[d * (QB / 2) + r] = (u32)x[2 * r * ld + d] | ((u32)x[(2 * r + 1) * ld + d] << 16);
}

static void *get(size_t n) {
    void *p = NULL;
    return posix_memalign(&p, 64, n + 64) ? NULL : p;
}

static inline long lowest(const int32_t *start, long t0) {
    long m = start[t0];
    for (int i = 1; i < QB; i++)
        if (start[t0 + i] < m) m = start[t0 + i];
    return m / 64 * 64;
}

/* out [B, T, NQ, 64], lse [B, NQ, T] (base 2, of the scaled scores). */
void attention_forward(const u16 *q, const u16 *k, const u16 *v, const int32_t *start, u16 *out, float *lse,
                       long B, long T, long NQ, long NK, long threads) {
    const float scale = 0.125f * 1.44269504f;
    const long G = NQ / NK, sq = NQ * D, sk = NK * D;
#pragma omp parallel num_threads(threads)
    {
        u32 *kt = get(T * D * 2), *vn = get(T * D * 2);
        float *s = get(QB * T * 4), *o = get(QB * D * 4);
        u16 *p = get(QB * T * 2);
#pragma omp for schedule(dynamic, 1)
        for (long bk = 0; bk < B * NK; bk++) {
            long b = bk / NK, h0 = bk % NK * G;
            const int32_t *st = start + b * T;
            pack_t(k + b * T * sk + bk % NK * D, sk, kt, T, T);
            pack_n(v + b * T * sk + bk % NK * D, sk, vn, T);
            for (long h = h0; h < h0 + G; h++)
                for (long t0 = 0; t0 < T; t0 += QB) {
                    const u16 *qp = q + b * T * sq + t0 * sq + h * D;
                    long k0 = lowest(st, t0), k1 = (t0 + QB + 63) / 64 * 64;
                    for (long kb = k0; kb < k1; kb += 64)
                        for (int r = 0; r < QB; r += 4)
                            gemm4((const u32 *)(qp + r * sq), sq / 2, kt + kb, T, s + r * T + kb, T, D / 2, 0);
                    float inv[QB];
                    for (int r = 0; r < QB; r++) {
                        long a = st[t0 + r], z = t0 + r + 1, a16 = a / 16 * 16;
                        float *sr = s + r * T;
                        __m512 m = _mm512_set1_ps(-1e30f), sum = _mm512_setzero_ps();
                        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#define MASK(c) (_mm512_cmpge_epi32_mask(_mm512_add_epi32(lane, _mm512_set1_epi32((int)(c))), _mm512_set1_epi32((int)a)) & \
                 _mm512_cmplt_epi32_mask(_mm512_add_epi32(lane, _mm512_set1_epi32((int)(c))), _mm512_set1_epi32((int)z)))
                        for (long c = a16; c < z; c += 16)
                            m = _mm512_mask_max_ps(m, MASK(c), m, _mm512_loadu_ps(sr + c));
                        float mx = _mm512_reduce_max_ps(m) * scale;
                        for (long c = k0; c < a16; c += 16) _mm256_storeu_si256((void *)(p + r * T + c), _mm256_setzero_si256());
                        long c = a16;
                        for (; c < z; c += 16) {
                            __m512 e = _mm512_maskz_mov_ps(MASK(c), exp2v(_mm512_fmsub_ps(_mm512_loadu_ps(sr + c), _mm512_set1_ps(scale), _mm512_set1_ps(mx))));
                            sum = _mm512_add_ps(sum, e);
                            _mm256_storeu_si256((void *)(p + r * T + c), bf(e));
                        }
                        for (; c < k1; c += 16) _mm256_storeu_si256((void *)(p + r * T + c), _mm256_setzero_si256());
                        float total = _mm512_reduce_add_ps(sum);
                        inv[r] = 1.f / total;
                        lse[(b * NQ + h) * T + t0 + r] = mx + log2f(total);
                    }
                    for (int r = 0; r < QB; r += 4)
                        gemm4((const u32 *)(p + r * T + k0), T / 2, vn + k0 / 2 * D, D, o + r * D, D, (k1 - k0) / 2, 0);
                    for (int r = 0; r < QB; r++)
                        for (int d = 0; d < D; d += 16)
                            _mm256_storeu_si256((void *)(out + (b * T + t0 + r) * sq + h * D + d),
                                                bf(_mm512_mul_ps(_mm512_loadu_ps(o + r * D + d), _mm512_set1_ps(inv[r]))));
                }
        }
        free(kt), free(vn), free(s), free(o), free(p);
    }
}

/* dq [B, T, NQ, 64], dk, dv [B, T, NK, 64] from g = d out. */
void attention_backward(const u16 *g, const u16 *q, const u16 *k, const u16 *v, const int32_t *start, const u16 *out,
                        const float *lse, u16 *dq, u16 *dk, u16 *dv, long B, long T, long NQ, long NK, long threads) {
    const float scale = 0.125f * 1.44269504f;
    const long G = NQ / NK, sq = NQ * D, sk = NK * D;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#pragma omp parallel num_threads(threads)
    {
        u32 *kt = get(T * D * 2), *vt = get(T * D * 2), *kn = get(T * D * 2);
        float *s = get(QB * T * 4), *e = get(QB * T * 4), *o = get(QB * D * 4);
        float *dkt = get(D * T * 4), *dvt = get(D * T * 4);
        u16 *ds = get(QB * T * 2);
        u32 *pi = get(QB * T * 2), *dsi = get(QB * T * 2), *qa = get(QB * D * 2), *ga = get(QB * D * 2);
#pragma omp for schedule(dynamic, 1)
        for (long bk = 0; bk < B * NK; bk++) {
            long b = bk / NK, h0 = bk % NK * G;
            const int32_t *st = start + b * T;
            const u16 *kp = k + b * T * sk + bk % NK * D, *vp = v + b * T * sk + bk % NK * D;
            pack_t(kp, sk, kt, T, T);
            pack_t(vp, sk, vt, T, T);
            pack_n(kp, sk, kn, T);
            memset(dkt, 0, D * T * 4);
            memset(dvt, 0, D * T * 4);
            for (long h = h0; h < h0 + G; h++)
                for (long t0 = 0; t0 < T; t0 += QB) {
                    long at = (b * T + t0) * sq + h * D;
                    const u16 *qp = q + at, *gp = g + at, *op = out + at;
                    long k0 = lowest(st, t0), k1 = (t0 + QB + 63) / 64 * 64;
                    pack_a(qp, sq, qa);
                    pack_a(gp, sq, ga);
                    for (long kb = k0; kb < k1; kb += 64)
                        for (int r = 0; r < QB; r += 4) {
                            gemm4((const u32 *)(qp + r * sq), sq / 2, kt + kb, T, s + r * T + kb, T, D / 2, 0);
                            gemm4((const u32 *)(gp + r * sq), sq / 2, vt + kb, T, e + r * T + kb, T, D / 2, 0);
                        }
                    for (int r = 0; r < QB; r += 2) {
                        float dl[2], ls[2];
                        for (int i = 0; i < 2; i++) {
                            __m512 x = _mm512_setzero_ps();
                            for (int d = 0; d < D; d += 16)
                                x = _mm512_fmadd_ps(up(gp + (r + i) * sq + d), up(op + (r + i) * sq + d), x);
                            dl[i] = _mm512_reduce_add_ps(x);
                            ls[i] = lse[(b * NQ + h) * T + t0 + r + i];
                        }
                        for (long c = k0; c < k1; c += 16) {
                            __m512i pw[2], dw[2];
                            __m512i col = _mm512_add_epi32(lane, _mm512_set1_epi32((int)c));
                            for (int i = 0; i < 2; i++) {
                                long t = t0 + r + i;
                                __mmask16 m = _mm512_cmpge_epi32_mask(col, _mm512_set1_epi32(st[t])) &
                                              _mm512_cmple_epi32_mask(col, _mm512_set1_epi32((int)t));
                                __m512 x = _mm512_maskz_mov_ps(m, exp2v(_mm512_fmsub_ps(_mm512_loadu_ps(s + (r + i) * T + c),
                                                                                        _mm512_set1_ps(scale), _mm512_set1_ps(ls[i]))));
                                __m512 y = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.125f)),
                                                         _mm512_sub_ps(_mm512_loadu_ps(e + (r + i) * T + c), _mm512_set1_ps(dl[i])));
                                y = _mm512_maskz_mov_ps(m, y);
                                pw[i] = _mm512_cvtepu16_epi32(bf(x));
                                __m256i yb = bf(y);
                                dw[i] = _mm512_cvtepu16_epi32(yb);
                                _mm256_storeu_si256((void *)(ds + (r + i) * T + c), yb);
                            }
                            _mm512_storeu_si512(pi + r / 2 * T + c, _mm512_or_si512(pw[0], _mm512_slli_epi32(pw[1], 16)));
                            _mm512_storeu_si512(dsi + r / 2 * T + c, _mm512_or_si512(dw[0], _mm512_slli_epi32(dw[1], 16)));
                        }
                    }
                    for (int r = 0; r < QB; r += 4)
                        gemm4((const u32 *)(ds + r * T + k0), T / 2, kn + k0 / 2 * D, D, o + r * D, D, (k1 - k0) / 2, 0);
                    for (int r = 0; r < QB; r++)
                        for (int d = 0; d < D; d += 16)
                            _mm256_storeu_si256((void *)(dq + at + r * sq + d), bf(_mm512_loadu_ps(o + r * D + d)));
                    for (long kb = k0; kb < k1; kb += 64)
                        for (int d = 0; d < D; d += 4) {
                            gemm4(qa + d * (QB / 2), QB / 2, dsi + kb, T, dkt + d * T + kb, T, QB / 2, 1);
                            gemm4(ga + d * (QB / 2), QB / 2, pi + kb, T, dvt + d * T + kb, T, QB / 2, 1);
                        }
                }
            for (int d = 0; d < D; d++)
                for (long t = 0; t < T; t += 16) {
                    u16 x[16], y[16];
                    _mm256_storeu_si256((void *)x, bf(_mm512_loadu_ps(dkt + d * T + t)));
                    _mm256_storeu_si256((void *)y, bf(_mm512_loadu_ps(dvt + d * T + t)));
                    for (int i = 0; i < 16; i++) {
                        dk[(b * T + t + i) * sk + bk % NK * D + d] = x[i];
                        dv[(b * T + t + i) * sk + bk % NK * D + d] = y[i];
                    }
                }
        }
        free(kt), free(vt), free(kn), free(s), free(e), free(o), free(dkt), free(dvt), free(ds);
        free(pi), free(dsi), free(qa), free(ga);
    }
}
