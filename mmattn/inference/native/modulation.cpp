// What SMT's modulator computes up to its last layer: depthwise convolutions of
// several sizes, a matrix for each group of channels that holds one of each
// head, and the GELU. Batch normalization is folded into the matrices.

#include "depthwise.h"
#include "gelu.h"

namespace mmattn {
namespace {

// Where the matrices, (c * e, heads), and the bias, (c * e), lie beside the
// channels of the heads: (blocks, e, heads + 1, lanes), the bias last.
template <typename T>
Buffer<T> lay_out_matrices(const Plan<T>& plan, Index e, const T* matrices,
                           const T* bias) {
  const Index heads = plan.heads, blocks = plan.groups.size() / heads;
  Buffer<T> laid(blocks * e * (heads + 1) * kLanes<T>, T(0));
  for (Index j = 0; j < plan.c; ++j)
    for (Index k = 0; k < e; ++k) {
      const Index row = j * e + k;
      T* to = laid.data() + j % kLanes<T> +
              (j / kLanes<T> * e + k) * (heads + 1) * kLanes<T>;
      for (Index i = 0; i < heads; ++i)
        to[i * kLanes<T>] = matrices[row * heads + i];
      to[heads * kLanes<T>] = bias[row];
    }
  return laid;
}

// Widens a row from `sums`, group after group, to `out`, (columns, e, c).
// HEADS and E are the numbers of heads and of e, or 0 for any.
template <typename T, int HEADS, int E>
void widen_row(const Plan<T>& plan, Index any_e, const T* sums, const T* laid,
               T* out) {
  constexpr int lanes = kLanes<T>;
  const Index heads = HEADS ? HEADS : plan.heads, e = E ? E : any_e;
  const Index c = plan.c, below = plan.below();
  const Index blocks = plan.groups.size() / heads, columns = plan.size.columns;
  for (Index block = 0; block < blocks; ++block)
    for (Index column = 0; column < columns; ++column)
      for (Index k = 0; k < e; ++k)
        for (Index lane = 0; lane < lanes; lane += Simd<T>::width) {
          const T* from = sums + block * below + column * lanes + lane;
          const T* matrix =
              laid + (block * e + k) * (heads + 1) * lanes + lane;
          Vector<T> sum = vector_at(matrix + heads * lanes);
          for (Index i = 0; i < heads; ++i)
            sum += vector_at(matrix + i * lanes) *
                   vector_at(from + i * blocks * below);
          const Index first = block * lanes + lane;
          store(out + (column * e + k) * c + first, gelu(sum),
                c - first);
        }
}

template <typename T>
void expand(const Plan<T>& plan, const T* x, Index step, const T* weights,
            const T* bias, Index e, const T* matrices, const T* last_bias,
            T* out, Index threads) {
  const auto taps = plan.lay_out(weights, false, false);
  const auto laid_bias = lay_out_bias(plan, bias);
  const auto laid = lay_out_matrices(plan, e, matrices, last_bias);
  const Index columns = plan.size.columns, reach = plan.reach;
  const Index num_out = columns * plan.c * e;
  Buffer<Buffer<T>> apart(threads);
  for_rows(
      plan, threads,
      [&](Index thread, Index image, Index first, Index end, Work<T>& work) {
        const Index start = image * plan.size.rows;
        apart[thread].resize(num_out);
        for (Index row = first - reach; row < end + reach; ++row) {
          const T* from = x + (start + row) * columns * step;
          work.fill(plan, row, step, [=](Index at, Index lanes) {
            return load(from + at, lanes);
          });
          const Index done = row - reach;
          if (done < first) continue;
          convolve_row(plan, done, taps.data(), laid_bias.data(), work);
          T* widened = apart[thread].data();
          if (plan.heads == 4 && e == 2)  // as published
            widen_row<T, 4, 2>(plan, e, work.one.data(), laid.data(), widened);
          else
            widen_row<T, 0, 0>(plan, e, work.one.data(), laid.data(), widened);
          regroup<false>(columns, e, plan.c, widened,
                         out + (start + done) * num_out);
        }
      });
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                              \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_modulation_##SUFFIX(              \
      const T* x, mmattn::Index step, const T* weights, const T* bias,        \
      const mmattn::Index* sides, mmattn::Index heads, mmattn::Index c,       \
      mmattn::Index images, mmattn::Index rows, mmattn::Index columns,        \
      mmattn::Index e, const T* matrices, const T* last_bias, T* out,         \
      mmattn::Index threads) {                                                \
    return mmattn::guarded([&] {                                              \
      const mmattn::Plan<T> plan({images, rows, columns}, sides, heads, c);   \
      mmattn::expand<T>(plan, x, step, weights, bias, e, matrices, last_bias, \
                        out, threads);                                        \
    });                                                                       \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
