// Depthwise convolutions whose heads have kernels of different sides, and
// their gradients. The result is regrouped: channel j of head i lies at
// j * heads + i.

#include "depthwise.h"

namespace mmattn {
namespace {

template <typename T>
void convolve(const Plan<T>& plan, const T* x, Index step, const T* weights,
              const T* bias, T* out, Index threads) {
  const auto taps = plan.lay_out(weights, false, false);
  const auto laid_bias = lay_out_bias(plan, bias);
  const Index columns = plan.size.columns, C = plan.C, reach = plan.reach;
  for_rows(plan, threads,
           [&](Index, Index image, Index first, Index end, Work<T>& work) {
             const Index start = image * plan.size.rows;
             for (Index row = first - reach; row < end + reach; ++row) {
               const T* from = x + (start + row) * columns * step;
               work.fill(plan, row, step, [=](Index at, Index lanes) {
                 return load(from + at, lanes);
               });
               const Index done = row - reach;
               if (done < first) continue;
               convolve_row(plan, done, taps.data(), laid_bias.data(), work);
               const T* sums = work.one.data();
               T* own = out + (start + done) * columns * C;
               T* apart = plan.heads > 1 ? work.other.data() : own;
               for_row(plan, C, [=](Index at, Index laid, Index lanes) {
                 store(apart + at, vector_at(sums + laid), lanes);
               });
               if (plan.heads > 1)
                 regroup<false>(columns, plan.heads, plan.c, apart, own);
             }
           });
}

// Adds what a row gives to the gradients of a group's kernels: the values of
// the map times the gradients that the taps see. The first tap comes last.
template <typename T, int SIDE>
void correlate_group(const T* const* seen, Index offset, Index columns,
                     Index any_side, const T* values, T* out) {
  constexpr int lanes = kLanes<T>;
  // So many sums at a time that none waits for itself: of taps beside each
  // other, of rows of taps, and several of each.
  constexpr int num_taps = SIDE ? SIDE : 1, rows = SIDE == 3 ? 3 : 1;
  constexpr int copies = SIDE == 0 ? kColumns : SIDE == 5 ? 2 : 1;
  const Index side = SIDE ? SIDE : any_side;
#pragma GCC unroll 1
  for (Index lane = 0; lane < lanes; lane += Simd<T>::width) {
    T* to = out + (side * side - 1) * lanes + lane;
#pragma GCC unroll 1
    for (Index row = 0; row < side; row += rows)
#pragma GCC unroll 1
      for (Index first = 0; first < side; first += num_taps) {
        const T* from[rows];
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i)
          from[i] = seen[row + i] + offset + first * lanes + lane;
        Vector<T> sums[copies][rows][num_taps] = {};
        for (Index column = 0; column < columns; column += kColumns) {
#pragma GCC unroll 16
          for (int t = 0; t < kColumns; ++t) {
            const Index at = (column + t) * lanes;
            const Vector<T> value = vector_at(values + lane + at);
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i)
#pragma GCC unroll 16
              for (int j = 0; j < num_taps; ++j)
                sums[t % copies][i][j] +=
                    value * vector_at(from[i] + at + j * lanes);
          }
        }
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 16
          for (int j = 0; j < num_taps; ++j, to -= lanes)
#pragma GCC unroll 16
            for (int k = 0; k < copies; ++k) vector_at(to) += sums[k][i][j];
      }
  }
}

// Adds the gradients of a row to those of the bias.
template <typename T>
void add_group(const T* grad, Index columns, T* out) {
  constexpr int lanes = kLanes<T>;
  for (Index lane = 0; lane < lanes; lane += Simd<T>::width) {
    Vector<T> sum{};
    for (Index column = 0; column < columns; ++column)
      sum += vector_at(grad + column * lanes + lane);
    vector_at(out + lane) += sum;
  }
}

// Gradients of the kernels and of the bias, from one row.
template <typename T>
void correlate_row(const Plan<T>& plan, Index row, bool of_weights,
                   bool of_bias, Work<T>& work, T* found) {
  const Index columns = plan.size.columns;
  Index offset = 0;
  T* own_bias = found + plan.num_taps;
  for (const Group& group : plan.groups) {
    const T* const* seen = work.look(plan, row, group.side);
    if (of_weights)
      with_side(group.side, [&](auto side) {
        correlate_group<T, side>(seen, offset, columns, group.side,
                                 work.other.data() + offset,
                                 found + group.taps);
      });
    if (of_bias) {
      const Index middle = group.side / 2;
      add_group(seen[middle] + offset + middle * kLanes<T>, columns, own_bias);
    }
    offset += plan.below();
    own_bias += kLanes<T>;
  }
}

