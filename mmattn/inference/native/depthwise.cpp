// A depthwise convolution, with the GELU behind it if asked for.

#include "depthwise.h"
#include "gelu.h"

namespace mmattn {
namespace {

template <typename T>
void convolve(const Plan<T>& plan, const T* x, Index step, const T* weights,
              const T* bias, bool with_gelu, T* out, Index threads) {
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
               if (with_gelu)
                 for_row(plan, C, [=](Index at, Index laid, Index lanes) {
                   store(own + at, gelu(vector_at(sums + laid)), lanes);
                 });
               else
                 for_row(plan, C, [=](Index at, Index laid, Index lanes) {
                   store(own + at, vector_at(sums + laid), lanes);
                 });
             }
           });
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                              \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_depthwise_##SUFFIX(           \
      const T* x, mmattn::Index step, const T* weights, const T* bias,        \
      mmattn::Index side, mmattn::Index C, mmattn::Index with_gelu, mmattn::Index images, mmattn::Index rows,      \
      mmattn::Index columns, T* out, mmattn::Index threads) {                 \
    return mmattn::guarded([&] {                                              \
      const mmattn::Plan<T> plan({images, rows, columns}, &side, 1, C);       \
      mmattn::convolve<T>(plan, x, step, weights, bias, with_gelu, out, threads);                           \
    });                                                                       \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