template <typename T>
void convolve_backward(const Plan<T>& plan, const T* x, Index step,
                       const T* grad, const T* weights, T* grad_x,
                       T* grad_weights, T* grad_bias, Index threads) {
  const auto taps = plan.lay_out(weights, false, true);
  const auto no_bias = lay_out_bias<T>(plan, nullptr);
  const Index columns = plan.size.columns, C = plan.C, reach = plan.reach;
  const Index num_found = plan.num_taps + no_bias.size();
  Buffer<Buffer<T>> found(threads);
  for (auto& own : found) own.assign(num_found, T(0));
  for_rows(
      plan, threads,
      [&](Index thread, Index image, Index first, Index end, Work<T>& work) {
        const Index start = image * plan.size.rows;
        for (Index row = first - reach; row < end + reach; ++row) {
          const T* from = grad + (start + row) * columns * C;
          if (plan.heads > 1 && row >= 0 && row < plan.size.rows) {
            regroup<true>(columns, plan.heads, plan.c, from, work.one.data());
            from = work.one.data();
          }
          work.fill(plan, row, C, [=](Index at, Index lanes) {
            return load(from + at, lanes);
          });
          const Index done = row - reach;
          if (done < first) continue;
          const Index here = (start + done) * columns;
          if (grad_x) {
            convolve_row(plan, done, taps.data(), no_bias.data(), work);
            const T* laid_out = work.one.data();
            T* to = grad_x + here * C;
            for_row(plan, C, [=](Index at, Index laid, Index lanes) {
              store(to + at, vector_at(laid_out + laid), lanes);
            });
          }
          if (grad_weights) {
            const T* values = x + here * step;
            T* to = work.other.data();
            for_row(plan, step, [=](Index at, Index laid, Index lanes) {
              vector_at(to + laid) = load(values + at, lanes);
            });
          }
          if (grad_weights || grad_bias)
            correlate_row(plan, done, grad_weights, grad_bias, work,
                          found[thread].data());
        }
      });
  T* all = found[0].data();
  for (Index thread = 1; thread < threads; ++thread)
    for (Index i = 0; i < num_found; ++i) all[i] += found[thread][i];
  if (grad_weights)
    plan.for_weights(
        [&](Index weight, Index tap) { grad_weights[weight] = all[tap]; });
  if (grad_bias) {
    all += plan.num_taps;
    for (const Group& group : plan.groups) {
      std::copy_n(all, group.count, grad_bias + group.channel);
      all += kLanes<T>;
    }
  }
}

}  // namespace
}  // namespace mmattn

using mmattn::Index;

#define MMATTN_CONVOLUTION(T, NAME)                                          \
  extern "C" MMATTN_EXPORT Index mmattn_convolve_##NAME(                     \
      const T* x, Index step, const T* weights, const T* bias,               \
      const Index* sides, Index heads, Index c, Index images, Index rows,    \
      Index columns, T* out, Index threads) {                                \
    return mmattn::guarded([&] {                                             \
      const mmattn::Plan<T> plan({images, rows, columns}, sides, heads, c);  \
      mmattn::convolve<T>(plan, x, step, weights, bias, out, threads);       \
    });                                                                      \
  }                                                                          \
  /* Gradients that are null are not computed. */                            \
  extern "C" MMATTN_EXPORT Index mmattn_convolve_backward_##NAME(            \
      const T* x, Index step, const T* grad, const T* weights,               \
      const Index* sides, Index heads, Index c, Index images, Index rows,    \
      Index columns, T* grad_x, T* grad_weights, T* grad_bias,               \
      Index threads) {                                                       \
    return mmattn::guarded([&] {                                             \
      const mmattn::Plan<T> plan({images, rows, columns}, sides, heads, c);  \
      mmattn::convolve_backward<T>(plan, x, step, grad, weights, grad_x,     \
                                   grad_weights, grad_bias, threads);        \
    });                                                                      \
  }

MMATTN_CONVOLUTION(float, f32)
MMATTN_CONVOLUTION(double, f64)
